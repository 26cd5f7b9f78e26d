"""The ordered record of what happened, in the store: numbered, bounded, written in bursts, read by anybody.

Entries lie in pages, `journal/page/FIRST` (keys.py names all keys); `journal/head` holds the next number, and each page
is written together with it, so that no number is ever used twice, by several agents either.

Two ways in. `append` is for facts: it never waits and never fails; `run` stores them within milliseconds, many at once.
`commit` is for decisions: the events are stored in the same transaction as what was decided, or not at all.
"""

import asyncio
from bisect import bisect_left
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TypeVar

import structlog

from understudy.control import keys
from understudy.core.codec import Undecodable, decode, encode
from understudy.core.errors import Refused
from understudy.core.events import Entry, Event, EventKind, Fact
from understudy.store.base import MAX_CHANGES, Compacted, Delete, Expect, Item, Listing, Outcome, Put, Store

LIMIT = 10_000
"""Entries that are kept; the oldest go, by whole pages."""
PENDING = 10_000
"""Facts that wait in memory when the store is away; the first ones are kept, later ones only counted."""
PAGE_ENTRIES = 500
PAGE_BYTES = 256 * 1024
TRIMMED_AT_ONCE = 60
"""Old pages that one transaction may delete."""
MAX_BESIDE = MAX_CHANGES - 2
"""Changes that `commit` takes: what the page and the head leave of a transaction's room."""
TEXT_CHARACTERS = 4_000
"""Longest text in an event; more is cut off."""
COALESCE_S = 0.005
"""How long facts wait for more to come before they are written together."""
RETRY_S = 1.0
LISTED_EVERY = 500
"""After so many new entries all pages are listed again, to find old ones that others have written."""

Clipped = TypeVar("Clipped", str, Fact)


@dataclass(frozen=True, slots=True)
class Head:
    """The number that the next entry will have."""

    next: int


