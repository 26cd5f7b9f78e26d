"""Following a primary, and ceasing to. Orders to an engine that is a standby.

WHY A FROZEN STANDBY ACKNOWLEDGES NOTHING: the password with which its receiver would connect is taken away first; then
the receivers that are there are ended, and seen gone. A receiver is in PostgreSQL's list of its processes before it
reads a password; so none is left, and none comes, whether or not the engine has read its new configuration yet.
"""

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path

from understudy.core.errors import Refused
from understudy.core.text import Name
from understudy.drivers.base import DriverFault, EngineState
from understudy.drivers.postgres.process import Engine, until
from understudy.drivers.postgres.promote import ensure_slots

_HOPELESS_S = 2.0
"""A standby that cannot be frozen in this time is killed, which freezes it for certain."""
_GO_ON = "SELECT pg_wal_replay_resume() WHERE pg_is_wal_replay_paused()"
"""A receiver is only begun by who replays: one that a person had pause would follow nobody any more."""
_RECEIVERS = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walreceiver'"


async def freeze(engine: Engine, epoch: int) -> None:
    """Acknowledge nothing any more. A dead engine stays dead. Raises Refused for a primary."""
    state = await engine.state()
    if not state.running:
        await engine.write(source=None)
        return
    try:
        async with asyncio.timeout(_HOPELESS_S):
            await _must_be_standby(engine, "which cannot be frozen; close it")
            begun = (await engine.in_force()).epoch  # its promotion was, and may end at any moment
            if not begun:
                await let_go(engine, state)
                return
            await engine.write(source=None)
    except (TimeoutError, DriverFault):
        pass
    await engine.kill(epoch)


async def let_go(engine: Engine, state: EngineState) -> None:
    """Hear nobody any more. Of a standby that runs, as `state` says."""
    await engine.write(source=None)
    await engine.process.signal(signal.SIGHUP)
    await until(lambda: _receivers_ended(engine, state.pid or 0))


async def follow(engine: Engine, source: Name, epoch: int) -> None:
    """Replicate from there, the engine started where needed. Raises Refused for a primary."""
    if engine.place.peer(source) is None:
        raise Refused(f"{engine.place.name} cannot follow {source}, which is no other node of this cluster.")
    running = (await engine.state()).running
    if running:
        await _must_be_standby(engine, "and follows nobody; close it and let it rejoin")
        if (await engine.in_force()).epoch:  # its promotion was begun, and may end at any moment
            await engine.kill(epoch)
            running = False
    if not running:
        await engine.start(epoch, source=source, clients=True)
    else:
        now = await engine.in_force()
        if (now.source, now.clients) != (source, True):
            await engine.reload(source=source, clients=True)
            await engine.ask(_GO_ON)
    await ensure_slots(engine, anew=True)


async def _receivers_ended(engine: Engine, postmaster: int) -> bool:
    """Whether there is none; they are told to end."""
    pids = await engine.ask(_RECEIVERS)
    for (pid,) in pids:
        _end_child(int(pid or 0), postmaster)
    return not pids


async def _must_be_standby(engine: Engine, so: str) -> None:
    [[in_recovery]] = await engine.ask("SELECT pg_is_in_recovery()")
    if in_recovery != "t":
        raise Refused(f"{engine.place.name} is a primary, {so}.")


def _end_child(pid: int, parent: int) -> None:
    """End that process, if it is (still) a child of the postmaster."""
    with suppress(OSError):
        pidfd = os.pidfd_open(pid)
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
            if int(stat.rpartition(")")[2].split()[1]) == parent:
                signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        finally:
            os.close(pidfd)
