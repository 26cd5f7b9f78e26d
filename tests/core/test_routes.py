"""Slots are kept, spares are used before pools grow, and records override the spec."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from understudy.core.cluster import ClusterService, Node, Timers
from understudy.core.model import (
    Balance,
    Endpoint,
    FailoverMode,
    Group,
    Host,
    Kind,
    PoolFailover,
    PoolService,
    Spec,
)
from understudy.core.pools import Admin, Hold, PoolRecord
from understudy.core.routes import allocate, compile_route, compile_routes, spares
from understudy.core.stateful import EngineNode, PostgresService
from understudy.core.text import Address, DataPath, Name

NAMES = [Name(f"e{number}") for number in range(30)]
pools = st.lists(st.sampled_from(NAMES), unique=True, max_size=20)


def endpoint(name: str, **settings) -> Endpoint:
    return Endpoint(Name(name), Address("10.0.0.1", 80), **settings)


def service(*endpoints: Endpoint, **settings) -> PoolService:
    return PoolService(Name("web"), Kind.HTTP, Address("127.0.0.1", 80), endpoints, **settings)


def slots(record: PoolRecord, group: Group = Group.PRIMARY) -> tuple[Name | None, ...]:
    return dict(record.slots)[group]


@given(history=st.lists(pools.filter(bool), min_size=1, max_size=8))
def test_slots_are_kept_and_pools_grow_only_when_full(history: list[list[Name]]) -> None:
    """Over any history: who stays keeps its slot, everyone has exactly one, no pool grows while a slot was free."""
    record = PoolRecord(Name("web"))
    for names in history:
        before = slots(record) if record.slots else ()
        record = allocate(service(*(endpoint(name) for name in names)), record)
        after = slots(record)
        assert sorted(name for name in after if name) == sorted(names)
        assert all(after[index] == name for index, name in enumerate(before) if name in names)
        fits = len(names) <= len(before)
        assert len(after) == (len(before) if fits else len(names) + spares(len(names)))
        assert allocate(service(*(endpoint(name) for name in names)), record) is record


def test_a_new_endpoint_takes_a_slot_that_was_spare_before_one_just_freed() -> None:
    """The slot of an endpoint that leaves in the same change is the last to be given away."""
    first = allocate(service(endpoint("a"), endpoint("b")), PoolRecord(Name("web")))
    assert slots(first) == ("a", "b", None, None)
    assert slots(allocate(service(endpoint("b"), endpoint("c")), first)) == (None, "b", "c", None)
    assert slots(allocate(service(*map(endpoint, "bcde")), first)) == ("e", "b", "c", "d")


def test_slots_of_first_follow_the_file() -> None:
    """Where the order of the slots is the order of use, an endpoint put first in the file comes first."""
    old = allocate(service(endpoint("a"), balance=Balance.FIRST), PoolRecord(Name("web")))
    new = allocate(service(endpoint("z"), endpoint("a"), balance=Balance.FIRST), old)
    assert slots(new) == ("z", "a", None)


def test_records_override_the_spec() -> None:
    """Weights and states of the record hold; who is ejected is in maintenance whatever an operator wished."""
    web = service(endpoint("a", weight=2), endpoint("b"), endpoint("c", group=Group.BACKUP))
    record = PoolRecord(
        Name("web"),
        admin=((Name("a"), Admin.DRAIN), (Name("b"), Admin.DRAIN)),
        weights=((Name("a"), 9),),
        holds=(Hold(Name("b"), 1.0, 1, "errors"),),
        backup_share_percent=40,
    )
    route = compile_route(web, record)
    a, b, *rest = route.primary.slots
    assert (a.weight, a.admin, b.weight, b.admin) == (9, Admin.DRAIN, 1, Admin.MAINT)
    assert all(slot.endpoint is None and slot.admin is Admin.MAINT for slot in rest)
    assert route.backup is not None
    assert route.backup.slots[0].admin is Admin.READY
    assert route.backup_share_percent == 40


def test_only_fast_failover_of_a_group_that_exists_is_automatic() -> None:
    """HAProxy switches by itself in fast mode alone; without a backup group there is nothing to share."""
    web = service(endpoint("a"), endpoint("c", group=Group.BACKUP))
    for mode in FailoverMode:
        route = compile_route(replace(web, failover=PoolFailover(mode)), PoolRecord(Name("web")))
        assert route.automatic is (mode is FailoverMode.FAST)
    alone = compile_route(service(endpoint("a")), PoolRecord(Name("web"), backup_share_percent=40))
    assert (alone.backup, alone.automatic, alone.backup_share_percent) == (None, False, 0)


def test_what_did_not_change_is_the_same_object() -> None:
    """Comparing two states is cheap because unchanged routes are identical, and changed ones are not."""
    one, two = service(endpoint("a")), replace(service(endpoint("b")), name=Name("two"))
    record = PoolRecord(Name("web"), weights=((Name("a"), 3),))
    before = compile_routes(Spec(Name("c"), (one, two)), {Name("web"): record})
    other = replace(record, weights=((Name("a"), 4),))
    after = compile_routes(Spec(Name("c"), (one, two)), {Name("web"): other})
    assert after.routes[1] is before.routes[1]
    assert after.routes[0].primary.slots[0].weight == 4
    assert compile_routes(Spec(Name("c"), (two,)), {}).routes == (before.routes[1],)


def test_a_clusters_ports_know_each_nodes_address_and_whom_to_ask_for_its_role() -> None:
    """The agent of a node is that of its host; on one machine there is one. Unchanged clusters are the same object."""
    nodes = tuple(
        EngineNode(Node(Name(name), Name(host)), Address("10.0.0.9", port), DataPath(f"/data/{name}"))
        for name, host, port in (("a", "h1", 5432), ("b", "h2", 5433))
    )
    orders = PostgresService(
        ClusterService(Name("orders"), tuple(each.node for each in nodes), timers=Timers(lease_ms=4000)),
        Address("0.0.0.0", 6432),
        None,
        nodes,
    )
    hosts = (Host(Name("h1"), "10.0.0.1"), Host(Name("h2"), "fd00::2"))
    many = Spec(Name("c"), (), (orders,), hosts, agent_port=9000)
    (ports,) = compile_routes(many, {}).clusters
    assert ports.listens == (Address("0.0.0.0", 6432),)
    assert [str(seat.address) for seat in ports.seats] == ["10.0.0.9:5432", "10.0.0.9:5433"]
    assert [str(seat.agent) for seat in ports.seats] == ["10.0.0.1:9000", "[fd00::2]:9000"]
    assert ports.hold_ms > 2 * 4000
    assert compile_routes(many, {}).clusters[0] is ports
    assert compile_routes(many, {}).ports("orders") is ports
    assert compile_routes(many, {}).ports("none") is None
    assert (ports.has(Name("a")), ports.has(Name("z"))) == (True, False)
    (alone,) = compile_routes(replace(many, hosts=()), {}).clusters
    assert {str(seat.agent) for seat in alone.seats} == {"127.0.0.1:9000"}
