"""The agent's side of a guard: spawn or attach, give orders, hear at once when the engine ends.

Everything here raises Refused when the guard says no, and Fault when it does not answer or is not there. A guard that
is gone has taken its engine with it (see process.py). Policy (when to renew, when to kill) is the control layer's.
"""

import asyncio
import contextlib
import itertools
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from understudy.core.errors import Fault, Refused
from understudy.guard import process

ANSWER_S = 2.0
"""How long an order may go unanswered that the guard answers at once."""
SPAWN_S = 10.0
_LONGEST_ANSWER = 65536


class Phase(StrEnum):
    """Where the guard's one engine stands; it only goes down this list."""

    EMPTY = "empty"
    RUNNING = "running"
    KILLING = "killing"
    DEAD = "dead"
    """Verified: nobody is left below the guard, and it starts nothing any more."""


@dataclass(frozen=True, slots=True)
class Status:
    """All that a guard says of itself. Times are seconds on this host's CLOCK_BOOTTIME."""

    guard: int
    """Process ids: of the guard, its warden, and the engine's first process."""
    warden: int
    phase: Phase
    engine: int | None
    started_ticks: int | None
    """The engine's start time as in /proc/PID/stat; with the pid it names the process."""
    exit: int | None
    """Of the engine's first process: its exit code, or minus the signal that ended it; None while it lives."""
    epoch: int
    """The highest that any order carried."""
    deadline_boot_s: float | None
    """When the engine must be dead; None while unarmed."""
    margin_s: float | None
    """Killing begins so long before the deadline."""
    now_boot_s: float
    why: str
    """Why the engine was killed or what ended it; empty before that."""
    began_boot_s: float | None
    dead_boot_s: float | None
    left: int
    """How many the last round of killing still found."""
    weak: tuple[str, ...]
    """What this host did not give the guard, and how to grant it."""

    @property
    def spare_s(self) -> float | None:
        """How long before its deadline the engine was verified dead; None unless it is dead and was armed."""
        if self.dead_boot_s is None or self.deadline_boot_s is None:
            return None
        return self.deadline_boot_s - self.dead_boot_s


