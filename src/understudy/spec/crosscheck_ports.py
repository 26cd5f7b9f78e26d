"""Who listens where: no two on one address of one host."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from understudy.core.model import LOCAL
from understudy.core.text import Address
from understudy.spec.faults import Path, Report, in_words
from understudy.spec.shape import SpecShape

WILDCARDS = ("0.0.0.0", "::")
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Listener:
    """Something that listens, where the file says so, and on which hosts."""

    address: Address
    at: Path
    hosts: tuple[str, ...]


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
            where = f" on {host}" if spec.hosts else ""
            fault = f"{address} clashes with {whose}{where}: give one of them another port"
            report.add(fault, listener.at, other.at, ("routers",), ("hosts", host))


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
            yield Listener(Address(spec.hosts.get(host, LOOPBACK), spec.agent_port), ("agent_port",), (host,))
    yield from _routed(spec, tuple(spec.routers) or everywhere)
    yield from _run(spec)
    for name, cluster in spec.clusters.items():
        for number, node in enumerate(cluster.nodes):
            yield Listener(node.address, ("services", name, "nodes", number, "address"), (node.host or LOCAL,))


def _routed(spec: SpecShape, routers: tuple[str, ...]) -> Iterator[Listener]:
    for name, service in spec.services.items():
        for at, address in service.dialled():
            yield Listener(address, ("services", name, *at), routers)


def _run(spec: SpecShape) -> Iterator[Listener]:
    hosts = {address: host for host, address in spec.hosts.items()}
    for name, pool in spec.pools.items():
        for number, endpoint in enumerate(pool.endpoints):
            if endpoint.run:
                host = hosts.get(endpoint.address.host, LOCAL)
                yield Listener(endpoint.address, ("services", name, "endpoints", number, "address"), (host,))
