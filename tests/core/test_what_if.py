"""`what-if` foretells what the machine then does, and says why when nobody would take over."""

from dataclasses import replace

from tests.scenarios.stage import WALL_S, Stage

from understudy.core.clock import Now
from understudy.core.cluster_why import NodeHealth, node_health, node_reason
from understudy.core.record import Ground, Timings
from understudy.core.report import NodeSeen
from understudy.core.text import Name
from understudy.core.what_if import Forecast, Mishap, what_if

NOW = Now(0.0, WALL_S)


def staged(script: str) -> Stage:
    """A stage after this script."""
    stage = Stage()
    stage.perform(script)
    return stage


def foretold(stage: Stage, node: str, mishap: Mishap) -> Forecast:
    """The forecast of this stage."""
    return what_if(stage._view(), Name(node), mishap, NOW)


def test_a_dead_engine_is_followed_by_who_then_really_takes_over():
    """The winner of the forecast is the winner of the failover, at once and with nothing lost."""
    stage = staged("cluster postgres zero_loss a,b,c")
    forecast = foretold(stage, "a", Mishap.ENGINE)
    stage.perform("crash a\nrun")
    assert forecast.winner == stage.record.primary == "b"
    assert forecast.rto_ms is not None
    assert forecast.rto_ms < 1000
    assert forecast.loss is not None
    assert forecast.loss.bytes == 0


def test_a_lost_host_takes_as_long_as_its_ground_needs():
    """By revocation it is a matter of detection; without it the lease must run out first."""
    strict = foretold(staged("cluster postgres zero_loss a,b,c"), "a", Mishap.HOST)
    bounded = foretold(staged("cluster postgres 10000 a,b,c"), "a", Mishap.HOST)
    assert strict.rto_ms is not None
    assert strict.rto_ms < 3000
    assert bounded.rto_ms is not None
    assert 4000 < bounded.rto_ms < 6000
    assert "by revocation" in strict.reason
    assert "by lease" in bounded.reason


def test_the_time_that_the_first_node_took_to_be_made_is_not_foretold():
    """What initdb took is no measure of a promotion."""
    stage = staged("cluster postgres zero_loss a,b,c")
    stage.record = replace(stage.record, ground=Ground.FIRST, timings=Timings(promote_ms=9000))
    forecast = foretold(stage, "a", Mishap.ENGINE)
    assert forecast.rto_ms is not None
    assert forecast.rto_ms < 1000


def test_it_says_what_keeps_others_from_taking_over():
    """Alone, paused or manual: nobody takes over, and the sentence says why or what to do."""
    alone = foretold(staged("cluster postgres zero_loss a,b,c\nlose b\nlose c\nwait 30000\nrun"), "a", Mishap.HOST)
    manual = foretold(staged("cluster postgres zero_loss a,b,c manual"), "a", Mishap.ENGINE)
    paused = foretold(staged("cluster postgres zero_loss a,b,c\nask pause\nrun"), "a", Mishap.ENGINE)
    leaderless = foretold(staged("cluster postgres 1000 a,b,c\nlose a\nwait 3000\nrun"), "a", Mishap.ENGINE)
    assert "before `understudy resume orders`" in paused.reason
    assert leaderless.reason == "Nobody takes writes now, so nothing can be foretold."
    assert alone.rto_ms is None
    assert "Nobody would take over from a" in alone.reason
    assert manual.rto_ms is None
    assert "understudy failover orders" in manual.reason


def test_a_lost_standby_costs_nothing_or_makes_writes_wait():
    """With one of two voters left writes go on; with none they would wait."""
    three = staged("cluster postgres zero_loss a,b,c")
    two = staged("cluster postgres zero_loss a,b")
    assert "acknowledged by c alone" in foretold(three, "b", Mishap.HOST).reason
    assert "no commit waits for b" in foretold(staged("cluster postgres 1000 a,b,c"), "b", Mishap.HOST).reason
    assert foretold(two, "b", Mishap.HOST).reason.startswith("Writes would wait")
    assert foretold(two, "b", Mishap.HOST).rto_ms is None


def test_a_node_that_was_never_heard_is_nobody_to_take_over():
    """It is in the spec, and no report of it has ever come."""
    view = staged("cluster postgres zero_loss a,b,c")._view()
    unheard = tuple((name, NodeSeen(None, 90_000) if name == "b" else seen) for name, seen in view.nodes)
    forecast = what_if(replace(view, nodes=unheard), Name("a"), Mishap.ENGINE, NOW)
    assert forecast.winner == "c"


def test_nothing_is_changed_by_asking():
    """The stage's record is the same before and after."""
    stage = staged("cluster postgres zero_loss a,b,c")
    before = stage.record
    foretold(stage, "a", Mishap.ENGINE)
    assert stage.record is before


def test_who_hangs_is_not_counted_on():
    """A standby whose processes are stopped acknowledges nothing, and is said to hang."""
    stage = staged("cluster postgres zero_loss a,b,c\nnode b hangs position=-")
    assert "Writes would wait" in foretold(stage, "c", Mishap.ENGINE).reason
    assert node_reason(stage._view(), Name("b")) == "b hangs: its processes are there, and do not answer."
    assert node_health(stage._view(), Name("b")) is NodeHealth.SUSPECT
