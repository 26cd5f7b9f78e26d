"""Transactions with a whole etcd cluster: failover between its members, and the proof that it is the store we know."""

import asyncio
import secrets
from collections.abc import Callable, Container, Sequence
from itertools import takewhile
from math import inf

from understudy.store import etcd_messages as messages
from understudy.store.base import Expect, OutcomeUnknown, Replaced, StoreFault
from understudy.store.etcd_copies import Copies
from understudy.store.etcd_endpoints import Endpoints, Sighting
from understudy.store.etcd_faults import LEADERLESS, Kind, Trouble, away, refused, replaced, unknown
from understudy.store.etcd_messages import Answer, Json, Layout
from understudy.store.etcd_wire import Wire

LATE = 0.2
"""An answer that takes longer than that share of a call's time is late, and others are asked. 200 ms of a second:
twenty times what a healthy member needs, a fraction of an election."""

LATE_AT_FIRST = 0.5
"""The same, as long as it is not known which store it is: a look leaves our mark there if there is none."""

SAME_TIME_S = 0.05
"""Members that answer within that time are equally good."""

ELECTING_S = 0.02
"""Between two questions to a member that waits for a leader."""

ATTEMPTS = 5
"""So often a transaction is sent at most; late ones come to three by the time of the call."""

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
        _, answer = await self._look(operations, _time_s() + self.timeout_s)
        return answer

    async def write(self, expects: Sequence[Expect], operations: Sequence[Json], *, again: bool) -> Answer:
        """Send a transaction; once more only when it certainly had no effect, or `again`.

        `again`: once it has taken effect its own conditions do not hold any more, so that of several copies at most one
        does. Then an answer that is late is not waited for. A member forwards a write to a leader that is gone, and
        never says so; but a read is answered in the moment in which there is a new one.
        """
        deadline_s = _time_s() + self.timeout_s
        patience_s = self.timeout_s * LATE if again else inf
        url = self.endpoints.current
        if url not in self._trusted:  # look first, to write to no other store
            url, _ = await self._look((), deadline_s)
        copies = Copies()
        try:
            while True:
                copies.send(url, self._transact(url, expects, operations, deadline_s - _time_s()))
                until_s = _time_s() + patience_s
                answer = await copies.answer(until_s if until_s < deadline_s else inf)
                patience_s *= 2
                if answer is not None:
                    return answer
                self._refuse_more(copies, deadline_s, again=again)
                url, answer = await self._look_beside(copies, deadline_s)
                if answer is not None:
                    return answer
        except Foreign as found:
            raise Replaced(replaced(str(found))) from found
        finally:
            await copies.end()

    def _refuse_more(self, copies: Copies, deadline_s: float, *, again: bool) -> None:
        """Raise StoreFault when another copy must not be sent, or would be of no use."""
        for url, trouble in copies.troubles.items():
            if trouble.kind not in LEADERLESS:
                self.failed(url)
        for trouble in copies.troubles.values():
            if trouble.kind is Kind.REFUSED and not copies.unsure:
                raise StoreFault(refused(trouble)) from trouble
        over = copies.declined or _time_s() >= deadline_s or len(copies) >= ATTEMPTS
        if copies.unsure and (over or not again):
            raise OutcomeUnknown(unknown(copies.unsure)) from copies.unsure
        if over:
            raise StoreFault(away([*copies.troubles.values()]))

    async def _look_beside(self, copies: Copies, deadline_s: float) -> tuple[str, Answer | None]:
        """A member that works; or what became of the copies, if that is known earlier."""
        look = asyncio.create_task(self._look((), deadline_s, copies.late))
        try:
            answer = await copies.answer(inf, beside=look)
            if answer is not None:
                return "", answer
            url, _ = await look
        except Foreign:
            raise
        except StoreFault as fault:
            answer = await copies.answer(inf)
            if answer is None and copies.unsure:
                raise OutcomeUnknown(unknown(copies.unsure)) from fault
            if answer is None:
                raise
            return "", answer
        else:
            return url, None
        finally:
            look.cancel()

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

    async def _look(
        self, operations: Sequence[Json], deadline_s: float, late: Container[str] = ()
    ) -> tuple[str, Answer]:
        """Read from the member in use, from the next ones too when it fails or is late; and use the one that answers.

        As long as it is not known which store it is, they are given more time. `late`: those that are late already.
        """
        urls = self.endpoints.in_turn()
        late_s = self.timeout_s * (LATE if self._sighting else LATE_AT_FIRST)
        reads: dict[str, asyncio.Task[Answer]] = {}
        try:
            while True:
                if len(reads) < len(urls):
                    url = urls[len(reads)]
                    reads[url] = asyncio.create_task(self._read_from(url, deadline_s, operations))
                pending = [read for read in reads.values() if not read.done()]
                if pending:
                    wait_s = None if len(reads) == len(urls) else 0.0 if url in late else late_s
                    await asyncio.wait(pending, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
                if any(_answered(read) for read in reads.values()):
                    return await self._choose(reads)
                self._refuse_all(reads, last=len(reads) == len(urls))
        finally:
            for read in reads.values():
                read.cancel()
            await asyncio.gather(*reads.values(), return_exceptions=True)

    async def _choose(self, reads: dict[str, asyncio.Task[Answer]]) -> tuple[str, Answer]:
        """Of the members that answer at much the same time the first in turn; those before it count as failed."""
        before = takewhile(lambda read: not _answered(read), reads.values())
        pending = [read for read in before if not read.done()]
        if pending:
            await asyncio.wait(pending, timeout=SAME_TIME_S, return_when=asyncio.FIRST_COMPLETED)
        for url, read in reads.items():
            if _answered(read):
                self._trusted.add(url)
                return url, read.result()
            self.failed(url)
        raise AssertionError("unreachable")

    def _refuse_all(self, reads: dict[str, asyncio.Task[Answer]], *, last: bool) -> None:
        """Raise StoreFault when no member can be had any more."""
        troubles, foreign = [], ""
        ended = {url: read.exception() for url, read in reads.items() if read.done()}
        for fault in ended.values():
            if isinstance(fault, Foreign):
                foreign = str(fault)
            elif not isinstance(fault, Trouble):
                raise fault or AssertionError("unreachable")
            elif fault.kind is Kind.REFUSED:
                raise StoreFault(refused(fault)) from fault
            else:
                troubles.append(fault)
        if not last or len(ended) < len(reads):
            return
        for url, fault in ended.items():
            if not isinstance(fault, Trouble) or fault.kind not in LEADERLESS:
                self.failed(url)
        raise Replaced(replaced(foreign)) if foreign else StoreFault(away(troubles))

    async def _read_from(self, url: str, deadline_s: float, operations: Sequence[Json]) -> Answer:
        """Ask that member, again and again while its cluster elects a leader."""
        while True:
            try:
                return await self._transact(url, (), operations, deadline_s - _time_s())
            except Trouble as trouble:
                if trouble.kind not in LEADERLESS or _time_s() + ELECTING_S >= deadline_s:
                    raise
            await asyncio.sleep(ELECTING_S)

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


def _answered(read: asyncio.Task[Answer]) -> bool:
    return read.done() and read.exception() is None
