"""Elections: whatever was acknowledged is in the winner, and every refusal has its reason."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.scenarios.stage import Stage

from understudy.core.classify import assess
from understudy.core.election import elect, enough_known
from understudy.core.lineage import Branch, Position, contains
from understudy.core.record import Ground, Phase, SyncConfig
from understudy.core.situation import Asked
from understudy.core.text import Name

ROOT = (Branch("1", 0), Branch("3", 500))
NAMES = [Name(name) for name in "bcde"]


def electing(script: str = "", durability: str = "zero_loss", nodes: str = "a,b,c,d,e") -> Stage:
    """A stage in the middle of a failover from a: everybody frozen, a closed, in epoch 4."""
    stage = Stage()
    stage.perform(f"cluster postgres {durability} {nodes}\ncrash a\ndecide\ndecide\nact\n{script}")
    stage.record = replace(stage.record, phase=Phase.ELECTING)
    return stage


def refusals(stage: Stage) -> dict[str, str]:
    """Who is refused, and why."""
    view = stage._view()
    return {one.node: one.refusal for one in elect(view, view.record).candidates if one.refusal}


@settings(max_examples=300, deadline=None)
@given(
    offsets=st.lists(st.integers(500, 520), min_size=4, max_size=4),
    voters=st.lists(st.frozensets(st.sampled_from(NAMES), min_size=1), min_size=1, max_size=2),
    acks=st.lists(st.integers(1, 3), min_size=2, max_size=2),
    unfrozen=st.frozensets(st.sampled_from(NAMES)),
    closed=st.booleans(),
    forked=st.frozensets(st.sampled_from(NAMES), max_size=1),
)
def test_the_winner_has_every_acknowledged_write(*, offsets, voters, acks, unfrozen, closed, forked):
    """Any rules in force, anybody frozen, any lags, one on another way: who wins contains what was acknowledged."""
    rules = tuple(SyncConfig(some, min(need, len(some))) for some, need in zip(voters, acks, strict=False))
    stage = electing()
    stage.record = replace(stage.record, sync=rules)
    has = dict(zip(NAMES, offsets, strict=True))
    for name, offset in has.items():
        way = (Branch("1", 0), Branch("2", 400)) if name in forked else ROOT
        frozen = 0 if name in unfrozen else 4
        stage.reports[name] = replace(stage.reports[name], position=Position(way, offset), frozen_epoch=frozen)
    if not closed:
        stage.reports[Name("a")] = replace(stage.reports[Name("a")], closed_epoch=0)
    own = stage.reports[Name("a")].position
    view = stage._view()
    winner = elect(view, view.record).winner
    if winner is None:
        return
    won = view.report(winner).position
    for rule in rules:
        # The furthest write that enough voters on the primary's own way can have acknowledged.
        given_ = sorted((has[name] for name in rule.voters if name not in forked), reverse=True)
        if len(given_) >= rule.acks:
            acked = min(given_[rule.acks - 1], own.offset)
            assert contains(won, Position(ROOT, acked)), (winner, rule)


def test_every_reason_to_refuse():
    """Each node is refused for its own fault, in words."""
    stage = electing(
        "node b position=-\nnode c needs_rebuild\nnode d disk_failing_ms=9000\nlose e\nwait 9000\nnode a less_data"
    )
    assert refusals(stage) == {
        "a": "came back with less data than it had",
        "b": "does not know its position",
        "c": "needs its data copied anew",
        "d": "has a disk that does not answer",
        "e": "is not heard",
    }


def test_more_reasons_to_refuse():
    """Lineage, the marks, the spec and the cluster's identity."""
    stage = electing(
        "node b frozen_epoch=3\nnode c position=1:0,2:400/9000\nnode d identity=dead\nnode e position=1:0/450"
    )
    assert refusals(stage) == {
        "b": "is not frozen at epoch 4",
        "c": "went another way than the start of the last reign (2/9000 against 1/500)",
        "d": "carries the identity of another cluster",
        "e": "is 50 bytes behind the start of the last reign",
    }


@pytest.mark.parametrize(("bound", "winner"), [(50, None), (100, "b")])
def test_bounded_loss(bound, winner):
    """A standby may lack as much as the spec allows, measured against the last known position, and no more."""
    stage = electing("lose a\nwait 9000", str(bound), "a,b")
    stage.reports[Name("a")] = replace(stage.reports[Name("a")], closed_epoch=0)
    stage.reports[Name("b")] = replace(stage.reports[Name("b")], position=Position(ROOT, 900))
    view = stage._view()
    assert elect(view, view.record).winner == winner


def test_among_equals_another_node_then_preference_then_priority():
    """Equal data: never the old primary before another; the preferred node, then the priority, then the name."""
    stage = electing("node b position=1:0,3:500/999")
    nodes = tuple(replace(node, priority=5) if node.name == "d" else node for node in stage.service.nodes)
    stage.service = replace(stage.service, nodes=nodes)
    view = stage._view()
    assert elect(view, view.record).winner == "d"
    view = replace(view, service=replace(view.service, preferred=Name("e")))
    assert elect(view, view.record).winner == "e"
    tried = replace(view.record, tried=(Name("e"), Name("d")))
    assert elect(view, tried).winner == "c"


def test_votes_wait_for_who_is_heard():
    """The old primary alone has everything, but standbys that are heard get a moment to freeze first."""
    stage = electing("node b frozen_epoch=0\nnode c frozen_epoch=0\nnode d frozen_epoch=0\nnode e frozen_epoch=0")
    view = stage._view()
    assert not enough_known(view, view.record)
    assert enough_known(replace(view, phase_age_ms=500), view.record)


def test_a_standby_with_more_shows_that_the_old_disk_lost_something():
    """The closed old primary does not count as having everything once any standby, silent ones too, had more of it."""
    stage = electing("node b frozen_epoch=0\nnode c frozen_epoch=0\nnode d frozen_epoch=0\nnode e frozen_epoch=0")
    position = stage.reports[Name("a")].position
    view = replace(stage._view(), phase_age_ms=500)
    assert elect(view, view.record).winner == "a"
    more = Position(position.branches, position.offset + 1)
    stage.reports[Name("b")] = replace(stage.reports[Name("b")], position=more)
    view = replace(stage._view(), phase_age_ms=500)
    assert elect(view, view.record).winner is None
    assert not enough_known(view, view.record)


def test_a_proof_outlives_the_steward_that_saw_it():
    """What was proven in this epoch stays so: the next steward, who has not seen the lease run out, crowns by it."""
    stage = electing()
    proven = replace(stage.record, ground=Ground.LEASE)
    bare = tuple(
        (name, replace(seen, report=replace(seen.report, closed_epoch=0))) for name, seen in stage._view().nodes
    )
    view = replace(stage._view(), nodes=bare, record=proven, phase_age_ms=500)
    assert assess(view, proven, Asked.NOTHING).ground is Ground.LEASE
    fencing = replace(proven, phase=Phase.FENCING)
    assert assess(replace(view, record=fencing), fencing, Asked.NOTHING).ground is not Ground.LEASE
