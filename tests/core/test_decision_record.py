"""`events --show`: the whole of one failover, from its evidence to its end, and nothing of another."""

from understudy.core.decision_record import decision_record
from understudy.core.events import Entry, Event, EventKind


def told(*kinds: EventKind) -> list[Entry]:
    """A journal of these kinds, numbered from 1."""
    return [Entry(number, 0.0, Event(kind, str(kind))) for number, kind in enumerate(kinds, 1)]


JOURNAL = told(
    EventKind.CLUSTER_BORN,
    EventKind.NODE_RETURNED,
    EventKind.CLUSTER_PHASE,
    EventKind.FAILOVER_STARTED,
    EventKind.CLUSTER_CROWNED,
    EventKind.FAILOVER_DONE,
    EventKind.NODE_REJOINING,
    EventKind.SWITCHOVER_STARTED,
    EventKind.SWITCHOVER_ABORTED,
)


def numbers(entry: int) -> list[int]:
    """The numbers of what is shown for that entry."""
    return [each.number for each in decision_record(JOURNAL, entry)]


def test_every_entry_of_a_failover_shows_all_of_it() -> None:
    """Evidence, beginning, middle and end lead to the same record."""
    for entry in (3, 4, 5, 6):
        assert numbers(entry) == [3, 4, 5, 6]
    assert numbers(9) == [8, 9]


def test_what_belongs_to_none_shows_none() -> None:
    """An entry between two failovers, and one that is not there."""
    assert numbers(1) == numbers(7) == numbers(99) == []
