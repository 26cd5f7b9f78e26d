"""Who is told to do what when a primary is crowned, and afterwards as nodes come and go. Pure changes of duties.

RULES: a duty keeps its `since` as long as it says the same. A node with less data than it had is never followed and
never follows as it is: it is rebuilt, its data kept. A fenced node comes back only by rejoining; so does one that
cannot be started as a standby (a rejoin may have been cut short), and one that is new or was away from the spec:
rejoining finds out whether it must be rebuilt. Where nobody reigns such a node is frozen, as all the others are. A
standby that leaves goes on until the commit rule does without it.
"""

from dataclasses import replace
from typing import cast

from understudy.core.health import fresh
from understudy.core.lineage import contains, fits
from understudy.core.record import ClusterRecord, Duty, DutyKind, fork
from understudy.core.report import ClusterView, NodeReport, Running, streams
from understudy.core.text import Name

_FOLLOWING = (DutyKind.STANDBY, DutyKind.REJOIN, DutyKind.REBUILD)


def ordered(record: ClusterRecord, *changed: Duty) -> ClusterRecord:
    """The record with these duties; one that says what it said before stays as it is."""
    duties = {duty.node: duty for duty in record.duties}
    for duty in changed:
        old = duties.get(duty.node)
        if old is None or not old.same_duty(duty):
            duties[duty.node] = replace(duty, since=record.serial + 1)
    listed = tuple(duties[name] for name in sorted(duties))
    return record if listed == record.duties else replace(record, duties=listed)


def ruined(report: NodeReport | None) -> bool:
    """Whether what is on its disk is of no use to a standby."""
    return report is not None and (report.empty or report.less_data or report.needs_rebuild)


def astray(report: NodeReport | None, primary: NodeReport | None) -> bool:
    """Whether it has something that the primary never had, so that it cannot simply follow."""
    mine, its = report.position if report else None, primary.position if primary else None
    return mine is not None and its is not None and mine.branches != its.branches and not contains(its, mine)


def under(view: ClusterView, record: ClusterRecord, name: Name, primary: Name) -> Duty:
    """The duty of a node beside a new primary."""
    report = view.report(name)
    if ruined(report):
        return Duty(name, DutyKind.REBUILD, primary)
    fenced = name == record.previous or (report is not None and (report.closed_epoch > 0 or report.identity is None))
    fenced = fenced or astray(report, view.report(primary))
    return Duty(name, DutyKind.REJOIN if fenced else DutyKind.STANDBY, primary)


def crowned(view: ClusterView, record: ClusterRecord, primary: Name) -> ClusterRecord:
    """The record with `primary` told to lead and everybody else to follow it; who has left stays away."""
    names = [duty.node for duty in record.duties if view.service.node(duty.node)]
    names += [node.name for node in view.service.nodes if node.name not in names]
    others = [under(view, record, name, primary) for name in names if name != primary]
    left = [duty.node for duty in record.duties if view.service.node(duty.node) is None]
    gone = [Duty(name, DutyKind.ABSENT) for name in left if name != primary]  # the last resort may have left, too
    return ordered(record, Duty(primary, DutyKind.PRIMARY), *others, *gone)


def joined(view: ClusterView, record: ClusterRecord) -> tuple[Duty, ...]:
    """The duties of those that came into the spec while nobody reigns, and have data of this cluster.

    Only who is heard: one that is not would have to be accounted for, and cannot win. Any other waits for a primary.
    """
    names = [node.name for node in view.service.nodes if record.duty(node.name) is None]
    reports = [report for name in names if (report := fresh(view, name)) is not None]
    ours = [report.node for report in reports if report.identity == record.identity and not report.empty]
    return tuple(Duty(name, DutyKind.FROZEN) for name in ours)


def tended(view: ClusterView, record: ClusterRecord) -> ClusterRecord:
    """The record with everybody's duty brought up to what is seen: returned, ruined, added, removed."""
    primary = cast("Name", record.primary)  # whoever tends has one
    acknowledging = set[Name]().union(*(rule.voters for rule in record.sync))
    following = {duty.node for duty in record.duties if duty.kind in _FOLLOWING}
    # who leaves goes on, and comes back to go on, until the commit rule does without it
    names = ({node.name for node in view.service.nodes} | (following & acknowledging)) - {primary}
    changed = [_next_duty(view, record, name, primary) for name in sorted(names)]
    gone = [duty.node for duty in record.duties if duty.node not in names and duty.node != primary]
    changed += [Duty(name, DutyKind.ABSENT) for name in gone]
    return _forget_gone(view, ordered(record, *changed), gone)


def _next_duty(view: ClusterView, record: ClusterRecord, name: Name, primary: Name) -> Duty:
    duty, report = record.duty(name), fresh(view, name)
    if duty is None or duty.kind is DutyKind.ABSENT:
        return Duty(name, DutyKind.REBUILD if ruined(view.report(name)) else DutyKind.REJOIN, primary)
    if report is None or report.record_serial < duty.since:
        return duty
    following = streams(report, primary) and not report.closed_epoch and fits(report.position, fork(record))
    rebuilding = duty.kind is DutyKind.REBUILD
    if ruined(report) and not rebuilding:
        return Duty(name, DutyKind.REBUILD, primary)
    ours = report.identity == record.identity
    dead = report.running is Running.DEAD and report.failed_epoch == record.epoch
    copied = rebuilding and report.rebuilt >= duty.since
    settled = copied or duty.kind is DutyKind.STANDBY
    if ours and settled and not following and (dead or astray(report, view.report(primary))):
        return Duty(name, DutyKind.REJOIN, primary)
    back = following and (copied or not rebuilding)
    return Duty(name, DutyKind.STANDBY, primary) if back else duty


def _forget_gone(view: ClusterView, record: ClusterRecord, gone: list[Name]) -> ClusterRecord:
    """Drop the duty of a node that has left, once nothing counts on it and its engine is not known to run."""
    counted = set[Name]().union(*(rule.voters for rule in record.sync), *record.electorates)
    away = {name for name in gone if name not in counted and not _known_to_run(view, name)}
    kept = tuple(duty for duty in record.duties if duty.node not in away)
    return replace(record, duties=kept) if away else record


def _known_to_run(view: ClusterView, name: Name) -> bool:
    """Whether its engine was up when it was last heard, and that is not too long ago: a dead host never says so.

    One that runs all the same is stopped by its own agent when that reads a record without it.
    """
    seen = view.seen(name)
    if seen is None or seen.report is None or seen.report.running is Running.DEAD:
        return False
    return seen.age_ms < view.service.timers.elector_drop_ms
