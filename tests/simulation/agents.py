"""An agent in the simulated world: the real cluster loop, with every port of it made of the world."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.simulation.engine import Engine, SimDriver
from tests.simulation.hosts import Guard, Host, Process
from tests.simulation.store import HostStore
from tests.simulation.work import Awaited

from understudy.control.cluster.loop import ClusterLoop
from understudy.control.cluster.ports import NodeFacts, OwnNode, Ports, PromiseRequest
from understudy.core.clock import Now
from understudy.core.cluster import ClusterService, Node
from understudy.core.cluster_route import Route
from understudy.core.errors import Fault
from understudy.core.events import Event
from understudy.core.record import Phase
from understudy.core.text import Name
from understudy.store.base import Delete, Expect, Outcome, Put

if TYPE_CHECKING:
    from tests.simulation.world import World


BREATH_S = 0.005
"""After what time a tick comes again that named a time that has passed."""
MOST_SPINS = 200
"""How often in a row it may do that."""


class Site:
    """Where a node lives: its engine, the guard above it, and what its agent keeps on the disk beside the data."""

    def __init__(self, node: Node, engine: Engine) -> None:
        self.node = node
        self.engine = engine
        self.guard: Guard | None = None
        self.facts = NodeFacts()
        self.ever_frozen = 0
        self.ever_closed = 0
        self.ever_known = 0
        """The highest epoch that it ever had on its disk."""

    def start(self) -> None:
        """Start the engine below a new guard, which is not armed."""
        self.guard = Guard(self.engine.host, self.node.name, self.kill)
        self.engine.start()

    def kill(self) -> None:
        """Everything below the guard is killed; the guard ends with it."""
        self.engine.killed(power=False)
        if self.guard is not None:
            self.guard.kill()

    def power_cut(self) -> None:
        """The host went down."""
        self.engine.killed(power=True)
        self.guard = None


class SiteFence:
    """Fulfils the port `Fence`."""

    def __init__(self, site: Site, agent: Process) -> None:
        self._site = site
        self._agent = agent

    async def renew(self, deadline_boot_s: float, *, margin_s: float, epoch: int) -> object:
        """Arm the guard, or move its deadline."""
        del epoch
        await self._agent.effect()
        guard = self._site.guard
        if guard is None or not guard.alive:
            raise Fault("There is no guard.")
        guard.arm(deadline_boot_s, margin_s)
        return None


class SiteDisk:
    """Fulfils the port `NodeDisk`: saved when the host's disk says so, in order."""

    def __init__(self, site: Site, agent: Process) -> None:
        self._site = site
        self._agent = agent

    async def load(self) -> NodeFacts:
        """What was saved last."""
        await self._agent.effect()
        await self._flushed(lambda: None)
        return self._site.facts

    async def save(self, facts: NodeFacts) -> None:
        """Flushed when this returns."""
        await self._agent.effect()
        await self._flushed(lambda: self._keep(facts))

    def _keep(self, facts: NodeFacts) -> None:
        site = self._site
        site.facts = facts
        site.ever_frozen = max(site.ever_frozen, facts.frozen_epoch)
        site.ever_closed = max(site.ever_closed, facts.closed_epoch)
        site.ever_known = max(site.ever_known, facts.epoch)
        site.engine.truth.touched()

    async def _flushed(self, keep: Callable[[], None]) -> None:
        """On the disk, whoever still waits for it."""
        flushed: Awaited[None] = Awaited()

        def done() -> None:
            keep()
            self._agent.do(flushed.give, None)

        self._site.engine.host.flush(self._agent, 0.001, done)
        await flushed


class SimClock:
    """Fulfils the port `Clock` with a host's clocks."""

    def __init__(self, agent: Process) -> None:
        self._agent = agent
        self._clock = agent.host.clock

    def now(self) -> Now:
        """This moment."""
        return self._clock.now()

    async def sleep(self, duration_s: float) -> None:
        """Come back after that time."""
        await self._agent.sleep(duration_s)


@dataclass(slots=True)
class SimChronicle:
    """Fulfils the port `Chronicle`: events are told when what they are about is stored."""

    store: HostStore
    told: Callable[[Event], None]

    async def commit(
        self, expects: Sequence[Expect], changes: Sequence[Put | Delete], events: Iterable[Event], *, wall_s: float
    ) -> Outcome:
        """All or nothing."""
        del wall_s
        outcome = await self.store.transact(expects, changes)
        if outcome.committed:
            for event in events:
                self.told(event)
        return outcome


