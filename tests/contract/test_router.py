"""What every Router keeps to, held against HAProxy and against the fake."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest
from tests.clusters import route
from tests.routing import HOST, Backend, desired, end_proxy, eventually, free_ports, get, service, short_directory

from understudy.core.model import Kind, PoolService
from understudy.core.pools import Admin, EndpointSeen, Oper
from understudy.core.routes import ClusterPorts, RouterState, Seat
from understudy.core.text import Address, Name
from understudy.router.base import Router, RouterFault
from understudy.router.fake import FakeProxy, FakeRouter
from understudy.router.haproxy import HAProxyRouter
from understudy.router.layout import Layout

WEB, ECHO, W1, W2 = Name("web"), Name("echo"), Name("w1"), Name("w2")


class World(Protocol):
    """A proxy's surroundings: servers to break, clients to send, the proxy to kill."""

    def router(self) -> Router: ...
    async def fail(self, service: Name, endpoint: Name) -> None: ...
    async def heal(self, service: Name, endpoint: Name) -> None: ...
    async def request(self, service: Name, endpoint: Name, count: int) -> None: ...
    def session(self, service: Name, endpoint: Name) -> contextlib.AbstractAsyncContextManager[None]: ...
    async def kill(self) -> None: ...
    def taken(self, service: PoolService) -> contextlib.AbstractContextManager[None]: ...


class FakeWorld:
    """Everything is a field of the fake proxy."""

    def __init__(self) -> None:
        self.proxy = FakeProxy()

    def router(self) -> Router:
        return FakeRouter(self.proxy)

    async def fail(self, service: Name, endpoint: Name) -> None:
        self.proxy.fail(service, endpoint)

    async def heal(self, service: Name, endpoint: Name) -> None:
        self.proxy.heal(service, endpoint)

    async def request(self, service: Name, endpoint: Name, count: int) -> None:
        self.proxy.serve(service, endpoint, count)

    @contextlib.asynccontextmanager
    async def session(self, service: Name, endpoint: Name) -> AsyncIterator[None]:
        self.proxy.sessions[service, endpoint] = 1
        yield

    async def kill(self) -> None:
        self.proxy.kill()

    @contextlib.contextmanager
    def taken(self, service: PoolService):
        self.proxy.refusal = f"service '{service.name}' cannot listen on {service.listen}"
        yield
        self.proxy.refusal = None


class RealWorld:
    """Servers in this process, HAProxy in its own."""

    def __init__(self, directory: Path, backends: dict[tuple[Name, Name], Backend], ports: dict[Name, int]) -> None:
        self.directory, self.backends, self.ports = directory, backends, ports

    def router(self) -> Router:
        return HAProxyRouter(Layout(self.directory), threads=1)

    async def fail(self, service: Name, endpoint: Name) -> None:
        await self.backends[service, endpoint].stop()

    async def heal(self, service: Name, endpoint: Name) -> None:
        await self.backends[service, endpoint].start()

    async def request(self, service: Name, endpoint: Name, count: int) -> None:
        before = self.backends[service, endpoint].served
        while self.backends[service, endpoint].served < before + count:
            assert not (await get(self.ports[service])).startswith("failed")

    @contextlib.asynccontextmanager
    async def session(self, service: Name, endpoint: Name) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            before = self.backends[service, endpoint].served
            while self.backends[service, endpoint].served == before:
                reader, writer = await asyncio.open_connection(HOST, self.ports[service])
                stack.callback(writer.close)
                writer.write(b"x")
                await reader.read(1)
            yield

    async def kill(self) -> None:
        from understudy.router import runtime

        os.kill(runtime.listener_pid(Layout(self.directory).master_socket), signal.SIGKILL)

    @contextlib.contextmanager
    def taken(self, service: PoolService):
        import socket

        with socket.create_server((service.listen.host, service.listen.port)):
            yield


PORTS = free_ports(9)
BACKENDS = {
    (WEB, W1): Backend("w1", PORTS[0]),
    (WEB, W2): Backend("w2", PORTS[1]),
    (ECHO, W1): Backend("w1", PORTS[2], tcp=True),
    (ECHO, W2): Backend("w2", PORTS[3], tcp=True),
}
LISTEN = {WEB: PORTS[4], ECHO: PORTS[5]}
WEB_SERVICE = service("web", LISTEN[WEB], [BACKENDS[WEB, W1], BACKENDS[WEB, W2]])
ECHO_SERVICE = service("echo", LISTEN[ECHO], [BACKENDS[ECHO, W1], BACKENDS[ECHO, W2]], kind=Kind.TCP)
NEW_SERVICE = service("new", PORTS[6], [BACKENDS[WEB, W1]])


