"""What the guard is proven on: a real agent, guard and engine, a disk that hangs when told, and an eye of our own.

The eye is a FIFO that everybody of the engine's family holds open: it hangs up when the last of them is gone, whatever
the guard may say. No test lives here. Everything that a Rig started is gone when it closes.
"""

import contextlib
import fcntl
import functools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "src"
NOBODY = 65534
BOUND_S = 20.0
"""More than anything here can take on a busy machine."""

LEASE_S, MARGIN_S, RENEW_S = 0.6, 0.3, 0.08
LONG_LEASE_S = 4.0
"""Leaves a new agent the time that a busy machine may take to start one."""


def boot_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def state_of(pid: int) -> str:
    """One letter, as in /proc; empty when there is no such process."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


def until(condition, what: str):
    """The first true answer; fails after BOUND_S."""
    end_s = boot_s() + BOUND_S
    while not (answer := condition()):
        assert boot_s() < end_s, f"waited {BOUND_S} s for {what}"
        time.sleep(0.002)
    return answer


@functools.cache
def nobodys_python() -> str | None:
    """A Python that a user without privileges may run; None when there is none, or we cannot become one."""
    if os.geteuid() != 0:
        return None
    check = ["-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
    for python in (sys.executable, "/usr/bin/python3"):
        with contextlib.suppress(OSError):
            done = subprocess.run([python, *check], check=False, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/")
            if done.returncode == 0:
                return python
    return None


class Disk:
    """A file that writes hang on when told. As root a real file system, frozen; else a pipe that nobody empties."""

    def __init__(self, directory: Path) -> None:
        self.real = os.geteuid() == 0 and all(shutil.which(tool) for tool in ("mke2fs", "fsfreeze", "mount"))
        self._hung = False
        self.folder = directory / "disk"
        self.folder.mkdir()
        self.file = self.folder / "witness"
        if self.real:
            self._image = directory / "image"
            with self._image.open("wb") as file:
                file.truncate(8 << 20)
            subprocess.run(["mke2fs", "-q", "-t", "ext4", self._image], check=True)
            subprocess.run(["mount", "-o", "loop", self._image, self.folder], check=True)
        else:
            os.mkfifo(self.file)
            self._pipe = os.open(self.file, os.O_RDWR | os.O_NONBLOCK)
            fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, 4096)
            self._drain = threading.Thread(target=self._empty, daemon=True)
            self._drain.start()

    def _empty(self) -> None:
        while not self._hung:
            with contextlib.suppress(BlockingIOError):
                os.read(self._pipe, 4096)
            time.sleep(0.005)

    def hang(self) -> None:
        self._hung = True
        if self.real:
            subprocess.run(["fsfreeze", "-f", self.folder], check=True)

    def heal(self) -> None:
        if self._hung and self.real:
            subprocess.run(["fsfreeze", "-u", self.folder], check=True)
        self._hung = False

    def close(self) -> None:
        self.heal()
        if self.real:
            subprocess.run(["umount", self.folder], check=True)
        else:
            self._hung = True
            self._drain.join()
            os.close(self._pipe)


class Rig:
    """One agent, guard and engine. `as_nobody` runs them without any privilege, where we are root ourselves."""

    def __init__(self, mode: str, *, disk: bool = False, as_nobody: bool = False) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="us-", dir="/tmp"))
        self._user = NOBODY if as_nobody else None
        self._python = nobodys_python() if as_nobody else sys.executable
        assert self._python is not None, "ask nobodys_python first"
        if as_nobody:
            os.chown(self.root, NOBODY, NOBODY)
        self._stack = contextlib.ExitStack()
        self._stack.callback(shutil.rmtree, self.root)
        self.disk = Disk(self.root) if disk else None
        if self.disk is not None:
            self._stack.callback(self.disk.close)
        # The guard's own directory, with its socket and the engine's log, is on the disk that will hang.
        self.directory = (self.disk.folder if self.disk is not None and self.disk.real else self.root) / "guard"
        self.place = self.root / "serves"
        fifo = self.root / "family"
        os.mkfifo(fifo, 0o666)
        fifo.chmod(0o666)
        self._eye = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        self._stack.callback(os.close, self._eye)
        self.engine_command = [self._python, str(HERE / "engine.py"), mode, str(fifo), str(self.place)]
        if mode == "writer":
            self.engine_command.append(str(self.disk.file))
        self._mode = mode
        self.agents: list[subprocess.Popen[str]] = []
        self.status: dict[str, Any] = {}
        self._stack.callback(self._sweep)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, verb: str, **orders: Any) -> subprocess.Popen[str]:
        """Start an agent; what it says is on its stdout."""
        orders = {"verb": verb, "directory": str(self.directory), **orders}
        who = {} if self._user is None else {"user": self._user, "group": self._user, "extra_groups": []}
        environment = {"PYTHONPATH": str(SOURCES), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
        command = [self._python, str(HERE / "agent.py"), json.dumps(orders)]
        agent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, **who)
        self.agents.append(agent)
        return agent

    def ask(self, verb: str = "ask") -> dict[str, Any]:
        """What a new agent, that attaches for just that, hears of the guard."""
        agent = self.run(verb)
        said, _ = agent.communicate(timeout=BOUND_S)
        self.agents.remove(agent)
        return json.loads(said)

    def lead(self, *, engine: bool = True, epoch: int = 1, lease_s: float = LEASE_S) -> subprocess.Popen[str]:
        """Start an agent that renews, with a new guard and engine or on the guard that is there; wait until it does."""
        agent = self.run(
            "lead",
            lease_s=lease_s,
            margin_s=MARGIN_S,
            renew_s=RENEW_S,
            epoch=epoch,
            engine=self.engine_command if engine else None,
            disk=str(self.disk.file) if self.disk is not None and self._mode != "writer" else None,
        )
        said = json.loads(agent.stdout.readline())
        assert "status" in said, said
        self.status = said["status"]
        if self._mode == "stopped":
            until(lambda: state_of(self.status["engine"]) == "T", "the engine to stop itself")
        elif engine and self._mode != "leaver":
            until(self.serves, "the engine to serve")
        return agent

    def serves(self) -> str:
        """The engine's pid, by its own word over its socket; empty when it does not answer."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.settimeout(BOUND_S)
            client.connect(str(self.place))
            return client.recv(64).decode()
        return ""

    def gone_s(self) -> float:
        """Wait until nobody of the engine's family is left; when that was seen, by the boot-time clock."""
        poll = select.poll()
        poll.register(self._eye, 0)
        assert poll.poll(BOUND_S * 1000), "somebody of the engine's family lives on"
        return boot_s()

    def anybody_left(self) -> bool:
        poll = select.poll()
        poll.register(self._eye, 0)
        return not poll.poll(0)

    def strike(self, pid: int, number: signal.Signals = signal.SIGKILL) -> None:
        """Signal a process of ours, whose pid is from our own status."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def _sweep(self) -> None:
        """Leave nothing behind, whatever happened."""
        if self.disk is not None:
            self.disk.heal()
        for agent in self.agents:
            agent.kill()
            agent.wait()
            agent.stdout.close()
        self.agents = []
        if not self.status:
            return
        for verb in ("finish", "replace"):  # the second cleans up where guard and warden were both killed
            self.ask(verb)
        for proc in Path("/proc").iterdir():  # nothing, if the guard is what it should be
            with contextlib.suppress(OSError):
                if proc.name.isdigit() and str(self.root) in (proc / "cmdline").read_text():
                    self.strike(int(proc.name))
        for name in ("guard", "warden", "engine"):
            until(lambda name=name: state_of(self.status[name]) in ("", "Z"), f"the {name} to be gone")
