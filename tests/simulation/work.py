"""Coroutines in virtual time: the work of a process goes on step by step, by the scheduler's order. No asyncio.

RULES: all that such a coroutine may await in the end is an `Awaited`. A process that died never goes on with its work;
it is kept as it is, so that no `finally` of it runs at some random moment.
"""

from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

from tests.simulation.scheduler import Scheduler

T = TypeVar("T")


class Awaited(Generic[T]):
    """Something that is still to come, for one piece of work to wait for. What comes first counts."""

    __slots__ = ("_answer", "_fault", "done", "waiter")

    def __init__(self) -> None:
        self.done = False
        self.waiter: Work | None = None
        self._answer: T | None = None
        self._fault: Exception | None = None

    def give(self, answer: T) -> None:
        """It came."""
        if not self.done:
            self._answer = answer
            self._end()

    def fail(self, fault: Exception) -> None:
        """It failed."""
        if not self.done:
            self._fault = fault
            self._end()

    def _end(self) -> None:
        self.done = True
        if self.waiter is not None:
            self.waiter.go_on()

    def __await__(self) -> Generator["Awaited[T]", None, T]:
        if not self.done:
            yield self
        if self._fault is not None:
            raise self._fault
        return self._answer  # type: ignore[return-value]  # it was given


class Work:
    """One coroutine on its way. `do` runs a call in the process: at once, when it goes on after a stop, or never."""

    __slots__ = ("_coroutine", "_ended", "_over", "_ready", "_turn")

    def __init__(
        self,
        scheduler: Scheduler,
        do: Callable[..., None],
        coroutine: Coroutine[Any, Any, Any],
        ended: Callable[["Work", Exception | None], None],
    ) -> None:
        self._coroutine = coroutine
        self._ended = ended
        """Told when it is over, and of the fault that nobody caught."""
        self._over = False
        self._ready = scheduler.ready
        self._turn = (do, (self._step,))
        self.go_on()

    def go_on(self) -> None:
        """What it waited for is there: its turn comes in this very moment."""
        self._ready.append(self._turn)

    def cancel(self) -> None:
        """End it where it is."""
        if not self._over:
            self._coroutine.close()
            self._end(None)

    def _step(self) -> None:
        if self._over:
            return
        try:
            awaited = self._coroutine.send(None)
        except StopIteration:
            self._end(None)
        except Exception as fault:  # noqa: BLE001  a fault that nobody caught is a fault of the code under test
            self._end(fault)
        else:
            awaited.waiter = self

    def _end(self, fault: Exception | None) -> None:
        self._over = True
        self._ended(self, fault)
