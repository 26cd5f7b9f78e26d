"""The steward's part: hold the right to decide, look at everybody, decide, persist, publish.

RULES
1. Nothing is stored but on condition of the record as it was read AND of our own lease as we last wrote it.
2. What cannot be read, or belongs to another cluster, is refused with a reason, and never written over.
3. Ages are by this host's boot clock since its first sight. After anything of unknown fate everything is read anew.
4. About a record from before our contact with the store, nothing is decided before everybody had the time to speak.
5. Deciding is skipped as long as the view is the same and no age in it has passed a timer.
"""

from bisect import bisect_right
from collections.abc import Awaitable, Iterable, Iterator
from dataclasses import dataclass, fields
from functools import partial
from math import inf

from understudy.control.cluster.beats import RouterWord
from understudy.control.cluster.lane import Lane
from understudy.control.cluster.mirror import Mirror, Sight
from understudy.control.cluster.observer import next_beat_s
from understudy.control.cluster.ports import Ports
from understudy.control.cluster.reading import Reader, RecordReader
from understudy.control.cluster.tenure import LeaseReader
from understudy.control.keys import (
    cluster_commands,
    cluster_primary,
    cluster_record,
    cluster_report,
    cluster_router,
    cluster_steward,
)
from understudy.core.clock import Now
from understudy.core.cluster import ClusterService, Node, Timers
from understudy.core.clusters import decide_on
from understudy.core.codec import encode
from understudy.core.errors import Refused
from understudy.core.record import ClusterRecord, Phase, Request
from understudy.core.report import ClusterView, Decision, LeaseSeen, NodeReport, NodeSeen, Running
from understudy.core.text import Name
from understudy.store.base import Delete, Expect, Outcome, Put, StoreFault
from understudy.store.lease import DRIFT, Claim, LeaseSight

PATIENT = 0.5
"""How much of a lease a host waits longer to become steward when the primary is its own."""
RESIGN_EVERY = 10
"""A steward on the primary's host offers its right to others at most once in an epoch and so many leases."""
BEAT_LATE = 1.25
"""The primary's engine is probed when its report is so many cadences old."""


ROUNDING_S = 1e-4
"""So that a time that was worked out and has come does not count as still to come."""


