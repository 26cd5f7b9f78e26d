"""A spec becomes the core's values, or one answer with every fault, each with its line, its path and its cure."""

import dataclasses
import time
from pathlib import Path

import pytest
from tests.spec.mistakes import CLASHES, CLUSTER_CLASHES, CLUSTER_MISFITS, HOST_CLASHES, MISFITS
from tests.spec.samples import EXAMPLES, FULL, ORDERS, SEVERAL, SMALL, faults_of, spec_of

from understudy.core import model
from understudy.core.cluster import ClusterService, Durability, Node, Timers
from understudy.core.errors import Refused
from understudy.core.failover_mode import FailoverMode
from understudy.core.model import Balance, Group, Kind, Retry
from understudy.core.stateful import Superuser
from understudy.core.text import Address
from understudy.spec import text_of
from understudy.spec.crosscheck_ports import Listener, rival
from understudy.spec.units import duration, duration_ms, size, size_bytes


def test_everything_a_file_says_arrives():
    """Each field of the file stands in its place in the core's values, in the right unit."""
    spec = spec_of(FULL, "/srv/shop")
    assert (spec.cluster, spec.api, spec.text, spec.directory) == (
        "shop",
        Address("127.0.0.1", 8610),
        FULL,
        "/srv/shop",
    )
    web, calls, mail, plain = spec.services
    assert (web.name, web.kind, web.listen) == ("web", Kind.HTTP, Address("0.0.0.0", 8080))
    assert (web.balance, web.retry, web.maxconn) == (Balance.LEAST_CONNECTIONS, Retry.NEVER, 5000)
    assert web.health == model.HealthPolicy(
        model.HttpCheck(
            "/healthz?deep=1", "HEAD", "shop.example:8080", ((200, 200), (202, 204)), 'all is well; "really"'
        ),
        interval_ms=500,
        timeout_ms=400,
        fall=3,
        rise=4,
        passive=True,
        slow_start_ms=60_000,
        agent=model.AgentCheck(9100, 2000),
    )
    assert web.ejection == model.EjectionPolicy(50, 2000, 3_600_000, 7, 10_000)
    assert web.failover == model.PoolFailover(FailoverMode.GRADUAL, 120_000)
    assert web.affinity == model.Affinity("SRV")
    assert web.timeouts == model.Timeouts(150, 120_000, 180_000, 4000)
    w1, w2, w3 = web.endpoints
    assert w1 == model.Endpoint("w1", Address("10.0.0.1", 9001), weight=2, maxconn=100)
    assert w2.run == ("python3", "server.py", "9002", "true", "two words")
    assert w2.secrets == (("SHOP_PASSWORD", "env:SHOP_PASSWORD_NOW"),)
    assert w2.address == Address("127.0.0.1", 9002)
    assert (w3.group, w3.address) == (Group.BACKUP, Address("2001:db8::1", 9003))
    assert (calls.health.check, calls.health.passive) == (model.GrpcCheck("shop.Orders"), False)
    assert (mail.kind, mail.health.check) == (Kind.TCP, model.CommandCheck(("./check", "--quick")))
    assert plain.health.check == model.TcpCheck()
    assert (spec.agent_port, spec.hosts, spec.host_names, spec.router_hosts) == (8611, (), ("local",), ("local",))


def test_everything_a_file_says_of_a_cluster_arrives():
    """Where it is dialled, its nodes, its timers with those that follow the lease, its durability, its superuser."""
    orders, stock = spec_of(FULL).clusters
    assert orders.cluster == ClusterService(
        name="orders",
        nodes=(Node("a", "local"), Node("b", "local", 7), Node("c", "local", 0)),
        durability=Durability(None, acks=2),
        mode=FailoverMode.MANUAL,
        timers=Timers.for_lease(10_000, renew_ms=2000, timeout_ms=3000, margin_ms=1500, promote_ms=120_000),
        preferred="b",
        failback_every_s=86_400,
    )
    assert (orders.name, orders.write, orders.read) == ("orders", Address("0.0.0.0", 7432), Address("::1", 7433))
    assert [(str(node.address), node.data) for node in orders.nodes] == [
        ("127.0.0.1:7441", "/srv/orders/a"),
        ("127.0.0.1:7442", "orders/b"),
        ("127.0.0.1:7443", "orders/c"),
    ]
    assert (orders.superuser, orders.max_lag_bytes) == (Superuser("chief", "env:SHOP_PASSWORD_NOW"), 65_536)
    assert stock.cluster == ClusterService("stock", (Node("a", "local"),), Durability(3 * 1024 * 1024))
    assert (stock.read, stock.superuser, stock.max_lag_bytes) == (None, Superuser(), 16 * 1024 * 1024)


