"""The ejector: who is held out, for how long, and when it had better not."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.pool_story import Story, pool

from understudy.core.ejector import budget, hold_length_s
from understudy.core.model import EjectionPolicy, HealthPolicy
from understudy.core.pools import Admin, Hold, Oper, PoolRecord, adopt_spec
from understudy.core.text import Name
from understudy.core.verbs import set_admin


def erring(story: Story, *names: str, seconds: int = 2) -> Story:
    """These endpoints answer everything with errors, behind passing checks; the others answer well."""
    for _ in range(seconds):
        for one in story.seen.endpoints:
            if one.oper is Oper.UP:
                story.counts(one.endpoint, requests=70, errors=70 if one.endpoint in names else 0)
        story.after(1)
    return story


def test_who_errs_behind_a_passing_check_is_held_out_and_comes_back():
    """An endpoint that answers 500 while its check passes is out for 5 s, and the journal says why."""
    story = erring(Story(pool()), "w2")
    assert story.held == ["w2"]
    assert [kind for kind in story.kinds if "eject" in kind] == ["endpoint.ejected w2"]
    assert story.told[0].reason == (
        "w2 of web failed 140 of 140 requests within 1 s while its checks passed and is held out for 5 s."
    )
    assert story.after(4.9).held == ["w2"]
    assert "endpoint.returned w2" in story.after(0.2).kinds
    assert story.held == []


def test_what_the_checks_catch_is_left_to_them():
    """A killed server errs too, but its checks find it; it is not held out, not even when it is back at once."""
    story = Story(pool()).counts("w1", requests=40, errors=40).after(0.1)
    story.is_(Oper.DOWN, "w1", check="L4CON").after(0.5)
    assert story.kinds == ["endpoint.down w1", "service.degraded"]
    story.after(2).is_(Oper.UP, "w1").counts("w1", requests=10).after(1)
    assert (story.kinds, story.held) == (["endpoint.up w1", "service.up"], [])
    assert erring(story, seconds=6).held == []


def test_some_errors_are_no_misbehaviour():
    """Errors in less than half of the answers, or fewer than `errors` of them, hold nobody out."""
    story = Story(pool())
    for _ in range(10):
        story.counts("w1", requests=100, errors=49).counts("w2", requests=1, errors=0).after(1)
        assert story.held == []
    for _ in range(10):
        story.counts("w2", requests=1, errors=1).after(2)
        assert story.held == []


@pytest.mark.parametrize("seen_down", [True, False])
def test_who_flaps_is_held_out(seen_down):
    """Three mark-downs within the window hold an endpoint out, also when each look found it up (only counted)."""
    story = Story(pool())
    for _ in range(3):
        if seen_down:
            story.is_(Oper.DOWN, "w3", check="L7STS").after(0.4).is_(Oper.UP, "w3")
        else:
            story.counts("w3", downs=1)
        story.after(0.6)
    assert story.held == ["w3"]
    assert story.record.holds[0].reason == "was marked down 3 times within 30 s"


def test_three_restarts_in_a_quarter_of_an_hour_are_no_flapping():
    """Mark-downs further apart than the window hold nobody out."""
    story = Story(pool())
    for _ in range(3):
        assert story.counts("w3", downs=1).after(300).held == []


def test_holds_double_and_are_forgotten_after_good_behaviour():
    """5, 10, 20, 40 s; then, after well-behaved stretches, 5 s again."""
    story, lengths = Story(pool()), []
    for _ in range(4):
        while not story.held:
            erring(story, "w1", seconds=1)
        lengths.append(story.record.holds[0].until_wall_s - story.now.wall_s)
        story.after(lengths[-1])
    assert lengths == [5, 10, 20, 40]
    for _ in range(60):
        story.after(10)
    assert story.record.past_holds == ()
    assert erring(story, "w1").record.holds[0].count == 1


def test_the_budget_is_kept_and_the_journal_says_so_once():
    """With two of four misbehaving and a budget of one, the worse one is out; the other is spared, told once."""
    story = Story(pool(4))
    for _ in range(2):
        story.counts("w1", requests=100, errors=60).counts("w2", requests=100, errors=100)
        story.counts("w3", requests=100).counts("w4", requests=100).after(1)
    assert story.held == ["w2"]
    spared = [event for event in story.told if event.kind == "endpoint.spared"]
    assert len(spared) == 1
    assert spared[0].reason == (
        "w1 of web failed 120 of 200 requests within 1 s while its checks passed "
        "and is not held out: the budget of 34 % of its group is used up."
    )
    story.counts("w1", requests=100, errors=60).after(1)
    assert story.kinds == []


def test_it_fails_open_when_all_look_bad():
    """When a thing behind all of them breaks, who was held is let back in and nobody else is held, told once each."""
    story = erring(Story(pool()), "w1")
    assert story.held == ["w1"]
    erring(story, "w2", "w3", seconds=1)
    erring(story, "w2", "w3", seconds=1)
    assert story.held == []
    assert sorted(kind for kind in story.kinds if "endpoint" in kind) == [
        "endpoint.spared w1",
        "endpoint.spared w2",
        "endpoint.spared w3",
    ]
    assert "3 of 3 endpoints of its group look bad" in story.told[-1].reason + story.told[0].reason
    for _ in range(20):
        erring(story, "w2", "w3", "w1", seconds=1)
        assert story.held == []
    assert [kind for kind in story.kinds if "spared" in kind] == []


def test_the_ejector_works_again_when_most_are_well():
    """After failing open, fewer than half looking bad is what it takes to hold out again."""
    story = erring(Story(pool()), "w1", "w2", "w3")
    assert story.held == []
    erring(story, seconds=12)
    assert erring(story, "w1").held == ["w1"]


def test_a_hold_ends_when_the_others_go_down():
    """An endpoint that errs is better than none: its hold ends with the last one that served."""
    story = erring(Story(pool()), "w1")
    story.is_(Oper.DOWN, "w2", "w3", check="L4CON").after(1)
    assert story.held == []
    assert "endpoint.spared w1" in story.kinds


def test_but_not_when_the_backup_group_stands_in():
    """While the router sends everything to a healthy backup group, who errs stays out."""
    story = erring(Story(pool(3, backup=1)), "w1")
    story.is_(Oper.DOWN, "w2", "w3", check="L4CON").after(1)
    assert story.held == ["w1"]


def test_the_only_one_is_never_held_out():
    """A group of one keeps it, however it behaves; and an operator's maintenance of the others makes a group of one."""
    record = PoolRecord(Name("web"), admin=((Name("w2"), Admin.MAINT), (Name("w3"), Admin.MAINT)))
    for story in (Story(pool(1)), Story(pool(3), record)):
        told = []
        for _ in range(6):
            told += [kind for kind in erring(story, "w1", seconds=1).kinds if kind.startswith("endpoint")]
            assert story.held == []
        assert told == ["endpoint.spared w1"]


