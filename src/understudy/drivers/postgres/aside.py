"""Work that a hung disk may never give back, done where it holds up nobody: on a thread, one at a time, in time.

A thread in such a disk cannot be ended. So there is never a second one before the first has come back, and no thread
here keeps the agent from ending.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from understudy.drivers.base import DriverFault

T = TypeVar("T")


class Aside:
    """One such place. `what` is what it works with, for the sentence."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._turn = asyncio.Lock()
        self._outstanding: asyncio.Future[None] | None = None

    async def do(self, work: Callable[[], T], deadline_s: float) -> T:
        """Its result. Raises DriverFault when it fails; when it, or what was given up before, is not back in time."""
        try:
            async with asyncio.timeout(deadline_s), self._turn:
                if self._outstanding is not None:
                    await asyncio.shield(self._outstanding)
                return await self._begin(work)
        except TimeoutError:
            raise DriverFault(f"{self._what} does not answer within {deadline_s:.1f} s; is the disk hung?") from None
        except OSError as error:
            raise DriverFault(f"{self._what} does not do what it should ({error}).") from error

    def _begin(self, work: Callable[[], T]) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()
        back = self._outstanding = loop.create_future()

        def run() -> None:
            try:
                answer = work()
            except BaseException as error:  # noqa: BLE001  it is raised to whoever waits
                tell(_fail, result, error)
            else:
                tell(_answer, result, answer)
            tell(_answer, back, None)

        def tell(*words: object) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(*words)  # type: ignore[arg-type]

        threading.Thread(target=run, name=f"aside: {self._what}", daemon=True).start()
        return result


def _answer(future: asyncio.Future[T], answer: T) -> None:
    if not future.done():
        future.set_result(answer)


def _fail(future: asyncio.Future[T], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