def state(*extra: PoolService, **overrides) -> RouterState:
    """Both services, more where wanted, with overrides for every endpoint of that name."""
    return desired(WEB_SERVICE, ECHO_SERVICE, *extra, records={}, **overrides)


@pytest.fixture(params=["fake", "haproxy"])
async def world(request) -> AsyncIterator[World]:
    if request.param == "fake":
        yield FakeWorld()
        return
    with short_directory() as directory:
        for backend in BACKENDS.values():
            await backend.start()
        real = RealWorld(directory, BACKENDS, LISTEN)
        try:
            yield real
        finally:
            await end_proxy(directory, HAProxyRouter(Layout(directory)))
            for backend in BACKENDS.values():
                await backend.stop()


@pytest.fixture
async def router(world: World) -> AsyncIterator[Router]:
    router = world.router()
    assert not await router.start(state())
    yield router
    await router.stop()


async def seen(router: Router, service_name: Name, endpoint: Name) -> EndpointSeen:
    pools = (await router.observe()).pools
    return next(one for one in pools[service_name].endpoints if one.endpoint == endpoint)


async def is_oper(router: Router, endpoint: Name, oper: Oper) -> None:
    async def holds() -> bool:
        return (await seen(router, WEB, endpoint)).oper is oper

    await eventually(holds)


async def test_adopts_what_runs_and_starts_what_does_not(world: World):
    """A second router takes the running proxy over with the same worker; after a stop there is nothing to adopt."""
    first = world.router()
    assert await first.start(state()) is False
    pid = (await first.observe()).pid
    await first.detach()
    second = world.router()
    assert await second.start(state()) is True
    assert (await second.observe()).pid == pid
    await second.stop()
    third = world.router()
    assert await third.start(state()) is False
    await third.stop()


async def test_a_router_that_is_not_started_refuses(world: World):
    """Before start and after stop every question gets one sentence, and nothing is started behind the caller's back."""
    router = world.router()
    await router.start(state())
    await router.stop()
    for question in (router.observe(), router.apply(state()), router.sessions(WEB, W1), router.cut(WEB, W1)):
        with pytest.raises(RouterFault):
            await question


async def test_plan_says_what_apply_does_and_changes_nothing(router: Router):
    """A weight is changed live, a service by a reload; the plan says so before, and the same again is nothing."""
    weighted = state(weights={"w1": 7})
    planned = router.plan(weighted)
    assert (await seen(router, WEB, W1)).weight == 1
    assert await router.apply(weighted) == planned
    assert planned.live
    assert not planned.reload
    assert (await seen(router, WEB, W1)).weight == 7

    more = state(NEW_SERVICE, weights={"w1": 7})
    planned = router.plan(more)
    assert planned.reload
    assert (await router.apply(more)).reload == planned.reload
    assert Name("new") in (await router.observe()).pools
    assert (await router.apply(more)) == router.plan(more)
    assert not router.plan(more).live
    assert not router.plan(more).reload


async def test_maintenance_and_drain_are_seen(router: Router):
    """An endpoint is what the operator ordered, and comes back."""
    await router.apply(state(admin={"w1": Admin.MAINT, "w2": Admin.DRAIN}))
    await is_oper(router, W1, Oper.MAINT)
    await is_oper(router, W2, Oper.DRAIN)
    await router.apply(state())
    await is_oper(router, W1, Oper.UP)
    await is_oper(router, W2, Oper.UP)


async def test_a_failing_endpoint_is_an_event_and_is_seen(router: Router, world: World):
    """Down and up again are told as they happen, with the endpoint's name, and observed."""
    events = router.events()
    await is_oper(router, W1, Oper.UP)
    for act, oper in ((world.fail, Oper.DOWN), (world.heal, Oper.UP)):
        await act(WEB, W1)
        async with asyncio.timeout(10):
            while True:
                event = await anext(events)
                if event.service == WEB and event.endpoint == W1 and f" is {oper.upper()}" in event.text:
                    break
        await is_oper(router, W1, oper)


