"""The state directory: everything that one agent owns on this host, and the lock that makes it the only one there.

Paths, modes and the lock live here; what is written into the files does not.
"""

import errno
import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from understudy.core.errors import Refused

OURS_ALONE = 0o700
TRAVERSE_ONLY = 0o711
"""For a directory that HAProxy's unprivileged worker must be able to pass through, though not to list."""


class StateDir:
    """A locked state directory; use it as a context manager. The lock falls with the process, however that ends.

    In it: `store.db` (the store of one machine), `run/` (supervised endpoints: logs and state), `router/` (HAProxy's),
    `data/` (engines' data whose path in the spec is relative), `guards/`, `SERVICE.pgpass` (how to enter a cluster),
    `cluster.key` and `spec.agreed` (joining.py), `lock`.
    Raises Refused when another agent holds it, or when it cannot be made or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock = -1

    @property
    def store(self) -> Path:
        """The file of a store that lives on this machine alone."""
        return self.path / "store.db"

    @property
    def run(self) -> Path:
        """Supervised endpoints: a log and a state file each."""
        return self.path / "run"

    @property
    def router(self) -> Path:
        """The router's own folder; router/layout.py says what is in it."""
        return self.path / "router"

    @property
    def key(self) -> Path:
        """The cluster's key, as it was last seen in the store."""
        return self.path / "cluster.key"

    @property
    def agreed(self) -> Path:
        """The spec that was last agreed on with the other agents."""
        return self.path / "spec.agreed"

    def data(self, path: str) -> Path:
        """Where an engine's data are, by their path in the spec."""
        return self.path / "data" / path

    def guard(self, service: str, node: str) -> Path:
        """The directory of a node's guard."""
        return self.path / "guards" / service / node

    def keep_password(self, service: str, user: str, password: str) -> None:
        """Write down how to enter a cluster, in the form that PostgreSQL's own programs read (PGPASSFILE)."""
        escaped = password.replace("\\", "\\\\").replace(":", "\\:")
        replace_private(self.path / f"{service}.pgpass", f"*:*:*:{user}:{escaped}\n")

    def open(self) -> Self:
        """Make what is missing and take the lock."""
        try:
            as_root = os.geteuid() == 0  # only then does HAProxy change its user, and has to pass through
            _make(self.path, TRAVERSE_ONLY if as_root else OURS_ALONE)
            self._lock = self._locked()
            _make(self.run, OURS_ALONE)
            _make(self.router, TRAVERSE_ONLY if as_root else OURS_ALONE)
            _make(self.path / "data", TRAVERSE_ONLY if as_root else OURS_ALONE)
            _make(self.path / "guards", OURS_ALONE)
        except OSError as fault:
            self.close()
            raise Refused(self._sentence(fault)) from None
        return self

    def close(self) -> None:
        """Let another agent have it."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _locked(self) -> int:
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(lock, 0)
            os.write(lock, f"{os.getpid()}\n".encode())
        except BlockingIOError:
            holder = os.read(lock, 32).decode(errors="replace").strip() or "of unknown number"
            os.close(lock)
            raise Refused(
                f"the state directory {self.path} is in use by process {holder}: stop that one, "
                "or choose another with --state-dir"
            ) from None
        except OSError:
            os.close(lock)
            raise
        return lock

    def _sentence(self, fault: OSError) -> str:
        cure = {
            errno.ENOSPC: "free some space on its disk",
            errno.EROFS: "its disk is read-only: choose another with --state-dir",
        }.get(fault.errno or 0, "make it writable for this user, or choose another with --state-dir")
        return f"the state directory {self.path} cannot be used ({fault.strerror}): {cure}"


def _make(directory: Path, mode: int) -> None:
    """Make a directory with that very mode; one that is there already keeps its own, for it may be somebody else's."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    if not directory.is_dir():
        directory.mkdir(mode=OURS_ALONE)
        directory.chmod(mode)


def replace_private(path: Path, text: str) -> None:
    """Replace the file as a whole; only its owner may read it."""
    new = path.with_name(path.name + ".new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
