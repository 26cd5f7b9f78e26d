"""What an operator may order of a pool. Pure: a record in, a record and the event that says what was done out.

Each verb is idempotent: when there is nothing to do it answers with the very record it was given (`is`), and the
event's sentence says so; such an event is shown to the operator and not journaled. Refused tells why not and what to do
first.

An order that leaves a service without a usable endpoint is obeyed, as HAProxy does, since stopping a service is a thing
that people do on purpose; the sentence says what it costs.
"""

from dataclasses import replace

from understudy.core.clock import Now
from understudy.core.errors import Refused
from understudy.core.events import Event, EventKind
from understudy.core.failover_mode import FailoverMode
from understudy.core.model import MAX_WEIGHT, Endpoint, Group, PoolService
from understudy.core.objectives import ServiceHealth
from understudy.core.pool_failover import goal, start, strong_enough
from understudy.core.pool_health import backup_share, service_health, usable, weight_of
from understudy.core.pool_state import Admin, PoolMemory, PoolRecord, PoolSeen, PoolView
from understudy.core.words import listed, span

MEANING = {
    Admin.READY: "is ready: it serves once its checks pass",
    Admin.DRAIN: "drains: it gets no new clients and finishes those it has",
    Admin.MAINT: "is in maintenance: it gets no traffic and is not checked",
}


def set_admin(
    service: PoolService, record: PoolRecord, seen: PoolSeen, endpoint: str, admin: Admin
) -> tuple[PoolRecord, Event]:
    """Order an endpoint `ready`, `drain` or `maint`; whichever it is, a hold of the ejector ends and is forgotten."""
    name = _endpoint(service, endpoint).name
    held = any(hold.endpoint == name for hold in record.holds)
    present = dict(record.admin).get(name, Admin.READY)
    data = (("admin", str(admin)),)
    if present is admin and not held:
        text = f"{name} of {service.name} was {admin} already; nothing changed."
        return record, Event(EventKind.ENDPOINT_ADMIN, text, service.name, name, data)
    others = tuple((each, order) for each, order in record.admin if each != name)
    ordered = replace(
        record,
        admin=others if admin is Admin.READY else (*others, (name, admin)),
        holds=tuple(hold for hold in record.holds if hold.endpoint != name),
        past_holds=tuple(hold for hold in record.past_holds if hold.endpoint != name),
    )
    text = f"{name} of {service.name} {MEANING[admin]}{'; its hold is over' if held else ''}."
    text += "" if admin is Admin.READY else _cost(service, record, ordered, seen)
    return ordered, Event(EventKind.ENDPOINT_ADMIN, text, service.name, name, data)


def set_weight(service: PoolService, record: PoolRecord, endpoint: str, weight: int) -> tuple[PoolRecord, Event]:
    """Set an endpoint's weight (0 to 256) until the spec's changes; the spec's own weight ends the override."""
    found = _endpoint(service, endpoint)
    if not 0 <= weight <= MAX_WEIGHT:
        raise Refused(f"A weight of {weight} is out of range: use 0 (no new clients) to {MAX_WEIGHT}.")
    name, before = found.name, weight_of(found, record)
    data = (("from_weight", before), ("to_weight", weight))
    if before == weight:
        text = f"{name} of {service.name} had weight {weight} already; nothing changed."
        return record, Event(EventKind.ENDPOINT_WEIGHT, text, service.name, name, data)
    weights = tuple((each, other) for each, other in record.weights if each != name)
    replaced = tuple((each, other) for each, other in record.weights_replaced if each != name)
    if weight != found.weight:
        weights, replaced = (*weights, (name, weight)), (*replaced, (name, found.weight))
    until = "as in the spec" if weight == found.weight else f"in place of the spec's {found.weight}, until that changes"
    text = f"{name} of {service.name} has weight {weight} now (it was {before}), {until}."
    ordered = replace(record, weights=weights, weights_replaced=replaced)
    return ordered, Event(EventKind.ENDPOINT_WEIGHT, text, service.name, name, data)


