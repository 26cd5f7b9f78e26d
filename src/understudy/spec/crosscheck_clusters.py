"""What several fields of a stateful service must be together, and what several of them must be on one host."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from understudy.core.model import LOCAL
from understudy.core.stateful import overlap
from understudy.core.words import count, listed
from understudy.spec.build import timers
from understudy.spec.cluster_shape import MaxLossShape, NodeShape, PostgresShape
from understudy.spec.crosscheck_hosts import hosts_at, is_loopback, names_at, on_loopback
from understudy.spec.crosscheck_ports import WILDCARDS
from understudy.spec.faults import Path, Report, in_words
from understudy.spec.shape import SpecShape
from understudy.spec.units import MINUTE_MS, duration

OUR_ROLE = "understudy"
OUR_DIRECTORY = ".understudy"
"""What we keep beside a node's data is in a directory of the same name with this at its end."""


def clusters(spec: SpecShape, report: Report) -> None:
    """Report everything that is wrong within clusters and between their nodes."""
    for name, cluster in spec.clusters.items():
        at: Path = ("services", name)
        for check in _CHECKS:
            check(cluster, at, report)
        for number, node in enumerate(cluster.nodes):
            _host(spec, node, (*at, "nodes", number), report)
            _address(spec, node, (*at, "nodes", number), report)
    _directories(spec, report)
    _addresses(spec, report)


def _names(cluster: PostgresShape, at: Path, report: Report) -> None:
    """PostgreSQL compares some names without regard to case, and knows no '-' in others."""
    first: dict[str, tuple[str, Path]] = {}
    for number, node in enumerate(cluster.nodes):
        here = (*at, "nodes", number, "name")
        name, there = first.setdefault(node.name.lower().replace("-", "_"), (node.name, here))
        if there != here:
            how = "is the name of another node too" if name == node.name else f"is too much like the name {name}"
            report.add(f"{node.name} {how} (line {report.line_of(there)}): choose another", here, there)
    if cluster.superuser.name == OUR_ROLE:
        fault = f"{OUR_ROLE} is the role by which the nodes reach each other: choose another, such as postgres"
        report.add(fault, (*at, "superuser", "name"))


def _durability(cluster: PostgresShape, at: Path, report: Report) -> None:
    acks, durability, nodes = (*at, "acks"), (*at, "durability"), (*at, "nodes")
    if isinstance(cluster.durability, MaxLossShape):
        if "acks" in cluster.model_fields_set:
            fault = "`acks` has no meaning with max_loss: write `durability: zero_loss`, or remove it"
            report.add(fault, acks, durability)
        return
    needed = cluster.acks + 1
    if len(cluster.nodes) < needed:
        what = f"zero_loss with a write on {count(cluster.acks, 'standby')} needs {needed} nodes"
        cure = "add nodes, or write durability: {max_loss: 1MiB}"
        report.add(f"{what}, and here is {len(cluster.nodes)}: {cure}", nodes, durability, acks)


