"""HAProxy as a Router: whole desired state in, minimal change out. The only place where the parts beside it meet.

config.py says what the configuration is, change.py what has to be done, runtime.py talks, process.py holds the
processes, files.py the disk, seen.py and servers.py read what HAProxy shows, steering.py moves the clusters' clients.
Here is the order in which that happens, and nothing of HAProxy's syntax beyond a few commands.
"""

import asyncio
import contextlib
import errno
import re
import socket
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from understudy.core.cluster_route import Route
from understudy.core.events import EventKind
from understudy.core.model import Kind
from understudy.core.pools import Admin
from understudy.core.routes import RouterState
from understudy.core.text import Address, Name
from understudy.router import process, runtime, seen, servers
from understudy.router.base import Change, RouterEvent, RouterFault, RouterSeen
from understudy.router.change import Command, Diff, diff
from understudy.router.config import HostFacts, Rendered, cut_after_ms, render
from understudy.router.files import Files
from understudy.router.layout import Layout
from understudy.router.names import EVENT_RING, SHARE_MAP, backend_name, find_seat, parse_backend
from understudy.router.steering import Steering

START_S = 15.0
RELOAD_S = 30.0
POLL_S = 0.01
SAVE_AFTER_S = 1.0
"""A live change reaches the file on disk this much later, or before the next reload, whichever comes first."""
SAVE_AGAIN_S = 5.0
BACKOFF_S = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Waits before HAProxy is started again, one after the other; the last one again and again."""
STABLE_S = 10.0
"""An HAProxy that lived this long starts the back-off anew when it dies."""
CUT_S = 2.0
PACE_S = 0.0005
"""Longest stretch of work on statistics before others get their turn; an order needs about fifteen turns."""
QUERIES = 200
"""Servers in maintenance that are asked for on one line."""

_SERVER_LINE = re.compile(r"([A-Za-z][\w-]*\.(?:primary|backup))/(s\d+)")
_BACKEND_LINE = re.compile(r"backend '?([A-Za-z][\w-]*\.(?:primary|backup))'? has no server available")
_WENT_DOWN = re.compile(r" is DOWN[.,]")
_SESSION = re.compile(r"^(0x[0-9a-f]+): .* be=(\S+) srv=(\S+) ", re.MULTILINE)


_T = TypeVar("_T")


@dataclass(slots=True)
class _Look:
    """What one look at all workers found."""

    servers: dict[servers.Key, seen.Row]
    frontends: dict[str, seen.Row]
    elsewhere: dict[tuple[Name, Name], int]
    """Sessions in old workers."""
    pid: int
    workers: int
    cost_s: float

    async def paced(self, items: Iterable[_T]) -> AsyncIterator[_T]:
        """The items, with pauses in which other work goes on, so that a look at thousands of servers delays nobody."""
        began = time.thread_time()
        for item in items:
            yield item
            if time.thread_time() - began > PACE_S:
                self.cost_s += time.thread_time() - began
                await asyncio.sleep(0)
                began = time.thread_time()
        self.cost_s += time.thread_time() - began


class HAProxyRouter:
    """One HAProxy in master-worker mode, its files below `layout`."""

    def __init__(self, layout: Layout, program: str = "haproxy", threads: int | None = None) -> None:
        """Nothing happens before `start`. `threads` bounds a worker's; None leaves it to HAProxy."""
        self._layout = Layout(layout.directory.absolute())
        self._program = program
        self._threads = threads
        self._output: process.Output | None = None
        self._lock = asyncio.Lock()
        """Held by whatever changes the processes or their state."""
        self._disk = asyncio.Lock()
        """Held by whatever changes the files."""
        self._state: RouterState | None = None
        """What the running HAProxy does."""
        self._master: process.Master | None = None
        self._worker = 0
        self._workers: dict[int, seen.WorkerCounts] = {}
        self._kinds: dict[str, Kind] = {}
        self._known: dict[servers.Key, servers.Known] = {}
        self._tally = seen.Tally()
        self._events: asyncio.Queue[RouterEvent] = asyncio.Queue(10_000)
        self._keeper: asyncio.Task[None] | None = None
        self._follower: asyncio.Task[None] | None = None
        self._saver: asyncio.Task[None] | None = None
        self._cutters: set[asyncio.Task[None]] = set()

    # --- the port -----------------------------------------------------------------------------------------------------

    async def start(self, desired: RouterState) -> bool:
        """Adopt the running HAProxy, or start one; True when it was adopted. Then bring it to the desired state."""
        self._facts: HostFacts = await process.host_facts(self._program, self._threads)
        self._files = Files(self._layout)
        self._steering = Steering(self._layout, self._files, lambda text: self._emit(None, None, text))
        self._output = process.Output(self._layout.output)
        try:
            async with self._lock:
                adopted = await self._adopt(desired)
                if not adopted:
                    await self._launch(desired)
                else:
                    await self._cut_left_over()
        except BaseException:
            await self.detach()
            raise
        self._steering.forget_others(desired)
        self._keeper = asyncio.create_task(self._keep())
        return adopted

    def plan(self, desired: RouterState) -> Change:
        """What `apply` would do; changes nothing."""
        if self._state is None:
            return Change((), ("HAProxy does not run yet",))
        way = diff(self._state, desired, self._layout)
        return Change(() if way.reload else way.sentences, way.reload)

    async def apply(self, desired: RouterState) -> Change:
        """Bring HAProxy to the desired state; on RouterFault it goes on with the one it had."""
        async with self._lock:
            if self._state is None:
                raise RouterFault("the router is not started: nothing can be applied")
            if self._master is None or self._master.died.is_set():
                await self._launch(desired)
                return Change((), ("HAProxy was not running",))
            way = diff(self._state, desired, self._layout)
            if way.reload:
                await self._reload(desired)
                self._steering.forget_others(desired)
                return Change((), way.reload)
            try:
                await runtime.send(self._layout.admin_socket, way.commands)
            except RouterFault as fault:
                await self._reload(desired)  # the whole state at once heals whatever half of the commands did
                return Change((), (str(fault),))
            self._forgive(way.commands)
            self._state = desired
            if way.commands:
                self._save_later()
            return Change(way.sentences, ())

    async def follow(self, cluster: Name, route: Route) -> None:
        """Bring a cluster's route into force, old sessions cut in every worker; done when it is.

        No reload of HAProxy is waited for before it is in force, only before it is called done.
        """
        ports = self._state.ports(cluster) if self._state is not None else None
        if ports is None:
            raise RouterFault(
                f"{cluster}: the router has no ports for it: it is still starting, or the spec is not applied"
            )
        await self._steering.follow(ports, route)

    async def observe(self) -> RouterSeen:
        """What HAProxy reports now."""
        if self._lock.locked():  # a reload, most likely: looking now would only slow it down, and see what goes away
            async with self._lock:
                pass
        state = self._running_state()
        look = await self._look(state)
        if look is None:  # in the middle of a reload: wait until it is done
            async with self._lock:
                state = self._running_state()
                look = await self._look(state)
        if look is None:
            raise RouterFault(
                "HAProxy's runtime socket answers from a worker that we do not know: see who else runs there"
            )
        pools = {}
        async for route in look.paced(state.routes):
            frontend = look.frontends.get(route.service)
            pools[route.service] = seen.pool_seen(route, look.servers, frontend, self._tally, look.elsewhere)
        return RouterSeen(pools, look.pid, look.workers, look.cost_s)

    async def events(self) -> AsyncIterator[RouterEvent]:
        """What HAProxy says as it happens; goes on across reloads and restarts of HAProxy."""
        while True:
            yield await self._events.get()

    async def cut(self, service: Name, endpoint: Name) -> int:
        """End every session on that endpoint in every worker, old ones too; how many were ended."""
        async with self._lock:
            places = await self._places(service, endpoint)
            ended = 0
            for pid, place in places:
                ended += await (self._cut_old(pid, place) if pid != self._worker else self._cut_here(place))
            return ended

    async def sessions(self, service: Name, endpoint: Name) -> int:
        """Connections in flight on that endpoint over all workers, old ones too."""
        async with self._lock:
            return await self._count_sessions(service, endpoint)

    async def stop(self) -> None:
        """End HAProxy and everything it started."""
        await self._let_go_of_tasks()
        async with self._lock:
            if self._master is not None:
                await self._master.end()
                self._master = None
                for path in (self._layout.admin_socket, self._layout.master_socket):
                    path.unlink(missing_ok=True)
            self._forget()

    async def detach(self) -> None:
        """Let go and leave HAProxy running."""
        await self._let_go_of_tasks()
        async with self._lock:
            if self._master is not None:
                with contextlib.suppress(RouterFault):  # it was said when it first failed; the next start reloads
                    await self._save()
                self._master.release()
                self._master = None
            self._forget()

    # --- coming up, reloading, coming back ----------------------------------------------------------------------------

    async def _adopt(self, desired: RouterState) -> bool:
        pid = runtime.listener_pid(self._layout.master_socket)
        self._master = process.adopt(pid, self._layout) if pid else None
        if self._master is None:
            return False
        self._steering.trust()
        found = await runtime.processes(self._layout.master_socket)
        self._attach(found.worker or 0, desired, only_new=True)
        for old in found.old:
            self._workers[old] = seen.WorkerCounts.of(old, desired)
        way = await self._way_to(desired) if self._files.in_force(await self._render(desired)) else None
        if way is None or way.reload:
            await self._reload(desired)
        else:
            await runtime.send(self._layout.admin_socket, way.commands)
            await self._steering.resume(desired)
            self._state = desired
        return True

    async def _launch(self, desired: RouterState) -> None:
        """Start HAProxy with the desired state."""
        self._check_listens(desired, held=())
        with self._steering.new_worker():
            await self._launch_checked(desired)

    async def _launch_checked(self, desired: RouterState) -> None:
        async with self._installed(desired):
            self._forget_output()
            self._master = process.Master(process.spawn(process.find(self._program), self._layout))
            try:
                worker = await self._ready(self._master)
                await self._steering.resume(desired)
                await self._reconcile(desired)
            except BaseException:
                await self._master.end()
                self._master = None
                raise
        self._attach(worker, desired, only_new=False)
        self._state = desired

    async def _ready(self, master: process.Master) -> int:
        """Wait until the first worker answers; its pid."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if master.died.is_set():
                raise RouterFault(f"HAProxy does not start: {self._reason()}")
            with contextlib.suppress(RouterFault):
                worker = (await runtime.processes(self._layout.master_socket)).worker
                if worker and await runtime.worker_pid(self._layout.admin_socket) == worker:
                    return worker
            await asyncio.sleep(POLL_S)
        raise RouterFault(f"HAProxy is not ready within {START_S:g} s: {self._reason()}")

    async def _reload(self, desired: RouterState) -> None:
        """One validated, hitless reload to the desired state; on RouterFault the old worker goes on."""
        self._check_listens(desired, self._held())
        with self._steering.new_worker():
            await self._reload_checked(desired)

    async def _reload_checked(self, desired: RouterState) -> None:
        async with self._installed(desired):
            before = await runtime.processes(self._layout.master_socket)
            self._forget_output()
            await runtime.reload(self._layout.master_socket)
            worker = await self._switched(before, desired)
        await self._steering.resume(desired)
        if before.worker:
            await self._count_old(_Look({}, {}, {}, worker, 2, 0.0), before.worker)  # it may end before the next look
        self._attach(worker, desired, only_new=False)
        await self._reconcile(desired)
        self._state = desired

    async def _switched(self, before: runtime.Processes, desired: RouterState) -> int:
        """Wait until a new worker has taken over from the one before; its pid."""
        deadline = time.monotonic() + RELOAD_S
        while time.monotonic() < deadline:
            if self._master is None or self._master.died.is_set():
                raise RouterFault(f"HAProxy died while it reloaded: {self._reason()}")
            with contextlib.suppress(RouterFault):
                now = await runtime.processes(self._layout.master_socket)
                if now.failed_reloads:
                    break
                if now.worker not in (None, before.worker, *before.old) and await self._took_over(now, before):
                    return now.worker or 0
            await asyncio.sleep(POLL_S)
        raise RouterFault(self._why_not(desired))

    async def _took_over(self, now: runtime.Processes, before: runtime.Processes) -> bool:
        """Whether the runtime socket answers from the new worker, and the one before has stopped listening."""
        if await runtime.worker_pid(self._layout.admin_socket) != now.worker:
            return False
        return before.worker is None or await runtime.is_stopping(self._layout.master_socket, before.worker)

    def _why_not(self, desired: RouterState) -> str:
        reason = self._reason()
        for service, listen in _listens(desired):
            if f"[{listen}]" in reason:
                reason = f"service '{service}' cannot listen on {listen}: {reason}"
        return f"the reload failed and HAProxy goes on with the configuration it has: {reason}"

    def _reason(self) -> str:
        """HAProxy's own words since it was last started or reloaded."""
        return process.alerts(self._output.text() if self._output else "")

    def _forget_output(self) -> None:
        if self._output is not None:
            self._output.forget()

    @contextlib.asynccontextmanager
    async def _installed(self, desired: RouterState) -> AsyncIterator[None]:
        """Put the desired configuration in place, checked; take it back when what is done with it does not succeed."""
        async with self._disk:
            rendered = await self._render(desired)
            former = await self._render(self._state) if self._state is not None else None
            try:
                await asyncio.to_thread(self._files.propose, rendered)
                _, state = await asyncio.gather(self._check(rendered), self._beginning(desired))
                await asyncio.to_thread(self._files.install, state)
                yield
            except BaseException:
                self._files.restore(former)
                raise
            self._files.settle(rendered)

    async def _check(self, rendered: Rendered) -> None:
        """Let HAProxy judge the candidate."""
        if self._facts.user and any(path.parent == self._layout.checks for path, _ in rendered.files):
            closed = process.closed_folder(self._layout.checks)
            if closed:
                raise RouterFault(
                    f"command checks run as user '{self._facts.user}', who may not enter {closed}: "
                    f"'chmod o+x {closed}', or choose another --state-dir"
                )
        status, said = await process.run(process.find(self._program), "-c", "-f", str(self._layout.candidate))
        if status != 0:
            raise RouterFault(f"HAProxy refuses the new configuration: {process.alerts(said)}")

    async def _beginning(self, desired: RouterState) -> str:
        """What the next worker begins with: who is up; while none runs, what was last known stands."""
        if self._master is not None and not self._master.died.is_set():
            shown = servers.parse_servers(await runtime.ask(self._layout.admin_socket, "show servers state"))
            self._known = {key: server.known for key, server in shown.items()}
        return servers.state_file(desired, self._state, self._known)

    async def _render(self, state: RouterState) -> Rendered:
        return await asyncio.to_thread(render, state, self._layout, self._facts)

    async def _reconcile(self, desired: RouterState) -> None:
        """Make a new worker exactly the desired state; verified by looking."""
        way = await self._way_to(desired)
        if way.reload:
            raise RouterFault(f"HAProxy runs, but not as it was told: {'; '.join(way.reload)}")
        await runtime.send(self._layout.admin_socket, way.commands)

    async def _way_to(self, desired: RouterState) -> Diff:
        """What the running worker, which has the desired structure, lacks of the desired state."""
        shown = servers.parse_servers(await runtime.ask(self._layout.admin_socket, "show servers state"))
        shares = servers.parse_map(await runtime.ask(self._layout.admin_socket, _show_shares(self._layout)))
        return diff(servers.running(desired, shown, shares), desired, self._layout)

    async def _keep(self) -> None:
        """Start HAProxy again whenever it dies, at once and then ever more slowly."""
        tries = 0
        while True:
            master = self._master
            if master is None:
                await asyncio.sleep(BACKOFF_S[min(tries, len(BACKOFF_S) - 1)])
            else:
                began = time.monotonic()
                await master.died.wait()
                tries = tries if time.monotonic() - began < STABLE_S else 0
                text = f"HAProxy (master {master.pid}) died; it is started again"
                self._emit(None, None, text, EventKind.ROUTER_DIED)
                await asyncio.sleep(BACKOFF_S[min(tries, len(BACKOFF_S) - 1)])
            tries += 1
            async with self._lock:
                if self._master is master and self._state is not None:
                    await self._revive(self._state)

    async def _revive(self, state: RouterState) -> None:
        if self._master is not None:
            await self._master.bury()
            self._master = None
        try:
            await self._launch(state)
        except (RouterFault, OSError) as fault:
            self._emit(None, None, str(fault), EventKind.ROUTER_REFUSED)
        else:
            self._emit(None, None, f"HAProxy runs again (worker {self._worker})", EventKind.ROUTER_STARTED)

    def _attach(self, worker: int, state: RouterState, *, only_new: bool) -> None:
        """From now on this is the worker: count for it and listen to it."""
        self._map_endpoints(self._state)
        self._worker = worker
        self._workers[worker] = seen.WorkerCounts.of(worker, state)
        self._kinds = {str(route.service): route.kind for route in state.routes}
        self._tally.keep(state)
        former, self._follower = self._follower, asyncio.create_task(self._follow(worker, only_new=only_new))
        if former is not None:
            former.cancel()  # an old worker does not end while somebody listens to it

    def _map_endpoints(self, state: RouterState | None) -> None:
        """Bring the worker's map from servers to endpoints up to the state in force."""
        worker = self._workers.get(self._worker)
        if worker is not None and state is not None:
            worker.now_does(state)

    def _running_state(self) -> RouterState:
        if self._state is None or self._master is None or self._master.died.is_set():
            raise RouterFault("HAProxy does not run at the moment: it is being started again, see the journal for why")
        return self._state

    # --- listening addresses ------------------------------------------------------------------------------------------

    def _held(self) -> list[str]:
        """What the running HAProxy listens on."""
        return re.findall(r"^\s*bind\s+(\S+)", self._files.config(), re.MULTILINE)

    def _check_listens(self, desired: RouterState, held: Iterable[str]) -> None:
        """Refuse an address that is taken; HAProxy would share it in silence with another HAProxy (SO_REUSEPORT)."""
        mine = set(_addresses(held))
        for service, listen in _listens(desired):
            if listen not in mine and not any(listen.overlaps(address) for address in mine):
                reason = _why_taken(listen)
                if reason:
                    goes_on = "; HAProxy goes on with the configuration it has" if mine else ""
                    raise RouterFault(f"service '{service}' cannot listen on {listen}: {reason}{goes_on}")

    # --- the file on disk after live changes --------------------------------------------------------------------------

    def _save_later(self) -> None:
        if self._saver is None or self._saver.done():
            self._saver = asyncio.create_task(self._save_soon())

    async def _save_soon(self) -> None:
        wait_s = SAVE_AFTER_S
        while True:
            await asyncio.sleep(wait_s)
            saved = self._state
            try:
                await self._save()
            except RouterFault as fault:
                self._emit(None, None, f"the change is live, but {fault}")
                wait_s = SAVE_AGAIN_S
            else:
                wait_s = SAVE_AFTER_S
                if saved is self._state:
                    return

    async def _save(self) -> None:
        async with self._disk:
            if self._state is not None:
                await asyncio.to_thread(self._files.save, await self._render(self._state))

    # --- looking ------------------------------------------------------------------------------------------------------

    async def _look(self, state: RouterState) -> _Look | None:
        """Read every worker's statistics once, and count; None when a worker answers that has not taken over yet."""
        look = _Look({}, {}, {}, 0, 1, 0.0)
        self._map_endpoints(state)
        forgiven = {pid: set(worker.forgiven) for pid, worker in self._workers.items()}
        lines = list(_stat_lines(state))
        answer = await runtime.ask(self._layout.admin_socket, lines[0])
        for line in lines[1:]:
            answer += await runtime.ask(self._layout.admin_socket, line)
        info, _, table = answer.partition("\n\n")
        look.pid = int(info.rpartition("Pid: ")[2].partition("\n")[0] or 0)
        worker = self._workers.get(look.pid)
        if worker is None:
            return None
        async for row in self._counted(look, worker, table):
            key = (row[seen.PROXY], row[seen.SERVER])
            look.servers[key] = row
            self._known[key] = seen.known(row)
        worker.forgiven -= forgiven.get(look.pid, set())
        await self._look_at_old(look)
        return look

    def _forgive(self, commands: Iterable[Command]) -> None:
        """Do not count as mark-downs what these orders did."""
        orders = (command.line.split(" ") for command in commands if " state " in command.line)
        places = (order[2].partition("/") for order in orders)
        self._workers[self._worker].forgiven.update((backend, server) for backend, _, server in places)

    async def _look_at_old(self, look: _Look) -> None:
        """Count what old workers still do; those that the master no longer lists are forgotten."""
        try:
            found = await runtime.processes(self._layout.master_socket)
        except RouterFault:
            return  # busy with a reload; the next look counts them
        look.workers += len(found.old)
        self._workers = {
            pid: worker for pid, worker in self._workers.items() if pid in (found.worker, self._worker, *found.old)
        }
        for pid in found.old:
            if pid != look.pid:
                await self._count_old(look, pid)

    async def _count_old(self, look: _Look, pid: int) -> None:
        worker = self._workers.get(pid)
        if worker is None:
            return
        table = await runtime.ask_worker(self._layout.master_socket, pid, ["show stat -1 7 -1"])
        async for row in self._counted(look, worker, table):
            endpoint = worker.endpoints.get((row[seen.PROXY], row[seen.SERVER]))
            if endpoint is not None and row[seen.SESSIONS] not in ("", "0"):
                look.elsewhere[endpoint] = look.elsewhere.get(endpoint, 0) + int(row[seen.SESSIONS])

    async def _counted(self, look: _Look, worker: seen.WorkerCounts, table: str) -> AsyncIterator[seen.Row]:
        """The rows of servers that an endpoint sits in; all are counted."""
        async for row in look.paced(seen.rows(table.split("\n"))):
            self._tally.count(worker, row, self._kinds)
            if (row[seen.PROXY], row[seen.SERVER]) in worker.endpoints:
                yield row
            elif row[seen.SERVER] == "FRONTEND" and worker.pid == look.pid:
                look.frontends[row[seen.PROXY]] = row

    # --- sessions -----------------------------------------------------------------------------------------------------

    async def _count_sessions(self, service: Name, endpoint: Name) -> int:
        return sum([await self._count_place(pid, place) for pid, place in await self._places(service, endpoint)])

    async def _count_place(self, pid: int, place: servers.Key) -> int:
        backend, server = place
        query = f"show stat {backend} 4 {server.removeprefix('s')}"
        table = await runtime.ask_worker(self._layout.master_socket, pid, [query])
        return sum(int(row[seen.SESSIONS]) for row in seen.rows(table.split("\n")))

    def _cut_later(self, place: servers.Key, service: Name, endpoint: Name) -> None:
        """Once nobody can still be connecting to a server that went down, end what is left on it."""
        route = next((route for route in self._state.routes if route.service == service), None) if self._state else None
        after_ms = cut_after_ms(route.primary) if route else None
        if after_ms is not None:
            task = asyncio.create_task(self._cut_if_down(place, service, endpoint, after_ms / 1000))
            self._cutters.add(task)
            task.add_done_callback(self._cutters.discard)

    async def _cut_if_down(self, place: servers.Key, service: Name, endpoint: Name, after_s: float) -> None:
        await asyncio.sleep(after_s)
        try:
            shown = await runtime.ask(self._layout.admin_socket, f"show servers state {place[0]}")
            server = servers.parse_servers(shown).get(place)
            if server is not None and not server.up:
                await self.cut(service, endpoint)
        except RouterFault as fault:
            text = f"what waits on {endpoint} of {service}, which is down, could not be ended: {fault}"
            self._emit(None, None, text, EventKind.ROUTER_REFUSED)

    async def _cut_left_over(self) -> None:
        """End what waits on servers that went down while there was no agent."""
        shown = servers.parse_servers(await runtime.ask(self._layout.admin_socket, "show servers state"))
        for place, (service, endpoint) in self._workers[self._worker].endpoints.items():
            server = shown.get(place)
            if server is not None and not server.up and server.admin is not Admin.MAINT:
                self._cut_later(place, service, endpoint)

    async def _cut_here(self, place: servers.Key) -> int:
        ended = await self._count_place(self._worker, place)
        answer = await runtime.ask(self._layout.admin_socket, f"shutdown sessions server {'/'.join(place)}")
        if answer.strip():
            raise RouterFault(f"HAProxy did not end the sessions on {'/'.join(place)}: {answer.strip()}")
        return ended

    async def _cut_old(self, pid: int, place: servers.Key) -> int:
        """End what an old worker still has there, one by one: it answers 'Proxy is disabled' to the shorter order."""
        ended: set[str] = set()
        deadline = time.monotonic() + CUT_S
        while time.monotonic() < deadline:
            shown = await runtime.ask_worker(self._layout.master_socket, pid, ["show sess"])
            found = [name for name, *where in _SESSION.findall(shown) if tuple(where) == place]
            if not found:
                return len(ended)
            for start in range(0, len(found), QUERIES):
                orders = [f"shutdown session {name}" for name in found[start : start + QUERIES]]
                await runtime.ask_worker(self._layout.master_socket, pid, orders)
            ended.update(found)
            await asyncio.sleep(POLL_S)
        raise RouterFault(f"sessions of the old worker {pid} on {'/'.join(place)} do not end: cut again, or end {pid}")

    async def _places(self, service: Name, endpoint: Name) -> list[tuple[int, servers.Key]]:
        """Which server the endpoint is in each worker."""
        self._map_endpoints(self._running_state())
        found = await runtime.processes(self._layout.master_socket)
        return [
            (pid, key)
            for pid in (found.worker, *found.old)
            if pid is not None and pid in self._workers
            for key, occupant in self._workers[pid].endpoints.items()
            if occupant == (service, endpoint)
        ]

    # --- events -------------------------------------------------------------------------------------------------------

    async def _follow(self, worker: int, *, only_new: bool) -> None:
        """Pass on what this worker says, until it ends."""
        while True:
            async with contextlib.aclosing(
                runtime.follow(self._layout.admin_socket, EVENT_RING, only_new=only_new)
            ) as said:
                async for line in said:
                    self._heard(worker, line)
            only_new = True
            await asyncio.sleep(POLL_S * 10)

    def _heard(self, worker: int, line: str) -> None:
        self._map_endpoints(self._state)
        counts = self._workers.get(worker)
        if counts is None:
            return
        server, backend = _SERVER_LINE.search(line), _BACKEND_LINE.search(line)
        if server is not None:
            occupant = counts.endpoints.get((server[1], server[2]))
            if occupant is not None:
                service, endpoint = occupant
                self._emit(service, endpoint, line.replace(server[0], f"{service}/{endpoint}"))
                if _WENT_DOWN.search(line):
                    self._cut_later((server[1], server[2]), service, endpoint)
        elif (seat := find_seat(line)) is not None:
            self._emit(seat[1], seat[2], line.replace(seat[0], f"{seat[1]}/{seat[2]}"))
        elif backend is not None and (pool := parse_backend(backend[1])) is not None:
            self._emit(pool[0], None, line)

    def _emit(
        self, service: Name | None, endpoint: Name | None, text: str, kind: EventKind = EventKind.ROUTER_CHANGED
    ) -> None:
        if self._events.full():
            self._events.get_nowait()  # nobody listens; the newest matter most
        self._events.put_nowait(RouterEvent(service, endpoint, text, kind))

    # --- letting go ---------------------------------------------------------------------------------------------------

    async def _let_go_of_tasks(self) -> None:
        tasks = [task for task in (self._keeper, self._follower, self._saver) if task is not None]
        tasks += self._cutters
        self._keeper = self._follower = self._saver = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._output is not None:  # started
            await self._steering.end()

    def _forget(self) -> None:
        self._state = None
        if self._output is not None:
            self._output.close()
            self._output = None


