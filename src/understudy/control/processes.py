"""Processes that outlive their agent: start one, find it again, end it and all that it started, and touch no other.

RULES: a process is known by its pid together with its start time and this boot, never by its pid alone. Signals go
through pidfds, so that a pid which was used anew in between cannot be hit. Policy (when to restart) is supervisor.py's.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

MARK = "UNDERSTUDY_RUN"
"""Environment variable that every supervised process carries; it tells our leftovers from strangers."""

GATE = ("/bin/sh", "-c", 'read -r go && exec "$@" </dev/null', "sh")
"""Holds a new process back until its state file is written; when the agent dies before that, it ends by itself."""

POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Identity:
    """What a state file says of a process: enough to know it again, and to tell what it was started with."""

    pid: int
    started_ticks: int
    boot: str
    mark: str
    what: str
    """Its starter's own words for what it was started with; equal words mean that it need not be started anew."""


@dataclass(frozen=True, slots=True)
class Stat:
    """The part of /proc/PID/stat that matters."""

    state: str
    session: int
    started_ticks: int


def boot_id() -> str:
    """The name of this boot of the host."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def stat_of(pid: int) -> Stat | None:
    """What the kernel says of a process; None when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name in parentheses may hold anything
    return Stat(fields[0], int(fields[3]), int(fields[19]))


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208  ten times quicker


def _marked(pid: int, mark: str) -> bool:
    try:
        return f"{MARK}={mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def members(identity: Identity) -> tuple[int, ...]:
    """Everything alive in the session that this process was started in, itself included; empty when none of it is left.

    A session's number is not given to another process while the session has members. So, with the first process gone,
    whoever holds that pid now is a stranger, and what remains in the session is ours if it carries our mark.
    """
    if identity.boot != boot_id():
        return ()
    leader = stat_of(identity.pid)
    if leader is not None and leader.started_ticks != identity.started_ticks:
        return ()
    found = []
    for pid in _pids():
        stat = stat_of(pid)
        if stat is None or stat.session != identity.pid or stat.state in "ZX":
            continue
        if leader is not None or _marked(pid, identity.mark):
            found.append(pid)
    return tuple(found)


def _signal(pid: int, session: int, number: signal.Signals) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return  # it has ended
    try:
        stat = stat_of(pid)
        if stat is not None and stat.session == session:  # checked after opening: this pidfd cannot change its process
            signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)


class Process:
    """One supervised process, started here or found again; `identity` is what its state file says."""

    def __init__(self, identity: Identity, child: subprocess.Popen[bytes] | None) -> None:
        self.identity = identity
        self._child = child

    @classmethod
    def start(
        cls, argv: tuple[str, ...], directory: str, environment: Mapping[str, str], what: str, *, log: Path, state: Path
    ) -> "Process":
        """Start a command in its own session, its output appended to `log`, its identity in `state` before it runs.

        `environment` comes on top of our own. Raises OSError when the command, its directory or a file will not do.
        """
        _check_runnable(argv[0], directory)
        output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            child = subprocess.Popen(
                [*GATE, *argv],
                cwd=directory,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**os.environ, **environment, MARK: str(state)},
            )
        finally:
            os.close(output)
        assert child.stdin is not None  # noqa: S101  asked for above
        try:
            stat = stat_of(child.pid)
            started = stat.started_ticks if stat else 0  # our own child cannot vanish before it is waited for
            identity = Identity(child.pid, started, boot_id(), str(state), what)
            _write(state, identity)
            child.stdin.write(b"go\n")
        except OSError:
            child.kill()
            child.wait()
            raise
        finally:
            with contextlib.suppress(OSError):
                child.stdin.close()
        return cls(identity, child)

    @classmethod
    def find(cls, state: Path) -> "Process | None":
        """The process of a state file; None when there is no such file or it cannot be read."""
        try:
            identity = Identity(**json.loads(state.read_text()))
        except (OSError, ValueError, TypeError):
            return None
        return cls(identity, None)

    @property
    def alive(self) -> bool:
        """Whether the first process of the session runs."""
        stat = stat_of(self.identity.pid)
        return (
            stat is not None
            and stat.state not in "ZX"
            and stat.started_ticks == self.identity.started_ticks
            and self.identity.boot == boot_id()
        )

    async def exited(self) -> str:
        """Wait until it has ended; how, in words. It is known at once, by pidfd."""
        await self._gone()
        if self._child is None:
            return "ended while it was not our child, so how is not known"
        return self._how()

    async def end(self, patience_s: float) -> bool:
        """Ask all of the session to end, force what is left after `patience_s`; True when verified that none is left.

        The first process is reaped last: until then its pid, and so the session's number, cannot be used anew.
        """
        for number, wait_s in ((signal.SIGTERM, patience_s), (signal.SIGKILL, 2.0)):
            deadline_s = asyncio.get_running_loop().time() + wait_s
            self._signal_all(number)
            pause_s = POLL_S
            while members(self.identity) and asyncio.get_running_loop().time() < deadline_s:
                if number is signal.SIGKILL:
                    self._signal_all(number)  # what was forked meanwhile
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, 10 * POLL_S)
        gone = not members(self.identity)
        if gone and self._child is not None:
            self._child.wait()
        return gone

    def _signal_all(self, number: signal.Signals) -> None:
        for pid in members(self.identity):
            _signal(pid, self.identity.pid, number)

    def _how(self) -> str:
        status = os.waitid(os.P_PID, self.identity.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # reaped in end()
        if status is None or status.si_code == os.CLD_EXITED:
            return f"exited with code {status.si_status if status else 0}"
        return f"was killed by {_signal_name(status.si_status)}"

    async def _gone(self) -> None:
        try:
            pidfd = os.pidfd_open(self.identity.pid)
        except ProcessLookupError:
            return
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        try:
            if self._child is None and not self.alive:
                return
            loop.add_reader(pidfd, ended.set)
            await ended.wait()
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)


def _check_runnable(command: str, directory: str) -> None:
    """Raise the OSError that running it would, so that a person gets a sentence instead of a shell's exit code."""
    if not Path(directory).is_dir():
        raise FileNotFoundError(2, "no such directory", directory)
    places = [directory] if "/" in command else os.get_exec_path()
    paths = [Path(directory, place, command) for place in places]
    if not any(path.is_file() for path in paths):
        raise FileNotFoundError(2, "no such command", command)
    if not any(path.is_file() and os.access(path, os.X_OK) for path in paths):
        raise PermissionError(13, "not executable", command)


def _write(path: Path, identity: Identity) -> None:
    new = path.with_suffix(".new")
    new.write_text(json.dumps(asdict(identity)))
    new.replace(path)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
