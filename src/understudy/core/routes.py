"""The whole desired state of a router, compiled from the spec and the pools' records. Pure; no HAProxy syntax.

A pool of the router is an array of slots. A slot keeps its number for as long as its endpoint lives, on every router
and across restarts, so that a hash or a cookie goes on meaning the same server; free slots are spares that an added
endpoint takes without a reload.

Of a cluster only the ports and the seats of its nodes are here. Who takes writes comes by another way, and faster:
core/cluster_route.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from understudy.core.failover_mode import FailoverMode
from understudy.core.memo import Memo
from understudy.core.model import (
    Affinity,
    Balance,
    Endpoint,
    Group,
    HealthPolicy,
    Host,
    Kind,
    PoolService,
    Retry,
    Spec,
    Timeouts,
)
from understudy.core.pools import Admin, PoolRecord
from understudy.core.stateful import PostgresService
from understudy.core.text import Address, Name


@dataclass(frozen=True, slots=True)
class Slot:
    """One place for a server. `endpoint` and `address` are None in a spare."""

    endpoint: Name | None = None
    address: Address | None = None
    weight: int = 1
    maxconn: int = 0
    admin: Admin = Admin.MAINT
    """MAINT in a spare, and for an endpoint that is ejected or in maintenance."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The slots of one group of one service, and how traffic is spread over them."""

    service: Name
    group: Group
    kind: Kind
    balance: Balance
    health: HealthPolicy
    affinity: Affinity | None
    retry: Retry
    timeouts: Timeouts
    slots: tuple[Slot, ...]


@dataclass(frozen=True, slots=True)
class Route:
    """What one service listens on and where its connections go.

    backup_share_percent: how much goes to the backup pool while the primary pool is usable. When the primary pool has
    no usable server, everything goes to the backup pool at once if `automatic`, without the agent's help.
    """

    service: Name
    kind: Kind
    listen: Address
    maxconn: int
    primary: Pool
    backup: Pool | None
    backup_share_percent: int
    automatic: bool


@dataclass(frozen=True, slots=True)
class Seat:
    """One node of a cluster, as its clients reach it. agent: who is asked there whether the node still has its role."""

    node: Name
    address: Address
    agent: Address


@dataclass(frozen=True, slots=True)
class ClusterPorts:
    """Where the clients of a stateful service come in, and between which nodes it is decided where they go.

    hold_ms: how long a new connection waits for somebody who takes it.
    """

    cluster: Name
    write: Address
    read: Address | None
    seats: tuple[Seat, ...]
    hold_ms: int

    @property
    def listens(self) -> tuple[Address, ...]:
        """Both ports, or the one there is."""
        return (self.write, self.read) if self.read else (self.write,)

    def has(self, node: Name) -> bool:
        """Whether the node has a seat."""
        return any(seat.node == node for seat in self.seats)


@dataclass(frozen=True, slots=True)
class RouterState:
    """Everything a router should be doing, but for the clusters' present routes."""

    cluster: Name
    routes: tuple[Route, ...]
    directory: str = "."
    """Absolute path of the spec's folder, in which command checks run."""
    clusters: tuple[ClusterPorts, ...] = ()

    def ports(self, cluster: str) -> ClusterPorts | None:
        """The ports of the stateful service of that name."""
        return next((ports for ports in self.clusters if ports.cluster == cluster), None)


_compiled = Memo()


def compile_routes(spec: Spec, records: Mapping[Name, PoolRecord]) -> RouterState:
    """The desired state of every router of the cluster; a service without a record has nothing overridden.

    A route is the same object as before when its service and record are, so that comparing states costs little.
    """
    routes = tuple(
        _compiled.get(service.name, _compile, service, records.get(service.name)) for service in spec.services
    )
    clusters = tuple(
        _compiled.get(service.name, compile_ports, service, spec.hosts, spec.agent_port) for service in spec.clusters
    )
    _compiled.forget_others({service.name for service in spec.services} | {service.name for service in spec.clusters})
    return RouterState(cluster=spec.cluster, routes=routes, directory=spec.directory, clusters=clusters)


