"""The cluster loop: one agent's work for one cluster. `tick` is all of it; `run` only repeats it.

READ FIRST: tick() below. Observe, renew, obey, report, for every node of this host; then the steward's part: contend,
decide, persist, publish. tick never waits: whatever talks to outside runs in a lane, with a deadline, and is looked at
again when it comes back. So a hung engine, disk, store or peer holds up its own lane and nothing else.

RULES: a record is obeyed only after it was read back from the store or our own write of it was committed; the last one
that could be read stays in force while the store is away, or holds something that cannot be read. A tick may come at
any time, early or twice, and does no harm.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from math import inf
from typing import Any

import structlog

from understudy.control.clock import Clock
from understudy.control.cluster.beats import RouterWord, beat
from understudy.control.cluster.executor import Executor
from understudy.control.cluster.lane import Lane
from understudy.control.cluster.mirror import Mirror, Sight
from understudy.control.cluster.node_state import NodeState
from understudy.control.cluster.observer import Observer, Reporter, next_beat_s
from understudy.control.cluster.ports import OwnNode, Ports, PromiseRequest, Rerouter, Work
from understudy.control.cluster.reading import RecordReader
from understudy.control.cluster.steward import Steward
from understudy.control.cluster.tenure import LeaseReader, Tenure
from understudy.control.keys import (
    cluster,
    cluster_primary,
    cluster_record,
    cluster_router,
    cluster_steward,
)
from understudy.core.cluster import ClusterService, Node, refusal
from understudy.core.cluster_why import lag_bytes, store_away
from understudy.core.clusters import Route, route_of
from understudy.core.codec import encode
from understudy.core.errors import Refused
from understudy.core.record import ClusterRecord, DutyKind
from understudy.core.report import ClusterView, Running, streams
from understudy.core.text import Name
from understudy.store.base import Put, StoreFault

AFTER_FAILURE_S = 0.2
LONGEST_S = 1.0
"""A tick comes at least so often."""


class ClusterLoop:
    """One agent, one cluster. `start`, then `tick` at the time that the last one named or when `wake` is called."""

    def __init__(self, ports: Ports) -> None:
        """Raises Refused when the spec cannot be kept."""
        name = ports.service.name
        _refuse(refusal(ports.service, None))
        self._ports = ports
        self._known = {node.name: node for node in ports.service.nodes}
        """The nodes of the spec, and those that have left it and still had a duty when it last changed."""
        self._mirror = Mirror(ports, cluster(name), self._changed)
        self._urgent = (cluster_record(name), cluster_primary(name), cluster_steward(name))
        """What is worth a tick of everybody."""
        self._record = RecordReader(self._mirror, cluster_record(name), name)
        self._primary = LeaseReader(self._mirror, cluster_primary(name))
        self.steward = Steward(ports, self._mirror, self._record, self._primary)
        self._keepers = tuple(self._keep(own) for own in ports.own)
        self._routing = _Routing(ports, self._mirror)
        self.refused = ""
        """Why this agent decides and writes nothing about the cluster; empty when it may."""

    def start(self) -> None:
        """Begin to watch the store."""
        self._mirror.start()

    def stop(self) -> None:
        """End all that runs in the background; engines, guards and routers go on as they are."""
        self._mirror.stop()
        lanes = [lane for keeper in self._keepers for lane in keeper.lanes]
        for lane in (*lanes, *self.steward.lanes, *self._routing.lanes):
            lane.give_up()

    async def leave(self) -> None:
        """After `stop`: let our primaries live on until the next agent of this host takes them over."""
        await asyncio.gather(*(keeper.tenure.leave() for keeper in self._keepers))

    def change(self, service: ClusterService, own: Sequence[OwnNode] = ()) -> None:
        """Go on with a new spec, whatever is under way. `own`: this host's nodes of it; who is kept already stays.

        A node that is not in it any more is kept until the record has let it go and its engine is stopped. Others may
        have the new spec earlier or later: who has an older one than the record does not decide. Raises Refused, and
        then nothing has changed.
        """
        self.refuse(service)
        known = self._in_duty()
        kept = {keeper.state.name for keeper in self._keepers}
        self._known = known | {node.name: node for node in service.nodes}
        self._ports = replace(self._ports, service=service)
        self._keepers += tuple(self._keep(one) for one in own if one.node.name not in kept)
        for keeper in self._keepers:
            keeper.tenure.ask(self._known.values())
        self.steward.take(service)
        self._ports.wake()

    def refuse(self, service: ClusterService) -> None:
        """Raise Refused when `change` would."""
        _refuse(refusal(service, self._ports.service, self._in_duty().values()))

    def _in_duty(self) -> dict[Name, Node]:
        record = self._record.newest
        return {name: node for name, node in self._known.items() if record is not None and record.duty(name)}

    def tick(self) -> float:
        """Do all that is due. When to be called again, by the boot clock in seconds."""
        now = self._ports.clock.now()
        self._record.read(self._foreign)
        record = self._record.newest
        self._let_go(record)
        refused = self._refused()
        wake_s = inf
        for keeper in self._keepers:
            keeper.heard(record)
            keeper.observer.tick(now.boot_s)
            wake_s = min(wake_s, keeper.tenure.tick(now.boot_s, record, foreign=self._record.foreign))
            wake_s = min(wake_s, keeper.executor.tick(now, record))
            wake_s = min(wake_s, keeper.reporter.tick(now.boot_s, leading=keeper.leads(record)))
        wake_s = min(wake_s, self.steward.tick(now, refused))
        wake_s = min(wake_s, self._routing.tick(now.boot_s, record))
        return min([wake_s, *(keeper.observer.next_s(now.boot_s) for keeper in self._keepers)])

    async def promise(self, node: Name, request: PromiseRequest) -> bool:
        """Another agent, cut off from the store, asks one of our nodes. False when it may not be promised."""
        keeper = next((one for one in self._keepers if one.state.name == node), None)
        if keeper is None or request.cluster != self._ports.service.name:
            return False
        return await keeper.tenure.promise(request, self._record.newest)

    @property
    def record(self) -> ClusterRecord | None:
        """What is in force here."""
        return self._record.newest

    @property
    def steward_host(self) -> str | None:
        """The host whose agent decides at the moment; None when nobody holds the right."""
        return self.steward.holder

    def look(self) -> ClusterView:
        """All that is seen of the cluster from here: what a decision would rest on."""
        return self.steward.look(self._ports.clock.now().boot_s)

    def without_store(self) -> str:
        """Since when the store is silent, and what goes on without it, as a sentence; empty while it speaks."""
        now_s, record = self._ports.clock.now().boot_s, self._record.newest
        silent_s = self._mirror.silent_s(now_s)
        if silent_s * 1000 <= self._ports.service.timers.stale_other_ms:
            return ""
        own = [one for one in self._keepers if record is not None and one.state.name == record.primary]
        reigns = any(one.takes_writes(now_s) for one in own) if own else None
        promised = [one.state.name for one in self._keepers if one.state.promise.until_s > now_s]
        return store_away(self._ports.service.name, record, silent_s, reigns=reigns, promised=promised)

    def may_serve(self, node: str, role: str, max_lag_bytes: int) -> bool | None:
        """Whether a node of ours may be sent writes (`primary`) or reads (`standby`), by this host's own clock.

        None: an agent that has just begun does not know yet, and must not take clients away from a healthy engine,
        whose guard has its deadline all the same.
        """
        keeper = next((one for one in self._keepers if one.state.name == node), None)
        if keeper is None:
            return False
        report = keeper.state.report
        if report is None or not self._mirror.ready:
            return None
        if role == "primary":
            lease = keeper.state.lease
            if report.writable and not lease.epoch:
                return None
            return keeper.takes_writes(self._ports.clock.now().boot_s)
        behind = lag_bytes(self.look(), report.node)
        near = behind is not None and behind <= max_lag_bytes
        return role == "standby" and streams(report, report.streaming_from) and near

    @property
    def version(self) -> int:
        """Of the spec that is in force here."""
        return self._ports.service.version

    def _keep(self, own: OwnNode) -> "_Keeper":
        return _Keeper(self._ports, own, self._mirror, self._primary, self.steward.closed)

    def _let_go(self, record: ClusterRecord | None) -> None:
        """End the care for nodes that have left: nobody counts on them any more, and their engines are stopped."""
        service = self._ports.service
        left = [one for one in self._keepers if service.node(one.state.name) is None and one.gone(record, service)]
        for keeper in left:
            for lane in keeper.lanes:
                lane.give_up()
            self._keepers = tuple(one for one in self._keepers if one is not keeper)
            self._ports.let_go(keeper.state.name)

    def _refused(self) -> str:
        """Why we must not decide about what is in the store; told once each time that it changes."""
        name = self._ports.service.name
        reason, cure = (
            self._record.refused or self._primary.fault or self.steward.fault,
            "put a backup of the store in place",
        )
        if not reason and (reason := self._outdated()):
            cure = "whoever has the newer one decides meanwhile"
        if reason and reason != self.refused:
            structlog.get_logger().warning(f"Nothing is decided or written about {name}, because {reason}; {cure}.")
        self.refused = reason
        return reason

    def _outdated(self) -> str:
        """Whether the record was decided by a newer spec than ours, which we might undo."""
        record, version = self._record.newest, self._ports.service.version
        if record is None or record.spec <= version:
            return ""
        return f"version {record.spec} of the spec was in force already and this agent has version {version}"

    def _foreign(self, record: ClusterRecord) -> str:
        """Why a record is not our cluster's; empty when it is, or when a person agreed that our data is put aside."""
        for keeper in self._keepers:
            own = keeper.state.facts.identity
            left = self._ports.service.node(keeper.state.name) is None  # its data are none of ours any more
            if not left and own not in {None, record.identity} and not keeper.yields(record):
                return f"it is of the cluster {record.identity}, and {keeper.state.name} belongs to {own}"
        return ""

    def _changed(self, before: Sight | None, sight: Sight) -> None:
        """Something came from the store: is it worth a tick? What only says "still so" is not."""
        if sight.key == self._primary.key:
            self._primary.passed(before)
        if sight.content == (before.content if before else None):
            return
        self.steward.stir()
        bound = any(keeper.state.promise.until_s > sight.since_s for keeper in self._keepers)  # which a death may end
        if sight.key in self._urgent or self.steward.holding or bound:
            self._ports.wake()


