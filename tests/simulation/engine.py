"""A model of an engine: log, flush, streaming, commit rule, lineage, crash, recovery; and its driver.

It models what failover rests on: what is acknowledged when, what a disk still has after a kill or a power cut, whom a
standby hears, and that two histories can fork. PostgreSQL, Redis and MariaDB differ in `Rules` only. One write is one
entry of UNIT bytes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

from tests.simulation.hosts import Host, Process
from tests.simulation.network import Network

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
from understudy.core.cluster import Capabilities
from understudy.core.lineage import Branch, Position, contains
from understudy.core.record import SyncConfig
from understudy.core.report import Running
from understudy.core.text import Name
from understudy.drivers.base import DriverFault, NeedsRebuild, Observation

UNIT = 100
"""Bytes of an entry."""


ASYNC = SyncConfig(frozenset(), 0)
"""The rule of an engine that nobody gave one."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How one kind of engine behaves."""

    kind: str
    capabilities: Capabilities
    flush_first: bool
    """A write reaches the disk before it is acknowledged or sent on; otherwise the disk comes later."""
    readable_dead: bool
    """The position can be read from the disk while the engine is down."""


POSTGRES = Rules("postgres", Capabilities(True, True, True, True), flush_first=True, readable_dead=True)
REDIS = Rules("redis", Capabilities(False, False, False, True), flush_first=False, readable_dead=False)
MARIADB = Rules("mariadb", Capabilities(True, True, False, True), flush_first=True, readable_dead=True)
ALL_RULES = (POSTGRES, REDIS, MARIADB)


class Truth(Protocol):
    """Who is told what really happened (the checkers and the transcript)."""

    def acknowledged(self, engine: "Engine", write: int) -> None: ...
    def promoted(self, engine: "Engine", epoch: int) -> None: ...
    def opened(self, engine: "Engine") -> None: ...
    def discarded(self, engine: "Engine", log: list[int]) -> None: ...
    def draw_marker(self) -> int:
        """The id of an entry that no client wrote: below zero, and another each time."""
        ...

    def acted(self, engine: "Engine", action: Action, *, paused: bool) -> None: ...
    def noted(self, who: str, what: str, detail: str) -> None: ...


@dataclass(slots=True)
class Data:
    """What is on the disk. `log` may run ahead of the disk; `flushed` entries of it are there."""

    log: list[int] = field(default_factory=list)
    branches: tuple[Branch, ...] = ()
    flushed: int = 0
    clean: bool = False
    spoilt: bool = False
    """A rewind was cut short: nothing can be made of it but copying anew."""
    follow: Name | None = None
    """Whom it follows when it is started."""

    @property
    def position(self) -> Position | None:
        """Flushed history; None when there is none that could be named."""
        return self._upto(self.flushed) if self.branches and not self.spoilt else None

    @property
    def end(self) -> Position:
        """All history, flushed or not."""
        return self._upto(len(self.log))

    def cut(self, entries: int) -> None:
        """Only so many entries are left."""
        del self.log[entries:]
        self.flushed = min(self.flushed, entries)
        self.branches = tuple(branch for branch in self.branches if branch.start <= entries * UNIT)

    def _upto(self, entries: int) -> Position:
        branches = self.branches
        if branches[-1].start > entries * UNIT:
            branches = tuple(branch for branch in branches if branch.start <= entries * UNIT)
        return Position(branches, entries * UNIT)


@dataclass(slots=True)
class _Link:
    """A standby that is connected, as its source sees it."""

    standby: "Engine"
    token: int
    sent: int
    acked: int


