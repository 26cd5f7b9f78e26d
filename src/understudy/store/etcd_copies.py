"""The copies of one transaction that were sent, of which at most one can take effect: what they say together.

Knows nothing of members. Who sends a second copy must know that it fails if the first one took effect.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from itertools import chain
from typing import Any

from understudy.store.base import Delete, Expect, Put
from understudy.store.etcd_faults import Kind, Trouble
from understudy.store.etcd_messages import Answer

GRACE_S = 0.05
"""An answer to an earlier copy comes within that time after one to a later copy, or hardly ever."""


class Copies:
    """Send, and wait for an answer; `end` gives up those that are still on their way."""

    def __init__(self) -> None:
        self._at: dict[asyncio.Task[Answer], str] = {}
        """Which member each was sent to."""

    def __len__(self) -> int:
        """How many were sent."""
        return len(self._at)

    def send(self, url: str, sending: Coroutine[Any, Any, Answer]) -> None:
        """One more."""
        self._at[asyncio.create_task(sending)] = url

    async def answer(self, until_s: float, beside: asyncio.Task[Any] | None = None) -> Answer | None:
        """What became of the transaction, as soon as that is certain.

        None when all have ended without that, when that time of the event loop has come, or `beside` is done. Once a
        copy was declined, earlier ones are waited for only as long as their answers may be under way.
        """
        loop = asyncio.get_running_loop()
        declined = False
        while True:
            answer, pending = self._verdict(), self._pending()
            if self.declined and not declined:
                until_s, declined = min(until_s, loop.time() + GRACE_S), True
            if answer is not None or not pending or (beside and beside.done()) or loop.time() >= until_s:
                return answer
            waits: set[asyncio.Task[Any]] = {*pending, beside} if beside else {*pending}
            await asyncio.wait(waits, timeout=until_s - loop.time(), return_when=asyncio.FIRST_COMPLETED)

    async def end(self) -> None:
        """Wait for no more answers."""
        for copy in self._at:
            copy.cancel()
        await asyncio.gather(*self._at, return_exceptions=True)

    @property
    def late(self) -> list[str]:
        """The members that have not answered yet."""
        return [self._at[copy] for copy in self._pending()]

    @property
    def troubles(self) -> dict[str, Trouble]:
        """The members that failed, each with its last trouble."""
        told = ((url, copy.exception()) for copy, url in self._at.items() if copy.done())
        return {url: trouble for url, trouble in told if isinstance(trouble, Trouble)}

    @property
    def unsure(self) -> Trouble | None:
        """Why some copy may have taken effect, or may yet do so; None when none can."""
        lost = (trouble for trouble in self.troubles.values() if trouble.kind in {Kind.LOST, Kind.LED_ANEW})
        late = (Trouble(Kind.LOST, f"{url} does not answer") for url in self.late)
        return next(chain(lost, late), None)

    @property
    def declined(self) -> bool:
        """Whether a copy's conditions did not hold, so that none that is sent now can take effect."""
        return any(copy.done() and copy.exception() is None for copy in self._at)

    def _pending(self) -> list[asyncio.Task[Answer]]:
        return [copy for copy in self._at if not copy.done()]

    def _verdict(self) -> Answer | None:
        """A copy that took effect; or one that did not, if no other one can have. Raises what is no Trouble."""
        declined = None
        for copy in self._at:
            if copy.done() and not isinstance(copy.exception(), Trouble):
                declined = copy.result()
                if declined.succeeded:
                    return declined
        return None if self.unsure else declined


def ends_its_conditions(expects: Sequence[Expect], changes: Sequence[Put | Delete]) -> bool:
    """Whether the transaction, once it has taken effect, can never do so again: it changes what it expects as it was.

    An entry that must not exist is not enough: it may be made and removed again.
    """
    return not {expect.key for expect in expects if expect.revision}.isdisjoint(change.key for change in changes)
