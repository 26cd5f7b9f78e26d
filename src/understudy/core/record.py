"""What is decided about a cluster: one record in the store, changed only by compare-and-swap under the steward lease.

The record is written before any action that it orders. What an agent has to do with its node is a *duty* in it:
declarative, idempotent, under the record's epoch; so a steward may die at any moment and the next one goes on here.
"""

from dataclasses import dataclass
from enum import StrEnum

from understudy.core.lineage import Position
from understudy.core.text import Name


class Phase(StrEnum):
    """Where a cluster's failover stands."""

    BOOTSTRAPPING = "bootstrapping"
    STEADY = "steady"
    SUSPECT = "suspect"
    CONFIRMED = "confirmed"
    FENCING = "fencing"
    ELECTING = "electing"
    PROMOTING = "promoting"
    ROUTING = "routing"
    REJOINING = "rejoining"
    HANDING_OVER = "handing_over"
    PAUSED = "paused"
    BLOCKED = "blocked"


class Ground(StrEnum):
    """Why a promotion cannot make two primaries (docs/decisions/0010)."""

    FENCED = "fenced"
    """The old primary is verified dead, and marked so on its disk, under this epoch."""
    LEASE = "lease"
    """Its lease has run out by the steward's own clock, and enough electors are frozen."""
    REVOCATION = "revocation"
    """Enough voters are frozen that nothing it still accepts can be acknowledged."""
    FIRST = "first"
    """There has never been a primary, and no data: its first ones are made. Nobody is let in before that is over."""
    FOUND = "found"
    """There has never been a primary of ours; the data were there before."""
    SWORN = "sworn"
    """A person swore that the old primary's machine is off."""


class DutyKind(StrEnum):
    """What an agent has to do with its node."""

    PRIMARY = "primary"
    STANDBY = "standby"
    FROZEN = "frozen"
    CLOSED = "closed"
    HANDING_OVER = "handing_over"
    REJOIN = "rejoin"
    REBUILD = "rebuild"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Duty:
    """One node's duty. `source` is whom to follow, rejoin or rebuild from."""

    node: Name
    kind: DutyKind
    source: Name | None = None
    since: int = 0
    """The record's serial when it was ordered: tells a second rebuild from the first."""
    consent: bool = False
    """A person agreed that this node's data, another cluster's too, is put aside (and destroyed where no copy fits)."""

    def same_duty(self, other: "Duty") -> bool:
        """Whether both tell the node the same, whenever they were ordered."""
        mine = (self.node, self.kind, self.source, self.consent)
        return mine == (other.node, other.kind, other.source, other.consent)


@dataclass(frozen=True, slots=True)
class SyncConfig:
    """A commit rule: a write is acknowledged when `acks` of `voters` have it. acks 0 asks nobody (asynchronous)."""

    voters: frozenset[Name]
    acks: int
    serial: int = 0
    """Of the record that ordered it: tells the same rule, ordered again, from its first time."""

    def same_rule(self, other: "SyncConfig") -> bool:
        """Whether both ask the same."""
        return self.voters == other.voters and self.acks == other.acks


@dataclass(frozen=True, slots=True)
class Loss:
    """What a failover lost, as far as it is known: None means that it could not be measured. `reason` says how."""

    bytes: int | None
    reason: str


class Origin(StrEnum):
    """Out of what a cluster got blocked."""

    CONFIRMED = "confirmed"
    FENCING = "fencing"
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class Blocked:
    """Why nothing goes on, and the exact command that a person can give."""

    origin: Origin
    reason: str
    command: str
    """Empty when none helps; then `cure` says what does."""
    cure: str = ""

    def __str__(self) -> str:
        """The whole of it, as a person reads it."""
        way_out = f"Unblock with: {self.command}" if self.command else f"No command helps; {self.cure}."
        return f"{self.reason}. {way_out}"


class RequestKind(StrEnum):
    """What a person asks of a cluster."""

    SWITCHOVER = "switchover"
    FAILOVER = "failover"
    PAUSE = "pause"
    RESUME = "resume"
    REBUILD = "rebuild"


