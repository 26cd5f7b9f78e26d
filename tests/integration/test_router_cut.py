"""Requests that wait on a server that hangs: ended once it is down, and answered by another one where that is safe."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from tests.routing import (
    CHECKS,
    Backend,
    desired,
    end_proxy,
    eventually,
    free_ports,
    get,
    running,
    service,
    short_directory,
)

from understudy.core.model import HttpCheck
from understudy.core.pools import Oper
from understudy.core.routes import RouterState
from understudy.core.text import Name
from understudy.router import runtime
from understudy.router.haproxy import HAProxyRouter
from understudy.router.layout import Layout

HANG_S = 40.0


@pytest.fixture
async def backends(servers):
    return await servers(2)


def web(port: int, backends: list[Backend]) -> RouterState:
    """A service whose check a hung server fails (it would go on accepting connections)."""
    patient = replace(CHECKS, check=HttpCheck(), timeout_ms=500)  # the servers are in this process, which may be busy
    return desired(replace(service("web", port, backends), health=patient))


async def hang_with_requests(port: int, backends: list[Backend]) -> list[asyncio.Task[str]]:
    """Both servers answer, then the first hangs; among ten requests some wait on it."""
    assert {await get(port) for _ in range(4)} == {"w1", "w2"}
    backends[0].delay_s = HANG_S
    waiting = [asyncio.create_task(get(port, timeout_s=HANG_S)) for _ in range(10)]

    async def some_wait_on_it() -> bool:
        return backends[0].open > 0

    await eventually(some_wait_on_it)
    return waiting


async def test_requests_on_a_hung_server_are_answered_by_another(backends: list[Backend]):
    """No GET waits for the server's timeout, and none fails."""
    port = free_ports(1)[0]
    with short_directory() as directory:
        async with running(directory, web(port, backends)):
            waiting = await hang_with_requests(port, backends)
            async with asyncio.timeout(HANG_S):
                assert set(await asyncio.gather(*waiting)) == {"w2"}


async def test_the_next_agent_cuts_what_its_predecessor_could_not(backends: list[Backend]):
    """A server that hung while no agent was there lets its requests go as soon as one adopts."""
    port = free_ports(1)[0]
    state = web(port, backends)
    with short_directory() as directory:
        first, second = (HAProxyRouter(Layout(directory), threads=1) for _ in range(2))
        try:
            await first.start(state)
            await eventually(lambda: _both_up(first))
            await first.detach()
            waiting = await hang_with_requests(port, backends)
            await eventually(lambda: _says_down(directory))
            assert any(not task.done() for task in waiting), "somebody must still be waiting on the hung server"
            assert await second.start(state)
            async with asyncio.timeout(HANG_S):
                assert set(await asyncio.gather(*waiting)) == {"w2"}
        finally:
            await end_proxy(directory, first)
            await end_proxy(directory, second)


async def _says_down(directory: Path) -> bool:
    """Whether HAProxy itself has found out about the first server."""
    shown = await runtime.ask(Layout(directory).admin_socket, "show servers state web.primary")
    first = next(line.split() for line in shown.splitlines() if " s1 " in line)
    return first[5] == "0"  # srv_op_state: stopped


async def _both_up(router: HAProxyRouter) -> bool:
    return all(one.oper is Oper.UP for one in (await router.observe()).pools[Name("web")].endpoints)
