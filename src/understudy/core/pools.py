"""What happens to a pool: operator verbs, ejection of the misbehaving, gradual failover. Pure decisions over frozen values.

RULES: no clock, no I/O, no HAProxy syntax. `decide` looks at what was seen and answers with the next record and the events
that say why; whoever calls it stores the record before the router hears of it.
"""

from dataclasses import dataclass
from enum import StrEnum

from understudy.core.clock import Now
from understudy.core.events import Event
from understudy.core.model import Group, PoolService
from understudy.core.text import Name


class Admin(StrEnum):
    """HAProxy's own words for what an operator wants of a server."""

    READY = "ready"
    DRAIN = "drain"
    MAINT = "maint"


@dataclass(frozen=True, slots=True)
class Hold:
    """An ejected endpoint: until when (wall clock, bounded by the policy's longest hold), for the how-manieth time, why."""

    endpoint: Name
    until_wall_s: float
    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class Ramp:
    """Traffic moving between the groups: from one share of the backup group to another, evenly, since a moment."""

    from_percent: int
    to_percent: int
    since_wall_s: float
    over_ms: int


@dataclass(frozen=True, slots=True)
class PoolRecord:
    """What is decided about one pool beyond its spec; stored under `pools/NAME` before anything acts on it."""

    service: Name
    admin: tuple[tuple[Name, Admin], ...] = ()
    """Endpoints that are not `ready`, by operator's wish."""
    weights: tuple[tuple[Name, int], ...] = ()
    """Weights set at run time, in place of the spec's."""
    holds: tuple[Hold, ...] = ()
    backup_share_percent: int = 0
    ramp: Ramp | None = None
    slots: tuple[tuple[Group, tuple[Name | None, ...]], ...] = ()
    """Which endpoint sits in which slot, by group; spares are None."""


class Oper(StrEnum):
    """What the router believes of a server."""

    UP = "up"
    DOWN = "down"
    STARTING = "starting"
    """Up, with its share still rising."""
    MAINT = "maint"
    DRAIN = "drain"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Counters:
    """What has been counted since the agent first saw the endpoint; never falls, also across reloads of the router."""

    requests: int = 0
    errors: int = 0
    """Failed connections, broken answers and 5xx."""
    retries: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


@dataclass(frozen=True, slots=True)
class EndpointSeen:
    """What the router reports of one endpoint."""

    endpoint: Name
    group: Group
    oper: Oper
    weight: int
    """Effective, as it stands in the router now."""
    sessions: int
    queued: int
    check: str
    """The last check's outcome in words, with its duration where it is known."""
    since_s: float
    """Seconds in this state."""
    counters: Counters = Counters()
    agent: str | None = None
    """The agent check's last outcome; None when there is none."""


@dataclass(frozen=True, slots=True)
class PoolSeen:
    """What the router reports of one pool. `failed_requests` counts the clients that got no good answer from us."""

    endpoints: tuple[EndpointSeen, ...]
    sessions: int = 0
    requests: int = 0
    failed_requests: int = 0


@dataclass(frozen=True, slots=True)
class PoolView:
    """All that a decision about a pool may rest on. `previous` is what the last decision saw."""

    service: PoolService
    record: PoolRecord
    seen: PoolSeen
    previous: PoolSeen | None


@dataclass(frozen=True, slots=True)
class PoolDecision:
    """What to store, then do, then publish."""

    record: PoolRecord
    events: tuple[Event, ...]


def decide(view: PoolView, now: Now) -> PoolDecision:
    """The next record of a pool and why."""
    raise NotImplementedError
