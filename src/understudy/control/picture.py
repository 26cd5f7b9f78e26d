"""From what is in force and was last seen to the view model. Pure arithmetic over the loop's values; no effects."""

from collections.abc import Mapping

from understudy.control.view import EndpointStatus, ServiceStatus
from understudy.core.model import Endpoint, Group, PoolService
from understudy.core.objectives import Ledger, ServiceHealth, objectives
from understudy.core.pool_health import backup_share, endpoint_reason, service_health, service_reason
from understudy.core.pools import Admin, EndpointSeen, Oper, PoolRecord, PoolSeen

NOTHING_SEEN = PoolSeen(endpoints=())


def service_status(service: PoolService, record: PoolRecord, seen: PoolSeen | None, ledger: Ledger) -> ServiceStatus:
    """One service, from what was last seen of it; None when the router cannot be asked."""
    share = backup_share(seen, service, record) if seen else record.backup_share_percent
    by_name = {one.endpoint: one for one in (seen or NOTHING_SEEN).endpoints}
    return ServiceStatus(
        name=service.name,
        kind=service.kind,
        listen=str(service.listen),
        health=service_health(seen, service, record) if seen else ServiceHealth.UNKNOWN,
        active_group=Group.BACKUP if share == 100 else Group.PRIMARY,
        backup_share_percent=share,
        endpoints=tuple(
            _endpoint_status(service, endpoint, record, seen, by_name.get(endpoint.name))
            for endpoint in service.endpoints
        ),
        objectives=objectives(ledger),
        reason=service_reason(seen, service, record) if seen else f"{service.name} has not been seen yet.",
    )


def _endpoint_status(
    service: PoolService, endpoint: Endpoint, record: PoolRecord, pool: PoolSeen | None, seen: EndpointSeen | None
) -> EndpointStatus:
    weights: Mapping[str, int] = dict(record.weights)
    held = {hold.endpoint: hold.until_wall_s for hold in record.holds}
    return EndpointStatus(
        name=endpoint.name,
        address=str(endpoint.address),
        group=endpoint.group,
        oper=seen.oper if seen else Oper.UNKNOWN,
        admin=dict(record.admin).get(endpoint.name, Admin.READY),
        weight=weights.get(endpoint.name, endpoint.weight),
        effective_weight=seen.weight if seen else 0,
        sessions=seen.sessions if seen else 0,
        queued=seen.queued if seen else 0,
        requests=seen.counters.requests if seen else 0,
        errors=seen.counters.errors if seen else 0,
        check=seen.check if seen else "",
        since_s=seen.since_s if seen else 0.0,
        held_until_wall_s=held.get(endpoint.name),
        reason=(
            endpoint_reason(pool, service, record, endpoint.name)
            if pool and seen
            else f"{endpoint.name} has not been seen yet."
        ),
    )
