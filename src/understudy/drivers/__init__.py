"""Adapters to the engines: a driver carries out what core/actions.py names, and says what core/report.py asks."""
