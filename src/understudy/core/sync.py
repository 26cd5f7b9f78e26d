"""Which commit rule and which electorate are wanted, and the steps from one to the next. Pure.

ORDER of a change of the commit rule A -> B, so that an interruption anywhere is safe (an election honours all that are
in `record.sync`): the record says (A, B); the primary puts B in force; its position after that is marked; when enough
voters of B have reached the mark, everything that A acknowledged is with them, and the record says (B). Growing,
shrinking, loosening and tightening are all this one way. The electorate: the record says (E, F); the primary has read
it, and from then on asks both; the record says (F).

RULES: a rule is never loosened silently: with too few standbys left, the last ones stay in it and writes wait.
"""

from dataclasses import replace
from typing import cast

from understudy.core import quorum
from understudy.core.health import fresh, heard
from understudy.core.lineage import Position, Relation, contains, fits, lacks_bytes, relate
from understudy.core.record import ClusterRecord, DutyKind, Phase, SyncConfig, fork, wanted_sync
from understudy.core.report import ClusterView, NodeReport, streams
from understudy.core.text import Name

MOST_RULES = 4
"""How many rules may be under way at once; a standby that comes and goes must not make them grow without end."""

LEAST_ELECTORS = 2
"""A primary never promises to itself alone, if it has standbys: after a lost store nobody could rule that out."""

JOIN_LAG_BYTES = 16 * 1024 * 1024
"""A standby further behind would only hold up commits."""


def first_rules(
    view: ClusterView, record: ClusterRecord, primary: Name, position: Position | None
) -> tuple[SyncConfig, ...]:
    """The rules that count from the crown on, the one to be put in force last.

    Where its position is known, `record.start` stands for all that older rules acknowledged. Where it is not (its disk
    did not answer), nothing does, so they count until the new rule's voters have caught up.
    """
    first = _first_rule(view, record, primary)
    born = record.phase is Phase.BOOTSTRAPPING
    older = () if position is not None or record.accept_loss or born else record.sync
    return (*(rule for rule in older if not rule.same_rule(first)), first)


def _first_rule(view: ClusterView, record: ClusterRecord, primary: Name) -> SyncConfig:
    """The rule under which a new primary starts: who can acknowledge soonest, but never fewer than the spec asks."""
    acks = _acks(view)
    others = [node.name for node in view.service.nodes if node.name != primary]
    reports = heard(view)
    able = [name for name in others if (one := reports.get(name)) and _usable(record, one)]
    running = [name for name in able if name != record.previous and not reports[name].closed_epoch]
    voters = next((tier for tier in (running, able, others) if len(tier) >= acks), others)
    return SyncConfig(frozenset(voters if acks else ()), acks, record.serial + 1)


def first_electorate(view: ClusterView, record: ClusterRecord, primary: Name) -> frozenset[Name]:
    """Who may promise to a new primary: itself and who is heard."""
    reports = heard(view)
    everybody = {node.name for node in view.service.nodes}
    present = {name for name in everybody if name in reports and reports[name].identity == record.identity} | {primary}
    return frozenset(present if len(present) >= LEAST_ELECTORS else everybody)


def tended(view: ClusterView, record: ClusterRecord) -> ClusterRecord:
    """The record one step further towards the wanted rule and electorate; the same when nothing is to be done."""
    primary = fresh(view, cast("Name", record.primary))
    if primary is None:
        return record
    return _electorate_step(view, _rule_step(view, record, primary), primary)


def _rule_step(view: ClusterView, record: ClusterRecord, primary: NodeReport) -> ClusterRecord:
    wanted, newest = _wanted_rule(view, record, primary), wanted_sync(record)
    if not wanted.same_rule(newest) and len(record.sync) < MOST_RULES:
        older = tuple(rule for rule in record.sync if not rule.same_rule(wanted))
        return replace(record, sync=(*older, wanted), sync_mark=None)
    mark = record.sync_mark or primary.position
    if len(record.sync) == 1 or primary.sync != newest or mark is None:
        return record
    reached = frozenset(
        name
        for name in newest.voters
        if (report := fresh(view, name))
        and report.position
        and not report.less_data
        and contains(report.position, mark)
    )
    if quorum.caught_up(newest, reached):
        loosened = not newest.acks and any(rule.acks for rule in record.sync)
        return replace(record, sync=record.sync[-1:], sync_mark=None, owed=mark if loosened else record.owed)
    return replace(record, sync_mark=mark)


def _wanted_rule(view: ClusterView, record: ClusterRecord, primary: NodeReport) -> SyncConfig:
    acks, serial, now = _acks(view), record.serial + 1, wanted_sync(record)
    if not acks:
        return SyncConfig(frozenset(), 0, serial)
    nodes = [node.name for node in view.service.nodes if node.name != primary.node]
    voters = {name for name in nodes if _acknowledges(view, record, name, primary, member=name in now.voters)}
    if len(voters) < acks:  # too few: keep the last ones, also those that are to leave, and let writes wait
        staying = {duty.node for duty in record.duties if duty.kind is not DutyKind.ABSENT}
        kept = voters | (now.voters & (staying | set(nodes)))
        voters = kept if len(kept) >= acks else set(nodes)
    return SyncConfig(frozenset(voters), acks, serial)


def _acknowledges(view: ClusterView, record: ClusterRecord, name: Name, primary: NodeReport, *, member: bool) -> bool:
    """Whether this standby is to count: it streams and is close, or is a member that went away a moment ago."""
    duty, seen = record.duty(name), view.seen(name)
    if duty is None or duty.kind is not DutyKind.STANDBY or seen is None or seen.report is None:
        return False
    report = seen.report
    if not _usable(record, report):
        return False
    if fresh(view, name) is None:
        return member and seen.age_ms < view.service.timers.drop_ms
    if not streams(report, primary.node) or not fits(report.position, fork(record)):
        return False
    mine, its = report.position, primary.position
    if mine is None or its is None:
        return member
    near = lacks_bytes(mine, its) <= JOIN_LAG_BYTES and relate(mine, its) is not Relation.FORKED
    return member or near


def _usable(record: ClusterRecord, report: NodeReport) -> bool:
    ours = report.identity in (None, record.identity)
    return ours and not (report.empty or report.less_data or report.needs_rebuild)


def _acks(view: ClusterView) -> int:
    strict = view.service.durability.zero_loss and view.capabilities.zero_loss_commit
    return view.service.durability.acks if strict else 0


def _electorate_step(view: ClusterView, record: ClusterRecord, primary: NodeReport) -> ClusterRecord:
    if len(record.electorates) > 1:
        read = primary.record_serial >= record.electorate_serial
        return replace(record, electorates=record.electorates[-1:]) if read else record
    wanted = frozenset(
        node.name for node in view.service.nodes if node.name == primary.node or _promises(view, record, node.name)
    )
    too_few = len(wanted) < min(LEAST_ELECTORS, len(view.service.nodes))
    if too_few or wanted == record.electorates[-1]:
        return record
    return replace(record, electorates=(*record.electorates, wanted), electorate_serial=record.serial + 1)


def _promises(view: ClusterView, record: ClusterRecord, name: Name) -> bool:
    """Whether this node counts among those who promise: a member until it has been away long, others when heard."""
    seen = view.seen(name)
    if seen is None or seen.report is None or seen.report.identity != record.identity:
        return False
    member = name in record.electorates[-1]
    return seen.age_ms < view.service.timers.elector_drop_ms if member else fresh(view, name) is not None