def test_a_hold_ends_when_an_operator_takes_the_others_out():
    """Maintenance of all who serve leaves nobody but the one that is held; so it is let back in."""
    story = erring(Story(pool()), "w1")
    for name in ("w2", "w3"):
        story.record, _ = set_admin(story.service, story.record, story.seen, name, Admin.MAINT)
    assert story.after(0.1).held == []


def test_a_clock_step_makes_no_hold_longer():
    """However the wall clock steps, a hold lasts at most its own length from now, also over an agent's restart."""
    story = erring(Story(pool()), "w1").agent_restarts()
    story.after(1, wall_s=-86_400)
    assert story.held == ["w1"]
    assert story.record.holds[0].until_wall_s - story.now.wall_s <= 5
    assert story.after(5).held == []


def test_without_passive_observation_there_is_no_ejector():
    """`passive: false` turns it off, and applying such a spec ends its holds."""
    service = pool(health=HealthPolicy(passive=False))
    assert erring(Story(service), "w1", seconds=5).held == []
    held = erring(Story(pool()), "w1").record
    assert held.holds
    assert adopt_spec(held, service).holds == ()


def test_a_smaller_group_has_a_smaller_budget():
    """When an applied spec shrinks the group, holds beyond the new budget end."""
    holds = tuple(Hold(Name(f"w{n}"), 1_800_000_100.0, 9, "erred") for n in (1, 2, 3))
    story = Story(pool(10), PoolRecord(Name("web"), holds=holds))
    assert len(story.held) == 3
    story.service, story.seen = pool(5), replace(story.seen, endpoints=story.seen.endpoints[:5])
    assert len(story.after(1).held) == 1
    story.service, story.seen = pool(1), replace(story.seen, endpoints=story.seen.endpoints[:1])
    assert story.after(1).held == []


