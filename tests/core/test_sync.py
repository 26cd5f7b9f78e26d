"""Commit rules and electorates change step by step; interrupted anywhere, nothing that was acknowledged is lost."""

import random

import pytest
from tests.scenarios.stage import Stage

from understudy.core.record import Phase, SyncConfig
from understudy.core.text import Name

WALKS = 150
STEPS = 25


def acknowledged(stage: Stage) -> int | None:
    """How far clients have been told that all is done, by the rule in force on the primary; None without one."""
    primary = next((one for one in stage.reports.values() if one.writable and one.position), None)
    if primary is None or primary.sync is None:
        return None
    have = sorted(
        (one.position.offset for name, one in stage.reports.items() if name in primary.sync.voters and one.position),
        reverse=True,
    )
    if primary.sync.acks == 0:
        return primary.position.offset
    return have[primary.sync.acks - 1] if len(have) >= primary.sync.acks else None


@pytest.mark.parametrize("walk", range(WALKS))
def test_no_walk_loses_an_acknowledged_write(walk):
    """Standbys come and go, rules change, the steward is interrupted anywhere; then the primary is gone for good.

    Whoever is primary after that has every write that was acknowledged, or there is none.
    """
    draw = random.Random(walk)
    stage = Stage()
    stage.perform(f"cluster postgres zero_loss a,b,c,d acks={draw.choice([1, 1, 2])}")
    acked = 0
    for _ in range(STEPS):
        node = draw.choice("bcd")
        step = draw.choice(
            [
                "decide", "decide", "act", "decide\nact", f"lose {node}", f"return {node}", "write 10", "write 10",
                f"node {node} streaming_from=-", f"spec acks {draw.choice([1, 2])}", f"wait {draw.choice([300, 6000])}",
            ]
        )  # fmt: skip
        stage.perform(step)
        if stage.record.phase in (Phase.STEADY, Phase.SUSPECT):
            acked = max(acked, acknowledged(stage) or 0)
    rules = stage.record.sync
    stage.perform("lose a\nwait 1000\nrun\nwait 12000\nrun\nreturn b\nreturn c\nreturn d\nrun\nwait 12000\nrun")
    record = stage.record
    if record.primary is not None and record.epoch > 3:
        assert stage.reports[record.primary].position.offset >= acked, (rules, record.loss)
        assert record.primary != "a"


def test_the_old_rule_stays_until_the_new_ones_voters_have_everything():
    """A rule is forgotten only when enough voters of the next reached the primary's position under it."""
    stage = Stage()
    stage.perform("cluster postgres zero_loss a,b,c acks=2\nspec acks 1\nlose c\nwrite 50\nwait 6000\ndecide")
    assert [rule.acks for rule in stage.record.sync] == [2, 1]
    stage.perform("decide")
    assert len(stage.record.sync) == 2, "the primary has not put it in force yet"
    stage.perform("node b position=1:0,3:500/900\nact\nnode b position=1:0,3:500/900\ndecide")
    assert stage.record.sync_mark is not None
    assert len(stage.record.sync) == 2, "no voter has reached the mark"
    stage.perform("write 1\ndecide")
    assert [rule.voters for rule in stage.record.sync] == [frozenset({Name("b")})]


def test_an_elector_is_dropped_only_when_the_primary_has_read_so():
    """Between the two steps both electorates stand in the record."""
    stage = Stage()
    stage.perform("cluster postgres 1000 a,b,c\nlose c\nwait 31000\ndecide")
    assert len(stage.record.electorates) == 2
    stage.perform("decide\ndecide")
    assert len(stage.record.electorates) == 2
    stage.perform("act\ndecide")
    assert stage.record.electorates == (frozenset({Name("a"), Name("b")}),)


def test_a_rule_ordered_again_is_another_one():
    """The same voters and acks with another serial ask the same, but are not mistaken for their first time in force."""
    one, again = SyncConfig(frozenset({Name("b")}), 1, 5), SyncConfig(frozenset({Name("b")}), 1, 9)
    assert one.same_rule(again)
    assert one != again


def test_who_has_another_history_does_not_come_to_count():
    """A standby whose link stands but whose log went another way acknowledges nothing, however near it looks."""
    stage = Stage()
    stage.perform("cluster postgres zero_loss a,b,c acks=1\nlose c\nwrite 50\nwait 20000\nrun")
    assert stage.record.sync[-1].voters == {Name("b")}
    stage.perform("return c\nnode c position=1:0/880\ndecide\ndecide")
    assert stage.record.sync[-1].voters == {Name("b")}
