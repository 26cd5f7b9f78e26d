"""A node's right to be primary: its lease renewed, its guard armed; and promises, for when the store is away.

RULES
1. The guard's deadline is the clock before the renewal (or question) was sent + the duration. Only success moves it.
2. Promises are asked for only when the store did not answer, or is another cluster's; a refused renewal ends the right.
3. A promise binds by this host's own clock, a little longer than was asked, and over a restart of the agent.
4. As long as a deadline rests on promises, the report does not say that a newer electorate was read: the steward might
   forget the older one, by which they were given.
5. A guard is armed first by a renewal on condition that the record in sight is the newest: what has been decided since
   cannot have been missed, though the watch may be behind the renewal.
6. An agent that ends in order takes a longer lease, for the time that the next one needs to begin. A guard's deadline
   cannot be moved back; so no renewal ends before the one that it follows, whoever sent that.
"""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from math import ceil, inf

from understudy.control.cluster.beats import counter
from understudy.control.cluster.lane import Lane
from understudy.control.cluster.mirror import Mirror, Sight
from understudy.control.cluster.node_state import NodeState
from understudy.control.cluster.observer import next_beat_s, told
from understudy.control.cluster.ports import Ports, PromiseRequest
from understudy.control.keys import cluster_record, cluster_report
from understudy.core.cluster import Node
from understudy.core.codec import Undecodable
from understudy.core.errors import Refused
from understudy.core.quorum import promised
from understudy.core.record import ClusterRecord
from understudy.core.report import OwnLease, Promise, Running
from understudy.core.text import Name
from understudy.store.base import Expect, Outcome, StoreFault
from understudy.store.lease import DRIFT, Claim, Held, Lease, LeaseSight, see

LEAVE_LEASES = 3
"""How many leases long an agent that ends in order leaves its primary to itself. More would let a failover without
revocation wait for longer than `Timers.fence_ms`, should the host be lost meanwhile."""
_LEAVE_TRIES = 3


class LeaseReader:
    """A lease as this host sees it; renewals are decoded only when somebody looks."""

    def __init__(self, mirror: Mirror, key: str) -> None:
        self._mirror = mirror
        self.key = key
        self._raw: Sight | None = None
        self._sight: LeaseSight | None = None
        self._skipped: Sight | None = None
        self.fault = ""

    def passed(self, before: Sight | None) -> None:
        """An entry was replaced in the mirror; what a tombstone lies on must not be missed."""
        self._skipped = before

    def look(self) -> LeaseSight | None:
        """What is seen; None when it is no lease, which is left as it is."""
        raw = self._mirror.get(self.key)
        if raw is not self._raw:
            before, self._raw = self._raw, raw
            if before is not None and self._renewed(before, raw):
                return self._sight
            try:
                if self._skipped is not None and self._skipped.revision != raw.revision:
                    self._sight = see(self._sight, self.key, self._skipped.item(), self._skipped.since_s)
                self._sight = see(self._sight, self.key, raw.item(), raw.since_s)
                self._skipped, self.fault = None, ""
            except Undecodable as fault:
                self._sight, self.fault = None, f"{self.key}: {fault}"
        return self._sight

    def _renewed(self, before: Sight, raw: Sight) -> bool:
        """Take in a renewal, which changes nothing but the counter; whether it was just that."""
        seen = self._sight
        if seen is None or seen.lease is None or raw.value is None or before.content != raw.content:
            return False
        lease = replace(seen.lease, counter=counter(raw.value))
        self._sight, self._skipped = LeaseSight(self.key, lease, raw.revision, raw.since_s), None
        return True


@dataclass(frozen=True, slots=True)
class _Reign:
    """What a primary must know of its record to go on without the store."""

    identity: str
    epoch: int
    serial: int
    electorates: tuple[frozenset[Name], ...]


@dataclass(slots=True)
class _Round:
    """One question to all data nodes."""

    reign: _Reign
    request: PromiseRequest
    sent_s: float
    granted: set[Name] = field(default_factory=set)


