"""`understudy what-if NODE`: the machine itself, run ahead of time on supposed views. Pure; nothing is decided by it.

It supposes that every other agent that is heard now does its duty at once, and that nothing else goes wrong. What takes
time besides (writing to the store, killing, promoting) is a constant, or what the last failover took.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from understudy.core.clock import Now
from understudy.core.clusters import decide
from understudy.core.health import fresh
from understudy.core.record import ClusterRecord, DutyKind, Ground, Loss, Phase, wanted_sync
from understudy.core.report import ClusterView, LeaseSeen, NodeReport, NodeSeen, Running
from understudy.core.text import Name
from understudy.core.words import listed, span

STEP_MS = 50
LONGEST_MS = 60_000
TRANSITIONS_AT_ONCE = 20
STORED_MS = 5
"""What each step of the machine takes to be stored and read."""
PROMOTED_MS = 150
"""What killing, freezing and promoting take where no failover has been measured yet."""


class Mishap(StrEnum):
    """What befalls the node."""

    ENGINE = "engine"
    """Its engine dies; its agent lives and says so."""
    HOST = "host"
    """Its machine is gone, or cut off from everybody."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What would come of it. rto_ms None: nobody takes writes without a person's help. loss None: nothing to lose."""

    node: Name
    mishap: Mishap
    winner: Name | None
    rto_ms: int | None
    loss: Loss | None
    reason: str


def what_if(view: ClusterView, node: Name, mishap: Mishap, now: Now) -> Forecast:
    """What would happen if this befell the node now."""
    record = view.record
    if record is None or record.primary is None:
        return Forecast(node, mishap, None, None, None, "Nobody takes writes now, so nothing can be foretold.")
    if node != record.primary:
        return _standby_lost(view, record, node, mishap)
    if record.phase is Phase.PAUSED:
        said = f"The cluster is paused: nobody takes over from {node} before `understudy resume {record.cluster}`."
        return Forecast(node, mishap, None, None, None, said)
    return _primary_lost(view, record, node, mishap, now)


def _primary_lost(view: ClusterView, before: ClusterRecord, node: Name, mishap: Mishap, now: Now) -> Forecast:
    record, phase_since_ms, transitions = before, 0, 0
    for at_ms in range(0, LONGEST_MS, STEP_MS):
        for _ in range(TRANSITIONS_AT_ONCE):
            supposed = _suppose(view, record, node, mishap, at_ms, at_ms - phase_since_ms)
            decided = decide(supposed, Now(now.boot_s + at_ms / 1000, now.wall_s + at_ms / 1000)).record
            if decided is None or decided is record or decided == record:
                break
            transitions += 1
            phase_since_ms = phase_since_ms if decided.phase is record.phase else at_ms
            record = decided
            if record.phase is Phase.PROMOTING:
                return _taken_over(before, record, node, mishap, at_ms + transitions * STORED_MS)
        if record.phase is Phase.BLOCKED and record.blocked is not None:
            said = (
                f"Nobody would take over from {node}: {record.blocked.reason}. Unblock with: {record.blocked.command}"
            )
            return Forecast(node, mishap, None, None, None, said)
    said = f"Nobody would take over from {node} within {span(LONGEST_MS / 1000)}: {record.reason}."
    return Forecast(node, mishap, None, None, None, said)


def _taken_over(before: ClusterRecord, record: ClusterRecord, node: Name, mishap: Mishap, crowned_ms: int) -> Forecast:
    made_ms = 0 if before.ground is Ground.FIRST else before.timings.promote_ms + before.timings.route_ms
    rto_ms = crowned_ms + (made_ms or PROMOTED_MS)  # the birth's times are those of making the first node
    loss = record.loss or Loss(None, "it could not be measured")
    lost = "an unknown amount would be lost" if loss.bytes is None else f"{loss.bytes} bytes would be lost"
    who = "start again" if record.primary == node else f"take over from {node}"
    said = (
        f"{record.primary} would {who} after about {span(rto_ms / 1000)}, by {record.ground}; {lost} ({loss.reason})."
    )
    return Forecast(node, mishap, record.primary, rto_ms, loss, said)


def _standby_lost(view: ClusterView, record: ClusterRecord, node: Name, mishap: Mishap) -> Forecast:
    rule = wanted_sync(record)
    others = {name: fresh(view, name) for name in rule.voters - {node}}
    left = sorted(name for name, report in others.items() if report is not None and not report.hangs)
    drop = span(view.service.timers.drop_ms / 1000)
    if node not in rule.voters or not rule.acks:
        said = f"{record.primary} goes on as before: no commit waits for {node}."
    elif len(left) >= rule.acks:
        said = f"{record.primary} goes on: commits are acknowledged by {listed(left)} alone after at most {drop}."
    else:
        said = f"Writes would wait: a commit needs {rule.acks} of its standbys, and {listed(left)} would be left."
        return Forecast(node, mishap, record.primary, None, None, said)
    return Forecast(node, mishap, record.primary, 0, Loss(0, "the primary goes on"), said)


def _suppose(  # noqa: PLR0917  # all that a supposed view is made of
    view: ClusterView, record: ClusterRecord, node: Name, mishap: Mishap, at_ms: int, phase_age_ms: int
) -> ClusterView:
    """The view as it would be so long after the mishap, everybody else doing what the record says."""
    heard = {name for name, _ in view.nodes if fresh(view, name) is not None}
    nodes = tuple(
        (name, _supposed(seen, record, node, mishap, at_ms, heard=name in heard)) for name, seen in view.nodes
    )
    buried = record.epoch > view.lease.epoch
    lease = LeaseSeen(None if buried else view.lease.owner, record.epoch, at_ms, view.lease.duration_ms)
    return replace(
        view,
        record=record,
        nodes=nodes,
        lease=lease,
        phase_age_ms=phase_age_ms,
        requests=(),
        routed_epoch=record.epoch,
    )


def _supposed(  # all that a supposed sight is made of
    seen: NodeSeen, record: ClusterRecord, node: Name, mishap: Mishap, at_ms: int, *, heard: bool
) -> NodeSeen:
    report = seen.report
    if report is None:
        return seen
    if report.node == node and mishap is Mishap.HOST:
        return NodeSeen(report, at_ms, reachable=False, reachable_age_ms=at_ms)
    if not heard:
        return replace(seen, age_ms=seen.age_ms + at_ms)
    if report.node == node:
        dead = replace(report, running=Running.DEAD, writable=False, promoted_epoch=0, sync=None, clean_stop=False)
        return NodeSeen(_dutiful(dead, record), 0, reachable=False, reachable_age_ms=at_ms)
    link_ms = at_ms if mishap is Mishap.HOST else None
    cut = replace(report, link_age_ms=link_ms) if report.streaming_from == node else report
    return NodeSeen(_dutiful(cut, record), 0)


def _dutiful(report: NodeReport, record: ClusterRecord) -> NodeReport:
    """The report of a node that has done what the record asks of it."""
    duty = record.duty(report.node)
    done = replace(report, record_serial=record.serial, epoch=record.epoch)
    if duty is not None and duty.kind is DutyKind.FROZEN:
        return replace(done, frozen_epoch=record.epoch)
    if duty is not None and duty.kind is DutyKind.CLOSED:
        return replace(done, closed_epoch=record.epoch, running=Running.DEAD)
    return done
