"""Availability, MTBF and MTTR of a service, from the moments at which its state changed. Pure arithmetic.

The journal is bounded, so the sums live in a ledger that is stored beside it and stepped forward with each look.
"""

from dataclasses import dataclass, replace
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
    """Sums since `since_wall_s`. Time in which nobody looked (no agent ran) counts as unknown, in neither sum.

    A service is measured from its first serving on: waiting for its servers to start is no failure; one that never
    served has been down all the time.
    """

    since_wall_s: float
    health: ServiceHealth = ServiceHealth.UNKNOWN
    changed_wall_s: float = 0.0
    up_s: float = 0.0
    down_s: float = 0.0
    failures: int = 0
    failing: bool = False
    """Whether the last failure has not been seen to end, so that a look away (unknown) does not count it twice."""
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


SERVING = (ServiceHealth.UP, ServiceHealth.DEGRADED)


def step(
    ledger: Ledger, health: ServiceHealth, elapsed_s: float, now: Now, *, requests: int = 0, failed_requests: int = 0
) -> Ledger:
    """The ledger after `elapsed_s` seconds in its former state, and with the state that is seen now.

    elapsed_s is measured by the boot clock and counts to the former state; a negative one counts as none. An agent that
    begins steps to UNKNOWN first, with no time elapsed: nobody looked while it was away. `requests` and
    `failed_requests` are those since the last step.
    """
    serving, served = health in SERVING, ledger.health in SERVING
    elapsed_s = max(0.0, elapsed_s)
    ledger = replace(
        ledger,
        health=health,
        changed_wall_s=ledger.changed_wall_s if health is ledger.health else now.wall_s,
        up_s=ledger.up_s + (elapsed_s if served else 0.0),
        down_s=ledger.down_s + (elapsed_s if ledger.health is ServiceHealth.DOWN else 0.0),
        requests=ledger.requests + max(0, requests),
        failed_requests=ledger.failed_requests + max(0, failed_requests),
    )
    if serving and not served and ledger.up_s == 0.0:
        return replace(ledger, since_wall_s=now.wall_s, down_s=0.0, failures=0, failing=False)
    if health is ServiceHealth.DOWN and not ledger.failing:
        return replace(ledger, failures=ledger.failures + 1, failing=True)
    return replace(ledger, failing=False) if serving and ledger.failing else ledger


def objectives(ledger: Ledger) -> Objectives:
    """The figures that the ledger amounts to; 100 % as long as nothing has been observed."""
    observed_s = ledger.up_s + ledger.down_s
    failures = ledger.failures
    return Objectives(
        since_wall_s=ledger.since_wall_s,
        observed_s=observed_s,
        availability_percent=100.0 * (ledger.up_s / observed_s) if observed_s else 100.0,
        failures=failures,
        mtbf_s=observed_s / failures if failures else None,
        mttr_s=ledger.down_s / failures if failures else None,
        requests=ledger.requests,
        failed_requests=ledger.failed_requests,
    )
