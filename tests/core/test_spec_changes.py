"""What `plan` tells of two specs: everything that changes, and nothing else; and what cannot change."""

from dataclasses import replace

from understudy.core.cluster import ClusterService, Durability, Node, Timers
from understudy.core.fixed_changes import fixed_changes
from understudy.core.model import Balance, Endpoint, HealthPolicy, Host, HttpCheck, Kind, PoolService, Spec, TcpCheck
from understudy.core.spec_changes import spec_changes
from understudy.core.stateful import EngineNode, PostgresService, Superuser
from understudy.core.text import Address, DataPath, HttpPath, Name, RoleName

W1, W2 = (Endpoint(Name(f"w{number}"), Address("10.0.0.1", 9000 + number)) for number in (1, 2))
WEB = PoolService(Name("web"), Kind.HTTP, Address("127.0.0.1", 80), (W1, W2), health=HealthPolicy(check=HttpCheck()))
SPEC = Spec(Name("shop"), (WEB,))


def node(name, number, **fields):
    return EngineNode(
        Node(Name(name), Name("local"), **fields), Address("127.0.0.1", 7440 + number), DataPath(f"orders/{name}")
    )


def orders(*nodes, cluster=None, **fields):
    nodes = nodes or (node("a", 1), node("b", 2), node("c", 3))
    cluster = ClusterService(Name("orders"), tuple(each.node for each in nodes), **(cluster or {}))
    return PostgresService(cluster, Address("0.0.0.0", 7432), Address("0.0.0.0", 7433), nodes, **fields)


A, B, C = orders().nodes
WITH = replace(SPEC, clusters=(orders(),))


def cluster_changed(*nodes, **fields):
    new = replace(WITH, clusters=(orders(*nodes, **fields),))
    return spec_changes(WITH, new), fixed_changes(WITH, new)


def changed(**fields):
    return spec_changes(SPEC, replace(SPEC, services=(replace(WEB, **fields),)))


def test_nothing_is_said_of_what_is_the_same():
    """Equal services, be they the same object or not."""
    assert spec_changes(SPEC, SPEC) == changed() == ()


def test_services_come_and_go():
    """A new one is told with where it listens."""
    mail = replace(WEB, name=Name("mail"), kind=Kind.TCP, listen=Address("127.0.0.1", 25))
    assert spec_changes(SPEC, replace(SPEC, services=(mail,))) == (
        "mail: is new, tcp on 127.0.0.1:25 with 2 endpoints",
        "web: is gone",
    )


def test_settings_are_told_with_both_values():
    """The innermost field that differs is named, with its unit in its name."""
    assert changed(balance=Balance.FIRST) == ("web: balance round_robin becomes first",)
    assert changed(listen=Address("127.0.0.1", 81)) == ("web: listen 127.0.0.1:80 becomes 127.0.0.1:81",)
    slower = replace(WEB.health, interval_ms=900, check=HttpCheck(HttpPath("/up")))
    assert changed(health=slower) == (
        "web: health.check.path / becomes /up",
        f"web: health.interval_ms {WEB.health.interval_ms} becomes 900",
    )
    assert len(changed(health=replace(WEB.health, check=TcpCheck()))) == 1


def test_endpoints_join_leave_and_change():
    """Each by its name; an endpoint that only stands elsewhere in the file is an order that changes."""
    w3 = Endpoint(Name("w3"), Address("10.0.0.1", 9003))
    assert changed(endpoints=(replace(W1, weight=3), w3)) == (
        "web/w1: weight 1 becomes 3",
        "web/w3: joins at 10.0.0.1:9003",
        "web/w2: leaves, which was at 10.0.0.1:9002",
    )
    assert changed(endpoints=(W2, W1)) == ("web: the order of its endpoints changes",)


def test_clusters_come_and_go():
    """A new one is told with what it promises; of one that goes, that its data stays."""
    assert spec_changes(SPEC, WITH) == (
        (
            "orders: is new, postgres with 3 nodes, writes on 0.0.0.0:7432, reads on 0.0.0.0:7433, "
            "zero_loss (1 standby must have a write)"
        ),
    )
    assert spec_changes(WITH, SPEC) == ("orders: is gone; the data of its nodes stays",)
    assert fixed_changes(SPEC, WITH) == fixed_changes(WITH, SPEC) == cluster_changed()[0] == cluster_changed()[1] == ()


