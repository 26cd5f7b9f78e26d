"""Engines in memory that keep the promises, and break in the ways, of real ones: for tests and simulation.

Modelled: writes acknowledged by a sync quorum (ANY k), flushed against received, replication links with delay,
lineages, crash recovery, waits that were cut short, stops with and without warning, stalled disks, stopped processes,
data lost.
A write is one byte of history, so an offset is a number of writes and a history is the list of them.
RULES: no time but the world's, no randomness; every delay goes through the world. One `FakeEngines` is one cluster.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from understudy.core.actions import (
    Action,
    Bootstrap,
    Close,
    Follow,
    Freeze,
    Open,
    Promote,
    Rebuild,
    Rejoin,
    SetSync,
    Start,
    StopGracefully,
)
from understudy.core.cluster import Capabilities, Node
from understudy.core.errors import Fault, Refused
from understudy.core.lineage import Branch, Position, contains, lacks_bytes
from understudy.core.record import SyncConfig
from understudy.core.report import Running
from understudy.core.text import Name
from understudy.drivers.base import DriverFault, NeedsRebuild, Observation

ASYNC = SyncConfig(frozenset(), 0)


class World(Protocol):
    """What surrounds the engines."""

    def now_s(self) -> float:
        """True time."""
        ...

    def later(self, delay_s: float, call: Callable[[], None]) -> None:
        """Call it then."""
        ...

    def sleep(self, duration_s: float) -> Awaitable[None]:
        """Come back then."""
        ...

    def connected(self, sender: Name, receiver: Name) -> bool:
        """Whether what the one host sends reaches the other. Tell `FakeEngines.network_changed` when it changes."""
        ...


class LoopWorld:
    """A world by the clock of the running event loop, with a network that can be cut."""

    def __init__(self) -> None:
        self.cuts: set[tuple[Name, Name]] = set()
        """Sender and receiver."""

    def now_s(self) -> float:
        """True time."""
        return asyncio.get_running_loop().time()

    def later(self, delay_s: float, call: Callable[[], None]) -> None:
        """Call it then."""
        asyncio.get_running_loop().call_later(delay_s, call)

    async def sleep(self, duration_s: float) -> None:
        """Come back then."""
        await asyncio.sleep(duration_s)

    def connected(self, sender: Name, receiver: Name) -> bool:
        """Whether the way is open."""
        return (sender, receiver) not in self.cuts


@dataclass(frozen=True, slots=True)
class Flavour:
    """The rules of one kind of engine."""

    name: str
    capabilities: Capabilities
    ships_unflushed: bool = False
    """Writes are acknowledged and sent on before they are on the disk: a crash may cost what others already have."""
    resyncs: bool = False
    """A standby that went another way silently becomes a copy of whom it follows."""


POSTGRES = Flavour(
    "postgres", Capabilities(zero_loss_commit=True, revocation=True, rewind=True, graceful_handover=True)
)
REDIS = Flavour(
    "redis",
    Capabilities(zero_loss_commit=False, revocation=False, rewind=False, graceful_handover=True),
    ships_unflushed=True,
    resyncs=True,
)
MARIADB = Flavour("mariadb", Capabilities(zero_loss_commit=True, revocation=True, rewind=False, graceful_handover=True))


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things take, in seconds."""

    link_s: float = 0.0005
    flush_s: float = 0.001
    start_s: float = 0.05
    promote_s: float = 0.03
    kill_s: float = 0.02
    freeze_s: float = 0.005
    copy_s: float = 1.0
    ask_s: float = 0.001


class Fate(StrEnum):
    """What the client knows of its write."""

    PENDING = "pending"
    ACKED = "acked"
    UNKNOWN = "unknown"
    """The connection ended first: it may be there, or not."""


@dataclass(slots=True, eq=False)
class Write:
    """One write of one client."""

    id: str
    offset: int = 0
    fate: Fate = Fate.PENDING
    epoch: int = 0
    """Under which the engine that took it had been promoted."""


@dataclass(slots=True, eq=False)
class _Link:
    """A standby's connection to its source."""

    source: "FakeEngine"
    heard: bool = False
    alive: bool = False
    sent: int = 0
    silent_since_s: float = 0.0


@dataclass(slots=True)
class _Data:
    """What is on a disk."""

    branches: tuple[Branch, ...]
    writes: list[str] = field(default_factory=list)
    flushed: int = 0
    clean: bool = True
    """Stopped without a crash: how far it goes can be read without starting it."""

    def position(self, offset: int) -> Position:
        """As far as that."""
        return Position(tuple(branch for branch in self.branches if branch.start <= offset), offset)


