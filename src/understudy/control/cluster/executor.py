"""Doing what an own node's duty asks: one action at a time, in the background, with its deadline and under its epoch.

RULES
1. Before an action, its epoch is on the node's disk; lower epochs are refused from then on.
2. The next action waits for a look from after the last one.
3. An order of a higher epoch ends an action of a lower one where it is; every action can stand that (core/actions.py).
   So does, within an epoch, a duty that one of those that may take long does not serve any more.
4. Who gets on is not late: a deadline begins anew whenever the driver says that its work has got further.
"""

from collections.abc import Callable
from functools import partial
from math import inf
from operator import is_
from typing import Any

from understudy.control.cluster.lane import Lane
from understudy.control.cluster.node_state import SETTLES_S, NodeState
from understudy.control.cluster.ports import NodeFacts, Ports
from understudy.core.actions import (
    Action,
    Bootstrap,
    Close,
    Follow,
    Freeze,
    Promote,
    Rebuild,
    Rejoin,
    Start,
    StopGracefully,
)
from understudy.core.clock import Now
from understudy.core.clusters import obey
from understudy.core.errors import Refused
from understudy.core.lineage import loses_nothing
from understudy.core.record import ClusterRecord, Duty, DutyKind, Phase
from understudy.core.report import NodeReport, OwnLease, Promise, Running, marked, streams
from understudy.drivers.base import NeedsRebuild

REJOIN_AFTER_S = 0.25
"""So long after the newest record a rejoin begins: it asks much of the new primary, to which clients just come."""


class Executor:
    """The hands of one own node."""

    def __init__(self, ports: Ports, state: NodeState, closed: Callable[[ClusterRecord], bool]) -> None:
        self._ports = ports
        self._state = state
        self._timers = ports.service.timers
        self._closed = closed
        """Whether the primary before a record's epoch is verified dead."""
        self.lane = Lane(ports.spawn, ports.wake)
        self._action: Action | None = None
        """What is done, or was done last."""
        self._reign: dict[str, Any] = {}
        """What the next agent must know, should it be started while the store is away."""
        self._paused = False
        """Whether the newest record says so."""
        self._progress: int | None = None
        self._newest: tuple[ClusterRecord | None, float] = (None, -inf)
        """The newest record, and since when it is."""
        self._ended_s = -inf
        self._idle: tuple[object, ...] = ()
        """What was looked at when there was nothing to do."""

    def tick(self, now: Now, record: ClusterRecord | None) -> float:
        """Do the next thing; when to come again."""
        lane = self.lane
        self._paused = record is not None and record.phase is Phase.PAUSED
        if record is not self._newest[0]:
            self._newest = (record, now.boot_s)
        self._look_at_progress(now.boot_s)
        if lane.expired(now.boot_s):
            self._end(now.boot_s, f"{_words(self._action)} did not end in time")
        if lane.busy and record is not None and self._action is not None:
            self._look_at_orders(now.boot_s, record, self._action)
        state = self._state
        if lane.busy or record is None or not state.recalled or state.looked != state.generation:
            return lane.deadline_s
        return self._next(now, record)

    def _look_at_progress(self, now_s: float) -> None:
        """Begin the deadline anew for what has got further."""
        progress = self._state.progress
        if progress != self._progress:
            self._progress = progress
            if self.lane.busy and self._action is not None and progress is not None:
                self.lane.deadline_s = now_s + self._action.deadline_ms / 1000

    def _look_at_orders(self, now_s: float, record: ClusterRecord, action: Action) -> None:
        """Give up what nobody wants any more."""
        if record.epoch > action.epoch:
            self.lane.give_up()
            self._end(now_s, f"{_words(action)} was given up for epoch {record.epoch}")
        elif not _serves(action, record.duty(self._state.name)):
            self.lane.give_up()
            self._end(now_s, "")

    def _moot(self, record: ClusterRecord) -> bool:
        """Whether nothing is left for the promise to protect: the primary before this epoch is verified dead.

        It is the one that was promised to, or a later one, which was crowned on a proof that the other's part was over.
        """
        return 0 < self._state.promise.epoch < record.epoch and self._closed(record)

    def _next(self, now: Now, record: ClusterRecord) -> float:
        state, report = self._state, self._state.report
        armed = state.lease.epoch == record.epoch and state.lease.deadline_s > now.boot_s
        promise = Promise() if self._moot(record) else state.promise
        bound = promise.epoch != record.epoch and promise.until_s > now.boot_s
        wake_s = promise.until_s if bound else inf
        looked_at = (record, report, armed, state.lease.ripe, bound)
        if report is None or (self._idle and all(map(is_, looked_at, self._idle))):
            return wake_s
        actions = obey(record, report, state.lease, promise, now, self._timers)
        self._idle = () if actions else looked_at
        if not actions:
            self._forget_failure(record, report)
            return wake_s
        again_s = self._ended_s + self._timers.renew_ms / 1000
        if actions[0] == self._action and now.boot_s < again_s:
            return again_s  # it has just been tried
        later_s = self._newest[1] + REJOIN_AFTER_S
        if isinstance(actions[0], Rejoin) and now.boot_s < later_s:
            return later_s
        self._begin(actions[0], record, now.boot_s)
        return self.lane.deadline_s

    def _forget_failure(self, record: ClusterRecord, report: NodeReport) -> None:
        """Who has nothing left to do and does its duty can do it, whatever it could not do before."""
        duty = record.duty(self._state.name)
        if duty is not None and not marked(report) and _does(duty, report, record.epoch):
            self._state.failure, self._state.failed_epoch = "", 0

    def _begin(self, action: Action, record: ClusterRecord, now_s: float) -> None:
        state = self._state
        self._action = action
        if action.epoch < state.wanted.epoch:
            self._end(now_s, f"{_words(action)} is of epoch {action.epoch}, and {state.wanted.epoch} is known here")
            return
        self._reign = {}
        if record.primary == state.name:
            self._reign = {"reign": record.epoch, "electorates": record.electorates}
        state.generation += 1
        state.settles_s = now_s + SETTLES_S
        state.moving = self._moves(action)
        if isinstance(action, Start | Follow | Rejoin | Rebuild):
            state.lease = OwnLease()  # what is started has a new guard, which holds no deadline yet
        deadline_s = inf if isinstance(action, Rejoin | Rebuild) else now_s + action.deadline_ms / 1000
        self.lane.start(partial(self._perform, action, record.serial), deadline_s)

    async def _perform(self, action: Action, serial: int) -> bool:
        state, failure = self._state, ""
        try:
            await state.remember(**self._before(action, serial))
            if not self._paused:  # it may have become so while the disk was written
                await state.own.driver.perform(action)
                await state.remember(**_after(action, state.facts))
        except NeedsRebuild as fault:
            failure = str(fault)
            await state.remember(needs_rebuild=True)
        except Refused as fault:
            failure = str(fault)
        self._end(self._ports.clock.now().boot_s, failure)
        return True

    def _end(self, now_s: float, failure: str) -> None:
        state = self._state
        state.generation += 1
        state.settles_s = 0.0
        state.moving = False
        self._ended_s = now_s
        state.failure = failure
        state.failed_epoch = self._action.epoch if failure and self._action is not None else 0

    def _before(self, action: Action, serial: int) -> dict[str, Any]:
        """What must be on the disk before the action."""
        facts = self._state.wanted
        marks: dict[str, Any] = {"epoch": action.epoch, "serial": serial, **self._reign}
        if not isinstance(action, Bootstrap | Rebuild):
            marks["identity"] = action.identity
        if action.epoch > facts.promised_epoch:
            marks["promised_epoch"] = 0
        if isinstance(action, Follow | Promote | Rejoin | Rebuild):
            marks["frozen_epoch"] = 0  # from here on its position moves
        if self._moves(action):
            marks["reached"] = None
            marks["moves"] = facts.moves + 1
        return marks

    def _moves(self, action: Action) -> bool:
        """Whether the node may rightly have less afterwards."""
        report = self._state.report
        if isinstance(action, Follow):
            alive = report is not None and report.running is Running.UP
            # Of one that hangs: what was seen last, since that is what it will be held to.
            return alive and report is not None and not loses_nothing(report.position or report.had, action.start)
        return isinstance(action, Bootstrap | Rejoin | Rebuild)


