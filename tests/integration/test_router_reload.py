"""Reloads under traffic: nothing is lost, nothing that was known is forgotten, old workers are reached."""

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path

import pytest
from tests.routing import (
    CHECKS,
    HOST,
    Backend,
    Load,
    desired,
    eventually,
    free_ports,
    get,
    running,
    service,
)

from understudy.core.model import Kind
from understudy.core.pools import Admin, Oper
from understudy.core.text import Name
from understudy.router import runtime
from understudy.router.base import RouterFault
from understudy.router.haproxy import HAProxyRouter
from understudy.router.layout import Layout

WEB, W1, W2, W3 = Name("web"), Name("w1"), Name("w2"), Name("w3")


@pytest.fixture
async def backends(servers):
    return await servers(3)


async def oper(router: HAProxyRouter, endpoint: Name, service_name: Name = WEB) -> Oper:
    pool = (await router.observe()).pools[service_name]
    return next(one.oper for one in pool.endpoints if one.endpoint == endpoint)


async def test_twenty_reloads_under_load_lose_no_request(directory: Path, backends: list[Backend]):
    """500 requests a second on kept connections, 20 reloads: every one is answered, and counted once."""
    port, other = free_ports(2)
    web, more = service("web", port, backends), service("more", other, backends)
    records: dict = {}
    with_more = desired(web, more, records=records)
    alone = desired(web, records=records)
    async with running(directory, alone) as router:
        pids = {(await router.observe()).pid}
        async with Load(port, 500).on() as load:
            await asyncio.sleep(0.3)
            for wanted in [with_more, alone] * 10:
                change = await router.apply(wanted)
                assert change.reload
                pids.add((await router.observe()).pid)
                await asyncio.sleep(0.1)
        assert load.failures == []
        assert load.done > 500
        assert len(pids) == 21
        seen = (await router.observe()).pools[WEB]
        assert seen.failed_requests == 0
        # A worker that ends between two looks takes its last requests with it: at most one a connection and reload.
        assert load.done - 20 * load.clients <= seen.requests <= load.done


async def test_what_is_known_of_servers_outlives_a_reload(directory: Path, backends: list[Backend]):
    """After a reload a dead server gets no request, a drained one stays drained, and a weight stays as it was set."""
    port, other = free_ports(2)
    web, more = service("web", port, backends), service("more", other, backends[:1])
    # Checks so slow that the new worker cannot have found out by itself.
    web = replace(web, health=replace(CHECKS, interval_ms=5_000))
    settings = {"admin": {"w2": Admin.DRAIN}, "weights": {"w3": 9}}
    records: dict = {}
    async with running(directory, desired(web, records=records, **settings)) as router:
        await backends[0].stop()

        async def is_down() -> bool:
            await get(port)  # real traffic's errors call for a check at once
            return await oper(router, W1) is Oper.DOWN

        await eventually(is_down, 15)
        await router.apply(desired(web, more, records=records, **settings))
        look = {one.endpoint: one for one in (await router.observe()).pools[WEB].endpoints}
        assert (look[W1].oper, look[W2].oper, look[W3].oper) == (Oper.DOWN, Oper.DRAIN, Oper.UP)
        assert look[W3].weight == 9
        before = look[W1].counters
        assert {await get(port) for _ in range(20)} == {"w3"}
        after = {one.endpoint: one for one in (await router.observe()).pools[WEB].endpoints}
        assert after[W1].counters == before, "no request, no retry and no mark-down since"


async def test_an_endpoint_that_joins_by_reload_earns_its_place(directory: Path, backends: list[Backend]):
    """A new endpoint that does not answer gets no request, not even the first."""
    port = free_ports(1)[0]
    await backends[2].stop()
    few = service("web", port, backends[:2])
    many = service("web", port, [*backends[:2], *(Backend(f"n{n}", backends[2].port) for n in range(5))])
    records: dict = {}
    async with running(directory, desired(few, records=records)) as router:
        change = await router.apply(desired(many, records=records))
        assert change.reload, "five more do not fit into the spare places"
        assert {await get(port) for _ in range(20)} == {"w1", "w2"}
        late = [one for one in (await router.observe()).pools[WEB].endpoints if one.endpoint.startswith("n")]
        assert [(one.counters.requests, one.counters.retries) for one in late] == [(0, 0)] * 5


