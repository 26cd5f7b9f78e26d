"""A stage for the cluster loop's tests: three hosts with fake engines, one store, and time that only jumps."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tests.control.cluster.mortal import Doom, MortalDisk, MortalDriver, MortalFence, MortalStore

from understudy.control import keys
from understudy.control.cluster.loop import ClusterLoop
from understudy.control.cluster.loop import spawn as spawn_task
from understudy.control.cluster.node_state import MemoryDisk
from understudy.control.cluster.ports import OwnNode, Ports, PromiseRequest, Work
from understudy.core.clock import Now
from understudy.core.cluster import ClusterService, Durability, Node
from understudy.core.cluster_route import Route
from understudy.core.codec import decode, encode
from understudy.core.errors import Fault
from understudy.core.events import Event
from understudy.core.record import ClusterRecord, Phase, Request, RequestKind
from understudy.core.report import NodeReport
from understudy.core.text import Name
from understudy.drivers.fake import (
    POSTGRES,
    FakeDriver,
    FakeEngine,
    FakeEngines,
    FakeFence,
    FakeProber,
    Flavour,
    LoopWorld,
    Write,
)
from understudy.store.base import Delete, Expect, Outcome, Put
from understudy.store.memory import MemoryStore, Trouble

A, B, C, D = Name("a"), Name("b"), Name("c"), Name("d")
H1, H2, H3, H4 = Name("h1"), Name("h2"), Name("h3"), Name("h4")
ORDERS = Name("orders")
NODES = (Node(A, H1), Node(B, H2), Node(C, H3))
SPARE = (Node(D, H4),)
"""Not in the spec to begin with."""


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 1000.0
        select = self._selector.select
        self._selector.select = lambda timeout: self._jump(select, timeout)

    def _jump(self, select, timeout):
        if timeout:
            self._now_s += max(timeout, 1e-6)  # less could be lost in rounding, for ever
        return select(0)

    def time(self) -> float:
        return self._now_s


class LoopClock:
    """Fulfils the port `Clock` by the running loop."""

    def now(self) -> Now:
        now_s = asyncio.get_running_loop().time()
        return Now(now_s, 1_800_000_000.0 + now_s)

    async def sleep(self, duration_s: float) -> None:
        await asyncio.sleep(duration_s)


@dataclass
class Chronicle:
    """Fulfils the port `Chronicle` over the store, and keeps the events."""

    store: MortalStore
    told: list[Event] = field(default_factory=list)

    async def commit(
        self, expects: Sequence[Expect], changes: Sequence[Put | Delete], events: Iterable[Event], *, wall_s: float
    ) -> Outcome:
        del wall_s
        outcome = await self.store.transact(expects, changes)
        if outcome.committed:
            self.told.extend(events)
        return outcome


class Agent:
    """One agent process, with what it must be able to lose."""

    def __init__(self, stage: "Stage", host: Name) -> None:
        self.stage = stage
        self.host = host
        self.tasks: set[asyncio.Task] = set()
        self.handle: asyncio.TimerHandle | None = None
        self.alive = True
        own = tuple(stage.own(node) for node in stage.nodes_of(host))
        self.loop = ClusterLoop(
            Ports(
                host=host,
                service=stage.service,
                capabilities=stage.flavour.capabilities,
                clock=LoopClock(),
                store=stage.store_of(host),
                spawn=self.spawn,
                prober=FakeProber(stage.engines, host),
                transport=Transport(stage, host),
                chronicle=Chronicle(stage.store_of(host), stage.told),
                own=own,
                draw_identity=lambda: f"{ORDERS}-{host}-{len(stage.agents)}",
                wake=self.wake,
                let_go=stage.kept[host].remove,
                router=Router(stage, host) if host in stage.routers else None,
            )
        )
        self.loop.start()
        self.wake()

    def spawn(self, work: Coroutine[Any, Any, None]) -> Work:
        task = spawn_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def wake(self) -> None:
        if self.alive:
            self._at(0.0)

    def _at(self, wait_s: float) -> None:
        if self.handle is not None:
            self.handle.cancel()
        self.handle = asyncio.get_running_loop().call_later(wait_s, self.tick)

    def tick(self) -> None:
        self.handle = None
        self.stage.ticks += 1
        next_s = self.loop.tick()
        if self.handle is None and self.alive:
            self._at(min(5.0, max(0.0, next_s - asyncio.get_running_loop().time())))

    def die(self) -> None:
        """Like kill -9: nothing of it runs on."""
        self.alive = False
        if self.handle is not None:
            self.handle.cancel()
        for task in list(self.tasks):
            task.cancel()


@dataclass
class Transport:
    """Fulfils the port `Transport` over the fake network."""

    stage: "Stage"
    host: Name

    async def ask(self, node: Node, request: PromiseRequest) -> bool:
        world, agent = self.stage.world, self.stage.agents.get(node.host)
        await world.sleep(0.001)
        there = world.connected(self.host, node.host) and world.connected(node.host, self.host)
        if agent is None or not agent.alive or not there:
            raise Fault(f"{node.host} does not answer.")
        return await agent.loop.promise(node.name, request)


@dataclass
class Router:
    """Fulfils the port `Rerouter`."""

    stage: "Stage"
    host: Name

    async def follow(self, cluster: Name, route: Route) -> None:
        assert cluster == ORDERS
        self.stage.routes[self.host] = route


class Stage:
    """The world in which the agents play."""

    def __init__(self, flavour: Flavour = POSTGRES, nodes=NODES, routers=(H1,), **service) -> None:
        service.setdefault("durability", Durability(acks=1) if flavour.capabilities.zero_loss_commit else LOSSY)
        self.flavour = flavour
        self.service = ClusterService(ORDERS, nodes, **service)
        self.routers = routers
        self.world = LoopWorld()
        self.kept: dict[Name, list[Name]] = {}
        """Which nodes each host has to care for; those that have left the spec too, until they are let go."""
        self.engines = FakeEngines((*nodes, *SPARE), flavour, self.world)
        self.engines.on_ack = lambda engine, write: self.acked.append((engine.name, write))
        self.store = MemoryStore()
        self.doom = Doom(self, 0)
        self.disks = {engine.name: MemoryDisk() for engine in self.engines}
        self.fences = {
            engine.name: FakeFence(engine, self.world, lambda: LoopClock().now().boot_s) for engine in self.engines
        }
        self.agents: dict[Name, Agent] = {}
        self.routes: dict[Name, Route] = {}
        self.acked: list[tuple[Name, Write]] = []
        self.told: list[Event] = []
        self.ticks = 0
        self.written = 0

    def store_of(self, host: Name) -> MortalStore:
        return MortalStore(self.doom, host)

    def own(self, node: Node) -> OwnNode:
        return OwnNode(
            node,
            MortalDriver(self.doom, node.host, FakeDriver(self.engines, node.name)),
            MortalFence(self.doom, node.host, self.fences[node.name]),
            MortalDisk(self.doom, node.host, self.disks[node.name]),
        )

    def nodes_of(self, host: Name) -> list[Node]:
        """The nodes that a host has to care for."""
        kept = self.kept.setdefault(host, [])
        kept += [node.name for node in self.service.nodes if node.host == host and node.name not in kept]
        return [self.engines[name].node for name in kept]

    def apply(self, *hosts: Name, **changes: Any) -> ClusterService:
        """A person changes the spec, and these hosts hear of it (all of them, if none is named)."""
        service = replace(self.service, version=self.service.version + 1, **changes)
        self.service = service
        for host in hosts or {node.host: None for node in (*service.nodes, *NODES)}:
            if host in self.agents:
                self.agents[host].loop.change(service, [self.own(node) for node in self.nodes_of(host)])
            else:
                self.start(host)
        return service

    def start(self, *hosts: Name) -> None:
        for host in hosts or {node.host: None for node in self.service.nodes}:
            self.agents[host] = Agent(self, host)

    def record(self) -> ClusterRecord | None:
        item = self.store._items.get(keys.cluster_record(ORDERS))
        return decode(ClusterRecord, item.value) if item else None

    def primary(self) -> FakeEngine | None:
        """The one that takes writes; never two of one epoch."""
        found = [engine for engine in self.engines if engine.open]
        assert len({engine.promoted_epoch for engine in found}) == len(found)
        return max(found, key=lambda engine: engine.promoted_epoch, default=None)

    def write(self) -> Write | None:
        engine = self.primary()
        self.written += 1
        return engine.write(f"w{self.written}") if engine else None

    def lost(self) -> list[str]:
        """Acknowledged writes that the present primary has not."""
        engine = self.primary()
        there = set(engine.history()) if engine else set()
        return [write.id for _, write in self.acked if write.id not in there]

    async def until(self, condition, within_s: float = 30.0, *, write: bool = True) -> float:
        """Let time pass until it holds; how long that took."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        while not condition():
            assert loop.time() - began_s < within_s, f"not within {within_s} s; record: {self.record()}"
            if write:
                self.write()
            await asyncio.sleep(0.01)
        return loop.time() - began_s

    async def steady(self, within_s: float = 30.0) -> float:
        """Until the cluster is steady with a primary that takes writes and everybody streaming."""

        def well() -> bool:
            record, primary = self.record(), self.primary()
            return record is not None and record.phase is Phase.STEADY and primary is not None

        return await self.until(well, within_s)

    async def order(self, number: int, kind: RequestKind, **words: Any) -> None:
        request = Request(number, kind, **words)
        await self.store.transact([], [Put(keys.cluster_command(ORDERS, number), encode(request))])

    def cut(self, host: Name, others: Iterable[Name]) -> None:
        """No engine of that host hears, or is heard by, the others."""
        for other in others:
            self.world.cuts |= {(host, other), (other, host)}
        self.engines.network_changed()

    def heal(self) -> None:
        self.world.cuts.clear()
        self.engines.network_changed()

    def outage(self, *, away: bool) -> None:
        self.store.set_trouble(Trouble.AWAY if away else Trouble.NONE)

    def decoded(self, name: Name) -> NodeReport | None:
        """What stands in the store about a node."""
        item = self.store._items.get(keys.cluster_report(ORDERS, name))
        return decode(NodeReport, item.value) if item else None

    def end(self) -> None:
        for agent in self.agents.values():
            agent.die()


LOSSY = Durability(max_loss_bytes=1_000_000, acks=0)


def play(scene: Callable[[Stage], Coroutine[Any, Any, None]], *args, **words) -> None:
    """Run a scene in jumping time."""
    loop = JumpingLoop()

    async def run() -> None:
        stage = Stage(*args, **words)
        try:
            await scene(stage)
        finally:
            stage.end()
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    try:
        loop.run_until_complete(run())
    finally:
        loop.close()


def all_stream(stage: Stage) -> bool:
    """Everybody but the primary hears it."""
    primary = stage.primary()
    members = [stage.engines[node.name] for node in stage.service.nodes]
    links = [engine.link for engine in members if engine is not primary]
    return all(link is not None and link.alive and link.source is primary for link in links)


async def born(stage: Stage) -> None:
    """A cluster of three, steady and written to."""
    stage.start()
    await well(stage)
    await stage.until(lambda: len(stage.acked) > 20)


async def well(stage: Stage, within_s: float = 60.0) -> None:
    """Until it is steady, takes writes and has everybody streaming."""
    await stage.steady(within_s)
    await stage.until(lambda: all_stream(stage), within_s)
