"""A lane: one piece of work at a time, in the background, given up at its deadline. Knows nothing of the work."""

from collections.abc import Callable, Coroutine
from inspect import CORO_CREATED, getcoroutinestate
from math import inf
from typing import Any

from understudy.control.cluster.ports import Spawn, Work


class Lane:
    """Holds at most one piece of work. What the work finds out it puts down itself; `done` is called when it ended."""

    __slots__ = ("_done", "_inner", "_number", "_spawn", "_work", "busy", "deadline_s")

    def __init__(self, spawn: Spawn, done: Callable[[], None]) -> None:
        self._spawn = spawn
        self._done = done
        self._number = 0
        self._work: Work | None = None
        self._inner: Coroutine[Any, Any, None] | None = None
        self.busy = False
        self.deadline_s = inf
        """When the work is given up, by the boot clock; never, while there is none."""

    def start(self, work: Coroutine[Any, Any, None], deadline_s: float) -> None:
        """Begin; the lane must be free."""
        if self.busy:
            raise RuntimeError("the lane is busy")
        self._number += 1
        self.busy, self.deadline_s, self._inner = True, deadline_s, work
        spawned = self._spawn(self._run(work, self._number))
        self._work = spawned if self.busy else None

    def expired(self, now_s: float) -> bool:
        """Give up work that is past its deadline; whether there was any."""
        if now_s < self.deadline_s:
            return False
        self.give_up()
        return True

    def give_up(self) -> None:
        """End the work where it is; it puts down nothing any more."""
        work, self._work = self._work, None
        self.busy, self.deadline_s = False, inf
        self._number += 1
        if work is not None:
            work.cancel()
        if self._inner is not None and getcoroutinestate(self._inner) == CORO_CREATED:
            self._inner.close()  # it never had its turn

    async def _run(self, work: Coroutine[Any, Any, None], number: int) -> None:
        try:
            await work
        finally:
            if number == self._number:
                self.busy, self.deadline_s, self._work = False, inf, None
                self._done()
