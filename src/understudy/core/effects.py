"""What each effect of the table does to a record, and what is told of it. Pure; one idempotent function an effect.

RULES: nothing here chooses a phase (the table does) or looks at anything but the case it is given; what is cast to be
there is there by the condition of every row that has the effect. Stored sentences
hold nothing that changes by the second, or every look would be a write.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

from understudy.core import adoption, duties, grounds, sync
from understudy.core.classify import Assessment
from understudy.core.clock import Now
from understudy.core.election import Candidate, last_known, loss
from understudy.core.events import Event, EventKind, Fact
from understudy.core.fsm import Effect, Row
from understudy.core.health import fresh
from understudy.core.lineage import Position, contains, further
from understudy.core.record import (
    Blocked,
    ClusterRecord,
    Duty,
    DutyKind,
    Ground,
    Loss,
    Origin,
    Phase,
    Request,
    RequestKind,
    SyncConfig,
    Timings,
)
from understudy.core.report import ClusterView, LeaseOrder
from understudy.core.requests import FAILBACK, target_of
from understudy.core.text import Name
from understudy.core.words import listed, span


@dataclass(frozen=True, slots=True)
class Case:
    """All that an effect may rest on."""

    view: ClusterView
    row: Row
    seen: Assessment
    head: Request | None
    now: Now


@dataclass(frozen=True, slots=True)
class Draft:
    """The decision so far."""

    record: ClusterRecord
    events: tuple[Event, ...] = ()
    done: tuple[int, ...] = ()
    lease: LeaseOrder | None = None

    def tell(self, kind: EventKind, reason: str, subject: Name | None = None, **data: Fact) -> "Draft":
        """The draft with one more event."""
        event = Event(kind, reason, self.record.cluster, subject, tuple(data.items()))
        return replace(self, events=(*self.events, event))

    def with_record(self, record: ClusterRecord) -> "Draft":
        """The draft with this record."""
        return self if record is self.record else replace(self, record=record)


def apply(effect: Effect, draft: Draft, case: Case) -> Draft:
    """Carry out one effect."""
    return _EFFECTS[effect](draft, case)


def _tend(draft: Draft, case: Case) -> Draft:
    """Duties, commit rule and electorate, each one step further, and what is to be told of it."""
    before = draft.record
    after = sync.tended(case.view, duties.tended(case.view, before))
    draft = draft.with_record(after)
    for duty in after.duties:
        draft = _tell_duty(draft, before.duty(duty.node), duty)
    for duty in before.duties:
        if after.duty(duty.node) is None:
            draft = draft.tell(EventKind.NODE_REMOVED, f"{duty.node} has left the cluster.", duty.node)
    if after.sync != before.sync:
        draft = draft.tell(EventKind.SYNC_CHANGED, _rules(after))
    if after.electorates != before.electorates:
        words = ", and of ".join(f"{{{listed(sorted(one), most=9)}}}" for one in after.electorates)
        draft = draft.tell(
            EventKind.ELECTORATE_CHANGED, f"While the store is away, a majority of {words} must promise."
        )
    return draft


def _tell_duty(draft: Draft, before: Duty | None, now: Duty) -> Draft:
    if before is now or (before is not None and before.kind is now.kind):
        return draft
    kind, said = {
        DutyKind.STANDBY: (EventKind.NODE_RETURNED, f"{now.node} follows {now.source} again."),
        DutyKind.REJOIN: (EventKind.NODE_REJOINING, f"{now.node} rejoins {now.source}."),
        DutyKind.REBUILD: (
            EventKind.NODE_REBUILDING,
            f"{now.node} is copied anew from {now.source}: what is on its disk cannot be followed up; it is kept.",
        ),
        DutyKind.ABSENT: (EventKind.NODE_REMOVED, f"{now.node} is no longer in the spec: its engine is stopped."),
    }[now.kind]
    if before is None or (before.kind is DutyKind.ABSENT and now.kind is not DutyKind.ABSENT):
        draft = draft.tell(EventKind.NODE_ADDED, f"{now.node} joins the cluster.", now.node)
    return draft.tell(kind, said, now.node)


def _rules(record: ClusterRecord) -> str:
    words = [f"{rule.acks} of {listed(sorted(rule.voters), most=9)}" if rule.acks else "nobody" for rule in record.sync]
    under_way = " (until all is there)" if len(words) > 1 else ""
    return f"Commits are acknowledged by {', and '.join(words)}{under_way}."


def _open_epoch(draft: Draft, case: Case) -> Draft:
    """Epoch + 1, the old lease's key overwritten, the old primary closed, everybody else frozen."""
    record = draft.record
    old = record.primary or record.previous
    report = case.view.report(old) if old else None
    asked = record.request if record.request and record.request.kind is RequestKind.FAILOVER else None
    failed = record.phase is Phase.PROMOTING and record.primary is not None
    told = last_known(case.view, record) if failed and record.known else record.known
    others = {duty.node for duty in record.duties} | {node.name for node in case.view.service.nodes}
    opened = duties.ordered(
        record,
        *([Duty(old, DutyKind.CLOSED)] if old else []),
        *(Duty(name, DutyKind.FROZEN) for name in sorted(others - {old})),
    )
    opened = replace(
        opened,
        epoch=record.epoch + 1,
        primary=None,
        previous=old,
        held=False,
        known=further(told, (report.had or report.position) if report else None),
        request=asked,
        ground=None,
        target=None,
        accept_loss=asked.accept_loss if asked else record.accept_loss and failed,
        sworn_off=asked.sworn_off if asked else frozenset(),
        tried=(*(name for name in record.tried if name != old), *([old] if old else ())) if failed else (),
    )
    said = f"{old} loses the part in epoch {opened.epoch}: {case.row.sentence} ({case.seen.verdict})."
    draft = replace(draft, lease=LeaseOrder(None, opened.epoch)).with_record(opened)
    return draft.tell(EventKind.FAILOVER_STARTED, said, old, epoch=opened.epoch)


