"""The checkers bite: a quiet world breaks nothing, and each invariant has a world that breaks exactly it."""

from dataclasses import replace

import pytest

from understudy.core.events import Entry, Event, EventKind
from understudy.core.invariants import (
    Ack,
    Bounds,
    Destroyed,
    Failover,
    Memory,
    NodeTruth,
    Promotion,
    Routed,
    World,
    check,
    check_journal,
)
from understudy.core.lineage import Branch, Position
from understudy.core.record import Ground
from understudy.core.text import Name

A, B = Name("a"), Name("b")
BOUNDS = Bounds(writable_s=10, failback_every_s=3600)


def at(offset, *forks):
    """A position on the root way, or on one that forked from it."""
    return Position((Branch("1", 0), *(Branch(name, start) for name, start in forks)), offset)


LEADING = NodeTruth(A, 3, acknowledges=True, open=True, closed=False)
STANDBY = NodeTruth(B, 0, acknowledges=False, open=False, closed=False)
QUIET = World(0.0, (LEADING, STANDBY), acks=(Ack(A, 3, at(100), zero_loss=True),))
TAKES_OVER = Promotion(B, 4, at(100), Ground.FENCED, None, at(100))

BREAKS = {
    "I1 two in one epoch": ("I1", {"nodes": (LEADING, replace(LEADING, name=B))}),
    "I1 both acknowledged": ("I1", {"acks": (Ack(B, 3, at(110), zero_loss=True),)}),
    "I1 an older epoch could": ("I1", {"nodes": (LEADING, replace(LEADING, name=B, epoch=2))}),
    "I1 an older epoch did": ("I1", {"acks": (Ack(B, 2, at(110), zero_loss=True),)}),
    "I1 without a ground": ("I1", {"promotions": (replace(TAKES_OVER, ground=None),)}),
    "I2 without an acknowledged write": ("I2", {"promotions": (replace(TAKES_OVER, position=at(99)),)}),
    "I2 on another way": ("I2", {"promotions": (replace(TAKES_OVER, position=at(500, ("2", 50))),)}),
    "I4 an epoch again": ("I4", {"promotions": (TAKES_OVER, replace(TAKES_OVER, node=A))}),
    "I4 an epoch falls": ("I4", {"promotions": (TAKES_OVER, replace(TAKES_OVER, epoch=3))}),
    "I4 late after a fence": (
        "I4",
        {"promotions": (replace(TAKES_OVER, epoch=5), replace(TAKES_OVER, node=A, position=at(50)))},
    ),
    "I5 closed and open": ("I5", {"nodes": (replace(LEADING, closed=True),)}),
    "I6 a write below": ("I6", {"routed": (Routed(Name("r"), 3, 4),)}),
    "I7 destroyed": ("I7", {"destroyed": (Destroyed(A, kept_copy=False, consent=False),)}),
    "I10 while paused": ("I10", {"paused": True, "acted": ("promote b",)}),
    "I11 healthy": ("I11", {"failovers": (Failover(4, A, healthy=True, ordered=False),)}),
    "I12 twice": ("I12", {"failbacks": 2}),
}


@pytest.mark.parametrize("case", BREAKS)
def test_each_invariant_can_be_broken(case):
    """A world that breaks one rule is told of that rule, and of no other."""
    rule, change = BREAKS[case]
    memory, found = check(Memory(), QUIET, BOUNDS)
    assert found == ()
    _, found = check(memory, replace(QUIET, **{"acks": (), **change}), BOUNDS)
    assert [one.rule for one in found] == [rule], [str(one) for one in found]


def test_a_violation_is_a_sentence():
    """The rule first, then what broke it."""
    _, found = check(Memory(), replace(QUIET, routed=BREAKS["I6 a write below"][1]["routed"]), BOUNDS)
    assert [str(one) for one in found] == ["I6: r sent a write to epoch 3, knowing 4"]


