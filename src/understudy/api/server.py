"""Serves the API inside the agent's own event loop. It leaves signals, logging and the process alone."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from fastapi import FastAPI

LAST_ANSWERS_S = 2
"""How long answers that are under way may take once the agent ends."""


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