def _freeze(draft: Draft, case: Case) -> Draft:
    """Whoever has joined stops where it is, and may be elected."""
    added = duties.joined(case.view, draft.record)
    if not added:
        return draft
    draft = draft.with_record(duties.ordered(draft.record, *added))
    for duty in added:
        draft = draft.tell(EventKind.NODE_ADDED, f"{duty.node} joins the cluster.", duty.node)
    return draft


def _prove(draft: Draft, case: Case) -> Draft:
    """The ground, for whoever crowns."""
    return draft.with_record(replace(draft.record, ground=case.seen.ground))


def _crown(draft: Draft, case: Case) -> Draft:
    """The elected winner, under the same epoch."""
    winner, ground = cast("Name", case.seen.election.winner), cast("Ground", case.seen.ground)
    lost = loss(case.view, draft.record, winner)
    return _enthrone(draft, case, winner, ground, lost)


def _crown_target(draft: Draft, case: Case) -> Draft:
    """The target of a switchover, in a new epoch: the old primary's clean stop is the ground."""
    record, target = draft.record, cast("Name", draft.record.target)
    opened = replace(record, epoch=record.epoch + 1, previous=record.primary, primary=None)
    lost = Loss(0, "the old primary stopped cleanly and the new one has all of it")
    return _enthrone(draft.with_record(opened), case, target, Ground.FENCED, lost)