class Tenure:
    """The lease of one own node, and its promises to others."""

    def __init__(self, ports: Ports, mirror: Mirror, state: NodeState, lease: LeaseReader) -> None:
        self._ports = ports
        self._mirror = mirror
        self._state = state
        self._lease = lease
        self._timers = ports.service.timers
        self._lane = Lane(ports.spawn, ports.wake)
        self._noting = Lane(ports.spawn, ports.wake)
        self._asking = {node: Lane(ports.spawn, ports.wake) for node in ports.service.nodes}
        self._record: ClusterRecord | None = None
        self._record_key = cluster_record(ports.service.name)
        self._foreign = False
        self._due_s = 0.0
        self._tried = -1
        """The generation of the node when arming its guard was last tried."""
        self._asked_until_s = 0.0
        """Until when lanes may hold questions."""
        self._by_promises = 0
        """Above 0: the deadline rests on promises, and this is the serial of the record that said whose."""
        self._taken_up: tuple[int, float] = (0, 0.0)
        """Of which epoch a lease was found, and in which contact with the store."""
        self._ripe_s = 0.0
        """0: that lease counts for a promotion; else from when on a renewal may make it count."""

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """Everything that may run."""
        return (self._lane, self._noting, *self._asking.values())

    def ask(self, nodes: Iterable[Node]) -> None:
        """Ask these nodes for promises too, from now on."""
        asked = {node.name for node in self._asking}
        self._asking |= {node: Lane(self._ports.spawn, self._ports.wake) for node in nodes if node.name not in asked}

    def tick(self, now_s: float, record: ClusterRecord | None, *, foreign: bool) -> float:
        """Renew when it is time; when to come again. In a `foreign` store there is no right to renew, as in none."""
        self._record, self._foreign = record, foreign
        if now_s < self._asked_until_s:
            for lane in self._asking.values():
                lane.expired(now_s)
        if foreign or not self._mirror.ready:
            if now_s >= self._due_s and not self._lane.busy:
                self._due_s = next_beat_s(now_s, self._timers.renew_ms)
                self._ask(now_s)
            return self._lane.until(self._due_s, now_s)
        self._noting.expired(now_s)
        if record is not None and not self._noting.busy and self._unnoted(record):
            self._noting.start(partial(self._note, record), now_s + self._timers.timeout_ms / 1000)
        sight = self._lease.look()
        lease = self._own(sight)
        if sight is None or lease is None:
            self._state.lease = OwnLease()
            if sight is not None:
                self._by_promises = 0  # whatever was promised, it was to a reign that is over
            self._due_s = 0.0
            return inf
        if self._lane.expired(now_s):
            self._ask(now_s)
        if not self._lane.busy and (now_s >= self._due_s or self._guard_is_new(lease)):
            self._take_up(lease.epoch, sight.since_s)
            claim = self._claim(sight, lease, now_s)
            expects = self._conditions(claim)
            self._due_s = next_beat_s(now_s, self._timers.renew_ms)
            self._tried = self._state.generation
            self._lane.start(partial(self._renew, claim, expects), now_s + self._timers.timeout_ms / 1000)
        return self._lane.until(self._due_s, now_s)

    def bound(self, record: ClusterRecord) -> int:
        """The serial that may be reported of that record."""
        serial = record.serial
        if self._unnoted(record) and self._state.facts.reign == record.epoch:
            serial = min(serial, record.electorate_serial - 1)
        return min(serial, self._by_promises) if self._by_promises else serial

    def _unnoted(self, record: ClusterRecord) -> bool:
        """Whether this node reigns, and its disk does not say by whose promises: a new agent could not ask for them."""
        state, facts = self._state, self._state.facts
        reigns = record.primary == state.name and state.report is not None
        reigns = reigns and state.report is not None and state.report.promoted_epoch == record.epoch
        return reigns and (facts.reign, facts.electorates) != (record.epoch, record.electorates)

    async def _note(self, record: ClusterRecord) -> bool:
        try:
            await self._state.remember(serial=record.serial, reign=record.epoch, electorates=record.electorates)
        except Refused:
            return False  # the next tick tries again
        return True

    def _own(self, sight: LeaseSight | None) -> Lease | None:
        """The lease as it stands, if it is this node's and not of an epoch that has passed here."""
        state, lease = self._state, sight.lease if sight is not None else None
        if not state.loaded or lease is None or lease.buried or lease.owner != state.name:
            return None
        return lease if lease.epoch >= state.wanted.epoch else None

    def _claim(self, sight: LeaseSight, lease: Lease, now_s: float, leases: int = 1) -> Claim:
        """The next renewal, for so many leases."""
        left_ms = ceil(lease.duration_ms - sight.quiet_s(now_s) * 1000)
        longest = replace(lease, duration_ms=max(leases * self._timers.lease_ms, left_ms))
        return Held(sight.key, longest, sight.revision, 0.0).renew(now_s)

    def _conditions(self, claim: Claim) -> list[Expect]:
        """Of a renewal; of one that is to arm the guard, also that no record has come since the one in sight."""
        armed = self._state.lease.epoch == claim.lease.epoch
        return [claim.expect] if armed else [claim.expect, self._mirror.get(self._record_key).expect()]

    async def leave(self) -> None:
        """Renew once more, for as long as the next agent of this host may need to begin; nothing else runs any more.

        When that cannot be done, what was renewed last stands.
        """
        with suppress(StoreFault, Undecodable, TimeoutError):
            async with asyncio.timeout(self._timers.timeout_ms / 1000):
                for _ in range(_LEAVE_TRIES):
                    outcome = await self._leave()
                    if outcome is None or outcome.committed:
                        return

    async def _leave(self) -> Outcome | None:
        """None: there is no right to leave with."""
        item = await self._ports.store.get(self._lease.key)
        now_s = self._ports.clock.now().boot_s
        sight = see(None, self._lease.key, item, now_s)
        lease = self._own(sight)
        if lease is None or self._foreign or self._state.lease.epoch != lease.epoch:
            return None
        claim = self._claim(sight, lease, now_s, LEAVE_LEASES)
        outcome = await self._ports.store.transact([claim.expect], [claim.put])
        if outcome.committed:
            await self._arm(lease.epoch, claim.sent_s + claim.lease.duration_ms / 1000, by_promises=0)
        return outcome

    def _guard_is_new(self, lease: Lease) -> bool:
        """Whether the guard has yet to be armed, and something has happened to the engine since that was last tried."""
        return self._state.lease.epoch != lease.epoch and self._tried != self._state.generation

    async def _renew(self, claim: Claim, expects: Sequence[Expect]) -> bool:
        try:
            outcome = await self._ports.store.transact(expects, [claim.put])
            if not outcome.committed:
                await self._mirror.refresh()
                self._due_s = 0.0
                return True
        except StoreFault:
            self._ask(self._ports.clock.now().boot_s)
            return False
        self._mirror.note(claim.put, outcome.revision)
        self._take_up(claim.lease.epoch, 0.0)  # the answer may be the first of a new contact
        armed = await self._arm(claim.lease.epoch, claim.sent_s + claim.lease.duration_ms / 1000, by_promises=0)
        return await self._ripens(claim) or armed

    async def _arm(self, epoch: int, deadline_s: float, *, by_promises: int) -> bool:
        """Move the guard's deadline; whether that is news."""
        state, before = self._state, self._state.lease
        if before.epoch == epoch and deadline_s <= before.deadline_s:
            return False
        try:
            await state.own.fence.renew(deadline_s, margin_s=self._timers.margin_ms / 1000, epoch=epoch)
        except Refused:
            state.lease = OwnLease()  # the engine is not there, or is being killed: its own look says so
            return before.epoch > 0
        state.lease = OwnLease(epoch, deadline_s, ripe=not self._ripe_s)
        rested, self._by_promises = self._by_promises, by_promises
        return before.epoch != epoch or rested != by_promises

    def _take_up(self, epoch: int, seen_s: float) -> None:
        """From when on a lease that was seen then may count for a promotion.

        At once if it was seen to come. Else the store may have been put back to a state from before other reigns: then
        those who took part in them say so in their reports, within a lease of contact.
        """
        contact_s, (known, _) = self._mirror.contact_s, self._taken_up
        if self._taken_up != (epoch, contact_s):
            self._taken_up = (epoch, contact_s)
            fresh = epoch != known and seen_s > contact_s
            self._ripe_s = 0.0 if fresh else contact_s + self._timers.lease_ms / 1000 * (1 + DRIFT)

    async def _ripens(self, claim: Claim) -> bool:
        """Whether that renewal makes the lease count: it was sent late enough, and nobody has spoken of a higher epoch.

        Only a renewal says that the store is still heard: what others said in the meantime is not known without it.
        """
        if not self._ripe_s or claim.sent_s < self._ripe_s:
            return False
        try:
            await self._mirror.refresh()
        except StoreFault:
            return False
        if self._taken_up != (claim.lease.epoch, self._mirror.contact_s):
            return False  # the store has gone back just now
        if self._surpassed(claim.lease.epoch):
            self._ripe_s = claim.sent_s + self._timers.lease_ms / 1000 * (1 + DRIFT)
            return False
        self._ripe_s = 0.0
        self._state.lease = replace(self._state.lease, ripe=True)
        return True

    def _surpassed(self, epoch: int) -> bool:
        """Whether anybody's report carries a higher epoch."""
        keys = (cluster_report(self._ports.service.name, node.name) for node in self._asking)
        reports = (told(self._mirror.get(key).value) for key in keys)
        return any(one is not None and one.epoch > epoch for one in reports)

    # --- promises asked for -------------------------------------------------------------------------------------------

    def _ask(self, now_s: float) -> None:
        """Ask all other data nodes at once."""
        reign = self._reign()
        if reign is None:
            return
        name, duration_ms = self._state.name, self._timers.lease_ms
        request = PromiseRequest(self._ports.service.name, reign.identity, reign.epoch, name, duration_ms)
        asked = _Round(reign, request, now_s)
        self._asked_until_s = now_s + 2 * self._timers.timeout_ms / 1000
        for node, lane in self._asking.items():
            if not lane.busy:
                lane.start(partial(self._ask_one, asked, node), now_s + self._timers.timeout_ms / 1000)

    def _reign(self) -> _Reign | None:
        """Ours, if we have one: by the record; as the node remembers it, when none was read since this agent began."""
        state, record = self._state, self._record
        if record is not None:
            held = state.lease.epoch == record.epoch
            return _Reign(record.identity, record.epoch, record.serial, record.electorates) if held else None
        facts, report = state.wanted, state.report
        if not state.loaded or facts.identity is None or report is None or report.running is not Running.UP:
            return None
        reigns = facts.reign > 0 and facts.reign == facts.epoch == report.promoted_epoch
        return _Reign(facts.identity, facts.reign, facts.serial, facts.electorates) if reigns else None

    async def _ask_one(self, asked: _Round, node: Node) -> bool:
        try:
            if node.name == self._state.name or await self._ports.transport.ask(node, asked.request):
                asked.granted.add(node.name)
                return await self._count(asked)
        except Refused:
            pass  # no answer is no promise
        return False

    async def _count(self, asked: _Round) -> bool:
        now, epoch = self._record or asked.reign, asked.request.epoch
        without_store = self._foreign or not self._mirror.ready
        lost = not without_store and self._own(self._lease.look()) is None
        if now.epoch != epoch or lost or not promised(now.electorates, frozenset(asked.granted)):
            return False
        deadline_s = asked.sent_s + asked.request.duration_ms / 1000
        return await self._arm(epoch, deadline_s, by_promises=self._by_promises or now.serial)

    # --- promises given -----------------------------------------------------------------------------------------------

    async def promise(self, request: PromiseRequest, record: ClusterRecord | None) -> bool:
        """Whether this node is part of no promotion above that epoch until the time asked for has passed here."""
        state, now_s = self._state, self._ports.clock.now().boot_s
        old = state.promise
        duration_ms = min(request.duration_ms, self._timers.lease_ms)
        if not self._may_promise(request, record) or (old.until_s > now_s and old.epoch > request.epoch):
            return False
        until_s = max(old.until_s, now_s + duration_ms / 1000 * (1 + DRIFT))
        state.promise = Promise(request.epoch, until_s)
        longest_ms = max(duration_ms, state.wanted.promised_ms) if old.until_s > now_s else duration_ms
        try:
            await state.remember(promised_epoch=request.epoch, promised_ms=longest_ms)
        except Refused:
            return False
        return duration_ms == request.duration_ms and self._may_promise(request, record)

    def _may_promise(self, request: PromiseRequest, record: ClusterRecord | None) -> bool:
        state = self._state
        return (
            state.loaded
            and state.wanted.identity == request.identity
            and state.wanted.epoch <= request.epoch
            and (record is None or record.epoch <= request.epoch)
            and request.primary != state.name
        )
