"""How a failover comes about: the one word that pools and clusters share. Nothing else lives here."""

from enum import StrEnum


class FailoverMode(StrEnum):
    """How traffic moves from those who serve to those who stand by."""

    FAST = "fast"
    """All at once, as soon as it must: a pool's primary group has no usable endpoint, a cluster's primary is lost."""
    GRADUAL = "gradual"
    """The backup group's share rises evenly over `over_ms`; pools only."""
    MANUAL = "manual"
    """Only when a person says so."""