def compile_ports(service: PostgresService, hosts: tuple[Host, ...], agent_port: int) -> ClusterPorts:
    """The ports and seats of one cluster. A client is held for as long as a failover takes that waits for the lease."""
    listeners = {host.name: Address(host.address, agent_port) for host in hosts}
    alone = Address("127.0.0.1", agent_port)
    return ClusterPorts(
        cluster=service.name,
        write=service.write,
        read=service.read,
        seats=tuple(Seat(one.name, one.address, listeners.get(one.node.host, alone)) for one in service.nodes),
        hold_ms=2 * service.cluster.timers.lease_ms + 2000,
    )


def compile_route(service: PoolService, record: PoolRecord) -> Route:
    """The desired state of one service."""
    slots = dict(allocate(service, record).slots)
    backup = _pool(service, record, Group.BACKUP, slots[Group.BACKUP]) if Group.BACKUP in slots else None
    return Route(
        service=service.name,
        kind=service.kind,
        listen=service.listen,
        maxconn=service.maxconn,
        primary=_pool(service, record, Group.PRIMARY, slots.get(Group.PRIMARY, ())),
        backup=backup,
        backup_share_percent=record.backup_share_percent if backup else 0,
        automatic=backup is not None and service.failover.mode is FailoverMode.FAST,
    )


def allocate(service: PoolService, record: PoolRecord) -> PoolRecord:
    """The record with a slot for each endpoint of the service and none for others; the same record when nothing moved.

    An endpoint keeps its slot for as long as it stays in its group. A new one takes a slot that was spare before, and
    one that has just become free only when there is no other: connections of its former tenant may still be ending.
    """
    old = dict(record.slots)
    slots = tuple(
        (group, _allocate_group(service, group, old.get(group, ()))) for group in Group if service.group(group)
    )
    return record if slots == record.slots else replace(record, slots=slots)


def spares(endpoints: int) -> int:
    """How many spare slots a group of that many endpoints is laid out with."""
    return max(2, -(-endpoints // 4))


def _compile(service: PoolService, record: PoolRecord | None) -> Route:
    return compile_route(service, record or PoolRecord(service.name))


def _allocate_group(service: PoolService, group: Group, old: tuple[Name | None, ...]) -> tuple[Name | None, ...]:
    names = [endpoint.name for endpoint in service.group(group)]
    slots: list[Name | None] = [name if name in names else None for name in old]
    was_spare = [index for index, name in enumerate(old) if name is None]
    just_freed = [index for index, name in enumerate(slots) if name is None and old[index] is not None]
    free = iter(was_spare + just_freed)
    missing = [name for name in names if name not in old]
    if len(missing) > len(was_spare) + len(just_freed):
        slots += [None] * (len(names) + spares(len(names)) - len(slots))
        free = iter([index for index, name in enumerate(slots) if name is None])
    for name, index in zip(missing, free, strict=False):
        slots[index] = name
    if service.balance is Balance.FIRST and [name for name in slots if name] != names:
        return (*names, *[None] * max(len(slots) - len(names), 0))  # here the order of the slots is the order of use
    return tuple(slots)


def _pool(service: PoolService, record: PoolRecord, group: Group, slots: tuple[Name | None, ...]) -> Pool:
    endpoints = {endpoint.name: endpoint for endpoint in service.group(group)}
    admin = dict(record.admin) | {hold.endpoint: Admin.MAINT for hold in record.holds}
    weights = dict(record.weights)
    return Pool(
        service=service.name,
        group=group,
        kind=service.kind,
        balance=service.balance,
        health=service.health,
        affinity=service.affinity,
        retry=service.retry,
        timeouts=service.timeouts,
        slots=tuple(_slot(endpoints[name], admin, weights) if name else Slot() for name in slots),
    )


def _slot(endpoint: Endpoint, admin: Mapping[Name, Admin], weights: Mapping[Name, int]) -> Slot:
    return Slot(
        endpoint=endpoint.name,
        address=endpoint.address,
        weight=weights.get(endpoint.name, endpoint.weight),
        maxconn=endpoint.maxconn,
        admin=admin.get(endpoint.name, Admin.READY),
    )
