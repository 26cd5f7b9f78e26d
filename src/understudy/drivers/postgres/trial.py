"""Something that is tried again and again beside the looks, and that no look waits for: a write, a flush."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from understudy.drivers.base import DriverFault


class Trial:
    """One kind of trial; at most one is outstanding. It must bound itself, or be one that can only be waited for."""

    def __init__(self, trial: Callable[[], Awaitable[None]], every_s: float, slow_s: float) -> None:
        self._trial = trial
        self._every_s = every_s
        self._slow_s = slow_s
        self._task: asyncio.Task[None] | None = None
        self._began_s = 0.0
        self._failed = False

    def fails(self) -> bool:
        """Whether the last one failed, or the present one takes too long. Begins the next when it is due."""
        now_s = time.monotonic()
        if self._task is not None and self._task.done():
            self._task = None
        if self._task is None and (self._failed or now_s - self._began_s >= self._every_s):
            self._began_s = now_s
            self._task = asyncio.create_task(self._try())
        slow = self._task is not None and now_s - self._began_s > self._slow_s
        return self._failed or slow

    def end(self) -> None:
        """Give up what is outstanding, and begin as if nothing had been tried."""
        if self._task is not None:
            self._task.cancel()
        self._task, self._began_s, self._failed = None, 0.0, False

    async def _try(self) -> None:
        try:
            await self._trial()
        except (DriverFault, OSError, TimeoutError):
            self._failed = True
        else:
            self._failed = False
