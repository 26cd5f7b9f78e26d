"""The view model: one picture of everything that CLI, API, metrics and console show; and the operator's verbs.

Values only, plus the protocol that the agent fulfils. No formatting (cli/ and api/ do that).
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from understudy.core.cluster_why import NodeHealth
from understudy.core.events import Entry, EventKind, Fact
from understudy.core.model import Group, Kind
from understudy.core.objectives import Objectives, ServiceHealth
from understudy.core.pools import Admin, Oper
from understudy.core.record import RequestKind
from understudy.core.report import Running
from understudy.core.what_if import Forecast, Mishap


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    """One endpoint as a person should see it. `reason` is a whole sentence: why it is in this state."""

    name: str
    address: str
    group: Group
    oper: Oper
    admin: Admin
    weight: int
    effective_weight: int
    sessions: int
    queued: int
    requests: int
    errors: int
    check: str
    since_s: float
    held_until_wall_s: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One service as a person should see it."""

    name: str
    kind: Kind
    listen: str
    health: ServiceHealth
    active_group: Group
    backup_share_percent: int
    endpoints: tuple[EndpointStatus, ...]
    objectives: Objectives
    reason: str


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One node of a cluster as a person should see it. `reason` is a whole sentence."""

    name: str
    host: str
    address: str
    role: str
    """What it is in the cluster: `primary`, `standby`, or the duty by which it becomes one (`rejoin`, `rebuild`, …)."""
    health: NodeHealth
    running: Running
    timeline: str
    """The branch of history that it is on; empty when that is not known."""
    position: str
    lag_bytes: int | None
    """How much of the primary's history it lacks; None when that is not known."""
    sync: bool
    """Whether commits count on it."""
    follows: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class LastFailover:
    """What the present primary's promotion took, by its steps, and what it lost; lost_bytes None: it is not known."""

    epoch: int
    detect_s: float
    confirm_s: float
    fence_s: float
    promote_s: float
    route_s: float
    lost_bytes: int | None
    loss: str

    @property
    def took_s(self) -> float:
        """All of it."""
        return self.detect_s + self.confirm_s + self.fence_s + self.promote_s + self.route_s


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """One stateful service as a person should see it."""

    name: str
    kind: str
    write: str
    read: str | None
    health: ServiceHealth
    phase: str
    """Where its failover stands; `unborn` before there is a record."""
    epoch: int
    primary: str | None
    durability: str
    steward: str | None
    """The host whose agent decides at the moment."""
    nodes: tuple[NodeStatus, ...]
    last_failover: LastFailover | None
    unblock: str | None
    """The command that a blocked cluster waits for."""
    reason: str
    warnings: tuple[str, ...] = ()
    """What a person should change about its nodes, a sentence each, without the full stop."""


@dataclass(frozen=True, slots=True)
class RouterStatus:
    """The proxy on this host."""

    pid: int
    workers: int
    healthy: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Status:
    """Everything."""

    cluster: str
    version: int
    """Of the spec in force."""
    started_wall_s: float
    now_wall_s: float
    router: RouterStatus
    services: tuple[ServiceStatus, ...]
    clusters: tuple[ClusterStatus, ...] = ()


@dataclass(frozen=True, slots=True)
class Version:
    """One version of the spec in the store."""

    number: int
    wall_s: float
    note: str
    replaced: int = 0
    """The version that was in force when this one was made, to which a rollback goes; 0 for the first."""


@dataclass(frozen=True, slots=True)
class SpecChange:
    """What a new spec would change or has changed: a sentence each, and the reasons for a reload, if any."""

    from_version: int
    to_version: int | None
    """None as long as it is only a plan."""
    changes: tuple[str, ...]
    reload: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a drain has come: connections still in flight, and whether the endpoint may be stopped now."""

    sessions: int
    safe_to_stop: bool
    reason: str


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """A journal entry as it is shown: flat, and its data by key."""

    number: int
    wall_s: float
    kind: EventKind
    service: str | None
    subject: str | None
    reason: str
    data: dict[str, Fact]

    @classmethod
    def of(cls, entry: Entry) -> "JournalEntry":
        """The same entry, flat."""
        event = entry.event
        return cls(entry.number, entry.wall_s, event.kind, event.service, event.subject, event.reason, dict(event.data))


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person asks of a cluster; see core/record.Request."""

    kind: RequestKind
    node: str | None = None
    accept_loss: bool = False
    sworn_dead: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Foretold:
    """What would come of a mishap. rto_s None: a person must decide; lost_bytes None: it is not known."""

    node: str
    mishap: Mishap
    winner: str | None
    rto_s: float | None
    lost_bytes: int | None
    reason: str

    @classmethod
    def of(cls, forecast: Forecast) -> "Foretold":
        """The same, flat."""
        rto_s = None if forecast.rto_ms is None else forecast.rto_ms / 1000
        lost_bytes = forecast.loss.bytes if forecast.loss else None
        return cls(forecast.node, forecast.mishap, forecast.winner, rto_s, lost_bytes, forecast.reason)


class Operator(Protocol):
    """What people may ask of the agent. Every verb raises Refused with one sentence when it will not or cannot."""

    async def status(self) -> Status:
        """Everything, now."""
        ...

    async def why(self, service: str) -> tuple[str, ...]:
        """Why the service is as it is, and what would have to happen for it to be otherwise; most important first."""
        ...

    async def events(self, after: int, limit: int, service: str | None) -> tuple[Entry, ...]:
        """Journal entries numbered above `after`, oldest first; after=-1 asks for the newest `limit`."""
        ...

    async def decision(self, number: int) -> tuple[Entry, ...]:
        """All entries of the failover that the journal entry of this number belongs to."""
        ...

    def follow(self, after: int) -> AsyncIterator[Entry]:
        """Journal entries numbered above `after`, as they come."""
        ...

    async def set_admin(self, service: str, endpoint: str, admin: Admin) -> str:
        """Order `ready`, `drain` or `maint`; the answer is the sentence of the event."""
        ...

    async def progress(self, service: str, endpoint: str) -> Progress:
        """How far a drain has come."""
        ...

    async def set_weight(self, service: str, endpoint: str, weight: int) -> str:
        """Set the weight at run time (0 to 256), until the next `apply` that changes it in the spec."""
        ...

    async def failover(self, service: str) -> str:
        """Move a pool's traffic to its backup group; let another node of a cluster take over."""
        ...

    async def ask(self, service: str, wish: Wish) -> str:
        """Ask something of a cluster, and wait for what comes of it; the answer is the sentence that says so."""
        ...

    async def what_if(self, node: str, service: str | None) -> tuple[Foretold, ...]:
        """What would happen if this node's engine died now, and if its machine were lost.

        `service` tells namesakes apart.
        """
        ...

    async def failback(self, service: str) -> str:
        """Move it back to its primary group."""
        ...

    async def plan(self, text: str) -> SpecChange:
        """What applying this spec would do; changes nothing."""
        ...

    async def apply(self, text: str) -> SpecChange:
        """Make this spec the one in force."""
        ...

    async def rollback(self, to_version: int | None) -> SpecChange:
        """Apply an earlier version again: the one before the present one, or the one that is named."""
        ...

    async def versions(self) -> tuple[Version, ...]:
        """The versions in the store, newest first."""
        ...
