"""What we believe of a primary, from several witnesses. Pure.

WITNESSES: its own agent (with its guard: the only one that can say "dead"), the steward's own probe of the engine, and
the standbys' replication links. One mute witness is never enough: an agent that is silent while a standby still streams
is a dead agent, not a dead primary.
"""

from dataclasses import dataclass

from understudy.core.cluster import Timers
from understudy.core.record import ClusterRecord, wanted_sync
from understudy.core.report import ClusterView, NodeReport, NodeSeen, Running, streams
from understudy.core.situation import Judged
from understudy.core.text import Name
from understudy.core.words import listed, span


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement, and each witness's word."""

    judged: Judged
    testimony: tuple[str, ...]

    def __str__(self) -> str:
        """The testimony as one clause."""
        return listed(self.testimony)


def fresh(view: ClusterView, node: Name) -> NodeReport | None:
    """The node's report, if its agent has been heard lately (the primary's more lately than others)."""
    seen = view.seen(node)
    if seen is None or seen.report is None:
        return None
    timers = view.service.timers
    primary = view.record.primary if view.record else None
    limit_ms = timers.stale_ms if node == primary else timers.stale_other_ms
    return seen.report if seen.age_ms <= limit_ms else None


def heard(view: ClusterView) -> dict[Name, NodeReport]:
    """Every node whose agent has been heard lately."""
    return {name: report for name, _ in view.nodes if (report := fresh(view, name)) is not None}


def judge(view: ClusterView) -> Verdict:
    """What we believe of the record's primary."""
    record = view.record
    if record is None or record.primary is None:
        return Verdict(Judged.LOST, ("no node has the part",))
    own = fresh(view, record.primary)
    if own is not None:
        return _by_its_own_agent(view, record, own)
    return _by_others(view, record.primary)


def _by_its_own_agent(view: ClusterView, record: ClusterRecord, own: NodeReport) -> Verdict:
    """The first of these that is so."""
    node, hang_ms = own.node, view.service.timers.hang_ms
    hearing = _hearing(view, own.node) if own.slow else []
    hung_ms = view.service.timers.slow_ms if hearing else hang_ms
    alive = f"; its sessions are answered, and it is heard by {listed(hearing)}" if hearing else ""
    deaf = _could_do_better(view, record) if own.starved_ms >= hang_ms else []
    dead, up = own.running is Running.DEAD, own.running is Running.UP
    slow = own.probe_failing_ms or own.disk_failing_ms or (own.covered and not own.writable)
    words = (
        (dead, Judged.DEAD, f"{node}'s own agent says that the engine is dead"),
        (own.less_data and not record.accept_loss, Judged.DEAD, f"{node} came back with less data than it had"),
        (own.probe_failing_ms >= hung_ms, Judged.LOST, f"writes on {node} have failed for {_ms(own.probe_failing_ms)}"),
        (own.disk_failing_ms >= hang_ms, Judged.LOST, f"the disk of {node} has hung for {_ms(own.disk_failing_ms)}"),
        (bool(deaf), Judged.LOST, f"no standby answers {node}, though {listed(deaf)} live"),
        (not up, Judged.DOUBTFUL, f"{node}'s own agent says that the engine is {own.running}"),
        (own.promoted_epoch != record.epoch, Judged.DEAD, f"the engine of {node} started anew and is no primary"),
        (own.failed_epoch == record.epoch and not own.writable, Judged.LOST, f"{node} cannot open: {own.failure}"),
        (bool(slow), Judged.DOUBTFUL, f"{node} is up but does not take writes{alive}"),
        (True, Judged.WELL, f"{node}'s own agent says that it takes writes"),
    )
    return next(Verdict(judged, (said,)) for so, judged, said in words if so)


def _hearing(view: ClusterView, primary: Name) -> list[str]:
    """Who follows the primary and hears it: a second witness that it lives, when it is only slow to take sessions."""
    timers = view.service.timers
    return [str(name) for name, report in heard(view).items() if hears(report, primary, timers)]


def _could_do_better(view: ClusterView, record: ClusterRecord) -> list[str]:
    """Who is alive and hears nothing of a primary that gets no acknowledgements: enough to go on without it, or none.

    Too few would only starve the next primary just the same, and so on back and forth.
    """
    deaf: list[str] = []
    hearing: list[str] = []
    for name, report in heard(view).items():
        alive = report.running is Running.UP and not report.hangs
        if name != record.primary and report.identity == record.identity and alive:
            (hearing if hears(report, record.primary, view.service.timers) else deaf).append(str(name))
    return deaf if not hearing and len(deaf) > wanted_sync(record).acks else []


def hears(report: NodeReport | None, primary: Name | None, timers: Timers) -> bool:
    """Whether its replication link to the primary stands and is not silent."""
    alive = report is not None and not report.hangs and streams(report, primary)
    return report is not None and alive and (report.link_age_ms or 0) < timers.link_silent_ms


def _by_others(view: ClusterView, primary: Name) -> Verdict:
    timers, seen = view.service.timers, view.seen(primary)
    silence = f"{primary}'s agent {'has been silent for ' + _ms(seen.age_ms) if seen else 'was never heard'}"
    if seen is not None and seen.reachable:
        return Verdict(Judged.MUTE, (silence, "its engine answers the steward"))
    others = [name for name, one in heard(view).items() if one.streaming_from == primary and not one.hangs]
    hearing = _hearing(view, primary)
    if hearing:
        return Verdict(Judged.MUTE, (silence, f"its engine is still heard by {listed(hearing)}"))
    if not others:
        return Verdict(Judged.DOUBTFUL, (silence, "no standby of it is heard either: it may be us who are cut off"))
    if not _unreachable(seen, timers):
        return Verdict(Judged.DOUBTFUL, (silence, "the steward has not probed its engine for long enough"))
    deaf = listed([str(name) for name in others])
    return Verdict(Judged.LOST, (silence, "its engine does not answer the steward", f"is not heard by {deaf}"))


def _unreachable(seen: NodeSeen | None, timers: Timers) -> bool:
    return seen is not None and seen.reachable is False and seen.reachable_age_ms >= timers.confirm_ms


def _ms(milliseconds: int) -> str:
    return span(milliseconds / 1000)
