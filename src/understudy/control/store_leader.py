"""Keeps the store's leader off the hosts of the primaries: a lost host then costs one failover, not an election too.

A convenience: where the store cannot or will not, it is said once and left at that.
"""

from collections.abc import Callable

import structlog

from understudy.control.clock import Clock
from understudy.store.base import Relocatable, Store, StoreFault

LOOK_S = 5.0
"""Between two looks at who leads, while the primaries are where they were."""
NEWS_S = 0.5
"""Between two looks at where the primaries are: after a failover the next loss may come soon."""
MOVE_S = 10.0
"""Between two moves at least: whatever makes the store choose that member again must not make it move all the time."""


class StoreLeader:
    """`keep` for as long as the agent runs. `primaries`: their hosts' addresses; none when it is no time to move."""

    def __init__(self, store: Store, clock: Clock, primaries: Callable[[], frozenset[str]]) -> None:
        self._store = store
        self._clock = clock
        self._primaries = primaries
        self._said = ""

    async def keep(self) -> None:
        """Look now and then, and move the leader where it should not be."""
        store = self._store
        if not isinstance(store, Relocatable):
            return
        while True:
            primaries = self._primaries()
            moved = bool(primaries) and await self._move(store, primaries)
            until_s = self._clock.now().boot_s + (MOVE_S if moved else LOOK_S)
            while self._clock.now().boot_s < until_s and (moved or self._primaries() == primaries):
                await self._clock.sleep(NEWS_S)

    async def _move(self, store: Relocatable, primaries: frozenset[str]) -> bool:
        """Whether the leader was moved, or asked to and refused."""
        try:
            address = await store.lead_away_from(primaries)
        except StoreFault as fault:
            if str(fault) != self._said:
                self._said = str(fault)
                structlog.get_logger().warning(self._said)
            return True
        if address:
            structlog.get_logger().info(f"The store is led from {address} now, away from the primary's host.")
        return bool(address)
