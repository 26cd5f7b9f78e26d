"""Drives a proxy: the port, HAProxy, and a fake."""
