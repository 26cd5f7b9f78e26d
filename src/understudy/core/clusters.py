"""What happens to a cluster: the front of the failover core. Callers import from here.

RULES: no clock, no I/O, no engine's words. `decide` looks at a view and answers with the next record and what follows
from it; whoever calls it stores that before anything is done (`Decision`). The agents then `obey` the record.
"""

from dataclasses import replace

from understudy.core.adoption import birth, foreign, unborn
from understudy.core.classify import assess
from understudy.core.clock import Now
from understudy.core.cluster_route import Route, route_of
from understudy.core.effects import Case, Draft, apply, timed
from understudy.core.events import EventKind
from understudy.core.fsm import Row, row_for
from understudy.core.obey import obey
from understudy.core.record import ClusterRecord
from understudy.core.report import ClusterView, Decision, LeaseOrder
from understudy.core.requests import triage

__all__ = ["Route", "decide", "decide_on", "obey", "route_of", "unborn"]

ROWS_AT_ONCE = 4
"""How many rows one sight may lead through; no way through the table that needs nothing new is longer."""


def decide_on(view: ClusterView, now: Now) -> Decision:
    """Decide, and go on as long as the next row follows from the very same sight: one thing to store instead of many.

    Only one of the rows may write the lease, since the next ones would rest on a lease that has not been seen.
    """
    decision = decide(view, now)
    for _ in range(ROWS_AT_ONCE - 1):
        if decision.record is None or decision.record is view.record:
            break
        after = decide(_after(view, decision), now)
        if after.record is decision.record or (after.lease and decision.lease):
            break
        decision = _joined(view, decision, after)
    return decision


def _after(view: ClusterView, decision: Decision) -> ClusterView:
    """The same sight, once the decision is stored."""
    before, record = view.record, decision.record
    same = before is not None and record is not None and (before.phase, before.epoch) == (record.phase, record.epoch)
    waiting = tuple(request for request in view.requests if request.id not in decision.requests_done)
    return replace(view, record=record, phase_age_ms=view.phase_age_ms if same else 0, requests=waiting)


def _joined(view: ClusterView, first: Decision, then: Decision) -> Decision:
    """Both decisions as one."""
    record, before = then.record, view.record
    duties = record.duties if record is not None else ()
    changed = tuple(duty for duty in duties if before is None or before.duty(duty.node) != duty)
    done = (*first.requests_done, *then.requests_done)
    return Decision(record, changed, (*first.events, *then.events), done, then.lease or first.lease)


def decide(view: ClusterView, now: Now) -> Decision:
    """The next record of a cluster, and why: one row of the table. The view's own record when nothing changed."""
    before = view.record
    if before is None:
        return _born(view, now)
    wishes = triage(view, before, now)
    seen = assess(view, wishes.record, wishes.asked)
    row = row_for(before.phase, seen.situation)
    draft = Draft(wishes.record, wishes.events, wishes.done)
    for effect in row.effects:
        draft = apply(effect, draft, Case(view, row, seen, wishes.head, now))
    if row.then is not before.phase:
        draft = _moved(draft, view, row, f" ({seen.verdict})" if "judged" in row.when else "")
    return _decision(view, before, draft)


def _moved(draft: Draft, view: ClusterView, row: Row, testimony: str) -> Draft:
    record = replace(draft.record, phase=row.then, timings=timed(view, draft.record, row), reason=row.sentence)
    said = f"{record.cluster} goes from {row.phase} to {row.then}: {row.sentence}{testimony}."
    told = replace(draft, record=record)
    return told.tell(
        EventKind.CLUSTER_PHASE, said, record.primary or record.previous, phase=row.then, epoch=record.epoch
    )


def _decision(view: ClusterView, before: ClusterRecord, draft: Draft) -> Decision:
    spec = max(before.spec, view.service.version)
    store = draft.record.store
    if view.store not in {"", store} and not foreign(view, before):
        store = view.store  # everybody is heard, and knows of nothing that is lost
    stamped = (draft.record.spec, draft.record.store) == (spec, store)
    decided = draft.record if stamped else replace(draft.record, spec=spec, store=store)
    if decided is before or decided == before:
        return Decision(before, events=draft.events, requests_done=draft.done, lease=draft.lease)
    record = replace(decided, serial=max(before.serial, draft.record.serial) + 1)
    changed = tuple(duty for duty in record.duties if before.duty(duty.node) != duty)
    return Decision(record, changed, draft.events, draft.done, draft.lease)


def _born(view: ClusterView, now: Now) -> Decision:
    record = birth(view)
    if isinstance(record, str):
        return Decision(None)
    draft = Draft(record, lease=LeaseOrder(None, record.epoch))
    kind = EventKind.CLUSTER_BORN if record.epoch == 1 else EventKind.CLUSTER_ADOPTED
    draft = draft.tell(kind, f"The record of {record.cluster} is made in epoch {record.epoch}: {record.reason}.")
    failback_wall_s = now.wall_s if record.epoch > 1 else 0.0
    spec = view.service.version
    record = replace(record, serial=record.serial + 1, failback_wall_s=failback_wall_s, spec=spec)
    return Decision(record, record.duties, draft.events, lease=draft.lease)
