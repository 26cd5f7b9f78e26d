"""What happens to a pool: ejection of the misbehaving, failover between its groups, and the events that say why.

The front of everything about pools: callers import from here. What is known and decided is in pool_state, who is usable in
pool_health, the parts of the decision in ejector, pool_failover and pool_events, what an operator orders in verbs.

RULES: no clock, no I/O, no HAProxy syntax. `decide` looks at what was seen and answers with the next record and the events
that say why; whoever calls it stores the record before the router hears of it, and hands its memory to the next decision.
"""

from understudy.core.clock import Now
from understudy.core.model import PoolService
from understudy.core.pool_state import (
    Admin,
    Counters,
    EndpointSeen,
    Hold,
    Mark,
    Oper,
    PoolDecision,
    PoolMemory,
    PoolRecord,
    PoolSeen,
    PoolView,
    Ramp,
    Trouble,
)

__all__ = [
    "Admin",
    "Counters",
    "EndpointSeen",
    "Hold",
    "Mark",
    "Oper",
    "PoolDecision",
    "PoolMemory",
    "PoolRecord",
    "PoolSeen",
    "PoolView",
    "Ramp",
    "Trouble",
    "adopt_spec",
    "decide",
]


def decide(view: PoolView, now: Now) -> PoolDecision:
    """The next record of a pool and why."""
    raise NotImplementedError


def adopt_spec(record: PoolRecord, service: PoolService) -> PoolRecord:
    """The record after the spec changed, without what no longer applies; the same object when nothing did."""
    raise NotImplementedError
