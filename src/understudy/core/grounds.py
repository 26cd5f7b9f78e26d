"""The proof that a promotion cannot make two primaries (docs/decisions/0010), and what is still missing of it. Pure."""

from dataclasses import replace

from understudy.core import quorum
from understudy.core.election import closed_old, frozen
from understudy.core.record import ClusterRecord, Ground, Phase
from understudy.core.report import ClusterView, Running
from understudy.core.text import Name
from understudy.core.words import listed


def proven(view: ClusterView, record: ClusterRecord) -> Ground | None:
    """The first ground that holds, the strongest first; None when none does."""
    if record.phase is Phase.BOOTSTRAPPING:
        found = not record.tried and any(seen.report and not seen.report.empty for _, seen in view.nodes)
        return Ground.FOUND if found else Ground.FIRST
    if record.previous is None:
        return _accounted(view, record) or _by_lease(view, record)
    old = closed_old(view, record)
    if old is not None and old.running is Running.DEAD:
        return Ground.FENCED
    if view.capabilities.revocation and quorum.revoked(record.sync, frozen(view, record)):
        return Ground.REVOCATION
    return Ground.SWORN if record.previous in record.sworn_off else _by_lease(view, record)


def _accounted(view: ClusterView, record: ClusterRecord) -> Ground | None:
    """Whether nobody is left who may be a primary, by what is held, or by that and an oath."""
    if unaccounted(view, record):
        return None
    return Ground.SWORN if unaccounted(view, replace(record, sworn_off=frozenset())) else Ground.FENCED


def unaccounted(view: ClusterView, record: ClusterRecord) -> list[Name]:
    """Which nodes may be a primary that nobody knows of, when the record was made anew.

    One without any data (it was being copied) that bears the mark is none, though its promises may be forgotten.
    """
    everybody = {duty.node for duty in record.duties}
    held = {
        name
        for name, seen in view.nodes
        if seen.report
        and seen.report.identity in (None, record.identity)
        and max(seen.report.frozen_epoch, seen.report.closed_epoch) >= record.epoch
    }
    return sorted(everybody - held - record.sworn_off)


def missing(view: ClusterView, record: ClusterRecord) -> str:
    """What each ground lacks, as one clause without anything that changes by the second."""
    held = frozen(view, record)
    old = [record.previous] if record.previous is not None else unaccounted(view, record)
    words = [f"{listed([str(name) for name in old])} {'is' if len(old) == 1 else 'are'} not verified dead"]
    if view.capabilities.revocation and view.service.durability.zero_loss:
        words.append(f"too few standbys are frozen to silence it ({listed(sorted(held), most=9)})")
    words.append("its lease, and promises to it, are not proven to be over")
    return listed(words)


def _by_lease(view: ClusterView, record: ClusterRecord) -> Ground | None:
    """The tombstone is in sight, the last counter has stood still for the whole lease, and no majority can promise."""
    lease = view.lease
    duration_ms = max(lease.duration_ms, view.service.timers.lease_ms)
    free = frozen(view, record) | record.sworn_off
    over = lease.quiet_ms > duration_ms + duration_ms // 1000
    buried = lease.owner is None and lease.epoch >= record.epoch
    return Ground.LEASE if buried and over and quorum.released(record.electorates, free) else None
