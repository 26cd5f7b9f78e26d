"""The whole desired state of a router, compiled from the spec and the pools' records. Pure; nothing of HAProxy's syntax.

A pool of the router is an array of slots. A slot keeps its number for as long as its endpoint lives, on every router and
across restarts, so that a hash or a cookie goes on meaning the same server; free slots are spares that an added endpoint
takes without a reload.
"""

from dataclasses import dataclass

from understudy.core.model import (
    Affinity,
    Balance,
    Group,
    HealthPolicy,
    Kind,
    PoolService,
    Retry,
    Spec,
    Timeouts,
)
from understudy.core.pools import Admin, PoolRecord
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

    backup_share_percent: how much goes to the backup pool while the primary pool is usable. When the primary pool has no
    usable server, everything goes to the backup pool at once if `automatic`, without the agent's help.
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
class RouterState:
    """Everything a router should be doing."""

    cluster: Name
    routes: tuple[Route, ...]
    directory: str = "."
    """Absolute path of the spec's folder, in which command checks run."""


def compile_routes(spec: Spec, records: dict[Name, PoolRecord]) -> RouterState:
    """The desired state of every router of the cluster; a service without a record has nothing overridden."""
    raise NotImplementedError


def allocate(service: PoolService, record: PoolRecord) -> PoolRecord:
    """The record with a slot for each endpoint of the service and none for others; the same record when nothing moved."""
    raise NotImplementedError


def compile_route(service: PoolService, record: PoolRecord) -> Route:
    """The desired state of one service."""
    raise NotImplementedError