def test_a_candidate_may_come_late_after_a_revocation():
    """Cut off, it is promoted by its own lease though the next one is: it may, as long as it acknowledges nothing."""
    next_one = replace(TAKES_OVER, epoch=5, ground=Ground.REVOCATION)
    late = replace(TAKES_OVER, node=A, position=at(50), ground=Ground.REVOCATION)
    nodes = (replace(STANDBY, name=A, epoch=4), replace(STANDBY, epoch=5, acknowledges=True, open=True))
    world = World(5.0, nodes, acks=(Ack(B, 5, at(110), zero_loss=True),), promotions=(next_one, late))
    memory, found = check(check(Memory(), QUIET, BOUNDS)[0], world, BOUNDS)
    assert found == ()
    _, found = check(memory, World(6.0, nodes, acks=(Ack(A, 4, at(60), zero_loss=True),)), BOUNDS)
    assert [one.rule for one in found] == ["I1"]


def test_a_good_failover_breaks_nothing():
    """Fenced, promoted with everything, writing in the next epoch; data that were put aside; a router that follows."""
    memory, _ = check(Memory(), QUIET, BOUNDS)
    world = World(
        5.0,
        (replace(STANDBY, epoch=4, acknowledges=True, open=True), replace(STANDBY, name=A, closed=True)),
        acks=(Ack(B, 4, at(150, ("4", 100)), zero_loss=True),),
        promotions=(TAKES_OVER,),
        failovers=(Failover(4, A, healthy=False, ordered=False),),
        routed=(Routed(Name("r"), 4, 4),),
        destroyed=(Destroyed(A, kept_copy=True, consent=False),),
        failbacks=1,
    )
    memory, found = check(memory, world, BOUNDS)
    assert found == ()
    assert memory.owed == (at(150, ("4", 100)),)


def test_bounded_loss_is_bounded():
    """With a bound a winner may lack so much of what was known, but not more, and nothing by a fork."""
    start = Memory()
    promotion = replace(TAKES_OVER, max_loss_bytes=10, known=at(100), position=at(90))
    assert check(start, World(0, (), promotions=(promotion,)), BOUNDS)[1] == ()
    for position in (at(89), at(95, ("2", 80))):
        world = World(0, (), promotions=(replace(promotion, position=position),))
        assert [one.rule for one in check(start, world, BOUNDS)[1]] == ["I3"]


def test_accepted_loss_is_owed_no_longer():
    """What a person gave up is not demanded of the one after."""
    memory, _ = check(Memory(), QUIET, BOUNDS)
    lossy = World(1.0, (), promotions=(replace(TAKES_OVER, position=at(50), accept_loss=True),))
    memory, found = check(memory, lossy, BOUNDS)
    assert (found, memory.owed) == ((), ())


def test_somebody_must_take_writes_in_time():
    """I9 counts from when it became possible, or from the last writable moment, whichever is later."""
    nobody = (replace(LEADING, open=False, acknowledges=False),)
    memory, _ = check(Memory(), replace(QUIET, now_s=100.0), BOUNDS)
    for now_s, able_s, broken in ((109.0, 0.0, False), (111.0, 0.0, True), (111.0, 105.0, False), (111.0, None, False)):
        _, found = check(memory, World(now_s, nobody, able_since_s=able_s), BOUNDS)
        assert [one.rule for one in found] == (["I9"] if broken else [])


def test_failback_is_bounded_in_time():
    """Once in the time between is fine, twice is flapping."""
    memory, found = check(Memory(), replace(QUIET, failbacks=1, now_s=10.0), BOUNDS)
    assert found == ()
    assert [one.rule for one in check(memory, World(3000.0, (LEADING,), failbacks=1), BOUNDS)[1]] == ["I12"]
    assert check(memory, World(3611.0, (LEADING,), failbacks=1), BOUNDS)[1] == ()


def told(number, kind, **data):
    """An entry of the journal."""
    return Entry(number, 0.0, Event(kind, "", Name("orders"), A, tuple(data.items())))


def test_the_journal_alone_shows_a_broken_run():
    """A promotion with nobody fenced before it, and an epoch that does not rise, are seen in the journal."""
    born = told(1, EventKind.CLUSTER_CROWNED, epoch=1, ground="first")
    fence = told(2, EventKind.FAILOVER_STARTED, epoch=2)
    crown = told(3, EventKind.CLUSTER_CROWNED, epoch=2, ground="lease")
    assert check_journal([told(0, EventKind.SERVICE_UP), born, fence, crown]) == ()
    assert [one.rule for one in check_journal([born, crown])] == ["I1"]
    assert [one.rule for one in check_journal([born, fence, crown, crown])] == ["I4"]
