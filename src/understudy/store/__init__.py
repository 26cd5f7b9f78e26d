"""Small facts with revisions: the port and its adapters."""
