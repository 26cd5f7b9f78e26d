"""What several fields must be together: the way in, and what is a pool's. Each check is one small function.

What is a host's, a port's or a cluster's is in crosscheck_hosts.py, crosscheck_ports.py and crosscheck_clusters.py.

Every fault names all the places that it rests on, so that nothing is said about a stand-in (see fit.py).
"""

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping

from understudy.core.errors import Refused
from understudy.core.failover_mode import FailoverMode
from understudy.core.model import Group, Kind
from understudy.core.text import Address, Name
from understudy.spec.crosscheck_clusters import clusters
from understudy.spec.crosscheck_hosts import hosts
from understudy.spec.crosscheck_ports import WILDCARDS, ports
from understudy.spec.faults import Path, Report, shown
from understudy.spec.pool_shape import HealthShape, PoolShape
from understudy.spec.secrets import resolve
from understudy.spec.shape import SpecShape, StoreShape
from understudy.spec.units import duration

_LOOPBACKS = ("127.0.0.1", "::1")
SLOW_START_INTERVALS = 3
"""A slow start takes at least so many intervals, since the share rises at each check."""


def crosscheck(spec: SpecShape, directory: str, environment: Mapping[str, str], report: Report) -> None:
    """Report everything that is wrong between fields; `directory` and `environment` are where secrets are looked up."""
    _api(spec, report)
    hosts(spec, report)
    ports(spec, report)
    for name in spec.services:
        if not Name.pattern.fullmatch(name):
            report.add(f"{shown(name)} will not do as a name: use {Name.rule}", ("services", name))
    for name, pool in spec.pools.items():
        for check in _POOL_CHECKS:
            check(pool, ("services", name), report)
    clusters(spec, report)
    _secrets(spec, directory, environment, report)


def _api(spec: SpecShape, report: Report) -> None:
    """Whoever reaches the API may order anything, so nobody but this machine may reach it."""
    if not ipaddress.ip_address(spec.api.host).is_loopback:
        cure = "choose one of 127.0.0.0/8, such as 127.0.0.1:8600, as there is no log-in yet"
        report.add(f"{spec.api} could be reached from outside: {cure}", ("api",))


def _endpoint_names(service: PoolShape, at: Path, report: Report) -> None:
    first: dict[str, Path] = {}
    for number, endpoint in enumerate(service.endpoints):
        here = (*at, "endpoints", number, "name")
        there = first.setdefault(endpoint.name, here)
        if there != here:
            where = f"line {report.line_of(there)}"
            report.add(f"{endpoint.name} is the name of another endpoint too ({where}): choose another", here, there)


def _endpoint_addresses(service: PoolShape, at: Path, report: Report) -> None:
    first: dict[Address, Path] = {}
    for number, endpoint in enumerate(service.endpoints):
        here = (*at, "endpoints", number, "address")
        there = first.setdefault(endpoint.address, here)
        if there != here and not endpoint.run:  # two that run on one port are reported as a clash already
            cure = "one server is one endpoint, and `weight` gives it a larger share"
            report.add(f"{endpoint.address} is in line {report.line_of(there)} already: {cure}", here, there)
        if _is_itself(service.listen, endpoint.address):
            fault = f"{endpoint.address} is where this service itself listens, a circle: write the server's own address"
            report.add(fault, here, (*at, "listen"))


def _is_itself(listen: Address, address: Address) -> bool:
    """Whether what is sent to `address` surely comes back to `listen`."""
    wide = listen.host in WILDCARDS and address.host in (*WILDCARDS, *_LOOPBACKS) and listen.port == address.port
    return wide or listen == address


def _groups(service: PoolShape, at: Path, report: Report) -> None:
    primary = [endpoint for endpoint in service.endpoints if endpoint.group is Group.PRIMARY]
    endpoints = (*at, "endpoints")
    if not primary:
        report.add("all endpoints are in the backup group: leave `group` out for those that serve first", endpoints)
    elif not any(endpoint.weight for endpoint in primary):
        report.add("all primary endpoints have weight 0, so none gets traffic: give one of them a weight", endpoints)
    mode = service.failover.mode
    if mode is not FailoverMode.FAST and len(primary) == len(service.endpoints):
        fault = f"{mode} failover needs a backup group: add `group: backup` to endpoints, or leave `failover` out"
        groups = ((*endpoints, number, "group") for number in range(len(service.endpoints)))
        report.add(fault, (*at, "failover", "mode"), endpoints, *groups)
    if mode is not FailoverMode.GRADUAL and "over" in service.failover.model_fields_set:
        fault = f"`over` has no meaning in {mode} failover: write `mode: gradual`, or remove it"
        report.add(fault, (*at, "failover", "over"), (*at, "failover", "mode"))