def _show_shares(layout: Layout) -> str:
    path = str(layout.maps / SHARE_MAP).replace("\\", "\\\\").replace(" ", "\\ ")
    return f"show map {path}"


def _addresses(binds: Iterable[str]) -> Iterator[Address]:
    for bind in binds:
        with contextlib.suppress(ValueError):
            yield Address.parse(bind)


def _listens(state: RouterState) -> Iterator[tuple[Name, Address]]:
    """Every service, with each of its ports."""
    yield from ((route.service, route.listen) for route in state.routes)
    yield from ((ports.cluster, listen) for ports in state.clusters for listen in ports.listens)


def _why_taken(listen: Address) -> str | None:
    """Why nobody can listen there now, and what to do; None when one can."""
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((listen.host, listen.port))
        except OSError as fault:
            if fault.errno == errno.EADDRINUSE:
                return (
                    f"another program does ('ss -ltnp sport = :{listen.port}' names it); end it or choose another port"
                )
            if fault.errno == errno.EADDRNOTAVAIL:
                return "this host has no such address; give it the address, or listen on another"
            if fault.errno == errno.EACCES:
                return "ports below 1024 need root or CAP_NET_BIND_SERVICE; choose a higher port"
            return fault.strerror or str(fault)
    return None


def _stat_lines(state: RouterState) -> Iterator[str]:
    """What to ask for: all that is not in maintenance, and of the rest the endpoints, but not the spares."""
    resting = [
        f"show stat {backend_name(pool.service, pool.group)} 4 {index + 1}"
        for route in state.routes
        for pool in seen.pools(route)
        for index, slot in enumerate(pool.slots)
        if slot.endpoint is not None and slot.admin is Admin.MAINT
    ]
    yield "; ".join(("show info", "show stat -1 7 -1 no-maint", *resting[:QUERIES]))
    for start in range(QUERIES, len(resting), QUERIES):
        yield "; ".join(resting[start : start + QUERIES])
