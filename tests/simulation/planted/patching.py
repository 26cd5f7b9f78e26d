"""How a bug is planted, and taken out again."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


class Spade:
    """Replaces attributes of modules and classes, and puts them back."""

    def __init__(self) -> None:
        self._before: list[tuple[Any, str, Any]] = []

    def plant(self, where: Any, name: str, make: Callable[[Any], Any]) -> None:
        """Put `make(real thing)` in the place of the real thing."""
        real = getattr(where, name)
        self._before.append((where, name, real))
        setattr(where, name, make(real))

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

    @contextmanager
    def planted(self) -> Iterator[None]:
        """While this is entered the real code has the bug."""
        spade = Spade()
        self.plant(spade)
        try:
            yield
        finally:
            spade.undo()