def _timers(cluster: PostgresShape, at: Path, report: Report) -> None:
    failover = cluster.failover
    here = (*at, "failover")
    shares = {"renew": 1, "timeout": 2, "margin": 1}  # of the lease, in quarters, where nothing is said
    said = {field: getattr(failover, field) for field in shares if getattr(failover, field) is not None}
    for fault in timers(failover).faults():
        quarters = 4 - sum(share for field, share in shares.items() if field not in said)
        least_ms = -(-4 * sum(shares[field] * value_ms for field, value_ms in said.items()) // quarters)
        longer = f"write a lease of at least {duration(least_ms)}, or " if least_ms <= MINUTE_MS else ""
        cure = f"{longer}shorten {' and '.join(said)}"
        report.add(f"{fault}: {cure}", here, *((*here, field) for field in ("lease", *shares)))


def _preferred(cluster: PostgresShape, at: Path, report: Report) -> None:
    failover, nodes = cluster.failover, (*at, "nodes")
    here = (*at, "failover", "preferred")
    if failover.preferred is None:
        if "failback_every" in failover.model_fields_set:
            fault = "`failback_every` has no meaning without `preferred`: name the preferred node, or remove it"
            report.add(fault, (*at, "failover", "failback_every"), here)
        return
    names = (nodes, *((*nodes, number, "name") for number in range(len(cluster.nodes))))
    node = next((node for node in cluster.nodes if node.name == failover.preferred), None)
    if node is None:
        known = ", ".join(dict.fromkeys(node.name for node in cluster.nodes))
        report.add(f"there is no node {failover.preferred}: choose among {known}", here, *names)
    elif node.priority == 0:
        priority = (*nodes, cluster.nodes.index(node), "priority")
        cure = "prefer another, or give it a priority"
        report.add(f"{node.name} has priority 0 and is never promoted: {cure}", here, priority, *names)


def _priorities(cluster: PostgresShape, at: Path, report: Report) -> None:
    if not any(node.priority for node in cluster.nodes):
        fault = "all nodes have priority 0, so none could ever be primary: give one of them a priority"
        report.add(fault, (*at, "nodes"))


def _reading(cluster: PostgresShape, at: Path, report: Report) -> None:
    if cluster.listen.read is None and "max_lag" in cluster.model_fields_set:
        fault = "`max_lag` has no meaning without a read port: add listen.read, or remove it"
        report.add(fault, (*at, "max_lag"), (*at, "listen", "read"))


def _host(spec: SpecShape, node: NodeShape, at: Path, report: Report) -> None:
    here = (*at, "host")
    if not spec.hosts:
        if node.host is not None:
            cure = "name the machines in `hosts`, or remove `host` where one machine runs everything"
            report.add(f"there is no host {node.host}: {cure}", here, ("hosts",))
    elif node.host is None:
        report.add(f"it lacks its host: add one of {listed([*spec.hosts])}", at, here, *names_at(spec))
    elif node.host not in spec.hosts:
        report.add(f"there is no host {node.host}: choose among {listed([*spec.hosts])}", here, *names_at(spec))


def _address(spec: SpecShape, node: NodeShape, at: Path, report: Report) -> None:
    here, address = (*at, "address"), node.address
    others = {ip: name for name, ip in spec.hosts.items() if name != node.host}
    if address.host in WILDCARDS:
        fault = f"the other nodes and the routers must find it, and {address.host} is everywhere: write its own address"
        report.add(fault, here)
    elif address.host in others and node.host in spec.hosts:
        owner = others[address.host]
        fault = f"{address.host} is the address of {owner}, and the node is on {node.host}: make them agree"
        report.add(fault, here, (*at, "host"), *hosts_at(spec))
    elif is_loopback(address.host) and len(spec.hosts) > 1 and not on_loopback(spec):
        report.add(f"the other hosts cannot reach {address}: write an address of its host", here, *hosts_at(spec))


@dataclass(frozen=True, slots=True)
class _Placed:
    node: NodeShape
    at: Path

    @property
    def host(self) -> str:
        return self.node.host or LOCAL


def _placed(spec: SpecShape) -> Iterator[_Placed]:
    for name, cluster in spec.clusters.items():
        for number, node in enumerate(cluster.nodes):
            yield _Placed(node, ("services", name, "nodes", number))


def _directories(spec: SpecShape, report: Report) -> None:
    seen: dict[str, list[_Placed]] = {}
    for placed in _placed(spec):
        here = (*placed.at, "data")
        if any(step.endswith(OUR_DIRECTORY) for step in placed.node.data.split("/")):
            cure = "choose another name"
            report.add(f"directories called *{OUR_DIRECTORY} are for what understudy keeps itself: {cure}", here)
        others = seen.setdefault(placed.host, [])
        other = next((one for one in others if overlap(one.node.data, placed.node.data)), None)
        others.append(placed)
        if other is not None:
            there = (*other.at, "data")
            how = "is" if other.node.data == placed.node.data else "overlaps with"
            whose = f"the directory {other.node.data} of {in_words(other.at)}, line {report.line_of(there)}"
            fault = f"{placed.node.data} {how} {whose}: give each node a directory of its own"
            report.add(fault, here, there, (*placed.at, "host"), (*other.at, "host"))


def _addresses(spec: SpecShape, report: Report) -> None:
    """Two nodes on one host are crosscheck_ports.py's."""
    first: dict[object, _Placed] = {}
    for placed in _placed(spec):
        other = first.setdefault(placed.node.address, placed)
        if other.host != placed.host:
            here, there = (*placed.at, "address"), (*other.at, "address")
            whose = f"{in_words(there)}, line {report.line_of(there)}, on {other.host}"
            fault = f"{placed.node.address} is that of {whose}: write the node's own"
            report.add(fault, here, there, (*placed.at, "host"), (*other.at, "host"))


_CHECKS: Iterable[Callable[[PostgresShape, Path, Report], None]] = (
    _names,
    _durability,
    _timers,
    _preferred,
    _priorities,
    _reading,
)
