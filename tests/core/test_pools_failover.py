"""Failover between the groups of a pool: told in fast mode, ramped in gradual mode, ordered in manual mode."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.pool_story import Story, pool

from understudy.core.clock import Now
from understudy.core.errors import Refused
from understudy.core.failover_mode import FailoverMode
from understudy.core.objectives import ServiceHealth
from understudy.core.pool_failover import advance, share_at
from understudy.core.pool_health import backup_share, service_health, service_reason
from understudy.core.pools import Admin, Oper, PoolRecord, PoolSeen, Ramp, adopt_spec
from understudy.core.text import Name
from understudy.core.verbs import failback, failover, set_admin

FAST, GRADUAL, MANUAL = FailoverMode.FAST, FailoverMode.GRADUAL, FailoverMode.MANUAL


def moves(story: Story) -> list[str]:
    """What was told of traffic between the groups."""
    return [kind for kind in story.kinds if kind.startswith("fail")]


def order(story: Story, verb) -> str:
    """Give an order; the answer is the kind of its event."""
    story.record, event = verb(story.service, story.record, story.seen, story.now)
    return event.kind


def health(story: Story) -> ServiceHealth:
    return service_health(story.seen, story.service, story.record)


def reason(story: Story) -> str:
    return service_reason(story.seen, story.service, story.record)


def test_fast_is_the_routers_work_and_is_told():
    """The record stays as it is; the journal says when the router moved the traffic, why, and when back."""
    story = Story(pool(2, backup=1))
    story.is_(Oper.DOWN, "w1").after(1)
    assert moves(story) == []
    story.is_(Oper.DOWN, "w2").after(1)
    assert moves(story) == ["failover.started", "failover.done"]
    assert next(e for e in story.told if e.kind == "failover.started").reason == (
        "Traffic of web moves to the backup group at once, by the router: "
        "the primary group has 0 of 2 endpoints usable, without w1 and w2."
    )
    assert (health(story), backup_share(story.seen, story.service, story.record)) == (ServiceHealth.DEGRADED, 100)
    story.is_(Oper.STARTING, "w2").after(1)
    assert moves(story) == ["failback.started", "failback.done"]
    assert story.record == PoolRecord(Name("web"))


def test_starting_up_is_no_failover():
    """A backup endpoint that is up before the primary ones have started moves nothing and tells nothing of the kind."""
    for mode in FailoverMode:
        service = pool(2, backup=1, mode=mode)
        unseen = PoolSeen(())
        story = Story(service, seen=unseen)
        story.seen = Story(service).seen
        story.is_(Oper.UNKNOWN, "w1", "w2").after(0.3).is_(Oper.DOWN, "w1", "w2").after(0.3)
        assert moves(story) == []
        story.is_(Oper.UP, "w1").after(0.3)
        assert moves(story) == []
        story.is_(Oper.UP, "w2").after(0.3)
        assert (moves(story), story.record) == ([], PoolRecord(Name("web")))


def test_gradual_ramps_evenly_and_back():
    """Below half of the primary weight the backup's share rises evenly; it falls evenly when half is up for good."""
    story = Story(pool(3, backup=2, mode=GRADUAL, over_ms=10_000))
    story.is_(Oper.DOWN, "w1").after(1)
    assert (moves(story), story.record.ramp) == ([], None)
    story.is_(Oper.DOWN, "w2").after(1)
    assert moves(story) == ["failover.started"]
    shares = [story.after(1).record.backup_share_percent for _ in range(10)]
    assert shares == [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    assert (moves(story), story.record.ramp) == (["failover.done"], None)

    story.is_(Oper.STARTING, "w1", "w2").after(1)
    assert moves(story) == []
    story.is_(Oper.UP, "w1").after(1)
    assert moves(story) == ["failback.started"]
    story.after(5)
    assert story.record.backup_share_percent == 50
    story.after(5)
    assert (moves(story), story.record) == (["failback.done"], PoolRecord(Name("web")))


def test_gradual_turns_round_at_the_same_pace():
    """A ramp that turns at 40 % takes 4 of its 10 seconds back, without a jump."""
    story = Story(pool(3, backup=1, mode=GRADUAL, over_ms=10_000)).is_(Oper.DOWN, "w1", "w2").after(1)
    story.after(2).after(2).is_(Oper.UP, "w1", "w2").after(0)
    assert (story.record.backup_share_percent, moves(story)) == (40, ["failback.started"])
    assert story.after(2).record.backup_share_percent == 20
    assert moves(story.after(2)) == ["failback.done"]
    story.is_(Oper.DOWN, "w1", "w2").after(1).is_(Oper.UP, "w1", "w2").after(0)
    assert moves(story) == ["failback.started", "failback.done"]
    assert moves(story.after(1)) == []


def test_gradual_moves_at_once_when_nobody_is_left():
    """Refusing users is worse than a cold backup; and the way back from it is gradual again."""
    story = Story(pool(2, backup=1, mode=GRADUAL, over_ms=10_000))
    story.is_(Oper.DOWN, "w1", "w2").after(1)
    assert (moves(story), story.record.backup_share_percent) == (["failover.started", "failover.done"], 100)
    story.is_(Oper.UP, "w1", "w2").after(1).after(3)
    assert story.record.backup_share_percent == 70
    story.is_(Oper.DOWN, "b1").after(1)
    assert (moves(story), story.record.backup_share_percent) == (["failback.done"], 0)


def test_a_ramp_goes_on_after_the_agents_restart_without_a_jump():
    """Nobody looked for half of the ramp: the share goes on from where it was, and arrives."""
    story = Story(pool(3, backup=1, mode=GRADUAL, over_ms=10_000)).is_(Oper.DOWN, "w1", "w2").after(1).after(2)
    assert story.record.backup_share_percent == 20
    story.agent_restarts().after(5)
    assert story.record.backup_share_percent == 20
    assert [story.after(2).record.backup_share_percent for _ in range(4)] == [40, 60, 80, 100]
    assert moves(story) == ["failover.done"]


def test_a_flapping_endpoint_does_not_move_the_traffic_to_and_fro():
    """Each time it comes back with slow start, so that the share keeps its direction."""
    story = Story(pool(3, backup=1, mode=GRADUAL, over_ms=20_000)).is_(Oper.DOWN, "w1", "w2").after(1)
    told = []
    for _ in range(10):
        told += moves(story.is_(Oper.STARTING, "w2").after(1)) + moves(story.is_(Oper.DOWN, "w2").after(1))
    assert told == ["failover.done"]


def test_manual_moves_by_order_only():
    """Users are refused until somebody says `failover`; nothing moves back until somebody says `failback`."""
    story = Story(pool(2, backup=1, mode=MANUAL)).is_(Oper.DOWN, "w1", "w2").after(1)
    assert (moves(story), health(story)) == ([], ServiceHealth.DOWN)
    assert "understudy failover web" in story.told[-1].reason
    assert order(story, failover) == "failover.started"
    assert story.record.backup_share_percent == 100
    story.after(0)
    assert (moves(story), health(story)) == (["failover.done"], ServiceHealth.DEGRADED)
    story.is_(Oper.UP, "w1", "w2").after(1)
    assert (moves(story), story.record.backup_share_percent) == ([], 100)
    story.is_(Oper.DOWN, "b1").after(1)
    assert (moves(story), story.record.backup_share_percent) == ([], 100)
    assert (health(story), backup_share(story.seen, story.service, story.record)) == (ServiceHealth.DEGRADED, 0)
    assert "the primary group serves" in story.told[-1].reason
    story.is_(Oper.UP, "b1").after(1)
    assert backup_share(story.seen, story.service, story.record) == 100
    assert order(story, failback) == "failback.started"
    assert (moves(story.after(0)), story.record) == (["failback.done"], PoolRecord(Name("web")))


@pytest.mark.parametrize("mode", [FAST, GRADUAL])
def test_an_order_stays_until_the_backup_group_is_lost(mode):
    """An ordered failover is not undone by a healthy primary group, only by the loss of the backup group."""
    story = Story(pool(2, backup=1, mode=mode, over_ms=4_000))
    order(story, failover)
    for _ in range(8):
        story.after(1)
    assert (story.record.backup_share_percent, story.record.ramp) == (100, None)
    assert health(story) is ServiceHealth.UP
    story.is_(Oper.DOWN, "b1").after(1)
    assert (moves(story), story.record.failed_over) == (["failback.started", "failback.done"], False)
    assert story.record.backup_share_percent == 0


def test_orders_that_would_refuse_users_are_refused():
    """Each refusal says what to do first; an order given twice changes nothing."""
    with pytest.raises(Refused, match="group: backup"):
        order(Story(pool(2)), failover)
    story = Story(pool(2, backup=1))
    with pytest.raises(Refused, match="bring up b1"):
        order(story.is_(Oper.DOWN, "b1"), failover)
    story.is_(Oper.UP, "b1")
    order(story, failover)
    record = story.record
    order(story, failover)
    assert story.record is record
    with pytest.raises(Refused, match="bring up w1 and w2"):
        order(story.is_(Oper.DOWN, "w1", "w2"), failback)
    order(story.is_(Oper.UP, "w1", "w2"), failback)
    record = story.after(0).record
    order(story, failback)
    assert story.record is record
    weak = Story(pool(3, backup=1, mode=GRADUAL)).is_(Oper.DOWN, "w1", "w2").after(1).after(5)
    with pytest.raises(Refused, match="Less than half"):
        order(weak, failback)


def test_an_order_says_what_comes_of_it():
    """What moves already, or is there already, is not moved again; the last one of its group costs the whole group."""
    ramping = Story(pool(2, backup=1, mode=GRADUAL, over_ms=10_000)).is_(Oper.DOWN, "w1", "w2").after(1)
    assert "the backup group, since the primary group cannot serve" in reason(ramping)
    stays = failover(ramping.service, ramping.record, ramping.seen, ramping.now)[1]
    assert "moves to the backup group and stays there until `understudy failback`" in stays.reason
    assert "the backup group, until it moves back to the primary group" in reason(ramping.is_(Oper.UP, "w1", "w2"))
    assert moves(ramping.after(30)) == ["failback.started"]
    assert (
        "is moving back to its primary group already"
        in failback(ramping.service, ramping.record, ramping.seen, ramping.now)[1].reason
    )
    last = Story(pool(1, backup=1))
    assert "w1 is out (drain) and about to come back" in reason(Story(pool(1, backup=1)).is_(Oper.DRAIN, "w1"))
    cost = set_admin(last.service, last.record, last.seen, "w1", Admin.DRAIN)[1]
    assert cost.reason.endswith(
        "It was the last usable one of the primary group: all traffic goes to the backup group."
    )


def test_a_spec_that_becomes_manual_leaves_the_traffic_where_it_is():
    """Traffic that had moved by itself waits for `failback`; without a backup group nothing of it is left."""
    story = Story(pool(2, backup=1, mode=GRADUAL)).is_(Oper.DOWN, "w1", "w2").after(1)
    story.service = pool(2, backup=1, mode=MANUAL)
    story.record = adopt_spec(story.record, story.service)
    story.is_(Oper.UP, "w1", "w2").after(1)
    assert (story.record.backup_share_percent, story.record.failed_over) == (100, True)
    story.service = pool(2)
    story.record = adopt_spec(story.record, story.service)
    assert story.after(1).record == PoolRecord(Name("web"))


def test_in_manual_mode_traffic_is_not_away_without_an_order():
    """What was never ordered is taken back, and the journal says that nobody had."""
    story = Story(pool(2, backup=1, mode=MANUAL), PoolRecord(Name("web"), backup_share_percent=100))
    assert story.record.backup_share_percent == 0
    assert any("no operator has ordered it" in event.reason for event in story.told)


percents = st.integers(0, 100)


@given(percents, percents, st.integers(0, 600_000), st.lists(st.tuples(st.floats(0, 30), st.floats(-50, 50))))
def test_a_ramp_is_even_and_never_turns(start, end, over_ms, looks):
    """Whatever the looks and the clock steps, a share only moves towards its goal, and no faster than it may."""
    ramp: Ramp | None = Ramp(start, end, 1000.0, over_ms)
    assert share_at(Ramp(start, end, 1000.0, 0), 0.0) == end
    share, now, looked_s = start, Now(0, 1000.0), None
    for passed_s, step_s in looks:
        if ramp is None:
            break
        now = Now(now.boot_s + passed_s, now.wall_s + passed_s + step_s)
        before = share
        share, ramp = advance(ramp, share, now, looked_s)
        fastest = math.ceil(abs(end - start) * (passed_s + 1) * 1000 / over_ms) if over_ms else 100
        assert abs(share - before) <= (fastest + 1 if looked_s is not None or not over_ms else 0)
        assert min(before, end) <= share <= max(before, end)
        assert ramp is not None or share == end
        looked_s = now.boot_s


@given(percents, percents, st.integers(1, 600_000))
def test_a_ramp_arrives_in_its_time(start, end, over_ms):
    """Looked at every second it is over after `over_ms`, a second more at most; half-way it is half-way."""
    ramp = Ramp(start, end, 0.0, over_ms)
    assert abs(share_at(ramp, over_ms / 2000) - (start + end) / 2) <= 0.5
    share, left, second = start, ramp, 0
    while left is not None:
        second += 1
        share, left = advance(left, share, Now(second, second), second - 1)
        assert (second - 1) * 1000 < over_ms
    assert share == end
