"""Reading the clock and sleeping: the real ones, and one that is moved by hand. Nothing else may read the time."""

import asyncio
import time
from typing import Protocol

from understudy.core.clock import Now


class Clock(Protocol):
    """Where the shell gets its time from."""

    def now(self) -> Now:
        """This moment."""
        ...

    async def sleep(self, duration_s: float) -> None:
        """Come back after that many seconds; at once, but not before others had their turn, for 0 and less."""
        ...


class SystemClock:
    """The clocks of this host."""

    def now(self) -> Now:
        """This moment."""
        return Now(boot_s=time.clock_gettime(time.CLOCK_BOOTTIME), wall_s=time.time())

    async def sleep(self, duration_s: float) -> None:
        """Come back after that many seconds (the host's suspend not counted)."""
        await asyncio.sleep(duration_s)


class FakeClock:
    """Stands still until it is moved."""

    TURNS = 20
    """How often everybody else gets a turn after each step; enough for tasks that wait for this clock alone."""

    def __init__(self, boot_s: float = 1_000.0, wall_s: float = 1_800_000_000.0) -> None:
        self._now = Now(boot_s, wall_s)
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> Now:
        """The moment at which the clock stands."""
        return self._now

    async def sleep(self, duration_s: float) -> None:
        """Come back when the clock has been moved that far."""
        if duration_s <= 0:
            await asyncio.sleep(0)
            return
        sleeper = (self._now.boot_s + duration_s, asyncio.get_running_loop().create_future())
        self._sleepers.append(sleeper)
        try:
            await sleeper[1]
        finally:
            self._sleepers.remove(sleeper)

    async def advance(self, duration_s: float) -> None:
        """Move on, stopping at each moment at which somebody wakes, in order, and letting them run."""
        end_s = self._now.boot_s + duration_s
        await self._give_turns()
        while due := [sleeper for sleeper in self._sleepers if sleeper[0] <= end_s and not sleeper[1].done()]:
            wake_s, future = min(due, key=lambda sleeper: sleeper[0])
            self._move_to(wake_s)
            future.set_result(None)
            await self._give_turns()
        self._move_to(end_s)

    def step_wall(self, by_s: float) -> None:
        """Let the wall clock jump, as when somebody sets it; nobody wakes of that."""
        self._now = Now(self._now.boot_s, self._now.wall_s + by_s)

    def _move_to(self, boot_s: float) -> None:
        self._now = Now(boot_s, self._now.wall_s + boot_s - self._now.boot_s)

    async def _give_turns(self) -> None:
        for _ in range(self.TURNS):
            await asyncio.sleep(0)
