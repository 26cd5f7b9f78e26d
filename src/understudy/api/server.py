"""Serves the API inside the agent's own event loop. It leaves signals, logging and the process alone."""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from fastapi import FastAPI

from understudy.core.errors import Fault
from understudy.core.text import Address

LAST_ANSWERS_S = 2
"""How long answers that are under way may take once the agent ends."""


def bind(address: Address) -> socket.socket:
    """A socket on the address, not yet listening; Fault when it cannot be had."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    taken = socket.socket(family, socket.SOCK_STREAM)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((address.host, address.port))
        taken.listen()
    except OSError as failure:
        taken.close()
        raise Fault(_why_not(address, failure)) from failure
    return taken


@asynccontextmanager
async def serving(app: FastAPI, taken: socket.socket) -> AsyncIterator[None]:
    """Serve the application on the socket for as long as the block lasts; the socket is closed afterwards."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        loop="none",
        http="h11",
        ws="none",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=LAST_ANSWERS_S,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[taken]), name="api")
    try:
        yield
    finally:
        app.state.closing.set()
        server.should_exit = True
        await task


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: signals are the agent's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def _why_not(address: Address, failure: OSError) -> str:
    if failure.errno == errno.EADDRINUSE:
        return (
            f"the API cannot listen on {address} because another program does: "
            f"stop that program, or set `api:` in the spec to a free address"
        )
    return f"the API cannot listen on {address} ({failure.strerror}): set `api:` in the spec to an address of this host"
