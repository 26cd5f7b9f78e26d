"""The loop: observe, decide, persist, act, publish. `tick` is all of it; `run` only repeats it.

RULES: a record is stored before the router hears of it, and the events that say why are stored with it, so that no
death in between loses one (a new spec has its own order: rollout.py). Decisions are core/'s; what an operator orders
goes the same way from `persist` on. One thing at a time: whoever persists or acts holds `turn`, and what was decided
before that is decided anew where its ground has changed.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import structlog

from understudy.control import logs
from understudy.control.clock import Clock
from understudy.control.journal import Journal
from understudy.control.records import InForce, Loaded, Records
from understudy.core.clock import Now
from understudy.core.errors import Fault, Refused
from understudy.core.events import Event, EventKind
from understudy.core.memo import Memo
from understudy.core.model import PoolService, Spec
from understudy.core.objectives import Ledger, ServiceHealth, step
from understudy.core.pool_health import service_health
from understudy.core.pools import PoolDecision, PoolMemory, PoolRecord, PoolSeen, PoolView, adopt_spec, decide
from understudy.core.routes import allocate, compile_routes
from understudy.core.text import Name
from understudy.router.base import Change, Router, RouterSeen

INTERVAL_S = 1.0
LOAD = 0.02
"""Share of a core that looking may cost when nothing happens; with many endpoints the looks become rarer instead."""
BUSY_LOAD = 0.25
"""The same while the router has news."""
EARLIEST_S = 0.05
LEDGERS_EVERY_S = 30.0
UNWATCHED_S = 60.0
"""A longer gap between two looks (the agent was stopped, the host suspended) counts as time in which nobody looked."""
ENDPOINTS_AT_ONCE = 50
"""As many are judged before other work gets its turn: half a millisecond. An order needs about fifteen turns."""
LEDGERS_AT_ONCE = 50
"""As many are stored before an order gets its turn."""

Order = Callable[[PoolService, PoolRecord, PoolSeen, Now], tuple[PoolRecord, Event]]
"""An operator's verb, from core/verbs, with its arguments bound."""

NOTHING_SEEN = PoolSeen(endpoints=())

_adopted = Memo()


def _adopt(service: PoolService, record: PoolRecord | None) -> PoolRecord:
    """The record that holds under this service's spec."""
    return allocate(service, adopt_spec(record or PoolRecord(service.name), service))