def test_several_machines_and_their_store():
    """Hosts, routers, who runs which command, and etcd with its files as absolute paths."""
    spec = spec_of(SEVERAL, "/srv/shop")
    assert spec.hosts == tuple(
        model.Host(f"h{number}", address) for number, address in enumerate(("10.0.0.1", "10.0.0.2", "2001:db8::3"), 1)
    )
    assert (spec.host_names, spec.router_hosts) == (("h1", "h2", "h3"), ("h1",))
    assert [spec.host_of(endpoint.address) for endpoint in spec.services[0].endpoints] == ["h1", "h3"]
    assert spec.host_of(Address("10.9.0.2", 1)) is None
    assert [node.node.host for node in spec.clusters[0].nodes] == ["h1", "h2", "h3"]
    assert spec.store == model.EtcdStore(
        (Address("10.0.0.1", 2379), Address("10.0.0.2", 2379), Address("2001:db8::3", 2379)),
        "understudy",
        "file:/etc/understudy/etcd",
        model.TlsFiles("/srv/shop/ca.pem", "/etc/understudy/cert.pem", "/srv/shop/keys/key.pem"),
    )


def test_the_full_sample_has_every_field():
    """What of the core a spec file can say: the samples set all of it to something else than its default."""
    values = list(dataclasses_in((spec_of(FULL), spec_of(SEVERAL))))
    unset = {
        f"{type(value).__name__}.{field.name}"
        for value in values
        for field in dataclasses.fields(value)
        if all(getattr(other, field.name) == field.default for other in values if type(other) is type(value))
    }
    nobody_asked_for = {f"Timers.{field}" for field in ("rejoin_ms", "handover_ms", "failback_ms", "stall_ms")}
    assert unset - {"ClusterService.version"} == nobody_asked_for  # the version is the store's


def dataclasses_in(value):
    """Every frozen value within a value."""
    if isinstance(value, tuple):
        for one in value:
            yield from dataclasses_in(one)
    elif dataclasses.is_dataclass(value):
        yield value
        yield from dataclasses_in(tuple(getattr(value, field.name) for field in dataclasses.fields(value)))


def test_what_is_left_out_is_the_cores_default():
    """The smallest spec is the core's defaults, and nothing else."""
    (service,) = spec_of(SMALL).services
    endpoints = tuple(model.Endpoint(f"w{n}", Address("10.0.0.1", 9000 + n)) for n in (1, 2))
    assert service == model.PoolService("web", Kind.HTTP, Address("127.0.0.1", 8080), endpoints)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_examples_are_without_fault(path):
    """Every example can be read as it is."""
    assert faults_of(path.read_text(), str(path.parent)) == ()


