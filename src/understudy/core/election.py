"""Who may win the part: every candidate, and for the others the reason why not. Pure.

RULES
1. Lineage before offsets; unknown is ineligible; flushed counts, received does not.
2. A position counts only when it was read after the node was frozen (or closed) under the record's epoch: before that
   it may still move. A node that came back with less data than it had bears witness to nothing.
3. `record.start` holds everything that was acknowledged in earlier epochs: whoever wins must contain it.
4. Nothing lost: for every commit rule that may be in force, the winner must contain what R > N - W of its voters have,
   or all that the closed old primary has. Bounded loss: it must be within the bound of the last known position.
5. What was acknowledged as never to be lost stays so when the spec allows loss later: a rule that asks somebody binds
   as long as it may be in force, and `record.owed` afterwards.
6. A node that left the spec and still has a duty wins only when it has more than any other that could: a disk that
   lost what it had confirmed may not know it, and then this one has what was acknowledged.
"""

from dataclasses import dataclass

from understudy.core import quorum
from understudy.core.health import fresh, heard
from understudy.core.lineage import Position, Relation, contains, further, lacks_bytes, relate
from understudy.core.record import ClusterRecord, Loss, Phase, SyncConfig
from understudy.core.report import ClusterView, NodeReport, Running
from understudy.core.text import Name
from understudy.core.words import listed


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node considered. `refusal` is empty when it may win."""

    node: Name
    position: Position | None
    refusal: str


@dataclass(frozen=True, slots=True)
class Election:
    """The winner, if there is one, and everybody considered, the best first."""

    winner: Name | None
    candidates: tuple[Candidate, ...]

    @property
    def refusals(self) -> str:
        """Why each of the others cannot win, as one clause."""
        return listed([f"{one.node} {one.refusal}" for one in self.candidates if one.refusal], most=9)


def still(view: ClusterView, record: ClusterRecord) -> dict[Name, NodeReport]:
    """The reports whose positions can no longer move and lack nothing: frozen or closed under the record's epoch.

    However old: both marks are durable.
    """
    return {
        name: seen.report
        for name, seen in view.nodes
        if seen.report is not None
        and seen.report.identity == record.identity
        and max(seen.report.frozen_epoch, seen.report.closed_epoch) >= record.epoch
        and (whole(seen.report) or record.accept_loss)
    }


def frozen(view: ClusterView, record: ClusterRecord) -> frozenset[Name]:
    """Who acknowledges, and promises, nothing to an older epoch any more; the old primary itself does not count."""
    return frozenset(
        name
        for name, seen in view.nodes
        if name != record.previous
        and seen.report is not None
        and seen.report.identity == record.identity
        and seen.report.frozen_epoch >= record.epoch
    )


def closed_old(view: ClusterView, record: ClusterRecord) -> NodeReport | None:
    """The old primary's report, once its engine is verified dead under this epoch."""
    report = view.report(record.previous) if record.previous else None
    return report if report and report.closed_epoch >= record.epoch and report.identity == record.identity else None


def whole(report: NodeReport) -> bool:
    """Whether the node still has all that it ever had."""
    return not report.less_data and not report.empty


def _has_all(view: ClusterView, old: NodeReport) -> bool:
    """Whether the closed old primary's disk is known to lack nothing that was ever on it.

    What a standby has on the very same branch was on the primary's disk first: one that has more, however old its word,
    shows that the disk has lost something, though its own agent did not notice (it died together with the engine).
    """
    mine = old.position
    others = (seen.report.position for _, seen in view.nodes if seen.report and seen.report.identity == old.identity)
    outrun = any(mine and other and other.branches == mine.branches and other.offset > mine.offset for other in others)
    return whole(old) and not outrun


def strict_rules(view: ClusterView, record: ClusterRecord) -> tuple[SyncConfig, ...]:
    """The rules whose every acknowledged write a winner must have; one that asks nobody can never be satisfied.

    All of them where the spec allows no loss; else those that may still be in force from when it did not.
    """
    return record.sync if view.service.durability.zero_loss else tuple(rule for rule in record.sync if rule.acks)


def enough_known(view: ClusterView, record: ClusterRecord) -> bool:
    """Whether an election now could be sure to lose nothing that must not be lost."""
    known, old, rules = still(view, record), closed_old(view, record), strict_rules(view, record)
    if rules and not record.accept_loss:
        placed = frozenset(name for name, report in known.items() if report.position is not None)
        known_enough = quorum.revoked(rules, placed) or (old is not None and _has_all(view, old))
        return known_enough and _patient(view, record)
    return bool(known) and _patient(view, record)


def _patient(view: ClusterView, record: ClusterRecord) -> bool:
    """Whether everybody fit who is heard has been waited for, or for long enough: who comes later may be better."""
    known = still(view, record)
    others = (name for name in heard(view) if name != record.previous)
    waiting = any(name not in known and not unfit(view, record, name) for name in others)
    return not waiting or view.phase_age_ms >= view.service.timers.elect_ms