def failover(service: PoolService, record: PoolRecord, seen: PoolSeen, now: Now) -> tuple[PoolRecord, Event]:
    """Move the traffic to the backup group, where it stays until `failback`; in gradual mode evenly, else at once."""
    backup = service.group(Group.BACKUP)
    if not backup:
        raise Refused(
            f"{service.name} has no backup group to fail over to: "
            "give an endpoint `group: backup` in the spec and apply it."
        )
    if record.failed_over:
        text = f"{service.name} was failed over already; `understudy failback {service.name}` moves it back."
        return record, Event(EventKind.FAILOVER_STARTED, text, service.name)
    if not usable(seen, record, Group.BACKUP):
        names = listed([one.name for one in backup])
        raise Refused(
            f"The backup group of {service.name} has no usable endpoint, and its users would be refused there: "
            f"bring up {names} first; `understudy why {service.name}` says what is amiss."
        )
    ordered = replace(record, failed_over=True)
    if goal(record) != 100:
        ordered = start(service, ordered, 100, now)
    return ordered, _move(EventKind.FAILOVER_STARTED, service, record, ordered, "backup")


def failback(service: PoolService, record: PoolRecord, seen: PoolSeen, now: Now) -> tuple[PoolRecord, Event]:
    """Move the traffic back to the primary group; over `over_ms` in gradual mode, else at once."""
    if not record.failed_over and goal(record) == 0 and backup_share(seen, service, record) == 0:
        text = f"{service.name} is on its primary group already; nothing changed."
        return record, Event(EventKind.FAILBACK_STARTED, text, service.name)
    view = PoolView(service, record, seen, None, PoolMemory(primary_stood=True))
    names = listed([one.name for one in service.group(Group.PRIMARY)])
    if not usable(seen, record, Group.PRIMARY):
        raise Refused(
            f"The primary group of {service.name} has no usable endpoint, and failing back would refuse its users: "
            f"bring up {names} first; `understudy why {service.name}` says what is amiss."
        )
    if service.failover.mode is FailoverMode.GRADUAL and not strong_enough(view):
        raise Refused(
            f"Less than half of the primary group of {service.name} is usable, so that its traffic would move to the "
            f"backup group again: bring up more of {names} first."
        )
    if not record.failed_over and goal(record) == 0:
        text = f"{service.name} is moving back to its primary group already; nothing changed."
        return record, Event(EventKind.FAILBACK_STARTED, text, service.name)
    ordered = start(service, replace(record, failed_over=False), 0, now)
    return ordered, _move(EventKind.FAILBACK_STARTED, service, record, ordered, "primary")


def _endpoint(service: PoolService, name: str) -> Endpoint:
    """The endpoint of that name; Refused when there is none."""
    found = next((endpoint for endpoint in service.endpoints if endpoint.name == name), None)
    if found is None:
        there = listed([endpoint.name for endpoint in service.endpoints], most=10)
        raise Refused(f"{service.name} has no endpoint {name!r}: it has {there}.")
    return found


def _cost(service: PoolService, before: PoolRecord, after: PoolRecord, seen: PoolSeen) -> str:
    """What users lose by an order that takes an endpoint out; empty when nothing."""
    was_down = service_health(seen, service, before) in (ServiceHealth.DOWN, ServiceHealth.UNKNOWN)
    if service_health(seen, service, after) is ServiceHealth.DOWN and not was_down:
        return f" It was the last usable one: {service.name} refuses its users until an endpoint is ready."
    if backup_share(seen, service, before) < 100 <= backup_share(seen, service, after):
        return " It was the last usable one of the primary group: all traffic goes to the backup group."
    return ""


def _move(kind: EventKind, service: PoolService, before: PoolRecord, after: PoolRecord, side: str) -> Event:
    """The event of a move between the groups that an operator ordered."""
    over_ms = after.ramp.over_ms if after.ramp else 0
    how = f"evenly over {span(over_ms / 1000)}" if over_ms else "at once"
    if goal(before) == goal(after):
        how = "and stays there until `understudy failback`"
    data = (("from_percent", before.backup_share_percent), ("to_percent", goal(after)), ("over_ms", over_ms))
    return Event(
        kind,
        f"Traffic of {service.name} moves to the {side} group {how}, by an operator's order.",
        service.name,
        None,
        data,
    )
