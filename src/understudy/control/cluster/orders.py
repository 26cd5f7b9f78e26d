"""A person's wishes of a cluster: put into the queue that its steward reads, and followed until it is known what came.

The queue is in the store; who decides about it, and how, is core/requests.py. Nothing is decided here.
"""

import asyncio
from contextlib import aclosing
from dataclasses import replace

from understudy.control.clock import Clock
from understudy.control.journal import Journal
from understudy.control.keys import cluster_command, cluster_commands
from understudy.control.view import Wish
from understudy.core.codec import encode
from understudy.core.errors import Fault, Refused
from understudy.core.events import Event, EventKind
from understudy.core.record import Phase, Request, RequestKind
from understudy.core.text import Name
from understudy.store.base import Expect, Put, Store

PATIENCE_S = 60.0
"""How long the outcome is waited for; the wish goes on waiting after that."""
TRIES = 5

_OUTCOMES = {
    RequestKind.SWITCHOVER: {EventKind.SWITCHOVER_DONE, EventKind.SWITCHOVER_ABORTED, EventKind.FAILOVER_DONE},
    RequestKind.FAILOVER: {EventKind.FAILOVER_DONE, EventKind.CLUSTER_BLOCKED},
    RequestKind.REBUILD: {EventKind.REQUEST_TAKEN},
}
_REACHED = {RequestKind.PAUSE: Phase.PAUSED, RequestKind.RESUME: Phase.STEADY}
"""The phase by which a wish is met."""
_FAILURES = frozenset({EventKind.REQUEST_REFUSED, EventKind.SWITCHOVER_ABORTED, EventKind.CLUSTER_BLOCKED})


class Orders:
    """The way from a verb to the steward and back."""

    def __init__(self, store: Store, journal: Journal, clock: Clock, by: str) -> None:
        self._store = store
        self._journal = journal
        self._clock = clock
        self._by = by

    async def ask(self, cluster: Name, wish: Wish) -> str:
        """Queue the wish and wait; the sentence of the event that ended it. Refused when that was no success."""
        latest = await self._journal.tail(-1, 1)
        after = latest[-1].number if latest else 0
        await self._queue(cluster, wish)
        try:
            async with asyncio.timeout(PATIENCE_S):
                event = await self._outcome(cluster, wish.kind, after)
        except TimeoutError:
            raise Fault(
                f"the {wish.kind} of {cluster} waits in the queue, and nothing came of it within {PATIENCE_S:.0f} s: "
                f"`understudy why {cluster}` tells what it waits for"
            ) from None
        if event.kind in _FAILURES:
            raise Refused(event.reason)
        return event.reason

    async def _queue(self, cluster: Name, wish: Wish) -> None:
        request = _request(wish, self._by)
        for _ in range(TRIES):
            waiting = (await self._store.list(cluster_commands(cluster))).items
            # Numbers rise with the time, too, so that none is used twice when the queue has been empty in between.
            newest = int(waiting[-1].key.rpartition("/")[2]) if waiting else 0
            number = max(newest + 1, int(self._clock.now().wall_s * 1000))
            key = cluster_command(cluster, number)
            put = Put(key, encode(replace(request, id=number)))
            if (await self._store.transact([Expect(key, 0)], [put])).committed:
                return
        raise Fault(f"the {wish.kind} of {cluster} was not asked, since others ask all the time: try again")

    async def _outcome(self, cluster: Name, kind: RequestKind, after: int) -> Event:
        async with aclosing(self._journal.follow(after)) as entries:
            async for entry in entries:
                if entry.event.service == cluster and _ends(kind, entry.event):
                    return entry.event
        raise Fault(f"what came of the {kind} of {cluster} is not known: the agent is ending")


def _request(wish: Wish, by: str) -> Request:
    try:
        node = Name(wish.node) if wish.node else None
        sworn_off = frozenset(Name(name) for name in wish.sworn_dead)
    except ValueError as fault:
        raise Refused(f"that is no name of a node: {fault}") from None
    return Request(0, wish.kind, node, wish.accept_loss, sworn_off, by)


def _ends(kind: RequestKind, event: Event) -> bool:
    """Whether this event tells what came of such a wish."""
    if event.kind is EventKind.REQUEST_REFUSED:
        return f"The {kind} asked" in event.reason
    if kind in _REACHED:
        return event.kind is EventKind.CLUSTER_PHASE and dict(event.data).get("phase") == _REACHED[kind]
    return event.kind in _OUTCOMES[kind]
