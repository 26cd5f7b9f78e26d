"""The sentences of `understudy why SERVICE` for a cluster: where it stands, why, and what the next step needs. Pure.

Also the one sentence about each node. Words only: what is so is asked of the parts that decide.
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum

from understudy.core import election, grounds
from understudy.core.clock import Now
from understudy.core.clusters import unborn
from understudy.core.events import Entry
from understudy.core.health import fresh, judge
from understudy.core.lineage import lacks_bytes
from understudy.core.objectives import ServiceHealth
from understudy.core.record import ClusterRecord, Duty, DutyKind, Phase, wanted_sync
from understudy.core.report import ClusterView, NodeReport, Running, streams
from understudy.core.situation import Judged
from understudy.core.text import Name
from understudy.core.what_if import Mishap, what_if
from understudy.core.words import listed, span

_DECIDING = frozenset({Phase.BOOTSTRAPPING, Phase.FENCING, Phase.ELECTING, Phase.BLOCKED})
LATEST = 3


class NodeHealth(StrEnum):
    """What we believe of a node."""

    UP = "up"
    SUSPECT = "suspect"
    DOWN = "down"
    UNKNOWN = "unknown"


def node_health(view: ClusterView, name: Name) -> NodeHealth:
    """Of the primary by all witnesses, of others by their agents."""
    record, report = view.record, fresh(view, name)
    if record is not None and name == record.primary:
        return _OF_PRIMARY[judge(view).judged]
    if report is None:
        return NodeHealth.UNKNOWN
    if report.running is Running.UP:
        return NodeHealth.SUSPECT if any(so for so, _ in _faults(report)) else NodeHealth.UP
    return NodeHealth.DOWN if report.running is Running.DEAD else NodeHealth.UNKNOWN


_OF_PRIMARY = {
    Judged.WELL: NodeHealth.UP,
    Judged.MUTE: NodeHealth.SUSPECT,
    Judged.DOUBTFUL: NodeHealth.SUSPECT,
    Judged.LOST: NodeHealth.DOWN,
    Judged.DEAD: NodeHealth.DOWN,
}


def cluster_health(view: ClusterView) -> ServiceHealth:
    """Up: the primary takes writes and everybody follows; degraded: it does, and not all is well; down: it does not."""
    record = view.record
    own = fresh(view, record.primary) if record is not None and record.primary is not None else None
    if record is None or not any(fresh(view, name) for name, _ in view.nodes):
        return ServiceHealth.UNKNOWN
    if own is None or not own.writable:
        mute = record.primary is not None and judge(view).judged is Judged.MUTE
        return ServiceHealth.DEGRADED if mute else ServiceHealth.DOWN
    starved = own.starved_ms > 0 or own.probe_failing_ms > 0
    if starved and wanted_sync(record).acks:
        return ServiceHealth.DOWN
    well = all(_well(view, record, node.name) for node in view.service.nodes)
    return ServiceHealth.UP if well and record.phase in {Phase.STEADY, Phase.REJOINING} else ServiceHealth.DEGRADED


def cluster_reason(view: ClusterView) -> str:
    """Where the cluster stands, as one sentence."""
    record = view.record
    if record is None:
        return f"{view.service.name} does not exist yet: {unborn(view)}."
    if record.blocked is not None:
        return f"{record.cluster} is blocked: {record.blocked}"
    if record.primary is None:
        return f"{record.cluster} has no primary ({record.phase}, epoch {record.epoch}): {record.reason}."
    said = f"{record.primary} is primary in epoch {record.epoch} ({record.phase}): {judge(view)}."
    if record.phase is Phase.PAUSED:
        said += f" A person paused it: nobody takes over until `understudy resume {record.cluster}`."
    ill = [node_reason(view, node.name) for node in view.service.nodes if not _well(view, record, node.name)]
    return " ".join([said, *ill])


def node_reason(view: ClusterView, name: Name) -> str:
    """What a node is and does, as one sentence."""
    record, report = view.record, view.report(name)
    if report is None:
        return f"{name} has never been heard: is its agent running?"
    if fresh(view, name) is None:
        seen = view.seen(name)
        return f"{name} has not been heard for {span(seen.age_ms / 1000) if seen else 'ever'}."
    for so, words in _faults(report):
        if so:
            return f"{name} {words}."
    duty = record.duty(name) if record is not None else None
    if record is None or duty is None:
        return f"{name} has no part yet."
    if duty.kind is DutyKind.PRIMARY:
        doing = "takes writes" if report.writable else "is primary, and does not take writes yet"
    else:
        doing = _standing_by(view, record, report, duty)
    return f"{name} {doing}{_failed(report)}."


def _failed(report: NodeReport) -> str:
    """What became of its last order; of one that is being carried out nothing can be said but what was before."""
    if not report.failed_epoch:
        return ""
    how = "this is tried again, after" if report.moves < 0 else "its last order failed"
    return f"; {how}: {report.failure.removesuffix('.')}"


def store_away(
    cluster: Name, record: ClusterRecord | None, silent_s: float, *, reigns: bool | None, promised: Sequence[Name]
) -> str:
    """Since when the store is silent, and what goes on without it, as one sentence.

    reigns: whether a primary of this host takes writes all the same; None when it is another host's. promised: the
    nodes of this host that have promised it not to take over.
    """
    said = f"The store has not answered for {span(silent_s)}"
    if record is None:
        return f"{said}: what became of {cluster} is not known before it does."
    primary = record.primary
    if primary is None:
        return f"{said}: {cluster} had no primary then, and nobody is promoted before it does."
    if reigns:
        return f"{said}: {primary} goes on, as most nodes promise not to take over, and nobody is promoted meanwhile."
    if reigns is not None:
        return f"{said}: {primary} takes no writes, for it is dead, or too few nodes promise not to take over."
    if promised:
        return f"{said}: {primary} was primary then, and {listed(promised)} promised not to take over meanwhile."
    return f"{said}: {primary} was primary then, and goes on as long as most nodes promise not to take over."


def warnings(view: ClusterView) -> tuple[str, ...]:
    """What a person should change about nodes, a sentence each, without the full stop."""
    return tuple(warning for node in view.service.nodes if (one := fresh(view, node.name)) for warning in one.warnings)


def lag_bytes(view: ClusterView, name: Name) -> int | None:
    """How much of the primary's history is not flushed on the node; None when either is not known."""
    record, report = view.record, view.report(name)
    own = view.report(record.primary) if record is not None and record.primary is not None else None
    if report is None or report.position is None or own is None or own.position is None:
        return None
    return lacks_bytes(report.position, own.position)


