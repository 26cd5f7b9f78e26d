"""Transactions with a whole etcd cluster: failover between its members, and the proof that it is the store we know."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from understudy.store import etcd_messages as messages
from understudy.store.base import Expect, OutcomeUnknown, Replaced, StoreFault
from understudy.store.etcd_endpoints import Endpoints, Sighting
from understudy.store.etcd_faults import Kind, Trouble, away, refused, replaced, unknown
from understudy.store.etcd_messages import Answer, Json, Layout
from understudy.store.etcd_wire import Wire

RETURN_EVERY_S = 1.0
"""How often a preferred member that failed is asked whether it is back."""


class Foreign(Exception):
    """One member's answer contradicts what is known of the store."""


class Client:
    """Every call ends within `timeout_s`, and raises StoreFault when it was in vain.

    `on_failed` is called with each member that fails, or is left for the preferred one. `close` ends what it began.
    """

    def __init__(self, wire: Wire, endpoints: Endpoints, layout: Layout, timeout_s: float) -> None:
        self.wire = wire
        self.endpoints = endpoints
        self.layout = layout
        self.timeout_s = timeout_s
        self.on_failed: Callable[[str], object] = lambda url: url
        self._sighting: Sighting | None = None
        self._trusted: set[str] = set()
        self._replaced = ""
        self._returning: asyncio.Task[None] | None = None

    def close(self) -> None:
        """Look for the preferred member no more."""
        if self._returning is not None:
            self._returning.cancel()

    @property
    def cluster_id(self) -> str:
        """Of the store that we know; empty before the first answer."""
        return self._sighting.cluster_id if self._sighting else ""

    async def read(self, operations: Sequence[Json]) -> Answer:
        """Read, linearizably, from whichever member answers."""
        return await self._ask(partial(self._read_from, operations=operations))

    async def write(self, expects: Sequence[Expect], operations: Sequence[Json]) -> Answer:
        """Send a transaction; to another member only when it certainly had no effect."""
        return await self._ask(partial(self._write_to, expects=expects, operations=operations))

    def failed(self, url: str) -> None:
        """That member is in trouble: use another one, and look at it anew before it is written to."""
        self.endpoints.failed(url)
        self._trusted.discard(url)
        self.on_failed(url)
        strayed = self.endpoints.current != self.endpoints.preferred
        if strayed and (self._returning is None or self._returning.done()):
            self._returning = asyncio.create_task(self._return())

    async def _return(self) -> None:
        """Go back to the preferred member once it answers: the one on our own host is lost only together with us."""
        while self.endpoints.current != self.endpoints.preferred:
            await asyncio.sleep(RETURN_EVERY_S)
            try:
                await self._transact(self.endpoints.preferred, (), (), self.timeout_s / 2)
            except (Trouble, Foreign):
                continue
            left = self.endpoints.current
            self.endpoints.prefer()
            self._trusted.add(self.endpoints.preferred)
            self.on_failed(left)

    async def _ask(self, attempt: Callable[[str, float], Awaitable[Answer]]) -> Answer:
        """Make the attempt with one member after the other, until one answers or the time is over."""
        deadline_s = _time_s() + self.timeout_s
        troubles: list[Trouble] = []
        foreign = ""
        for url in self.endpoints.in_turn():
            if _time_s() >= deadline_s:
                break
            try:
                answer = await attempt(url, deadline_s)
            except Trouble as trouble:
                if trouble.kind is Kind.REFUSED:
                    raise StoreFault(refused(trouble)) from trouble
                troubles.append(trouble)
                self.failed(url)
            except Foreign as found:
                foreign = str(found)
                self.failed(url)
            else:
                self._trusted.add(url)
                return answer
        if foreign:
            raise Replaced(replaced(foreign))
        raise StoreFault(away(troubles))

    async def _read_from(self, url: str, deadline_s: float, operations: Sequence[Json]) -> Answer:
        """Leave time for another member, if there is one."""
        left_s = deadline_s - _time_s()
        others = len(self.endpoints.in_turn()) > 1
        return await self._transact(url, (), operations, left_s / 2 if others else left_s)

    async def _write_to(
        self, url: str, deadline_s: float, expects: Sequence[Expect], operations: Sequence[Json]
    ) -> Answer:
        """All of the time, since another member may not be tried; but look first, to write to no other store."""
        if url not in self._trusted:
            await self._transact(url, (), (), (deadline_s - _time_s()) / 2)
        try:
            return await self._transact(url, expects, operations, deadline_s - _time_s())
        except Trouble as trouble:
            if trouble.kind is not Kind.LOST:
                raise
            self.failed(url)
            raise OutcomeUnknown(unknown(trouble)) from trouble
        except Foreign as found:
            raise Replaced(replaced(str(found))) from found

    async def _transact(
        self, url: str, expects: Sequence[Expect], operations: Sequence[Json], timeout_s: float
    ) -> Answer:
        if self._replaced:
            raise Foreign(self._replaced)
        known = self._sighting or await self._introduce(url, timeout_s)
        body = messages.transaction(self.layout, known.identity, expects, operations)
        answer = await self.wire.transact(url, body, timeout_s)
        identity = known.identity if answer.succeeded else _identity(answer)
        contradiction = known.contradiction(answer.header, identity)
        if contradiction:
            if answer.header.cluster_id == known.cluster_id:  # no mistake in the spec: it will not come right again
                self._replaced = contradiction
            raise Foreign(contradiction)
        self._sighting = (self._sighting or known).seen(answer.header.revision)
        return answer

    async def _introduce(self, url: str, timeout_s: float) -> Sighting:
        """Learn which store this is; leave our mark if it has none."""
        body = messages.introduction(self.layout, secrets.token_hex(8).encode())
        answer = await self.wire.transact(url, body, timeout_s)
        identity = _identity(answer)
        if identity is None:
            raise Trouble(Kind.LOST, f"{url} does not keep what is written to it")
        if self._sighting is None:  # others may have asked meanwhile, with the same result
            self._sighting = Sighting(answer.header.cluster_id, identity, answer.header.revision)
        return self._sighting


def _identity(answer: Answer) -> bytes | None:
    entries = answer.reads[-1] if answer.reads else ()
    return entries[0].value if entries else None


def _time_s() -> float:
    return asyncio.get_running_loop().time()
