"""What understudy keeps beside a data directory: one directory of its own, named after it. Paths and small files only.

It is on the same filesystem as the data, so that a rename moves one in place of the other; that is why a data
directory that is a mount point is refused. Everything that is written here is flushed when the call returns. The
directory is the agent's, and the engine's user may only pass through it: a broken engine changes nothing in here.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from understudy.core.errors import Refused
from understudy.drivers.base import DriverFault
from understudy.drivers.postgres.tools import Account


@dataclass(frozen=True, slots=True)
class Beside:
    """The places."""

    data: Path
    """The data itself, symbolic links followed."""

    @property
    def root(self) -> Path:
        """Where all of it is."""
        return self.data.with_name(self.data.name + ".understudy")

    @property
    def run(self) -> Path:
        """The engine's user's own: socket, log, passwords."""
        return self.root / "run"

    @property
    def new(self) -> Path:
        """Data that is being made; nothing that is in here is relied upon."""
        return self.root / "new"

    @property
    def doomed(self) -> Path:
        """What is being removed."""
        return self.root / "doomed"

    @property
    def kept(self) -> Path:
        """Data directories that were replaced, each as it was."""
        return self.root / "kept"

    @property
    def lost(self) -> Path:
        """What rejoining undid: a report, and the WAL, for each time."""
        return self.root / "lost"

    @property
    def jobs(self) -> Path:
        """Programs that outlive the agent."""
        return self.root / "jobs"

    @property
    def own_files(self) -> Path:
        """The node's own configuration, while a rewind would overwrite it."""
        return self.root / "own"

    @property
    def whole(self) -> Path:
        """There when `new` is complete and ready to be put in place."""
        return self.root / "whole"

    @property
    def claim(self) -> Path:
        """Whose the data are (claim.py)."""
        return self.root / "claim"

    @property
    def unusable(self) -> Path:
        """There while the data in place must never be started."""
        return self.root / "unusable"


def of(data: Path) -> Beside:
    """The places of that data directory."""
    return Beside(Path(os.path.realpath(data)))


def prepare(places: Beside, account: Account) -> None:
    """Make what is missing. Raises Refused where the data could never be replaced."""
    if os.path.ismount(places.data):
        raise Refused(
            f"{places.data} is a mount point, and so cannot be replaced as a whole: "
            f"let the data be in a directory below it, such as {places.data}/data"
        )
    try:
        places.root.parent.mkdir(parents=True, exist_ok=True)
        for directory in (places.root, places.kept, places.lost, places.jobs):
            if not directory.is_dir():
                directory.mkdir()
                flush(directory.parent)
            directory.chmod(0o711)
        places.run.mkdir(mode=0o700, exist_ok=True)
        account.give(places.run)
    except OSError as error:
        raise Refused(
            f"{error.filename} cannot be made ({error.strerror}), and what belongs to the data in {places.data} must "
            f"be beside it: make {places.root.parent} writable for {account.name}"
        ) from error


def make_new(places: Beside, account: Account) -> Path:
    """An empty directory for new data, the user's."""
    clear(places, places.new)
    places.new.mkdir(mode=0o700)
    account.give(places.new)
    return places.new


def write(path: Path, text: str) -> None:
    """Put the text there, whole or not at all."""
    new = path.with_name(path.name + ".tmp")
    with new.open("w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    flush(path.parent)


def remove(path: Path) -> None:
    """Take a small file away."""
    if path.exists():
        path.unlink()
        flush(path.parent)


def move(path: Path, to: Path) -> None:
    """Rename, for good."""
    path.rename(to)
    flush(to.parent)
    flush(path.parent)


def clear(places: Beside, directory: Path) -> None:
    """Remove a whole directory: first its name, so that half of it is never taken for something."""
    _wipe(places.doomed)
    if directory.exists():
        move(directory, places.doomed)
        _wipe(places.doomed)


def flush(path: Path) -> None:
    """Have it on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def bytes_below(directory: Path) -> int:
    """How much a directory holds."""
    total = 0
    for folder, _, files in os.walk(directory):
        for file in files:
            try:
                total += os.lstat(os.path.join(folder, file)).st_size  # noqa: PTH118  millions of files: no objects for each
            except FileNotFoundError:
                continue
    return total


def free_bytes(directory: Path) -> int:
    """How much fits in there, for users who are not root."""
    try:
        room = os.statvfs(directory)
    except OSError as error:
        raise DriverFault(f"the room in {directory} cannot be told ({error.strerror}); is it there?") from error
    return room.f_bavail * room.f_frsize


def _wipe(directory: Path) -> None:
    if directory.exists():
        shutil.rmtree(directory)
