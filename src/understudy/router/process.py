"""HAProxy as processes: find it, start it in its own session, recognise it again, end it. No configuration, no talk.

The master leads a session of its own that nothing else is in: a Ctrl-C for the agent, or the agent's death, does not
reach it, and "everything it started" is exactly that session. A process is known by its pid and its start time, and
held by a pidfd.
"""

import asyncio
import contextlib
import grp
import os
import pwd
import re
import shutil
import signal
import stat
from collections import deque
from pathlib import Path

from understudy.router.base import RouterFault
from understudy.router.config import HostFacts
from understudy.router.layout import Layout

OLDEST = (2, 6, 0)
USER = "haproxy"
"""Whom the workers become when we are root and the distribution has that user."""

END_S = 3.0
"""How long HAProxy may take to end before it is killed."""


_SUMMARY = re.compile(r"Fatal errors found|Error\(s\) found|Some protocols failed")
"""Alerts that only say that there were alerts."""


def find(program: str) -> str:
    """The path of the program; RouterFault says how to get it."""
    path = shutil.which(program, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin")
    if path is None:
        raise RouterFault(f"there is no '{program}' on this host: run 'make setup', or 'apt-get install haproxy'")
    return path


async def host_facts(program: str, threads: int | None) -> HostFacts:
    """What the configuration has to know of this host; RouterFault when HAProxy is missing or too old."""
    status, text = await run(find(program), "-v")
    match = re.search(r"version (\d+)\.(\d+)(?:[.-](?:dev)?(\d+))?", text)
    if status != 0 or match is None:
        raise RouterFault(f"'{program} -v' does not tell a version: is that HAProxy? Install it with 'make setup'")
    version = (int(match[1]), int(match[2]), int(match[3] or 0))
    if version < OLDEST:
        raise RouterFault(f"HAProxy {match[1]}.{match[2]} is too old: install 2.6 or newer")
    if os.geteuid() != 0:
        return HostFacts(version, threads=threads)
    try:
        return HostFacts(version, pwd.getpwnam(USER).pw_name, grp.getgrnam(USER).gr_name, threads)
    except KeyError:
        return HostFacts(version, threads=threads)


async def run(*argv: str) -> tuple[int, str]:
    """Exit status and output of a short command."""
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output, _ = await process.communicate()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        raise
    return process.returncode or 0, output.decode(errors="replace")


def alerts(output: str) -> str:
    """HAProxy's own reason out of what it printed: the alerts, bare; all of it when there are none."""
    found = re.findall(r"^\[ALERT\]\s+\(\d+\) : (.*)$", output, re.MULTILINE)
    said = [line for line in found if not _SUMMARY.search(line)]
    return "; ".join(line.removeprefix("config : ").strip() for line in said) or output.strip() or "it gave no reason"


class Output:
    """What HAProxy prints, in a named pipe that it holds open itself.

    Nothing breaks when no agent reads: the kernel keeps 64 kB and HAProxy drops the rest, so it can fill no disk.
    """

    def __init__(self, path: Path) -> None:
        """Open the pipe, making it where it is missing."""
        try:
            if not path.is_fifo():
                path.unlink(missing_ok=True)
                os.mkfifo(path, 0o600)
            self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as fault:
            raise RouterFault(
                f"cannot make {path} ({fault.strerror}): make its folder writable, then try again"
            ) from None
        self._lines: deque[str] = deque(maxlen=200)
        asyncio.get_running_loop().add_reader(self._fd, self._drain)

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._fd, 65536):
                self._lines.extend(data.decode(errors="replace").splitlines())

    def forget(self) -> None:
        """Begin anew: what was printed so far concerns nobody any more."""
        self._drain()
        self._lines.clear()

    def text(self) -> str:
        """What was printed since."""
        self._drain()
        return "\n".join(self._lines)

    def close(self) -> None:
        """Let go of the pipe; HAProxy holds it on its own."""
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)


class Master:
    """One running HAProxy, known by its master process."""

    def __init__(self, pid: int) -> None:
        """Take hold of a process; ProcessLookupError when it is gone."""
        self.pid = pid
        self._fd = os.pidfd_open(pid)
        self.died = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._dead)

    def _dead(self) -> None:
        self._loop.remove_reader(self._fd)
        with contextlib.suppress(ChildProcessError):  # adopted: init reaps it
            os.waitid(os.P_PIDFD, self._fd, os.WEXITED | os.WNOHANG)
        self.died.set()

    async def end(self) -> None:
        """End the master and everything of its session, gone when this returns."""
        members = _session(self.pid)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._fd, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.died.wait(), END_S)
        await kill(members | _session(self.pid))
        await asyncio.wait_for(self.died.wait(), END_S)
        self.release()

    async def bury(self) -> None:
        """After the master died: kill what it left behind, for its listeners are still held and its sessions unseen."""
        await kill(_session(self.pid))
        self.release()

    def release(self) -> None:
        """Let go and leave it running."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1


def spawn(program: str, layout: Layout) -> int:
    """Start HAProxy in a session of its own, printing into the layout's pipe; the pid of its master."""
    output = str(layout.output)
    return os.posix_spawn(
        program,
        [program, "-W", "-S", f"{layout.master_socket},mode,600", "-f", str(layout.config)],
        {"PATH": os.environ.get("PATH", os.defpath)},  # no more: the agent's environment may hold secrets
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, output, os.O_RDWR | os.O_NONBLOCK, 0),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=(),
        setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
    )


def adopt(pid: int, layout: Layout) -> Master | None:
    """Take hold of the process that listens on our master socket, if it is an HAProxy that we started."""
    try:
        master = Master(pid)
    except ProcessLookupError:
        return None
    with contextlib.suppress(OSError):
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if f"{layout.master_socket},mode,600".encode() in arguments and _stat(pid)[1] == pid:
            return master
    master.release()
    return None


def _stat(pid: int) -> tuple[int, int]:
    """Start time (in clock ticks since boot) and session of a process; OSError when it is gone."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[19]), int(fields[3])


def _session(leader: int) -> set[tuple[int, int]]:
    """Pid and start time of every process in the session."""
    members = set()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                started, session = _stat(int(entry.name))
                if session == leader:
                    members.add((int(entry.name), started))
    return members


async def kill(members: set[tuple[int, int]]) -> None:
    """Kill exactly these processes, and wait until they are gone."""
    for pid, started in members:
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            if _stat(pid)[0] == started:
                signal.pidfd_send_signal(fd, signal.SIGKILL)
                await _gone(fd)
        except (ProcessLookupError, FileNotFoundError):
            continue
        finally:
            os.close(fd)


async def kill_one(pid: int) -> None:
    """Kill one of HAProxy's processes, and wait until it is gone."""
    with contextlib.suppress(OSError):
        await kill({(pid, _stat(pid)[0])})


async def _gone(fd: int) -> None:
    """Wait until the process behind a pidfd has ended."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(fd, ended.set)
    try:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), END_S)
    finally:
        loop.remove_reader(fd)


def closed_folder(folder: Path) -> Path | None:
    """The first folder on the way that other users may not enter; None when all of them may be."""
    for step in (*reversed(folder.parents), folder):
        if not step.stat().st_mode & stat.S_IXOTH:
            return step
    return None
