"""What the journal is told of endpoints and services, and what an operator's orders do to a record."""

import time
from dataclasses import replace

import pytest
from tests.core.pool_story import Story, look, pool

from understudy.core.clock import Now
from understudy.core.errors import Refused
from understudy.core.failover_mode import FailoverMode
from understudy.core.objectives import ServiceHealth
from understudy.core.pool_health import endpoint_reason, service_health, service_reason
from understudy.core.pools import Admin, Hold, Oper, PoolMemory, PoolRecord, PoolSeen, PoolView, adopt_spec, decide
from understudy.core.text import Name
from understudy.core.verbs import set_admin, set_weight

W1, W2, W3 = Name("w1"), Name("w2"), Name("w3")


def test_a_killed_server_reads_as_a_story():
    """Down with its cause, degraded with who is missing, up again with how long it took."""
    story = Story(pool())
    assert [event.reason for event in story.told] == ["web is up: all 3 endpoints serve."]
    story.is_(Oper.DOWN, "w2", check="L4CON: connection refused").after(1)
    assert [event.reason for event in story.told] == [
        "w2 of web is down: L4CON: connection refused.",
        "web is degraded: 2 of 3 endpoints can serve; w2 is down: L4CON: connection refused.",
    ]
    assert story.after(10).told == []
    story.is_(Oper.STARTING, "w2", check="L7OK in 1 ms").after(1)
    assert [event.reason for event in story.told] == [
        "w2 of web is up again after 11 s (down): L7OK in 1 ms; its share rises over 10 s.",
        "web is up: all 3 endpoints serve.",
    ]
    story.is_(Oper.DOWN, "w1", "w2", "w3", check="L4TOUT").after(1)
    assert story.kinds == ["endpoint.down w1", "endpoint.down w2", "endpoint.down w3", "service.down"]


def test_nothing_is_told_while_nothing_is_known():
    """Before the first checks a service is unknown: no event; then it is what it is."""
    story = Story(pool(), seen=look(pool(), Oper.UNKNOWN))
    assert story.told == []
    assert story.is_(Oper.UP, "w1", "w2", "w3").after(0.3).kinds[-1] == "service.up"


def test_a_flap_between_two_looks_is_told():
    """The router counted a mark-down that no look saw: it is in the journal, down and up."""
    story = Story(pool()).counts("w1", downs=2).after(1)
    assert story.kinds == ["endpoint.down w1", "endpoint.up w1"]
    assert "marked down 2 times" in story.told[0].reason


def test_a_lost_agent_check_is_told_once_each_way():
    """The weight that a silent agent told last stays in force: people have to know."""
    story = Story(pool())
    lost = story.seen
    first, *others = lost.endpoints
    story.seen = PoolSeen((replace(first, agent_lost=True), *others))
    story.after(1)
    assert story.kinds == ["endpoint.agent_lost w1"]
    assert "the last weight it told, 1, stays in force" in story.told[0].reason
    assert story.after(1).kinds == []
    story.seen = lost
    assert story.after(1).kinds == ["endpoint.agent_back w1"]


def test_health_is_what_users_get():
    """DOWN only when nobody the traffic goes to is usable; UP only when all serve where they should."""
    service = pool(2, backup=1)
    record, story = PoolRecord(service.name), Story(service)

    def health(record=record, service=service):
        return service_health(story.seen, service, record)

    assert health() is ServiceHealth.UP
    assert health(PoolRecord(service.name, backup_share_percent=100, failed_over=True)) is ServiceHealth.UP
    assert health(PoolRecord(service.name, backup_share_percent=40)) is ServiceHealth.DEGRADED
    story.is_(Oper.DOWN, "b1")
    assert health() is ServiceHealth.DEGRADED
    story.is_(Oper.UP, "b1").is_(Oper.DOWN, "w1", "w2")
    assert health() is ServiceHealth.DEGRADED
    assert health(service=pool(2, backup=1, mode=FailoverMode.MANUAL)) is ServiceHealth.DOWN
    story.is_(Oper.DRAIN, "b1")
    assert health() is ServiceHealth.DOWN
    story.is_(Oper.UNKNOWN, "w1")
    assert health() is ServiceHealth.UNKNOWN


