"""Voting arithmetic in full for small clusters: every rule, every change, every interruption, every loss."""

from itertools import chain, combinations

import pytest

from understudy.core.quorum import caught_up, promise_quorum, promised, release_quorum, released, revoked, silenced
from understudy.core.record import SyncConfig
from understudy.core.text import Name

NODES = tuple(Name(name) for name in "bcd")


def subsets(of):
    """Every subset, the empty one too."""
    of = tuple(of)
    return [frozenset(some) for some in chain.from_iterable(combinations(of, n) for n in range(len(of) + 1))]


RULES = [SyncConfig(voters, acks) for voters in subsets(NODES) for acks in range(len(voters) + 1) if acks or not voters]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.acks}of{''.join(sorted(rule.voters))}")
def test_silenced_is_exactly_when_no_quorum_is_left(rule):
    """Frozen voters silence a primary exactly when those left cannot commit; nothing silences one that asks none."""
    for frozen in subsets(NODES):
        can_commit = rule.acks == 0 or len(rule.voters - frozen) >= rule.acks
        assert silenced(rule, frozen) == (not can_commit)


def changes():
    """Every change of the rule, at every point where it can be interrupted: (rules on record, positions, acknowledged).

    Writes: the first was acknowledged by `first` before the new rule was in force, the second by `second` afterwards.
    """
    for old in RULES:
        for new in RULES:
            for first in least(old):
                positions = dict.fromkeys(first, 1)
                yield (old,), positions, 1
                yield (old, new), positions, 1
                for second in least(new):
                    later = {**positions, **dict.fromkeys(second, 2)}
                    yield (old, new), later, 2
                for reached in subsets(NODES):
                    if caught_up(new, reached):
                        have = {**positions, **dict.fromkeys(reached, 1)}
                        yield (new,), have, 1
                        for second in least(new):
                            yield (new,), {**have, **dict.fromkeys(second, 2)}, 2


def least(rule):
    """The smallest sets that may have acknowledged a write under this rule."""
    return [frozenset(some) for some in combinations(sorted(rule.voters), rule.acks)]


def elections(rules, positions):
    """Who would be found fit, for every set of nodes that can be frozen: those that contain enough of the others."""
    for frozen in subsets(NODES):
        for winner in frozen:
            contained = frozenset(node for node in frozen if positions.get(node, 0) <= positions.get(winner, 0))
            if revoked(rules, contained):
                yield positions.get(winner, 0)


def test_no_interruption_of_a_change_loses_an_acknowledged_write():
    """Whatever rule changes to whatever other, interrupted anywhere, whoever is left: the winner has every write."""
    checked = 0
    for rules, positions, acknowledged in changes():
        for has in elections(rules, positions):
            assert has >= acknowledged, (rules, positions)
            checked += 1
    assert checked > 10_000


def test_the_check_bites():
    """Forgetting the old rule before the new one's voters have caught up is found out."""
    old, new = SyncConfig(frozenset({NODES[0]}), 1), SyncConfig(frozenset({NODES[1]}), 1)
    assert any(has < 1 for has in elections((new,), {NODES[0]: 1}))
    assert all(has >= 1 for has in elections((old, new), {NODES[0]: 1}))


def test_nobody_is_sure_without_a_rule():
    """No rule on record silences nothing, and releases nothing."""
    assert not revoked((), frozenset(NODES))
    assert not released((), frozenset(NODES))
    assert not promised((), frozenset(NODES))


@pytest.mark.parametrize("electors", range(1, 10))
def test_whoever_promised_meets_whoever_is_frozen(electors):
    """A majority that promises, the primary in it, and the quorum of others that is frozen always share a node."""
    others = electors - 1
    assert promise_quorum(electors) - 1 + release_quorum(electors) > others
    assert promise_quorum(electors) * 2 > electors


@pytest.mark.parametrize("primary", NODES)
def test_a_change_of_the_electorate_is_safe_when_interrupted(primary):
    """From one electorate to any other: whoever the primary may ask, and whoever is frozen, meet at every step."""
    electorates = [one for one in subsets(NODES) if primary in one]
    for old in electorates:
        for new in electorates:
            # What stands in the record against what the primary has read of it.
            for recorded, read in (
                ((old, new), (old,)),
                ((old, new), (old, new)),
                ((new,), (old, new)),
                ((new,), (new,)),
            ):
                for promises in subsets(NODES):
                    for frozen in subsets(set(NODES) - {primary}):
                        both = promised(read, promises | {primary}) and released(recorded, frozen)
                        assert not both or frozen & promises, (recorded, read, promises, frozen)
