"""Who may win the part: every candidate, and for the others the reason why not. Pure.

RULES: lineage before offsets; unknown is ineligible; flushed counts, received does not; a position counts only when it
was read after the node was frozen (or closed) under the record's epoch, since before that it may still move.
"""

from dataclasses import dataclass

from understudy.core import quorum
from understudy.core.health import fresh
from understudy.core.lineage import Position, Relation, relate
from understudy.core.record import ClusterRecord, DutyKind
from understudy.core.report import ClusterView, NodeReport
from understudy.core.text import Name


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
    lost_bytes: int | None
    """What the winner lacks of the last known position; None when that is not known."""


def settled_positions(view: ClusterView) -> dict[Name, NodeReport]:
    """The reports whose positions can no longer move: frozen or closed under the record's epoch."""
    record = view.record
    if record is None:
        return {}
    found = {}
    for name, seen in view.nodes:
        report = fresh(seen, view.service.timers)
        if report and max(report.frozen_epoch, report.closed_epoch) >= record.epoch and report.position is not None:
            found[name] = report
    return found


def frozen(view: ClusterView) -> frozenset[Name]:
    """Who acknowledges nothing of the old primary any more."""
    return frozenset(settled_positions(view))


def everything_on(view: ClusterView) -> Position | None:
    """The closed old primary's own position: nothing was ever acknowledged beyond it."""
    record = view.record
    if record is None or record.previous is None:
        return None
    report = settled_positions(view).get(record.previous)
    return report.position if report and report.closed_epoch >= record.epoch else None
