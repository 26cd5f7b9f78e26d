"""Small files in directories that belong to the engine's user, written and read by an agent that may be root.

Whoever has taken over the engine could put links there, for root to follow. So nothing here follows one when it writes,
and what is read must be the engine's user's own.
"""

import os
from pathlib import Path

from understudy.drivers.base import DriverFault
from understudy.drivers.postgres.tools import Account

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def put(path: Path, text: str, account: Account, *, flush: bool) -> None:
    """Replace the file, for the engine's user alone to read. Raises OSError."""
    new = path.with_name(path.name + ".tmp")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, _NEW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        if os.geteuid() == 0:
            os.fchown(descriptor, account.uid, account.gid)
        file.write(text)
        file.flush()
        if flush:
            os.fsync(descriptor)
    new.replace(path)


def make(path: Path, account: Account) -> bool:
    """Have an empty file of that name; whether it had to be made. Raises OSError."""
    if os.path.lexists(path):
        return False
    put(path, "", account, flush=False)
    return True


def read(path: Path, account: Account) -> str:
    """What is in the file; nothing, where there is none. Raises OSError; DriverFault when it is somebody else's."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    with os.fdopen(descriptor, encoding="utf-8", errors="replace") as file:
        if os.fstat(descriptor).st_uid != account.uid:
            raise DriverFault(f"{path} is not {account.name}'s own file: give it to {account.name}.")
        return file.read()