async def test_sessions_are_counted_and_cut(router: Router, world: World):
    """What is in flight is counted on its own endpoint only, and cut ends it and says how much."""
    async with world.session(ECHO, W1):
        assert await router.sessions(ECHO, W1) == 1
        assert await router.sessions(WEB, W1) == 0
        assert await router.cut(ECHO, W1) == 1

        async def ended() -> bool:
            return await router.sessions(ECHO, W1) == 0

        await eventually(ended)
        assert await router.cut(ECHO, Name("nobody")) == 0


async def test_counters_never_fall(router: Router, world: World):
    """Requests are counted, and go on from there after a reload and after the proxy died."""
    await world.request(WEB, W1, 5)
    first = (await seen(router, WEB, W1)).counters.requests
    assert first >= 5
    await router.apply(state(NEW_SERVICE))
    await world.request(WEB, W1, 3)
    second = (await seen(router, WEB, W1)).counters.requests
    assert second >= first + 3
    await _killed_and_back(router, world)
    await world.request(WEB, W1, 2)
    assert (await seen(router, WEB, W1)).counters.requests >= second + 2


async def test_what_cannot_be_is_refused_and_the_old_goes_on(router: Router, world: World):
    """A port in use is one sentence that names the service; the running state stays and the next apply works."""
    pid = (await router.observe()).pid
    with world.taken(NEW_SERVICE):
        with pytest.raises(RouterFault, match="'new' cannot listen"):
            await router.apply(state(NEW_SERVICE))
        look = await router.observe()
        assert look.pid == pid
        assert Name("new") not in look.pools
    await router.apply(state(NEW_SERVICE))
    assert Name("new") in (await router.observe()).pools


async def test_a_killed_proxy_comes_back(router: Router, world: World):
    """It is an event without a service, and the same state is served again by another worker."""
    before = await router.observe()
    after = await _killed_and_back(router, world)
    assert after.pid != before.pid
    assert after.pools.keys() == before.pools.keys()


async def _killed_and_back(router: Router, world: World):
    pid = (await router.observe()).pid
    events = router.events()
    await world.kill()
    async with asyncio.timeout(10):
        while (await anext(events)).service is not None:
            pass
        while True:
            with contextlib.suppress(RouterFault):
                look = await router.observe()
                if look.pid != pid:
                    return look
            await asyncio.sleep(0.01)


ORDERS = Name("orders")


def with_cluster() -> RouterState:
    """Both services, and a cluster whose nodes are the servers of `echo`; nobody answers for their roles."""
    agent = Address(HOST, PORTS[7])
    seats = tuple(Seat(name, Address(HOST, BACKENDS[ECHO, name].port), agent) for name in (W1, W2))
    return replace(state(), clusters=(ClusterPorts(ORDERS, Address(HOST, PORTS[8]), None, seats, 5000),))


async def test_a_clusters_route_is_followed_and_an_outdated_one_never(world: World):
    """By the router that followed it, the next one, and one that starts the proxy anew; the same again is fine."""
    for adopts, epochs in ((False, (7, 7, 9)), (True, (9, 10)), (False, (10, 11))):
        router = world.router()
        assert await router.start(with_cluster()) is adopts
        for epoch in epochs:
            await router.follow(ORDERS, route(epoch, None))
            await router.follow(ORDERS, route(epoch, W1))
        with pytest.raises(RouterFault, match=f"epoch {epochs[-1]}"):
            await router.follow(ORDERS, route(epochs[-1] - 1, W2))
        await (router.stop() if adopts else router.detach())
    await router.stop()


async def test_a_cluster_comes_and_goes_by_a_reload_and_nobody_else_is_followed(router: Router):
    """What the state does not hold is refused before and after."""
    with pytest.raises(RouterFault):
        await router.follow(ORDERS, route(1, W1))
    assert (await router.apply(with_cluster())).reload == ("cluster orders is new",)
    await router.follow(ORDERS, route(3, W1))
    assert router.plan(with_cluster()).reload == ()
    assert (await router.apply(state())).reload == ("cluster orders is gone",)
    with pytest.raises(RouterFault):
        await router.follow(ORDERS, route(4, W1))
    await router.apply(with_cluster())
    await router.follow(ORDERS, route(1, W1))
