"""An agent's work for stateful clusters: its own nodes, and the steward's part. loop.py is where to begin to read."""
