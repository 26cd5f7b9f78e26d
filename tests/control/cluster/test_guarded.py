"""An engine below its guard, as a driver and a lease see it: real guards, and a shell for an engine."""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from understudy.control.clock import SystemClock
from understudy.control.cluster.guarded import GuardedEngine
from understudy.core.errors import Fault, Refused
from understudy.drivers.base import DriverFault

PATIENCE_S = 20.0
FAMILY = ["/bin/sh", "-c", "sleep 600 & sleep 600 & wait"]


@pytest.fixture
async def place() -> AsyncIterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="us-", dir="/tmp"))
    try:
        yield directory
        engine = GuardedEngine(directory / "guard", SystemClock())
        await engine.kill(epoch=99)
        await engine.end()
    finally:
        shutil.rmtree(directory)


async def start(engine: GuardedEngine, place: Path, epoch: int = 1):
    return await engine.start(
        FAMILY, environment={"PATH": os.defpath}, directory=place, log=place / "log", user=None, epoch=epoch
    )


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  processes are looked at
            await asyncio.sleep(0.01)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_life(place: Path) -> None:
    """Started, found again by another agent under the same name, told when it ends, started anew under another name."""
    engine = GuardedEngine(place / "guard", SystemClock())
    assert not (await engine.look()).running
    first = await start(engine, place)
    await engine.close()
    again = GuardedEngine(place / "guard", SystemClock())
    news: list[None] = []
    again.listen(lambda: news.append(None))
    assert await again.look() == first
    await asyncio.sleep(0)
    news.clear()
    await again.signal(signal.SIGKILL)
    await until(lambda: news)
    async with asyncio.timeout(PATIENCE_S):
        while (await again.look()).running:  # noqa: ASYNC110  as above
            await asyncio.sleep(0.01)
    second = await start(again, place)
    assert second.life != first.life
    await again.kill(epoch=1)
    await again.end()
    await again.close()


async def test_fence(place: Path) -> None:
    """Without an engine there is nothing to arm; armed, it ends in time; orders of an older epoch are refused."""
    clock = SystemClock()
    engine = GuardedEngine(place / "guard", clock)
    with pytest.raises(Fault):
        await engine.renew(clock.now().boot_s + 5, margin_s=1, epoch=2)
    pid = (await start(engine, place, 2)).pid
    with pytest.raises(Refused):
        await engine.renew(clock.now().boot_s + 5, margin_s=1, epoch=1)
    deadline_s = clock.now().boot_s + 2
    await engine.renew(deadline_s, margin_s=1.5, epoch=2)
    await until(lambda: not lives(pid))
    assert clock.now().boot_s < deadline_s
    await engine.close()


async def test_guard_and_warden_killed(place: Path) -> None:
    """What outlives its guard is never called dead while it lives, and an order to kill ends it."""
    engine = GuardedEngine(place / "guard", SystemClock())
    pid = (await start(engine, place)).pid
    children: list[int] = []

    def family() -> list[int]:
        children[:] = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return children if len(children) == 2 else []

    await until(family)
    status = engine._guard.status
    for one in (status.warden, status.guard):
        os.kill(one, signal.SIGSTOP)
    for one in (status.warden, status.guard):
        os.kill(one, signal.SIGKILL)
    await until(lambda: engine._guard.lost is not None)
    if any(map(lives, children)):
        with pytest.raises(DriverFault):
            await engine.look()
    await engine.kill(epoch=1)
    assert not any(map(lives, children))
    assert not (await engine.look()).running
    await engine.close()