@dataclass(frozen=True, slots=True)
class User:
    """Whom the engine runs as, in numbers."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


class Guard:
    """A connection to the guard of one node; made by `spawn` or `attach`. Not to be shared between event loops."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[str | None]] = {}
        self._newest: Status | None = None
        self._lost: str | None = None
        self._changed = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None

    @classmethod
    async def spawn(cls, directory: Path) -> Self:
        """Start a guard for the node whose guard directory this is (made if missing, mode 0700), and attach to it.

        It outlives us. Refused while an earlier guard of the directory, or anything that it started, still lives.
        """
        try:
            await asyncio.to_thread(directory.mkdir, mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Refused(f"The guard's directory cannot be made ({error}); make it, with mode 700.") from error
        command = [sys.executable, "-I", "-S", process.__file__, str(directory)]
        starter = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(SPAWN_S):
                _, said = await starter.communicate()
        except TimeoutError:
            starter.kill()  # not waited for: on a hung disk it may not even die
            raise Fault(f"The guard in {directory} did not start within {SPAWN_S:.0f} s; is the disk hung?") from None
        if starter.returncode != 0:
            words = said.decode(errors="replace").strip().splitlines()
            raise Refused(f"No guard was started in {directory}: {words[-1] if words else 'it gave no reason'}.")
        return await cls.attach(directory)

    @classmethod
    async def attach(cls, directory: Path) -> Self:
        """Connect to the guard that runs in this directory; Fault when there is none. The engine does not notice."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        guard = cls(connection)
        try:
            place = os.open(directory, os.O_PATH | os.O_DIRECTORY)
            try:  # by its descriptor, since the kernel takes 107 bytes of path only
                async with asyncio.timeout(ANSWER_S):
                    loop = asyncio.get_running_loop()
                    await loop.sock_connect(connection, f"/proc/self/fd/{place}/{process.SOCKET}")
            finally:
                os.close(place)
            guard._reader = asyncio.create_task(guard._read())
            async with asyncio.timeout(ANSWER_S):
                while guard._newest is None and guard._lost is None:
                    await guard._next()
        except (OSError, TimeoutError) as error:
            await guard.close()
            raise Fault(f"No guard answers in {directory} ({error}); start one: its engine does not run.") from error
        if guard._lost is not None:
            await guard.close()
            raise Fault(f"The guard in {directory} cannot be used: {guard._lost}.")
        return guard

    @property
    def status(self) -> Status:
        """The newest that it said."""
        assert self._newest is not None  # noqa: S101  attach waits for the first
        return self._newest

    @property
    def lost(self) -> str | None:
        """Why this connection is of no use any more; None while it is."""
        return self._lost

    async def start(
        self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path, user: User | None, epoch: int
    ) -> Status:
        """Start the engine; it must stay in the foreground. Its output is appended to `log`. Answers when it runs.

        Refused when it cannot be run, and then this guard is used up: end it and spawn another.
        """
        who = None if user is None else [user.uid, user.gid, list(user.groups)]
        return await self._order(
            "start", argv=list(argv), env=dict(env), cwd=str(cwd), log=str(log), user=who, epoch=epoch
        )

    async def renew(self, deadline_boot_s: float, *, margin_s: float, epoch: int) -> Status:
        """Arm the guard, or move its deadline: at `deadline_boot_s - margin_s` it kills, so as to be done in time.

        The deadline is the clock BEFORE the renewal was sent to the store, plus the lease; call this only after the
        renewal succeeded. Refused when it is too late, is not later than before, or is of an older epoch.
        """
        return await self._order("deadline", deadline_boot_s=deadline_boot_s, margin_s=margin_s, epoch=epoch)

    async def stop(self, signal: int, *, deadline_boot_s: float, epoch: int) -> Status:
        """Ask the engine's first process to end, and kill whatever is left at `deadline_boot_s`; answers when dead."""
        patience_s = max(0.0, deadline_boot_s - self.status.now_boot_s) + ANSWER_S
        return await self._order("stop", patience_s, signal=int(signal), deadline_boot_s=deadline_boot_s, epoch=epoch)

    async def kill(self, *, epoch: int, patience_s: float = ANSWER_S) -> Status:
        """Kill everything now; answers when verified dead.

        Fault when it is not within `patience_s` (somebody hangs in the kernel); the guard goes on killing.
        """
        return await self._order("kill", patience_s, epoch=epoch)

    async def ask(self) -> Status:
        """Its status as of now."""
        return await self._order("status")

    async def end(self) -> None:
        """Let the guard end; Refused while its engine is not dead."""
        with contextlib.suppress(_Lost):  # that is how it says yes
            await self._order("end")
        await self.close()

    async def changes(self) -> AsyncIterator[Status]:
        """Its status now, and again at once when the engine has ended or is verified dead; ends when the guard does."""
        told: tuple[Phase, int | None] | None = None
        while True:
            now = (self.status.phase, self.status.exit)
            if now != told:
                told = now
                yield self.status
            elif self._lost is not None:
                return
            else:
                await self._next()

    async def close(self) -> None:
        """Let go of the connection; guard and engine go on."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        self._connection.close()
        self._lose("this side has closed it")

    async def _order(self, order: str, patience_s: float = ANSWER_S, **words: Any) -> Status:
        if self._lost is not None:
            raise _Lost(f"The guard cannot be given the order {order!r}: {self._lost}; attach anew.")
        number = next(self._ids)
        message = json.dumps({"id": number, "order": order, **words}).encode()
        if len(message) > process.LONGEST_MESSAGE:
            raise Refused(f"The order {order!r} has {len(message)} bytes and a guard takes {process.LONGEST_MESSAGE}.")
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            async with asyncio.timeout(patience_s):
                await asyncio.get_running_loop().sock_sendall(self._connection, message)
                refused = await answer
        except TimeoutError:
            raise Fault(f"The guard has not done the order {order!r} within {patience_s:.1f} s.") from None
        except OSError as error:
            raise _Lost(f"The guard cannot be given the order {order!r} ({error}); attach anew.") from error
        finally:
            del self._waiting[number]
        if refused is not None:
            raise Refused(f"The guard refuses the order {order!r}: {refused}.")
        return self.status

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        reason = "it has ended, or has dropped us"
        try:
            while text := await loop.sock_recv(self._connection, _LONGEST_ANSWER):
                message = json.loads(text)
                self._newest = _status(message["status"])
                answer = self._waiting.get(message.get("id", 0))
                if answer is not None and not answer.done():
                    answer.set_result(message["refused"])
                self._changed.set()
        except OSError as error:
            reason = f"the connection broke ({error})"
        except (ValueError, KeyError, TypeError) as error:
            reason = f"it speaks another language than this version ({error})"
        self._lose(reason)

    def _lose(self, reason: str) -> None:
        if self._lost is None:
            self._lost = reason
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(_Lost(f"The guard was lost before it answered: {self._lost}; attach anew."))
        self._changed.set()

    async def _next(self) -> None:
        """Wait for the next message, or the loss of the connection."""
        self._changed.clear()
        if self._lost is None:
            await self._changed.wait()


class _Lost(Fault):
    """The connection is of no use any more."""


def _status(words: dict[str, Any]) -> Status:
    if words["version"] != process.VERSION:
        raise ValueError(f"version {words['version']}, and {process.VERSION} is known here")
    known = {field.name: words[field.name] for field in fields(Status)}
    return Status(**known | {"phase": Phase(known["phase"]), "weak": tuple(known["weak"])})
