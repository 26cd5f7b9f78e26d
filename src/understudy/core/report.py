"""What is seen of a cluster, and the shape of a decision about it: reports, the view, the decision. Values only.

Ages are by the steward's own boot clock since it first saw that very report; no two clocks are ever compared.
"""

from dataclasses import dataclass
from enum import StrEnum

from understudy.core.cluster import Capabilities, ClusterService
from understudy.core.events import Event
from understudy.core.lineage import Position
from understudy.core.record import ClusterRecord, Duty, Request, SyncConfig
from understudy.core.text import Name


class Running(StrEnum):
    """The engine's process, by its guard."""

    UP = "up"
    STARTING = "starting"
    DEAD = "dead"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class NodeReport:
    """One agent's word about its own node, written to the store on change and with every renewal."""

    node: Name
    counter: int
    """Rises with every report of this agent; its change is what shows life."""
    identity: str | None
    """The cluster identity on the node's disk; None on an empty one."""
    epoch: int
    """The highest epoch the node has on its disk."""
    running: Running
    position: Position | None
    """Flushed, never merely received, and read after everything else in this report; None when it cannot be known, also
    in the middle of a copy."""
    record_serial: int = 0
    """Of the newest record that the agent has read."""
    promoted_epoch: int = 0
    """The epoch under which the running engine was promoted; 0 when it was not: a started engine never is."""
    empty: bool = False
    """There is no data at all on its disk, or only a first bootstrap that was cut short."""
    writable: bool = False
    """Promoted, and clients are let in."""
    covered: bool = True
    """Enough voters of the rule in force have all the history from before it opened (always so when it asks nobody)."""
    replay_lag_bytes: int = 0
    """What is flushed but not applied."""
    streaming_from: Name | None = None
    """Whom it is set to replicate from, the link standing or not."""
    link_age_ms: int | None = None
    """Since the last message over the replication link, by the node's own clock; None without a link. Crossing
    Timers.link_silent_ms is a change that is reported at once."""
    frozen_epoch: int = 0
    """The node acknowledges nothing of a lower epoch and promises nothing to one, durably; `position` is from after."""
    closed_epoch: int = 0
    """The engine was verified dead under this epoch, marked so on disk; 0 again once it rejoined or was promoted."""
    clean_stop: bool = False
    """The engine was stopped gracefully: `position` is all that it ever had."""
    sync: SyncConfig | None = None
    """The commit rule in force on a primary, as its agent last put it in force; None until it has, since it started."""
    probe_failing_ms: int = 0
    """For how long a write on a fresh connection could not be executed, on a primary."""
    slow: bool = False
    """While the probe fails: sessions that were there have been answered all the same, and no process is stopped."""
    starved_ms: int = 0
    """For how long writes were executed but not acknowledged by enough voters, on a primary."""
    disk_failing_ms: int = 0
    hangs: bool = False
    """Its processes are there, and it has answered nothing for Timers.link_silent_ms."""
    warnings: tuple[str, ...] = ()
    """What a person should change about it, a sentence each, without the full stop; nothing rests on them."""
    less_data: bool = False
    """The node came back with less data than it had; False again once it was rebuilt or promoted."""
    had: Position | None = None
    """With less_data: what it had before, as far as its agent knows."""
    moves: int = 0
    """How many deeds were begun after which the node may rightly have less; -1 in the middle of one. With the same
    number, a later agent holds the node to this position: nothing else can, when agent and engine died together."""
    needs_rebuild: bool = False
    """Rejoining cannot bring it back: its data must be copied anew."""
    rebuilt: int = 0
    """Duty.since of the last rebuild that was completed, durable."""
    company: tuple[Name, ...] = ()
    """Who had a duty in the newest record that the agent has read, in the order of their names: whatever any spec says,
    one of them may be primary or acknowledge, if that record is lost."""
    company_identity: str | None = None
    """The cluster's whose record that was: of a node without data (it is being copied), its epoch is of that one."""
    failed_epoch: int = 0
    """The epoch under which it could not do the duty that it has now; 0 again when it can, or has another."""
    failure: str = ""
    """Why not."""