def cluster_why(view: ClusterView, entries: Sequence[Entry], now: Now) -> tuple[str, ...]:
    """The state first, then each witness and node, what blocks the next step, what a loss would mean, what was last."""
    record = view.record
    if record is None:
        return (cluster_reason(view),)
    return (
        cluster_reason(view),
        *(node_reason(view, name) for name in _standbys(view, record) if _well(view, record, name)),
        *(f"{warning}." for warning in warnings(view)),
        *_next_step(view, record),
        *_rules(view, record),
        *_if_lost(view, record, now),
        *(f"{span(max(0.0, now.wall_s - entry.wall_s))} ago: {entry.event.reason}" for entry in _latest(view, entries)),
    )


def _standbys(view: ClusterView, record: ClusterRecord) -> list[Name]:
    return [node.name for node in view.service.nodes if node.name != record.primary]


def _latest(view: ClusterView, entries: Sequence[Entry]) -> Sequence[Entry]:
    own = [entry for entry in entries if entry.event.service == view.service.name]
    return own[-LATEST:]


def _well(view: ClusterView, record: ClusterRecord, name: Name) -> bool:
    """Whether the node does what it should, and nothing needs to be said of it."""
    report, duty = fresh(view, name), record.duty(name)
    if report is None or duty is None or any(so for so, _ in _faults(report)) or report.failed_epoch:
        return False
    if duty.kind is DutyKind.PRIMARY:
        return report.writable
    return duty.kind is DutyKind.STANDBY and streams(report, record.primary)


def _faults(report: NodeReport) -> Iterator[tuple[bool, str]]:
    yield report.less_data, "came back with less data than it had: it is never followed, and is copied anew"
    yield report.needs_rebuild, "cannot be brought back as it is: its data must be copied anew"
    yield report.running is Running.UNKNOWN, "cannot be looked at: its engine or disk does not answer"
    yield report.hangs, "hangs: its processes are there, and do not answer"
    yield report.disk_failing_ms > 0, f"has a disk that has not answered for {span(report.disk_failing_ms / 1000)}"
    yield report.probe_failing_ms > 0, f"has not executed a write for {span(report.probe_failing_ms / 1000)}"
    yield (
        report.starved_ms > 0,
        f"executes writes, and too few standbys have acknowledged them for {span(report.starved_ms / 1000)}",
    )


def _standing_by(view: ClusterView, record: ClusterRecord, report: NodeReport, duty: Duty) -> str:
    behind = lag_bytes(view, report.node)
    if streams(report, record.primary):
        lag = "how far behind is not known" if behind is None else f"{behind} bytes behind"
        return f"streams from {record.primary}, {lag}"
    words = {
        DutyKind.STANDBY: f"is to follow {duty.source}, and does not stream yet",
        DutyKind.FROZEN: f"is frozen under epoch {report.frozen_epoch}",
        DutyKind.CLOSED: "is closed" if report.running is Running.DEAD else "is to be closed, and its engine runs",
        DutyKind.HANDING_OVER: "hands over",
        DutyKind.REJOIN: f"rejoins {duty.source}",
        DutyKind.REBUILD: f"is copied anew from {duty.source}",
        DutyKind.ABSENT: "waits for its part" if view.service.node(report.node) else "has left the cluster",
    }
    return words.get(duty.kind, f"is {duty.kind}")


def _next_step(view: ClusterView, record: ClusterRecord) -> Iterator[str]:
    """What is missing where a promotion is being decided."""
    if record.phase not in _DECIDING or record.primary is not None:
        return
    if grounds.proven(view, record) is None:
        yield f"No promotion is proven safe yet: {grounds.missing(view, record)}."
    for one in election.elect(view, record).candidates:
        yield f"{one.node} {one.refusal or 'may be promoted'} (at {one.position or 'an unknown position'})."


def _rules(view: ClusterView, record: ClusterRecord) -> Iterator[str]:
    rule = wanted_sync(record)
    if rule.acks:
        yield f"A write is acknowledged when {rule.acks} of {listed(sorted(rule.voters), most=9)} have it on disk."
    elif view.service.durability.max_loss_bytes is not None:
        most = view.service.durability.max_loss_bytes
        yield f"Writes wait for no standby; whoever is more than {most} bytes behind is not promoted."


def _if_lost(view: ClusterView, record: ClusterRecord, now: Now) -> Iterator[str]:
    if record.primary is not None and record.phase in {Phase.STEADY, Phase.SUSPECT, Phase.REJOINING}:
        yield f"If {record.primary}'s machine were lost now: {what_if(view, record.primary, Mishap.HOST, now).reason}"
