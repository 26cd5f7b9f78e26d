"""Positions: containment is a partial order over what is held, and offsets of different ways are never compared."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.core.lineage import (
    Branch,
    Position,
    Relation,
    contains,
    fits,
    lacks_bytes,
    loses_nothing,
    promoted_from,
    relate,
)

# A small tree of histories: each line forks from an earlier one at some offset.
FORKS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6)), max_size=5)


@st.composite
def positions(draw, count=3):
    """Some positions in one tree of histories (and now and then in another)."""
    ways = [(Branch("1", 0),), (Branch("x", 0),)]
    for number, (parent, further) in enumerate(draw(FORKS)):
        way = ways[parent % len(ways)]
        ways.append((*way, Branch(f"{number + 2}", way[-1].start + further)))
    return [
        Position(way, way[-1].start + draw(st.integers(0, 8)))
        for way in (draw(st.sampled_from(ways)) for _ in range(count))
    ]


def held(position: Position) -> set[tuple[str, int]]:
    """Every byte that it holds, by the way it was written on, and the root itself."""
    ends = [*(branch.start for branch in position.branches[1:]), position.offset]
    bytes_ = {
        (branch.id, at) for branch, end in zip(position.branches, ends, strict=True) for at in range(branch.start, end)
    }
    return bytes_ | {(position.branches[0].id, -1)}


@given(positions(count=2))
def test_contains_is_containment_of_bytes(pair):
    """A position contains another exactly when every byte of the other is one of its own."""
    mine, other = pair
    assert contains(mine, other) == (held(other) <= held(mine))


@given(positions(count=2))
def test_what_is_lacking_is_counted_in_bytes(pair):
    """What mine lacks of the other is the number of bytes that only the other holds, within one tree."""
    mine, other = pair
    missing = {at for at in held(other) - held(mine) if at[1] >= 0}
    assert lacks_bytes(mine, other) == len(missing)


@given(positions(count=3))
def test_it_is_a_partial_order(three):
    """Containing is reflexive and transitive, and `relate` is the same seen from both ends."""
    one, two, third = three
    mirror = {Relation.AHEAD: Relation.BEHIND, Relation.BEHIND: Relation.AHEAD}
    assert relate(one, one) is Relation.SAME
    assert relate(two, one) is mirror.get(relate(one, two), relate(one, two))
    if contains(one, two) and contains(two, third):
        assert contains(one, third)


def test_a_fork_is_no_lag():
    """More bytes on another way are not ahead: each has what the other lacks."""
    old = Position((Branch("1", 0),), 1000)
    new = Position((Branch("1", 0), Branch("2", 900)), 950)
    assert relate(old, new) is Relation.FORKED
    assert (lacks_bytes(new, old), lacks_bytes(old, new)) == (100, 50)
    assert relate(Position((Branch("1", 0),), 850), new) is Relation.BEHIND


@pytest.mark.parametrize(
    ("branches", "offset"), [((), 0), ((Branch("1", 5), Branch("2", 3)), 9), ((Branch("1", 5),), 4)]
)
def test_what_is_no_position_is_refused(branches, offset):
    """No history, branches that fall, or an end before the last branch began, is no position."""
    with pytest.raises(ValueError, match="no position"):
        Position(branches, offset)


def test_who_goes_on_from_a_promotion():
    """One more branch on the very same way, wherever it began; the same way, or another, is none."""
    old = Position((Branch("1", 0),), 1000)
    assert promoted_from(Position((Branch("1", 0), Branch("2", 990)), 1010), old)
    assert not promoted_from(old, old)
    assert not promoted_from(Position((Branch("7", 0), Branch("2", 990)), 1010), old)


def test_a_position_reads_well():
    """Own branch and offset."""
    assert str(Position((Branch("1", 0), Branch("3", 500)), 81293)) == "3/81293"


def test_who_fits_a_promotion():
    """What was there at the promotion, and what came after it; nothing else of the branch that was promoted from."""
    start = Position((Branch("1", 0), Branch("2", 100)), 150)
    later = Branch("3", 150)
    assert fits(Position(start.branches, 120), start)
    assert fits(start, start)
    assert fits(Position((*start.branches, later), 900), start)
    assert not fits(Position(start.branches, 151), start)
    assert not fits(Position((Branch("1", 0),), 101), start)
    assert not fits(Position((*start.branches, Branch("3", 160)), 900), start)
    assert not fits(Position((Branch("x", 0),), 1), start)


def test_in_doubt_it_fits():
    """An unknown position, and the beginning of a branch, which may be the primary's own, say nothing."""
    start = Position((Branch("1", 0), Branch("2", 100)), 100)
    assert fits(None, start)
    assert fits(start, None)
    assert fits(Position(start.branches, 500), start)


def test_who_follows_its_own_primary_loses_nothing():
    """What the primary has too, or has written itself; in doubt the node may have less afterwards, and rightly."""
    start = Position((Branch("1", 0), Branch("2", 100)), 150)
    assert loses_nothing(Position(start.branches, 120), start)
    assert loses_nothing(Position((*start.branches, Branch("3", 150)), 900), start)
    assert not loses_nothing(Position(start.branches, 151), start)
    assert not loses_nothing(Position((Branch("1", 0), Branch("x", 100)), 120), start)
    assert not loses_nothing(None, start)
    assert not loses_nothing(start, None)
    first = Position(start.branches, 100)
    assert loses_nothing(Position(first.branches, 900), first)
    assert not loses_nothing(Position((Branch("1", 0),), 900), first)