def prospect(view: ClusterView, record: ClusterRecord) -> bool:
    """Whether those other nodes that are heard now could bring forth a winner, if all of them froze as they are."""
    others = {name: report for name, report in heard(view).items() if name != record.primary}
    voters = frozenset(name for name, report in others.items() if report.identity == record.identity and whole(report))
    rules = strict_rules(view, record)
    owed = [one for one in (record.owed, record.start if rules else None) if one is not None]
    fit = [name for name, one in others.items() if not unfit(view, record, name) and _keeps(one.position, owed)]
    if rules and not (fit and quorum.revoked(rules, voters)):
        return False
    if view.service.durability.zero_loss:
        return True
    last = (_position(view, record.primary) if record.primary else None) or record.known
    return any((mine := others[name].position) and not _beyond_bound(view, mine, last) for name in fit)


def _keeps(position: Position | None, owed: list[Position]) -> bool:
    return all(position is not None and contains(position, one) for one in owed)


def elect(view: ClusterView, record: ClusterRecord) -> Election:
    """Weigh every node of the spec, and those that have left it and still have a duty."""
    if record.phase is Phase.BOOTSTRAPPING:
        return _first(view, record)
    names = [node.name for node in view.service.nodes]
    names += [duty.node for duty in record.duties if duty.node not in names]
    candidates = [Candidate(name, _position(view, name), _refusal(view, record, name)) for name in names]
    ranked = sorted(candidates, key=lambda one: _rank(view, record, one, candidates))
    winner = ranked[0].node if ranked and not ranked[0].refusal else None
    return Election(winner, tuple(ranked))


def loss(view: ClusterView, record: ClusterRecord, winner: Name) -> Loss:
    """What is known to be missing in the winner, of what the old primary is known to have had."""
    if record.phase is Phase.BOOTSTRAPPING:
        return Loss(0, "there was nothing to lose")
    old = closed_old(view, record)
    if old is not None and winner == old.node and whole(old):
        return Loss(0, "the old primary itself went on")
    if view.service.durability.zero_loss and not record.accept_loss:
        return Loss(0, "everything that was acknowledged is in the new primary")
    return _measured(_position(view, winner), old, last_known(view, record))


def last_known(view: ClusterView, record: ClusterRecord) -> Position | None:
    """How far a primary is known to have come by now: the one before goes on, and tells of it, until it is silenced."""
    report = view.report(record.previous) if record.previous else None
    if report is None or report.identity not in (None, record.identity):
        return record.known
    return further(record.known, report.had or report.position)


def _measured(have: Position | None, old: NodeReport | None, known: Position | None) -> Loss:
    if have is None:
        return Loss(None, "the winner's position is not known")
    if old is not None and whole(old) and old.position is not None and further(known, old.position) == old.position:
        return Loss(lacks_bytes(have, old.position), "measured against the closed old primary")
    if known is None or (old is not None and not whole(old) and old.had is None):
        return Loss(None, "what the old primary had is not known")
    return Loss(lacks_bytes(have, known), "of the old primary's last report; what it wrote after that is unknown")


def _position(view: ClusterView, node: Name) -> Position | None:
    report = view.report(node)
    return report.position if report else None


def unfit(view: ClusterView, record: ClusterRecord, name: Name) -> str:
    """Why this node could not win whatever its position; empty when it could."""
    node, report = view.service.node(name), fresh(view, name)
    if node is None and record.duty(name) is None:
        return "is not in the spec"
    if node is not None and node.priority == 0:
        return "is never to be promoted"
    if report is None:
        return "is not heard"
    if report.identity is not None and report.identity != record.identity:
        return "carries the identity of another cluster"
    faults = (
        (report.empty, "has no data"),
        (report.identity is None and record.duty(name) is None, "has data that are not of this cluster"),
        (report.less_data and not record.accept_loss, "came back with less data than it had"),
        (report.needs_rebuild and not record.accept_loss, "needs its data copied anew"),
        (report.disk_failing_ms >= view.service.timers.hang_ms, "has a disk that does not answer"),
    )
    return next((words for broken, words in faults if broken), "")


def _refusal(view: ClusterView, record: ClusterRecord, name: Name) -> str:
    """Why this node may not win now; empty when it may."""
    by_nature = unfit(view, record, name)
    if by_nature:
        return by_nature
    if name not in still(view, record):
        return f"is not frozen at epoch {record.epoch}"
    position, old = _position(view, name), closed_old(view, record)
    if record.accept_loss:
        return ""
    if position is None and old is not None and old.node == name:
        return _had_too_little(view, record, old)
    return "does not know its position" if position is None else _too_short(view, record, position)


def _had_too_little(view: ClusterView, record: ClusterRecord, old: NodeReport) -> str:
    """Why the closed old primary may not win by its own disk, which is all that there is, where it cannot be read.

    It may have been crowned and never promoted: then what it had at its end is not what the last reign had.
    """
    if view.service.durability.zero_loss or old.had is None or record.known is None:
        return ""
    return _beyond_bound(view, old.had, record.known)


