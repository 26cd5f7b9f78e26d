"""From a view to the situation that the table looks at. Pure; every field's exact meaning stands here."""

from dataclasses import dataclass

from understudy.core import election, grounds
from understudy.core.adoption import adoptable, foreign
from understudy.core.cluster import Timers
from understudy.core.election import Election, elect
from understudy.core.failover_mode import FailoverMode
from understudy.core.health import Verdict, fresh, hears, judge
from understudy.core.lineage import contains
from understudy.core.record import ClusterRecord, DutyKind, Ground, Origin, Phase, wanted_sync
from understudy.core.report import ClusterView, NodeReport, Running, marked, streams
from understudy.core.situation import Asked, Handover, Judged, Promotion, Situation
from understudy.core.text import Name

_ELECTING = frozenset({Phase.BOOTSTRAPPING, Phase.FENCING, Phase.ELECTING, Phase.BLOCKED})
"""Where it matters who would win."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """The situation, and what it was drawn from."""

    situation: Situation
    verdict: Verdict
    election: Election
    ground: Ground | None


def assess(view: ClusterView, record: ClusterRecord, asked: Asked) -> Assessment:
    """Classify what is seen. `record` is the view's, with the flags of a person's wishes already in it."""
    weighing = record.phase in _ELECTING
    verdict = _judged(view, record)
    written = record.ground if record.phase is Phase.ELECTING else None  # by the steward that saw the proof
    ground = written or (grounds.proven(view, record) if weighing else None)
    chosen = elect(view, record) if weighing else Election(None, ())
    strange = foreign(view, record)
    situation = Situation(
        judged=verdict.judged,
        asked=asked,
        promotion=_promotion(view, record),
        handover=_handover(view, record),
        origin=record.blocked.origin if record.blocked else Origin.CONFIRMED,
        manual=view.service.mode is FailoverMode.MANUAL,
        hope=_hope(view, record),
        ground=ground is not None,
        votes=weighing and election.enough_known(view, record),
        winner=chosen.winner is not None,
        routed=_routed(view, record),
        converged=_converged(view, record),
        late=_late(view, record),
        foreign=strange,
        adoptable=strange and adoptable(view, record),
    )
    return Assessment(situation, verdict, chosen, ground)


def _judged(view: ClusterView, record: ClusterRecord) -> Verdict:
    """The verdict on the primary; one that stopped cleanly in a switchover did as it was told."""
    own = view.report(record.primary) if record.primary else None
    if record.phase is Phase.HANDING_OVER and own and own.running is Running.DEAD and own.clean_stop:
        return Verdict(Judged.DOUBTFUL, (f"{own.node} has stopped as it was told",))
    return judge(view)


def _hope(view: ClusterView, record: ClusterRecord) -> bool:
    """Somebody who could take over is heard, or the primary's own agent, which can close it and start it again.

    Where nobody has the part there is nobody to fence in vain.
    """
    if record.primary is None:
        return True
    own = fresh(view, record.primary)
    return own is not None or election.prospect(view, record)


def _promotion(view: ClusterView, record: ClusterRecord) -> Promotion:
    """Done: promoted under this epoch, its commit rule in force, and open, or waiting for standbys that are away."""
    if record.phase is not Phase.PROMOTING or record.primary is None:
        return Promotion.PENDING
    report, duty = fresh(view, record.primary), record.duty(record.primary)
    if report is not None and (duty is None or report.record_serial < duty.since):
        return Promotion.PENDING
    ruled = report is not None and report.sync == wanted_sync(record) and _promoted(record, report)
    if record.ground is Ground.FIRST:
        return _making(view, record, record.primary, ruled=ruled)
    if report is None:  # without its agent nobody promotes it, whether its engine answers or not
        seen = view.seen(record.primary)
        silent = seen is not None and seen.age_ms > view.service.timers.lease_ms
        lost = silent or judge(view).judged is Judged.LOST
    else:
        if ruled and (report.writable or _alone(view, record, report)):
            return Promotion.DONE
        shrunk = report.less_data and not record.accept_loss  # seen only when it was started: its agent closes it
        lost = shrunk or report.empty or report.failed_epoch == record.epoch
    return Promotion.FAILED if lost else Promotion.PENDING


def _promoted(record: ClusterRecord, report: NodeReport) -> bool:
    return report.running is Running.UP and report.promoted_epoch == record.epoch and not marked(report)


def _making(view: ClusterView, record: ClusterRecord, chosen: Name, *, ruled: bool) -> Promotion:
    """How the very first data stand: done before anybody is let in, once that could be.

    With standbys that do not come, it is done all the same after a while: the cluster is tended only from then on.
    """
    report = fresh(view, chosen)
    late = view.phase_age_ms > view.service.timers.promote_ms
    if ruled and report is not None and (report.covered or late):
        return Promotion.DONE
    return Promotion.UNMADE if late and election.unmade(view, record, chosen) else Promotion.PENDING


def _alone(view: ClusterView, record: ClusterRecord, primary: NodeReport) -> bool:
    """Whether it cannot open before standbys come back: too few stream from it, though they have had time to come."""
    if view.phase_age_ms <= view.service.timers.elect_ms:
        return False  # clients that come to a closed door would only keep the standbys from coming
    rule = wanted_sync(record)
    following = [name for name in rule.voters if (one := fresh(view, name)) and streams(one, primary.node)]
    return not primary.covered and len(following) < rule.acks


def _handover(view: ClusterView, record: ClusterRecord) -> Handover:
    """Ready: the old primary is stopped cleanly and marked closed, and the target has all of it."""
    if record.phase is not Phase.HANDING_OVER or record.primary is None or record.target is None:
        return Handover.WAITING
    old, duty = view.report(record.primary), record.duty(record.primary)
    target = fresh(view, record.target)
    left = view.service.node(record.target) is None
    whole = target is not None and old is not None and _has_all_of(target, old)
    dead = target is not None and target.running is Running.DEAD and not whole
    if target is None or left or dead or election.unfit(view, record, record.target):
        return Handover.FAILED
    if old is None or duty is None or old.record_serial < duty.since:
        return Handover.WAITING
    if old.failed_epoch == record.epoch:
        return Handover.FAILED
    stopped = old.running is Running.DEAD and old.clean_stop and old.closed_epoch >= record.epoch
    if stopped and whole:
        return Handover.READY
    return Handover.FAILED if stopped and _is_stuck(view, target, old) else Handover.WAITING


def _has_all_of(target: NodeReport, old: NodeReport) -> bool:
    return old.position is not None and target.position is not None and contains(target.position, old.position)


def _is_stuck(view: ClusterView, target: NodeReport, old: NodeReport) -> bool:
    """Whether the target will never have what it lacks of an old primary that has stopped.

    That one sent all it had before it stopped, so nothing more comes to who hears nothing (the position was read after
    the link). Who cannot say where it is hangs.
    """
    if target.position is None:
        return view.phase_age_ms >= view.service.timers.hang_ms
    return not hears(target, old.node, view.service.timers)


def _converged(view: ClusterView, record: ClusterRecord) -> bool:
    """Every node of the spec but the primary is a standby that streams from it. Asked where they come back, only."""
    return record.phase is Phase.REJOINING and all(
        (duty := record.duty(node.name)) is not None
        and duty.kind is DutyKind.STANDBY
        and (report := fresh(view, node.name)) is not None
        and streams(report, record.primary)
        for node in view.service.nodes
        if node.name != record.primary
    )


def _routed(view: ClusterView, record: ClusterRecord) -> bool:
    """Whether every live router has followed. At a birth, where nobody is let in before, that must be done too."""
    own = view.report(record.primary) if record.primary else None
    opened = record.ground is not Ground.FIRST or (own is not None and own.writable)
    return opened and view.routed_epoch >= record.epoch


def _late(view: ClusterView, record: ClusterRecord) -> bool:
    """Whether the phase has taken longer than it should. The first data may take as long as they take."""
    if record.phase is Phase.PROMOTING:
        return record.ground is not Ground.FIRST and view.phase_age_ms > _patience_ms(view, record)
    limit_ms = _limits_ms(view.service.timers).get(record.phase)
    return limit_ms is not None and view.phase_age_ms > limit_ms


def _patience_ms(view: ClusterView, record: ClusterRecord) -> int:
    """How long a promotion may take: to try nobody else in its place, but kill a crash recovery, helps no one."""
    timers = view.service.timers
    waits = record.primary is not None and fresh(view, record.primary) and not election.prospect(view, record)
    return timers.stall_ms if waits else timers.promote_ms


def _limits_ms(timers: Timers) -> dict[Phase, int]:
    return {
        Phase.FENCING: timers.fence_ms,
        Phase.ELECTING: timers.elect_ms,
        Phase.ROUTING: timers.route_ms,
        Phase.REJOINING: timers.rejoin_ms,
        Phase.HANDING_OVER: timers.handover_ms,
    }