class _Keeper:
    """All parts of one own node."""

    def __init__(
        self,
        ports: Ports,
        own: OwnNode,
        mirror: Mirror,
        primary: LeaseReader,
        closed: Callable[[ClusterRecord], bool],
    ) -> None:
        self.state = NodeState(own)
        self.observer = Observer(ports, mirror, self.state)
        self.reporter = Reporter(ports, mirror, self.state)
        self.tenure = Tenure(ports, mirror, self.state, primary)
        self.executor = Executor(ports, self.state, closed)
        self._heard: ClusterRecord | None = None

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """Everything that may run."""
        return (self.observer.lane, self.reporter.lane, self.executor.lane, *self.tenure.lanes)

    def gone(self, record: ClusterRecord | None, service: ClusterService) -> bool:
        """Whether a steward with this spec (or a newer one) has forgotten the node, and its engine is stopped."""
        state = self.state
        forgotten = record is not None and record.spec >= service.version and record.duty(state.name) is None
        stopped = state.report is not None and state.report.running is Running.DEAD
        return forgotten and stopped and state.looked == state.generation and not self.executor.lane.busy

    def heard(self, record: ClusterRecord | None) -> None:
        """The agent has read this record; one of a store that was put back says less than is known."""
        state = self.state
        if record is not None and state.facts.identity in {None, record.identity}:
            if record is not self._heard and state.loaded:
                self._heard = record
                if (record.epoch, record.serial) >= (state.wanted.epoch, state.serial):
                    state.company = tuple(sorted(duty.node for duty in record.duties))
                    state.company_identity = record.identity
            state.serial = max(state.serial, self.tenure.bound(record))

    def leads(self, record: ClusterRecord | None) -> bool:
        """Whether the node has the primary's part, so that its silence must mean something soon."""
        report = self.state.report
        return (record is not None and record.primary == self.state.name) or (
            report is not None and report.promoted_epoch > 0
        )

    def takes_writes(self, now_s: float) -> bool:
        """Whether it is an open primary that has the right to be, by this host's own clock."""
        report, lease = self.state.report, self.state.lease
        ours = report is not None and lease.epoch == report.promoted_epoch and lease.deadline_s > now_s
        return ours and report is not None and report.writable

    def yields(self, record: ClusterRecord) -> bool:
        """Whether a person agreed that what this node carries is put aside."""
        duty = record.duty(self.state.name)
        return duty is not None and duty.kind is DutyKind.REBUILD and duty.consent


