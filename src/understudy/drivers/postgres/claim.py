"""Whose a data directory is: one node of one cluster, for good, and one agent's at a time.

It is a small file beside the data with the node's full name, and a lock on it that falls with the agent. Two specs, or
two state directories, that name one directory are found out by it before either touches the other's data.
"""

import fcntl
import os
from pathlib import Path

from understudy.core.errors import Refused
from understudy.drivers.postgres import beside
from understudy.drivers.postgres.beside import Beside
from understudy.drivers.postgres.tools import Account


class Claim:
    """The claim of one node on its data. whose: what it is called, with cluster and service."""

    def __init__(self, data: Path, whose: str, account: Account) -> None:
        self._places: Beside = beside.of(data)
        self._whose = whose
        self._account = account
        self._lock = -1

    def fault(self) -> str:
        """Why the data are not to be had; empty when they are. Changes nothing."""
        path = self._places.claim
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return ""
        except OSError as error:
            return f"{path} cannot be read ({error.strerror}): see to its disk"
        try:
            return self._of_another(file) or self._in_use(file)
        finally:
            os.close(file)

    def held(self) -> bool:
        """Whether an agent has taken it before, for whichever node."""
        return self._places.claim.exists()

    def take(self) -> None:
        """Have it, until `close`. Raises Refused when it is not to be had."""
        if self._lock >= 0:
            return
        beside.prepare(self._places, self._account)
        path = self._places.claim
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self._hold(file)
            except BaseException:
                os.close(file)  # and with it the lock
                raise
        except OSError as error:
            raise Refused(f"{path} cannot be written ({error.strerror}): see to its disk") from error
        self._lock = file

    def _hold(self, file: int) -> None:
        fault = self._of_another(file) or self._in_use(file)
        if fault:
            raise Refused(fault)
        if not os.fstat(file).st_size:
            os.write(file, self._whose.encode())
            os.fsync(file)
            beside.flush(self._places.claim.parent)

    def close(self) -> None:
        """Let another agent have it, for the same node."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def give_up(self) -> None:
        """Let any node have it: this one has left its cluster."""
        self._places.claim.unlink(missing_ok=True)
        self.close()

    def _of_another(self, file: int) -> str:
        owner = os.pread(file, 4096, 0).decode(errors="replace")
        if owner in {"", self._whose}:
            return ""
        return (
            f"{self._places.data} is the data directory of {owner}, and this spec gives it to {self._whose}: "
            f"name another directory, or remove {self._places.claim} if {owner} is no more"
        )

    def _in_use(self, file: int) -> str:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return (
                f"{self._places.data} is in the care of another agent, which was started with another state directory: "
                "name another directory, or stop that agent"
            )
        return ""
