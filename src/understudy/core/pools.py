"""What happens to a pool: ejection of the misbehaving, failover between its groups, and the events that say why.

The front of everything about pools: callers import from here. What is known and decided is in pool_state, who is usable
in pool_health, the parts of the decision in ejector, pool_failover and pool_events, what an operator orders in verbs.

RULES: no clock, no I/O, no HAProxy syntax. `decide` looks at what was seen and answers with the next record and the
events that say why; whoever calls it stores the record before the router hears of it, and hands its memory to the next
decision.
"""

from dataclasses import replace

from understudy.core.clock import Now
from understudy.core.ejector import eject
from understudy.core.failover_mode import FailoverMode
from understudy.core.model import PoolService
from understudy.core.objectives import ServiceHealth
from understudy.core.pool_events import changes, health_events
from understudy.core.pool_failover import goal, shift
from understudy.core.pool_health import service_health
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
    """The next record of a pool and why. The record is the very one of the view when nothing in it changed."""
    if _quiet(view):
        return PoolDecision(view.record, (), view.memory)
    ejection = eject(view, now)
    shifted = shift(replace(view, record=ejection.record), now)
    record = view.record if shifted.record == view.record else shifted.record
    before, health = view.memory.health, service_health(view.seen, view.service, record)
    told = before if health is ServiceHealth.UNKNOWN else health
    events = (
        *changes(view),
        *ejection.events,
        *shifted.events,
        *(health_events(view.seen, view.service, record, health) if told is not before else ()),
    )
    memory = replace(
        shifted.memory,
        troubles=ejection.troubles,
        open_groups=ejection.open_groups,
        health=told,
        decided=(view.service, record),
    )
    return PoolDecision(record, events, memory)


def adopt_spec(record: PoolRecord, service: PoolService) -> PoolRecord:
    """The record after the spec changed, without what no longer applies; the same object when nothing did.

    Orders and holds of endpoints that are gone are dropped, run-time weights also where the spec's weight changed, and
    holds where the spec no longer wants the ejector. Traffic that had moved by itself stays where it is when the spec
    becomes `manual`. Slots are routes.allocate's work.
    """
    spec_weights = {endpoint.name: endpoint.weight for endpoint in service.endpoints}
    replaced = dict(record.weights_replaced)
    weights = tuple(
        (name, weight)
        for name, weight in record.weights
        if name in spec_weights and replaced.get(name, spec_weights[name]) == spec_weights[name]
    )
    kept = {name for name, _ in weights}
    watched = spec_weights if service.health.passive else {}
    manual = service.failover.mode is FailoverMode.MANUAL
    adopted = replace(
        record,
        admin=tuple((name, admin) for name, admin in record.admin if name in spec_weights),
        weights=weights,
        weights_replaced=tuple((name, weight) for name, weight in record.weights_replaced if name in kept),
        holds=tuple(hold for hold in record.holds if hold.endpoint in watched),
        past_holds=tuple(hold for hold in record.past_holds if hold.endpoint in watched),
        failed_over=record.failed_over or (manual and goal(record) == 100),
    )
    return record if adopted == record else adopted


def _quiet(view: PoolView) -> bool:
    """Whether nothing changed that a decision rests on, and nothing waits for time to pass."""
    record, seen, previous, memory = view.record, view.seen, view.previous, view.memory
    if memory.troubles or memory.open_groups or record.holds or record.past_holds or record.ramp:
        return False
    if previous is None or memory.decided is None or not memory.primary_stood:
        return False
    service, decided = memory.decided
    if (service is not view.service and service != view.service) or (decided is not record and decided != record):
        return False
    return seen is previous or (
        len(seen.endpoints) == len(previous.endpoints) and all(map(_alike, seen.endpoints, previous.endpoints))
    )


def _alike(one: EndpointSeen, other: EndpointSeen) -> bool:
    """Whether two looks at an endpoint differ in nothing that a decision rests on."""
    return one is other or (
        one.oper is other.oper
        and one.counters.errors == other.counters.errors
        and one.counters.downs == other.counters.downs
        and one.weight == other.weight
        and one.agent_lost is other.agent_lost
        and one.endpoint == other.endpoint
    )
