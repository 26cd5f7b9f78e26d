"""What a node's own agent has to do next, from the record, its own report, its lease and its promise. Pure.

RULES
1. An agent obeys no record of another cluster, of a lower epoch, or older than one it has read.
2. One step at a time: the next report decides on the next step, so any step may be cut short and done again.
3. Only in `promoting`, only with its own lease armed under this epoch and no promise outstanding to another one, does a
   node become primary; where it did not see the crown come, only after a whole lease in which nobody spoke of a higher
   epoch (the store may have been put back to an older state). An engine that dies in any other phase stays dead until
   the steward has fenced and elected. One that is promoted and still bears the marks of before (its agent died in
   between) is told to promote once more.
4. Whoever may take writes without the duty to is closed, before anything else.
5. First data are made only in `promoting` under the ground FIRST, and nobody is let in before that is over. So whatever
   happens to that disk, and whoever dies, data that somebody was told are safe are never begun anew.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from understudy.core.actions import (
    Action,
    Bootstrap,
    Close,
    Follow,
    Freeze,
    Open,
    Promote,
    Rebuild,
    Rejoin,
    SetSync,
    Start,
    StopGracefully,
)
from understudy.core.clock import Now
from understudy.core.cluster import Timers
from understudy.core.lineage import fits
from understudy.core.record import ClusterRecord, Duty, DutyKind, Ground, Phase, fork, wanted_sync
from understudy.core.report import NodeReport, OwnLease, Promise, Running, marked, streams
from understudy.core.text import Name

_NOTHING: tuple[Action, ...] = ()


@dataclass(frozen=True, slots=True)
class _Case:
    """All that a duty's rule looks at."""

    record: ClusterRecord
    duty: Duty
    report: NodeReport
    armed: bool
    """The guard holds a lease of this epoch."""
    ripe: bool
    """It counts for a promotion."""
    promised: bool
    """A promise to another epoch is still outstanding."""
    common: tuple[Name, str, int, int]
    """Node, identity, epoch and deadline of whatever is ordered."""
    patient: tuple[Name, str, int, int]
    """The same for what may start an engine, which may have to recover, or copies."""


def obey(  # noqa: PLR0917  # all that an agent knows of its own node
    record: ClusterRecord, report: NodeReport, lease: OwnLease, promise: Promise, now: Now, timers: Timers
) -> tuple[Action, ...]:
    """The next steps for the node of `report`; none when it does its duty, has to wait, or must not obey."""
    duty = record.duty(report.node) or Duty(report.node, DutyKind.ABSENT)
    if record.phase is Phase.PAUSED or not _binding(record, report, duty):
        return _NOTHING
    head = (report.node, record.identity, record.epoch)
    case = _Case(
        record,
        duty,
        report,
        armed=lease.epoch == record.epoch and lease.deadline_s > now.boot_s,
        ripe=lease.ripe,
        promised=promise.epoch != record.epoch and promise.until_s > now.boot_s,
        common=(*head, timers.handover_ms),
        patient=(*head, timers.stall_ms),
    )
    return _RULES[duty.kind](case)


def _binding(record: ClusterRecord, report: NodeReport, duty: Duty) -> bool:
    """Whether this record may command this node."""
    ours = report.identity in (None, record.identity) or (duty.kind is DutyKind.REBUILD and duty.consent)
    newest = (record.epoch, record.serial) >= (report.epoch, report.record_serial)
    return ours and (newest or record.epoch > report.epoch)


def _may_write(report: NodeReport) -> bool:
    return report.running is not Running.DEAD and (report.writable or report.promoted_epoch > 0)


def _source(case: _Case) -> Name:
    """Duties that need a source have one."""
    return cast("Name", case.duty.source)


def _close(case: _Case) -> tuple[Action, ...]:
    done = case.report.running is Running.DEAD and case.report.closed_epoch >= case.record.epoch
    return _NOTHING if done else (Close(*case.common),)


def _freeze(case: _Case) -> tuple[Action, ...]:
    report = case.report
    if _may_write(report):
        return (Close(*case.common),)
    if report.frozen_epoch < case.record.epoch:
        return _NOTHING if case.promised else (Freeze(*case.common),)
    if report.running is Running.DEAD and not report.closed_epoch and not report.empty:
        return (Start(*case.patient),)
    return _NOTHING


