"""The planted bugs: each a few lines that a tired person could have written, and each must break a rule."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from tests.simulation.agents import Router
from tests.simulation.planted.patching import Bug, Spade

from understudy.control.cluster import executor, node_state, observer, steward, tenure
from understudy.core import adoption, classify, effects, election, grounds, quorum, sync
from understudy.core import obey as obeying
from understudy.core.fsm import Effect
from understudy.core.lineage import Position
from understudy.core.record import ClusterRecord, Ground, Phase, wanted_sync
from understudy.core.report import OwnLease, Promise, Running
from understudy.core.situation import Handover


def _always(value: Any) -> Callable[[Any], Any]:
    """A function that knows its answer beforehand."""
    return lambda _real: lambda *_arguments, **_named: value


# Fences.


def promote_before_fence(spade: Spade) -> None:
    """The ground is taken for proven as soon as the epoch is open."""
    spade.plant(grounds, "proven", lambda real: lambda view, record: real(view, record) or Ground.LEASE)


def lease_without_waiting(spade: Spade) -> None:
    """The tombstone alone counts as the end of the lease."""

    def careless(view: Any, record: ClusterRecord) -> Ground | None:
        buried = view.lease.owner is None and view.lease.epoch >= record.epoch
        return Ground.LEASE if buried and quorum.released(record.electorates, election.frozen(view, record)) else None

    spade.plant(grounds, "_by_lease", lambda _real: careless)


def renewal_counted_from_reply(spade: Spade) -> None:
    """The deadline is the clock when the answer came + the lease."""

    def make(real: Any) -> Any:
        async def arm(self: Any, epoch: int, deadline_s: float, *, by_promises: int) -> Any:
            del deadline_s
            late_s = self._ports.clock.now().boot_s + self._timers.lease_ms / 1000
            return await real(self, epoch, late_s, by_promises=by_promises)

        return arm

    spade.plant(tenure.Tenure, "_arm", make)


def guard_never_renewed_after_restart(spade: Spade) -> None:
    """A started engine counts as armed because the one before it was."""

    def make(real: Any) -> Any:
        def begin(self: Any, action: Any, record: Any, now_s: float) -> Any:
            kept = self._state.lease
            result = real(self, action, record, now_s)
            self._state.lease = kept
            return result

        return begin

    spade.plant(executor.Executor, "_begin", make)


def lease_timed_by_wall_clock(spade: Spade) -> None:
    """The steward waits for the lease by its wall clock."""

    def make(real: Any) -> Any:
        def view(self: Any, now_s: float, lease: Any) -> Any:
            seen, wall_s = real(self, now_s, lease), self._ports.clock.now().wall_s
            since = self.__dict__.setdefault("planted", {})
            passed_s = wall_s - since.setdefault(lease.since_s, wall_s)
            return replace(seen, lease=replace(seen.lease, quiet_ms=int(passed_s * 1000)))

        return view

    spade.plant(steward.Steward, "_view", make)


def tombstone_forgotten(spade: Spade) -> None:
    """A new epoch is opened without ending the old primary's lease."""
    real = effects._EFFECTS[Effect.OPEN_EPOCH]
    forgetful = {**effects._EFFECTS, Effect.OPEN_EPOCH: lambda draft, case: replace(real(draft, case), lease=None)}
    spade.plant(effects, "_EFFECTS", lambda _real: forgetful)


def promise_ignored(spade: Spade) -> None:
    """An agent promises and forgets it at once."""

    def make(real: Any) -> Any:
        async def promise(self: Any, request: Any, record: Any) -> bool:
            answer = await real(self, request, record)
            self._state.promise = Promise()
            return bool(answer)

        return promise

    spade.plant(tenure.Tenure, "promise", make)


# Commit rules and positions.


def one_standby_too_few(spade: Spade) -> None:
    """R >= N - W counts as revocation."""
    spade.plant(
        quorum,
        "silenced",
        lambda _real: (
            lambda config, frozen: config.acks > 0 and len(config.voters & frozen) >= len(config.voters) - config.acks
        ),
    )


def sync_list_shrunk_at_once(spade: Spade) -> None:
    """The older rule is forgotten as soon as another is wanted."""

    def make(real: Any) -> Any:
        def step(view: Any, record: ClusterRecord, primary: Any) -> ClusterRecord:
            changed: ClusterRecord = real(view, record, primary)
            return replace(changed, sync=(wanted_sync(changed),), sync_mark=None)

        return step

    spade.plant(sync, "_rule_step", make)


