"""Who of a pool is usable, which group its traffic goes to, and what that makes of the service.

Pure arithmetic and words over what the router reports; nothing is decided here.
"""

from understudy.core.failover_mode import FailoverMode
from understudy.core.model import Endpoint, Group, PoolService
from understudy.core.objectives import ServiceHealth
from understudy.core.pool_state import Admin, EndpointSeen, Oper, PoolRecord, PoolSeen
from understudy.core.text import Name
from understudy.core.words import count, listed

SERVING = (Oper.UP, Oper.STARTING)


def automatic(service: PoolService) -> bool:
    """Whether the traffic moves to the backup group, by the router itself, when the primary group is wholly lost."""
    return service.failover.mode is not FailoverMode.MANUAL


def kept_out(record: PoolRecord) -> set[Name]:
    """Endpoints that are not to get traffic, by an operator's order or the ejector's."""
    return {name for name, admin in record.admin if admin is not Admin.READY} | {hold.endpoint for hold in record.holds}


def usable(seen: PoolSeen, record: PoolRecord, group: Group) -> tuple[EndpointSeen, ...]:
    """The endpoints of a group that can be given traffic now and may be."""
    out = kept_out(record)
    return tuple(
        one
        for one in seen.endpoints
        if one.group is group and one.oper in SERVING and one.weight > 0 and one.endpoint not in out
    )


def weight_of(endpoint: Endpoint, record: PoolRecord) -> int:
    """The weight an endpoint should have: the operator's at run time, else the spec's."""
    return next((weight for name, weight in record.weights if name == endpoint.name), endpoint.weight)


def backup_share(seen: PoolSeen, service: PoolService, record: PoolRecord) -> int:
    """The percentage of the traffic that goes to the backup group now, the router's own failover counted in."""
    if not service.group(Group.BACKUP):
        return 0
    primary, backup = usable(seen, record, Group.PRIMARY), usable(seen, record, Group.BACKUP)
    if primary and not backup:
        return 0
    return 100 if backup and not primary and automatic(service) else record.backup_share_percent


def service_health(seen: PoolSeen, service: PoolService, record: PoolRecord) -> ServiceHealth:
    """What the service is to its users now.

    UP when every endpoint serves and the traffic is where it should be; DOWN when nobody it goes to is usable; UNKNOWN
    when that cannot be told, since an endpoint has not been checked yet.
    """
    share = backup_share(seen, service, record)
    if not any(
        usable(seen, record, group) for group, part in ((Group.PRIMARY, 100 - share), (Group.BACKUP, share)) if part
    ):
        unchecked = not seen.endpoints or any(one.oper is Oper.UNKNOWN for one in seen.endpoints)
        return ServiceHealth.UNKNOWN if unchecked else ServiceHealth.DOWN
    if _absent(seen, service, record) or (share and not record.failed_over):
        return ServiceHealth.DEGRADED
    return ServiceHealth.UP


def service_reason(seen: PoolSeen, service: PoolService, record: PoolRecord) -> str:
    """The same as a whole sentence, with who does not serve and why."""
    health, absent, whole = service_health(seen, service, record), _absent(seen, service, record), service.endpoints
    parts = [f"{len(whole) - len(absent)} of {count(len(whole), 'endpoint')} can serve"]
    if not absent:
        parts = [f"all {len(whole)} endpoints serve" if len(whole) > 1 else f"its endpoint {whole[0].name} serves"]
    parts += _where(seen, service, record)
    if absent:
        parts.append(listed([_clause(seen, record, one.name) for one in absent], most=3))
    return f"{service.name} is {health}: {'; '.join(parts)}."


def endpoint_reason(seen: PoolSeen, service: PoolService, record: PoolRecord, endpoint: str) -> str:
    """Why one endpoint is in the state that it is in, as a whole sentence."""
    one = _find(seen, endpoint)
    if one is None or one.oper not in SERVING or endpoint in kept_out(record):
        return f"{_clause(seen, record, endpoint)}."
    rising = one.oper is Oper.STARTING
    slowly = f", its share still rising over {service.health.slow_start_ms / 1000:g} s" if rising else ""
    return f"{endpoint} serves{slowly}{': ' + one.check if one.check else ''}."


def _where(seen: PoolSeen, service: PoolService, record: PoolRecord) -> list[str]:
    """What there is to say about the groups."""
    share = backup_share(seen, service, record)
    primary, backup = (usable(seen, record, group) for group in (Group.PRIMARY, Group.BACKUP))
    if share == 100:
        why = "by an operator's order" if record.failed_over else "since the primary group cannot serve"
        if primary and not record.failed_over:
            why = "until it moves back to the primary group"
        return [f"all traffic goes to the backup group, {why}"]
    if share:
        return [f"{share} % of the traffic goes to the backup group"]
    if record.failed_over and primary and not backup:
        return ["an operator failed it over, but the backup group has no usable endpoint: the primary group serves"]
    if backup and not primary:
        return [
            f"the primary group has no usable endpoint: `understudy failover {service.name}` moves to the backup group"
        ]
    return []


def _absent(seen: PoolSeen, service: PoolService, record: PoolRecord) -> list[Endpoint]:
    """The endpoints of the spec that do not serve."""
    out = kept_out(record)
    serving = {one.endpoint for one in seen.endpoints if one.oper in SERVING}
    return [one for one in service.endpoints if one.name not in serving or one.name in out]


def _clause(seen: PoolSeen, record: PoolRecord, endpoint: str) -> str:
    """Why an endpoint does not serve, without a full stop."""
    one, admin = _find(seen, endpoint), dict(record.admin).get(Name(endpoint), Admin.READY)
    hold = next((hold for hold in record.holds if hold.endpoint == endpoint), None)
    if admin is not Admin.READY:
        return f"{endpoint} is in {'maintenance' if admin is Admin.MAINT else 'drain'} by an operator's order"
    if hold:
        return f"{endpoint} is held out by the ejector: it {hold.reason}"
    if one is None or one.oper is Oper.UNKNOWN:
        return f"{endpoint} has not been checked yet"
    if one.oper is Oper.DOWN:
        return f"{endpoint} is down: {one.check or 'no check has passed yet'}"
    return f"{endpoint} is out ({one.oper}) and about to come back"


def _find(seen: PoolSeen, endpoint: str) -> EndpointSeen | None:
    return next((one for one in seen.endpoints if one.endpoint == endpoint), None)