def _enthrone(draft: Draft, case: Case, winner: Name, ground: Ground, lost: Loss) -> Draft:
    """Make `winner` the primary of the record's epoch; everybody else follows it from now on.

    They follow at once, since a primary that may not open before standbys have its history needs them.
    """
    record = draft.record
    report = case.view.report(winner)
    position = report.position if report else None
    known = last_known(case.view, record)
    if position is None and record.accept_loss:
        record, known = replace(record, start=None), None  # it may lack both, and a person has agreed to that
    rules = sync.first_rules(case.view, record, winner, position)
    crowned = duties.crowned(case.view, record, winner)
    crowned = replace(
        crowned,
        primary=winner,
        ground=ground,
        sync=rules,
        sync_mark=None,
        electorates=(sync.first_electorate(case.view, record, winner),),
        electorate_serial=record.serial + 1,
        start=position or record.start,
        began=None,
        held=_held(case.view, crowned, rules[-1], position),
        known=further(known, position),  # of one that reigned, until this one does
        loss=lost,
        owed=_owed(record, rules, position),
    )
    candidates = case.seen.election.candidates
    refused = [f"{one.node} {one.refusal}" for one in candidates if one.refusal]
    why = f"; passed over: {listed(refused, most=9)}" if refused else ""
    said = f"{winner} gets the part in epoch {record.epoch}, at {position or 'an unknown position'}, by {ground}{why}."
    draft = replace(draft, lease=LeaseOrder(winner, record.epoch)).with_record(crowned)
    # Values for programs, and for whoever asks later how it was decided.
    considered: dict[str, Fact] = {
        f"candidate_{one.node}": f"at {one.position or 'an unknown position'}: {one.refusal or _eligible(one)}"
        for one in candidates
    }
    facts: dict[str, Fact] = {"epoch": record.epoch, "ground": str(ground), **considered}
    return draft.tell(EventKind.CLUSTER_CROWNED, said, winner, **facts)


def _held(view: ClusterView, crowned: ClusterRecord, rule: SyncConfig, position: Position | None) -> bool:
    """Whether enough of the rule's voters stand exactly where the winner does; they can follow it as they are.

    Who has more would have to go back first, and could lose what it has on the way.
    """
    if position is None or not rule.acks or crowned.phase is Phase.BOOTSTRAPPING:
        return False
    standbys = [duty.node for duty in crowned.duties if duty.kind is DutyKind.STANDBY and duty.node in rule.voters]
    reports = [one for name in standbys if (one := fresh(view, name))]
    same = [one for one in reports if one.identity == crowned.identity and one.position == position]
    return len(same) >= rule.acks


def _eligible(one: Candidate) -> str:
    return "eligible" if one.position else "eligible with whatever is on its own disk, if nobody else is"


def _owed(record: ClusterRecord, rules: tuple[SyncConfig, ...], position: Position | None) -> Position | None:
    """What may never be lost from this crown on, beside what the new rules promise."""
    if record.accept_loss:
        return record.owed if record.owed and position and contains(position, record.owed) else None
    loosened = any(rule.acks for rule in record.sync) and not any(rule.acks for rule in rules)
    return position if loosened and position and record.phase is not Phase.BOOTSTRAPPING else record.owed


def _begin_reign(draft: Draft, case: Case) -> Draft:
    """Where the reign really begins, by its own word: at the crown it may not have been readable."""
    record = draft.record
    report = case.view.report(cast("Name", record.primary))
    position = report.position if report else None
    if position is None:
        return draft
    start = record.start or Position(position.branches, position.branches[-1].start)
    began = Position(position.branches[:-1] or position.branches, position.branches[-1].start)
    return draft.with_record(replace(record, start=start, began=began, known=position))


def _crown_old(draft: Draft, case: Case) -> Draft:
    """The way back out of a switchover: the old primary again, under the same epoch and its own lease."""
    record, primary = draft.record, cast("Name", draft.record.primary)
    back = duties.ordered(record, Duty(primary, DutyKind.PRIMARY))
    # No longer the ground of its first promotion: by that one, an empty disk would be made a new database.
    back = replace(back, target=None, ground=Ground.FENCED, held=False, loss=Loss(0, "the old primary went on"))
    said = f"{primary} keeps the part: {case.row.sentence}."
    return draft.with_record(back).tell(EventKind.SWITCHOVER_ABORTED, said, primary)


def _hand_over(draft: Draft, case: Case) -> Draft:
    record, head = draft.record, cast("Request", case.head)
    primary, target = cast("Name", record.primary), cast("Name", target_of(case.view, record, head))
    by_us = head.id == 0
    handing = replace(
        duties.ordered(record, Duty(primary, DutyKind.HANDING_OVER)),
        target=target,
        failback_wall_s=case.now.wall_s if by_us else record.failback_wall_s,
    )
    draft = draft.with_record(handing)
    if head.by == FAILBACK:
        draft = draft.tell(EventKind.FAILBACK_STARTED, f"{target} is preferred and all has been well.", target)
    said = f"{primary} hands over to {target}; clients wait meanwhile."
    return draft.tell(EventKind.SWITCHOVER_STARTED, said, target)