async def test_a_session_in_an_old_worker_is_counted_and_cut(directory: Path):
    """A TCP session from before two reloads is seen and ended; a session on another endpoint goes on."""
    ports = free_ports(4)
    echo = [Backend("w1", ports[0], tcp=True), Backend("w2", ports[1], tcp=True)]
    for backend in echo:
        await backend.start()
    tcp = service("db", ports[2], echo, kind=Kind.TCP)
    more = service("more", ports[3], echo, kind=Kind.TCP)
    db = Name("db")
    records: dict = {}
    async with running(directory, desired(tcp, records=records)) as router, contextlib.AsyncExitStack() as stack:
        streams = []
        for _ in range(2):
            reader, writer = await asyncio.open_connection(HOST, ports[2])
            stack.callback(writer.close)
            writer.write(b"hello")
            assert await reader.read(5) == b"hello"
            streams.append((reader, writer))
        await router.apply(desired(tcp, more, records=records))
        await router.apply(desired(tcp, records=records))

        async def empty_workers_ended() -> bool:
            return (await router.observe()).workers == 2

        await eventually(empty_workers_ended)
        look = await router.observe()
        assert [one.sessions for one in look.pools[db].endpoints] == [1, 1]
        assert await router.sessions(db, W1) == 1
        assert await router.cut(db, W1) == 1
        reader, _ = streams[0]
        assert await asyncio.wait_for(reader.read(1), 20) == b""
        reader, writer = streams[1]
        writer.write(b"still")
        assert await asyncio.wait_for(reader.read(5), 20) == b"still"
        assert (await router.sessions(db, W1), await router.sessions(db, W2)) == (0, 1)
    for backend in echo:
        await backend.stop()


async def test_a_failed_reload_leaves_the_old_worker_and_its_configuration(
    directory: Path, backends: list[Backend], monkeypatch: pytest.MonkeyPatch
):
    """HAProxy's refusal, while it checks and while it binds, is told in its words; files and worker stay the same."""
    port, other = free_ports(2)
    web = service("web", port, backends)
    taken = service("taken", backends[0].port, backends)
    records: dict = {}
    layout = Layout(directory)
    async with running(directory, desired(web, records=records)) as router:
        pid = (await router.observe()).pid
        config = layout.config.read_text()
        monkeypatch.setattr("understudy.router.haproxy._why_taken", lambda _listen: None)  # let HAProxy find out
        with pytest.raises(RouterFault, match=r"'taken' cannot listen on .*cannot bind"):
            await router.apply(desired(web, taken, records=records))
        assert layout.config.read_text() == config

        import understudy.router.haproxy as module

        real = module.render
        monkeypatch.setattr(
            module,
            "render",
            lambda *given: replace(real(*given), config=real(*given).config + "  nonsense\n"),
        )
        with pytest.raises(RouterFault, match=r"refuses the new configuration: .*nonsense"):
            await router.apply(desired(web, service("more", other, backends), records=records))
        monkeypatch.setattr(module, "render", real)
        assert layout.config.read_text() == config
        assert not layout.candidate.exists()
        assert (await router.observe()).pid == pid
        assert (await get(port)).startswith("w")
        assert (await router.apply(desired(web, service("more", other, backends), records=records))).reload


async def test_events_are_followed_into_the_new_worker(directory: Path, backends: list[Backend]):
    """What happens after a reload is told, and the old worker ends at once although we listened to it."""
    port, other = free_ports(2)
    web, more = service("web", port, backends), service("more", other, backends)
    records: dict = {}
    async with running(directory, desired(web, records=records)) as router:
        await router.apply(desired(web, more, records=records))

        async def is_alone() -> bool:
            return (await runtime.processes(Layout(directory).master_socket)).old == ()

        await eventually(is_alone, 10)
        await backends[1].stop()
        async with asyncio.timeout(20):
            async for event in router.events():
                if event.service == WEB and event.endpoint == W2 and " is DOWN" in event.text:
                    break


async def test_orders_are_not_counted_as_mark_downs(directory: Path, backends: list[Backend]):
    """Maintenance and the return from it leave `downs` alone; a server that really fails is counted."""
    port = free_ports(1)[0]
    web = service("web", port, backends)
    async with running(directory, desired(web)) as router:

        async def downs() -> int:
            return next(
                one for one in (await router.observe()).pools[WEB].endpoints if one.endpoint == W1
            ).counters.downs

        async def is_up() -> bool:
            return await oper(router, W1) is Oper.UP

        async def is_down() -> bool:
            return await oper(router, W1) is Oper.DOWN

        await router.apply(desired(web, admin={"w1": Admin.MAINT}))
        await router.observe()
        await router.apply(desired(web))
        await eventually(is_up)
        assert await downs() == 0
        await backends[0].stop()
        await eventually(is_down)
        await backends[0].start()
        await eventually(is_up)
        assert await downs() == 1
