"""The ejector above the real HAProxy: a server that answers its checks well and its users badly."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

from tests.routing import CHECKS, HOST, Backend, eventually, free_ports, get, service, short_directory

from understudy.control.agent import Agent
from understudy.control.clock import SystemClock
from understudy.core.events import EventKind
from understudy.core.model import EjectionPolicy, HttpCheck, Spec
from understudy.core.pools import Admin, Oper
from understudy.core.text import HttpPath, Name
from understudy.router.haproxy import HAProxyRouter
from understudy.router.layout import Layout
from understudy.store.memory import MemoryStore

HEALTHY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
BROKEN = b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n"


@contextlib.asynccontextmanager
async def liar(port: int) -> AsyncIterator[None]:
    """A server whose check page is fine and whose every other page is a 500."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(HEALTHY if b"/healthz" in head else BROKEN)
        writer.close()

    server = await asyncio.start_server(serve, HOST, port)
    try:
        yield
    finally:
        server.close()


async def test_a_server_that_fails_its_users_behind_a_good_check_is_held_out():
    """Every GET is answered meanwhile, the liar is held out with the reason in the journal, and `ready` frees it."""
    ports = free_ports(4)
    honest = [Backend(f"w{index + 2}", port) for index, port in enumerate(ports[:2])]
    for backend in honest:
        await backend.start()
    web = service("web", ports[2], [Backend("w1", ports[3]), *honest])
    web = replace(
        web,
        health=replace(CHECKS, check=HttpCheck(HttpPath("/healthz")), timeout_ms=5000),
        ejection=EjectionPolicy(hold_ms=60_000, errors=5, window_ms=2_000),
    )
    async with liar(ports[3]):
        with short_directory() as directory:
            run = directory / "run"
            run.mkdir()
            router = HAProxyRouter(Layout(directory / "router"), threads=1)
            spec = Spec(Name("test"), (web,))
            async with Agent(spec, run, MemoryStore(), router, SystemClock()) as agent:
                answers = []

                async def ejected() -> bool:
                    answers.append(await get(web.listen.port))
                    return any(event.kind is EventKind.ENDPOINT_EJECTED for event in await _events(agent))

                await eventually(ejected, timeout_s=30)
                assert set(answers) == {"w2", "w3"}
                [event] = [event for event in await _events(agent) if event.kind is EventKind.ENDPOINT_EJECTED]
                assert event.subject == "w1"
                assert "while its checks passed" in event.reason
                await eventually(lambda: _is(agent, "w1", Oper.MAINT))
                assert (await agent.status()).services[0].endpoints[0].held_until_wall_s is not None
                await agent.set_admin("web", "w1", Admin.READY)
                await eventually(lambda: _is(agent, "w1", Oper.UP))
    for backend in honest:
        await backend.stop()


async def _events(agent: Agent):
    return [entry.event for entry in await agent.events(-1, 100, "web")]


async def _is(agent: Agent, endpoint: str, oper: Oper) -> bool:
    return any(one.name == endpoint and one.oper is oper for one in (await agent.status()).services[0].endpoints)