def _conclude(draft: Draft, case: Case) -> Draft:
    """Say what it took and what was lost."""
    record, took = draft.record, draft.record.timings
    if record.ground in (Ground.FIRST, Ground.FOUND) and record.request is None:
        return draft.tell(EventKind.CLUSTER_BORN, f"{record.primary} takes the first writes.", record.primary)
    kind = EventKind.FAILOVER_DONE
    if record.request is not None and record.request.kind is RequestKind.SWITCHOVER:
        kind = EventKind.SWITCHOVER_DONE if record.target == record.primary else EventKind.SWITCHOVER_ABORTED
    route_ms = case.view.phase_age_ms
    steps = (took.detect_ms, took.confirm_ms, took.fence_ms, took.promote_ms, route_ms)
    lost = record.loss or Loss(None, "it was not measured")
    words = "an unknown amount" if lost.bytes is None else f"{lost.bytes} bytes"
    report = case.view.report(record.primary) if record.primary else None
    opened = "takes writes" if report and report.writable else "takes writes once enough standbys have its history,"
    said = f"{record.primary} {opened} after {span(sum(steps) / 1000)}; lost: {words} ({lost.reason})."
    names = ("detect_s", "confirm_s", "fence_s", "promote_s", "route_s")
    data = dict(zip(names, (step / 1000 for step in steps), strict=True))
    return draft.tell(kind, said, record.primary, epoch=record.epoch, lost_bytes=lost.bytes, **data)


def _take_request(draft: Draft, case: Case) -> Draft:
    head = cast("Request", case.head)
    done = (*draft.done, head.id) if head.id else draft.done
    draft = replace(draft, record=replace(draft.record, request=head), done=done)
    if not head.id:
        return draft
    by = f" by {head.by}" if head.by else ""
    return draft.tell(EventKind.REQUEST_TAKEN, f"The {head.kind} asked{by} begins.", head.node)


def _finish_request(draft: Draft, case: Case) -> Draft:
    del case
    done = replace(draft.record, request=None, accept_loss=False, sworn_off=frozenset(), tried=(), target=None)
    return draft.with_record(done)


def _block(draft: Draft, case: Case) -> Draft:
    """Write down why, and the command that unblocks."""
    record = draft.record
    blocked = _why_blocked(record, case)
    if blocked == record.blocked:
        return draft
    before, foreign = record.blocked, blocked.origin is Origin.FOREIGN
    if foreign and (before is None or before.origin is not Origin.FOREIGN):
        record = replace(record, accept_loss=False, sworn_off=frozenset())  # given for another time
    draft = draft.with_record(replace(record, blocked=blocked))
    return draft.tell(EventKind.CLUSTER_BLOCKED, str(blocked), record.primary, command=blocked.command)


def _why_blocked(record: ClusterRecord, case: Case) -> Blocked:
    failover, situation = f"understudy failover {record.cluster}", case.seen.situation
    if situation.foreign:
        return _why_foreign(record, case, f"{failover} --accept-loss")
    if record.phase is Phase.CONFIRMED or (record.blocked and record.blocked.origin is Origin.CONFIRMED):
        return Blocked(Origin.CONFIRMED, f"{record.primary} is lost and failover is manual", failover)
    if not _data_anywhere(record, case.view):
        reason = f"no node that may be promoted has any data: {case.seen.election.refusals}"
        return Blocked(Origin.FENCING, reason, "", "put back the disk of one of them, or a backup of its data")
    if not situation.ground:
        reason = f"the old primary could still take writes: {grounds.missing(case.view, record)}"
        loss = "" if situation.votes else " --accept-loss"
        silent = [record.previous] if record.previous is not None else grounds.unaccounted(case.view, record)
        oath = "".join(f" --sworn-dead {name}" for name in silent)
        return Blocked(Origin.FENCING, reason, f"{failover}{oath}{loss}")
    reason = f"nobody can be promoted without loss: {case.seen.election.refusals}"
    return Blocked(Origin.FENCING, reason, f"{failover} --accept-loss")


