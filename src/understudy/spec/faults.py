"""What is wrong with a file, and where: faults, their places, and the report that gathers them.

No rules of the spec live here; those are shape.py's (one field) and crosscheck.py's (several fields together).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from understudy.core.errors import Refused

Path = tuple[str | int, ...]
"""Steps from the top of the file: field names, and positions in lists counted from 0."""

MAX_FAULTS = 1000
"""More than this many help nobody; the rest is only counted."""

_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
_LONGEST_SHOWN = 60


@dataclass(frozen=True, slots=True)
class SpecFault:
    """One thing that is wrong: its line (from 1), its path, and a sentence that ends with what would be right."""

    line: int
    path: str
    text: str

    def __str__(self) -> str:
        """`line 12, services.web.endpoints[1].weight: …`."""
        return f"line {self.line}, {self.path}: {self.text}" if self.path else f"line {self.line}: {self.text}"


class SpecFaults(Refused):
    """The spec is refused; `faults` holds everything that is wrong with it, in the order of the file."""

    def __init__(self, faults: Iterable[SpecFault]) -> None:
        self.faults = tuple(faults)
        count = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        super().__init__("\n  ".join((f"the spec has {count}, so it is not used:", *map(str, self.faults))))


def in_words(path: Path) -> str:
    """`services.web.endpoints[1].weight`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step if _PLAIN.fullmatch(step) else shown(step)}"
    return text.removeprefix(".")


def shown(value: object) -> str:
    """A value of the file as it may stand in a sentence: short, on one line, printable."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return repr(value if len(value) <= _LONGEST_SHOWN else value[:_LONGEST_SHOWN] + "...")
    if isinstance(value, dict):
        return "a mapping"
    return "a list" if isinstance(value, list) else str(value)


class Report:
    """Gathers faults. A place that is known to be bad is settled: nothing more is said about it or what is below it."""

    def __init__(self) -> None:
        self.lines: dict[Path, int] = {(): 1}
        """The line of every place in the file, from 1."""
        self._faults: list[SpecFault] = []
        self._settled: set[Path] = set()
        self._more = 0

    def add(self, text: str, at: Path, *rests_on: Path, line: int | None = None) -> None:
        """Note a fault at a place; dropped when that place, or another one that it rests on, is settled."""
        if any(self._is_settled(path) for path in (at, *rests_on)):
            return
        if len(self._faults) >= MAX_FAULTS:
            self._more += 1
            return
        self._faults.append(SpecFault(line or self.line_of(at), in_words(at), text))

    def settle(self, path: Path) -> None:
        """Nothing more is to be said about this place."""
        self._settled.add(path)

    def line_of(self, path: Path) -> int:
        """The line of a place, or of the nearest one above it that the file has."""
        return next(self.lines[path[:length]] for length in range(len(path), -1, -1) if path[:length] in self.lines)

    def stop(self, text: str, line: int) -> SpecFaults:
        """What to raise when reading cannot go on after this last fault."""
        self._faults.append(SpecFault(line, "", text))
        return self.all()

    def raise_any(self) -> None:
        """Raise SpecFaults when there is a fault."""
        if self._faults:
            raise self.all()

    def all(self, more: int = 0) -> SpecFaults:
        """What to raise: everything noted so far, in the order of the file, and how many more were only counted."""
        faults = sorted(self._faults, key=lambda fault: fault.line)
        if self._more + more:
            faults.append(SpecFault(faults[-1].line, "", f"{self._more + more} further faults: mend these first"))
        return SpecFaults(faults)

    def _is_settled(self, path: Path) -> bool:
        return any(path[:length] in self._settled for length in range(len(path) + 1))
