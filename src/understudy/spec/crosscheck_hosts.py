"""What the hosts must be together with what is on them: routers, the store, the addresses that services listen on."""

import ipaddress

from understudy.core.text import Address, Name
from understudy.core.words import listed
from understudy.spec.crosscheck_ports import WILDCARDS
from understudy.spec.faults import Path, Report, shown
from understudy.spec.shape import EtcdShape, SpecShape, StoreShape


def hosts(spec: SpecShape, report: Report) -> None:
    """Report everything that is wrong between hosts, routers, the store and addresses."""
    _addresses(spec, report)
    _routers(spec, report)
    _store(spec, report)
    if spec.hosts:
        _listening(spec, report)
        _pools(spec, report)


def hosts_at(spec: SpecShape) -> tuple[Path, ...]:
    """What a fault rests on that speaks of all hosts' addresses."""
    return (("hosts",), *(("hosts", name) for name in spec.hosts))


def names_at(spec: SpecShape) -> tuple[Path, ...]:
    """What a fault rests on that speaks of all hosts' names."""
    return (("hosts",), *(("hosts", name) for name in spec.hosts if not Name.pattern.fullmatch(name)))


def on_loopback(spec: SpecShape) -> bool:
    """Whether all the hosts are this machine, as somebody does who tries things out."""
    return all(is_loopback(address) for address in spec.hosts.values())


def is_loopback(host: str) -> bool:
    """Whether an address is nobody's but the machine's own."""
    return ipaddress.ip_address(host).is_loopback


def _addresses(spec: SpecShape, report: Report) -> None:
    first: dict[str, Path] = {}
    trial = on_loopback(spec)
    for name, address in spec.hosts.items():
        here: Path = ("hosts", name)
        if not Name.pattern.fullmatch(name):
            report.add(f"{shown(name)} will not do as a name: use {Name.rule}", here)
            report.settle(here)
        ip, there = ipaddress.ip_address(address), first.setdefault(address, here)
        if ip.is_unspecified or ip.is_multicast:
            report.add(f"{address} is no machine's address: write the one at which the others reach it", here)
        elif ip.is_loopback and not trial:
            fault = f"the other hosts cannot reach {address}: write an address that they can reach"
            report.add(fault, here, *hosts_at(spec))
        elif there != here:
            report.add(f"{address} is in line {report.line_of(there)} already: one machine is one host", here, there)
        else:
            continue
        report.settle(here)  # whatever rests on a wrong address


def _routers(spec: SpecShape, report: Report) -> None:
    if spec.routers and not spec.hosts:
        cure = "name the machines in `hosts`, or remove `routers`"
        report.add(f"there are no hosts that could run a router: {cure}", ("routers",), ("hosts",))
        return
    for number, router in enumerate(spec.routers):
        here: Path = ("routers", number)
        if router not in spec.hosts:
            report.add(f"there is no host {router}: choose among {listed([*spec.hosts])}", here, *names_at(spec))
        elif router in spec.routers[:number]:
            report.add(f"{router} stands here again: keep one of them", here)


def _store(spec: SpecShape, report: Report) -> None:
    if isinstance(spec.store, StoreShape):
        _etcd(spec, spec.store.etcd, report)
    elif len(spec.hosts) > 1:
        at: Path = ("store",) if "store" in spec.model_fields_set else ("hosts",)
        cure = 'write store: {etcd: {endpoints: ["10.0.0.1:2379"]}}, with the members of your etcd cluster'
        report.add(f"sqlite is the store of one machine, and here are {len(spec.hosts)}: {cure}", at, ("hosts",))


def _etcd(spec: SpecShape, etcd: EtcdShape, report: Report) -> None:
    at: Path = ("store", "etcd")
    first: dict[Address, Path] = {}
    apart = len(spec.hosts) > 1 and not on_loopback(spec)
    for number, member in enumerate(etcd.endpoints):
        here = (*at, "endpoints", number)
        there = first.setdefault(member, here)
        if there != here:
            report.add(f"{member} is in line {report.line_of(there)} already: keep one of them", here, there)
        if member.host in WILDCARDS:
            report.add(f"{member} is where a member listens, not where it is reached: write its own address", here)
        elif apart and is_loopback(member.host):
            cure = "write the addresses of the members, the same for all"
            report.add(f"at {member} each host would look for etcd on itself: {cure}", here, ("hosts",))
    _both_or_neither(etcd, ("username", "password"), at, report)
    if etcd.tls:
        _both_or_neither(etcd.tls, ("cert", "key"), (*at, "tls"), report)


def _both_or_neither(holder: object, fields: tuple[str, str], at: Path, report: Report) -> None:
    has = [field for field in fields if getattr(holder, field) is not None]
    if len(has) == 1:
        (lacking,) = set(fields) - set(has)
        fault = f"`{has[0]}` is of no use without `{lacking}`: add that, or remove this"
        report.add(fault, (*at, has[0]), (*at, lacking))


def _listening(spec: SpecShape, report: Report) -> None:
    """Every router listens for every service, so an address of one host will do only where that is the only router."""
    owners = {address: host for host, address in spec.hosts.items()}
    routers: list[str] = [*spec.routers] or [*spec.hosts]
    for name, service in spec.services.items():
        for step, address in service.dialled():
            owner = owners.get(address.host)
            others = [router for router in routers if router != owner]
            if owner is not None and others:
                cure = f"write {Address('0.0.0.0', address.port)}, or routers: [{owner}]"
                fault = f"{address.host} is the address of {owner}, and {others[0]} is a router too: {cure}"
                report.add(fault, ("services", name, *step), ("hosts", owner), ("routers",))


def _pools(spec: SpecShape, report: Report) -> None:
    """Routers do not agree yet on what pools need, so one of them carries all, with the commands of their endpoints."""
    routers: list[str] = [*spec.routers] or [*spec.hosts]
    if spec.pools and len(routers) > 1:
        at: Path = ("routers",) if spec.routers else ("hosts",)
        cure = f"write routers: [{routers[0]}]"
        fault = f"http and tcp services need one router in this version, and here are {listed(routers)}: {cure}"
        report.add(fault, at, ("services",), *names_at(spec))
        return
    address = spec.hosts.get(routers[0])
    for name, pool in spec.pools.items():
        for number, endpoint in enumerate(pool.endpoints):
            if endpoint.run and address and endpoint.address.host != address:
                cure = f"write {Address(address, endpoint.address.port)}, or remove `run`"
                fault = (
                    f"a command runs on the router's host, and {endpoint.address.host} is not {routers[0]}'s: {cure}"
                )
                here: Path = ("services", name, "endpoints", number)
                rests_on = ((*here, "run"), ("routers",), *hosts_at(spec))
                report.add(fault, (*here, "address"), *rests_on)
