"""The real API over a fake operator, in a thread, for the verbs to talk to."""

import asyncio
import threading
from contextlib import contextmanager

import pytest
from tests.api.fake_operator import FakeOperator
from tests.ports import free_port
from typer.testing import CliRunner

from understudy.api.app import create_app
from understudy.api.port import bind
from understudy.api.server import serving
from understudy.cli.app import app
from understudy.core.text import Address


@contextmanager
def api_of(operator):
    """Serve the operator; the address of its API."""
    taken = bind(Address("127.0.0.1", free_port()))
    address = "{}:{}".format(*taken.getsockname())
    loop, up, down = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def serve():
        async with serving(create_app(operator), taken):
            up.set()
            await down.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert up.wait(20)
        operator.loop = loop
        yield address
    finally:
        loop.call_soon_threadsafe(down.set)
        thread.join(20)
        loop.close()


@pytest.fixture
def operator():
    return FakeOperator()


@pytest.fixture
def run(operator):
    """Run a verb against the fake operator's agent; its result has exit_code, stdout, stderr."""
    with api_of(operator) as address:
        yield lambda *argv: CliRunner().invoke(app, list(argv), env={"UNDERSTUDY_API": address, "COLUMNS": "110"})
