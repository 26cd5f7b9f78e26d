"""All clusters of one agent: a loop for each, and what people and other agents ask of them.

What happens to a cluster is control/cluster/'s and core/'s. How an engine is reached is given by `Assemble`.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import structlog

from understudy.control.admission import Checked, Claimed, refuse_unfit
from understudy.control.clock import Clock
from understudy.control.cluster.listener import AgentTransport, listening
from understudy.control.cluster.loop import ClusterLoop, run, spawn
from understudy.control.cluster.orders import Orders
from understudy.control.cluster.picture import cluster_status
from understudy.control.cluster.ports import OwnNode, Ports, PromiseRequest, Rerouter
from understudy.control.journal import RETRY_S, Journal
from understudy.control.store_leader import StoreLeader
from understudy.control.view import ClusterStatus, Wish
from understudy.core.actions import Close, StopGracefully
from understudy.core.cluster import Capabilities
from understudy.core.cluster_why import cluster_why
from understudy.core.errors import Refused
from understudy.core.events import Entry, Event
from understudy.core.model import LOCAL, Spec
from understudy.core.record import Phase
from understudy.core.stateful import PostgresService
from understudy.core.text import Address, Name
from understudy.core.what_if import Forecast, Mishap, what_if
from understudy.drivers.base import Prober
from understudy.store.base import Store

_CALM = (Phase.STEADY, Phase.REJOINING)
"""Phases in which a primary serves, and nothing hurries."""
ENDING_S = 15.0
"""How long each engine may take to end when everything ends."""


class Hold(Protocol):
    """Something by which this process holds on to an engine: a driver's connections, a guard's socket."""

    async def close(self) -> None:
        """Let go; whatever runs goes on."""
        ...


class DriverHold(Hold, Checked, Protocol):
    """A driver, beyond what its cluster's loop asks of it."""

    def change(self, service: PostgresService) -> None:
        """Go on with a new spec."""
        ...


class GuardHold(Hold, Protocol):
    """A guard, which can be ended once its engine is dead."""

    async def end(self) -> None:
        """End it."""
        ...


@dataclass(frozen=True, slots=True)
class EngineParts:
    """One node of this host, the two by which this process holds on to its engine, and the right to its data."""

    own: OwnNode
    driver: DriverHold
    guard: GuardHold
    claim: Claimed

    @property
    def name(self) -> Name:
        """The node's."""
        return self.own.node.name


@dataclass(frozen=True, slots=True)
class Parts:
    """What a cluster's loop needs of its engine."""

    engines: tuple[EngineParts, ...]
    """Of the nodes of this host."""
    prober: Prober
    capabilities: Capabilities

    @property
    def own(self) -> tuple[OwnNode, ...]:
        """The nodes of this host, as the loop takes them."""
        return tuple(engine.own for engine in self.engines)


class Assemble(Protocol):
    """Puts a cluster's parts together."""

    def __call__(
        self, service: PostgresService, happened: Callable[[Event], Awaitable[None]], before: Parts | None = None
    ) -> Parts:
        """The parts; nodes that were there before keep theirs.

        `happened` is told what a driver did with data, and returns when that is known for good.
        """
        ...


@dataclass(frozen=True, slots=True)
class Engines:
    """What wiring gives an agent for its clusters."""

    host: Name
    assemble: Assemble
    router: Rerouter | None
    """This host's; None when it runs none."""
    key: bytes
    """The cluster's, by which agents know each other."""
    keep_password: Callable[[PostgresService], None]
    """Writes down how people enter the cluster."""


@dataclass(slots=True)
class _Running:
    service: PostgresService
    reach: PostgresService
    """The service, with the nodes that have left it and still have a duty: their engines go on meanwhile."""
    parts: Parts
    loop: ClusterLoop
    task: asyncio.Task[None]


def agents_of(spec: Spec) -> dict[Name, Address]:
    """Where each host's agent answers others."""
    agents = {host.name: Address(host.address, spec.agent_port) for host in spec.hosts}
    return agents or {LOCAL: Address("127.0.0.1", spec.agent_port)}