class Asking:
    """Fulfils the ports `Prober` and `Transport` for one agent, over the network."""

    def __init__(self, world: "World", agent: Process) -> None:
        self._world = world
        self._agent = agent
        self._timeout_s = world.plan.service.timers.timeout_ms / 1000

    async def answers(self, node: Node) -> bool:
        """Whether the engine answers in its own protocol."""
        engine = self._world.sites[node.name].engine

        def asked(reply: Callable[[bool], None]) -> None:
            if engine.process is not None:
                engine.process.do(lambda: reply(engine.answers))

        return bool(await self._ask(node.host, asked, 0.5 * self._timeout_s))

    async def ask(self, node: Node, request: PromiseRequest) -> bool:
        """Whether that node's agent promised."""
        world = self._world

        def asked(reply: Callable[[bool], None]) -> None:
            agent = world.agents.get(node.host)
            if agent is not None:
                agent.process.do(agent.promise, node.name, request, reply)

        answer = await self._ask(node.host, asked, self._timeout_s)
        if answer is None:
            raise Fault(f"{node.name} does not answer.")
        return answer

    async def _ask(self, host: str, asked: Callable[[Callable[[bool], None]], None], timeout_s: float) -> bool | None:
        """The answer; None when none came in time."""
        await self._agent.effect()
        awaited: Awaited[bool | None] = Awaited()
        network, here = self._world.network, self._agent.host.name

        def reply(answer: bool) -> None:
            network.datagram(host, here, self._agent.do, awaited.give, answer)

        network.datagram(here, host, asked, reply)
        self._agent.later(timeout_s, awaited.give, None)
        return await awaited


class Router(Process):
    """The router of a host: goes on when the agent dies, refuses lower epochs."""

    def __init__(self, host: Host) -> None:
        super().__init__(host, f"router-{host.name}")
        self.route: Route | None = None
        self.known_epoch = 0

    def follow(self, route: Route) -> bool:
        """Take the route; False when a higher epoch is known."""
        if route.epoch < self.known_epoch:
            return False
        self.known_epoch = route.epoch
        self.route = route
        return True


class Rerouting:
    """Fulfils the port `Rerouter`."""

    def __init__(self, world: "World", agent: Process) -> None:
        self._world = world
        self._agent = agent

    async def follow(self, cluster: Name, route: Route) -> None:
        """Bring the route into force."""
        del cluster
        await self._agent.effect()
        await self._agent.sleep(0.001 + 0.01 * self._world.random.random())
        await self._agent.effect()
        router = self._world.routers.get(self._agent.host.name)
        if router is None or not router.alive:
            raise Fault("The router is not there.")
        if not router.follow(route):
            raise Fault("The router knows a higher epoch.")
        self._world.note(router.name, "routes", f"epoch {route.epoch} to {route.write}")


class Agent:
    """One agent process: ticks when it is woken and when it wants to."""

    def __init__(self, world: "World", host: Host) -> None:
        self.world = world
        self.process = Process(host, f"agent-{host.name}")
        self._woken = False
        self._due_s = float("inf")
        self._spins = 0
        sites = [world.sites[name] for name in world.residents[host.name]]
        for site in sites:
            site.engine.told.clear()
        timeout_s = world.plan.service.timers.timeout_ms / 1000
        self.store = HostStore(world.store, self.process, timeout_s)
        asking = Asking(world, self.process)
        self.loop = ClusterLoop(
            Ports(
                host=Name(host.name),
                service=world.specs[host.name],
                capabilities=world.plan.rules.capabilities,
                clock=SimClock(self.process),
                store=self.store,
                spawn=self.process.start,
                prober=asking,
                transport=asking,
                chronicle=SimChronicle(self.store, lambda event: world.happened(host.name, event)),
                own=tuple(self._own(site) for site in sites),
                draw_identity=world.draw_identity,
                wake=self._wake,
                let_go=lambda name: world.let_go(host.name, name),
                router=Rerouting(world, self.process) if host.name in world.plan.routers else None,
            )
        )
        self.loop.start()
        self._wake()

    def change(self, service: ClusterService) -> None:
        """The agent hears of a new spec."""
        here = [node for node in service.nodes if node.host == self.process.host.name]
        self.loop.change(service, [self._own(self.world.sites[node.name]) for node in here])

    def _own(self, site: Site) -> OwnNode:
        agent = self.process
        driver = SimDriver(site.engine, agent, site.start, site.kill, self._knows_pause)
        return OwnNode(site.node, driver, SiteFence(site, agent), SiteDisk(site, agent))

    def _knows_pause(self) -> bool:
        record = self.loop.record
        return record is not None and record.phase is Phase.PAUSED

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            self.world.scheduler.soon(self.process.do, self._tick)

    def _tick(self) -> None:
        self._woken = False
        due_s, now_s = self.loop.tick(), self.process.host.clock.boot_s()
        if due_s <= now_s:
            due_s = now_s + BREATH_S
            self._spins += 1
            if self._spins > MOST_SPINS:
                raise RuntimeError("a tick names a time that has passed, again and again")
        else:
            self._spins = 0
        if due_s < self._due_s or self._due_s <= now_s:
            self._due_s = due_s
            if due_s != float("inf"):
                self.world.scheduler.at(self.process.host.clock.true_s(due_s), self.process.do, self._come_again, due_s)

    def _come_again(self, due_s: float) -> None:
        if due_s == self._due_s:
            self._wake()

    def promise(self, node: Name, request: PromiseRequest, reply: Callable[[bool], None]) -> None:
        """Another agent asks this one."""

        async def answer() -> None:
            reply(await self.loop.promise(node, request))

        self.process.start(answer())
