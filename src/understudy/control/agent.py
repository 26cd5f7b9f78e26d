"""The agent: one process's parts, started and ended in order, and the operator's verbs upon them.

What happens all the time is loop.py's, changing the spec is rollout.py's, and what people see is drawn by picture.py.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Self

import structlog

from understudy.control import keys, logs
from understudy.control.clock import Clock
from understudy.control.clusters import Clusters, Engines
from understudy.control.journal import LIMIT, Journal
from understudy.control.loop import Loop
from understudy.control.observer import follow_router
from understudy.control.picture import service_status
from understudy.control.records import InForce, Records
from understudy.control.rollout import Rollout
from understudy.control.supervisor import Supervisor
from understudy.control.versions import Versions
from understudy.control.view import Foretold, Progress, RouterStatus, SpecChange, Status, Version, Wish
from understudy.core import explain, verbs
from understudy.core.codec import decode
from understudy.core.decision_record import decision_record
from understudy.core.errors import Refused
from understudy.core.events import Entry, Event, EventKind
from understudy.core.model import LOCAL, Spec
from understudy.core.pool_health import kept_out
from understudy.core.pools import Admin
from understudy.core.record import RequestKind
from understudy.core.words import count
from understudy.router.base import Router
from understudy.store.base import Store, StoreFault

WHY_ENTRIES = 50
"""How much of a service's recent history `why` may rest on."""

STORE_AGAIN_S = 1.0

FIRST_LOOK_S = 0.5
"""After a router was started: the time in which servers that start with it pass their first checks."""


