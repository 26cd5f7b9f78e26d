"""The durable mark of a fenced node: one line on its disk, which says that it stays closed, reboots included.

The guard never comes here (it does no disk I/O); the agent writes the mark once death is verified, and clears it when
the node has rejoined. A mark that cannot be read means closed.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

_LINE = re.compile(r"fenced at epoch ([0-9]{1,18})\n")


@dataclass(frozen=True, slots=True)
class Mark:
    """The node is closed."""

    epoch: int | None
    """Under which epoch; None when the mark is there and cannot be read."""
    reason: str


def read(path: Path) -> Mark | None:
    """The node's mark; None only when there certainly is none."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        return Mark(None, f"the mark {path} cannot be read ({error}), so the node counts as fenced")
    line = _LINE.fullmatch(text)
    if line is None:
        return Mark(None, f"the mark {path} is damaged, so the node counts as fenced")
    return Mark(int(line[1]), f"the node was fenced at epoch {line[1]}")


def write(path: Path, epoch: int) -> None:
    """Close the node durably; once this returns, the mark outlives a power cut. OSError when the disk says no.

    A higher epoch that is there already stays.
    """
    known = read(path)
    if known is not None and known.epoch is not None and known.epoch >= epoch:
        return
    new = path.with_name(path.name + ".new")
    with new.open("w") as file:
        file.write(f"fenced at epoch {epoch}\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    _sync_directory(path)


def clear(path: Path) -> None:
    """Open the node again, durably."""
    path.unlink(missing_ok=True)
    _sync_directory(path)


def _sync_directory(path: Path) -> None:
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
