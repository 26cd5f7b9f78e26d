"""Agents come and go, and HAProxy dies: who takes over what, without a reload where none is needed."""

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest
from tests.routing import (
    HOST,
    Backend,
    Load,
    children,
    desired,
    end_proxy,
    eventually,
    free_ports,
    get,
    is_alive,
    running,
    service,
    short_directory,
)

from understudy.core.pools import Admin, Oper
from understudy.core.text import Name
from understudy.router import runtime
from understudy.router.base import RouterFault
from understudy.router.haproxy import HAProxyRouter
from understudy.router.layout import Layout

WEB, W1, W2 = Name("web"), Name("w1"), Name("w2")

AGENT = """
import asyncio, sys
from pathlib import Path
from tests import routing
from tests.routing import Backend, desired, service
from understudy.router.haproxy import HAProxyRouter
from understudy.router.layout import Layout

async def main(host, directory, port, *servers):
    routing.HOST = host
    web = service("web", int(port), [Backend(f"w{n + 1}", int(each)) for n, each in enumerate(servers)])
    router = HAProxyRouter(Layout(Path(directory)), threads=1)
    await router.start(desired(web))
    print((await router.observe()).pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
async def backends(servers):
    return await servers(2)


async def oper(router: HAProxyRouter, endpoint: Name) -> Oper:
    pool = (await router.observe()).pools[WEB]
    return next(one.oper for one in pool.endpoints if one.endpoint == endpoint)


async def test_a_killed_agent_leaves_traffic_flowing_and_the_next_adopts(directory: Path, backends: list[Backend]):
    """Kill -9 of the agent fails no request; a new one takes the same worker over without a reload, and watches it."""
    port = free_ports(1)[0]
    web = service("web", port, backends)
    agent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", AGENT, HOST, str(directory), str(port), *(str(each.port) for each in backends)),
        stdout=asyncio.subprocess.PIPE,
    )
    router = HAProxyRouter(Layout(directory), threads=1)
    try:
        pid = int(await asyncio.wait_for(agent.stdout.readline(), 20))
        async with Load(port, 200).on() as load:
            agent.kill()
            await agent.wait()
            await asyncio.sleep(0.3)
            assert await router.start(desired(web)) is True
            assert (await router.observe()).pid == pid
            done = load.done
            await eventually(lambda: _is(load.done > done + 20))
        assert load.failures == []
        os.kill(runtime.listener_pid(Layout(directory).master_socket), signal.SIGKILL)

        async def is_back() -> bool:
            return (await get(port)).startswith("w")

        await eventually(is_back)
    finally:
        with contextlib.suppress(ProcessLookupError):
            agent.kill()
        await end_proxy(directory, router)


async def test_an_adopted_proxy_is_brought_to_the_desired_state_live(directory: Path, backends: list[Backend]):
    """What somebody typed into the socket while no agent ran is put right without a reload."""
    port = free_ports(1)[0]
    web = service("web", port, backends)
    wanted = desired(web, weights={"w1": 3}, admin={"w2": Admin.DRAIN})
    async with running(directory, wanted) as first:
        pid = (await first.observe()).pid
        await first.detach()
        for order in ("weight 77", "state maint"):
            await runtime.ask(Layout(directory).admin_socket, f"set server web.primary/s1 {order}")
        await runtime.ask(Layout(directory).admin_socket, "set server web.primary/s2 state ready")
        async with running(directory, wanted) as second:
            assert (await second.observe()).pid == pid

            async def is_right() -> bool:
                one, two = (await second.observe()).pools[WEB].endpoints
                return (one.oper, one.weight, two.oper) == (Oper.UP, 3, Oper.DRAIN)

            await eventually(is_right)
            assert await get(port) == "w1"


async def test_an_adopted_proxy_with_a_foreign_address_is_reloaded(directory: Path, backends: list[Backend]):
    """A server that was pointed elsewhere by hand gets its own address back, and only its own address."""
    port = free_ports(1)[0]
    web = service("web", port, backends)
    async with running(directory, desired(web)) as first:
        await first.detach()
        order = f"set server web.primary/s1 addr {HOST} port {backends[1].port}"
        await runtime.ask(Layout(directory).admin_socket, order)
        assert {await get(port) for _ in range(4)} == {"w2"}
        async with running(directory, desired(web)) as second:

            async def is_checked() -> bool:
                return await oper(second, W1) is Oper.UP

            await eventually(is_checked)
            assert {await get(port) for _ in range(4)} == {"w1", "w2"}


async def test_live_changes_are_on_disk_when_the_agent_goes(directory: Path, backends: list[Backend]):
    """A weight set just before the agent left is in the file: the next one adopts without a reload."""
    port = free_ports(1)[0]
    web = service("web", port, backends)
    async with running(directory, desired(web)) as first:
        pid = (await first.observe()).pid
        assert (await first.apply(desired(web, weights={"w1": 9}))).live
        await first.detach()
        async with running(directory, desired(web, weights={"w1": 9})) as second:
            assert (await second.observe()).pid == pid


async def test_a_reload_that_was_not_finished_is_done_again(directory: Path, backends: list[Backend]):
    """An agent that was killed between writing the file and reloading left a file not in force: the next reloads."""
    port, other = free_ports(2)
    web, more = service("web", port, backends), service("more", other, backends)
    records: dict = {}
    layout = Layout(directory)
    async with running(directory, desired(web, records=records)) as first:
        await first.detach()
        wanted = desired(web, more, records=records)
        third = HAProxyRouter(layout, threads=1)
        with short_directory() as elsewhere:
            async with running(elsewhere, desired(service("x", free_ports(1)[0], backends))) as helper:
                third._facts, third._files = helper._facts, helper._files
                rendered = await third._render(wanted)
        for path in (layout.config, layout.candidate):
            path.write_text(rendered.config)
        async with running(directory, wanted) as second:
            assert await get(other) in {"w1", "w2"}
            assert not layout.candidate.exists()
            assert Name("more") in (await second.observe()).pools


@pytest.mark.parametrize("victim", ["master", "worker"])
async def test_a_killed_haproxy_comes_back_as_it_was(directory: Path, backends: list[Backend], victim: str):
    """Both kinds of kill: served again within moments, the dead server still out, the drained one still drained."""
    port = free_ports(1)[0]
    third = Backend("w3", free_ports(1)[0])  # never there
    web = service("web", port, [*backends, third])
    async with running(directory, desired(web, admin={"w2": Admin.DRAIN})) as router:

        async def is_known() -> bool:
            return await oper(router, Name("w3")) is Oper.DOWN

        await eventually(is_known)
        look = await router.observe()
        master = runtime.listener_pid(Layout(directory).master_socket)
        await asyncio.sleep(0.05)
        os.kill(master if victim == "master" else look.pid, signal.SIGKILL)

        async def is_back() -> bool:
            with contextlib.suppress(RouterFault):
                return (await router.observe()).pid != look.pid
            return False

        await eventually(is_back)
        assert not is_alive(master)
        assert not is_alive(look.pid)
        assert {await get(port) for _ in range(10)} == {"w1"}
        pool = {one.endpoint: one for one in (await router.observe()).pools[WEB].endpoints}
        assert pool[Name("w3")].counters.retries == 0, "the dead server was never tried"


async def test_a_haproxy_that_cannot_start_is_tried_again_until_it_can(directory: Path, backends: list[Backend]):
    """A port that was taken while HAProxy was dead: the event says so, and it comes back when the port is free."""
    port = free_ports(1)[0]
    web = service("web", port, backends)
    layout = Layout(directory)
    async with running(directory, desired(web)) as router:
        thief = Backend("thief", port)
        pid = (await router.observe()).pid
        os.kill(runtime.listener_pid(layout.master_socket), signal.SIGSTOP)
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: _is(not is_alive(pid)))
        await thief.start()
        os.kill(runtime.listener_pid(layout.master_socket), signal.SIGKILL)
        async with asyncio.timeout(20):
            async for event in router.events():
                if "'web' cannot listen" in event.text:
                    break
        with pytest.raises(RouterFault):
            await router.observe()
        await thief.stop()

        async def is_back() -> bool:
            return (await get(port)).startswith("w")

        await eventually(is_back)


async def test_stop_ends_all_of_ours_and_nothing_else(directory: Path, backends: list[Backend]):
    """Master, worker and an old worker with a session are gone; an HAProxy of another directory runs on."""
    port, other, elsewhere_port = free_ports(3)
    web, more = service("web", port, backends), service("more", other, backends)
    records: dict = {}
    backends[0].delay_s = backends[1].delay_s = 30.0
    with short_directory() as elsewhere:
        async with running(elsewhere, desired(service("x", elsewhere_port, backends))) as bystander:
            async with running(directory, desired(web, records=records)) as router:
                request = asyncio.create_task(get(port, 25))
                await eventually(lambda: _is(any(backend.open for backend in backends)))
                await router.apply(desired(web, more, records=records))
                master = runtime.listener_pid(Layout(directory).master_socket)
                ours = [master, *children(master)]
                assert len(ours) == 3, "master, worker, and the old worker that holds the request"
                await router.stop()
                assert [pid for pid in ours if is_alive(pid)] == []
                assert (await request).startswith("failed")
            assert (await bystander.observe()).workers == 1


async def _is(fact: bool) -> bool:
    return fact
