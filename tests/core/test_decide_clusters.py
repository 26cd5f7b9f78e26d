"""The decision as a value: what it stores, orders, hands out, and how long it takes."""

import time
from dataclasses import replace

import pytest
from tests.scenarios.stage import ENGINES, WALL_S, Stage

from understudy.core.clock import Now
from understudy.core.clusters import decide, decide_on, route_of
from understudy.core.codec import decode, encode
from understudy.core.events import EventKind
from understudy.core.lineage import Branch, Position
from understudy.core.record import Blocked, ClusterRecord, DutyKind, Origin, Phase, Timings
from understudy.core.report import LeaseOrder, NodeReport
from understudy.core.text import Name

NOW = Now(0.0, WALL_S)


def staged(script: str) -> Stage:
    """A stage after this script."""
    stage = Stage()
    stage.perform(script)
    return stage


def test_nothing_new_is_the_very_same_record():
    """A look that changes nothing gives back the view's own record, no event and no action: nothing is written."""
    stage = staged("cluster postgres zero_loss a,b,c")
    decision = decide(stage._view(), NOW)
    assert decision.record is stage.record
    assert (decision.actions, decision.events, decision.requests_done, decision.lease) == ((), (), (), None)


def test_every_change_raises_the_serial_by_one_and_names_the_duties():
    """`serial` rises with each stored change, and the actions are the duties that changed."""
    stage = staged("cluster postgres zero_loss a,b,c\ncrash a\ndecide")
    before = stage.record
    decision = decide(stage._view(), NOW)
    assert decision.record.serial == before.serial + 1
    assert {duty.node: duty.kind for duty in decision.actions} == {
        "a": DutyKind.CLOSED,
        "b": DutyKind.FROZEN,
        "c": DutyKind.FROZEN,
    }
    assert all(duty.since == decision.record.serial for duty in decision.actions)


def test_what_follows_from_one_sight_is_decided_at_once():
    """A dead engine leads from steady to fencing in one record to store, with every row's sentence in the journal."""
    stage = staged("cluster postgres zero_loss a,b,c\ncrash a")
    before, decision = stage.record, decide_on(stage._view(), NOW)
    assert (before.phase, decision.record.phase, decision.record.epoch) == (Phase.STEADY, Phase.FENCING, 4)
    told = [dict(event.data)["phase"] for event in decision.events if event.kind is EventKind.CLUSTER_PHASE]
    assert told == [Phase.CONFIRMED, Phase.FENCING]
    assert decision.lease == LeaseOrder(None, 4)
    assert {duty.node for duty in decision.actions} == {"a", "b", "c"}
    assert decide_on(staged("cluster postgres zero_loss a,b,c")._view(), NOW).events == ()


def test_the_lease_is_buried_and_handed_out_with_the_record():
    """Opening an epoch overwrites the old lease's key; crowning hands it to the winner, with the record."""
    stage = staged("cluster postgres zero_loss a,b,c\ncrash a\ndecide")
    assert decide(stage._view(), NOW).lease == LeaseOrder(None, 4)
    stage.perform("decide\nact\ndecide")
    assert decide(stage._view(), NOW).lease == LeaseOrder(Name("b"), 4)


def test_a_winner_is_held_by_voters_that_stand_where_it_does():
    """With such a voter it need not wait for streams; not with one that has less, or that nothing is known of."""
    crowned = "cluster postgres zero_loss a,b,c\ncrash a\ndecide\ndecide\nact\n{}\ndecide\ndecide"
    stage = staged(crowned.format(""))
    assert (stage.record.phase, stage.record.primary, stage.record.held) == (Phase.PROMOTING, "b", True)
    stage = staged(crowned.format("node c position=-"))
    assert (stage.record.phase, stage.record.held) == (Phase.PROMOTING, False)


def test_a_steward_believes_what_it_has_read_itself():
    """A store that was put back, or emptied, is noticed by who decides, whoever else is silent about it."""
    stage = staged("cluster postgres zero_loss a,b,c")
    view, read = stage._view(), replace(stage.record, epoch=6, serial=30)
    assert decide(view, NOW).record.phase is Phase.STEADY
    made = decide(replace(view, read=read), NOW).record
    assert (made.phase, made.epoch > read.epoch, made.serial > read.serial) == (Phase.FENCING, True, True)
    stage = staged("cluster postgres zero_loss d born")
    assert decide(stage._view(), NOW).record.phase is Phase.BOOTSTRAPPING
    assert decide(replace(stage._view(), read=read), NOW).record is None  # a, b or c may have data