def test_all_faults_of_a_file_in_one_answer():
    """Misfits, clashes and later things are told together, once each, in the order of the file."""
    bad = """\
cluster: my shop
hosts: {a: a.local}
services:
  web:
    kind: htp
    listen: 127.0.0.1:8080
    listen: 127.0.0.1:8081
    balanse: first
    health: {interval: 100, timeout: 1s, fall: 0}
    endpoints:
      - {name: w1, address: web.local:80, weight: 300}
      - {name: w1, address: 127.0.0.1:9001, secrets: {A: "env:NOPE", B: hunter2}, run: [a]}
      - {address: 127.0.0.1:9001}
      - *x
  mail:
    kind: tcp
    retry: always
    listen: 0.0.0.0:8080
    endpoints:
    health: {timeout: 400ms, tcp: {}, grpc: {}}
  orders:
    kind: redis
    nodes: []
  stock:
    kind: postgres
    listen: {write: 127.0.0.1:8080, read: 127.0.0.1:7433, admin: 127.0.0.1:7434}
    acks: 9
    failover: {mode: fast, lease: 4s, renew: 3s, preferred: z}
    nodes:
      - {name: a, host: a, address: 127.0.0.1:7433, data: /srv/a, priority: 0}
      - {name: a, host: b, address: 127.0.0.1:7434, data: /srv/b, priority: 0}
      - {name: c, adress: 127.0.0.1:7435, data: /srv/a/c, priority: 0}
"""
    web = "services.web"
    assert [(fault.line, fault.path) for fault in faults_of(bad)] == [
        (1, "cluster"),
        (2, "hosts.a"),
        (5, f"{web}.kind"),
        (7, f"{web}.listen"),
        (8, f"{web}.balanse"),
        (9, f"{web}.health.interval"),
        (9, f"{web}.health.fall"),
        (11, f"{web}.endpoints[0].address"),
        (11, f"{web}.endpoints[0].weight"),
        (12, f"{web}.endpoints[1].secrets.B"),
        (12, f"{web}.endpoints[1].name"),
        (12, f"{web}.endpoints[1].secrets.A"),
        (13, f"{web}.endpoints[2].name"),
        (13, f"{web}.endpoints[2].address"),
        (14, f"{web}.endpoints[3]"),
        (17, "services.mail.retry"),
        (18, "services.mail.listen"),
        (19, "services.mail.endpoints"),
        (20, "services.mail.health.timeout"),
        (20, "services.mail.health"),
        (22, "services.orders.kind"),
        (26, "services.stock.listen.admin"),
        (26, "services.stock.listen.write"),
        (27, "services.stock.acks"),
        (28, "services.stock.failover"),
        (28, "services.stock.failover.preferred"),
        (29, "services.stock.nodes"),
        (30, "services.stock.nodes[0].address"),
        (31, "services.stock.nodes[1].name"),
        (31, "services.stock.nodes[1].host"),
        (32, "services.stock.nodes[2].address"),
        (32, "services.stock.nodes[2].adress"),
        (32, "services.stock.nodes[2]"),
    ]


MISTAKES = [(SMALL, *mistake) for mistake in MISFITS + CLASHES]
MISTAKES += [(ORDERS, *mistake) for mistake in CLUSTER_MISFITS + CLUSTER_CLASHES]
MISTAKES += [(SEVERAL, *mistake) for mistake in HOST_CLASHES]


@pytest.mark.parametrize(("text", "old", "new", "path", "words"), MISTAKES)
def test_one_mistake_gives_one_fault_with_its_cure(text, old, new, path, words):
    """Each mistake is told once, at its place, and with what would be right."""
    assert old in text
    (fault,) = faults_of(text.replace(old, new, 1))
    assert (fault.path, words in fault.text) == (path, True), fault


def test_groups_that_cannot_serve():
    """A pool needs primary endpoints, and one of them with a weight."""
    only_backup = SMALL.replace("}", ", group: backup}")
    assert "all endpoints are in the backup group" in faults_of(only_backup)[0].text
    assert "weight 0" in faults_of(SMALL.replace("}", ", weight: 0}"))[0].text


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "empty"),
        ("- a", 1, "no mapping"),
        ("a: 1\nb: ]", 2, "no valid YAML"),
        ("a: 1\n\tb: 2", 2, "no tabs"),
        ("a: 1\n---\nb: 2", 2, "second document"),
        ("a: 1\nb: \x07", 2, "not printable"),
        ("a: 1\nb: \ud800", 2, "UTF-8"),
        ("\n" + "[" * 100_000, 2, "deep"),
        ("\n? " + "{" * 100_000, 2, "deep"),
        ("a: " + "x" * 9_000_000, 1, "bytes"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_no_document_is_refused_at_its_line(text, line, words):
    """Broken, hostile or huge text ends in one sentence with its line, at once."""
    began_s = time.process_time()
    fault = faults_of(text)[-1]
    assert (fault.line, words in fault.text) == (line, True), fault
    assert time.process_time() - began_s < 5


def test_aliases_cannot_blow_up():
    """Aliases are refused where they stand, so a small file stays small."""
    bomb = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10))
    faults = faults_of(bomb)
    assert sum("alias" in fault.text for fault in faults) == 81


