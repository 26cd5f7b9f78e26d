"""The record of one failover or switchover: the journal's entries that belong to it. Pure."""

from collections.abc import Sequence

from understudy.core.events import Entry, EventKind

_BEGINS = frozenset({EventKind.FAILOVER_STARTED, EventKind.SWITCHOVER_STARTED, EventKind.CLUSTER_ADOPTED})
_ENDS = frozenset({EventKind.FAILOVER_DONE, EventKind.SWITCHOVER_DONE, EventKind.SWITCHOVER_ABORTED})
_BEFORE = frozenset({EventKind.CLUSTER_PHASE, EventKind.REQUEST_TAKEN})
"""What a decision says of its reasons is told just before it begins."""


def decision_record(entries: Sequence[Entry], number: int) -> tuple[Entry, ...]:
    """Of one service's entries those of the failover that the entry of that number belongs to; none if to none.

    From the evidence that led to it, over candidates and refusals, to its timings and what was lost.
    """
    at = next((index for index, entry in enumerate(entries) if entry.number == number), None)
    if at is None:
        return ()
    first = _begin(entries, at)
    if first is None:
        return ()
    last = next((i for i in range(first, len(entries)) if entries[i].event.kind in _ENDS), len(entries) - 1)
    while first > 0 and _led_to(entries, first - 1):
        first -= 1
    return tuple(entries[first : last + 1]) if first <= at <= last else ()


def _begin(entries: Sequence[Entry], at: int) -> int | None:
    """Where the failover began that this entry is in the midst of, or leads to."""
    before = next((i for i in range(at, -1, -1) if entries[i].event.kind in _BEGINS), None)
    ended = before is not None and any(entries[i].event.kind in _ENDS for i in range(before, at))
    if before is not None and not ended:
        return before
    after = next((i for i in range(at, len(entries)) if entries[i].event.kind in _BEGINS), None)
    leads = after is not None and all(entries[i].event.kind in _BEFORE for i in range(at, after))
    return after if leads else None


def _led_to(entries: Sequence[Entry], index: int) -> bool:
    return entries[index].event.kind in _BEFORE
