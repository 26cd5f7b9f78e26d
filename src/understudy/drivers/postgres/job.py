"""A program that goes on when the agent is cut short or ends, and is found again: a copy or a rewind takes its time.

RULES
1. Its directory says everything: `purpose` (what was asked), and below `run`, which is its user's: `log`, `pid`, `exit`
   (its code, once it has ended). What that user may write is read with care, and no process of others is ever killed.
2. It lives exactly as long as somebody holds the lock on its directory's `lock`: it inherits that, we do not keep it.
   So no other process is ever mistaken for it, and there is no moment in which it runs and is not found.
3. One without `exit` that does not live was killed: nothing that it was to do is done for certain, and what it said
   last may be missing. With `exit` all that it said is there; on a full disk, at least as much as fits in a block.
"""

import asyncio
import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from understudy.drivers.base import DriverFault
from understudy.drivers.postgres import beside
from understudy.drivers.postgres.tools import ENVIRONMENT, Account, Tools

_LOOK_S = 0.05
_SCRIPT = (
    'echo $$ >pid && echo "$1" >log && { '
    '"$@" >>log 2>&1 </dev/null; echo $? >exit.tmp && sync log exit.tmp && mv exit.tmp exit; }'
)
"""On a full disk nothing is begun that could not be ended, or of which nothing could be heard."""
_KILL_S = 10.0
_TAIL_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Job:
    """One, which may live or not, or never have been."""

    directory: Path

    @property
    def alive(self) -> bool:
        """Whether it runs, or anything that it started."""
        try:
            lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    @property
    def there(self) -> bool:
        """Whether it was ever begun, and not forgotten since."""
        return self.directory.exists()

    @property
    def purpose(self) -> dict[str, str]:
        """What it was begun for; empty when there is none."""
        try:
            words: dict[str, str] = json.loads((self.directory / "purpose").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return words

    @property
    def code(self) -> int | None:
        """How it ended; None while it has not, or was killed."""
        try:
            return int(self._read("exit"))
        except (OSError, ValueError):
            return None

    @property
    def said(self) -> str:
        """The end of what it wrote."""
        try:
            return self._read("log")
        except OSError:
            return ""

    @property
    def said_first(self) -> str:
        """The beginning of what it wrote, with its own name before; empty when that cannot be told."""
        try:
            return self._read("log", end=False)
        except OSError:
            return ""

    def start(self, tools: Tools, command: Sequence[str], purpose: Mapping[str, str]) -> None:
        """Begin; there must be none. Raises DriverFault when it cannot."""
        self.forget()
        account = tools.account
        try:
            (self.directory / "run").mkdir(parents=True)
            self.directory.chmod(0o711)
            account.give(self.directory / "run")
            beside.write(self.directory / "purpose", json.dumps(dict(purpose)))
            lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                subprocess.Popen(  # none of our words is the shell's: they are its arguments
                    ["/bin/sh", "-c", _SCRIPT, "sh", *command],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd=self.directory / "run",
                    env=ENVIRONMENT,
                    pass_fds=(lock,),
                    start_new_session=True,
                    **account.spawning(),
                )
            finally:
                os.close(lock)
        except OSError as error:
            raise DriverFault(f"{command[0]} cannot be started ({error.strerror or error}).") from error

    async def wait(self, patience_s: float) -> bool:
        """Whether it has ended, after at most that long."""
        until = time.monotonic() + patience_s
        while self.alive:
            if time.monotonic() >= until:
                return False
            await asyncio.sleep(_LOOK_S)
        return True

    async def end(self, account: Account) -> None:
        """Kill it, and see it gone. Raises DriverFault when it does not go, on a hung disk."""
        until = time.monotonic() + _KILL_S
        while self.alive:
            self._kill(account)
            if time.monotonic() >= until:
                raise DriverFault(
                    f"{self.purpose.get('what', 'a job')} does not end when it is killed; is the disk hung?"
                )
            await asyncio.sleep(_LOOK_S)

    def _kill(self, account: Account) -> None:
        with suppress(OSError, ValueError):  # it has not come so far, or is just going
            pid = int(self._read("pid"))
            if pid > 1 and os.getsid(pid) == pid and Path(f"/proc/{pid}").stat().st_uid == account.uid:
                os.killpg(pid, signal.SIGKILL)

    def _read(self, name: str, *, end: bool = True) -> str:
        """The end, or the beginning, of a file that is not ours."""
        descriptor = os.open(self.directory / "run" / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if end:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return file.read(_TAIL_BYTES).decode(errors="replace")

    def forget(self) -> None:
        """Take away what is left of one that does not live."""
        if self.directory.exists():
            shutil.rmtree(self.directory)
