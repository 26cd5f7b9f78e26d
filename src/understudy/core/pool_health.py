"""Who of a pool is usable, which group its traffic goes to, and what that makes of the service. Pure arithmetic and words."""

from understudy.core.model import PoolService
from understudy.core.objectives import ServiceHealth
from understudy.core.pool_state import PoolRecord, PoolSeen


def service_health(seen: PoolSeen, service: PoolService, record: PoolRecord) -> ServiceHealth:
    """What the service is to its users now."""
    raise NotImplementedError


def service_reason(seen: PoolSeen, service: PoolService, record: PoolRecord) -> str:
    """The same as a whole sentence, with who does not serve and why."""
    raise NotImplementedError


def backup_share(seen: PoolSeen, service: PoolService, record: PoolRecord) -> int:
    """The percentage of the traffic that goes to the backup group now, the router's own failover counted in."""
    raise NotImplementedError


def endpoint_reason(seen: PoolSeen, service: PoolService, record: PoolRecord, endpoint: str) -> str:
    """Why one endpoint is in the state that it is in, as a whole sentence."""
    raise NotImplementedError
