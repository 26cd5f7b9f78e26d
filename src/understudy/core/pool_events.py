"""What the journal is told of a pool's looks: endpoints that fell or came up, agent checks lost, the service's health.

Pure: two looks in, events out; nothing is decided here.
"""

from collections.abc import Iterator

from understudy.core.events import Event, EventKind, Fact
from understudy.core.model import PoolService
from understudy.core.objectives import ServiceHealth
from understudy.core.pool_health import SERVING, service_reason
from understudy.core.pool_state import EndpointSeen, Oper, PoolRecord, PoolSeen, PoolView
from understudy.core.words import count, span

HEALTH_KINDS = {
    ServiceHealth.UP: EventKind.SERVICE_UP,
    ServiceHealth.DEGRADED: EventKind.SERVICE_DEGRADED,
    ServiceHealth.DOWN: EventKind.SERVICE_DOWN,
}


def changes(view: PoolView) -> tuple[Event, ...]:
    """What became of each endpoint since the last look; nothing on the first, whose story the service's event tells."""
    if view.previous is None:
        return ()
    before = {one.endpoint: one for one in view.previous.endpoints}
    return tuple(
        event
        for one in view.seen.endpoints
        if one.endpoint in before
        for event in (
            *_moved(view.service, before[one.endpoint], one),
            *_agent(view.service, before[one.endpoint], one),
        )
    )


def health_events(seen: PoolSeen, service: PoolService, record: PoolRecord, health: ServiceHealth) -> tuple[Event, ...]:
    """The service's new health, which is known."""
    serving = sum(one.oper in SERVING for one in seen.endpoints)
    data = (("serving", serving), ("endpoints", len(service.endpoints)))
    return (Event(HEALTH_KINDS[health], service_reason(seen, service, record), service.name, None, data),)


def _moved(service: PoolService, before: EndpointSeen, seen: EndpointSeen) -> Iterator[Event]:
    """It went down, came up, or both between the two looks."""
    stood, stands = before.oper in SERVING, seen.oper in SERVING
    downs = seen.counters.downs - before.counters.downs
    fell = (stood or before.oper is Oper.DRAIN) and seen.oper is Oper.DOWN
    flapped = stood and stands and downs > 0
    check = seen.check or "no check has passed"
    if fell:
        yield _event(EventKind.ENDPOINT_DOWN, service, seen, f"is down: {check}.", check=seen.check)
    if flapped:
        text = f"was marked down {count(downs, 'time')} since the last look and is up again: {check}."
        yield _event(EventKind.ENDPOINT_DOWN, service, seen, text, check=seen.check, downs=downs)
    if flapped or (stands and before.oper in (Oper.DOWN, Oper.UNKNOWN, Oper.MAINT)):
        again = f" again after {span(before.since_s)} ({before.oper})" if not stood and before.since_s >= 1 else ""
        slow = (
            f"; its share rises over {span(service.health.slow_start_ms / 1000)}" if seen.oper is Oper.STARTING else ""
        )
        yield _event(EventKind.ENDPOINT_UP, service, seen, f"is up{again}: {check}{slow}.", check=seen.check)


def _agent(service: PoolService, before: EndpointSeen, seen: EndpointSeen) -> Iterator[Event]:
    """Its agent check stopped answering, or answers again."""
    if seen.agent_lost is before.agent_lost:
        return
    said = seen.agent or "no answer"
    if seen.agent_lost:
        text = f"does not answer its agent check ({said}); the last weight it told, {seen.weight}, stays in force."
        yield _event(EventKind.ENDPOINT_AGENT_LOST, service, seen, text, agent=said, weight=seen.weight)
    else:
        text = f"answers its agent check again ({said})."
        yield _event(EventKind.ENDPOINT_AGENT_BACK, service, seen, text, agent=said, weight=seen.weight)


def _event(kind: EventKind, service: PoolService, seen: EndpointSeen, text: str, **data: Fact) -> Event:
    return Event(kind, f"{seen.endpoint} of {service.name} {text}", service.name, seen.endpoint, tuple(data.items()))
