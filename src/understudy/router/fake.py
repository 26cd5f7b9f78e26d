"""A router without a proxy, for tests where determinism is the point: it keeps the port's promises in memory.

A FakeProxy outlives the FakeRouter that drives it, as HAProxy outlives the agent.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from understudy.core.cluster_route import Route as ClusterRoute
from understudy.core.events import EventKind
from understudy.core.pools import Admin, Counters, EndpointSeen, Oper, PoolSeen
from understudy.core.routes import Pool, Route, RouterState, Slot
from understudy.core.text import Name
from understudy.router.base import Change, RouterEvent, RouterFault, RouterSeen
from understudy.router.change import diff
from understudy.router.layout import Layout

Place = tuple[Name, Name]
"""A service and one of its endpoints."""


@dataclass
class FakeProxy:
    """What a test sees and moves: set `down`, `sessions` and `counters` as the servers and clients would."""

    state: RouterState | None = None
    """None while it does not run."""
    pid: int = 100
    down: set[Place] = field(default_factory=set)
    sessions: dict[Place, int] = field(default_factory=dict)
    counters: dict[Place, Counters] = field(default_factory=dict)
    followed: dict[Name, ClusterRoute] = field(default_factory=dict)
    """The route of each cluster that was followed last; kept, as HAProxy's neighbour keeps it on disk."""
    refusal: str | None = None
    """Why the next reloads and starts fail; None lets them work."""
    events: asyncio.Queue[RouterEvent] = field(default_factory=asyncio.Queue)

    def fail(self, service: Name, endpoint: Name) -> None:
        """The endpoint's checks fail from now on."""
        self.down.add((service, endpoint))
        self.events.put_nowait(RouterEvent(service, endpoint, f"Server {service}/{endpoint} is DOWN"))

    def heal(self, service: Name, endpoint: Name) -> None:
        """The endpoint's checks pass again."""
        self.down.discard((service, endpoint))
        self.events.put_nowait(RouterEvent(service, endpoint, f"Server {service}/{endpoint} is UP"))

    def serve(self, service: Name, endpoint: Name, requests: int, errors: int = 0) -> None:
        """The endpoint answered this many requests."""
        before = self.counters.get((service, endpoint), Counters())
        self.counters[service, endpoint] = replace(
            before, requests=before.requests + requests, errors=before.errors + errors
        )

    def kill(self) -> None:
        """The process dies; the router starts it again at once."""
        self.pid += 1
        self.sessions.clear()
        self.events.put_nowait(RouterEvent(None, None, "the proxy died; it is started again", EventKind.ROUTER_DIED))


class FakeRouter:
    """Fulfils `Router` on a FakeProxy."""

    def __init__(self, proxy: FakeProxy | None = None) -> None:
        """Drive that proxy, or a new one."""
        self.proxy = proxy or FakeProxy()
        self._started = False

    async def start(self, desired: RouterState) -> bool:
        """Adopt the proxy if it runs."""
        adopted = self.proxy.state is not None
        if not adopted:
            self._refuse()
            self.proxy.state = desired
            self.proxy.pid += 1
        self._started = True
        await self.apply(desired)
        return adopted

    def plan(self, desired: RouterState) -> Change:
        """What `apply` would do."""
        if self.proxy.state is None or not self._started:
            return Change((), ("the proxy does not run yet",))
        way = diff(self.proxy.state, desired, Layout(Path("/fake")))
        return Change(() if way.reload else way.sentences, way.reload)

    async def apply(self, desired: RouterState) -> Change:
        """Take the state; a reload gives the proxy a new worker."""
        self._running()
        change = self.plan(desired)
        if change.reload:
            self._refuse()
            self.proxy.pid += 1
        self.proxy.state = desired
        self._forget_clusters(desired)
        return change

    async def follow(self, cluster: Name, route: ClusterRoute) -> None:
        """Take the route, and end the sessions on everybody else."""
        if self._running().ports(cluster) is None:
            raise RouterFault(f"{cluster}: the router has no ports for it")
        known = self.proxy.followed.get(cluster)
        if known is not None and route.epoch < known.epoch:
            raise RouterFault(f"{cluster}: the router has followed epoch {known.epoch} and refuses epoch {route.epoch}")
        self.proxy.followed[cluster] = route
        for place in list(self.proxy.sessions):
            if place[0] == cluster and place[1] != route.write:
                del self.proxy.sessions[place]

    async def observe(self) -> RouterSeen:
        """What the test has set."""
        state = self._running()
        return RouterSeen({route.service: self._pool(route) for route in state.routes}, self.proxy.pid, 1)

    async def events(self) -> AsyncIterator[RouterEvent]:
        """What the test let happen."""
        while True:
            yield await self.proxy.events.get()

    async def cut(self, service: Name, endpoint: Name) -> int:
        """End the sessions."""
        self._running()
        return self.proxy.sessions.pop((service, endpoint), 0)

    async def sessions(self, service: Name, endpoint: Name) -> int:
        """How many sessions the test has opened."""
        self._running()
        return self.proxy.sessions.get((service, endpoint), 0)

    async def stop(self) -> None:
        """End the proxy."""
        if self._started:
            self.proxy.state = None
            self.proxy.sessions.clear()
        self._started = False

    async def detach(self) -> None:
        """Leave the proxy as it is."""
        self._started = False

    def _forget_clusters(self, desired: RouterState) -> None:
        followed = self.proxy.followed
        self.proxy.followed = {name: route for name, route in followed.items() if desired.ports(name) is not None}

    def _running(self) -> RouterState:
        if self.proxy.state is None or not self._started:
            raise RouterFault("the router is not started: start it first")
        return self.proxy.state

    def _refuse(self) -> None:
        if self.proxy.refusal is not None:
            raise RouterFault(self.proxy.refusal)

    def _pool(self, route: Route) -> PoolSeen:
        endpoints = tuple(
            self._endpoint(pool, slot, slot.endpoint)
            for pool in (route.primary, route.backup)
            for slot in (pool.slots if pool else ())
            if pool is not None and slot.endpoint is not None
        )
        return PoolSeen(
            endpoints,
            sessions=sum(seen.sessions for seen in endpoints),
            requests=sum(seen.counters.requests for seen in endpoints),
            failed_requests=sum(seen.counters.errors for seen in endpoints),
        )

    def _endpoint(self, pool: Pool, slot: Slot, endpoint: Name) -> EndpointSeen:
        place = (pool.service, endpoint)
        if slot.admin is Admin.MAINT:
            oper = Oper.MAINT
        elif place in self.proxy.down:
            oper = Oper.DOWN
        else:
            oper = Oper.DRAIN if slot.admin is Admin.DRAIN else Oper.UP
        return EndpointSeen(
            endpoint=endpoint,
            group=pool.group,
            oper=oper,
            weight=slot.weight,
            sessions=self.proxy.sessions.get(place, 0),
            queued=0,
            check="the test says so",
            since_s=1.0,
            counters=self.proxy.counters.get(place, Counters()),
        )
