"""Fixtures of the tests with the real HAProxy."""

import contextlib

import pytest
from tests.routing import Backend, free_ports, short_directory


@pytest.fixture
async def servers():
    """Start so many web servers, named w1, w2, …; they are ended with the test."""
    async with contextlib.AsyncExitStack() as ending:

        async def start(number: int) -> list[Backend]:
            started = [Backend(f"w{index + 1}", port) for index, port in enumerate(free_ports(number))]
            for backend in started:
                await backend.start()
                ending.push_async_callback(backend.stop)
            return started

        yield start


@pytest.fixture
def directory():
    """A directory with a short path."""
    with short_directory() as path:
        yield path
