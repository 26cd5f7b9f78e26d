"""The planted bugs: each a few lines that a tired person could have written, and each must break a rule."""

from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any

from tests.simulation.agents import Router
from tests.simulation.engine import SimDriver
from tests.simulation.planted.patching import Bug, Spade

from understudy.control.cluster import executor, loop, mirror, node_state, observer, steward, tenure
from understudy.core import adoption, classify, duties, effects, election, grounds, health, quorum, requests, sync
from understudy.core import obey as obeying
from understudy.core.actions import Freeze
from understudy.core.fsm import Effect
from understudy.core.lineage import Position
from understudy.core.record import ClusterRecord, Ground, Phase, wanted_sync
from understudy.core.report import OwnLease, Promise, Running
from understudy.core.situation import Handover, Judged
from understudy.store.base import Expect


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
    spade.plant_entry(
        effects,
        "_EFFECTS",
        Effect.OPEN_EPOCH,
        lambda real: lambda draft, case: replace(real(draft, case), lease=None),
    )


def promise_ignored(spade: Spade) -> None:
    """An agent promises and forgets it at once."""

    def make(real: Any) -> Any:
        async def promise(self: Any, request: Any, record: Any) -> bool:
            answer = await real(self, request, record)
            self._state.promise = Promise()
            return bool(answer)

        return promise

    spade.plant(tenure.Tenure, "promise", make)


def promise_forgotten_on_restart(spade: Spade) -> None:
    """An agent that starts anew is bound by nothing that the one before it promised."""

    def make(real: Any) -> Any:
        async def load(self: Any, now_s: float, lease_s: float) -> None:
            await real(self, now_s, lease_s)
            self.promise = Promise()

        return load

    spade.plant(node_state.NodeState, "load", make)


def own_promise_is_enough(spade: Spade) -> None:
    """A primary without the store goes on as long as anybody promises, be it itself."""
    spade.plant(tenure, "promised", lambda _real: lambda _electorates, promises: bool(promises))


def failover_while_standbys_stream(spade: Spade) -> None:
    """An agent that is silent counts as a primary that is lost."""

    def make(real: Any) -> Any:
        return lambda view, primary: replace(real(view, primary), judged=Judged.LOST)

    spade.plant(health, "_by_others", make)


def promoted_without_lease(spade: Spade) -> None:
    """A candidate does not wait for its own lease and guard: the record's word is enough."""

    def make(real: Any) -> Any:
        def obey(record: ClusterRecord, report: Any, _lease: OwnLease, *rest: Any) -> Any:
            return real(record, report, OwnLease(record.epoch, inf), *rest)

        return obey

    spade.plant(executor, "obey", make)


def closed_though_alive(spade: Spade) -> None:
    """An engine counts as dead, and is marked so, as soon as that was ordered."""

    def make(_real: Any) -> Any:
        async def close(self: Any) -> None:
            await self._pause(0.02)

        return close

    spade.plant(SimDriver, "_close", make)


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


def frozen_in_name_only(spade: Spade) -> None:
    """A frozen standby goes on replicating, and acknowledging."""

    def make(real: Any) -> Any:
        async def do(self: Any, action: Any) -> None:
            if not isinstance(action, Freeze):
                await real(self, action)

        return do

    spade.plant(SimDriver, "_do", make)


def last_report_not_recalled(spade: Spade) -> None:
    """A new agent does not hold its node to what the last one reported: both died in one power cut."""

    def make(_real: Any) -> Any:
        async def recall(self: Any) -> None:
            self._recalled = True

        return recall

    spade.plant(observer.Observer, "_recall", make)


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


def rebuild_without_a_copy(spade: Spade) -> None:
    """What a node had is thrown away when it is copied anew."""
    spade.plant(
        SimDriver, "_put_aside", lambda _real: lambda self, log: self._engine.truth.discarded(self._engine, list(log))
    )


# Epochs, marks, and a person's word.


def old_epoch_accepted(spade: Spade) -> None:
    """An agent obeys whatever record it has in hand."""
    spade.plant(obeying, "_binding", _always(True))

    def make(real: Any) -> Any:
        def begin(self: Any, action: Any, *rest: Any) -> None:
            known = self._state.wanted
            self._state.wanted = replace(known, epoch=min(known.epoch, action.epoch))
            real(self, action, *rest)

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
    """A router follows whatever it is told last, and does not hold writes while nobody may take them."""

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
        def tick(self: Any, now: Any, record: ClusterRecord | None) -> float:
            paused = record is not None and record.phase is Phase.PAUSED
            return real(self, now, replace(record, phase=Phase.STEADY) if paused else record)

        return tick

    spade.plant(executor.Executor, "tick", make)