class Clusters:
    """Begin, then ask; `detach` leaves every engine running, `end` does not."""

    def __init__(
        self, engines: Engines, store: Store, journal: Journal, clock: Clock, tell: Callable[[Event], None]
    ) -> None:
        self._engines = engines
        self._store = store
        self._journal = journal
        self._clock = clock
        self._tell = tell
        self._running: dict[Name, _Running] = {}
        self._orders = Orders(store, journal, clock, "an operator")
        self._transport = AgentTransport({}, engines.key)
        self._port = AsyncExitStack()
        self._store_leader = StoreLeader(store, clock, self._primaries)
        self._keeping: asyncio.Task[None] | None = None

    async def begin(self, spec: Spec) -> None:
        """Answer other agents, and start the loops of the spec's clusters. Fault when the port cannot be had."""
        self._transport.addresses = agents_of(spec)
        here = self._transport.addresses[self._engines.host]
        await self._port.enter_async_context(listening(here, self, self._engines.key))
        parts = [(service, self._engines.assemble(service, self._happened)) for service in spec.clusters]
        for _, part in parts:
            await refuse_unfit(part.engines)
        for service, part in parts:
            self._begin(service, part)
        self._keeping = asyncio.create_task(self._store_leader.keep(), name="store's leader")

    async def refuse(self, services: Iterable[PostgresService], version: int) -> None:
        """Raise Refused when a running cluster cannot become what the new spec says, or a node that comes is unfit."""
        for service in services:
            there: tuple[EngineParts, ...] = ()
            if service.name in self._running:
                there = self._running[service.name].parts.engines
                self._running[service.name].loop.refuse(self._taken(service, version).cluster)
            known = {engine.name for engine in there}
            if all(node.name in known or node.node.host != self._engines.host for node in service.nodes):
                continue
            engines = self._engines.assemble(service, self._happened).engines
            try:
                await refuse_unfit([one for one in engines if one.name not in known], there)
            finally:
                for engine in engines:
                    await engine.driver.close()
                    await engine.guard.close()

    async def change(self, spec: Spec, version: int) -> None:
        """Let the loops go on with what the spec in force says of their clusters; new ones begin, those that left end.

        `version` rises with every change of the spec.
        """
        self._transport.addresses = agents_of(spec)
        wanted = {each.name: self._taken(each, version) for each in spec.clusters}
        for name in [name for name in self._running if name not in wanted]:
            one = self._running.pop(name)
            one.task.cancel()
            await asyncio.gather(one.task, return_exceptions=True)
            await self._end_engines([one])
            for engine in one.parts.engines:
                engine.claim.give_up()
        for name, service in wanted.items():
            if name not in self._running:
                self._begin(service, self._engines.assemble(service, self._happened))
                continue
            one = self._running[name]
            if (one.service.nodes, one.service.cluster) != (service.nodes, service.cluster):
                leaving = tuple(node for node in one.reach.nodes if service.node(node.name) is None)
                one.reach = replace(service, nodes=(*service.nodes, *leaving))
                one.parts = self._engines.assemble(one.reach, self._happened, one.parts)
                _claim(one.parts)
                self._engines.keep_password(service)
                one.loop.change(service.cluster, one.parts.own)
            one.service = service

    def _taken(self, service: PostgresService, version: int) -> PostgresService:
        """What of it can be taken over now: an agent rests on the timers that it began with."""
        running = self._running.get(service.name)
        timers = running.service.cluster.timers if running is not None else service.cluster.timers
        return replace(service, cluster=replace(service.cluster, version=version, timers=timers))

    def _forget(self, cluster: Name, node: Name) -> None:
        """A node has left, and nobody counts on it any more: if it was ours, let go of it; its engine is stopped."""
        one = self._running[cluster]
        one.reach = replace(one.reach, nodes=tuple(each for each in one.reach.nodes if each.name != node))
        gone = [engine for engine in one.parts.engines if engine.name == node]
        one.parts = replace(one.parts, engines=tuple(each for each in one.parts.engines if each not in gone))
        for engine in one.parts.engines:
            engine.driver.change(one.reach)
        for engine in gone:
            spawn(_let_go(engine))

    async def _happened(self, event: Event) -> None:
        """Returns when the journal has it for good."""
        self._journal.append([event], self._clock.now().wall_s)
        self._tell(event)
        while True:
            with suppress(Refused):
                await self._journal.flush()
                return
            await asyncio.sleep(RETRY_S)

    def _begin(self, service: PostgresService, parts: Parts) -> None:
        _claim(parts)
        self._engines.keep_password(service)
        bell = asyncio.Event()
        ports = Ports(
            host=self._engines.host,
            service=service.cluster,
            capabilities=parts.capabilities,
            clock=self._clock,
            store=self._store,
            spawn=spawn,
            prober=parts.prober,
            transport=self._transport,
            chronicle=self._journal,
            own=parts.own,
            draw_identity=lambda: secrets.token_hex(8),
            wake=bell.set,
            tell=self._tell,
            router=self._engines.router,
            let_go=partial(self._forget, service.name),
        )
        loop = ClusterLoop(ports)
        task = asyncio.create_task(run(loop, self._clock, bell), name=f"cluster {service.name}")
        self._running[service.name] = _Running(service, service, parts, loop, task)

    async def detach(self) -> None:
        """End the loops; engines and guards go on, until their deadlines or the next agent."""
        await self._end_loops()
        await asyncio.gather(*(one.loop.leave() for one in self._all()))
        await self._let_go()

    async def _end_loops(self) -> None:
        tasks = [one.task for one in self._all()] + ([self._keeping] if self._keeping else [])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _let_go(self) -> None:
        await self._port.aclose()
        for one in self._all():
            for engine in one.parts.engines:
                await engine.driver.close()
                await engine.guard.close()
                engine.claim.close()

    async def end(self) -> None:
        """End the loops and then every engine of this host, primaries first and gracefully."""
        await self._end_loops()
        await self._end_engines(self._all())
        await self._let_go()

    async def _end_engines(self, ending: Sequence[_Running]) -> None:
        engines = [(one, engine) for one in ending for engine in one.parts.engines]
        engines.sort(key=lambda each: not _leads(each[0], each[1].own))
        for one, engine in engines:
            await self._end_engine(one, engine.own)
        for _, engine in engines:
            await _end_guard(engine)

    async def _end_engine(self, one: _Running, own: OwnNode) -> None:
        record = one.loop.record
        order = (own.node.name, record.identity if record else "", record.epoch if record else 0, int(ENDING_S * 1000))
        for action in (StopGracefully(*order), Close(*order)) if _leads(one, own) else (Close(*order),):
            try:
                async with asyncio.timeout(ENDING_S):
                    await own.driver.perform(action)
            except (Refused, TimeoutError) as fault:
                structlog.get_logger().warning(f"{own.node.name} did not end as it should: {fault}")

    def _primaries(self) -> frozenset[str]:
        """The addresses of the primaries' hosts, if this agent decides about one and each has one."""
        records = [(one.service, one.loop.record) for one in self._all()]
        calm = all(record is not None and record.phase in _CALM for _, record in records)
        if not calm or not any(one.loop.steward.holding for one in self._all()):
            return frozenset()
        nodes = [service.node(record.primary) for service, record in records if record is not None and record.primary]
        hosts = {node.node.host for node in nodes if node is not None}
        return frozenset(self._transport.addresses[host].host for host in hosts if host in self._transport.addresses)

    # --- what other agents and routers ask ----------------------------------------------------------------------------

    def may_serve(self, cluster: str, node: str, role: str) -> bool | None:
        """Whether that node may be sent what the role is for (`primary` or `standby`); None when it is not known."""
        one = next((each for name, each in self._running.items() if name == cluster), None)
        return False if one is None else one.loop.may_serve(node, role, one.service.max_lag_bytes)

    async def promise(self, node: str, request: PromiseRequest) -> bool:
        """Whether that node of ours promises."""
        one = self._running.get(request.cluster)
        return one is not None and await one.loop.promise(Name(node), request)

    # --- what people ask ----------------------------------------------------------------------------------------------

    def __contains__(self, service: str) -> bool:
        """Whether there is such a cluster."""
        return any(name == service for name in self._running)

    def status(self) -> tuple[ClusterStatus, ...]:
        """Every cluster, as this agent sees it."""
        return tuple(
            cluster_status(one.service, one.loop.look(), one.loop.steward_host, one.loop.without_store())
            for one in self._all()
        )

    def why(self, service: str, entries: tuple[Entry, ...]) -> tuple[str, ...]:
        """Why the cluster is as it is; `entries` are its latest."""
        loop = self._one(service).loop
        silent = loop.without_store()
        return (silent,) if silent else cluster_why(loop.look(), entries, self._clock.now())

    def what_if(self, node: str, service: str | None) -> tuple[Forecast, ...]:
        """What the loss of the node's engine, and of its machine, would mean now."""
        found = [one for one in self._all() if one.service.node(node) and service in (None, one.service.name)]
        if len(found) != 1:
            where = ", ".join(one.service.name for one in found)
            raise Refused(
                f"several clusters have a node {node!r} ({where}): write SERVICE/NODE"
                if found
                else f"there is no node {node!r}: `understudy status` lists them"
            )
        view, now = found[0].loop.look(), self._clock.now()
        return tuple(what_if(view, Name(node), mishap, now) for mishap in Mishap)

    async def ask(self, service: str, wish: Wish) -> str:
        """Ask it of the cluster's steward, and wait for what comes of it."""
        return await self._orders.ask(self._one(service).service.name, wish)

    def _all(self) -> list[_Running]:
        return list(self._running.values())

    def _one(self, service: str) -> _Running:
        one = next((each for name, each in self._running.items() if name == service), None)
        if one is None:
            known = ", ".join(sorted(self._running)) or "none"
            raise Refused(f"There is no stateful service {service!r}: this cluster has {known}.")
        return one


async def _let_go(engine: EngineParts) -> None:
    """Of an engine that is stopped."""
    await _end_guard(engine)
    await engine.driver.close()
    engine.claim.give_up()


def _claim(parts: Parts) -> None:
    """Have the right to every node's data. Raises Refused."""
    for engine in parts.engines:
        engine.claim.take()


async def _end_guard(engine: EngineParts) -> None:
    try:
        await engine.guard.end()
    except Refused as fault:
        structlog.get_logger().warning(str(fault))


def _leads(one: _Running, own: OwnNode) -> bool:
    record = one.loop.record
    return record is not None and record.primary == own.node.name
