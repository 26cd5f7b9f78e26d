"""A lane: one piece of work at a time, in the background, given up at its deadline. Knows nothing of the work."""

from collections.abc import Callable, Coroutine
from math import inf
from typing import Any

from understudy.control.cluster.ports import Spawn, Work


class Lane:
    """At most one piece of work, which puts down itself what it finds out, and says whether that is worth a tick."""

    __slots__ = ("_number", "_spawn", "_wake", "_wanted", "_work", "busy", "deadline_s")

    def __init__(self, spawn: Spawn, wake: Callable[[], None]) -> None:
        self._spawn = spawn
        self._wake = wake
        self._number = 0
        self._work: Work | None = None
        self._wanted = False
        """Whether somebody waits for the lane."""
        self.busy = False
        self.deadline_s = inf
        """When the work is given up, by the boot clock; never, while there is none."""

    def start(self, work: Callable[[], Coroutine[Any, Any, bool]], deadline_s: float) -> None:
        """Begin; the lane must be free. The work returns whether a tick should come at once."""
        if self.busy:
            raise RuntimeError("the lane is busy")
        self._number += 1
        self.busy, self.deadline_s, self._wanted = True, deadline_s, False
        spawned = self._spawn(self._run(work, self._number))
        self._work = spawned if self.busy else None

    def until(self, due_s: float, now_s: float) -> float:
        """When to come again, if there is something to do at `due_s`: not before the lane is free."""
        if not self.busy:
            return due_s
        if due_s > now_s:
            return min(due_s, self.deadline_s)
        self._wanted = True
        return self.deadline_s

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

    async def _run(self, work: Callable[[], Coroutine[Any, Any, bool]], number: int) -> None:
        worth = True
        try:
            worth = await work()
        finally:
            if number == self._number:
                self.busy, self.deadline_s, self._work = False, inf, None
                if worth or self._wanted:
                    self._wake()