class Engine:
    """One node's engine: at most one process at a time, and the data on its host's disk."""

    def __init__(  # noqa: PLR0917  # all that an engine is made of
        self,
        name: Name,
        host: Host,
        rules: Rules,
        network: Network,
        random: Random,
        truth: Truth,
        peers: dict[Name, "Engine"],
    ) -> None:
        self.name = name
        self.host = host
        self.rules = rules
        self.network = network
        self.random = random
        self.truth = truth
        self.peers = peers
        self.data = Data()
        self.kept: list[list[int]] = []
        self.process: Process | None = None
        self.died_s = 0.0
        self.told: list[Callable[[], None]] = []
        self._tokens = 0
        self._reset()

    def _reset(self) -> None:
        self.recovered = False
        self.promoted_epoch = 0
        self.writable = False
        self.sync: SyncConfig = ASYNC
        self.covered_from = 0
        self.waiting: list[tuple[int, int, Callable[[], None] | None, float]] = []
        self.links: dict[Name, _Link] = {}
        self.source: Name | None = None
        """Whom it has heard of since it was told to follow."""
        self._token = 0
        self._broken_s: float | None = None
        """Since when the link is known to be broken at either end; None while it is not."""
        self._retrying = False

    # What is seen.

    @property
    def now_s(self) -> float:
        """True time."""
        return self.host.scheduler.now_s

    @property
    def running(self) -> Running:
        """What the guard would say."""
        if self.process is None or not self.process.alive:
            return Running.DEAD
        return Running.UP if self.recovered else Running.STARTING

    @property
    def answers(self) -> bool:
        """Whether a client gets an answer in the engine's protocol."""
        return self.process is not None and self.process.running and self.recovered

    @property
    def streaming(self) -> bool:
        """Whether a standby hears its source at this moment."""
        return self.source is not None and self._silent_since() is None

    def link_age_s(self) -> float | None:
        """Since the last message of the source; None when there never was one."""
        if self.source is None:
            return None
        since_s = self._silent_since()
        return 0.0 if since_s is None else self.now_s - since_s

    def _silent_since(self) -> float | None:
        source = self.peers[self.source] if self.source else None
        if source is None:
            return self.now_s
        since = [self._broken_s, self.network.silent_since(source.host.name, self.host.name)]
        link = source.links.get(self.name)
        if source.process is None or not source.process.alive:
            since.append(source.died_s)
        elif source.process.stopped_s is not None:
            since.append(source.process.stopped_s)
        elif (link is None or link.token != self._token) and self._broken_s is None:
            since.append(self.now_s)
        known = [one for one in since if one is not None]
        return min(known) if known else None

    @property
    def voters_heard(self) -> int:
        """How many voters would acknowledge a write now."""
        return sum(
            1 for name, link in self.links.items() if name in self.sync.voters and link.standby.hears(self, link.token)
        )

    def hears(self, source: "Engine", token: int) -> bool:
        """Whether this standby would answer what that source sends over that connection."""
        return self._token == token and self.source == source.name and self.answers and self.streaming

    @property
    def starved(self) -> bool:
        """Whether writes are executed and not acknowledged."""
        if not self.promoted_epoch or not self.sync.acks:
            return False
        return self.voters_heard < self.sync.acks or bool(self.waiting and self.now_s - self.waiting[0][3] > 0.3)

    @property
    def covered(self) -> bool:
        """Whether enough voters have all from before it opened."""
        if not self.promoted_epoch or not self.sync.acks:
            return True
        have = sum(1 for n, link in self.links.items() if n in self.sync.voters and link.acked >= self.covered_from)
        return have >= self.sync.acks

    @property
    def serves(self) -> bool:
        """Whether a write that reached it now would be acknowledged."""
        return self.writable and self.answers and self.voters_heard >= self.sync.acks

    def mirrors(self, primary: "Engine") -> bool:
        """Whether this standby follows that primary and lacks nothing of it."""
        follows = self.answers and self.streaming and self.source == primary.name
        return follows and self.data.flushed == len(self.data.log) == len(primary.data.log)

    # Life and death.

    def start(self) -> Process:
        """Begin a process: never writable. Recovery takes its time."""
        self._reset()
        self.process = process = Process(self.host, f"engine-{self.name}")
        self.data.clean = False
        process.later(0.05 + 0.4 * self.random.random(), self._recover)
        return process

    def _recover(self) -> None:
        self.recovered = True
        self._flush_all()
        if self.data.follow:
            self._connect_soon(0.0)
        self._tell()

    def killed(self, *, power: bool) -> None:
        """The process is gone; with the power, so is everything that was not flushed."""
        if self.process is None:
            return
        self.process.kill()
        self.process = None
        self.died_s = self.now_s
        lost_from = self.data.flushed if power else self.random.randint(self.data.flushed, len(self.data.log))
        self.data.cut(lost_from)
        if not power:
            self.data.flushed = len(self.data.log)
        was_links = list(self.links.values())
        self._reset()
        for link in was_links:
            link.standby.shake()
        self._tell()

    def _tell(self) -> None:
        for told in self.told:
            told()

    # Writing.

    def write(self, write: int, answer: Callable[[], None] | None) -> bool:
        """A client's write; False when it is refused. `answer` is called when it is acknowledged."""
        if not self.writable or not self.answers:
            return False
        self._append(write, answer)
        return True

    def _append(self, write: int, answer: Callable[[], None] | None) -> None:
        self.data.log.append(write)
        self.waiting.append((len(self.data.log), write, answer, self.now_s))
        process = self._process()
        self.host.flush(process, self._flush_s(), self._on_flushed, self._incarnation(), len(self.data.log))
        if not self.rules.flush_first:
            self._send_all()
            self._release()

    def _flush_s(self) -> float:
        return 0.0003 + 0.002 * self.random.random() + (0.0 if self.rules.flush_first else 0.5 * self.random.random())

    def _incarnation(self) -> Process | None:
        return self.process

    def _process(self) -> Process:
        if self.process is None:
            raise DriverFault(f"{self.name} is not running.")
        return self.process

    def _on_flushed(self, incarnation: Process, upto: int) -> None:
        if incarnation is not self.process:
            return
        self.data.flushed = max(self.data.flushed, min(upto, len(self.data.log)))
        self._acknowledge()
        self._send_all()
        self._release()

    def _flush_all(self) -> None:
        if self.data.flushed < len(self.data.log):
            self.host.flush(self._process(), self._flush_s(), self._on_flushed, self.process, len(self.data.log))

    def _release(self) -> None:
        """Acknowledge what the commit rule in force allows."""
        while self.waiting and self.promoted_epoch:
            index, write, answer, _ = self.waiting[0]
            if self.rules.flush_first and self.data.flushed < index:
                return
            have = sum(1 for n, link in self.links.items() if n in self.sync.voters and link.acked >= index)
            if have < self.sync.acks:
                return
            self.waiting.pop(0)
            if write > 0:
                self.truth.acknowledged(self, write)
            if answer:
                answer()

    # Streaming: the source's side.

    def _send_all(self) -> None:
        for link in list(self.links.values()):
            self._send(link)

    def _send(self, link: _Link) -> None:
        upto = self.data.flushed if self.rules.flush_first else len(self.data.log)
        if upto <= link.sent:
            return
        entries = tuple(self.data.log[link.sent : upto])
        start, link.sent = link.sent, upto
        self._to(
            link.standby, lambda: self._lost(link), link.standby.hear, link.token, start, entries, self.data.branches
        )

    def _lost(self, link: _Link | None) -> None:
        """A message was lost, in whichever direction: the connection is broken; both ends find out."""
        if link is None:
            return
        if self.links.get(link.standby.name) is link:
            del self.links[link.standby.name]
        link.standby.broken(link.token)

    def _to(self, other: "Engine", lost: Callable[[], None], call: Callable[..., None], *args: Any) -> None:
        self.network.stream(self.host.name, other.host.name, lost, other.receive, lost, call, args)

    def receive(self, lost: Callable[[], None], call: Callable[..., None], args: tuple[Any, ...]) -> None:
        """A message reaches this engine's process; where there is none, the host says so (a reset) if it is on."""
        if self.process is not None:
            self.process.do(call, *args)
        elif self.host.on:
            lost()

    def accept(self, standby: "Engine", token: int, have: Position) -> None:
        """A standby asks to be sent everything after what it has."""
        if not self.recovered or not self.data.branches or not contains(self.data.end, have):
            self._to(standby, _nothing, standby.refused, token)
            return
        start = have.offset // UNIT
        link = _Link(standby, token, start, start)
        self.links[standby.name] = link
        self._to(standby, lambda: self._lost(link), standby.hear, token, start, (), self.data.branches)
        self._send(link)
        self._release()
        self._tell()

    def acked(self, standby: Name, token: int, flushed: int) -> None:
        """A standby has that much on its disk."""
        link = self.links.get(standby)
        if link is not None and link.token == token:
            was_covered = self.covered
            link.acked = max(link.acked, flushed)
            self._release()
            if not was_covered and self.covered:
                self._tell()

    # Streaming: the standby's side.

    def follow(self, source: Name | None) -> None:
        """Replicate from another node, or from nobody."""
        if self.data.follow == source and (source is None or self.source == source):
            return
        self.data.follow = source
        self._disconnect()
        self.source = None
        if source and self.running is Running.UP:
            self._connect_soon(0.0)

    def _disconnect(self) -> None:
        """Hear no more; what was acknowledged before still gets there before the goodbye."""
        token, self._token = self._token, 0
        if self.source and token:
            source = self.peers[self.source]
            self._to(source, _nothing, source.left, self.name, token)

    def left(self, standby: Name, token: int) -> None:
        """A standby has disconnected."""
        link = self.links.get(standby)
        if link is not None and link.token == token:
            del self.links[standby]

    def _connect_soon(self, delay_s: float) -> None:
        if not self._retrying and self.process is not None:
            self._retrying = True
            self.process.later(delay_s, self._connect, self.process)

    def _connect(self, incarnation: Process) -> None:
        if incarnation is not self.process:
            return
        self._retrying = False
        position = self.data.position
        if self.data.follow is None or self.promoted_epoch or position is None or not self.recovered:
            return
        if self.source == self.data.follow and self.streaming:
            return
        if self.source is not None and self._broken_s is None:
            self._broken_s = self._silent_since()
        self._tokens += 1
        self._token = self._tokens
        source = self.peers[self.data.follow]
        if len(self.data.log) > self.data.flushed:
            self._flush_all()
        else:
            self._to(source, _nothing, source.accept, self, self._token, position)
        self._connect_soon(0.3 + 0.3 * self.random.random())

    def shake(self) -> None:
        """Something about links may have changed: see whether ours still holds."""
        if self.data.follow and self.running is Running.UP and not self.promoted_epoch:
            if self.source is not None and not self.streaming:
                self._tell_once_silent()
            self._connect_soon(0.3 + 0.3 * self.random.random())

    def _tell_once_silent(self) -> None:
        self._process().later(1.0, self._tell)

    def broken(self, token: int) -> None:
        """The connection is broken."""
        if token == self._token and self._broken_s is None:
            self._broken_s = self.now_s
            self.shake()

    def refused(self, token: int) -> None:
        """The source has another history."""
        if token == self._token:
            self._token = 0

    def hear(self, token: int, start: int, entries: tuple[int, ...], branches: tuple[Branch, ...]) -> None:
        """A message of the source."""
        if token != self._token or start != len(self.data.log):
            return
        fresh = self.source != self.data.follow or self._broken_s is not None
        self.source = self.data.follow
        self._broken_s = None
        self.data.branches = branches
        self.data.log.extend(entries)
        if entries:
            self.host.flush(self._process(), self._flush_s(), self._on_flushed, self.process, len(self.data.log))
        else:
            self._acknowledge()
        if fresh:
            self._tell()

    def _acknowledge(self) -> None:
        if self._token and self.source and self.data.follow == self.source:
            source = self.peers[self.source]
            have = len(self.data.log) if not self.rules.flush_first else self.data.flushed
            link = source.links.get(self.name)
            self._to(source, lambda: source._lost(link), source.acked, self.name, self._token, have)

    # Becoming primary, and ceasing to be.

    def promote(self, epoch: int, sync: SyncConfig) -> None:
        """Begin a branch of its own under that epoch; clients stay out."""
        self.follow(None)
        offset = len(self.data.log) * UNIT
        self.data.branches = (*self.data.branches, Branch(f"{epoch}", offset))
        self.promoted_epoch = epoch
        self.sync = sync
        self.covered_from = len(self.data.log) + 1
        self._append(self.truth.draw_marker(), None)
        self.truth.promoted(self, epoch)

    def open(self) -> None:
        """Let clients in."""
        if not self.writable:
            self.writable = True
            self.truth.opened(self)

    def set_sync(self, sync: SyncConfig) -> None:
        """Another commit rule is in force from now on."""
        self.sync = sync
        self._release()

    def drained(self) -> bool:
        """Whether every connected standby has everything."""
        return self.data.flushed == len(self.data.log) and all(
            link.acked >= len(self.data.log) for link in self.links.values()
        )


