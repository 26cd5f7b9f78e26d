"""Availability, MTBF and MTTR of a service, from the moments at which its state changed. Pure arithmetic.

The journal is bounded, so the sums live in a ledger that is stored beside it and stepped forward with each look.
"""

from dataclasses import dataclass
from enum import StrEnum

from understudy.core.clock import Now


class ServiceHealth(StrEnum):
    """What a service is to its users."""

    UP = "up"
    DEGRADED = "degraded"
    """It serves, with less than its spec asks for."""
    DOWN = "down"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Ledger:
    """Sums since `since_wall_s`. Time in which nobody looked (no agent ran) counts as unknown, in neither sum."""

    since_wall_s: float
    health: ServiceHealth = ServiceHealth.UNKNOWN
    changed_wall_s: float = 0.0
    up_s: float = 0.0
    down_s: float = 0.0
    failures: int = 0
    requests: int = 0
    failed_requests: int = 0


@dataclass(frozen=True, slots=True)
class Objectives:
    """What a ledger amounts to. MTBF is the mean time from one failure's start to the next (MTTF + MTTR)."""

    since_wall_s: float
    observed_s: float
    availability_percent: float
    failures: int
    mtbf_s: float | None
    mttr_s: float | None
    requests: int
    failed_requests: int


def step(ledger: Ledger, health: ServiceHealth, elapsed_s: float, now: Now) -> Ledger:
    """The ledger after `elapsed_s` seconds in its former state, and with the state that is seen now."""
    raise NotImplementedError


def objectives(ledger: Ledger) -> Objectives:
    """The figures that the ledger amounts to."""
    raise NotImplementedError