class Loop:
    """What is in force, and the way in which it changes. `load` and `enforce` first; then `run`, or `tick` by hand."""

    def __init__(self, router: Router, records: Records, journal: Journal, clock: Clock) -> None:
        self._router = router
        self._records = records
        self._journal = journal
        self._clock = clock
        self.turn = asyncio.Lock()
        self.spec: Spec
        self.in_force = InForce(0)
        """Which version of the spec it is; 0 before the first."""
        self.records: dict[Name, PoolRecord] = {}
        self.ledgers: dict[Name, Ledger] = {}
        self.seen: RouterSeen | None = None
        self.fault: str | None = None
        """Why the last tick did not get to its end; None when it did."""
        self.behind = True
        """Whether the router has yet to hear of something that is stored."""
        self._stale = False
        """Whether a record may not be as we know it: somebody else wrote it, or the store's answer was lost."""
        self._stored = Loaded()
        """What is in the store, as far as we know; `refused` are the records that cannot be read and stay untouched."""
        self._judged: Mapping[Name, PoolSeen] = {}
        """What the last decisions rest on."""
        self._memories: dict[Name, PoolMemory] = {}
        self._looked_boot_s: float | None = None
        self._ledgers_saved_boot_s = 0.0
        self._news: list[Event] = []
        self._wake = asyncio.Event()

    @property
    def version(self) -> int:
        """Of the spec in force; 0 before the first."""
        return self.in_force.version

    async def run(self, first_s: float) -> None:
        """Tick for ever: at once when something happened, else as often as looking is cheap. No fault ends it.

        The first look comes after `first_s`, so that what has just been started is not called down for that.
        """
        await self._clock.sleep(first_s)
        while True:
            self._wake.clear()
            began_s = time.process_time()
            try:
                await self.tick()
            except Exception as fault:  # noqa: BLE001  traffic goes on and so do we; it is told, and tried again
                self._tell_fault(fault)
            cost_s = time.process_time() - began_s
            earliest_s = max(EARLIEST_S, cost_s / BUSY_LOAD)
            await self._clock.sleep(earliest_s)
            await self._woken_within(max(INTERVAL_S, cost_s / LOAD) - earliest_s)

    async def tick(self) -> None:
        """One look at the router, and all that follows from it. Raises Refused; the next tick makes up for it."""
        spec = self.spec
        seen = await self._observe()
        now = self._clock.now()
        ledgers = await self._account(seen.pools, now)
        judgements = await self._decide(seen, now)
        async with self.turn:
            if spec is not self.spec:
                return  # what was seen is of another spec: look again
            self._enter(ledgers, now)
            self.seen = seen
            await self._reread_if_stale()
            await self._persist(self._that_hold(judgements, now))
            self._judged = seen.pools
            await self._act()
            self._publish()
        await self._save_ledgers(now)
        self.fault = None

    async def order(self, name: str, order: Order) -> str:
        """Carry out what an operator orders of a service; the answer says what was done. Raises Refused."""
        async with self.turn:
            now = self._clock.now()
            await self._reread_if_stale()
            service, seen = self.look_at(name)
            if reason := self._stored.refused.get(service.name):
                raise Refused(reason)
            record, event = order(service, self.records[service.name], seen, now)
            if record is not self.records[service.name]:
                memory = self._memories.get(service.name, PoolMemory())
                await self._persist({service.name: PoolDecision(record, (event,), memory)})
                await self._act()
                self._publish()
                self._wake.set()
            return event.reason

    def look_at(self, name: str) -> tuple[PoolService, PoolSeen]:
        """A service of the spec in force and what was last seen of it; Refused when there is no such service."""
        service = self.spec.service(name)
        if any(one.name == name for one in self.spec.clusters):
            raise Refused(
                f"{name} is a cluster, and that is for the endpoints of pools: a cluster knows switchover, failover, "
                "pause, resume and rebuild."
            )
        if service is None:
            names = [*(one.name for one in self.spec.services), *(one.name for one in self.spec.clusters)]
            known = ", ".join(sorted(names))
            raise Refused(f"There is no service {name!r}: this cluster has {known}.")
        return service, self.seen.pools.get(service.name, NOTHING_SEEN) if self.seen else NOTHING_SEEN

    def happened(self, *events: Event) -> None:
        """Put facts into the journal and the log, and look at once. Never waits and never fails."""
        self._journal.append(events, self._clock.now().wall_s)
        for event in events:
            logs.tell(event)
        self._wake.set()

    def wake(self) -> None:
        """Let the next tick come at once."""
        self._wake.set()

    # --- what is in force ---------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read what earlier agents decided and counted. Raises StoreFault."""
        now = self._clock.now()
        loaded = await self._records.load()
        for reason in loaded.refused.values():
            structlog.get_logger().warning(reason)
        unreadable = {key.rpartition("/")[2]: reason for key, reason in loaded.refused.items()}
        self._stored = replace(loaded, refused=unreadable)
        self.in_force = loaded.in_force
        self.ledgers = {
            name: step(ledger, ServiceHealth.UNKNOWN, 0.0, now) for name, ledger in loaded.ledgers.items()
        } | self.ledgers

    async def enforce(self, spec: Spec, version: int, *events: Event) -> None:
        """Make a spec, which the router follows already or is about to, the one in force. The caller holds `turn`."""
        now = self._clock.now()
        records = self.records_under(spec)
        changed = self._unlike_stored(records)
        gone = self._stored.pools.keys() - records.keys()
        if changed or gone or events or version != self.version:
            await self._save(changed, events, removed=gone, in_force=self.in_force.then(version))
        self._stored.pools.update(changed)
        for name in gone:
            self._stored.pools.pop(name)
            self._stored.ledgers.pop(name, None)
        self.spec, self.records, self.in_force = spec, records, self.in_force.then(version)
        self.ledgers = {
            name: self.ledgers.get(name, Ledger(since_wall_s=now.wall_s, changed_wall_s=now.wall_s)) for name in records
        }
        for event in events:
            logs.tell(event)

    def records_under(self, spec: Spec) -> dict[Name, PoolRecord]:
        """The records that would hold under this spec: what an operator ordered stays as far as it still applies."""
        records = self.records or self._stored.pools
        adopted = {
            service.name: _adopted.get(service.name, _adopt, service, records.get(service.name))
            for service in spec.services
        }
        _adopted.forget_others(set(adopted))
        return adopted

    def _unlike_stored(self, records: Mapping[Name, PoolRecord]) -> dict[Name, PoolRecord]:
        """The records that have to be written; those that cannot be read are never written over."""
        return {
            name: record
            for name, record in records.items()
            if name not in self._stored.refused and record != self._stored.pools.get(name)
        }

    async def _reread_if_stale(self) -> None:
        if self._stale:
            await self.load()
            self.records = {}
            self.records = self.records_under(self.spec)
            self.behind, self._stale = True, False

    # --- the steps of a tick ------------------------------------------------------------------------------------------

    async def _observe(self) -> RouterSeen:
        """Look, without the turn: it may take long with many endpoints, and an order should not wait for it."""
        spec = self.spec
        try:
            return await self._router.observe()
        except Fault:
            now = self._clock.now()
            ledgers = await self._account({}, now)
            if spec is self.spec:
                self._enter(ledgers, now)
            raise

    async def _decide(self, seen: RouterSeen, now: Now) -> list[tuple[PoolView, PoolDecision]]:
        """What is to be decided, and what it rests on; without the turn, since no order should wait for thousands."""
        judgements, records = [], self.records
        async for service in self._paced():
            if (pool := seen.pools.get(service.name)) is not None:
                judged, memory = self._judged.get(service.name), self._memories.get(service.name, PoolMemory())
                view = PoolView(service, records[service.name], pool, judged, memory)
                decision = decide(view, now)
                if decision.record is not view.record or decision.events or decision.memory is not memory:
                    judgements.append((view, decision))
        return judgements

    def _that_hold(self, judgements: Iterable[tuple[PoolView, PoolDecision]], now: Now) -> dict[Name, PoolDecision]:
        """The decisions, made anew where an order has changed the record on which they rested."""
        decisions = {}
        for view, decision in judgements:
            name, record = view.service.name, self.records[view.service.name]
            decisions[name] = decision if record is view.record else decide(replace(view, record=record), now)
        return decisions

    async def _paced(self) -> AsyncIterator[PoolService]:
        """The services of the spec in force now, with pauses in which other work goes on."""
        endpoints = 0
        for service in self.spec.services:
            yield service
            endpoints += len(service.endpoints)
            if endpoints >= ENDPOINTS_AT_ONCE:
                endpoints = 0
                await self._clock.sleep(0)

    async def _persist(self, decisions: Mapping[Name, PoolDecision]) -> None:
        """Store what changed together with why; what only happened goes to the journal by itself."""
        decided = {name: one.record for name, one in decisions.items() if one.record is not self.records[name]}
        changed = self._unlike_stored(decided)
        events = [event for name in changed for event in decisions[name].events]
        if changed:
            await self._save(changed, events)
        self._stored.pools.update(changed)
        self.records |= changed
        self._news += events
        self.behind = self.behind or bool(changed)
        for name, one in decisions.items():
            if name not in changed and one.events:
                self.happened(*one.events)
            self._memories[name] = one.memory

    async def _save(self, pools: Mapping[Name, PoolRecord], events: Iterable[Event], **more: Any) -> None:
        try:
            await self._records.save(pools, events, self._clock.now().wall_s, **more)
        except Refused as refusal:
            self._stale = bool(pools) or not isinstance(refusal, Fault)  # see what is stored before deciding again
            raise

    async def _act(self) -> None:
        """Let the router do what is stored."""
        if self.behind:
            change = await self._router.apply(compile_routes(self.spec, self.records))
            self.behind = False
            self.tell_change(change)

    def tell_change(self, change: Change) -> None:
        """Journal a reload; what is done without one has its reason in the journal already."""
        if change.reload:
            self.happened(Event(EventKind.ROUTER_RELOADED, f"The router was reloaded: {'; '.join(change.reload)}."))

    def _publish(self) -> None:
        """Tell the log what the journal holds already; followers of the journal hear of it from the store."""
        news, self._news = self._news, []
        for event in news:
            logs.tell(event)

    # --- accounts -----------------------------------------------------------------------------------------------------

    async def _account(self, pools: Mapping[Name, PoolSeen], now: Now) -> dict[Name, Ledger]:
        """Every ledger brought up to now; while the router cannot be asked, its services count as down."""
        elapsed_s = now.boot_s - self._looked_boot_s if self._looked_boot_s is not None else 0.0
        before = self.seen.pools if self.seen else {}
        records, former, ledgers = self.records, self.ledgers, {}
        async for service in self._paced():
            pool, last = pools.get(service.name), before.get(service.name)
            ledgers[service.name] = step(
                former[service.name],
                service_health(pool, service, records[service.name]) if pool else ServiceHealth.DOWN,
                elapsed_s if elapsed_s <= UNWATCHED_S else 0.0,
                now,
                requests=pool.requests - last.requests if pool and last else 0,
                failed_requests=pool.failed_requests - last.failed_requests if pool and last else 0,
            )
        return ledgers

    def _enter(self, ledgers: dict[Name, Ledger], now: Now) -> None:
        """From now on these are the ledgers."""
        self.ledgers, self._looked_boot_s = ledgers, now.boot_s

    async def _save_ledgers(self, now: Now) -> None:
        """Store them now and then, and one whose service's health changed at once."""
        stored = self._stored.ledgers
        if now.boot_s - self._ledgers_saved_boot_s >= LEDGERS_EVERY_S:
            self._ledgers_saved_boot_s = now.boot_s
            await self.save_ledgers()
        else:
            await self._save_these(
                {n: one for n, one in self.ledgers.items() if n not in stored or stored[n].health is not one.health}
            )

    async def save_ledgers(self) -> None:
        """Store every ledger that changed."""
        stored = self._stored.ledgers
        await self._save_these({n: one for n, one in self.ledgers.items() if one != stored.get(n)})

    async def _save_these(self, ledgers: Mapping[Name, Ledger]) -> None:
        """In parts, each in a turn of its own."""
        names = list(ledgers)
        for start in range(0, len(names), LEDGERS_AT_ONCE):
            async with self.turn:
                wanted = {
                    name: ledgers[name]
                    for name in names[start : start + LEDGERS_AT_ONCE]
                    if name in self.ledgers and name not in self._stored.refused
                }
                if wanted:
                    await self._save({}, (), ledgers=wanted)
                    self._stored.ledgers.update(wanted)

    # --- waiting ------------------------------------------------------------------------------------------------------

    async def _woken_within(self, seconds: float) -> None:
        waits = (asyncio.create_task(self._wake.wait()), asyncio.create_task(self._clock.sleep(seconds)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    def _tell_fault(self, fault: Exception) -> None:
        """Log what kept a tick from its end, once for as long as it stays the same."""
        sentence = str(fault) if isinstance(fault, Refused) else f"A fault in understudy itself: {fault!r}."
        if sentence != self.fault:
            structlog.get_logger().warning(sentence, exc_info=None if isinstance(fault, Refused) else fault)
        self.fault = sentence