def _data_anywhere(record: ClusterRecord, view: ClusterView) -> bool:
    """Whether any node that may be promoted has, or may have, data; without it no flag helps.

    One that has just joined is asked for nothing but data of this cluster.
    """
    known = {node.name: view.report(node.name) for node in view.service.nodes if node.priority}
    ours = {name: (record.identity, None) if record.duty(name) else (record.identity,) for name in known}
    return any(one is None or (not one.empty and one.identity in ours[name]) for name, one in known.items())


def _why_foreign(record: ClusterRecord, case: Case, command: str) -> Blocked:
    strangers = any(one.report and one.report.identity not in (None, record.identity) for _, one in case.view.nodes)
    reason = adoption.suspicion(case.view, record)
    if strangers:
        reason = f"{adoption.disagreement(case.view)}; the record is of cluster {record.identity}"
    blocked = Blocked(Origin.FOREIGN, reason, command)
    if adoption.adoptable(case.view, replace(record, accept_loss=True, blocked=blocked)):
        return blocked
    return Blocked(Origin.FOREIGN, reason, "", "put back the store, or the disks, that belong together")


def _unblock(draft: Draft, case: Case) -> Draft:
    del case
    return draft.with_record(replace(draft.record, blocked=None))


def _adopt(draft: Draft, case: Case) -> Draft:
    made = replace(adoption.remade(case.view, draft.record), failback_wall_s=case.now.wall_s)
    said = f"The record is made anew in epoch {made.epoch}, above what the nodes carry; everybody is frozen first."
    draft = replace(draft, lease=LeaseOrder(None, made.epoch)).with_record(made)
    return draft.tell(EventKind.CLUSTER_ADOPTED, said, epoch=made.epoch)


_SERVED = (Phase.STEADY, Phase.REJOINING, Phase.PAUSED)
"""Where all is done, and what the last failover took stays to be read."""


def timed(view: ClusterView, record: ClusterRecord, row: Row) -> Timings:
    """The timings with what the phase that is left has taken; the next trouble begins anew."""
    took, age_ms, before = record.timings, view.phase_age_ms, row.phase
    if before in _SERVED and row.then in _SERVED:
        return took
    if before in _SERVED:  # what somebody orders had not to be detected
        found = row.then in (Phase.SUSPECT, Phase.CONFIRMED)
        return Timings(detect_ms=_unseen_ms(view, record) if found else 0)
    if before in (Phase.SUSPECT, Phase.CONFIRMED):
        return replace(took, confirm_ms=took.confirm_ms + age_ms)
    if before in (Phase.FENCING, Phase.ELECTING, Phase.BLOCKED, Phase.HANDING_OVER):
        return replace(took, fence_ms=took.fence_ms + age_ms)
    if before is Phase.PROMOTING:
        return replace(took, promote_ms=took.promote_ms + age_ms)
    return replace(took, route_ms=age_ms) if before is Phase.ROUTING else took


def _unseen_ms(view: ClusterView, record: ClusterRecord) -> int:
    """For how long the primary has not been seen well."""
    seen = view.seen(record.primary) if record.primary else None
    if seen is None or seen.report is None:
        return 0
    return max(seen.age_ms, seen.report.probe_failing_ms, seen.report.starved_ms, seen.report.disk_failing_ms)


_EFFECTS: dict[Effect, Callable[[Draft, Case], Draft]] = {
    Effect.TEND: _tend,
    Effect.OPEN_EPOCH: _open_epoch,
    Effect.FREEZE: _freeze,
    Effect.PROVE: _prove,
    Effect.CROWN: _crown,
    Effect.CROWN_TARGET: _crown_target,
    Effect.CROWN_OLD: _crown_old,
    Effect.BEGIN_REIGN: _begin_reign,
    Effect.CONCLUDE: _conclude,
    Effect.HAND_OVER: _hand_over,
    Effect.TAKE_REQUEST: _take_request,
    Effect.FINISH_REQUEST: _finish_request,
    Effect.BLOCK: _block,
    Effect.UNBLOCK: _unblock,
    Effect.ADOPT: _adopt,
}
