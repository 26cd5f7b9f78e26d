"""Changing the spec: plan, apply, roll back. The new version is stored before anything acts on it.

Order of an apply: read; refuse what cannot change; store the version; router; then, in one transaction, the records and
which version is in force; commands. When the router refuses, the old spec stays in force, and the journal says why.
A command is ended when its endpoint has nothing in flight any more, and where several are restarted, the next one waits
until the one before serves again.
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial

from understudy.control.clock import Clock
from understudy.control.clusters import Clusters
from understudy.control.loop import Loop
from understudy.control.supervisor import Job, Supervisor
from understudy.control.versions import StoredSpec, Versions
from understudy.control.view import SpecChange, Version
from understudy.core.errors import Fault, Refused
from understudy.core.events import Event, EventKind
from understudy.core.fixed_changes import fixed_changes
from understudy.core.model import LOCAL, Spec
from understudy.core.pool_health import SERVING, kept_out
from understudy.core.pools import Admin
from understudy.core.routes import compile_routes
from understudy.core.spec_changes import spec_changes
from understudy.core.text import Name
from understudy.core.words import count
from understudy.router.base import Router
from understudy.spec import read

PATIENCE_S = 5.0
"""How long a command's end waits for what is in flight, and the next restart for the one before to serve again."""
POLL_S = 0.05


def local_part(spec: Spec, host: Name) -> Spec:
    """The spec as far as it concerns this host: pools are the business of hosts that run a router."""
    return spec if host in spec.router_hosts else replace(spec, services=())


def same_where_equal(old: Spec, new: Spec) -> Spec:
    """The new spec, with the old one's objects for services that did not change, so that comparing stays cheap."""
    known = {service.name: service for service in old.services}
    same = (known.get(service.name) for service in new.services)
    return replace(
        new, services=tuple(old if old == service else service for old, service in zip(same, new.services, strict=True))
    )


