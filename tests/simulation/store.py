"""The store as one host reaches it: the real memory store behind a network that fails, with the worst of answers.

What every access may meet: the way there is cut (nothing happens, no answer), the way back is cut (it happened, no
answer), no majority (it happened, happens later, or never; no answer), slow, or another past (an old backup was put in
place: `Replaced` for whoever knew more).
"""

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from enum import Enum, auto
from random import Random
from typing import Any, TypeVar

from tests.simulation.hosts import Process
from tests.simulation.network import Network
from tests.simulation.scheduler import Scheduler
from tests.simulation.work import Awaited, Work

from understudy.store.base import (
    Change,
    Compacted,
    Delete,
    Expect,
    Item,
    Listing,
    Outcome,
    OutcomeUnknown,
    Put,
    Replaced,
    StoreFault,
    check_transaction,
)
from understudy.store.memory import MemoryStore

Answer = TypeVar("Answer")
STORE = "store"
"""The store's name on the network."""


class Majority(Enum):
    """What the store's members can agree on."""

    THERE = auto()
    LOST = auto()


def at_once(work: Coroutine[Any, Any, Answer]) -> Answer:
    """The result of a coroutine that waits for nobody but its turn."""
    try:
        while True:
            work.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


class StoreServer:
    """The store itself: what is in it, whether it answers, and who listens."""

    def __init__(self, scheduler: Scheduler, random: Random, network: Network) -> None:
        self.scheduler = scheduler
        self.random = random
        self.network = network
        self.memory = MemoryStore(history_changes=1000)
        self.majority = Majority.THERE
        self.slow_s = 0.0
        self.generation = 0
        self.feeds: list[Feed] = []
        self.committed: list[Callable[[Sequence[Put | Delete], int], None]] = []
        """Told of every transaction that took effect."""
        self._late: list[Callable[[], None]] = []
        self._backup: tuple[dict[str, Item], int] | None = None

    def transact(self, expects: Sequence[Expect], changes: Sequence[Put | Delete]) -> Outcome:
        """Carry out a transaction, and tell everybody who listens."""
        check_transaction(expects, changes)
        outcome = self.memory._transact(expects, changes)
        if outcome.committed:
            for told in self.committed:
                told(changes, outcome.revision)
            self._tell(changes, outcome.revision)
        return outcome

    def lose_majority(self) -> None:
        """Nothing is answered; a transaction that is asked for happens later or never."""
        self.majority = Majority.LOST

    def find_majority(self) -> None:
        """The store answers again; some of what it was asked while it could not agree takes effect now."""
        self.majority = Majority.THERE
        late, self._late = self._late, []
        for happen in late:
            happen()

    def perhaps_later(self, happen: Callable[[], None]) -> None:
        """What a transaction does that nobody could agree on."""
        if self.random.random() < 0.5:
            self._late.append(happen)

    def back_up(self) -> None:
        """Take a backup, which may be put in place much later."""
        self._backup = (dict(self.memory._items), self.memory._revision)

    def restore(self, *, wiped: bool) -> bool:
        """Put the backup (or nothing at all) in place; False when there is no backup."""
        if self._backup is None and not wiped:
            return False
        items, revision = ({}, 0) if wiped or self._backup is None else self._backup
        self.memory = MemoryStore(history_changes=1000)
        self.memory._items = dict(items)
        self.memory._revision = revision
        self.memory._compacted = revision
        self.generation += 1
        for feed in self.feeds:
            feed.broken()
        self.feeds.clear()
        self._late.clear()
        return True

    def subscribe(self, feed: "Feed", after_revision: int) -> None:
        """Send what came after that revision, and everything from now on. Raises Compacted."""
        if after_revision < self.memory._compacted:
            raise Compacted("The store has no history after that revision any more; list again.")
        missed = [c for c in self.memory._history if c.revision > after_revision and c.key.startswith(feed.prefix)]
        self.feeds.append(feed)
        if missed:
            self._send(feed, missed)

    def _tell(self, changes: Sequence[Put | Delete], revision: int) -> None:
        seen = [Change(one.key, one.value if isinstance(one, Put) else None, revision) for one in changes]
        news: dict[str, list[Change]] = {}
        over = False
        for feed in self.feeds:
            prefix = feed.prefix
            if prefix not in news:
                news[prefix] = [change for change in seen if change.key.startswith(prefix)]
            if not feed.process.alive:
                feed.whole = False  # its host says so
            elif news[prefix]:
                self._send(feed, news[prefix])
            over = over or not feed.whole
        if over:
            self.feeds = [feed for feed in self.feeds if feed.whole]

    def _send(self, feed: "Feed", changes: list[Change]) -> None:
        process = feed.process
        self.network.stream(STORE, process.host.name, feed.broken, process.do, feed.arrive, changes)


