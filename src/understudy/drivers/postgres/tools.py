"""Running PostgreSQL's own programs, as the engine's user and never as root. What they are run for is not known here.

RULES: every run has a deadline, and ends with whoever waits for it; what must outlive us is a job (job.py). The
environment is ours: English sentences, UTC, and nothing of the agent's. No secret is ever in an argument.
"""

import asyncio
import os
import pwd
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from understudy.core.errors import Refused
from understudy.drivers.base import DriverFault

_NOWHERE = "/nonexistent"
"""libpq looks for certificates at home, and gives up where it may not read: root's home, for one."""
ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath, "HOME": _NOWHERE}

_COMPLAINTS = (": error: ", "PANIC:", "FATAL:", "ERROR:")


@dataclass(frozen=True, slots=True)
class Account:
    """The user of the operating system whom the engine runs as, and whose the data is."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...] = ()

    @classmethod
    def named(cls, name: str) -> Self:
        """That user, as the system knows it. Raises Refused for one that is not there, and for root."""
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            raise Refused(
                f"there is no user {name!r} on this machine to run PostgreSQL as: install PostgreSQL, which makes one"
            ) from None
        return cls._of(entry)

    @classmethod
    def own(cls) -> Self:
        """Whoever runs this process. Raises Refused when it is root."""
        return cls._of(pwd.getpwuid(os.geteuid()))

    @classmethod
    def _of(cls, entry: pwd.struct_passwd) -> Self:
        if entry.pw_uid == 0:
            raise Refused("PostgreSQL does not run as root: name another user to run it as")
        groups = tuple(sorted(set(os.getgrouplist(entry.pw_name, entry.pw_gid))))
        return cls(entry.pw_name, entry.pw_uid, entry.pw_gid, groups)

    def spawning(self) -> dict[str, Any]:
        """What makes a subprocess run as this user. Only root may become somebody else."""
        if os.geteuid() != 0:
            return {"umask": 0o077}
        return {"user": self.uid, "group": self.gid, "extra_groups": self.groups, "umask": 0o077}

    def give(self, path: Path) -> None:
        """Make it this user's."""
        if os.geteuid() == 0:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)


@dataclass(frozen=True, slots=True)
class Ran:
    """How a program ended."""

    code: int
    out: str
    err: str

    @property
    def last_words(self) -> str:
        """The last line it complained with, for a sentence."""
        return last_words(self.err) or f"it ended with {self.code}"


@dataclass(frozen=True, slots=True)
class Tools:
    """The programs of one major version, and whom they run as."""

    programs: Path
    """The directory that they are in."""
    account: Account

    def path(self, program: str) -> str:
        """Where it is."""
        return str(self.programs / program)

    async def run(self, program: str, *words: str, deadline_s: float, directory: Path | None = None) -> Ran:
        """Run it to its end. Raises DriverFault when it cannot be started, or has not ended in time."""
        try:
            process = await asyncio.create_subprocess_exec(
                self.path(program),
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=directory or "/",
                env=ENVIRONMENT,
                start_new_session=True,
                **self.account.spawning(),
            )
        except OSError as error:
            raise DriverFault(f"{program} cannot be started ({error.strerror}); is PostgreSQL installed?") from error
        try:
            async with asyncio.timeout(deadline_s):
                out, err = await process.communicate()
        except TimeoutError:
            raise DriverFault(
                f"{program} did not end within {deadline_s:.0f} s; is the disk or the load ill?"
            ) from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        return Ran(process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace"))


def last_words(text: str) -> str:
    """What a program complained of at last: the line that says error, or else its last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for mark in _COMPLAINTS:
        said = [line.partition(mark)[2].strip() for line in lines if mark in line]
        if said:
            return said[-1]
    return lines[-1] if lines else ""
