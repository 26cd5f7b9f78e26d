"""Traffic between the two groups of a pool: when it moves, how fast, and what the journal is told. Pure.

fast     The router moves everything at once, both ways, as the primary group loses its last usable endpoint and gets
         one back. Nothing is decided here; what it did is told.
gradual  When less than half of the primary group's weight is usable, the backup group's share rises evenly over
         `over_ms`, so that its caches and connections warm up. When none is, everything moves at once: refusing users
         is worse than a cold backup. It goes back evenly, when half of the weight is up with its slow start behind it;
         that slow start is also what keeps a flapping endpoint from moving the traffic to and fro.
manual   Only `failover` and `failback` move it.

What an operator ordered with `failover` stays, in every mode. When the backup group loses its last usable endpoint
while the primary group has one, the router sends everything there at once, in every mode, and the order is over. Only
in manual mode it is not, and the traffic follows it again as soon as the backup group can serve.

An even ramp stays even: after a restart of the agent or a step of the clock it goes on from the share it had reached.
"""

import math
from dataclasses import dataclass, replace

from understudy.core.clock import Now
from understudy.core.events import Event, EventKind
from understudy.core.failover_mode import FailoverMode
from understudy.core.model import Group, PoolService
from understudy.core.pool_health import automatic, kept_out, usable, weight_of
from understudy.core.pool_state import EndpointSeen, Oper, PoolMemory, PoolRecord, PoolView, Ramp
from understudy.core.words import count, listed, span

SETTLE_S = 2.0
"""How long an endpoint that this agent has never seen serve must have been out before it counts as lost."""
SLACK_S = 1.0
"""By how much a ramp's clock may run ahead of the time that passed since the last look."""


@dataclass(frozen=True, slots=True)
class Shift:
    """What was decided: the next record and memory, and the events."""

    record: PoolRecord
    memory: PoolMemory
    events: tuple[Event, ...] = ()


def share_at(ramp: Ramp, wall_s: float) -> int:
    """The backup group's share, in percent, that an even ramp has at a moment."""
    if ramp.over_ms <= 0:
        return ramp.to_percent
    part = min(1.0, max(0.0, (wall_s - ramp.since_wall_s) * 1000 / ramp.over_ms))
    return round(ramp.from_percent + (ramp.to_percent - ramp.from_percent) * part)


def advance(ramp: Ramp, share_percent: int, now: Now, looked_boot_s: float | None) -> tuple[int, Ramp | None]:
    """The share after a look, and the ramp as it goes on; None when it has arrived.

    The wall clock times the ramp, since it must outlive a reboot; the boot clock bounds each of its steps by the time
    since the last look (None when nobody looked before), and a ramp that would jump begins anew at the present share.
    """
    way = ramp.to_percent - ramp.from_percent
    if ramp.over_ms <= 0 or share_percent == ramp.to_percent:
        return ramp.to_percent, None
    passed_s = 0.0 if looked_boot_s is None else max(0.0, now.boot_s - looked_boot_s) + SLACK_S
    most = math.ceil(abs(way) * passed_s * 1000 / ramp.over_ms)
    due = (share_at(ramp, now.wall_s) - share_percent) * (1 if way > 0 else -1)
    step = min(max(due, 0), most)
    share = share_percent + (step if way > 0 else -step)
    if share == ramp.to_percent:
        return share, None
    if step == due:
        return share, ramp
    left_ms = round(ramp.over_ms * abs(ramp.to_percent - share) / abs(way)) if way else 0
    return share, Ramp(share, ramp.to_percent, now.wall_s, left_ms)


def start(service: PoolService, record: PoolRecord, to_percent: int, now: Now) -> PoolRecord:
    """The record with traffic on its way to that share: evenly in gradual mode, else there at once.

    Also when there at once a ramp of no length is left, so that the next decision tells of the arrival.
    """
    way = abs(to_percent - record.backup_share_percent)
    if service.failover.mode is FailoverMode.GRADUAL:
        over_ms = round(service.failover.over_ms * way / 100)
        return replace(record, ramp=Ramp(record.backup_share_percent, to_percent, now.wall_s, over_ms))
    return replace(record, backup_share_percent=to_percent, ramp=Ramp(to_percent, to_percent, now.wall_s, 0))


def shift(view: PoolView, now: Now) -> Shift:
    """Where the traffic goes from here."""
    service, record, memory = view.service, view.record, view.memory
    if not service.group(Group.BACKUP):
        alone = replace(record, backup_share_percent=0, ramp=None, failed_over=False)
        return Shift(alone, replace(memory, primary_stood=True))
    groups = _Groups.of(view)
    memory = replace(memory, primary_stood=memory.primary_stood or not groups.halved)
    target = _target(service, record, groups)
    if target != goal(record):
        moved = _turn(view, record, groups, target, now)
    elif record.ramp:
        moved = _go_on(view, record, groups, record.ramp, now)
    else:
        moved = Shift(record, memory)
    router = _router_alone(view, groups) if service.failover.mode is FailoverMode.FAST else None
    taken = groups.taken_over(before=memory.taken_over)
    memory = replace(memory, taken_over=taken, ramp_boot_s=now.boot_s if moved.record.ramp else None)
    return Shift(moved.record, memory, moved.events or router or ())


def goal(record: PoolRecord) -> int:
    """The backup group's share when all that is under way has arrived."""
    return record.ramp.to_percent if record.ramp else record.backup_share_percent


def strong_enough(view: PoolView) -> bool:
    """Whether the primary group has half of its weight usable, as gradual mode demands for traffic to go there."""
    return not _Groups.of(view).halved


