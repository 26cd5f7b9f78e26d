"""What becomes of a person's wishes: taken, kept waiting, met at once, or refused with the reason. Pure.

RULES: a wish that does not fit the phase waits; one that can never be met is refused, so that nothing waits for ever. A
failover overtakes a pause, and both overtake a switchover: what waits must not hold up what is urgent.
"""

from dataclasses import dataclass, replace

from understudy.core.clock import Now
from understudy.core.duties import ordered
from understudy.core.election import prospect, unfit
from understudy.core.events import Event, EventKind
from understudy.core.health import fresh, judge
from understudy.core.lineage import lacks_bytes
from understudy.core.record import ClusterRecord, Duty, DutyKind, Origin, Phase, Request, RequestKind
from understudy.core.report import ClusterView, streams
from understudy.core.situation import Asked, Judged
from understudy.core.text import Name
from understudy.core.words import listed

FAILBACK = "failback"
"""Who asks when it is our own wish to go back to the preferred node."""

SWITCHOVER_LAG_BYTES = 64 * 1024 * 1024
"""A target further behind would keep clients waiting."""

_OPEN_TO_FLAGS = frozenset({Phase.FENCING, Phase.ELECTING})
_TENDED = frozenset({Phase.STEADY, Phase.REJOINING})
_BUSY = frozenset({Phase.PROMOTING, Phase.ROUTING, Phase.HANDING_OVER})
_ASKED = {
    RequestKind.FAILOVER: Asked.FAILOVER,
    RequestKind.PAUSE: Asked.PAUSE,
    RequestKind.RESUME: Asked.RESUME,
    RequestKind.SWITCHOVER: Asked.SWITCHOVER,
}
_URGENT = (RequestKind.FAILOVER, RequestKind.PAUSE, RequestKind.RESUME, RequestKind.SWITCHOVER)


@dataclass(frozen=True, slots=True)
class Triage:
    """What came of the queue. `record` has in it what was met at once."""

    record: ClusterRecord
    head: Request | None = None
    """The wish that the table is asked about."""
    events: tuple[Event, ...] = ()
    done: tuple[int, ...] = ()

    @property
    def asked(self) -> Asked:
        """The head as the table knows it."""
        return _ASKED[self.head.kind] if self.head else Asked.NOTHING


def triage(view: ClusterView, record: ClusterRecord, now: Now) -> Triage:
    """Go through the queue, the oldest first."""
    result = Triage(record)
    waiting: list[Request] = []
    for request in view.requests:
        refusal = _refusal(view, result.record, request, waiting)
        if refusal:
            result = _settled(result, request, EventKind.REQUEST_REFUSED, f"refused: {refusal}")
        elif _is_flag(result.record, request):
            flagged = replace(
                result.record,
                accept_loss=result.record.accept_loss or request.accept_loss,
                sworn_off=request.sworn_off | result.record.sworn_off,
            )
            result = _settled(replace(result, record=flagged), request, EventKind.REQUEST_TAKEN, _flags(request))
        elif request.kind is not RequestKind.REBUILD:
            waiting.append(request)
        elif record.phase in _TENDED and request.node is not None:
            result = replace(result, record=_rebuilt(result.record, request, request.node))
            result = _settled(result, request, EventKind.REQUEST_TAKEN, f"{request.node} is rebuilt")
    head = next((one for kind in _URGENT for one in waiting if one.kind is kind), None)
    return replace(result, head=head or _own_wish(view, record, now))


def target_of(view: ClusterView, record: ClusterRecord, request: Request) -> Name | None:
    """Who is to take over in a switchover: the wished one, or the best; None when nobody may."""
    names = [request.node] if request.node else [node.name for node in view.service.nodes]
    fit = [name for name in names if not _unfit_target(view, record, name)]
    return min(fit, key=lambda name: _target_rank(view, record, name), default=None)


def _target_rank(view: ClusterView, record: ClusterRecord, name: Name) -> tuple[object, ...]:
    node = view.service.node(name)
    return (name != view.service.preferred, -(node.priority if node else 0), _lag_bytes(view, record, name) or 0, name)


def _refusal(view: ClusterView, record: ClusterRecord, request: Request, waiting: list[Request]) -> str:
    """Why this can never be met; empty when it may be."""
    kind = request.kind
    if kind is RequestKind.PAUSE:
        return "it is paused already" if record.phase is Phase.PAUSED else ""
    if kind is RequestKind.RESUME:
        paused = record.phase is Phase.PAUSED or any(one.kind is RequestKind.PAUSE for one in waiting)
        return "" if paused else "it is not paused"
    if record.phase is Phase.PAUSED:
        return f"the cluster is paused; run `understudy resume {record.cluster}` first"
    if kind is RequestKind.FAILOVER:
        return _failover_refusal(view, record, request)
    if request.node is not None and view.service.node(request.node) is None:
        return f"there is no node {request.node}"
    return (
        _switchover_refusal(view, record, request)
        if kind is RequestKind.SWITCHOVER
        else _rebuild_refusal(record, request)
    )


