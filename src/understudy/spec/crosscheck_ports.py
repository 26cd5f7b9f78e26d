"""Who listens where: no two on one address of one host."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from understudy.core.model import LOCAL
from understudy.core.text import Address
from understudy.spec.faults import Path, Report, in_words
from understudy.spec.shape import SpecShape, StoreShape

WILDCARDS = ("0.0.0.0", "::")
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Listener:
    """Something that listens, where the file says so, and on which hosts. rests_on: what else in the file says so."""

    address: Address
    at: Path
    hosts: tuple[str, ...]
    rests_on: tuple[Path, ...] = ()


def ports(spec: SpecShape, report: Report) -> None:
    """Report each listener that would find its port taken."""
    taken: dict[tuple[str, int], dict[str, Listener]] = {}
    for listener in _listeners(spec):
        address = listener.address
        here = [(host, taken.setdefault((host, address.port), {})) for host in listener.hosts]
        clash = next(((host, found) for host, others in here if (found := rival(address.host, others))), None)
        if clash is None:
            for _, others in here:
                others[address.host] = listener
        else:
            host, other = clash
            whose = f"{other.address} of {in_words(other.at)}, line {report.line_of(other.at)}"
            where = f" on {in_words((host,))}" if spec.hosts else ""
            fault = f"{address} clashes with {whose}{where}: give one of them another port"
            report.add(fault, listener.at, other.at, ("hosts",), *listener.rests_on, *other.rests_on)


def rival(host: str, taken: Mapping[str, Listener]) -> Listener | None:
    """Who listens on this port already so that this address cannot be had too (Address.overlaps, for thousands)."""
    if host in WILDCARDS:
        return next(iter(taken.values()), None)
    return next((taken[other] for other in (host, *WILDCARDS) if other in taken), None)


def _listeners(spec: SpecShape) -> Iterator[Listener]:
    everywhere = tuple(spec.hosts) or (LOCAL,)
    yield Listener(spec.api, ("api",), everywhere)
    if spec.clusters:
        for host in everywhere:
            address = Address(spec.hosts.get(host, LOOPBACK), spec.agent_port)
            yield Listener(address, ("agent_port",), (host,), (("hosts", host),))
    yield from _members(spec)
    yield from _routed(spec, tuple(spec.routers) or everywhere)
    yield from _run(spec)
    for name, cluster in spec.clusters.items():
        for number, node in enumerate(cluster.nodes):
            at: Path = ("services", name, "nodes", number)
            yield Listener(node.address, (*at, "address"), (node.host or LOCAL,), ((*at, "host"),))


def _members(spec: SpecShape) -> Iterator[Listener]:
    """Those of etcd that run on one of our hosts."""
    if isinstance(spec.store, StoreShape):
        hosts = {address: host for host, address in spec.hosts.items()} or {LOOPBACK: LOCAL}
        for number, member in enumerate(spec.store.etcd.endpoints):
            host = hosts.get(member.host)
            if host is not None and member not in spec.store.etcd.endpoints[:number]:
                yield Listener(member, ("store", "etcd", "endpoints", number), (host,), (("hosts", host),))


def _routed(spec: SpecShape, routers: tuple[str, ...]) -> Iterator[Listener]:
    for name, service in spec.services.items():
        for at, address in service.dialled():
            yield Listener(address, ("services", name, *at), routers, (("routers",),))


def _run(spec: SpecShape) -> Iterator[Listener]:
    hosts = {address: host for host, address in spec.hosts.items()}
    for name, pool in spec.pools.items():
        for number, endpoint in enumerate(pool.endpoints):
            if endpoint.run:
                host = hosts.get(endpoint.address.host, LOCAL)
                at: Path = ("services", name, "endpoints", number, "address")
                yield Listener(endpoint.address, at, (host,), (("hosts", host),))