class Agent:
    """Everything one host does, with the parts it is given; fulfils `Operator`.

    `run_dir` is where supervised endpoints keep their logs and state files. Use it as a context manager: on one machine
    leaving it ends all that it started; one of several hosts lets go, and everything goes on. The store is the caller's
    to open and close.
    """

    def __init__(  # noqa: PLR0917  # its parts, each once
        self, spec: Spec, run_dir: Path, store: Store, router: Router, clock: Clock, engines: Engines | None = None
    ) -> None:
        self._wanted = spec
        self._store = store
        self._router = router
        self._clock = clock
        self._started_wall_s = clock.now().wall_s
        self._journal = Journal(store)
        self._loop = Loop(router, Records(store, self._journal), self._journal, clock)
        self._supervisor = Supervisor(run_dir, self._loop.happened)
        self._versions = Versions(store, self._journal)
        self._clusters = Clusters(engines, store, self._journal, clock, logs.tell) if engines else None
        host = engines.host if engines else LOCAL
        self._routes = host in spec.router_hosts
        parts = (self._loop, self._versions, router, self._supervisor, clock)
        self._rollout = Rollout(*parts, clusters=self._clusters, host=host)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Adopt or start everything. Raises Refused, and then nothing that was started here is left running.

        Clusters come first, and do not wait for the store: their nodes may have a primary that needs its agent.
        """
        try:
            if self._clusters is not None:
                await self._clusters.begin(self._wanted)
            adopted = await self._begin_rollout()
        except BaseException:
            if self._clusters is not None:
                await (self._clusters.detach() if self._wanted.hosts else self._clusters.end())
            raise
        if self._routes:
            kind = EventKind.ROUTER_ADOPTED if adopted else EventKind.ROUTER_STARTED
            said = "The running router was adopted." if adopted else "The router was started."
            self._loop.happened(Event(kind, said))
        work = {
            "journal": self._journal.run(),
            "router's events": follow_router(self._router, self._loop.wake, self._loop.happened),
            "loop": self._loop.run(0.0 if adopted else FIRST_LOOK_S),
        }
        if self._wanted.hosts:
            work["spec"] = self._follow_spec()
        self._tasks = [asyncio.create_task(each, name=name) for name, each in work.items()]

    async def _begin_rollout(self) -> bool:
        """Pools and router, as soon as the store answers; True when a running router was adopted."""
        while True:
            try:
                await self._loop.load()
                event = Event(EventKind.AGENT_STARTED, f"The agent of cluster {self._wanted.cluster} started.")
                self._loop.happened(event)
                return await self._rollout.begin(self._wanted)
            except StoreFault as fault:
                if not self._wanted.hosts:
                    raise
                structlog.get_logger().warning(f"The pools and the router wait for the store: {fault}")
                await self._clock.sleep(STORE_AGAIN_S)

    async def _follow_spec(self) -> None:
        """Take over what other agents bring into force, for ever."""
        while True:
            try:
                listing = await self._store.list(keys.IN_FORCE)
                await self._take_over([item.value for item in listing.items])
                async with aclosing(self._store.watch(keys.IN_FORCE, listing.revision)) as changes:
                    async for change in changes:
                        await self._take_over([change.value] if change.value is not None else [])
            except Refused as fault:
                structlog.get_logger().warning(f"The spec in force cannot be followed: {fault}")
            await self._clock.sleep(STORE_AGAIN_S)

    async def _take_over(self, values: Sequence[bytes]) -> None:
        for value in values:
            await self._rollout.take_over(decode(InForce, value).version)

    async def stop(self) -> None:
        """End the router, the supervised endpoints and the engines of this host; raises Fault for what does not end."""
        self._loop.happened(Event(EventKind.AGENT_STOPPED, "The agent ends, and what it started with it."))
        await self._let_go(self._router.stop, self._supervisor.stop, *([self._clusters.end] if self._clusters else []))

    async def detach(self) -> None:
        """End the agent alone: router, endpoints and engines go on, for the next agent to adopt."""
        self._loop.happened(Event(EventKind.AGENT_STOPPED, "The agent ends; traffic goes on without it."))
        clusters = [self._clusters.detach] if self._clusters else []
        await self._let_go(self._router.detach, self._supervisor.detach, *clusters)

    async def _let_go(self, *ends: Callable[[], Awaitable[None]]) -> None:
        """End our own work, then all the others, whatever becomes of each; the first fault is raised at the end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        faults = []
        for end in (*ends, self._loop.save_ledgers, self._journal.flush):
            try:
                await end()
            except Exception as fault:  # noqa: BLE001  the rest must end as well
                structlog.get_logger().warning(str(fault))
                faults.append(fault)
        if faults:
            raise faults[0]

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        stopping = asyncio.create_task(self.detach() if self._wanted.hosts else self.stop())
        while not stopping.done():
            with contextlib.suppress(asyncio.CancelledError):  # whoever is in a hurry still ends it in order
                await asyncio.shield(stopping)
        stopping.result()

    # --- seeing -------------------------------------------------------------------------------------------------------

    async def status(self) -> Status:
        """Everything, as of the last look."""
        loop = self._loop
        pools = loop.seen.pools if loop.seen else {}
        return Status(
            cluster=loop.spec.cluster,
            version=self._loop.version,
            started_wall_s=self._started_wall_s,
            now_wall_s=self._clock.now().wall_s,
            router=RouterStatus(
                pid=loop.seen.pid if loop.seen else 0,
                workers=loop.seen.workers if loop.seen else 0,
                healthy=loop.fault is None and loop.seen is not None,
                reason=loop.fault or ("it does what it should" if loop.seen else "it has not been looked at yet"),
            ),
            services=tuple(
                service_status(service, loop.records[service.name], pools.get(service.name), loop.ledgers[service.name])
                for service in loop.spec.services
            ),
            clusters=self._clusters.status() if self._clusters else (),
        )

    async def why(self, service: str) -> tuple[str, ...]:
        """Why the service is as it is, and what would make it otherwise."""
        if self._clusters is not None and service in self._clusters:
            entries: tuple[Entry, ...] = ()
            with contextlib.suppress(StoreFault):  # then that is why
                entries = await self._journal.tail(-1, WHY_ENTRIES, service)
            return self._clusters.why(service, entries)
        known, seen = self._loop.look_at(service)
        entries = await self._journal.tail(-1, WHY_ENTRIES, service)
        return explain.why(known, self._loop.records[known.name], seen, entries, self._clock.now())

    async def events(self, after: int, limit: int, service: str | None) -> tuple[Entry, ...]:
        """Journal entries numbered above `after`, oldest first; after=-1 asks for the newest `limit`."""
        return await self._journal.tail(after, limit, service)

    async def decision(self, number: int) -> tuple[Entry, ...]:
        """All entries of the failover that the journal entry of this number belongs to."""
        found = await self._journal.tail(number - 1, 1)
        if not found or found[0].number != number:
            raise Refused(f"The journal has no entry {number}: `understudy events` lists the newest.")
        service = found[0].event.service
        entries = await self._journal.tail(0, LIMIT, service) if service else ()
        shown = decision_record(entries, number)
        if not shown:
            raise Refused(f"Entry {number} belongs to no failover: show one of `failover.done` or `switchover.done`.")
        return shown

    def follow(self, after: int) -> AsyncIterator[Entry]:
        """Journal entries numbered above `after`, as they come."""
        return self._journal.follow(after)

    async def progress(self, service: str, endpoint: str) -> Progress:
        """How far a drain has come, over all of the router's workers."""
        known, _ = self._loop.look_at(service)
        one = next((each for each in known.endpoints if each.name == endpoint), None)
        if one is None:
            names = ", ".join(each.name for each in known.endpoints)
            raise Refused(f"{service} has no endpoint {endpoint!r}: it has {names}.")
        sessions = await self._router.sessions(known.name, one.name)
        if one.name not in kept_out(self._loop.records[known.name]):
            return Progress(sessions, False, f"{endpoint} of {service} gets new work: drain it first.")
        if self._loop.behind:
            return Progress(sessions, False, f"The router has not been told yet to send {endpoint} nothing new.")
        if sessions:
            verb = "is" if sessions == 1 else "are"
            text = f"{count(sessions, 'connection')} {verb} still in flight on {endpoint} of {service}."
            return Progress(sessions, False, text)
        return Progress(0, True, f"Nothing is in flight on {endpoint} of {service}: it is safe to stop.")

    # --- ordering -----------------------------------------------------------------------------------------------------

    async def set_admin(self, service: str, endpoint: str, admin: Admin) -> str:
        """Order `ready`, `drain` or `maint`."""
        return await self._loop.order(
            service, lambda known, record, seen, _: verbs.set_admin(known, record, seen, endpoint, admin)
        )

    async def set_weight(self, service: str, endpoint: str, weight: int) -> str:
        """Set the weight at run time."""
        return await self._loop.order(
            service, lambda known, record, _, __: verbs.set_weight(known, record, endpoint, weight)
        )

    async def failover(self, service: str) -> str:
        """Move a pool's traffic to its backup group; let another node of a cluster take over."""
        if self._clusters is not None and service in self._clusters:
            return await self._clusters.ask(service, Wish(RequestKind.FAILOVER))
        return await self._loop.order(service, verbs.failover)

    async def ask(self, service: str, wish: Wish) -> str:
        """Ask something of a cluster, and wait for what comes of it."""
        return await self._its_clusters().ask(service, wish)

    async def what_if(self, node: str, service: str | None) -> tuple[Foretold, ...]:
        """What the loss of a node's engine, and of its machine, would mean now."""
        return tuple(Foretold.of(each) for each in self._its_clusters().what_if(node, service))

    def _its_clusters(self) -> Clusters:
        if self._clusters is None:
            raise Refused("This cluster has no stateful service.")
        return self._clusters

    async def failback(self, service: str) -> str:
        """Move it back to its primary group."""
        return await self._loop.order(service, verbs.failback)

    async def plan(self, text: str) -> SpecChange:
        """What applying this spec would do; changes nothing."""
        return await self._rollout.plan(text)

    async def apply(self, text: str) -> SpecChange:
        """Make this spec the one in force."""
        return await self._rollout.apply(text)

    async def rollback(self, to_version: int | None) -> SpecChange:
        """Apply an earlier version again."""
        return await self._rollout.rollback(to_version)

    async def versions(self) -> tuple[Version, ...]:
        """The versions in the store, newest first."""
        return await self._rollout.versions()