behaviours = st.sampled_from(["well", "errs", "flaps", "down", "up"])
days = st.lists(
    st.tuples(st.lists(behaviours, min_size=7, max_size=7), st.sampled_from([0.1, 1.0, 3.0, 20.0])),
    min_size=1,
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 5), st.integers(0, 2), st.sampled_from([0, 10, 34, 50, 100]), days)
def test_whatever_happens_the_bounds_hold(primary, backup, percent, days):
    """Budget, last usable endpoint, bounded holds, the same decision each time, no second word on the same look."""
    policy = EjectionPolicy(budget_percent=percent)
    story = Story(pool(primary, backup, ejection=policy))
    for behaviour, seconds in days:
        act(story, behaviour)
        usable = {one.endpoint for one in story.seen.endpoints if one.oper is Oper.UP}
        held_before = set(story.held)
        before = (story.seen, story.previous, story.memory, story.record)
        story.after(seconds)
        seen, record, told = story.previous, story.record, story.told

        for size, prefix in ((primary, "w"), (backup, "b")):
            held = [name for name in story.held if name.startswith(prefix)]
            assert len(held) <= budget(policy, size)
            if set(held) - held_before:
                assert usable - set(held) & {one for one in usable if one.startswith(prefix)}
        for hold in record.holds:
            assert 0 < hold.until_wall_s - story.now.wall_s <= hold_length_s(policy, hold.count) + 1e-6
        assert {hold.endpoint for hold in record.holds}.isdisjoint(hold.endpoint for hold in record.past_holds)

        obeyed, story.seen = story.seen, seen
        again = story.decide()
        assert (again.record, again.events) == (record, ())
        assert again.record is record
        after = (story.previous, story.memory, story.record)
        story.previous, story.memory, story.record = before[1:]
        assert list(story.decide().events) == told
        story.previous, story.memory, story.record = after
        story.seen = obeyed


def act(story: Story, behaviour: list[str]) -> None:
    """Each endpoint that is in traffic or down behaves as it is told."""
    for one, how in zip(story.seen.endpoints, behaviour, strict=False):
        if one.oper is Oper.MAINT:
            continue
        if how == "down":
            story.is_(Oper.DOWN, one.endpoint)
        elif how == "up":
            story.is_(Oper.UP, one.endpoint)
        elif how == "flaps":
            story.counts(one.endpoint, downs=1)
        elif one.oper is Oper.UP:
            story.counts(one.endpoint, requests=50, errors=50 if how == "errs" else 0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([0.3, 1.0, 2.5]), min_size=30, max_size=60))
def test_one_that_always_errs_makes_no_storm(pauses):
    """However the looks fall, no hold is shorter than the one before, and there are a handful of events for each."""
    story, lengths, told = Story(pool()), [], 0
    for seconds in pauses:
        for name in ("w1", "w2", "w3"):
            if any(one.endpoint == name and one.oper is Oper.UP for one in story.seen.endpoints):
                story.counts(name, requests=20, errors=20 if name == "w1" else 0)
        story.after(seconds)
        told += len(story.told)
        if "endpoint.ejected w1" in story.kinds:
            lengths.append(story.record.holds[0].until_wall_s - story.now.wall_s)
    assert lengths == sorted(lengths)
    assert lengths
    assert told <= 1 + 5 * len(lengths)
