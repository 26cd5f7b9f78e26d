"""`understudy why`: the sentences that a person reads at three in the morning."""

from dataclasses import replace

from tests.core.pool_story import HEALTH, Story, pool

from understudy.core.events import Entry, Event, EventKind
from understudy.core.explain import why
from understudy.core.failover_mode import FailoverMode
from understudy.core.pools import Admin, Hold, Oper, PoolRecord
from understudy.core.text import Name
from understudy.core.verbs import failover


def told(story: Story, *entries: Entry) -> tuple[str, ...]:
    return why(story.service, story.record, story.seen, entries, story.now)


def test_a_healthy_service_is_explained_in_three_sentences():
    """How it is, what the ejector may do, and what would happen if it were lost."""
    assert told(Story(pool(3))) == (
        "web is up: all 3 endpoints serve.",
        "Of the primary group's 3 endpoints the ejector holds 0 out, and may hold 1 at once.",
        "If the primary group were lost now, users would be refused, since there is no backup group.",
    )


def test_each_endpoint_that_is_out_says_why_and_what_brings_it_back():
    """Down, held out, ordered out, not checked yet, weight 0: each with its cause and its cure, after the state."""
    story = Story(pool(6)).is_(Oper.DOWN, "w1", check="L4CON: connection refused").is_(Oper.UNKNOWN, "w4")
    story.after(40)
    story.record = PoolRecord(
        Name("web"),
        admin=((Name("w3"), Admin.MAINT),),
        holds=(Hold(Name("w2"), story.now.wall_s + 12, 3, "was marked down 3 times within 30 s"),),
    )
    story.each(("w5",), lambda one: replace(one, weight=0))
    sentences = told(story)
    assert sentences[0].startswith("web is degraded: 2 of 6 endpoints can serve; ")
    w1, w2, w3, w4, w5 = sentences[1:6]
    assert w1 == (
        "w1 is down: L4CON: connection refused; it has been so for 40 s, "
        "and to come back 2 checks in a row, one each 0.3 s, must pass."
    )
    assert w2 == (
        "w2 is held out by the ejector: it was marked down 3 times within 30 s; "
        "the hold, its no. 3, lasts another 12 s, and `understudy ready web w2` ends it now."
    )
    assert w3 == "w3 is in maintenance by an operator's order; `understudy ready web w3` brings it back."
    assert w4 == "w4 has not been checked yet; to serve 2 checks in a row, one each 0.3 s, must pass."
    assert w5 == "w5 is up, but gets no new clients, since its weight is 0."
    assert "Of the primary group's 6 endpoints the ejector holds 1 out, and may hold 2 at once." in sentences


def test_an_ejector_that_is_off_says_so():
    """Whoever errs behind a passing check stays in."""
    assert "The ejector is off" in told(Story(pool(2, health=replace(HEALTH, passive=False))))[1]


def test_a_ramp_says_where_it_is_and_how_long_it_takes():
    """Half-way through a gradual failover."""
    story = Story(pool(3, backup=1, mode=FailoverMode.GRADUAL, over_ms=20_000)).is_(Oper.DOWN, "w1", "w2").after(1)
    assert "30 % of the traffic goes to the backup group, rising evenly to 100 % within 14 s." in told(story.after(6))


def test_an_ordered_failover_says_how_to_undo_it():
    """Operators find the verb that leads back; and that losing the primary group now would cost nothing."""
    story = Story(pool(2, backup=1))
    story.record, _ = failover(story.service, story.record, story.seen, story.now)
    sentences = told(story.after(0))
    assert "It was failed over by an operator, and `understudy failback web` moves it back." in sentences
    assert (
        sentences[0]
        == "web is up: all 3 endpoints serve; all traffic goes to the backup group, by an operator's order."
    )
    assert "The primary group gets no traffic, lost or not: everything goes to the backup group (b1)." in sentences


def test_what_would_happen_without_the_primary_group():
    """Each mode has its own answer, before and after the loss."""
    fast, manual = Story(pool(2, backup=1)), Story(pool(2, backup=1, mode=FailoverMode.MANUAL))
    at_once = "everything would go to the backup group (b1) at once, by the router itself."
    assert f"If the primary group were lost now, {at_once}" in told(fast)
    by_order = "until `understudy failover web` moves them to b1."
    assert f"If the primary group were lost now, users would be refused {by_order}" in told(manual)
    manual.is_(Oper.DOWN, "w1", "w2").after(1)
    assert f"The primary group has no usable endpoint, users are refused {by_order}" in told(manual)
    fast.is_(Oper.DOWN, "b1").after(1)
    either = "users would be refused, since the backup group has no usable endpoint either."
    assert f"If the primary group were lost now, {either}" in told(fast)


def test_who_was_spared_lately_and_what_happened_last():
    """An endpoint that errs and is kept is no riddle; long past and other services' events are left out."""
    story = Story(pool(3))
    web, other = Name("web"), Name("other")
    spared = Event(EventKind.ENDPOINT_SPARED, "w1 of web erred and is not held out.", web, Name("w1"))
    ejected = Event(EventKind.ENDPOINT_EJECTED, "w2 of web erred and is held out.", web, Name("w2"))
    past = Event(EventKind.ENDPOINT_SPARED, "w2 of web was spared.", web, Name("w2"))
    foreign = Event(EventKind.ENDPOINT_SPARED, "x1 of other was spared.", other, Name("x1"))
    wall_s = story.now.wall_s
    events = (Entry(1, wall_s - 90, past), Entry(2, wall_s - 60, spared), Entry(3, wall_s - 30, ejected))
    sentences = told(story, *events, Entry(4, wall_s - 5, foreign))
    assert "60 s ago: w1 of web erred and is not held out." in sentences
    assert sentences[-1] == "The last that happened, 30 s ago: w2 of web erred and is held out."
    assert not [one for one in sentences if "was spared" in one]
    assert not [one for one in told(story, Entry(2, wall_s - 3600, spared)) if one.startswith("3600 s ago: w1")]
