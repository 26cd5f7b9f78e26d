"""What we believe of a primary, from several witnesses. Pure.

WITNESSES: its own agent (with its guard: the only one that can say "dead"), the steward's own probe of the engine, and
the standbys' replication links. One mute witness is never enough: an agent that is silent while a standby still streams
is a dead agent, not a dead primary.
"""

from dataclasses import dataclass

from understudy.core.cluster import Timers
from understudy.core.report import ClusterView, NodeReport, NodeSeen, Running
from understudy.core.situation import Judged
from understudy.core.text import Name


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement, and each witness's word."""

    judged: Judged
    testimony: tuple[str, ...]


def fresh(seen: NodeSeen | None, timers: Timers) -> NodeReport | None:
    """The node's report, if its agent has been heard lately."""
    if seen is None or seen.report is None or seen.age_ms > timers.stale_ms:
        return None
    return seen.report


def judge(view: ClusterView) -> Verdict:
    """What we believe of the record's primary."""
    record = view.record
    if record is None or record.primary is None:
        return Verdict(Judged.LOST, ("no node has the part",))
    seen = view.seen(record.primary)
    own = fresh(seen, view.service.timers)
    if own is not None:
        return _by_its_own_agent(own, view.service.timers)
    return _by_others(view, record.primary, seen)


def _by_its_own_agent(own: NodeReport, timers: Timers) -> Verdict:
    if own.running is Running.DEAD:
        return Verdict(Judged.DEAD, (f"{own.node}'s own agent says that the engine is dead",))
    if own.probe_failing_ms >= timers.hang_ms:
        return Verdict(Judged.LOST, (f"writes on {own.node} have failed for {own.probe_failing_ms} ms",))
    if own.disk_failing_ms >= timers.hang_ms:
        return Verdict(Judged.LOST, (f"the disk of {own.node} has not answered for {own.disk_failing_ms} ms",))
    if own.running is Running.UP and own.writable and not own.probe_failing_ms and not own.disk_failing_ms:
        return Verdict(Judged.WELL, (f"{own.node}'s own agent says that it takes writes",))
    return Verdict(
        Judged.DOUBTFUL, (f"{own.node}'s own agent says that it is {own.running} and does not take writes yet",)
    )


def _by_others(view: ClusterView, primary: Name, seen: NodeSeen | None) -> Verdict:
    timers = view.service.timers
    silence = (
        f"{primary}'s agent has been silent for {seen.age_ms} ms" if seen else f"{primary}'s agent was never heard"
    )
    if seen is not None and seen.reachable and seen.reachable_age_ms < timers.confirm_ms:
        return Verdict(Judged.MUTE, (silence, "its engine answers the steward"))
    links = [
        (report.node, (report.link_age_ms or 0) + other.age_ms)
        for name, other in view.nodes
        if name != primary
        and (report := fresh(other, timers)) is not None
        and report.streaming_from == primary
        and report.link_age_ms is not None
    ]
    alive = [node for node, age_ms in links if age_ms < timers.link_silent_ms]
    if alive:
        return Verdict(Judged.MUTE, (silence, f"{', '.join(alive)} still hears its engine"))
    witnesses = [name for name, other in view.nodes if name != primary and fresh(other, timers) is not None]
    if not witnesses:
        return Verdict(Judged.DOUBTFUL, (silence, "no other node is heard either: it may be us who are cut off"))
    if seen is None or seen.reachable is None or seen.reachable_age_ms < timers.confirm_ms:
        return Verdict(Judged.DOUBTFUL, (silence, "the steward has not probed its engine for long enough"))
    if seen.reachable:
        return Verdict(Judged.DOUBTFUL, (silence, "its engine answered the steward a while ago"))
    return Verdict(
        Judged.LOST,
        (
            silence,
            f"its engine has not answered the steward for {seen.reachable_age_ms} ms",
            f"{', '.join(witnesses)} {'hears' if len(witnesses) == 1 else 'hear'} nothing from it",
        ),
    )
