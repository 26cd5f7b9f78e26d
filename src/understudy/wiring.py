"""The only module that names concrete adapters; it puts the parts together and hands them to the command line.

The parts are loaded when they are needed, so that the verbs that only talk to an agent start at once.
"""

import contextlib
import ctypes
import gc
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

from understudy.cli.app import main as command_line
from understudy.control.view import Operator
from understudy.core.model import Spec

AGENT_LOG = "agent.log"
GARBAGE = (10_000, 50, 100)
"""New objects before the youngest are looked through for cycles, and how often that happens before the older are."""
SWITCH_S = 0.0005
"""How long a thread waits for another one's Python to make room. The store's thread has to at each of some twenty calls
to SQLite, and at Python's own 5 ms an order took 100 ms while the agent looked at a thousand services."""

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8
"""Numbers of glibc's mallopt."""
LARGE_BYTES = 131_072


def main() -> None:
    """Entry point of `understudy`."""
    command_line(open_agent)


@asynccontextmanager
async def open_agent(spec: Spec, state_dir: Path) -> AsyncIterator[Operator]:
    """An agent with its API, running for as long as the block lasts; what it started ends with it. Raises Refused.

    The order matters: what can refuse without having touched anything comes first.
    """
    from understudy.api.app import create_app
    from understudy.api.server import bind, serving
    from understudy.control.agent import Agent
    from understudy.control.clock import SystemClock
    from understudy.control.logfile import log_to
    from understudy.control.state_dir import StateDir
    from understudy.router.haproxy import HAProxyRouter
    from understudy.router.layout import Layout
    from understudy.store.sqlite import SqliteStore

    # What a large cluster is made of lives long, and its looks replace each other without a cycle: looking through all
    # of it again and again for garbage would hold up orders for tens of milliseconds.
    gc.set_threshold(*GARBAGE)
    sys.setswitchinterval(SWITCH_S)
    _give_back_memory()
    with StateDir(state_dir) as place, closing(bind(spec.api)) as listener, log_to(place.path / AGENT_LOG):
        store = await SqliteStore.open(place.store)
        try:
            router = HAProxyRouter(Layout(place.router))
            async with (
                Agent(spec, place.run, store, router, SystemClock()) as agent,
                serving(create_app(agent), listener),
            ):
                gc.collect()
                gc.freeze()
                yield agent
        finally:
            await store.close()


def _give_back_memory() -> None:
    """Let what is large and short-lived (statistics, configurations, answers) go back to the kernel when it is done.

    Left to itself, glibc learns to keep such blocks, in a pool for each thread: 10 to 20 MB for a thousand services.
    """
    with contextlib.suppress(AttributeError):  # another C library: so be it
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(M_ARENA_MAX, 1)