def test_nodes_join_leave_and_change():
    """Each by its name, with where its data is, and nothing of it is refused."""
    told, refused = cluster_changed(A, node("b", 2, priority=4), node("d", 4))
    assert told == (
        "orders/b: priority 1 becomes 4",
        "orders/d: joins on local at 127.0.0.1:7444, its data in orders/d",
        "orders/c: leaves, which was at 127.0.0.1:7443; its data stays in orders/c",
    )
    assert refused == ()


def test_what_a_cluster_promises_is_told_in_words():
    """Durability as a sentence; the rest field by field, and nothing of it is refused."""
    told, refused = cluster_changed(
        cluster={"durability": Durability(1_048_576), "preferred": Name("b")}, max_lag_bytes=1
    )
    assert told == (
        "orders: max_lag_bytes 16777216 becomes 1",
        "orders: durability zero_loss (1 standby must have a write) becomes max_loss of 1048576 bytes",
        "orders: preferred none becomes b",
    )
    assert refused == ()


def test_timers_stay_while_agents_run():
    """Deadlines that are running rest on them; of several hosts each agent takes them when it is started anew."""
    timers = {"timers": Timers.for_lease(2000)}
    (refused,) = cluster_changed(cluster=timers)[1]
    assert "orders: its timers cannot change while the agent runs" in refused
    assert "end the agent and start it with the new spec" in refused
    several = replace(WITH, hosts=(Host(Name("h1"), "10.0.0.1"), Host(Name("h2"), "10.0.0.2")))
    new = replace(several, clusters=(orders(cluster=timers),))
    assert fixed_changes(several, new) == ()
    assert spec_changes(several, new) == (
        "orders: other timers, which each agent takes when it is started anew: one after the other",
    )


def test_what_of_a_node_cannot_change():
    """Its directory, its address and its host stay; the sentence says how to get there all the same."""
    moved = EngineNode(Node(Name("a"), Name("h1")), Address("127.0.0.1", 7449), DataPath("elsewhere"))
    _, refused = cluster_changed(moved, B, C)
    assert [sentence.split(" of a node")[0] for sentence in refused] == [
        "orders/a: the host",
        "orders/a: the address",
        "orders/a: the data directory",
    ]
    assert all("remove the node and add it under another name" in sentence for sentence in refused)


def test_data_cannot_be_lost_by_renaming():
    """Neither by replacing all nodes at once, nor by giving a joining node the directory of one that leaves."""
    _, refused = cluster_changed(node("d", 4), node("e", 5))
    assert len(refused) == 1
    assert "add the new nodes first" in refused[0]
    heir = EngineNode(Node(Name("d"), Name("local")), Address("127.0.0.1", 7444), C.data)
    _, refused = cluster_changed(A, B, heir)
    assert refused == (
        "orders/d: orders/c is still the directory of c: choose another, or apply the spec without c first",
    )


def test_what_else_stays_while_agents_run():
    """The superuser's name, a service's kind, and everything that the agents themselves were started with."""
    assert len(cluster_changed(superuser=Superuser(RoleName("chief")))[1]) == 1
    assert cluster_changed(superuser=Superuser(password="env:OTHER"))[1] == ()
    pool = replace(WEB, name=Name("orders"))
    assert fixed_changes(WITH, replace(SPEC, services=(WEB, pool))) == (
        "orders cannot become another kind of service: give the new one another name",
    )
    assert len(fixed_changes(replace(SPEC, services=(WEB, pool)), WITH)) == 1
    hosts = (Host(Name("h1"), "10.0.0.1"),)
    other = replace(SPEC, cluster=Name("x"), agent_port=1, hosts=hosts, api=Address("127.0.0.2", 8600))
    refused = fixed_changes(SPEC, other)
    assert len(refused) == 4
    assert all("end the agent and start it with the new spec" in sentence for sentence in refused)
    several = replace(SPEC, hosts=(*hosts, Host(Name("h2"), "10.0.0.2")))
    moved = replace(several, hosts=(*hosts, Host(Name("h2"), "10.0.0.3"), Host(Name("h3"), "10.0.0.4")))
    assert ["h2" in sentence for sentence in fixed_changes(several, moved)] == [True]
    (refused,) = fixed_changes(several, replace(several, agent_port=1))
    assert refused.endswith("set it back")  # the store would tell an agent that starts with another one to go away
    fewer = replace(several, routers=(Name("h1"),))
    assert fixed_changes(fewer, several) == ()
    assert ["h2 cannot stop being a router" in sentence for sentence in fixed_changes(several, fewer)] == [True]
