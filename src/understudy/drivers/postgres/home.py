"""One node's data and what it takes to make or mend it; and the node that it is made from. Values, no procedure."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from understudy.core.text import Name
from understudy.drivers.base import DriverFault
from understudy.drivers.postgres import beside
from understudy.drivers.postgres.beside import Beside
from understudy.drivers.postgres.tools import Tools

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Source:
    """A node to copy, or to rewind to."""

    name: Name
    conninfo: str
    """For the programs: with `passfile=` instead of a password, and that file readable by the engine's user."""
    ask: Callable[[str], Awaitable[Sequence[tuple[Any, ...]]]]
    """One statement of SQL, as superuser, in a transaction of its own. Raises DriverFault."""


@dataclass(frozen=True, slots=True)
class Home:
    """A node of our own."""

    node: Name
    data: Path
    tools: Tools
    configure: Callable[[Path], None]
    """Write all that understudy owns of a node's configuration into that data directory, flushed. On a thread."""
    config_file: Path | None = None
    """The engine's main configuration, where that is not in the data directory."""
    _disk: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "postgres-files"))
    """One thread: a hung disk holds up nothing else, and what a cancelled call left unfinished ends before the next."""

    @property
    def places(self) -> Beside:
        """What is beside the data."""
        return beside.of(self.data)

    async def on_disk(self, work: Callable[[], T]) -> T:
        """Do that with files, after whatever was to be done before. Raises DriverFault when the disk does not do it."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._disk, work)
        except OSError as error:
            raise DriverFault(f"The disk of {self.node} does not do what it should ({error}).") from error
