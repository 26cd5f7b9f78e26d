"""An engine below its guard: fulfils `EngineProcess` for the driver and `Fence` for the lease. No policy.

One guard an engine start: a guard that has seen its engine die starts nothing any more, so each start spawns another.
After a restart of the agent the guard that runs is attached to, and neither it nor the engine notices.
"""

import asyncio
import os
import signal as signals
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from understudy.control.clock import Clock
from understudy.core.errors import Fault, Refused
from understudy.drivers.base import DriverFault, EngineState, OsUser
from understudy.guard.client import Guard, Phase, Status, User
from understudy.guard.process import FAMILY

_OVER = (FileNotFoundError, ConnectionRefusedError)
"""What says for certain that no guard listens; anything else may be a guard that is slow."""


class GuardedEngine:
    """The engine of one node. `directory` is its guard's: the agent's own, mode 0700, nobody else's."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock
        self._guard: Guard | None = None
        self._watch: asyncio.Task[None] | None = None
        self._told: Callable[[], None] = lambda: None
        self._one_at_a_time = asyncio.Lock()
        """Attaching and spawning: two at once would make two connections, and leave one."""

    def listen(self, told: Callable[[], None]) -> None:
        """News goes to the last who asked."""
        self._told = told

    async def look(self) -> EngineState:
        """Whether the engine runs, as its guard said last."""
        guard = await self._attached()
        if guard is not None:
            return _state(guard.status)
        if _family_left(self._directory / FAMILY):
            raise DriverFault("The guard is gone, and what it guarded is not; it has to be killed.")
        return EngineState(running=False)

    async def start(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        directory: Path,
        log: Path,
        user: OsUser | None,
        epoch: int,
    ) -> EngineState:
        """Start the engine below a new guard."""
        guard = await self._renewed()
        who = None if user is None else User(user.uid, user.gid, user.groups)
        try:
            status = await guard.start(argv, env=environment, cwd=directory, log=log, user=who, epoch=epoch)
        except Refused as error:
            raise DriverFault(str(error)) from error
        return _state(status)

    async def signal(self, number: int) -> None:
        """Send a signal to the engine's first process, if it is still that one."""
        status = (await self._needed()).status
        if status.phase is not Phase.RUNNING or status.engine is None:
            raise DriverFault("The engine does not run, so it cannot be sent a signal.")
        try:
            pidfd = os.pidfd_open(status.engine)
            try:
                if _started_ticks(status.engine) != status.started_ticks:
                    raise ProcessLookupError
                signals.pidfd_send_signal(pidfd, number)
            finally:
                os.close(pidfd)
        except OSError as error:
            raise DriverFault("The engine has just ended, so it cannot be sent a signal.") from error

    async def stop(self, number: int, *, within_s: float, epoch: int) -> None:
        """Ask it to end, and have the guard kill what is left after that time."""
        guard = await self._needed()
        deadline_s = self._clock.now().boot_s + within_s
        try:
            await guard.stop(number, deadline_boot_s=deadline_s, epoch=epoch)
        except Refused as error:
            raise DriverFault(str(error)) from error

    async def kill(self, *, epoch: int) -> None:
        """Kill everything. Without a guard, a new one is started for it: it ends whatever an earlier one left."""
        guard = await self._attached() or await self._renewed()
        try:
            await guard.kill(epoch=epoch)
        except Refused as error:
            raise DriverFault(str(error)) from error

    async def renew(self, deadline_boot_s: float, *, margin_s: float, epoch: int) -> object:
        """Arm the guard, or move its deadline. Raises Refused when it is too late, Fault when there is no guard."""
        guard = await self._attached()
        if guard is None or guard.status.phase is not Phase.RUNNING:
            raise Fault("There is no guard to arm, because the engine does not run.")
        return await guard.renew(deadline_boot_s, margin_s=margin_s, epoch=epoch)

    async def close(self) -> None:
        """Let go of the guard; it and the engine go on."""
        guard, self._guard = self._guard, None
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        if guard is not None:
            await guard.close()

    async def end(self) -> None:
        """Let the guard end, and let go of it. Raises DriverFault while its engine lives."""
        guard = await self._attached()
        if guard is not None:
            try:
                await guard.end()
            except Refused as error:
                raise DriverFault(str(error)) from error
        await self.close()

    async def _needed(self) -> Guard:
        guard = await self._attached()
        if guard is None:
            raise DriverFault("The engine has no guard, because it does not run.")
        return guard

    async def _attached(self) -> Guard | None:
        """The guard, attached to; None when there certainly is none, whatever it may have left."""
        if self._guard is not None and self._guard.lost is None:
            return self._guard
        async with self._one_at_a_time:
            if self._guard is not None and self._guard.lost is None:
                return self._guard
            await self.close()
            try:
                guard = await Guard.attach(self._directory)
            except Fault as error:
                if isinstance(error.__cause__, _OVER):
                    return None
                raise DriverFault(str(error)) from error
            self._keep(guard)
            return guard

    async def _renewed(self) -> Guard:
        """A guard that has not started anything; Raises DriverFault while the present one's engine lives."""
        old = await self._attached()
        async with self._one_at_a_time:
            try:
                if old is not None:
                    await old.end()
                await self.close()
                guard = await _spawned(self._directory)
            except Refused as error:
                raise DriverFault(str(error)) from error
            self._keep(guard)
            return guard

    def _keep(self, guard: Guard) -> None:
        self._guard = guard
        self._watch = asyncio.create_task(self._follow(guard))

    async def _follow(self, guard: Guard) -> None:
        async for _ in guard.changes():
            self._told()
        self._told()  # a guard that is gone has taken its engine with it


async def _spawned(directory: Path) -> Guard:
    """A new guard. Cut short, it is waited for all the same: half a guard would be in the way of the next."""
    spawning = asyncio.ensure_future(Guard.spawn(directory))
    try:
        return await asyncio.shield(spawning)
    except asyncio.CancelledError:
        spawning.add_done_callback(_let_go)
        raise


def _let_go(spawning: asyncio.Future[Guard]) -> None:
    """Nobody waits for this guard any more; whoever needs it attaches."""
    if not spawning.cancelled() and spawning.exception() is None:
        task = asyncio.ensure_future(spawning.result().close())
        _closing.add(task)
        task.add_done_callback(_closing.discard)


_closing: set[asyncio.Future[None]] = set()
"""Held, so that they are not collected before they are done."""


def _state(status: Status) -> EngineState:
    alive = status.phase in {Phase.RUNNING, Phase.KILLING} and status.engine is not None
    life = f"{status.engine}.{status.started_ticks}" if alive else ""
    return EngineState(alive, status.engine if alive else None, life)


def _family_left(lock: Path) -> bool:
    """Whether anybody holds the lock that all of a family inherit. Looked at, never tried: trying would hold it."""
    try:
        facts = lock.stat()
    except FileNotFoundError:
        return False
    place = f"{os.major(facts.st_dev):02x}:{os.minor(facts.st_dev):02x}:{facts.st_ino}"
    return any(place in line.split() for line in Path("/proc/locks").read_text(encoding="ascii").splitlines())


def _started_ticks(pid: int) -> int:
    """When that process was started, as the kernel counts."""
    return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19])