class _Routing:
    """Lets this host's router follow the record, and tells the store up to which epoch it has."""

    def __init__(self, ports: Ports, mirror: Mirror) -> None:
        self._ports = ports
        self._mirror = mirror
        self._key = cluster_router(ports.service.name, ports.host)
        self._follow = Lane(ports.spawn, ports.wake)
        self._say = Lane(ports.spawn, ports.wake)
        self._record: ClusterRecord | None = None
        self._word: tuple[int, bytes] = (-1, b"")
        """What was said last, without its counter, and of which epoch."""
        self._wanted: Route | None = None
        self._done: Route | None = None
        self._counter = 0
        self._again_s = 0.0
        self._say_s = 0.0

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """Everything that may run."""
        return (self._follow, self._say)

    def tick(self, now_s: float, record: ClusterRecord | None) -> float:
        """Follow and say so; when to come again."""
        router, timers = self._ports.router, self._ports.service.timers
        if router is None or record is None:
            return inf
        if record is not self._record:
            self._record, self._wanted = record, route_of(record)
        self._follow.expired(now_s)
        self._say.expired(now_s)
        if self._wanted is not None and self._wanted != self._done and not self._follow.busy and now_s >= self._again_s:
            self._again_s = now_s + timers.report_ms / 1000
            self._follow.start(partial(self._bring, router, self._wanted), now_s + timers.route_ms / 1000)
        epoch = self._done.epoch if self._done else 0
        if not self._say.busy and self._mirror.ready and now_s >= self._say_s:
            self._say_s = next_beat_s(now_s, timers.renew_ms)
            self._say.start(partial(self._tell, epoch), now_s + timers.timeout_ms / 1000)
        again_s = self._again_s if self._wanted != self._done and not self._follow.busy else inf
        say_s = self._say_s if self._mirror.ready else inf
        return min(self._follow.until(again_s, now_s), self._say.until(say_s, now_s))

    async def _bring(self, router: Rerouter, route: Route) -> bool:
        try:
            await router.follow(self._ports.service.name, route)
            self._done, self._again_s, self._say_s = route, 0.0, 0.0
        except Refused as fault:
            structlog.get_logger().warning(str(fault))
        return True

    async def _tell(self, epoch: int) -> bool:
        sight = self._mirror.get(self._key)
        self._counter = max(self._counter + 1, sight.revision)  # rises over a restart too
        if self._word[0] != epoch:
            self._word = (epoch, encode(RouterWord(0, epoch, self._ports.host)))
        put = Put(self._key, beat(self._word[1], self._counter))
        try:
            outcome = await self._ports.store.transact([], [put])
            self._mirror.note(put, outcome.revision)
        except StoreFault:
            pass  # the next beat comes soon
        return False