def _timers(service: PoolShape, at: Path, report: Report) -> None:
    health, ejection, here = service.health, service.ejection, (*at, "health")
    if health.timeout > health.interval:
        what = f"timeout ({_told(health, 'timeout')}) is longer than interval ({_told(health, 'interval')})"
        report.add(f"{what}: at most the interval will do", (*here, "timeout"), (*here, "interval"))
    least_ms = SLOW_START_INTERVALS * health.interval
    if 0 < health.slow_start < least_ms:
        what = f"slow_start ({_told(health, 'slow_start')}) is shorter than {SLOW_START_INTERVALS} intervals"
        cure = f"write at least {duration(least_ms)}, or 0s for none"
        report.add(f"{what}, so it would do nothing: {cure}", (*here, "slow_start"), (*here, "interval"))
    if ejection.hold > ejection.hold_max:
        longest = duration(ejection.hold_max)
        fault = f"hold ({duration(ejection.hold)}) is longer than hold_max ({longest}): at most {longest} will do"
        report.add(fault, (*at, "ejection", "hold"), (*at, "ejection", "hold_max"))


def _told(health: HealthShape, field: str) -> str:
    """A timer as it was written, or that nobody wrote it."""
    value = duration(getattr(health, field))
    return value if field in health.model_fields_set else f"{value}, the default"


def _health(service: PoolShape, at: Path, report: Report) -> None:
    chosen = [check for check in ("tcp", "http", "grpc", "command") if getattr(service.health, check) is not None]
    if len(chosen) > 1:
        fault = f"{' and '.join(chosen)} stand here together: keep the one that decides"
        report.add(fault, (*at, "health"), *((*at, "health", check) for check in chosen))
    if not service.health.passive and "ejection" in service.model_fields_set:
        fault = "nothing is ejected while health.passive is false: remove `ejection`, or write `passive: true`"
        report.add(fault, (*at, "ejection"), (*at, "health", "passive"))


def _http_only(service: PoolShape, at: Path, report: Report) -> None:
    if service.kind is Kind.TCP:
        for field in ("affinity", "retry"):
            if field in service.model_fields_set:
                fault = (
                    f"a tcp service cannot have `{field}`, which is a matter of HTTP: remove it, or write `kind: http`"
                )
                report.add(fault, (*at, field), (*at, "kind"))


def _commandless(pool: PoolShape, at: Path, report: Report) -> None:
    for number, endpoint in enumerate(pool.endpoints):
        if "secrets" in endpoint.model_fields_set and not endpoint.run:
            here = (*at, "endpoints", number)
            fault = "secrets are given to the command in `run`, and there is none: add `run`, or remove them"
            report.add(fault, (*here, "secrets"), (*here, "run"))


def _secrets(spec: SpecShape, directory: str, environment: Mapping[str, str], report: Report) -> None:
    """On one machine every secret must be there; of several, each has only what its own nodes and endpoints need."""
    if len(spec.hosts) > 1:
        return
    for at, reference in _references(spec):
        try:
            resolve(reference, directory, environment)
        except Refused as fault:
            report.add(str(fault), at, ("hosts",))


def _references(spec: SpecShape) -> Iterator[tuple[Path, str]]:
    if isinstance(spec.store, StoreShape) and spec.store.etcd.password:
        yield ("store", "etcd", "password"), spec.store.etcd.password
    for name, pool in spec.pools.items():
        for number, endpoint in enumerate(pool.endpoints):
            for variable, reference in endpoint.secrets.items():
                yield ("services", name, "endpoints", number, "secrets", variable), reference
    for name, cluster in spec.clusters.items():
        if cluster.superuser.password:
            yield ("services", name, "superuser", "password"), cluster.superuser.password


_POOL_CHECKS: Iterable[Callable[[PoolShape, Path, Report], None]] = (
    _endpoint_names,
    _endpoint_addresses,
    _groups,
    _timers,
    _health,
    _http_only,
    _commandless,
)