def _too_short(view: ClusterView, record: ClusterRecord, position: Position) -> str:
    """What this position lacks that must not be lost; empty when nothing."""
    old = closed_old(view, record)
    everything = old.position if old is not None and _has_all(view, old) else None
    owing = _short(position, record.owed, "what may never be lost") if record.owed is not None else ""
    last = further(last_known(view, record), everything)
    beyond = "" if view.service.durability.zero_loss else _beyond_bound(view, position, last)
    strict = bool(strict_rules(view, record))
    return owing or beyond or (_lacking(view, record, position, everything) if strict else "")


def _lacking(view: ClusterView, record: ClusterRecord, position: Position, everything: Position | None) -> str:
    """Of what was acknowledged under rules that lose nothing."""
    if record.start is not None and (short := _short(position, record.start, "the start of the last reign")):
        return short
    contained = frozenset(
        name
        for name, report in still(view, record).items()
        if report.position is not None and contains(position, report.position)
    )
    if quorum.revoked(strict_rules(view, record), contained):
        return ""
    if everything is None:
        return "may lack acknowledged writes: it contains too few of those that acknowledge"
    return _short(position, everything, "the closed old primary")


def _beyond_bound(view: ClusterView, position: Position, last: Position | None) -> str:
    most = view.service.durability.max_loss_bytes or 0
    if last is None:
        return "cannot be measured: the old primary's position was never known"
    if relate(position, last) is Relation.BEHIND and lacks_bytes(position, last) <= most:
        return ""
    return _short(position, last, "the last known position")


def _short(position: Position, reference: Position, what: str) -> str:
    """The refusal of a position that does not contain the reference; empty when it does."""
    if contains(position, reference):
        return ""
    if relate(position, reference) is Relation.FORKED:
        return f"went another way than {what} ({position} against {reference})"
    return f"is {lacks_bytes(position, reference)} bytes behind {what}"


def _rank(view: ClusterView, record: ClusterRecord, one: Candidate, everybody: list[Candidate]) -> tuple[object, ...]:
    """Eligible first, not tried yet, another node before the old primary, most data, of the spec, preference."""
    report, node = view.report(one.node), view.service.node(one.node)
    contained = sum(
        1
        for other in everybody
        if other.position is None or (one.position is not None and contains(one.position, other.position))
    )
    return (
        bool(one.refusal),
        one.node in record.tried,
        one.node == record.previous,
        -contained,
        node is None,
        report.replay_lag_bytes if report else 0,
        one.node != view.service.preferred,
        -(node.priority if node else 0),
        one.node,
    )


def _first(view: ClusterView, record: ClusterRecord) -> Election:
    """Who is the first primary ever: all must be heard, and at most one may have data (it is taken over as it is).

    When one has been tried in vain, nobody was let in yet, so what is on any disk counts no more: who is heard is next.
    """
    candidates = [_newborn(view, node.name) for node in view.service.nodes]
    if not record.tried and any(one.refusal for one in candidates):
        return Election(None, tuple(candidates))
    owners = [] if record.tried else [one for one in candidates if not _blank(view, one.node)]
    best = [one for one in owners if all(one is other or _has_all_of(one, other) for other in owners)]
    if owners and not best:
        return Election(None, tuple(Candidate(one.node, one.position, "has data of its own") for one in candidates))
    pool = best or [one for one in candidates if not one.refusal and _priority(view, one.node) > 0]
    pool.sort(key=lambda one: _birth_rank(view, record, one.node))
    return Election(pool[0].node if pool else None, tuple(candidates))


def unmade(view: ClusterView, record: ClusterRecord, chosen: Name) -> bool:
    """Whether the first data are not to be had from the chosen one, and another node could be asked."""
    report = fresh(view, chosen)
    failed = report is None or (report.failed_epoch == record.epoch and not report.promoted_epoch)
    others = (node.name for node in view.service.nodes if node.priority and node.name != chosen)
    return failed and any(not _newborn(view, name).refusal for name in others)


def _newborn(view: ClusterView, name: Name) -> Candidate:
    report = fresh(view, name)
    if report is None:
        return Candidate(name, None, "is not heard: a cluster is born only when every node can say what it has")
    looked = report.running is not Running.UNKNOWN
    return Candidate(name, report.position, "" if looked else "cannot say what it has")


def _blank(view: ClusterView, name: Name) -> bool:
    report = view.report(name)
    return report is None or report.empty


def _has_all_of(one: Candidate, other: Candidate) -> bool:
    return one.position is not None and other.position is not None and contains(one.position, other.position)


def _birth_rank(view: ClusterView, record: ClusterRecord, name: Name) -> tuple[object, ...]:
    """Who was not tried before who was, the longest ago first; then preference."""
    turn = record.tried.index(name) + 1 if name in record.tried else 0
    return (turn, name != view.service.preferred, -_priority(view, name), name)


def _priority(view: ClusterView, name: Name) -> int:
    node = view.service.node(name)
    return node.priority if node else 0