def marked(report: NodeReport) -> bool:
    """Whether it bears a mark on its disk that a promotion takes away."""
    return report.closed_epoch > 0 or report.less_data


def streams(report: NodeReport, source: Name | None) -> bool:
    """Whether its replication link to `source` stands."""
    return report.streaming_from == source and report.link_age_ms is not None


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """A report with its age, and what the steward's own probe of the engine says (a protocol answer, no accept)."""

    report: NodeReport | None
    age_ms: int
    reachable: bool | None = None
    """None when it has not been tried."""
    reachable_age_ms: int = 0
    """For how long the probe has said so."""


@dataclass(frozen=True, slots=True)
class LeaseSeen:
    """The primary lease as this steward sees it: for how long it has shown the same counter, by its own clock.

    A tombstone (or a hand-out) is written on condition of the revision last seen, so the counter in sight is the last
    one; `quiet_ms` goes on from the first sight of that counter, or of the tombstone, if only that was ever seen.
    """

    owner: Name | None
    epoch: int
    quiet_ms: int
    duration_ms: int


@dataclass(frozen=True, slots=True)
class ClusterView:
    """All that a decision about a cluster may rest on. Ages are by this steward's boot clock since its first sight."""

    service: ClusterService
    capabilities: Capabilities
    record: ClusterRecord | None
    nodes: tuple[tuple[Name, NodeSeen], ...]
    lease: LeaseSeen
    phase_age_ms: int
    """Since this steward first saw the record in its phase and epoch."""
    requests: tuple[Request, ...] = ()
    """The operator's queue, the oldest first."""
    routed_epoch: int = 0
    """The lowest epoch that the live routers say they route; without routers, the record's."""
    read: ClusterRecord | None = None
    """The highest record that this steward has ever read: the store may have gone back since, or be empty now."""
    fresh_identity: str = ""
    """Drawn by the shell, used only for a cluster that is born."""
    store: str = ""
    """The store's incarnation; empty where that cannot be told."""

    def seen(self, node: Name) -> NodeSeen | None:
        """What is seen of that node."""
        for name, seen in self.nodes:
            if name == node:
                return seen
        return None

    def report(self, node: Name) -> NodeReport | None:
        """That node's last report, however old."""
        seen = self.seen(node)
        return seen.report if seen else None


@dataclass(frozen=True, slots=True)
class LeaseOrder:
    """What to write over the primary lease in the transaction of the record; no owner makes it a tombstone."""

    owner: Name | None
    epoch: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What to store, and then what follows. The record is the very one of the view when nothing changed.

    ORDER: in one transaction the record, the lease, the events, and the removal of the requests, on condition of the
    record's revision, the lease's revision (where `lease` is given) and the steward's own lease. Nothing is done, told
    or acted on before that is stored.
    """

    record: ClusterRecord | None
    actions: tuple[Duty, ...] = ()
    """The duties that this decision changed. Each agent carries out its own (core/obey.py)."""
    events: tuple[Event, ...] = ()
    requests_done: tuple[int, ...] = ()
    """Ids to remove from the queue: taken into the record, met, or refused (an event says why)."""
    lease: LeaseOrder | None = None


@dataclass(frozen=True, slots=True)
class OwnLease:
    """The primary lease as the node's own agent holds it."""

    epoch: int = 0
    deadline_s: float = 0.0
    """The guard's deadline, by this host's boot clock; the guard is armed with it."""
    ripe: bool = True
    """Whether it counts for a promotion; not at once when the crown was not seen to come, and may be old."""


@dataclass(frozen=True, slots=True)
class Promise:
    """What this node has promised while the store was away: not to freeze or be promoted above `epoch` until then."""

    epoch: int = 0
    until_s: float = 0.0
    """By this host's boot clock."""