class Feed:
    """One watch, on its way from the store to a process, which goes through it as an async iterator.

    What it awaits is the feed itself, each time anew: nothing is made for a change but the change.
    """

    NOTICE_S = 1.0
    """After what time a process notices that its connection is broken."""

    def __init__(self, prefix: str, process: Process, begin: Callable[["Feed"], Awaitable[None]]) -> None:
        self.prefix = prefix
        self.process = process
        self._begin: Callable[[Feed], Awaitable[None]] | None = begin
        self.whole = True
        self.waiter: Work | None = None
        self._news: deque[Change] = deque()
        self._ended = False

    def arrive(self, changes: list[Change]) -> None:
        """Changes reach the process; nothing is handed on after a gap."""
        if self.whole:
            self._news.extend(changes)
            self._wake()

    def broken(self) -> None:
        """A message was lost, or the store is another one."""
        if self.whole:
            self.whole = False
            self.process.later(self.NOTICE_S, self._end)

    def _end(self) -> None:
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        waiter, self.waiter = self.waiter, None
        if waiter is not None:
            waiter.go_on()

    def __aiter__(self) -> "Feed":
        return self

    def __anext__(self) -> "Feed":
        return self

    def __await__(self) -> Generator[Any, None, Change]:
        """The next change. Raises StoreFault when the connection is known to be broken."""
        try:
            if self._begin is not None:
                begin, self._begin = self._begin, None
                yield from begin(self).__await__()
            while not self._news and not self._ended:
                yield self
        except BaseException:
            self.whole = False  # nobody listens any more
            raise
        if not self._news:
            raise StoreFault("The connection to the store broke; list again.")
        return self._news.popleft()


class HostStore:
    """Fulfils the port `Store` for one process."""

    def __init__(self, server: StoreServer, process: Process, timeout_s: float) -> None:
        self._server = server
        self._process = process
        self._timeout_s = timeout_s
        self._generation = server.generation

    @property
    def incarnation(self) -> str:
        """As etcd draws a cluster id for each snapshot that is restored."""
        return str(self._generation)

    async def get(self, key: str) -> Item | None:
        """The newest value of the key."""
        return await self._ask(lambda: at_once(self._server.memory.get(key)), changes=False)

    async def list(self, prefix: str) -> Listing:
        """All keys that begin with the prefix."""
        return await self._ask(lambda: at_once(self._server.memory.list(prefix)), changes=False)

    async def transact(self, expects: Sequence[Expect], changes: Sequence[Put | Delete]) -> Outcome:
        """All changes if all conditions hold, else none."""
        return await self._ask(lambda: self._server.transact(expects, changes), changes=True)

    def watch(self, prefix: str, after_revision: int) -> Feed:
        """Every change of the prefix after that revision; ends with a fault when the connection breaks."""

        async def begin(feed: Feed) -> None:
            await self._ask(lambda: self._server.subscribe(feed, after_revision), changes=False)

        return Feed(prefix, self._process, begin)

    async def close(self) -> None:
        """Let go of nothing."""

    async def _ask(self, happen: Callable[[], Answer], *, changes: bool) -> Answer:
        await self._process.effect()
        awaited: Awaited[Answer] = Awaited()
        here, network, server = self._process.host.name, self._server.network, self._server
        delay_s, there = network.delay_s() + server.slow_s, network.reaches(here, STORE)
        if there:
            server.scheduler.later(delay_s, self._arrive, happen, awaited, changes)
        if (
            not there
            or not network.reaches(STORE, here)
            or delay_s * 2 > self._timeout_s
            or (server.majority is Majority.LOST)
        ):
            self._process.later(self._timeout_s, self._give_up, awaited, changes)
        return await awaited

    def _arrive(self, happen: Callable[[], Answer], awaited: Awaited[Answer], changes: bool) -> None:
        """The request reaches the store."""
        server = self._server
        if self._generation != server.generation:
            self._generation = server.generation  # whoever is told opens it anew
            fault = Replaced("The store that answers is an older state of the one we knew; open it anew.")
            return self._answer(awaited, awaited.fail, fault)
        if server.majority is Majority.LOST:
            if changes:
                server.perhaps_later(lambda: self._happen_unheard(happen))
            self._process.later(self._timeout_s, self._give_up, awaited, changes)
            return None
        try:
            answer = happen()
        except StoreFault as raised:
            return self._answer(awaited, awaited.fail, raised)
        return self._answer(awaited, awaited.give, answer)

    def _happen_unheard(self, happen: Callable[[], Answer]) -> None:
        happen()

    def _answer(self, awaited: Awaited[Answer], tell: Callable[[Any], None], answer: object) -> None:
        """The answer goes back, if it gets there."""
        server, here = self._server, self._process.host.name
        if server.network.reaches(STORE, here):
            server.scheduler.later(server.network.delay_s() + server.slow_s, self._process.do, tell, answer)
        else:
            self._process.later(self._timeout_s, self._give_up, awaited, True)

    def _give_up(self, awaited: Awaited[Answer], changes: bool) -> None:
        if not awaited.done:
            fault = OutcomeUnknown if changes else StoreFault
            awaited.fail(fault("The store did not answer in time; look again."))
