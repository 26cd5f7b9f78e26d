"""What an operator may order of a pool. Pure: a record in, a record and the event that says what was done out.

Each verb is idempotent: when there is nothing to do it answers with the very record it was given (`is`), and the event's
sentence says so; such an event is shown to the operator and not journaled. Refused tells why not and what to do first.
"""

from understudy.core.clock import Now
from understudy.core.events import Event
from understudy.core.model import PoolService
from understudy.core.pool_state import Admin, PoolRecord, PoolSeen


def set_admin(
    service: PoolService, record: PoolRecord, seen: PoolSeen, endpoint: str, admin: Admin
) -> tuple[PoolRecord, Event]:
    """Order an endpoint `ready`, `drain` or `maint`; whichever it is, a hold of the ejector ends."""
    raise NotImplementedError


def set_weight(service: PoolService, record: PoolRecord, endpoint: str, weight: int) -> tuple[PoolRecord, Event]:
    """Set an endpoint's weight (0 to 256) until the spec's changes; the spec's own weight ends the override."""
    raise NotImplementedError


def failover(service: PoolService, record: PoolRecord, seen: PoolSeen, now: Now) -> tuple[PoolRecord, Event]:
    """Move the traffic to the backup group, where it stays until `failback`; over `over_ms` in gradual mode, else at once."""
    raise NotImplementedError


def failback(service: PoolService, record: PoolRecord, seen: PoolSeen, now: Now) -> tuple[PoolRecord, Event]:
    """Move the traffic back to the primary group; over `over_ms` in gradual mode, else at once."""
    raise NotImplementedError