def failback_without_hold(spade: Spade) -> None:
    """The preferred node gets the part back however often it loses it."""
    spade.plant(
        requests,
        "_own_wish",
        lambda real: lambda view, record, now: real(view, replace(record, failback_wall_s=0.0), now),
    )


# The store.


def acted_before_stored(spade: Spade) -> None:
    """The steward's own host obeys what is decided before it is stored."""

    def make(real: Any) -> Any:
        async def persist(self: Any, decision: Any, *rest: Any) -> bool:
            self._record.newest = decision.record or self._record.newest
            self._ports.wake()
            return bool(await real(self, decision, *rest))

        return persist

    spade.plant(steward.Steward, "_persist", make)


def absent_key_misjudged(spade: Spade) -> None:
    """A key that is not there is expected to have the revision at which it was missed."""
    spade.plant(mirror.Sight, "expect", lambda _real: lambda self: Expect(self.key, self.revision))


# Changes of the spec.


def older_spec_decides(spade: Spade) -> None:
    """A steward goes on deciding by a spec that is older than the one that was in force already."""
    spade.plant(loop.ClusterLoop, "_outdated", _always(""))


def strictness_by_the_spec_alone(spade: Spade) -> None:
    """As soon as loss is allowed, no rule binds that may still be in force from before."""

    def make(real: Any) -> Any:
        return lambda view, record: real(view, record) if view.service.durability.zero_loss else ()

    spade.plant(election, "strict_rules", make)


def owed_forgotten(spade: Spade) -> None:
    """When a rule that loses nothing is given up, nobody writes down what was acknowledged under it."""

    def make(real: Any) -> Any:
        return lambda view, record, primary: replace(real(view, record, primary), owed=None)

    spade.plant(sync, "_rule_step", make)


def leavers_closed_at_once(spade: Spade) -> None:
    """A node that leaves the spec is closed, whether its acknowledgements are needed or not."""

    def make(real: Any) -> Any:
        def tended(view: Any, record: ClusterRecord) -> ClusterRecord:
            left = {duty.node for duty in record.duties if view.service.node(duty.node) is None}
            rules = tuple(replace(rule, voters=rule.voters - left) for rule in record.sync)
            result = real(view, replace(record, sync=rules))
            return replace(result, sync=record.sync)

        return tended

    spade.plant(duties, "tended", make)


BUGS = tuple(
    Bug(bug.__name__, bug, theme)
    for bug, theme in (
        (promote_before_fence, ""),
        (lease_without_waiting, ""),
        (renewal_counted_from_reply, "late_answer"),
        (guard_never_renewed_after_restart, "candidate_cut_off"),
        (lease_timed_by_wall_clock, "isolate_then_step"),
        (tombstone_forgotten, "candidate_cut_off"),
        (promise_ignored, "promised_then_isolate"),
        (promise_forgotten_on_restart, "promised_then_isolate"),
        (own_promise_is_enough, "promised_then_isolate"),
        (promoted_without_lease, "candidate_cut_off"),
        (closed_though_alive, ""),
        (failover_while_standbys_stream, "mute"),
        (one_standby_too_few, "lag_then_lose"),
        (sync_list_shrunk_at_once, "late_standby_stays"),
        (position_from_before_the_freeze, "late_wal"),
        (forked_lineage_accepted, "longer_tail"),
        (anybody_wins, "lag_then_lose"),
        (frozen_in_name_only, "late_wal"),
        (last_report_not_recalled, "voter_shrinks"),
        (less_data_unnoticed, "voter_shrinks"),
        (switchover_before_catch_up, "switchover_to_laggard"),
        (rebuild_without_a_copy, ""),
        (old_epoch_accepted, "restore_behind"),
        (epoch_reused_after_restore, "restore_behind"),
        (marks_not_durable, ""),
        (router_accepts_lower_epochs, "restore_behind"),
        (paused_acts, "pause_with_work"),
        (failback_without_hold, "preferred_dies"),
        (acted_before_stored, "steward_dies"),
        (absent_key_misjudged, "store_wipe"),
        (older_spec_decides, "older_steward"),
        (strictness_by_the_spec_alone, "loosened"),
        (owed_forgotten, "loosened"),
        (leavers_closed_at_once, "leaver_counts"),
    )
)
