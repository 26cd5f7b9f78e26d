"""Where the clients of the clusters go: brings routes into force in the running HAProxy, in every worker.

RULES: a route of a lower epoch than one that was followed is refused, also by the next agent: nobody is let in under an
epoch that is not on the disk (the file `followed`) yet. The old node is closed and its sessions are ended before the
new one is opened. Nothing here waits for a reload: a route that comes in the middle of one is in force at once, and
once more when the new worker has taken over.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

from understudy.core.cluster_route import Route
from understudy.core.routes import ClusterPorts, RouterState
from understudy.core.text import Name
from understudy.router import followed, process, runtime
from understudy.router.base import RouterFault
from understudy.router.cluster_orders import closing, leaving, opening, stale_sessions
from understudy.router.files import Files
from understudy.router.layout import Layout

SAVE_S = 0.25
"""How long a route waits for the disk before it comes into force all the same."""
SAVE_AGAIN_S = 2.0
LEAVE_S = 0.005
"""For what is just connecting to the old writer: cut while it does, its client would get an error; refused by a dead
engine, it waits for the new one."""
SWEEP_S = 0.5
"""How long old workers may take to end sessions."""
POLL_S = 0.005
ORDERS = 200
"""Sessions that are ended by one line."""
CLOSED = Route(0, None, ())


class Steering:
    """The routes of one HAProxy. `tell` is given a sentence about what does not work."""

    def __init__(self, layout: Layout, files: Files, tell: Callable[[str], None]) -> None:
        """Remember what was followed before; RouterFault when the file cannot be understood."""
        self._layout = layout
        self._files = files
        self._tell = tell
        self._locks: dict[Name, asyncio.Lock] = {}
        try:
            self._routes = followed.from_text(files.followed())
        except ValueError as fault:
            raise RouterFault(
                f"{layout.followed} tells nothing ({fault}), so an outdated route would not be known for one: look at"
                " 'status' of every cluster, then remove the file and start again"
            ) from None
        self._sure: set[Name] = set()
        """Clusters whose route is known to be in force, or to have been until HAProxy went: only they are opened."""
        self._brought: dict[Name, Route] = {}
        """What was brought into force, in every worker."""
        self._settled = asyncio.Event()
        self._settled.set()
        self._workers = 0
        """How many workers have come so far."""
        self._durable = {name: route.epoch for name, route in self._routes.items()}
        """The epochs that the next agent would know of."""
        self._unsaved = False
        self._saver: asyncio.Task[None] | None = None

    # --- what the router's life calls for -----------------------------------------------------------------------------

    def trust(self) -> None:
        """HAProxy was found running: what the file says is what it does, or was just about to do."""
        self._sure = set(self._routes)

    @contextlib.contextmanager
    def new_worker(self) -> Iterator[None]:
        """While one worker is being replaced by another."""
        self._settled.clear()
        try:
            yield
        finally:
            self._workers += 1
            self._settled.set()

    async def resume(self, state: RouterState) -> None:
        """Have a worker that came up closed, or was found, do what was followed last; the others stay closed."""
        for ports in state.clusters:
            async with self._lock(ports.cluster):
                route = self._routes[ports.cluster] if ports.cluster in self._sure else CLOSED
                await self._close(ports, route)
                await runtime.send(self._layout.admin_socket, list(opening(ports, route)))

    def forget_others(self, state: RouterState) -> None:
        """Clusters that the spec has no more may come back with any epoch."""
        gone = {name for name in self._routes if state.ports(name) is None}
        for name in gone:
            del self._routes[name]
            self._sure.discard(name)
        if gone:
            self._save()

    async def end(self) -> None:
        """Stop trying to save."""
        if self._saver is not None:
            self._saver.cancel()
            await asyncio.gather(self._saver, return_exceptions=True)

    # --- routes -------------------------------------------------------------------------------------------------------

    def route(self, cluster: Name) -> Route | None:
        """What this agent has the cluster's clients do; None as long as nobody said."""
        return self._routes[cluster] if cluster in self._sure else None

    async def follow(self, ports: ClusterPorts, route: Route) -> None:
        """Bring the route into force, old sessions cut; done when it is. Raises RouterFault, for lower epochs too."""
        while True:
            workers = self._workers
            try:
                await self._bring(ports, route)
            except RouterFault:
                if self._settled.is_set() and workers == self._workers:
                    raise
            else:
                if self._settled.is_set() and workers == self._workers:
                    return
            await self._settled.wait()  # a new worker takes over: only with it is the route in force everywhere

    async def _bring(self, ports: ClusterPorts, route: Route) -> None:
        async with self._lock(ports.cluster):
            known = self._routes.get(ports.cluster)
            if known is not None and route.epoch < known.epoch:
                raise RouterFault(
                    f"{ports.cluster}: the router has followed epoch {known.epoch} and refuses epoch {route.epoch},"
                    " which is outdated: see 'events' for who decided it"
                )
            self._routes[ports.cluster] = route
            self._sure.add(ports.cluster)
            if route != known:
                self._save()
            if known is not None and known.write not in (None, route.write) and ports.has(known.write):
                await runtime.send(self._layout.admin_socket, list(leaving(ports, known.write)))
                await asyncio.sleep(LEAVE_S)
            nobody_writes = known is not None and known.write is None and self._brought.get(ports.cluster) == known
            if not nobody_writes:
                await self._close(ports, route)
            if (
                route.write is not None
                and self._saver is not None
                and self._durable.get(ports.cluster, 0) < route.epoch
            ):
                await asyncio.wait([self._saver], timeout=SAVE_S)
            if route.write is not None and not ports.has(route.write):
                raise RouterFault(
                    f"{ports.cluster}: the router has no node {route.write} yet, nobody takes writes: apply the spec"
                )
            if nobody_writes:  # anywhere: what is left to close stands in nobody's way, and is done in the same breath
                await runtime.send(self._layout.admin_socket, [*closing(ports, route), *opening(ports, route)])
                await self._sweep(ports, route)
            else:
                await runtime.send(self._layout.admin_socket, list(opening(ports, route)))
            self._brought[ports.cluster] = route

    def _lock(self, cluster: Name) -> asyncio.Lock:
        return self._locks.setdefault(cluster, asyncio.Lock())

    async def _close(self, ports: ClusterPorts, route: Route) -> None:
        """End what the route does not allow, in every worker."""
        here = runtime.send(self._layout.admin_socket, list(closing(ports, route)))
        await _all((here, self._sweep(ports, route)))

    async def _sweep(self, ports: ClusterPorts, route: Route) -> None:
        """End what old workers still have of what the route does not allow."""
        old = (await self._processes()).old
        await _all(self._sweep_worker(pid, ports, route) for pid in old)

    async def _processes(self) -> runtime.Processes:
        """The workers; while the master is busy with a reload, they are asked for again."""
        deadline = time.monotonic() + SWEEP_S
        while True:
            try:
                return await runtime.processes(self._layout.master_socket)
            except RouterFault:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(POLL_S)

    async def _sweep_worker(self, pid: int, ports: ClusterPorts, route: Route) -> None:
        try:
            async with asyncio.timeout(SWEEP_S):
                while stale := stale_sessions(ports, route, await self._ask(pid, ["show sess"])):
                    for start in range(0, len(stale), ORDERS):
                        await self._ask(pid, [f"shutdown session {name}" for name in stale[start : start + ORDERS]])
                    await asyncio.sleep(POLL_S)
        except (TimeoutError, RouterFault):
            self._tell(f"{ports.cluster}: the old worker {pid} did not end its sessions, so it is ended with them")
            await process.kill_one(pid)

    async def _ask(self, pid: int, lines: Sequence[str]) -> str:
        return await runtime.ask_worker(self._layout.master_socket, pid, lines)

    # --- the file -----------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        """Write down what is followed now."""
        self._unsaved = True
        if self._saver is None or self._saver.done():
            self._saver = asyncio.create_task(self._keep_saving())

    async def _keep_saving(self) -> None:
        """Until the file says what is followed, however often it takes."""
        while self._unsaved:
            self._unsaved = False
            routes = dict(self._routes)
            try:
                await asyncio.to_thread(self._files.remember, followed.to_text(routes))
                self._durable = {name: route.epoch for name, route in routes.items()}
            except RouterFault as fault:
                self._unsaved = True
                self._tell(f"the route is followed, but the next agent would not know: {fault}")
                await asyncio.sleep(SAVE_AGAIN_S)


async def _all(works: Iterable[Awaitable[None]]) -> None:
    """Do all at once, each to its end; then raise what went wrong first."""
    for outcome in await asyncio.gather(*works, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