def _does(duty: Duty, report: NodeReport, epoch: int) -> bool:
    """Whether a node serves as it should; there is nothing to serve by for one that is to be still."""
    if duty.kind is DutyKind.PRIMARY:
        return report.writable and report.promoted_epoch == epoch
    return duty.kind is DutyKind.STANDBY and streams(report, duty.source)


def _after(action: Action, before: NodeFacts) -> dict[str, Any]:
    """What is true, and must be on the disk, after the action.

    How far a node had come counts on after its promotion: its machine may die before anybody is told of more.
    """
    marks: dict[str, Any] = {}
    match action:
        case Freeze():
            marks = {"frozen_epoch": action.epoch}
        case Close() | StopGracefully():
            marks = {"closed_epoch": action.epoch}
        case Promote():
            reached = None if before.less_data else before.reached
            marks = {"closed_epoch": 0, "less_data": False, "reached": reached}
        case Rejoin():
            marks = {"closed_epoch": 0}
        case Bootstrap():
            marks = {"identity": action.identity}
        case Rebuild():
            marks = {"identity": action.identity, "closed_epoch": 0, "rebuilt": action.since}
            marks |= {"less_data": False, "needs_rebuild": False}
        case _:
            pass
    return marks


_SERVED = {
    Start: {DutyKind.FROZEN, DutyKind.PRIMARY},
    Follow: {DutyKind.STANDBY, DutyKind.REJOIN, DutyKind.REBUILD},
    Rejoin: {DutyKind.STANDBY, DutyKind.REJOIN},
    Rebuild: {DutyKind.REBUILD},
}
"""What may take long, and for which duties it is done."""


def _serves(action: Action, duty: Duty | None) -> bool:
    """Whether what was begun is what the duty asks for; anything that does not take long is, until its epoch ends."""
    if type(action) not in _SERVED:
        return True
    if duty is None or duty.kind not in _SERVED[type(action)]:
        return False
    wanted = (getattr(action, "source", None), getattr(action, "since", duty.since))
    return wanted == (duty.source, duty.since)


def _words(action: Action | None) -> str:
    return type(action).__name__