def _refuse(why: str) -> None:
    if why:
        raise Refused(why)


async def run(loop: ClusterLoop, clock: Clock, bell: asyncio.Event) -> None:
    """Tick for ever, at the time that the last tick named or when the bell rings (`Ports.wake`). No fault ends it."""
    loop.start()
    try:
        while True:
            bell.clear()
            try:
                next_s = loop.tick()
            except Exception:  # noqa: BLE001  the other nodes' engines, and ours, must not suffer for it
                structlog.get_logger().exception("A tick failed; it is tried again.")
                next_s = clock.now().boot_s + AFTER_FAILURE_S
            await _rung_within(clock, bell, next_s - clock.now().boot_s)
    finally:
        loop.stop()


async def _rung_within(clock: Clock, bell: asyncio.Event, wait_s: float) -> None:
    """Until the bell rings, at most so long; others get their turn in any case."""
    waits = [asyncio.ensure_future(bell.wait()), asyncio.ensure_future(clock.sleep(min(wait_s, LONGEST_S)))]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def spawn(work: Coroutine[Any, Any, None]) -> Work:
    """The port `Spawn` on the running event loop. What fails there is a mistake in the program, and is logged."""
    task = asyncio.get_running_loop().create_task(work)
    _TASKS.add(task)
    task.add_done_callback(_ended)
    return task


_TASKS: set[asyncio.Task[None]] = set()
"""So that none is forgotten before it ends."""


def _ended(task: asyncio.Task[None]) -> None:
    _TASKS.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        structlog.get_logger().error("Work in the background failed.", exc_info=error)
