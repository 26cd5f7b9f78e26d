"""The API served for real, inside a running event loop."""

import asyncio
import signal
import socket
import time

import aiohttp
import pytest
from tests.api.fake_operator import FakeOperator
from tests.ports import free_port

from understudy.api import server
from understudy.api.app import create_app
from understudy.api.port import bind
from understudy.api.server import serving
from understudy.core.errors import Fault
from understudy.core.events import EventKind
from understudy.core.text import Address


async def test_serves_streams_and_lets_go(monkeypatch):
    """It answers, streams live, leaves the signal handlers alone, and ends at once even while somebody watches."""
    monkeypatch.setattr(server, "LAST_ANSWERS_S", 40)
    operator = FakeOperator()
    address = Address("127.0.0.1", free_port())
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    async with aiohttp.ClientSession(f"http://{address}") as client, asyncio.timeout(60):
        async with serving(create_app(operator), bind(address)):
            assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
            async with client.get("/api/v1/status") as answer:
                assert (await answer.json())["cluster"] == "shop"
            stream = await client.get("/api/v1/events/stream")
            operator.note(EventKind.SERVICE_UP, "web is up", "web")
            assert await stream.content.readline() == b"id: 1\n"
            assert b"web is up" in await stream.content.readline()
            leaving_s = time.monotonic()
        assert time.monotonic() - leaving_s < 20
        assert await stream.content.read() == b"\n"
        stream.close()
    bind(address).close()


def test_a_port_in_use_is_one_sentence():
    """A taken port, or an address that is not ours, is a Fault that names the address and the cure."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = Address("127.0.0.1", other.getsockname()[1])
        with pytest.raises(Fault, match=f"{taken} because another program does: .*`api:`"):
            bind(taken)
    with pytest.raises(Fault, match=r"192\.0\.2\.1:8600 \(Cannot assign"):
        bind(Address("192.0.2.1", 8600))
