"""Fencing a stateful node: the guard process, its client for the agent, and the durable mark of a fenced node."""