class FakeEngine:
    """One node's engine. What begins with a verb is what clients, operators and accidents do to it."""

    def __init__(self, engines: "FakeEngines", node: Node) -> None:
        self.node = node
        self.name = node.name
        self.data: _Data | None = None
        self.running = Running.DEAD
        self.promoted_epoch = 0
        self.open = False
        self.sync = ASYNC
        self.stopped = False
        """By SIGSTOP: alive, and doing nothing."""
        self.disk_stalled = False
        self.hangs = False
        """Whoever looks at it gets no answer."""
        self.link: _Link | None = None
        self.acks: dict[Name, int] = {}
        self.waiting: deque[Write] = deque()
        self.saved: list[list[str]] = []
        """What was put aside before it was undone or copied over."""
        self.incarnation = 0
        self.tell: Callable[[], None] = lambda: None
        self._engines = engines
        self._world = engines.world
        self._pace = engines.pace
        self._flushing = False
        self._held: list[Callable[[], None]] = []
        """What came while it was stopped."""
        self._history_end = 0

    # --- clients and accidents ----------------------------------------------------------------------------------------

    def write(self, id_: str) -> Write | None:
        """A client writes; None when it is turned away. The answer comes by `FakeEngines.on_ack`."""
        if not self.open or self.running is not Running.UP:
            return None
        write = Write(id_, epoch=self.promoted_epoch)
        self._when_awake(lambda: self._execute(write))
        return write

    def history(self) -> tuple[str, ...]:
        """Every write that is in it."""
        return tuple(self.data.writes) if self.data else ()

    def kill(self) -> None:
        """The process is gone at once, with all that was not on the disk."""
        if self.running is Running.DEAD:
            return
        if self.data is not None:
            del self.data.writes[self.data.flushed :]
            self.data.clean = False
        self._end()

    def stop(self) -> None:
        """SIGSTOP."""
        self.stopped = True
        self._engines.network_changed()

    def resume(self) -> None:
        """SIGCONT: what came meanwhile is done now."""
        self.stopped = False
        self._engines.network_changed()
        held, self._held = self._held, []
        for call in held:
            call()

    def stall_disk(self, *, stalled: bool) -> None:
        """The disk takes nothing any more, or takes it again."""
        self.disk_stalled = stalled
        if not stalled:
            self._flush_soon()
        self.tell()

    def lose(self, writes: int) -> None:
        """Older data comes back: the last ones are gone from the disk. Only while it is dead."""
        if self.data is not None and self.running is Running.DEAD:
            self.data.flushed = max(0, self.data.flushed - writes)
            del self.data.writes[self.data.flushed :]
            self.data.branches = self.data.position(self.data.flushed).branches

    def wipe(self) -> None:
        """The disk is new. What the agent keeps beside the data is lost with it."""
        self.kill()
        self.data = None

    def cut_waits(self) -> None:
        """Every wait for a standby is cancelled: those clients know nothing, and their writes are there."""
        for write in self.waiting:
            write.fate = Fate.UNKNOWN
        self.waiting.clear()

    # --- what a driver sees -------------------------------------------------------------------------------------------

    def position(self) -> Position | None:
        """Of what would survive, or for engines that ship what is not flushed, of what is there."""
        if self.data is None or (self.running is not Running.UP and not self.data.clean):
            return None
        ships = self._engines.flavour.ships_unflushed and self.running is Running.UP
        return self.data.position(len(self.data.writes) if ships else self.data.flushed)

    def covered(self) -> bool:
        """Whether enough voters have what was here before it opened."""
        having = sum(1 for voter in self.sync.voters if self.acks.get(voter, -1) >= self._history_end)
        return having >= self.sync.acks

    def observe(self) -> Observation:
        """All of it at this moment."""
        leading = self.promoted_epoch > 0
        alive = self._alive_voters() if leading else 0
        return Observation(
            running=self.running,
            empty=self.data is None,
            promoted_epoch=self.promoted_epoch,
            writable=self.open,
            covered=self.covered(),
            streaming_from=self.link.source.name if self.link and self.link.heard else None,
            link_age_ms=self._link_age_ms(),
            clean_stop=self.running is Running.DEAD and self.data is not None and self.data.clean,
            sync=self.sync if leading else None,
            write_fails=self.open and (self.stopped or self.disk_stalled),
            starved=self.open and alive < self.sync.acks,
            disk_fails=self.disk_stalled,
            position=None if self.stopped else self.position(),
        )

    def _alive_voters(self) -> int:
        engines = (self._engines[name] for name in self.sync.voters)
        return sum(
            1 for one in engines if one.link and one.link.alive and one.link.source is self and not one.disk_stalled
        )

    def _link_age_ms(self) -> int | None:
        if self.link is None or not self.link.heard:
            return None
        return 0 if self.link.alive else int((self._world.now_s() - self.link.silent_since_s) * 1000)

    # --- what a driver does -------------------------------------------------------------------------------------------

    async def bootstrap(self, identity: str) -> None:
        """Make first data."""
        if self.data is not None:
            raise Refused(f"{self.name} has data already, which is never written over; remove it first.")
        await self._world.sleep(self._pace.start_s)
        self.data = _Data((Branch(identity, 0),))

    async def start(self) -> None:
        """Start, with crash recovery, non-writable and following nobody."""
        if self.data is None:
            raise Refused(f"{self.name} has no data to start with; rebuild it.")
        if self.running is Running.UP:
            return
        if self.disk_stalled:
            raise DriverFault(f"{self.name} does not start, because its disk does not answer.")
        if self.running is Running.DEAD:
            self.running = Running.STARTING
            self._later(self._pace.start_s, self._recovered)  # whether anybody waits for it or not
        incarnation = self.incarnation
        while self.running is Running.STARTING:
            await self._world.sleep(self._pace.start_s)
        if incarnation != self.incarnation:
            raise DriverFault(f"{self.name} died while it started.")

    async def close(self) -> None:
        """Kill and verify."""
        self.kill()
        await self._world.sleep(self._pace.kill_s)

    async def freeze(self) -> None:
        """Hear nobody any more, and let what was heard but is not on the disk go."""
        if self.running is Running.DEAD:
            return
        self._must_answer()
        if self.promoted_epoch:
            raise Refused(f"{self.name} is a primary, which cannot be frozen; close it.")
        if self.disk_stalled:
            raise DriverFault(f"{self.name} is not frozen for certain, because its disk does not answer.")
        await self._world.sleep(self._pace.freeze_s)
        self.link = None
        if self.data is not None and not self._engines.flavour.ships_unflushed:
            del self.data.writes[self.data.flushed :]

    async def follow(self, source: "FakeEngine") -> None:
        """Replicate from there."""
        if self.promoted_epoch:
            raise Refused(f"{self.name} is a primary and follows nobody; close it and let it rejoin.")
        await self.start()
        self._must_answer()
        if self.link is None or self.link.source is not source:
            self.link = _Link(source, silent_since_s=self._world.now_s())
        self._engines.network_changed()
        if not self.link.heard and self._engines.reachable(self, source) and not self._fits(source):
            raise Refused(f"{self.name} went another way than {source.name}; let it rejoin.")

    async def promote(self, epoch: int, sync: SyncConfig) -> None:
        """Become primary, with clients still out."""
        if sync.acks and not self._engines.flavour.capabilities.zero_loss_commit:
            raise Refused(f"{self.name} cannot wait for standbys at each write; ask for no acknowledgements.")
        if self.running is not Running.UP or self.data is None:
            raise DriverFault(f"{self.name} is not running, so it cannot be promoted.")
        self._must_answer()
        if self.promoted_epoch not in {0, epoch}:
            raise Refused(f"{self.name} is a primary of epoch {self.promoted_epoch}; close it first.")
        incarnation = self.incarnation
        await self._world.sleep(self._pace.promote_s)
        if incarnation != self.incarnation:
            raise DriverFault(f"{self.name} died while it was promoted.")
        if not self.promoted_epoch:
            self.link = None
            self.data.flushed = self._history_end = len(self.data.writes)
            self.data.branches = (
                *self.data.position(self.data.flushed).branches,
                Branch(f"{epoch}.{self.name}", self.data.flushed),
            )
            self.promoted_epoch, self.acks = epoch, {}
        self.sync = sync
        self._engines.network_changed()

    async def let_in(self, *, held: bool) -> None:
        """Open to clients."""
        if not self.promoted_epoch or self.running is not Running.UP:
            raise DriverFault(f"{self.name} is no primary, so no client is let in.")
        if not held and not self.covered():
            raise DriverFault(f"{self.name} has history that too few standbys have, so no client is let in yet.")
        self.open = True

    async def set_sync(self, sync: SyncConfig) -> None:
        """Change the commit rule."""
        if sync.acks and not self._engines.flavour.capabilities.zero_loss_commit:
            raise Refused(f"{self.name} cannot wait for standbys at each write; ask for no acknowledgements.")
        self._must_answer()
        self.sync = sync
        self._settle()

    async def stop_gracefully(self) -> None:
        """Let clients out, give the standbys everything, stop."""
        if self.running is Running.DEAD:
            return
        self._must_answer()
        self.open = False
        self.cut_waits()
        incarnation = self.incarnation
        while not self._drained():
            await self._world.sleep(self._pace.flush_s)
            if incarnation != self.incarnation:
                raise DriverFault(f"{self.name} died before everything was sent.")
        if self.data is not None:
            self.data.clean = True
        self._end()

    def _drained(self) -> bool:
        if self.stopped or self.data is None or self.data.flushed < len(self.data.writes):
            return False
        links = [one.link for one in self._engines if one.link and one.link.source is self and one.link.alive]
        return all(link.sent >= self.data.flushed for link in links) and all(
            self.acks.get(one.name, 0) >= self.data.flushed
            for one in self._engines
            if one.link in links and not one.disk_stalled
        )

    async def rejoin(self, source: "FakeEngine") -> None:
        """Come back as a standby, undoing what the source has not where that can be done."""
        if self.data is None:
            raise NeedsRebuild(f"{self.name} has no data.")
        if not self._engines.reachable(self, source) or not source.promoted_epoch:
            raise DriverFault(f"{self.name} cannot rejoin, because {source.name} is not reached as a primary.")
        await self._world.sleep(self._pace.start_s)
        if not self._fits(source):
            self.kill()
            if self._engines.flavour.capabilities.rewind:
                self._rewind(source)
            elif not self._engines.flavour.resyncs:
                raise NeedsRebuild(f"{self.name} has writes that {source.name} has not, and cannot undo them.")
        await self.follow(source)

    async def rebuild(self, source: "FakeEngine") -> None:
        """Copy everything; the old data is kept."""
        self.kill()
        self._must_reach(source)
        await self._world.sleep(self._pace.copy_s)
        self._must_reach(source)
        if source.data is not None:
            if self.data is not None:
                self.saved.append(self.data.writes)
            self.data = _copy(source.data)

    # --- within -------------------------------------------------------------------------------------------------------

    def _must_answer(self) -> None:
        if self.stopped or self.hangs:
            raise DriverFault(f"{self.name} does not answer.")

    def _must_reach(self, source: "FakeEngine") -> None:
        if not self._engines.reachable(self, source):
            raise DriverFault(f"{self.name} cannot copy {source.name}, which is not reached.")

    def _when_awake(self, call: Callable[[], None]) -> None:
        """A stopped process does nothing until it goes on; a dead one never."""
        incarnation = self.incarnation
        if self.stopped:
            self._held.append(lambda: call() if incarnation == self.incarnation else None)
        else:
            call()

    def _later(self, delay_s: float, call: Callable[[], None]) -> None:
        incarnation = self.incarnation
        self._world.later(delay_s, lambda: self._when_awake(call) if incarnation == self.incarnation else None)

    def _recovered(self) -> None:
        self.running = Running.UP
        self._engines.network_changed()
        self.tell()

    def _end(self) -> None:
        self.cut_waits()
        self.incarnation += 1
        self.running = Running.DEAD
        self.promoted_epoch, self.open, self.stopped = 0, False, False
        self.link, self.sync, self.acks, self._flushing = None, ASYNC, {}, False
        self._held.clear()
        self._engines.network_changed()
        self.tell()

    def _execute(self, write: Write) -> None:
        if not self.open or self.data is None:
            write.fate = Fate.UNKNOWN
            return
        self.data.writes.append(write.id)
        write.offset = len(self.data.writes)
        self.waiting.append(write)
        self._flush_soon()
        if self._engines.flavour.ships_unflushed:
            self.ship()
            self._settle()

    def _flush_soon(self) -> None:
        unflushed = self.data is not None and self.data.flushed < len(self.data.writes)
        if unflushed and not self._flushing and self.running is Running.UP:
            self._flushing = True
            self._later(self._pace.flush_s, self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self.disk_stalled or self.data is None:
            return
        self.data.flushed = len(self.data.writes)
        if self.promoted_epoch:
            self.ship()
            self._settle()
        else:
            self._acknowledge()

    def ship(self) -> None:
        """Send every standby what it has not been sent."""
        if self.data is None:
            return
        end = len(self.data.writes) if self._engines.flavour.ships_unflushed else self.data.flushed
        for one in self._engines:
            link = one.link
            if link is not None and link.alive and link.source is self and link.sent < end:
                start, part, link.sent = link.sent, self.data.writes[link.sent : end], end
                one.send_later(link, start, part)

    def send_later(self, link: _Link, start: int, part: list[str]) -> None:
        """Something is on its way to this standby."""
        self._later(self._pace.link_s, lambda: self._receive(link, start, part))

    def _receive(self, link: _Link, start: int, part: list[str]) -> None:
        if link is not self.link or not link.alive or self.data is None or start != len(self.data.writes):
            return  # of a connection that is no more
        self.data.writes.extend(part)
        self._adopt_branches(link.source)
        self._flush_soon()
        if self._engines.flavour.ships_unflushed:
            self._acknowledge()

    def _adopt_branches(self, source: "FakeEngine") -> None:
        if self.data is not None and source.data is not None:
            end = len(self.data.writes)
            self.data.branches = tuple(branch for branch in source.data.branches if branch.start <= end)

    def _acknowledge(self) -> None:
        """Tell the source how far we are."""
        link = self.link
        if link is None or not link.alive or self.data is None:
            return
        name, source = self.name, link.source
        end = len(self.data.writes) if self._engines.flavour.ships_unflushed else self.data.flushed
        source.hear(name, end, link)

    def hear(self, standby: Name, offset: int, link: _Link) -> None:
        """A standby's word is on its way to this primary."""
        self._later(self._pace.link_s, lambda: self._acked(standby, offset) if link.alive else None)

    def _acked(self, standby: Name, offset: int) -> None:
        if offset > self.acks.get(standby, -1):
            self.acks[standby] = offset
            uncovered = not self.open
            self._settle()
            if uncovered:
                self.tell()

    def _settle(self) -> None:
        """Answer the clients whose writes are safe under the rule in force."""
        while self.waiting and self._safe(self.waiting[0].offset):
            write = self.waiting.popleft()
            write.fate = Fate.ACKED
            self._engines.on_ack(self, write)

    def _safe(self, offset: int) -> bool:
        if self._engines.flavour.ships_unflushed:
            return True
        having = sum(1 for voter in self.sync.voters if self.acks.get(voter, -1) >= offset)
        return self.data is not None and self.data.flushed >= offset and having >= self.sync.acks

    def _fits(self, source: "FakeEngine") -> bool:
        """Whether all that we have is in the source too."""
        if self.data is None or source.data is None:
            return False
        mine, theirs = len(self.data.writes), len(source.data.writes)
        return contains(source.data.position(theirs), self.data.position(mine))

    def _rewind(self, source: "FakeEngine") -> None:
        assert self.data is not None  # noqa: S101  the caller has looked
        assert source.data is not None  # noqa: S101  a primary has data
        mine, theirs = self.data.position(len(self.data.writes)), source.data.position(len(source.data.writes))
        end = theirs.offset - lacks_bytes(mine, theirs)
        self.saved.append(self.data.writes[end:])
        del self.data.writes[end:]
        self.data.flushed = end
        self.data.branches = self.data.position(end).branches
        self._adopt_branches(source)

    def refresh_link(self) -> None:
        """The network, or somebody's process, is not what it was."""
        link = self.link
        if link is None:
            return
        going = self.running is Running.UP and not self.stopped and link.source.promoted_epoch > 0
        alive = going and self._engines.reachable(self, link.source)
        if link.alive and not alive:
            link.alive, link.silent_since_s = False, self._world.now_s()
            self.tell()
        elif alive and not link.alive:
            self._connect(link)

    def _connect(self, link: _Link) -> None:
        if not self._fits(link.source):
            if self._engines.flavour.resyncs and self.data is not None and link.source.data is not None:
                self.saved.append(self.data.writes)
                self.data = _copy(link.source.data)
            else:
                return
        link.alive = link.heard = True
        link.sent = len(self.data.writes) if self.data else 0
        self._adopt_branches(link.source)
        self._acknowledge()
        link.source.ship()
        self.tell()


class FakeEngines:
    """All engines of one cluster, and what is between them."""

    def __init__(self, nodes: Iterable[Node], flavour: Flavour, world: World, pace: Pace | None = None) -> None:
        self.flavour = flavour
        self.world = world
        self.pace = pace or Pace()
        self.on_ack: Callable[[FakeEngine, Write], None] = lambda _engine, _write: None
        self._engines = {node.name: FakeEngine(self, node) for node in nodes}

    def __getitem__(self, name: Name) -> FakeEngine:
        return self._engines[name]

    def __iter__(self) -> Iterator[FakeEngine]:
        return iter(self._engines.values())

    def reachable(self, one: FakeEngine, other: FakeEngine) -> bool:
        """Whether the other, up and going, can be asked from the host of the one."""
        here, there = one.node.host, other.node.host
        going = other.running is Running.UP and not other.stopped
        return going and self.world.connected(here, there) and self.world.connected(there, here)

    def network_changed(self) -> None:
        """Look at every link anew."""
        for engine in self:
            engine.refresh_link()


class FakeDriver:
    """Fulfils the port `Driver` for one of the engines."""

    def __init__(self, engines: FakeEngines, name: Name) -> None:
        self.engine = engines[name]
        self._engines = engines
        self.done: list[Action] = []
        """Every action that was carried out, for those who test."""

    @property
    def capabilities(self) -> Capabilities:
        """What this kind of engine can do."""
        return self._engines.flavour.capabilities

    def listen(self, told: Callable[[], None]) -> None:
        """News goes to the last who asked."""
        self.engine.tell = told

    async def observe(self) -> Observation:
        """Look."""
        while self.engine.hangs:
            await self._engines.world.sleep(self._engines.pace.copy_s)
        return self.engine.observe()

    async def perform(self, action: Action) -> None:  # noqa: C901  one line for each action
        """Do it, to the end."""
        engine = self.engine
        match action:
            case Bootstrap():
                await engine.bootstrap(action.identity)
            case Start():
                await engine.start()
            case Close():
                await engine.close()
            case Freeze():
                await engine.freeze()
            case Follow():
                await engine.follow(self._engines[action.source])
            case Promote():
                await engine.promote(action.epoch, action.sync)
            case Open():
                await engine.let_in(held=action.held)
            case SetSync():
                await engine.set_sync(action.sync)
            case StopGracefully():
                await engine.stop_gracefully()
            case Rejoin():
                await engine.rejoin(self._engines[action.source])
            case Rebuild():
                await engine.rebuild(self._engines[action.source])
        self.done.append(action)


class FakeFence:
    """The guard of one engine: kills it before the deadline unless that is moved. `boot_s` is its host's clock."""

    def __init__(self, engine: FakeEngine, world: World, boot_s: Callable[[], float]) -> None:
        self._engine = engine
        self._world = world
        self._boot_s = boot_s
        self._kill_at_s = 0.0
        self._incarnation = -1
        self._epoch = 0

    async def renew(self, deadline_boot_s: float, *, margin_s: float, epoch: int) -> None:
        """Arm, or move the deadline, within an epoch only forward."""
        engine, kill_at_s = self._engine, deadline_boot_s - margin_s
        if engine.running is Running.DEAD:
            raise Fault(f"{engine.name} has no guard, because its engine is dead.")
        if kill_at_s <= self._boot_s():
            raise Refused(f"{engine.name} cannot be armed with a deadline that has passed.")
        armed = self._incarnation == engine.incarnation
        if armed and self._epoch == epoch and kill_at_s < self._kill_at_s:
            raise Refused(f"{engine.name} has a later deadline, which stands.")
        self._kill_at_s, self._incarnation, self._epoch = kill_at_s, engine.incarnation, epoch
        if not armed:
            self._wait()

    def _wait(self) -> None:
        incarnation = self._incarnation
        self._world.later(max(0.0, self._kill_at_s - self._boot_s()), lambda: self._due(incarnation))

    def _due(self, incarnation: int) -> None:
        if incarnation != self._engine.incarnation:
            return
        if self._boot_s() < self._kill_at_s:
            self._wait()
        else:
            self._engine.kill()


class FakeProber:
    """Fulfils the port `Prober` from one host."""

    def __init__(self, engines: FakeEngines, host: Name) -> None:
        self._engines = engines
        self._host = host

    async def answers(self, node: Node) -> bool:
        """Whether its engine, up and going, can be reached both ways."""
        world, engine = self._engines.world, self._engines[node.name]
        await world.sleep(self._engines.pace.ask_s)
        there = world.connected(self._host, node.host) and world.connected(node.host, self._host)
        return there and engine.running is Running.UP and not engine.stopped and not engine.hangs


def _copy(data: _Data) -> _Data:
    """What a copy of a running engine holds once it is whole."""
    return _Data(data.position(data.flushed).branches, data.writes[: data.flushed], data.flushed)
