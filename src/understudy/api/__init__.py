"""The HTTP API, read-only plus what the command line's verbs need."""