@dataclass(frozen=True, slots=True)
class Page:
    """Entries with consecutive numbers."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class _Fact:
    """An event that has no number yet, and about how many bytes it will take."""

    wall_s: float
    event: Event
    size_bytes: int


@dataclass(frozen=True, slots=True)
class _Gap:
    """Facts that found no room."""

    count: int
    since_wall_s: float
    until_wall_s: float


@dataclass(frozen=True, slots=True)
class _Known:
    """What the store's journal looked like when we last heard: its head, and the first numbers of its pages.

    Of the pages of other agents we know only those that were there when they were last listed.
    """

    head_revision: int
    next: int
    firsts: tuple[int, ...]
    listed: int
    """What the next number was when the pages were last listed."""

    def too_old(self, limit: int, at_once: int) -> tuple[int, ...]:
        """Pages to delete so that `limit` entries stay; never the newest one."""
        count = bisect_left(self.firsts[:-1], self.next - limit)
        return self.firsts[: min(count, at_once)]


class Journal:
    """One agent's access to the journal. Reading needs only the store; `run` or `flush` store what `append` took."""

    def __init__(self, store: Store, limit: int = LIMIT, pending: int = PENDING) -> None:
        self._store = store
        self._limit = limit
        self._room = pending
        self._pending: deque[_Fact] = deque()
        self._gap: _Gap | None = None
        self._known: _Known | None = None
        """None at first."""
        self._stale = False
        """Whether somebody else has written, or a transaction's fate is unknown."""
        self._doubtful: tuple[str, bytes, Sequence[_Fact]] | None = None
        """The page whose fate is unknown: its key, its bytes, what is in it."""
        self._turn = asyncio.Lock()
        self._news = asyncio.Event()

    def append(self, events: Iterable[Event], wall_s: float) -> None:
        """Add facts, in this order; they are stored soon. ValueError for a value that is not finite."""
        for fact in [_fact(event, wall_s) for event in events]:
            if len(self._pending) >= self._room:
                self._gap = replace(self._gap or _Gap(0, wall_s, wall_s), until_wall_s=wall_s)
                self._gap = replace(self._gap, count=self._gap.count + 1)
            else:
                self._close_gap()
                self._pending.append(fact)
        self._news.set()

    async def run(self) -> None:
        """Store what is appended until cancelled, in bursts; goes on trying while the store is away."""
        away = False
        while True:
            await self._news.wait()
            self._news.clear()
            await asyncio.sleep(COALESCE_S)
            try:
                await self.flush()
            except Refused as fault:
                if not away:
                    structlog.get_logger().warning("the journal waits in memory", reason=str(fault))
                away = True
                self._news.set()
                await asyncio.sleep(RETRY_S)
            else:
                away = False

    async def flush(self) -> None:
        """Store all that was appended so far, now. On StoreFault it goes on waiting in memory."""
        if self._pending or self._gap:
            await self.commit((), (), (), wall_s=0.0)

    async def commit(
        self,
        expects: Sequence[Expect],
        changes: Sequence[Put | Delete],
        events: Iterable[Event],
        *,
        wall_s: float,
    ) -> Outcome:
        """Store changes, and the events that say why, in one transaction, after all that was appended before.

        Not committed means that the caller's conditions did not hold: neither changes nor events are stored. On
        StoreFault that is unknown, and the events are not tried again. Takes MAX_BESIDE conditions and changes; events
        that do not fit on one page are stored page by page, the last page together with the changes.
        """
        facts = [_fact(event, wall_s) for event in events]
        async with self._turn:
            await self._learn()
            self._close_gap()
            *early, last = _pages([*self._pending, *facts])
            for page in early:
                await self._write(page, (), ())
            return await self._write(last, expects, changes)

    async def tail(self, after: int, limit: int, service: str | None = None) -> tuple[Entry, ...]:
        """Stored entries numbered above `after`, oldest first; after=-1 asks for the newest `limit`."""
        newest = after == -1
        pages = _from_page_of(after + 1, (await self._store.list(keys.JOURNAL_PAGES)).items)
        found: list[Entry] = []
        for item in reversed(pages) if newest else pages:
            if len(found) >= limit:
                break
            if service is None or _mention(service) in item.value:
                entries = [entry for entry in _read(item.key, item.value) if _wanted(entry, after, service)]
                found = entries + found if newest else found + entries
                await asyncio.sleep(0)  # a long journal must not hold up the loop
        return tuple(found[max(0, len(found) - limit) :] if newest else found[:limit])

    async def follow(self, after: int) -> AsyncGenerator[Entry, None]:
        """Stored entries numbered above `after`, as they come, whoever writes them, until the store is closed."""
        while True:
            listing = await self._store.list(keys.JOURNAL_PAGES)
            for item in _from_page_of(after + 1, listing.items):
                for entry in _read(item.key, item.value):
                    if entry.number > after:
                        after = entry.number
                        yield entry
            try:
                async with aclosing(self._store.watch(keys.JOURNAL_PAGES, listing.revision)) as changes:
                    async for change in changes:
                        for entry in _read(change.key, change.value) if change.value is not None else ():
                            if entry.number > after:
                                after = entry.number
                                yield entry
            except Compacted:
                continue  # this reader was slow: list again and go on
            return

    async def _write(
        self, facts: Sequence[_Fact], expects: Sequence[Expect], changes: Sequence[Put | Delete]
    ) -> Outcome:
        """One page and what goes with it; again when another agent wrote a page first."""
        while True:
            known = await self._learn()
            trimmed = known.too_old(self._limit, min(TRIMMED_AT_ONCE, MAX_BESIDE - len(changes)))
            deletes = [Delete(keys.journal_page(first)) for first in trimmed]
            key = keys.journal_page(known.next)
            page = encode(Page(tuple(Entry(known.next + n, fact.wall_s, fact.event) for n, fact in enumerate(facts))))
            head = Head(known.next + len(facts))
            ours = [Put(keys.JOURNAL_HEAD, encode(head)), Put(key, page)] if facts else []
            guard = [Expect(keys.JOURNAL_HEAD, known.head_revision)] if facts else []
            self._stale, self._doubtful = True, (key, page, facts)  # until we hear: also when we are cancelled
            outcome = await self._store.transact([*expects, *guard], [*ours, *changes, *deletes])
            self._doubtful = None
            if outcome.committed:
                self._stale = False
                self._known = _Known(
                    outcome.revision if facts else known.head_revision,
                    head.next,
                    known.firsts[len(trimmed) :] + ((known.next,) if facts else ()),
                    known.listed,
                )
                self._forget(facts)
                return outcome
            if (await self._learn()).head_revision == known.head_revision:
                return outcome

    async def _learn(self) -> _Known:
        """What the journal looks like now; settles what became of a page whose fate was unknown.

        Where several agents write this comes before most of their pages: so it reads no more than it must.
        """
        if self._doubtful:
            key, page, facts = self._doubtful
            item = await self._store.get(key)
            if item is not None and item.value == page:
                self._forget(facts)
            self._doubtful = None
        if self._known is not None and self._stale:
            self._known = _moved_on(self._known, await self._store.get(keys.JOURNAL_HEAD))
        if self._known is None or self._known.next - self._known.listed >= LISTED_EVERY:
            self._known = _understand(await self._store.list(keys.JOURNAL))
        self._stale = False
        return self._known

    def _forget(self, stored: Sequence[_Fact]) -> None:
        """Pending facts that are stored need not wait any longer."""
        for fact in stored:
            if self._pending and self._pending[0] is fact:
                self._pending.popleft()

    def _close_gap(self) -> None:
        """Let the journal say what it lost, in the place where it is missing."""
        if self._gap:
            reason = (
                f"{self._gap.count} events were lost, because the store was away and {self._room} others already waited"
            )
            lasted_s = self._gap.until_wall_s - self._gap.since_wall_s
            data = (("count", self._gap.count), ("lasted_s", lasted_s))
            self._pending.append(_fact(Event(EventKind.JOURNAL_GAP, reason, data=data), self._gap.until_wall_s))
            self._gap = None