class Steward:
    """One agent as a contender for, or holder of, the right to decide about one cluster."""

    def __init__(self, ports: Ports, mirror: Mirror, record: RecordReader, primary_lease: LeaseReader) -> None:
        service = ports.service
        self._ports = ports
        self._service = service
        self._timers = service.timers
        self._apart = self._is_apart()
        self._nodes = {node.name: node for node in service.nodes}
        self._mirror = mirror
        self._record = record
        self._primary_lease = primary_lease
        self._lease = LeaseReader(mirror, cluster_steward(service.name))
        self._lane = Lane(ports.spawn, ports.wake)
        self._probe = Lane(ports.spawn, ports.wake)
        self._reports: dict[Name, Reader[NodeReport]] = {}
        self._watch(node.name for node in service.nodes)
        self._requests: dict[str, Reader[Request]] = {}
        self._routers: dict[str, Reader[RouterWord]] = {}
        self._steps = _steps(service.timers)
        self._held_until_s = -inf
        self._resigned = (0, -inf)
        """In which epoch we last offered our right to others, and when."""
        self._renew_s = 0.0
        self._behind = False
        """Whether something of unknown fate was done, so that everything must be read anew."""
        self._heard_out_s = -inf
        """From when on everybody had spoken in that contact with the store after which everything was read."""
        self._answer: tuple[Name, bool, float] | None = None
        """Whom we probed, what came of it, and since when it does."""
        self._probe_s = 0.0
        self._seen: tuple[object, ...] = ()
        """What the last decision turned on."""
        self._again_s = 0.0
        """When to decide anew whatever has or has not changed."""
        self._stirred = True
        """Whether anything came from the store that a decision may turn on, since it was looked at."""
        self._calm_until_s = 0.0
        """When the first age passes a timer."""
        self._fresh_identity = ""

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """Everything that may run."""
        return (self._lane, self._probe)

    def take(self, service: ClusterService) -> None:
        """Decide by this spec from now on; what is being stored was decided by the one before, and says so.

        Nodes that have left stay known: one of them may be the primary still.
        """
        self._service = service
        self._apart = self._is_apart()
        self._nodes |= {node.name: node for node in service.nodes}
        self._watch(node.name for node in service.nodes)
        self._seen, self._stirred = (), True

    def _watch(self, names: Iterable[Name]) -> None:
        """Read the reports of these nodes too."""
        for name in names:
            if name not in self._reports:
                key = cluster_report(self._service.name, name)
                self._reports[name] = Reader(self._mirror, key, NodeReport)

    @property
    def fault(self) -> str:
        """Why the steward's lease cannot be read; empty when it can."""
        return self._lease.fault

    @property
    def holding(self) -> bool:
        """Whether we held the right when we last looked."""
        return self._held_until_s > self._ports.clock.now().boot_s

    @property
    def holder(self) -> str | None:
        """The host that holds the right, as far as it is seen here."""
        sight = self._lease.look()
        return sight.lease.owner if sight is not None and sight.lease is not None else None

    def look(self, now_s: float) -> ClusterView:
        """What is seen of the cluster, for people and routers; nothing is decided by it."""
        sight = self._primary_lease.look()
        unread = LeaseSight(cluster_primary(self._service.name), None, 0, now_s)
        return self._view(now_s, sight if sight is not None else unread)

    def tick(self, now: Now, refused: str) -> float:
        """Contend or renew; when steward, probe and decide. `refused`: why this agent must not; empty if it may."""
        self._settle(now.boot_s)
        next_s = inf
        if self._mirror.ready:
            if self.holding:
                self._probe_primary(now.boot_s)  # also while the store keeps us waiting: one lost host may be both
            next_s = self._known_s() if self._lane.busy else self._go_on(now, refused)
        probe_s = self._probe_s if self.holding else inf
        return min(self._lane.until(next_s, now.boot_s), self._probe.until(probe_s, now.boot_s))

    def _go_on(self, now: Now, refused: str) -> float:
        """The next thing to do; when to come again unless it was begun."""
        if self._behind:
            self._lane.start(self._catch_up, now.boot_s + self._timers.timeout_ms / 1000)
            return inf
        sight = self._lease.look()
        if sight is None:
            return inf  # it cannot be read, and is not written over
        ours = sight.lease is not None and sight.lease.owner == self._ports.host
        if self._contend(now.boot_s, sight, ours=ours, refused=refused):
            return self._known_s()
        if not ours:
            return inf if refused else self._patience_s(sight)
        if now.boot_s >= self._held_until_s:
            return self._renew_s  # nothing is decided before it is ours for certain
        self._steer(now, sight)
        return self._known_s()

    def _known_s(self) -> float:
        """When the next thing is due that a holder knows of; at once, if something came while the lane is busy."""
        if self._lane.busy and self._stirred:
            return 0.0
        return min(self._renew_s, self._calm_until_s, self._probe_s)

    def closed(self, record: ClusterRecord) -> bool:
        """Whether the primary before this record's epoch is verified dead and stays so, by its own agent's word."""
        reader = self._reports.get(record.previous) if record.previous is not None else None
        report = reader.value() if reader is not None else None
        dead = report is not None and report.identity == record.identity and report.running is Running.DEAD
        return dead and report is not None and report.closed_epoch >= record.epoch

    def stir(self) -> None:
        """Something that a decision may turn on has changed."""
        self._stirred = True

    # --- the right to decide ------------------------------------------------------------------------------------------

    def _settle(self, now_s: float) -> None:
        """Give up what does not come back."""
        if self._lane.expired(now_s):
            self._behind = True
        if self._probe.expired(now_s) and (record := self._record.newest) is not None and record.primary is not None:
            self._answered(record.primary, False, now_s)

    def _contend(self, now_s: float, sight: LeaseSight, *, ours: bool, refused: str) -> bool:
        """Take, renew or give back the lease if it is time; whether that was begun."""
        host, lease_ms = self._ports.host, self._timers.lease_ms
        if ours and sight.lease is not None:
            if refused or self._should_resign(now_s):
                self._lane.start(partial(self._resign, sight, now_s), now_s + self._timers.timeout_ms / 1000)
                return True
            claim = sight.resume(host, sight.lease.epoch, now_s) if now_s >= self._renew_s else None
        else:
            self._held_until_s = -inf
            patient = refused or now_s < self._patience_s(sight)
            claim = None if patient else sight.take_over(host, 0, lease_ms, now_s)
        if claim is None:
            return False
        self._renew_s = next_beat_s(now_s, self._timers.renew_ms)
        self._lane.start(partial(self._claim, claim), now_s + self._timers.timeout_ms / 1000)
        return True

    def _patience_s(self, sight: LeaseSight) -> float:
        """From when on we would take it; hosts that are ill placed for it come last."""
        held_s = sight.lease.duration_ms / 1000 * (1 + DRIFT) if sight.lease is not None else 0.0
        run_out_s = sight.since_s + held_s
        later_s = self._timers.lease_ms / 1000 * PATIENT if self._ill_placed() else 0.0
        return run_out_s + later_s

    def _ill_placed(self) -> bool:
        """Whether we would be lost together with the primary, or sit apart from all nodes (and from the store's)."""
        return self._apart or self._on_primary_host()

    def _is_apart(self) -> bool:
        return all(node.host != self._ports.host for node in self._service.nodes)

    def _on_primary_host(self) -> bool:
        record = self._record.newest
        node = self._nodes.get(record.primary) if record is not None and record.primary is not None else None
        return node is not None and node.host == self._ports.host

    def _should_resign(self, now_s: float) -> bool:
        record = self._record.newest
        if record is None or record.phase is not Phase.STEADY or not self._ill_placed():
            return False
        epoch, resigned_s = self._resigned
        if epoch == record.epoch and now_s - resigned_s < RESIGN_EVERY * self._timers.lease_ms / 1000:
            return False
        stale_s = now_s - self._timers.stale_other_ms / 1000
        others = (node for node in self._service.nodes if node.host != self._ports.host and node.name != record.primary)
        return any(self._reports[node.name].sight().since_s > stale_s for node in others if self._heard(node.name))

    def _heard(self, name: Name) -> bool:
        return self._reports[name].sight().value is not None

    async def _stored(self, writing: Awaitable[Outcome]) -> Outcome | None:
        """The outcome of a write that took effect; None when it did not, or may not have: then look anew first."""
        try:
            outcome = await writing
        except StoreFault:
            self._behind = True
            return None
        if not outcome.committed:
            self._behind = True
            return None
        return outcome

    async def _claim(self, claim: Claim) -> bool:
        outcome = await self._stored(self._ports.store.transact([claim.expect], [claim.put]))
        if outcome is None:
            return True
        self._mirror.note(claim.put, outcome.revision)
        gained = not self.holding
        self._held_until_s = claim.sent_s + claim.lease.duration_ms / 1000
        self._stirred = self._stirred or gained
        return gained

    async def _resign(self, sight: LeaseSight, now_s: float) -> bool:
        record = self._record.newest
        self._held_until_s, self._resigned = -inf, (record.epoch if record is not None else 0, now_s)
        expect, delete = Expect(sight.key, sight.revision), Delete(sight.key)
        try:
            outcome = await self._ports.store.transact([expect], [delete])
        except StoreFault:
            self._behind = True
            return True
        if outcome.committed:
            self._mirror.note(delete, outcome.revision)
        return True

    async def _catch_up(self) -> bool:
        try:
            await self._mirror.refresh()
            self._behind, self._stirred = False, True
        except StoreFault:
            await self._ports.clock.sleep(self._timers.renew_ms / 1000 / 4)
        return True

    # --- look, decide, persist, publish -------------------------------------------------------------------------------

    def _steer(self, now: Now, steward: LeaseSight) -> None:
        """Decide if anything is new."""
        if not self._stirred and now.boot_s < self._calm_until_s:
            return
        if now.boot_s < (spoken_s := self._spoken_s()):
            self._calm_until_s = spoken_s
            return
        if spoken_s > self._heard_out_s:  # what they have said may be there, and the watch still on its way
            self._heard_out_s, self._behind = spoken_s, True
            self._ports.wake()
            return
        lease = self._primary_lease.look()
        if lease is None:
            self._calm_until_s = inf  # it cannot be read; nothing is decided until it has changed
            return
        seen, next_s = self._inputs(now.boot_s, lease)
        self._stirred, self._calm_until_s = False, min(next_s, self._again_s)
        if seen == self._seen and now.boot_s < self._again_s:
            return
        view = self._view(now.boot_s, lease)
        decision = decide_on(view, now)
        self._seen, self._again_s = seen, now.boot_s + self._timers.drop_ms / 1000
        self._calm_until_s = min(next_s, self._again_s)
        if decision.record is not view.record or decision.requests_done or decision.events:
            self._seen, self._stirred = (), True
            work = partial(self._persist, decision, view, steward, lease, now)
            self._lane.start(work, now.boot_s + self._timers.timeout_ms / 1000)

    def _spoken_s(self) -> float:
        """From when on everybody who hears the store has said what he knows, if the record is from before our contact.

        The store may have been put back to a state from before other reigns: then the reports there are as old.
        """
        contact_s = self._mirror.contact_s
        known = self._record.current is None or self._record.sight().since_s > contact_s
        return -inf if known else contact_s + self._timers.stale_other_ms / 1000

    def _inputs(self, now_s: float, lease: LeaseSight) -> tuple[tuple[object, ...], float]:
        """All that a decision turns on, with ages as the timers that they have passed; and when the next is passed."""
        record, answer, steps = self._record.current, self._answer, self._steps
        primary = record.primary if record is not None else None
        held = lease.lease
        parts: list[object] = [
            record,
            self._mirror.incarnation,
            held and (held.owner, held.epoch, held.buried),
            answer and answer[:2],
        ]
        since = [(self._record.phase_since_s, steps.phase), (lease.since_s, steps.lease)]
        if answer is not None:
            since.append((answer[2], steps.answer))
        for name in self._members():
            reader = self._reports[name]
            parts.append(reader.value())
            since.append((reader.sight().since_s, steps.primary if name == primary else steps.other))
        for sight, word in self._routing():
            parts.append(word.epoch)
            since.append((sight.since_s, steps.router))
        parts += self._waiting()
        next_s = inf
        for start_s, passed in since:
            index = bisect_right(passed, now_s - start_s + ROUNDING_S)
            parts.append(index)
            if index < len(passed):
                next_s = min(next_s, start_s + passed[index])
        return tuple(parts), next_s

    def _waiting(self) -> list[Request]:
        keys = [sight.key for sight in self._mirror.under(cluster_commands(self._service.name))]
        self._requests = {key: self._requests.get(key) or Reader(self._mirror, key, Request) for key in keys}
        return [request for reader in self._requests.values() if (request := reader.value()) is not None]

    def _routing(self) -> Iterator[tuple[Sight, RouterWord]]:
        """The routers that have spoken, and what they said."""
        prefix = cluster_router(self._service.name, self._ports.host).removesuffix(self._ports.host)
        for sight in self._mirror.under(prefix):
            reader = self._routers.setdefault(sight.key, Reader(self._mirror, sight.key, RouterWord))
            if (word := reader.value()) is not None:
                yield sight, word

    def _view(self, now_s: float, lease: LeaseSight) -> ClusterView:
        record = self._record.current
        if not self._fresh_identity:
            self._fresh_identity = self._ports.draw_identity()
        live_s = now_s - self._timers.stale_other_ms / 1000
        routed = [word.epoch for sight, word in self._routing() if sight.since_s >= live_s]
        held = lease.lease
        return ClusterView(
            service=self._service,
            capabilities=self._ports.capabilities,
            record=record,
            nodes=tuple((name, self._node_seen(name, now_s)) for name in self._members()),
            lease=LeaseSeen(
                owner=Name(held.owner) if held and held.owner and not held.buried else None,
                epoch=held.epoch if held else 0,
                quiet_ms=_ms(lease.quiet_s(now_s)),
                duration_ms=held.duration_ms if held else self._timers.lease_ms,
            ),
            phase_age_ms=_ms(now_s - self._record.phase_since_s),
            requests=tuple(self._waiting()),
            routed_epoch=min(routed, default=record.epoch if record else 0),
            read=self._record.highest,
            fresh_identity=self._fresh_identity,
            store=self._mirror.incarnation,
        )

    def _members(self) -> list[Name]:
        """The nodes of the spec, and those that have left it and still have a duty: their engines may still run.

        Without a record, those that had one in the last record that any of them, or we, have read.
        """
        record = self._record.current
        if record is not None:
            duties = [duty.node for duty in record.duties]
        else:
            told = [reader.value() for reader in self._reports.values()]
            duties = [name for report in told if report is not None for name in report.company]
            duties += [duty.node for duty in self._record.highest.duties] if self._record.highest is not None else []
        self._watch(duties)
        return [name for name in self._reports if self._service.node(name) is not None or name in duties]

    def _node_seen(self, name: Name, now_s: float) -> NodeSeen:
        reader = self._reports[name]
        sight = reader.sight()
        seen = NodeSeen(reader.value(), _ms(now_s - sight.since_s))
        if self._answer is None or self._answer[0] != name:
            return seen
        return NodeSeen(seen.report, seen.age_ms, self._answer[1], _ms(now_s - self._answer[2]))

    async def _persist(
        self, decision: Decision, view: ClusterView, steward: LeaseSight, lease: LeaseSight, now: Now
    ) -> bool:
        """Store what was decided and only then let it be known."""
        name = self._service.name
        record_key = cluster_record(name)
        expects = [self._record.sight().expect(), steward.guard()]
        changes: list[Put | Delete] = []
        if decision.lease is not None:
            order = decision.lease
            expect, put = (
                lease.bury(order.epoch, self._timers.lease_ms)
                if order.owner is None
                else lease.hand_out(order.owner, order.epoch, self._timers.lease_ms)
            )
            expects.append(expect)
            changes.append(put)
        if decision.record is not None and decision.record is not view.record:
            changes.append(Put(record_key, encode(decision.record)))
        done = set(decision.requests_done)
        changes += [
            Delete(key) for key, reader in self._requests.items() if (wish := reader.value()) and wish.id in done
        ]
        writing = self._ports.chronicle.commit(expects, changes, decision.events, wall_s=now.wall_s)
        outcome = await self._stored(writing)
        if outcome is None:
            return True
        for change in changes:
            self._mirror.note(change, outcome.revision)
        for event in decision.events:
            self._ports.tell(event)
        return True

    # --- the steward's own probe --------------------------------------------------------------------------------------

    def _probe_primary(self, now_s: float) -> None:
        """Ask the primary's engine ourselves when its agent is late."""
        record = self._record.current
        primary = record.primary if record is not None else None
        node = self._nodes.get(primary) if primary is not None else None
        if node is None:
            self._probe_s = inf
            if primary is None:
                self._forget_answer()
            else:
                self._answered(primary, False, now_s)  # it has left the spec: nobody here knows where it is
            return
        late_s = self._reports[node.name].sight().since_s + self._timers.report_ms / 1000 * BEAT_LATE
        if now_s < late_s:
            self._forget_answer()
            self._probe_s = late_s
        elif not self._probe.busy and (now_s >= self._probe_s or self._probe_s == inf):  # nobody had the part just now
            pause_s = self._timers.confirm_ms / 2000
            self._probe_s = now_s + pause_s
            self._probe.start(partial(self._ask, node), now_s + pause_s)

    async def _ask(self, node: Node) -> bool:
        try:
            answers = await self._ports.prober.answers(node)
        except Refused:
            answers = False
        self._answered(node.name, answers, self._ports.clock.now().boot_s)
        return self._stirred

    def _answered(self, name: Name, answers: bool, now_s: float) -> None:
        if self._answer is None or self._answer[:2] != (name, answers):
            self._answer, self._stirred = (name, answers, now_s), True

    def _forget_answer(self) -> None:
        if self._answer is not None:
            self._answer, self._stirred = None, True