def _nothing() -> None:
    """Whoever sent it hears of no answer, and asks again by himself."""


class SimDriver:
    """Fulfils the port `Driver` for one node, in the process of its agent."""

    def __init__(
        self,
        engine: Engine,
        agent: Process,
        start: Callable[[], None],
        kill: Callable[[], None],
        paused: Callable[[], bool],
    ) -> None:
        self._engine = engine
        self._agent = agent
        self._start = start
        """Start the engine below its guard."""
        self._kill = kill
        """Kill everything below the guard."""
        self._paused = paused
        """Whether the agent knows that the cluster is paused."""

    @property
    def capabilities(self) -> Capabilities:
        """What this engine can do."""
        return self._engine.rules.capabilities

    def listen(self, told: Callable[[], None]) -> None:
        """Call `told` whenever a look is worth it."""
        agent = self._agent
        self._engine.told.append(lambda: agent.do(told))

    async def observe(self) -> Observation:
        """Look."""
        engine, data = self._engine, self._engine.data
        stalled = engine.host.disk_failing_s > 0.2
        hung = engine.process is not None and not engine.process.running
        leading = engine.promoted_epoch > 0
        age_s = engine.link_age_s()
        running = engine.running
        silent = running is not Running.UP and not engine.rules.readable_dead and not data.clean
        unreadable = stalled or hung or silent  # what stops cleanly leaves behind how far it had come
        return Observation(
            running=running,
            empty=not data.branches,
            position=None if unreadable else data.position,
            promoted_epoch=engine.promoted_epoch,
            writable=engine.writable,
            covered=engine.covered,
            streaming_from=engine.source,
            link_age_ms=None if age_s is None else int(age_s * 1000),
            clean_stop=data.clean,
            sync=engine.sync if leading else None,
            write_fails=leading and engine.writable and (hung or stalled),
            starved=engine.starved,
            disk_fails=stalled,
        )

    async def perform(self, action: Action) -> None:
        """Do it, to the end."""
        self._engine.truth.acted(self._engine, action, paused=self._paused())
        await self._agent.effect()
        self._engine.truth.noted(self._engine.name, "do", _told(action))
        await self._do(action)

    async def _do(self, action: Action) -> None:  # noqa: C901  # one case an action
        engine = self._engine
        match action:
            case Bootstrap():
                await self._bootstrap()
            case Start():
                await self._run(None)
            case Close():
                await self._close()
            case Freeze():
                engine.follow(None)
            case Follow():
                await self._run(action.source)
            case Promote():
                await self._promote(action)
            case Open():
                self._must_run()
                engine.open()
            case SetSync():
                self._must_run()
                engine.set_sync(action.sync)
            case StopGracefully():
                await self._stop(action)
            case Rejoin():
                await self._rejoin(action.source)
            case Rebuild():
                await self._rebuild(action.source)

    def _must_run(self) -> None:
        if not self._engine.answers:
            raise DriverFault(f"{self._engine.name} does not answer; it is tried again.")

    async def _pause(self, about_s: float) -> None:
        await self._agent.sleep(about_s * (0.5 + self._engine.random.random()))
        await self._agent.effect()

    async def _bootstrap(self) -> None:
        await self._pause(0.5)
        data = self._engine.data
        if not data.branches:
            made = self._engine.random.randrange(10**6)
            self._engine.data = Data([self._engine.truth.draw_marker()], (Branch(f"{self._engine.name}-{made}", 0),), 1)

    async def _run(self, source: Name | None) -> None:
        engine = self._engine
        if engine.data.spoilt or not engine.data.branches:
            raise DriverFault(f"{engine.name} has no data to start with.")
        if engine.promoted_epoch:
            raise DriverFault(f"{engine.name} is a primary and cannot follow.")
        engine.follow(source)
        if engine.running is Running.DEAD:
            self._start()
        while engine.running is Running.STARTING:
            await self._pause(0.05)
        if engine.running is Running.DEAD:
            raise DriverFault(f"{engine.name} died while it started.")

    async def _close(self) -> None:
        self._kill()
        await self._pause(0.02)
        if self._engine.running is not Running.DEAD:
            raise DriverFault(f"{self._engine.name} is still there.")

    async def _promote(self, action: Promote) -> None:
        engine = self._engine
        self._must_run()
        if engine.promoted_epoch == action.epoch:
            return
        await self._pause(0.05)
        while engine.answers and engine.data.flushed < len(engine.data.log):
            await self._pause(0.01)
        self._must_run()
        if engine.promoted_epoch != action.epoch:
            engine.promote(action.epoch, action.sync)

    async def _stop(self, action: StopGracefully) -> None:
        engine = self._engine
        del action
        if engine.running is Running.DEAD:
            return
        engine.writable = False
        if engine.promoted_epoch:
            engine._append(engine.truth.draw_marker(), None)
        while engine.answers and not engine.drained():
            await self._pause(0.02)
        self._must_run()
        self._kill()
        engine.data.clean = True

    async def _rejoin(self, source: Name) -> None:
        engine, data = self._engine, self._engine.data
        if data.spoilt:
            raise NeedsRebuild(f"{engine.name} was left in the middle of a rewind.")
        there = engine.peers[source]
        if engine.running is Running.DEAD and not self._reachable(there):
            raise DriverFault(f"{source} cannot be asked what it has.")
        if self._reachable(there) and not contains(there.data.end, data.end):
            if not engine.rules.capabilities.rewind:
                raise NeedsRebuild(f"{engine.name} has what {source} has not.")
            await self._rewind(there)
        await self._run(source)

    def _reachable(self, there: Engine) -> bool:
        net, here = self._engine.network, self._engine.host.name
        return there.answers and net.reaches(here, there.host.name) and net.reaches(there.host.name, here)

    async def _rewind(self, there: Engine) -> None:
        engine, data = self._engine, self._engine.data
        self._kill()
        data.spoilt = True
        await self._pause(0.5)
        if not self._reachable(there):
            raise DriverFault(f"{there.name} went away in the middle of the rewind.")
        source = there.data.log[: there.data.flushed]
        shared = _shared(data, there.data)
        self._put_aside(data.log[shared:])
        engine.data = Data(source, there.data.branches, len(source))

    def _put_aside(self, log: list[int]) -> None:
        """Keep a copy of what is about to be thrown away."""
        self._engine.kept.append(list(log))
        self._engine.truth.discarded(self._engine, list(log))

    async def _rebuild(self, source: Name) -> None:
        engine, there = self._engine, self._engine.peers[source]
        if not self._reachable(there) or not there.data.branches:
            raise DriverFault(f"{source} cannot be copied from.")
        self._kill()
        self._put_aside(engine.data.log)
        engine.data = Data()
        await self._pause(1.5)
        if not self._reachable(there):
            raise DriverFault(f"{source} went away in the middle of the copy.")
        copied = there.data.log[: there.data.flushed]
        engine.data = Data(copied, there.data.branches, len(copied))
        await self._run(source)


def _shared(mine: Data, other: Data) -> int:
    """How many entries both have in common."""
    count = 0
    for one, two in zip(mine.log, other.log, strict=False):
        if one != two:
            break
        count += 1
    return count


def _told(action: Action) -> str:
    name = type(action).__name__
    source = getattr(action, "source", None)
    return f"{name} at epoch {action.epoch}" + (f" from {source}" if source else "")