@dataclass(frozen=True, slots=True)
class _Groups:
    """How the two groups stand."""

    primary: tuple[EndpointSeen, ...]
    backup: tuple[EndpointSeen, ...]
    lost: bool
    """The primary group has no usable endpoint, and that is not for want of time to start."""
    halved: bool
    """Less than half of the primary group's weight is usable."""
    weakened: bool
    """The same, and that is not for want of time to start."""
    steady: bool
    """Half of the primary group's weight is up, with its slow start behind it."""

    @classmethod
    def of(cls, view: PoolView) -> "_Groups":
        seen, record = view.seen, view.record
        primary, backup = usable(seen, record, Group.PRIMARY), usable(seen, record, Group.BACKUP)
        weights = {one.name: weight_of(one, record) for one in view.service.group(Group.PRIMARY)}
        whole = sum(weights.values())
        able = sum(weights.get(one.endpoint, 0) for one in primary)
        steady = sum(weights.get(one.endpoint, 0) for one in primary if one.oper is Oper.UP)
        out = kept_out(record)
        starting = not view.memory.primary_stood and any(
            one.endpoint not in out and one.since_s < SETTLE_S
            for one in seen.endpoints
            if one.group is Group.PRIMARY and one not in primary
        )
        halved = 2 * able < whole or not primary
        return cls(
            primary=primary,
            backup=backup,
            lost=not primary and not starting and bool(seen.endpoints),
            halved=halved,
            weakened=halved and not starting,
            steady=2 * steady >= whole and bool(primary),
        )

    def taken_over(self, *, before: bool | None) -> bool | None:
        """Whether the router has moved everything to the backup group by itself; None while that cannot be told."""
        if self.primary:
            return False
        return True if self.lost and self.backup else before


def _target(service: PoolService, record: PoolRecord, groups: _Groups) -> int:
    """The share that the backup group should have, sooner or later."""
    cut_off = bool(groups.primary) and not groups.backup
    if record.failed_over:
        return 0 if cut_off and automatic(service) else 100
    if service.failover.mode is not FailoverMode.GRADUAL or cut_off:
        return 0
    if groups.weakened and groups.backup:
        return 100
    return 0 if groups.steady else goal(record)


def _at_once(service: PoolService, groups: _Groups, target: int) -> bool:
    """Whether there is nobody on the side that is left, or the mode knows no ramp."""
    if service.failover.mode is not FailoverMode.GRADUAL:
        return True
    return groups.lost and bool(groups.backup) if target else not groups.backup


def _turn(view: PoolView, record: PoolRecord, groups: _Groups, target: int, now: Now) -> Shift:
    """Traffic sets out for another goal than it had."""
    service = view.service
    record = replace(record, failed_over=record.failed_over and target == 100)
    why = _why(view, groups, target)
    if _at_once(service, groups, target) or record.backup_share_percent == target:
        record = replace(record, backup_share_percent=target, ramp=None)
        return Shift(record, view.memory, _told(service, target, "at once", why))
    record = start(service, record, target, now)
    over_ms = record.ramp.over_ms if record.ramp else 0
    return Shift(record, view.memory, _told(service, target, f"evenly over {span(over_ms / 1000)}", why, over_ms)[:1])


def _go_on(view: PoolView, record: PoolRecord, groups: _Groups, ramp: Ramp, now: Now) -> Shift:
    """Traffic is on its way."""
    if _at_once(view.service, groups, ramp.to_percent):
        share, left = ramp.to_percent, None
    else:
        share, left = advance(ramp, record.backup_share_percent, now, view.memory.ramp_boot_s)
    record = replace(record, backup_share_percent=share, ramp=left)
    return Shift(record, view.memory, () if left else _told(view.service, share, "", "")[1:])


def _router_alone(view: PoolView, groups: _Groups) -> tuple[Event, ...]:
    """What to tell of a move that the router made by itself since the last look."""
    before = view.memory.taken_over
    after = groups.taken_over(before=before)
    if view.record.failed_over or before is None or before == after:
        return ()
    target = 100 if after else 0
    return _told(view.service, target, "at once, by the router", _why(view, groups, target))


def _why(view: PoolView, groups: _Groups, target: int) -> str:
    service, whole = view.service, len(view.service.group(Group.PRIMARY))
    if target:
        names = {one.endpoint for one in groups.primary}
        gone = listed([one.name for one in service.group(Group.PRIMARY) if one.name not in names])
        return f"the primary group has {len(names)} of {count(whole, 'endpoint')} usable, without {gone}"
    if not groups.backup:
        return "the backup group has no usable endpoint"
    if service.failover.mode is FailoverMode.MANUAL:
        return "no operator has ordered it to the backup group"
    return f"the primary group has {len(groups.primary)} of {count(whole, 'endpoint')} usable"


def _told(service: PoolService, target: int, how: str, why: str, over_ms: int = 0) -> tuple[Event, Event]:
    """The event of setting out and that of arrival."""
    kinds, side = (EventKind.FAILBACK_STARTED, EventKind.FAILBACK_DONE), "primary"
    if target:
        kinds, side = (EventKind.FAILOVER_STARTED, EventKind.FAILOVER_DONE), "backup"
    setting_out = f"Traffic of {service.name} moves to the {side} group {how}: {why}."
    arrival = f"All traffic of {service.name} goes to the {side} group now."
    data = (("to_percent", target), ("over_ms", over_ms))
    return (
        Event(kinds[0], setting_out, service.name, None, data),
        Event(kinds[1], arrival, service.name, None, (("backup_share_percent", target),)),
    )