def _failover_refusal(view: ClusterView, record: ClusterRecord, request: Request) -> str:
    if record.phase is Phase.BOOTSTRAPPING:
        return "the cluster has never had a primary"
    if wrong := next(filter(None, (_wrong_oath(record, dead) for dead in sorted(request.sworn_off))), ""):
        return wrong
    if _takes_flags(record):
        asks = request.accept_loss or request.sworn_off
        return "" if asks else "a failover is under way; say what to give up: --accept-loss or --sworn-dead NODE"
    if record.phase in _BUSY or request.accept_loss or prospect(view, record):
        return ""
    well = judge(view).judged is Judged.WELL
    return "the primary is well and no other node could take over; use --accept-loss to do it anyway" if well else ""


def _wrong_oath(record: ClusterRecord, dead: Name) -> str:
    """Why the machine of that node is not the one that stands in the way; empty when it is."""
    if record.duty(dead) is None:
        return f"there is no node {dead}"
    if record.primary not in (None, dead):
        return f"the primary is {record.primary}, not {dead}"
    if record.primary is None and record.previous not in (None, dead):
        return f"the old primary is {record.previous}, not {dead}"
    return ""


def _switchover_refusal(view: ClusterView, record: ClusterRecord, request: Request) -> str:
    if not view.capabilities.graceful_handover:
        return "this engine cannot hand over without loss; run `understudy failover` and accept it"
    if record.blocked is not None:
        return f"the cluster is blocked: {record.blocked.reason}"
    if record.phase is not Phase.STEADY or judge(view).judged is not Judged.WELL:
        return ""
    if request.node is not None:
        return _unfit_target(view, record, request.node)
    return "" if target_of(view, record, request) else "no standby is fit to take over"


def _rebuild_refusal(record: ClusterRecord, request: Request) -> str:
    if request.node is None:
        return "say which node"
    return f"{request.node} is the primary; switch over first" if request.node == record.primary else ""


def _unfit_target(view: ClusterView, record: ClusterRecord, name: Name) -> str:
    if name == record.primary:
        return f"{name} is the primary already"
    by_nature = unfit(view, record, name)
    if by_nature:
        return f"{name} {by_nature}"
    duty, report = record.duty(name), fresh(view, name)
    if duty is None or duty.kind is not DutyKind.STANDBY or report is None or not streams(report, record.primary):
        return f"{name} does not follow the primary"
    lag_bytes = _lag_bytes(view, record, name)
    if lag_bytes is None:
        return f"how far {name} is behind is not known"
    return f"{name} is {lag_bytes} bytes behind" if lag_bytes > SWITCHOVER_LAG_BYTES else ""


def _lag_bytes(view: ClusterView, record: ClusterRecord, name: Name) -> int | None:
    report, own = view.report(name), view.report(record.primary) if record.primary else None
    if report is None or own is None or report.position is None or own.position is None:
        return None
    return lacks_bytes(report.position, own.position)


def _rebuilt(record: ClusterRecord, request: Request, node: Name) -> ClusterRecord:
    """The record with that node's copy ordered; one that is under way is ended and begun anew."""
    others = tuple(duty for duty in record.duties if duty.node != node)
    duty = Duty(node, DutyKind.REBUILD, record.primary, consent=request.accept_loss)
    return ordered(replace(record, duties=others), duty)


def _takes_flags(record: ClusterRecord) -> bool:
    blocked = record.blocked is not None and record.blocked.origin is not Origin.CONFIRMED
    return record.phase in _OPEN_TO_FLAGS or (record.phase is Phase.BLOCKED and blocked)


def _is_flag(record: ClusterRecord, request: Request) -> bool:
    return request.kind is RequestKind.FAILOVER and _takes_flags(record)


def _flags(request: Request) -> str:
    given = ["loss is accepted"] if request.accept_loss else []
    dead = sorted(request.sworn_off)
    given += [f"{listed(dead)} {'is' if len(dead) == 1 else 'are'} sworn to be off"] if dead else []
    return " and ".join(given)


def _settled(result: Triage, request: Request, kind: EventKind, said: str) -> Triage:
    who = f" by {request.by}" if request.by else ""
    event = Event(kind, f"The {request.kind} asked{who}: {said}.", result.record.cluster, request.node)
    return replace(result, events=(*result.events, event), done=(*result.done, request.id))


def _own_wish(view: ClusterView, record: ClusterRecord, now: Now) -> Request | None:
    """What we want ourselves: hand over from a node that has left the spec, or go back to the preferred one.

    That only when all has been well for a while, not too often. A wall clock set back does not hold it off.
    """
    preferred, service = view.service.preferred, view.service
    if record.phase is Phase.STEADY and record.primary and service.node(record.primary) is None:
        leave = Request(0, RequestKind.SWITCHOVER, by="spec")
        tried = 0 <= now.wall_s - record.failback_wall_s < service.timers.failback_ms / 1000
        able = view.capabilities.graceful_handover and target_of(view, record, leave) is not None
        return leave if able and not tried else None
    if preferred is None or record.phase is not Phase.STEADY or view.phase_age_ms < service.timers.failback_ms:
        return None
    since_s = now.wall_s - record.failback_wall_s
    held = 0 <= since_s < service.failback_every_s
    wish = Request(0, RequestKind.SWITCHOVER, preferred, by=FAILBACK)
    well = view.capabilities.graceful_handover and not _unfit_target(view, record, preferred)
    return wish if well and not held and preferred != record.primary else None
