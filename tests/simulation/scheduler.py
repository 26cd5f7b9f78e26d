"""Virtual time: one heap of events under the whole world, and the clocks of its hosts.

RULES: time moves only by jumping to the next event. Events of the same moment run in the order in which they were
made, so a seed always gives the same run. Nothing here knows of clusters.
"""

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from understudy.core.clock import Now

Call = Callable[..., Any]
MOST_AT_ONCE = 20_000
"""How many steps one event may lead to in the same moment."""


class Scheduler:
    """True time in seconds, and what is to happen."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._heap: list[tuple[float, int, Call, tuple[Any, ...]]] = []
        self.ready: deque[tuple[Call, tuple[Any, ...]]] = deque()
        """What is due in this moment, in its order."""
        self._made = 0
        self._stopped = False

    def at(self, when_s: float, call: Call, *args: Any) -> None:
        """Run the call at that true time, or now if that has passed."""
        self._made += 1
        heappush(self._heap, (when_s, self._made, call, args))

    def later(self, delay_s: float, call: Call, *args: Any) -> None:
        """Run the call after that time."""
        self._made += 1
        heappush(self._heap, (self.now_s + delay_s, self._made, call, args))

    def soon(self, call: Call, *args: Any) -> None:
        """Run the call in this very moment, after everything that is already due."""
        self.ready.append((call, args))

    def stop(self) -> None:
        """End `run` after the present step."""
        self._stopped = True

    def run(self, until_s: float) -> None:
        """Jump from event to event until that time."""
        heap, ready = self._heap, self.ready
        still = 0
        while not self._stopped:
            if ready:
                call, args = ready.popleft()
                still += 1
                if still > MOST_AT_ONCE:
                    raise RuntimeError("something goes round for ever without time moving")
            elif heap and heap[0][0] <= until_s:
                when_s, _, call, args = heappop(heap)
                still = 0
                self.now_s = max(self.now_s, when_s)
            else:
                self.now_s = max(self.now_s, until_s)
                return
            call(*args)


class Clock:
    """The clocks of one host: both drift; the wall clock jumps too. The boot clock counts pauses of all kinds."""

    def __init__(self, scheduler: Scheduler, rate: float, booted_s: float, wall_s: float) -> None:
        self._scheduler = scheduler
        self.rate = rate
        self._booted_s = booted_s
        self._wall_s = wall_s
        self._read_s = -1.0
        """When `now` was worked out last; below 0: it holds no more."""
        self._now = Now(0.0, 0.0)

    def now(self) -> Now:
        """What both clocks say; looked at many times in the same moment."""
        true_s = self._scheduler.now_s
        if true_s != self._read_s:
            self._read_s = true_s
            self._now = Now((true_s - self._booted_s) * self.rate, self._wall_s + true_s * self.rate)
        return self._now

    def boot_s(self) -> float:
        """What CLOCK_BOOTTIME says on this host."""
        return (self._scheduler.now_s - self._booted_s) * self.rate

    def true_s(self, boot_s: float) -> float:
        """When the boot clock will have come so far (a nanosecond later, for the rounding)."""
        return boot_s / self.rate + self._booted_s + 1e-9

    def reboot(self) -> None:
        """The boot clock begins anew."""
        self._booted_s, self._read_s = self._scheduler.now_s, -1.0

    def step_wall(self, by_s: float) -> None:
        """Somebody sets the wall clock."""
        self._wall_s += by_s
        self._read_s = -1.0