@dataclass(frozen=True, slots=True)
class _Steps:
    """The lengths of time, in seconds and rising, that a decision may turn on. A beat that is not late passes none.

    Of a report's age core/ asks only whether it is stale, and whether its node has been away for long; of the phase's,
    and of all that is new there, any timer. What were forgotten here would be seen `drop_ms` later.
    """

    phase: tuple[float, ...]
    primary: tuple[float, ...]
    """For the age of the primary's report."""
    other: tuple[float, ...]
    """For that of any other."""
    lease: tuple[float, ...]
    """For how long the primary's lease has been quiet."""
    answer: tuple[float, ...]
    """For how long the probe of the primary's engine has said the same."""
    router: tuple[float, ...]
    """For the age of a router's word."""


def _steps(timers: Timers) -> _Steps:
    every = {*(getattr(timers, one.name) for one in fields(timers)), timers.lease_over_ms, timers.fence_ms}
    away = {timers.drop_ms, timers.elector_drop_ms}
    return _Steps(
        phase=_rising(every),
        primary=_rising({timers.stale_ms, *away}),
        other=_rising({timers.stale_other_ms, *away}),
        lease=_rising({length_ms for length_ms in every if length_ms >= timers.lease_over_ms}),
        answer=_rising({timers.confirm_ms}),
        router=_rising({timers.stale_other_ms}),
    )


def _rising(lengths_ms: set[int]) -> tuple[float, ...]:
    return tuple((length_ms + 1) / 1000 for length_ms in sorted(lengths_ms))


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