def _stand_by(case: _Case) -> tuple[Action, ...]:
    report, source = case.report, _source(case)
    if _may_write(report):
        return (Close(*case.common),)
    if report.less_data or report.needs_rebuild or report.empty:
        return _NOTHING  # never followed as it is; the steward orders the rebuild
    if report.closed_epoch:
        return (Rejoin(*case.patient, source),)
    if report.streaming_from != source:
        return (Follow(*case.patient, source, fork(case.record)),)
    return _NOTHING


def _rejoin(case: _Case) -> tuple[Action, ...]:
    report, source = case.report, _source(case)
    if _may_write(report):
        return (Close(*case.common),)
    done = streams(report, source) and not report.closed_epoch and fits(report.position, fork(case.record))
    if case.record.phase is Phase.PROMOTING and report.node not in wanted_sync(case.record).voters:
        return _NOTHING  # clients wait for the new primary, and it for others: it has no time for us yet
    if done or report.needs_rebuild or report.less_data or report.empty:
        return _NOTHING
    return (Rejoin(*case.patient, source),)


def _rebuild(case: _Case) -> tuple[Action, ...]:
    report, duty = case.report, case.duty
    if _may_write(report):
        return (Close(*case.common),)
    source = _source(case)
    if report.rebuilt < duty.since:
        return (Rebuild(*case.patient, source, duty.since, duty.consent),)
    return (Follow(*case.patient, source, fork(case.record)),) if report.streaming_from != source else _NOTHING


def _hand_over(case: _Case) -> tuple[Action, ...]:
    return _NOTHING if case.report.running is Running.DEAD else (StopGracefully(*case.common),)


def _leave(case: _Case) -> tuple[Action, ...]:
    return _NOTHING if case.report.running is Running.DEAD else (Close(*case.common),)


def _lead(case: _Case) -> tuple[Action, ...]:
    report, record = case.report, case.record
    if report.less_data and not record.accept_loss:
        return _close(case)
    if record.phase is Phase.PROMOTING and report.promoted_epoch < record.epoch:
        return _become_primary(case)
    reigns = report.running is Running.UP and report.promoted_epoch == record.epoch
    return _reign(case) if reigns else _NOTHING


def _reign(case: _Case) -> tuple[Action, ...]:
    """What is left to do for one that is promoted."""
    report, record = case.report, case.record
    if marked(report):
        return (Promote(*case.patient, wanted_sync(record)),)
    if report.sync != wanted_sync(record):
        return (SetSync(*case.common, wanted_sync(record)),)
    held = _held(record, report)
    if not report.writable and (report.covered or held) and case.armed and not _making(record):
        return (Open(*case.common, held),)
    return _NOTHING


def _held(record: ClusterRecord, report: NodeReport) -> bool:
    """Whether enough voters are known to have all that this primary has, but for the branch that it has just begun.

    One that was promoted twice in its epoch may have let clients in between.
    """
    mine, start = report.position, record.start
    if not record.held or mine is None or start is None:
        return False
    return mine.branches[:-1] == start.branches and mine.branches[-1].start <= start.offset


def _making(record: ClusterRecord) -> bool:
    """Whether the very first data are being made; nobody is let in before that is over."""
    return record.phase is Phase.PROMOTING and record.ground is Ground.FIRST


def _become_primary(case: _Case) -> tuple[Action, ...]:
    report, record = case.report, case.record
    if report.empty:  # an empty disk is no primary, whatever the record says, but for the first of all
        return (Bootstrap(*case.patient),) if _making(record) else _NOTHING
    if report.running is Running.DEAD:
        return (Start(*case.patient),)
    ripe = case.ripe or _making(record)
    if report.running is Running.UP and case.armed and ripe and not case.promised:
        return (Promote(*case.patient, wanted_sync(record)),)
    return _NOTHING


_RULES: dict[DutyKind, Callable[[_Case], tuple[Action, ...]]] = {
    DutyKind.PRIMARY: _lead,
    DutyKind.STANDBY: _stand_by,
    DutyKind.FROZEN: _freeze,
    DutyKind.CLOSED: _close,
    DutyKind.HANDING_OVER: _hand_over,
    DutyKind.REJOIN: _rejoin,
    DutyKind.REBUILD: _rebuild,
    DutyKind.ABSENT: _leave,
}