def position_from_before_the_freeze(spade: Spade) -> None:
    """A report's position is that of the look before."""

    def make(real: Any) -> Any:
        def seen(self: Any, *arguments: Any) -> Any:
            report = real(self, *arguments)
            before: Position | None = self.__dict__.get("planted", report.position)
            self.__dict__["planted"] = report.position
            return replace(report, position=before)

        return seen

    spade.plant(observer.Observer, "_seen", make)


def forked_lineage_accepted(spade: Spade) -> None:
    """Offsets are compared whatever the history."""
    spade.plant(election, "contains", lambda _real: lambda mine, other: mine.offset >= other.offset)


def anybody_wins(spade: Spade) -> None:
    """Who is frozen is eligible, whatever it lacks."""
    spade.plant(election, "_too_short", _always(""))
    spade.plant(election, "_rank", lambda _real: lambda _view, _record, one, _all: (bool(one.refusal), one.node))


def less_data_unnoticed(spade: Spade) -> None:
    """A node that came back with less than it had is taken as it is."""

    def make(_real: Any) -> Any:
        async def watch(*_arguments: Any) -> None:
            return None

        return watch

    spade.plant(observer.Observer, "_watch_for_less_data", make)


def switchover_before_catch_up(spade: Spade) -> None:
    """The target is crowned as soon as the old primary has stopped."""

    def make(real: Any) -> Any:
        def handover(view: Any, record: ClusterRecord) -> Handover:
            old = view.report(record.primary) if record.primary else None
            stopped = record.phase is Phase.HANDING_OVER and old is not None and old.running is Running.DEAD
            return Handover.READY if stopped else real(view, record)

        return handover

    spade.plant(classify, "_handover", make)


# Epochs, marks, and a person's word.


def old_epoch_accepted(spade: Spade) -> None:
    """An agent obeys whatever record it has in hand."""
    spade.plant(obeying, "_binding", _always(True))

    def make(_real: Any) -> Any:
        def begin(self: Any, action: Any, record: Any, now_s: float) -> None:
            self._action = action
            self._state.generation += 1
            self._state.lease = OwnLease(self._state.lease.epoch, self._state.lease.deadline_s)
            self.lane.start(partial(self._perform, action, record.serial), now_s + action.deadline_ms / 1000)

        return begin

    spade.plant(executor.Executor, "_begin", make)


def epoch_reused_after_restore(spade: Spade) -> None:
    """Nobody looks whether the nodes are ahead of the record."""
    spade.plant(adoption, "foreign", _always(False))
    spade.plant(classify, "foreign", _always(False))


def marks_not_durable(spade: Spade) -> None:
    """What must be remembered is kept in memory."""

    def make(_real: Any) -> Any:
        async def remember(self: Any, **changes: Any) -> None:
            self.facts = self.wanted = replace(self.wanted, **changes)

        return remember

    spade.plant(node_state.NodeState, "remember", make)


def router_accepts_lower_epochs(spade: Spade) -> None:
    """A router follows whatever it is told last, and is told an old route now and then."""

    def make(_real: Any) -> Any:
        def follow(self: Any, route: Any) -> bool:
            self.known_epoch = max(self.known_epoch, route.epoch)
            self.route = self.route if self.route and self.route.write and route.write is None else route
            return True

        return follow

    spade.plant(Router, "follow", make)


def paused_acts(spade: Spade) -> None:
    """Agents do not look at the phase."""

    def make(real: Any) -> Any:
        def obey(record: ClusterRecord, *rest: Any) -> Any:
            return real(replace(record, phase=Phase.STEADY) if record.phase is Phase.PAUSED else record, *rest)

        return obey

    spade.plant(executor, "obey", make)


BUGS = tuple(
    Bug(bug.__name__, bug)
    for bug in (
        promote_before_fence,
        lease_without_waiting,
        renewal_counted_from_reply,
        guard_never_renewed_after_restart,
        lease_timed_by_wall_clock,
        tombstone_forgotten,
        promise_ignored,
        one_standby_too_few,
        sync_list_shrunk_at_once,
        position_from_before_the_freeze,
        forked_lineage_accepted,
        anybody_wins,
        less_data_unnoticed,
        switchover_before_catch_up,
        old_epoch_accepted,
        epoch_reused_after_restore,
        marks_not_durable,
        router_accepts_lower_epochs,
        paused_acts,
    )
)
