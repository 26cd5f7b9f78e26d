"""Facts with their time: what the journal is made of. Every event carries the sentence that says why."""

from dataclasses import dataclass
from enum import StrEnum

from understudy.core.text import Name

Fact = str | int | float | bool | None


class EventKind(StrEnum):
    """Every kind of event there is. The first word is what it is about."""

    AGENT_STARTED = "agent.started"
    AGENT_STOPPED = "agent.stopped"
    SPEC_APPLIED = "spec.applied"
    SPEC_ROLLED_BACK = "spec.rolled_back"
    ROUTER_STARTED = "router.started"
    ROUTER_ADOPTED = "router.adopted"
    ROUTER_RELOADED = "router.reloaded"
    ROUTER_CHANGED = "router.changed"
    ROUTER_DIED = "router.died"
    ROUTER_REFUSED = "router.refused"
    SERVICE_UP = "service.up"
    SERVICE_DEGRADED = "service.degraded"
    SERVICE_DOWN = "service.down"
    ENDPOINT_UP = "endpoint.up"
    ENDPOINT_DOWN = "endpoint.down"
    ENDPOINT_EJECTED = "endpoint.ejected"
    ENDPOINT_RETURNED = "endpoint.returned"
    ENDPOINT_SPARED = "endpoint.spared"
    ENDPOINT_ADMIN = "endpoint.admin"
    ENDPOINT_WEIGHT = "endpoint.weight"
    ENDPOINT_AGENT_LOST = "endpoint.agent_lost"
    ENDPOINT_AGENT_BACK = "endpoint.agent_back"
    FAILOVER_STARTED = "failover.started"
    FAILOVER_DONE = "failover.done"
    FAILBACK_STARTED = "failback.started"
    FAILBACK_DONE = "failback.done"
    CLUSTER_BORN = "cluster.born"
    CLUSTER_ADOPTED = "cluster.adopted"
    CLUSTER_PHASE = "cluster.phase"
    CLUSTER_CROWNED = "cluster.crowned"
    CLUSTER_BLOCKED = "cluster.blocked"
    SWITCHOVER_STARTED = "switchover.started"
    SWITCHOVER_DONE = "switchover.done"
    SWITCHOVER_ABORTED = "switchover.aborted"
    REQUEST_TAKEN = "request.taken"
    REQUEST_REFUSED = "request.refused"
    NODE_ADDED = "node.added"
    NODE_REMOVED = "node.removed"
    NODE_RETURNED = "node.returned"
    NODE_REJOINING = "node.rejoining"
    NODE_REBUILDING = "node.rebuilding"
    NODE_DISCARDED = "node.discarded"
    SYNC_CHANGED = "sync.changed"
    ELECTORATE_CHANGED = "electorate.changed"
    RUN_STARTED = "run.started"
    RUN_ADOPTED = "run.adopted"
    RUN_EXITED = "run.exited"
    JOURNAL_GAP = "journal.gap"


@dataclass(frozen=True, slots=True)
class Event:
    """One fact. `reason` is the sentence a person reads; `data` holds the same as values, unit last in each key."""

    kind: EventKind
    reason: str
    service: Name | None = None
    subject: Name | None = None
    """The endpoint or node it is about."""
    data: tuple[tuple[str, Fact], ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """An event in the journal, with its number (rising by one, never used again) and its wall-clock time."""

    number: int
    wall_s: float
    event: Event