def _understand(listing: Listing) -> _Known:
    """The journal as it is listed. Raises Refused when its head is unreadable or lost: numbers could come twice."""
    firsts = tuple(keys.journal_page_first(item.key) for item in listing.items if item.key != keys.JOURNAL_HEAD)
    head = next((item for item in listing.items if item.key == keys.JOURNAL_HEAD), None)
    if head is None and firsts:
        raise Refused(
            f"The journal has pages but no {keys.JOURNAL_HEAD}, so nothing is added; put the store's backup in place."
        )
    if head is None:
        return _Known(0, 1, (), 1)
    number = decode(Head, head.value).next
    return _Known(head.revision, number, firsts, number)


def _moved_on(known: _Known, head: Item | None) -> _Known | None:
    """What is known, with the head as it stands now; None when all must be listed anew."""
    number = decode(Head, head.value).next if head is not None else 0
    if head is None or number < known.next:
        return None
    return replace(known, head_revision=head.revision, next=number)


def _fact(event: Event, wall_s: float) -> _Fact:
    """An event as it will be stored: its texts cut to a length that leaves room for others."""
    clipped = replace(
        event, reason=_clip(event.reason), data=tuple((_clip(name), _clip(value)) for name, value in event.data)
    )
    return _Fact(wall_s, clipped, len(encode(clipped)))


def _clip(value: Clipped) -> Clipped:
    if isinstance(value, str) and len(value) > TEXT_CHARACTERS:
        return value[: TEXT_CHARACTERS - 1] + "…"
    return value


def _pages(facts: Sequence[_Fact]) -> list[list[_Fact]]:
    """The facts in order, on as many pages as they need; at least one page, perhaps an empty one."""
    pages: list[list[_Fact]] = [[]]
    size_bytes = 0
    for fact in facts:
        if len(pages[-1]) >= PAGE_ENTRIES or (pages[-1] and size_bytes + fact.size_bytes > PAGE_BYTES):
            pages.append([])
            size_bytes = 0
        pages[-1].append(fact)
        size_bytes += fact.size_bytes
    return pages


def _from_page_of(number: int, pages: Sequence[Item]) -> Sequence[Item]:
    """The pages from the one that has that number on."""
    before = sum(keys.journal_page_first(item.key) <= number for item in pages)
    return pages[max(0, before - 1) :]


def _read(key: str, value: bytes) -> tuple[Entry, ...]:
    """The entries of a page; where it cannot be read, one that says so."""
    try:
        return decode(Page, value).entries
    except Undecodable as fault:
        return (Entry(keys.journal_page_first(key), 0.0, Event(EventKind.JOURNAL_GAP, str(fault))),)


def _mention(service: str) -> bytes:
    """What the bytes of every page that has an event of this service contain."""
    return f'"service":"{service}"'.encode()


def _wanted(entry: Entry, after: int, service: str | None) -> bool:
    return entry.number > after and service in (None, entry.event.service)
