"""How a bug is planted, and taken out again; and whether anything ever ran into it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any


class Spade:
    """Replaces attributes of modules and classes, and puts them back."""

    def __init__(self) -> None:
        self._before: list[tuple[Any, str, Any]] = []
        self.calls: dict[str, int] = {}
        """How often each planted function was called: one that never is shows nothing, whatever is caught or not."""

    def plant(self, where: Any, name: str, make: Callable[[Any], Any]) -> None:
        """Put `make(real function)` in the place of the real function."""
        real = getattr(where, name)
        self._before.append((where, name, real))
        setattr(where, name, self.counted(f"{where.__name__}.{name}", make(real)))

    def plant_entry(self, where: Any, name: str, key: Any, make: Callable[[Any], Any]) -> None:
        """The same for one entry of a table of functions."""
        real = getattr(where, name)
        self._before.append((where, name, real))
        setattr(where, name, {**real, key: self.counted(f"{where.__name__}.{name}[{key}]", make(real[key]))})

    def counted(self, name: str, planted: Any) -> Any:
        """The planted function, its calls counted."""
        self.calls[name] = 0

        @wraps(planted)
        def call(*arguments: Any, **named: Any) -> Any:
            self.calls[name] += 1
            return planted(*arguments, **named)

        return call

    def undo(self) -> None:
        """Everything as it was."""
        while self._before:
            where, name, real = self._before.pop()
            setattr(where, name, real)


@dataclass(frozen=True, slots=True)
class Bug:
    """One planted bug: what somebody might have got wrong, and the patch that gets it wrong."""

    name: str
    plant: Callable[[Spade], None]
    theme: str
    """What the seeds are about that are made for it; empty: any seed will do."""

    @contextmanager
    def planted(self) -> Iterator[Spade]:
        """While this is entered the real code has the bug."""
        spade = Spade()
        self.plant(spade)
        try:
            yield spade
        finally:
            spade.undo()
