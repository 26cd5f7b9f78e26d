"""The sentences of `understudy why SERVICE`: why it is as it is, and what would make it otherwise. Pure; words only."""

from collections.abc import Iterator, Sequence

from understudy.core.clock import Now
from understudy.core.ejector import budget
from understudy.core.events import Entry, EventKind
from understudy.core.failover_mode import FailoverMode
from understudy.core.model import Group, PoolService
from understudy.core.pool_health import SERVING, backup_share, endpoint_reason, kept_out, service_reason, usable
from understudy.core.pool_state import Admin, EndpointSeen, Oper, PoolRecord, PoolSeen
from understudy.core.words import count, listed, span

RECENT_S = 300.0
"""How long it stays worth telling that an endpoint was spared."""
EJECTOR = (EventKind.ENDPOINT_EJECTED, EventKind.ENDPOINT_RETURNED, EventKind.ENDPOINT_SPARED)


def why(
    service: PoolService, record: PoolRecord, seen: PoolSeen, entries: Sequence[Entry], now: Now
) -> tuple[str, ...]:
    """The service's state first, then what is amiss and what would mend it; `entries` are its latest, oldest first."""
    return (
        service_reason(seen, service, record),
        *_endpoints(service, record, seen, now),
        *_spared(service, entries, now),
        *_budgets(service, record),
        *_shares(service, record, seen, now),
        _if_lost(service, record, seen),
        *_latest(service, entries, now),
    )


def _endpoints(service: PoolService, record: PoolRecord, seen: PoolSeen, now: Now) -> Iterator[str]:
    """Each endpoint that is not given traffic as it should be, why, and what would change that."""
    by_name = {one.endpoint: one for one in seen.endpoints}
    for endpoint in service.endpoints:
        one = by_name.get(endpoint.name)
        if one and one.oper in SERVING and endpoint.name not in kept_out(record):
            if one.weight == 0:
                yield f"{endpoint.name} is up, but gets no new clients, since its weight is 0."
            continue
        reason = endpoint_reason(seen, service, record, endpoint.name).removesuffix(".")
        cure = _cure(service, record, one, endpoint.name, now)
        yield f"{reason}; {cure}."


def _cure(service: PoolService, record: PoolRecord, one: EndpointSeen | None, name: str, now: Now) -> str:
    """What would bring an endpoint back, as the end of a sentence."""
    ready = f"`understudy ready {service.name} {name}`"
    hold = next((hold for hold in record.holds if hold.endpoint == name), None)
    if any(each == name and admin is not Admin.READY for each, admin in record.admin):
        return f"{ready} brings it back"
    if hold:
        left = span(max(0.0, hold.until_wall_s - now.wall_s))
        return f"the hold, its no. {hold.count}, lasts another {left}, and {ready} ends it now"
    health = service.health
    passes = f"{count(health.rise, 'check')} in a row, one each {span(health.interval_ms / 1000)}, must pass"
    if one and one.oper is Oper.DOWN:
        return f"it has been so for {span(one.since_s)}, and to come back {passes}"
    return f"to serve {passes}"


def _spared(service: PoolService, entries: Sequence[Entry], now: Now) -> Iterator[str]:
    """Endpoints that would have been ejected lately and were not."""
    last = {
        entry.event.subject: entry
        for entry in entries
        if entry.event.service == service.name and entry.event.kind in EJECTOR
    }
    for entry in last.values():
        ago_s = max(0.0, now.wall_s - entry.wall_s)
        if entry.event.kind is EventKind.ENDPOINT_SPARED and ago_s < RECENT_S:
            yield f"{span(ago_s)} ago: {entry.event.reason}"


def _budgets(service: PoolService, record: PoolRecord) -> Iterator[str]:
    """How much the ejector may do."""
    if not service.health.passive:
        yield "The ejector is off (`passive: false`), so an endpoint that errs behind a passing check stays in."
        return
    for group in Group:
        names = {endpoint.name for endpoint in service.group(group)}
        if not names:
            continue
        allowed, held = budget(service.ejection, len(names)), sum(hold.endpoint in names for hold in record.holds)
        yield (
            f"Of the {group} group's {count(len(names), 'endpoint')} the ejector holds {held} out, "
            f"and may hold {allowed} at once."
        )


def _shares(service: PoolService, record: PoolRecord, seen: PoolSeen, now: Now) -> Iterator[str]:
    """Where the traffic goes, where it is between the groups."""
    share, ramp = backup_share(seen, service, record), record.ramp
    if ramp and ramp.over_ms and share == record.backup_share_percent:
        left = span(max(0.0, ramp.since_wall_s + ramp.over_ms / 1000 - now.wall_s))
        way = "rising" if ramp.to_percent > share else "falling"
        yield f"{share} % of the traffic goes to the backup group, {way} evenly to {ramp.to_percent} % within {left}."
    elif share:
        yield f"{share} % of the traffic goes to the backup group."
    if record.failed_over:
        yield f"It was failed over by an operator, and `understudy failback {service.name}` moves it back."


def _if_lost(service: PoolService, record: PoolRecord, seen: PoolSeen) -> str:
    """What would happen, or has happened, without the primary group."""
    lost = not usable(seen, record, Group.PRIMARY)
    begin = "The primary group has no usable endpoint" if lost else "If the primary group were lost now"
    refused = "users are refused" if lost else "users would be refused"
    names = listed([one.endpoint for one in usable(seen, record, Group.BACKUP)])
    if not service.group(Group.BACKUP):
        return f"{begin}, {refused}, since there is no backup group."
    if not usable(seen, record, Group.BACKUP):
        return f"{begin}, {refused}, since the backup group has no usable endpoint either."
    if record.backup_share_percent == 100:
        return f"The primary group gets no traffic, lost or not: everything goes to the backup group ({names})."
    if service.failover.mode is FailoverMode.MANUAL:
        return f"{begin}, {refused} until `understudy failover {service.name}` moves them to {names}."
    goes = "goes" if lost else "would go"
    return f"{begin}, everything {goes} to the backup group ({names}) at once, by the router itself."


def _latest(service: PoolService, entries: Sequence[Entry], now: Now) -> Iterator[str]:
    """What happened last."""
    own = [entry for entry in entries if entry.event.service == service.name]
    if own:
        yield f"The last that happened, {span(max(0.0, now.wall_s - own[-1].wall_s))} ago: {own[-1].event.reason}"
