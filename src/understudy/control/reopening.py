"""A store that is opened anew when it turns out to be another, or an older state of itself (docs/decisions/0010, I4).

The adapter then refuses to read or write (store/base.Replaced), since what was known of it may not hold. Everybody here
knows what to make of it: what each node carries is compared with what stands in the store (core/adoption.py).
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing

import structlog

from understudy.store.base import Change, Delete, Expect, Item, Listing, Outcome, Put, Relocatable, Replaced, Store


class ReopeningStore:
    """Fulfils the port `Store`. The call that met the replaced store fails; the next one asks the new one."""

    def __init__(self, store: Store, open_store: Callable[[], Awaitable[Store]]) -> None:
        self._store = store
        self._open = open_store
        self._turn = asyncio.Lock()

    @property
    def incarnation(self) -> str:
        """Of the store that is open now."""
        return self._store.incarnation

    async def get(self, key: str) -> Item | None:
        """The newest value of the key."""
        store = self._store
        try:
            return await store.get(key)
        except Replaced as fault:
            await self._reopen(store, fault)
            raise

    async def list(self, prefix: str) -> Listing:
        """All keys that begin with the prefix."""
        store = self._store
        try:
            return await store.list(prefix)
        except Replaced as fault:
            await self._reopen(store, fault)
            raise

    async def transact(self, expects: Sequence[Expect], changes: Sequence[Put | Delete]) -> Outcome:
        """All changes if all conditions hold, else none."""
        store = self._store
        try:
            return await store.transact(expects, changes)
        except Replaced as fault:
            await self._reopen(store, fault)
            raise

    async def watch(self, prefix: str, after_revision: int) -> AsyncGenerator[Change, None]:
        """Every change of the prefix after that revision, until the store is closed or replaced."""
        store = self._store
        try:
            async with aclosing(store.watch(prefix, after_revision)) as changes:
                async for change in changes:
                    yield change
        except Replaced as fault:
            await self._reopen(store, fault)
            raise

    async def lead_away_from(self, addresses: frozenset[str]) -> str:
        """Fulfils `store.base.Relocatable`, by a store that does; nothing is done by any other."""
        store = self._store
        return await store.lead_away_from(addresses) if isinstance(store, Relocatable) else ""

    async def close(self) -> None:
        """Let go of what the adapter holds."""
        await self._store.close()

    async def _reopen(self, replaced: Store, fault: Replaced) -> None:
        async with self._turn:
            if self._store is replaced:
                structlog.get_logger().warning(f"The store is opened anew: {fault}")
                self._store = await self._open()
                await replaced.close()
