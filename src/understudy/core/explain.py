"""The sentences of `understudy why SERVICE`: why it is as it is, and what would make it otherwise. Pure; words only."""

from collections.abc import Sequence

from understudy.core.clock import Now
from understudy.core.events import Entry
from understudy.core.model import PoolService
from understudy.core.pool_state import PoolRecord, PoolSeen


def why(
    service: PoolService, record: PoolRecord, seen: PoolSeen, entries: Sequence[Entry], now: Now
) -> tuple[str, ...]:
    """The service's state first, then what is amiss and what would mend it; `entries` are its latest, oldest first."""
    raise NotImplementedError
