"""What is seen, remembered and decided of one pool, as frozen values; no decisions live here.

Callers import these names from core.pools, the front of everything about pools.
"""

from dataclasses import dataclass
from enum import StrEnum

from understudy.core.events import Event
from understudy.core.model import Group, PoolService
from understudy.core.objectives import ServiceHealth
from understudy.core.text import Name


class Admin(StrEnum):
    """HAProxy's own words for what an operator wants of a server."""

    READY = "ready"
    DRAIN = "drain"
    MAINT = "maint"


@dataclass(frozen=True, slots=True)
class Hold:
    """An ejected endpoint: until when (wall clock, bounded by the policy's longest hold), how often, why."""

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
    weights_replaced: tuple[tuple[Name, int], ...] = ()
    """The spec's weight that each of them stands in for; when the spec's changes, the run-time weight is dropped."""
    holds: tuple[Hold, ...] = ()
    """Endpoints that are ejected now."""
    past_holds: tuple[Hold, ...] = ()
    """Holds that are over, kept so that the next one is longer; `until_wall_s` is where the good behaviour began."""
    backup_share_percent: int = 0
    ramp: Ramp | None = None
    failed_over: bool = False
    """An operator moved the traffic to the backup group; there it stays until `failback`."""
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
    """Failed connections, broken answers and 5xx; the attempts that another endpoint made good for are among them."""
    retries: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    downs: int = 0
    """How often it was marked down; so that a flap between two looks is not missed."""


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
    agent_lost: bool = False
    """Whether the agent check could not be asked; its last weight then stays in force."""


@dataclass(frozen=True, slots=True)
class PoolSeen:
    """What the router reports of one pool. `failed_requests` counts the clients that got no good answer from us."""

    endpoints: tuple[EndpointSeen, ...]
    sessions: int = 0
    requests: int = 0
    failed_requests: int = 0


@dataclass(frozen=True, slots=True)
class Mark:
    """What an endpoint had counted at a moment (boot clock)."""

    boot_s: float
    requests: int
    errors: int


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is remembered of an endpoint that erred or was marked down lately."""

    endpoint: Name
    since_boot_s: float | None = None
    """When its errors began; None when there was none within the window."""
    marks: tuple[Mark, ...] = ()
    """Its counts since then, oldest first, no further back than the window."""
    downs_boot_s: tuple[float, ...] = ()
    """When it was marked down, oldest first."""
    spared: bool = False
    """It would have been ejected and was not; the journal says so, once as long as the trouble lasts."""


@dataclass(frozen=True, slots=True)
class PoolMemory:
    """What decisions remember from look to look; not stored: after a restart of the agent it begins empty."""

    troubles: tuple[Trouble, ...] = ()
    open_groups: tuple[Group, ...] = ()
    """Groups in which nearly all endpoints look bad, so that none is ejected (fail open)."""
    health: ServiceHealth | None = None
    """The service's health that the journal was told last."""
    primary_stood: bool = False
    """The primary group was seen in its strength; until then its endpoints may just not have started yet."""
    taken_over: bool | None = None
    """Whether the router itself has moved all traffic to the backup group, as far as the journal was told."""
    ramp_boot_s: float | None = None
    """When a ramp was last looked after; None when none was under way."""
    decided: tuple[PoolService, PoolRecord] | None = None
    """What the last decision was about, and its outcome: when neither changed, nor what was seen, nothing is to do."""


@dataclass(frozen=True, slots=True)
class PoolView:
    """All that a decision about a pool may rest on. `previous` is what the last decision saw, `memory` what it said."""

    service: PoolService
    record: PoolRecord
    seen: PoolSeen
    previous: PoolSeen | None
    memory: PoolMemory = PoolMemory()


@dataclass(frozen=True, slots=True)
class PoolDecision:
    """What to store, then do, then publish; and what to hand to the next decision."""

    record: PoolRecord
    events: tuple[Event, ...]
    memory: PoolMemory = PoolMemory()
