"""What several fields must be together: names, ports, timers, groups, secrets. Each check is one small function.

Every fault names all the places that it rests on, so that nothing is said about a stand-in (see fit.py).
"""

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from understudy.core.errors import Refused
from understudy.core.failover_mode import FailoverMode
from understudy.core.model import Group, Kind
from understudy.core.text import Address, Name
from understudy.spec.faults import Path, Report, in_words, shown
from understudy.spec.secrets import resolve
from understudy.spec.shape import EndpointShape, HealthShape, ServiceShape, SpecShape
from understudy.spec.units import duration

_WILDCARDS = ("0.0.0.0", "::")
_LOOPBACKS = ("127.0.0.1", "::1")
SLOW_START_INTERVALS = 3
"""A slow start takes at least so many intervals, since the share rises at each check."""


def crosscheck(spec: SpecShape, directory: str, environment: Mapping[str, str], report: Report) -> None:
    """Report everything that is wrong between fields; `directory` and `environment` are where secrets are looked up."""
    _api(spec, report)
    _ports(spec, report)
    for name, service in spec.services.items():
        at: Path = ("services", name)
        if not Name.pattern.fullmatch(name):
            report.add(f"{shown(name)} will not do as a name: use {Name.rule}", at)
        for check in _SERVICE_CHECKS:
            check(service, at, report)
        for number, endpoint in enumerate(service.endpoints):
            _secrets(endpoint, (*at, "endpoints", number), directory, environment, report)


def _api(spec: SpecShape, report: Report) -> None:
    """Whoever reaches the API may order anything, so nobody but this machine may reach it."""
    if not ipaddress.ip_address(spec.api.host).is_loopback:
        cure = "choose one of 127.0.0.0/8, such as 127.0.0.1:8600, as there is no log-in yet"
        report.add(f"{spec.api} could be reached from outside: {cure}", ("api",))


@dataclass(frozen=True, slots=True)
class _Listener:
    address: Address
    at: Path


def _listeners(spec: SpecShape) -> Iterator[_Listener]:
    """Everything that will listen on this machine."""
    yield _Listener(spec.api, ("api",))
    for name, service in spec.services.items():
        yield _Listener(service.listen, ("services", name, "listen"))
    for name, service in spec.services.items():
        for number, endpoint in enumerate(service.endpoints):
            if endpoint.run:
                yield _Listener(endpoint.address, ("services", name, "endpoints", number, "address"))


def _ports(spec: SpecShape, report: Report) -> None:
    taken: dict[int, dict[str, _Listener]] = {}
    for listener in _listeners(spec):
        here = taken.setdefault(listener.address.port, {})
        rival = _rival(listener.address.host, here)
        if rival is None:
            here[listener.address.host] = listener
        else:
            whose = f"{rival.address} of {in_words(rival.at)}, line {report.line_of(rival.at)}"
            fault = f"{listener.address} clashes with {whose}: give one of them another port"
            report.add(fault, listener.at, rival.at)


def _rival(host: str, taken: Mapping[str, _Listener]) -> _Listener | None:
    """Who listens on this port already so that this host cannot be had too (Address.overlaps, for thousands)."""
    if host in _WILDCARDS:
        return next(iter(taken.values()), None)
    return next((taken[other] for other in (host, *_WILDCARDS) if other in taken), None)


def _endpoint_names(service: ServiceShape, at: Path, report: Report) -> None:
    first: dict[str, Path] = {}
    for number, endpoint in enumerate(service.endpoints):
        here = (*at, "endpoints", number, "name")
        there = first.setdefault(endpoint.name, here)
        if there != here:
            where = f"line {report.line_of(there)}"
            report.add(f"{endpoint.name} is the name of another endpoint too ({where}): choose another", here, there)


def _endpoint_addresses(service: ServiceShape, at: Path, report: Report) -> None:
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
    wide = listen.host in _WILDCARDS and address.host in (*_WILDCARDS, *_LOOPBACKS) and listen.port == address.port
    return wide or listen == address


def _groups(service: ServiceShape, at: Path, report: Report) -> None:
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


def _timers(service: ServiceShape, at: Path, report: Report) -> None:
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


def _health(service: ServiceShape, at: Path, report: Report) -> None:
    chosen = [check for check in ("tcp", "http", "grpc", "command") if getattr(service.health, check) is not None]
    if len(chosen) > 1:
        fault = f"{' and '.join(chosen)} stand here together: keep the one that decides"
        report.add(fault, (*at, "health"), *((*at, "health", check) for check in chosen))
    if not service.health.passive and "ejection" in service.model_fields_set:
        fault = "nothing is ejected while health.passive is false: remove `ejection`, or write `passive: true`"
        report.add(fault, (*at, "ejection"), (*at, "health", "passive"))


def _http_only(service: ServiceShape, at: Path, report: Report) -> None:
    if service.kind is Kind.TCP:
        for field in ("affinity", "retry"):
            if field in service.model_fields_set:
                fault = (
                    f"a tcp service cannot have `{field}`, which is a matter of HTTP: remove it, or write `kind: http`"
                )
                report.add(fault, (*at, field), (*at, "kind"))


def _secrets(endpoint: EndpointShape, at: Path, directory: str, environment: Mapping[str, str], report: Report) -> None:
    if endpoint.secrets and not endpoint.run:
        fault = "secrets are given to the command in `run`, and there is none: add `run`, or remove them"
        report.add(fault, (*at, "secrets"), (*at, "run"))
    for variable, reference in endpoint.secrets.items():
        try:
            resolve(reference, directory, environment)
        except Refused as fault:
            report.add(str(fault), (*at, "secrets", variable))


_SERVICE_CHECKS: Iterable[Callable[[ServiceShape, Path, Report], None]] = (
    _endpoint_names,
    _endpoint_addresses,
    _groups,
    _timers,
    _health,
    _http_only,
)