def test_thousands_of_faults_are_counted():
    """A hopeless file is answered in bounded time and length, and says that there is more."""
    faults = faults_of(SMALL + "".join(f"    x{n}: 1\n" for n in range(50_000)))
    assert len(faults) == 1001
    assert "49000 further faults" in faults[-1].text


def test_secrets_must_be_there_and_are_never_shown(tmp_path):
    """A secret is looked up when the file is read; what is not there is a fault, and no message has a secret in it."""

    def faults(reference):
        run = f", run: [a], secrets: {{PASSWORD: {reference!r}}}}}"
        return faults_of(SMALL.replace("}", run, 1), str(tmp_path))

    (tmp_path / "good").write_text("hunter2\n")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "two").write_text("hunter2\nhunter3")
    assert faults("file:good") == faults(f"file:{tmp_path}/good") == faults("env:SHOP_PASSWORD_NOW") == ()
    bad = [
        faults(f"{where}") for where in ("file:none", "file:empty", "file:two", "file:/dev/zero", "file:.", "env:NO")
    ]
    bad.append(faults("hunter2"))
    assert [len(found) for found in bad] == [1] * 7
    assert all(found[0].path == "services.web.endpoints[0].secrets.PASSWORD" for found in bad)
    assert "hunter" not in str(bad)
    assert "hunter" not in repr(spec_of(SMALL.replace("}", ", run: [a], secrets: {P: 'file:good'}}", 1), str(tmp_path)))


def test_files_that_cannot_be_had(tmp_path):
    """A missing, foreign or huge file is one sentence."""
    (tmp_path / "latin").write_bytes(b"cluster: shop\n# caf\xe9\n")
    (tmp_path / "huge").write_bytes(b"#" * 9_000_000)
    (tmp_path / "good").write_text(SMALL)
    assert text_of(tmp_path / "good") == SMALL
    for name, words in (("none", "No such file"), (".", "directory"), ("latin", "line 2"), ("huge", "bytes")):
        with pytest.raises(Refused, match=words):
            text_of(Path(tmp_path / name))


def test_a_large_spec_is_read_quickly():
    """1 000 services with 10 endpoints each take well under the 1.5 s that the whole compile and reload may take."""
    services = "".join(
        f"  s{n}:\n    kind: http\n    listen: 127.0.0.1:{10_000 + n}\n    endpoints:\n"
        + "".join(f"      - {{name: w{m}, address: 10.0.0.{m}:{9000 + n}, weight: 2}}\n" for m in range(10))
        for n in range(1000)
    )
    began_s = time.process_time()
    assert len(spec_of(f"cluster: big\nservices:\n{services}").services) == 1000
    assert time.process_time() - began_s < 5  # 0.3 s on an idle core


def test_clashes_are_those_of_the_core():
    """The quick search for a rival finds one exactly when an address overlaps with one that is taken."""
    hosts = ("127.0.0.1", "10.0.0.1", "0.0.0.0", "::", "::1")
    for taken in ((), *((host,) for host in hosts), ("127.0.0.1", "10.0.0.1"), ("::1", "10.0.0.1")):
        listeners = {host: Listener(Address(host, 80), (), ()) for host in taken}
        for host in hosts:
            overlaps = any(Address(host, 80).overlaps(other.address) for other in listeners.values())
            assert (rival(host, listeners) is not None) == overlaps


