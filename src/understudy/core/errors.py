"""The two kinds of failure that a user meets; nothing that decides may live here."""


class Refused(Exception):
    """We will not or cannot; the text says what happened, why, and what to do next, in one sentence (exit code 1)."""


class Fault(Refused):
    """A thing outside failed us (HAProxy, the store, the disk, the network); same promise for the text."""