@dataclass(frozen=True, slots=True)
class Request:
    """A person's wish, taken into the record with the transaction that removes it from the queue. id 0: nobody's."""

    id: int
    kind: RequestKind
    node: Name | None = None
    """Whom to switch over to, or to rebuild; None lets us choose."""
    accept_loss: bool = False
    """For a failover: promote the best that is left, whatever it lacks."""
    sworn_off: frozenset[Name] = frozenset()
    """For a failover: the machines of these nodes are off; a person has looked."""
    by: str = ""


@dataclass(frozen=True, slots=True)
class Timings:
    """How long each step of the present or last failover took, each by the clock of whoever was steward.

    A change of steward hides what passed before the new one looked.
    """

    detect_ms: int = 0
    confirm_ms: int = 0
    fence_ms: int = 0
    promote_ms: int = 0
    route_ms: int = 0


@dataclass(frozen=True, slots=True)
class ClusterRecord:
    """Everything decided about one cluster."""

    cluster: Name
    identity: str
    """Drawn once when the cluster was born; nodes keep it too, so that another cluster's record is never obeyed."""
    epoch: int
    serial: int
    """+1 with every stored change, across epochs: agents say what they have read; a restored store is behind them."""
    phase: Phase
    primary: Name | None
    """Who takes writes in this epoch, or is about to; None from `fencing` until the next one is crowned."""
    previous: Name | None
    """Whose silence must be proven before the next promotion. None: unknown (the record was made anew), or no one."""
    duties: tuple[Duty, ...]
    sync: tuple[SyncConfig, ...]
    """Every rule that may be in force on the one who may still acknowledge, the wanted one last."""
    electorates: tuple[frozenset[Name], ...]
    """Every set of nodes whose majority may promise to the primary while the store is away; one or two, wanted last."""
    electorate_serial: int = 0
    """The serial at which the last electorate was added."""
    sync_mark: Position | None = None
    """The primary's position when the wanted rule was first seen in force: what its voters must reach before the older
    rule is forgotten."""
    start: Position | None = None
    """Where the last crowned primary stood when it was crowned. Everything acknowledged in earlier epochs is in it."""
    held: bool = False
    """Whether as many voters of its rule as must acknowledge stood there too: it need not wait until they say so."""
    began: Position | None = None
    """Where its own branch begins by its own word, once it was promoted: an engine may have had a little more."""
    known: Position | None = None
    """The last position that a primary was known to have reached."""
    ground: Ground | None = None
    target: Name | None = None
    """Who is to take over in a switchover."""
    request: Request | None = None
    """The wish that is being carried out."""
    accept_loss: bool = False
    """A person accepted loss for the failover under way."""
    sworn_off: frozenset[Name] = frozenset()
    """Whose machines are off in the failover under way, by a person's oath."""
    tried: tuple[Name, ...] = ()
    """Whose promotion failed in the failover under way."""
    blocked: Blocked | None = None
    loss: Loss | None = None
    """Of the last failover."""
    timings: Timings = Timings()
    failback_wall_s: float = 0.0
    """When the last handover that nobody asked for began (a failback, or away from a node that left the spec), or when
    that was forgotten with an older record, by a wall clock; the hold that it makes is bounded by failback_every_s."""
    reason: str = ""
    """The sentence of the row that led here."""
    spec: int = 0
    """The version of the newest spec by which anything was decided: who has an older one must not decide any more."""
    store: str = ""
    """The incarnation of the store in which it was written. In another one, a backup that was put back, it may be
    followed by more that is lost; empty where that cannot be told."""
    owed: Position | None = None
    """Where the primary stood when a rule that loses nothing was last given up: what had been acknowledged under it
    must be in whoever wins, whatever may be lost by now."""

    def duty(self, node: Name) -> Duty | None:
        """The duty of that node."""
        for duty in self.duties:
            if duty.node == node:
                return duty
        return None


def fork(record: ClusterRecord) -> Position | None:
    """Where the primary's own branch begins, as far as it is known: who has more of the one before cannot follow it."""
    return record.began or record.start


def wanted_sync(record: ClusterRecord) -> SyncConfig:
    """The commit rule that the primary is to have."""
    return record.sync[-1]