def test_reasons_name_everyone_who_is_missing_but_not_all_of_a_crowd():
    """A sentence stays readable with many endpoints down; each endpoint has its own."""
    service = pool(9)
    seen, record = look(service, Oper.DOWN), PoolRecord(service.name, admin=((W3, Admin.DRAIN),))
    reason = service_reason(seen, service, record)
    assert reason.startswith("web is down: 0 of 9 endpoints can serve; w1 is down: ")
    assert reason.endswith("w3 is in drain by an operator's order and 6 more.")
    held = PoolRecord(service.name, holds=(Hold(W1, 0.0, 1, "was marked down 3 times within 30 s"),))
    assert endpoint_reason(seen, service, held, "w1") == (
        "w1 is held out by the ejector: it was marked down 3 times within 30 s."
    )
    assert endpoint_reason(look(service), service, record, "w2") == "w2 serves: L7OK in 1 ms."


def test_ready_drain_and_maint():
    """Each order is in the record, ends a hold, names its price, and changes nothing when given twice."""
    service = pool(2)
    record = PoolRecord(service.name, holds=(Hold(W1, 9e9, 3, "erred"),), past_holds=(Hold(W2, 1.0, 2, "erred"),))
    ready, event = set_admin(service, record, look(service), "w1", Admin.READY)
    assert (ready.holds, event.reason) == (
        (), "w1 of web is ready: it serves once its checks pass; its hold is over.",
    )  # fmt: skip
    drained, event = set_admin(service, ready, look(service), "w1", Admin.DRAIN)
    assert (drained.admin, event.kind) == (((W1, Admin.DRAIN),), "endpoint.admin")
    assert "last usable" not in event.reason
    again, event = set_admin(service, drained, look(service), "w1", Admin.DRAIN)
    assert again is drained
    assert "already" in event.reason
    empty, event = set_admin(service, drained, look(service), "w2", Admin.MAINT)
    assert "web refuses its users until an endpoint is ready" in event.reason
    assert empty.past_holds == ()
    back, _ = set_admin(service, empty, look(service), "w2", Admin.READY)
    assert back.admin == ((W1, Admin.DRAIN),)
    with pytest.raises(Refused, match="no endpoint 'w9': it has w1 and w2"):
        set_admin(service, record, look(service), "w9", Admin.MAINT)


def test_a_weight_lasts_until_the_spec_changes_it():
    """Set at run time it survives an apply that does not touch it, and not one that does."""
    service = pool(2)
    record, event = set_weight(service, PoolRecord(service.name), "w1", 5)
    assert event.reason == "w1 of web has weight 5 now (it was 1), in place of the spec's 1, until that changes."
    assert set_weight(service, record, "w1", 5)[0] is record
    assert adopt_spec(record, service) is record
    assert set_weight(service, record, "w1", 1)[0] == PoolRecord(service.name)
    changed = replace(service, endpoints=tuple(replace(one, weight=2) for one in service.endpoints))
    assert adopt_spec(record, changed) == PoolRecord(service.name)
    for weight in (-1, 257):
        with pytest.raises(Refused, match="to 256"):
            set_weight(service, record, "w1", weight)


def test_what_names_endpoints_that_are_gone_is_dropped():
    """A spec without w3 leaves no order, weight or hold of it, so that a later w3 begins anew."""
    hold = Hold(W3, 9e9, 3, "erred")
    record = PoolRecord(
        Name("web"),
        admin=((W1, Admin.MAINT), (W3, Admin.DRAIN)),
        weights=((W3, 5),),
        weights_replaced=((W3, 1),),
        holds=(hold,),
        past_holds=(hold,),
    )
    assert adopt_spec(record, pool(2)) == PoolRecord(Name("web"), admin=((W1, Admin.MAINT),))


def test_unchanged_looks_cost_next_to_nothing():
    """A tick over a thousand pools of ten whose counters moved on is a few milliseconds (bound: a hundred)."""
    views, now = [], Now(5.0, 5.0)
    for _ in range(1000):
        story = Story(pool(10)).after(1)
        for one in story.seen.endpoints:
            story.counts(one.endpoint, requests=100)
        views.append(PoolView(story.service, story.record, story.seen, story.previous, story.memory))
    best_s = 9e9
    for _ in range(3):
        begin_s = time.process_time()
        decisions = [decide(view, now) for view in views]
        best_s = min(best_s, time.process_time() - begin_s)
    assert all(
        d.record is v.record and not d.events and d.memory is v.memory for d, v in zip(decisions, views, strict=True)
    )
    assert best_s < 0.1


def test_the_first_look_with_empty_memory_tells_only_of_the_service():
    """After a restart of the agent the service's one sentence names the endpoints that were down before."""
    story = Story(pool()).is_(Oper.DOWN, "w2").after(1).agent_restarts().after(1)
    assert story.kinds == ["service.degraded"]
    assert "w2 is down" in story.told[0].reason
    assert story.memory != PoolMemory()