def test_durations_survive_being_written():
    """Writing a duration and reading it again gives the same milliseconds."""
    for value_ms in (0, 1, 999, 1000, 1500, 60_000, 90_000, 3_600_000, 86_400_000):
        assert duration_ms(duration(value_ms)) == value_ms
    assert [duration_ms(text) for text in ("5", "s", "-1s", "1.5s", "1 s", "1S", "01s", "1w", "")] == [None] * 9


def test_sizes_survive_being_written():
    """Writing a size and reading it again gives the same bytes; only binary units, which mean one thing, are taken."""
    for value_bytes in (0, 1, 1023, 1024, 1536, 16 * 2**20, 2**30 + 1, 2**40):
        assert size_bytes(size(value_bytes)) == value_bytes
    assert [size_bytes(text) for text in ("5", "MiB", "-1B", "1.5MiB", "1 MiB", "1MB", "1mib", "01B", "")] == [None] * 9


def test_on_several_machines_a_secret_is_looked_for_where_it_is_needed():
    """What only another host has does not make the file bad on this one; on one machine it does."""
    assert faults_of(SEVERAL) == ()
    alone = ORDERS + "    superuser: {password: file:none}\n"
    assert [fault.path for fault in faults_of(alone)] == ["services.orders.superuser.password"]


def test_hosts_on_one_machine_are_a_trial():
    """Somebody may try several agents on one machine's loopback addresses; each may have its own etcd there."""
    trial = SEVERAL.replace("2001:db8::0:3", "127.0.0.3").replace("2001:db8::3", "::1").replace("10.9.0.2", "127.0.0.2")
    trial = trial.replace("10.0.0.", "127.0.0.").replace("[::1]:9001", "127.0.0.3:9001")
    assert faults_of(trial) == ()


def test_addresses_are_one_nodes_alone():
    """Also on two hosts, where no port clashes: the address can be only one of them's."""
    (fault,) = faults_of(SEVERAL.replace("10.0.0.1:5432", "10.9.0.2:5432"))
    assert (fault.path, "nodes[0].address, line 22, on h1" in fault.text) == ("services.orders.nodes[1].address", True)


def test_two_clusters_cannot_share_a_directory():
    """A directory is one node's, whichever service the other one belongs to."""
    two = FULL.replace("data: stock", "data: orders/b/stock")
    (fault,) = faults_of(two)
    assert (fault.path, "overlaps with the directory orders/b" in fault.text) == ("services.stock.nodes[0].data", True)
    assert faults_of(FULL.replace("data: stock", "data: orders/bb")) == ()


def test_what_one_machine_may_have():
    """One host with a name is one machine: sqlite will do, and its address may be listened on."""
    named = "cluster: shop\nhosts: {h1: 10.0.0.1}"
    text = ORDERS.replace("cluster: shop", named).replace("{name:", "{host: h1, name:").replace("127.0.0.1", "10.0.0.1")
    assert faults_of(text) == ()
    (fault,) = faults_of(text.replace("{h1: 10.0.0.1}", "{h1: 10.0.0.1, h2: 10.0.0.2}\nrouters: [h1]"))
    assert (fault.line, fault.path, "write store: {etcd:" in fault.text) == (2, "hosts", True)


def test_nobody_could_be_primary():
    """A cluster needs a node that may be promoted."""
    (fault,) = faults_of(ORDERS.replace("}\n", ", priority: 0}\n").replace("7433, priority: 0}", "7433}"))
    assert (fault.path, "none could ever be primary" in fault.text) == ("services.orders.nodes", True)


def test_at_most_nine_nodes():
    """Ten are refused, nine are read."""
    node = "      - {name: n1, address: 127.0.0.1:7451, data: n1}\n"
    seven = "".join(node.replace("n1", f"n{n}").replace("7451", f"745{n}") for n in range(7))
    assert faults_of(ORDERS + seven) == ()
    (fault,) = faults_of(ORDERS + seven + node.replace("n1", "n8").replace("7451", "7458"))
    assert (fault.path, "at most 9" in fault.text) == ("services.orders.nodes", True)