def test_what_a_person_orders_was_not_detected():
    """The age of a healthy primary's last report is no part of the time that an ordered failover takes."""
    stage = staged("cluster postgres zero_loss a,b,c\nnode a age=300\nask failover\ndecide")
    assert (stage.record.phase, stage.record.timings.detect_ms) == (Phase.FENCING, 0)


def test_a_candidate_without_a_position_is_not_called_eligible_by_it():
    """The dead old primary whose position cannot be read is told apart from those that are known to have everything."""
    stage = staged("cluster postgres zero_loss a,b,c\ncrash a\nnode a position=-\ndecide\ndecide\nact")
    events = decide(stage._view(), NOW).events + decide(stage._view(), NOW).events
    stage.perform("decide")
    events += decide(stage._view(), NOW).events
    [told] = {fact for event in events for name, fact in event.data if name == "candidate_a"}
    assert "unknown position: eligible with whatever is on its own disk" in str(told)


@pytest.mark.parametrize("engine", ENGINES)
def test_one_machine_for_all_engines(engine):
    """The same failure goes through the same phases whatever the engine; only grounds and rules differ."""
    stage = staged(f"cluster {engine} 1000 a,b,c")
    phases = []
    for _ in range(12):
        stage.perform("crash a\ndecide" if stage.record.epoch == 3 else "act\ndecide")
        phases.append(stage.record.phase)
    order = [Phase.CONFIRMED, Phase.FENCING, Phase.ELECTING, Phase.PROMOTING, Phase.ROUTING, Phase.REJOINING]
    assert [phase for phase in dict.fromkeys(phases) if phase is not Phase.STEADY] == order
    assert stage.record.phase is Phase.STEADY


def test_the_record_survives_the_store():
    """A record with everything in it is the same after the codec."""
    record = replace(
        staged("cluster postgres zero_loss a,b,c preferred=a\ncrash a\ndecide\ndecide\nact\ndecide\ndecide").record,
        blocked=Blocked(Origin.FENCING, "because", "do this"),
        timings=Timings(1, 2, 3, 4, 5),
        sync_mark=Position((Branch("1", 0),), 7),
        tried=(Name("b"),),
    )
    assert decode(ClusterRecord, encode(record)) == record


def test_reports_survive_the_store():
    """So is a report."""
    report = staged("cluster postgres zero_loss a,b,c").reports[Name("a")]
    assert decode(NodeReport, encode(report)) == report


def test_a_failover_tells_its_steps_and_its_loss():
    """The journal's last word on a failover: each step in seconds, the bytes lost, and the epoch."""
    stage = staged("cluster postgres 5000 a,b,c\nwrite 100\nlose a\nwait 1000\nrun\nwait 4000\nrouters stay\nrun")
    stage.perform("wait 700\nrouters follow")
    decision = decide(stage._view(), NOW)
    (done,) = [event for event in decision.events if event.kind is EventKind.FAILOVER_DONE]
    data = dict(done.data)
    steps = {"detect_s": 1.0, "confirm_s": 0.0, "fence_s": 4.0, "promote_s": 0.0, "route_s": 0.7}
    assert data == {"epoch": 4, "lost_bytes": 0, **steps}


@pytest.mark.parametrize("phase", Phase)
def test_writes_have_one_place_or_none(phase):
    """From the first fence to the end of a promotion nobody takes writes; while a person is asked, the old one may."""
    record = replace(staged("cluster postgres zero_loss a,b,c").record, phase=phase)
    closed = {Phase.FENCING, Phase.ELECTING, Phase.PROMOTING, Phase.HANDING_OVER, Phase.BOOTSTRAPPING, Phase.BLOCKED}
    assert route_of(record).write == (None if phase in closed else "a")
    waiting = replace(record, phase=Phase.BLOCKED, blocked=Blocked(Origin.CONFIRMED, "", ""))
    assert route_of(waiting).write == "a"
    assert route_of(record).reads == ("b", "c")


def test_a_decision_is_quick():
    """Nine nodes in the middle of an election are decided in about half a millisecond; ten times that is still fine."""
    stage = staged("cluster postgres zero_loss a,b,c,d,e,f,g,h,i acks=2\ncrash a\ndecide\ndecide\nact\ndecide")
    view, took = stage._view(), []
    for _ in range(101):
        began = time.process_time()
        decide(view, NOW)
        took.append(time.process_time() - began)
    assert sorted(took)[50] < 0.005