class Rollout:
    """The way from one spec to another, for the parts of one agent."""

    def __init__(  # noqa: PLR0917  # its parts, each once
        self,
        loop: Loop,
        versions: Versions,
        router: Router,
        supervisor: Supervisor,
        clock: Clock,
        clusters: Clusters | None = None,
        host: Name = LOCAL,
    ) -> None:
        self._loop = loop
        self._versions = versions
        self._router = router
        self._supervisor = supervisor
        self._clock = clock
        self._clusters = clusters
        self._host = host
        self._whole: Spec
        """The spec in force, all hosts' parts of it."""

    async def begin(self, spec: Spec) -> bool:
        """Bring the spec that the agent was started with into force; True when a running router was adopted.

        Where other agents share the store, the one that is in force there is taken instead.
        """
        async with self._loop.turn:
            in_force, newest = await self._in_force(), await self._newest()
            version = self._loop.version
            if spec.hosts and in_force is not None:
                spec = await asyncio.to_thread(read, in_force.text, spec.directory, os.environ)
            elif in_force is None or in_force.text != spec.text:
                note = "first start" if newest is None else "the file had changed when the agent started"
                version = (await self._store(spec.text, note, newest)).number
            self._whole, spec = spec, local_part(spec, self._host)
            records = self._loop.records_under(spec)
            adopted = await self._router.start(compile_routes(spec, records))
            try:
                events = [] if version == self._loop.version else [_applied(version, self._loop.version, ())]
                await self._loop.enforce(spec, version, *events)
                self._loop.behind = False
                if self._clusters is not None:
                    await self._clusters.change(self._whole, self._loop.in_force.change)
                await self._supervisor.start(spec)
            except BaseException:
                await (self._router.detach() if adopted else self._router.stop())
                await (self._supervisor.detach() if adopted else self._supervisor.stop())
                raise
            return adopted

    async def plan(self, text: str) -> SpecChange:
        """What applying this text would do; changes nothing."""
        async with self._loop.turn:
            spec = await self._read(text)
            here = local_part(spec, self._host)
            change = self._router.plan(compile_routes(here, self._loop.records_under(here)))
            return SpecChange(self._loop.version, None, self._sentences(spec), change.reload)

    async def apply(self, text: str) -> SpecChange:
        """Make this text the spec in force. Raises Refused, and then nothing has changed."""
        async with self._loop.turn:
            spec, before = await self._read(text), self._loop.version
            if text == self._loop.spec.text:
                return SpecChange(before, before, (), ())
            version = await self._store(text, "applied", await self._newest())
            return await self._switch(spec, version.number, EventKind.SPEC_APPLIED)

    async def rollback(self, to_version: int | None) -> SpecChange:
        """Bring an earlier version into force again: the one that was before the present one, or the one named."""
        async with self._loop.turn:
            present = await self._versions.get(self._loop.version)
            target = present.version.replaced if to_version is None else to_version
            if target == 0:
                raise Refused(f"There is no version before {self._loop.version}: nothing to go back to.")
            if target == self._loop.version:
                raise Refused(f"Version {target} is in force already.")
            spec = await self._read((await self._versions.get(target)).text)
            return await self._switch(spec, target, EventKind.SPEC_ROLLED_BACK)

    async def take_over(self, version: int) -> None:
        """Bring into force here what another agent has brought into force."""
        async with self._loop.turn:
            if version == self._loop.version:
                return
            spec = await self._read((await self._versions.get(version)).text)
            await self._loop.load()
            await self._switch(spec, version, None)

    async def versions(self) -> tuple[Version, ...]:
        """The versions in the store, newest first."""
        return await self._versions.list()

    async def _read(self, text: str) -> Spec:
        """The spec of a text, in the folder of the one in force; Refused for faults, and for what cannot change.

        In a thread: a large one takes a third of a second, and hung servers must be cut meanwhile.
        """
        old = self._whole
        new = await asyncio.to_thread(read, text, old.directory, os.environ)
        if faults := fixed_changes(old, new):
            raise Refused("\n  ".join(faults))
        if self._clusters is not None:
            await self._clusters.refuse(new.clusters, self._loop.in_force.change + 1)
        return same_where_equal(old, new)

    async def _switch(self, whole: Spec, version: int, kind: EventKind | None) -> SpecChange:
        """From the spec in force to this one; `kind` is what the journal calls it, None when it was told already."""
        old, before = self._loop.spec, self._loop.version
        spec = local_part(whole, self._host)
        desired = compile_routes(spec, self._loop.records_under(spec))
        plan = self._sentences(whole)
        try:
            await self._empty(self._supervisor.unwanted(spec))
            change = await self._router.apply(desired)
        except Fault as fault:
            self._loop.happened(Event(EventKind.ROUTER_REFUSED, f"Version {version} was refused: {fault}"))
            self._loop.behind = True  # should it have got half-way, the next tick brings it back
            raise
        try:
            await self._loop.enforce(spec, version, *([_applied(version, before, plan, kind)] if kind else []))
        except BaseException:
            self._loop.behind = True
            await self._router.apply(compile_routes(old, self._loop.records))
            raise
        self._loop.behind = False
        self._whole = whole
        self._loop.tell_change(change)
        if self._clusters is not None:
            await self._clusters.change(whole, self._loop.in_force.change)
        await self._supervisor.start_new(spec)
        await self._supervisor.prune(spec)
        for job in self._supervisor.outdated(spec):
            await self._restart(job)
        self._loop.wake()
        return SpecChange(before, version, plan, change.reload)

    async def _restart(self, job: Job) -> None:
        """Restart a command with nothing in flight on its endpoint; comes back when it serves again, or might never."""
        await self._empty((job,))
        await self._route_around((job,), Admin.MAINT)  # from which it comes back by passing its checks
        await self._supervisor.restart(job)
        await self._router.apply(compile_routes(self._loop.spec, self._loop.records))
        if job.endpoint not in kept_out(self._loop.records[job.service]):
            await self._patiently(partial(self._serves, job))

    async def _empty(self, jobs: Sequence[Job]) -> None:
        """Let the router send nothing new to these endpoints of the spec in force, and wait for what is in flight."""
        if jobs:
            await self._route_around(jobs, Admin.DRAIN)
        for job in jobs:
            await self._patiently(partial(self._idle, job))

    async def _route_around(self, jobs: Sequence[Job], order: Admin) -> None:
        """For a while, without a record: whatever goes wrong, the next tick makes the router do what is stored."""
        self._loop.behind = True
        records = dict(self._loop.records)
        for job in jobs:
            record = records[job.service]
            others = tuple((name, admin) for name, admin in record.admin if name != job.endpoint)
            records[job.service] = replace(record, admin=(*others, (job.endpoint, order)))
        await self._router.apply(compile_routes(self._loop.spec, records))

    async def _idle(self, job: Job) -> bool:
        return await self._router.sessions(job.service, job.endpoint) == 0

    async def _serves(self, job: Job) -> bool:
        seen = (await self._router.observe()).pools[job.service].endpoints
        return any(one.endpoint == job.endpoint and one.oper in SERVING for one in seen)

    async def _patiently(self, true: Callable[[], Awaitable[bool]]) -> None:
        """Wait until it is true, but not for ever; a router that cannot be asked is asked again."""
        end_boot_s = self._clock.now().boot_s + PATIENCE_S
        while self._clock.now().boot_s < end_boot_s:
            with contextlib.suppress(Fault):
                if await true():
                    return
            await self._clock.sleep(POLL_S)

    def _sentences(self, spec: Spec) -> tuple[str, ...]:
        here = local_part(spec, self._host)
        return (*spec_changes(self._whole, spec), *self._supervisor.plan(here))

    async def _store(self, text: str, note: str, newest: StoredSpec | None) -> Version:
        """A version with that text: the newest, if it never came into force and is the same, else a new one."""
        if newest is not None and newest.text == text and newest.version.number > self._loop.version:
            return newest.version
        after = newest.version.number if newest else 0
        wall_s = self._clock.now().wall_s
        return await self._versions.add(text, note, after=after, wall_s=wall_s, replaced=self._loop.version)

    async def _newest(self) -> StoredSpec | None:
        return await self._versions.current()

    async def _in_force(self) -> StoredSpec | None:
        return await self._versions.get(self._loop.version) if self._loop.version else None


def _applied(version: int, before: int, changes: Sequence[str], kind: EventKind = EventKind.SPEC_APPLIED) -> Event:
    what = f" ({count(len(changes), 'change')})" if changes else ""
    instead = f" instead of version {before}" if before else ""
    reason = f"Version {version} of the spec is in force{instead}{what}."
    return Event(kind, reason, data=(("version", version), ("before", before)))
