"""Remembers the last result of a pure function by key, as long as it is asked with the very same (frozen) values.

Comparing identities costs nothing, so a thousand unchanged services cost next to nothing; no more lives here.
"""

from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


class Memo:
    """One remembered result a key; asking for a key with other values replaces it. A cleared memo only costs time."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[str, tuple[tuple[object, ...], object]] = {}

    def get(self, key: str, function: Callable[..., Result], *values: object) -> Result:
        """`function(*values)`, or what it gave when this key was last asked with the same objects."""
        kept = self._kept.get(key)
        if kept is not None and all(map(_same, kept[0], values)):
            return kept[1]  # type: ignore[return-value]  # the key's function is always the same
        result = function(*values)
        self._kept[key] = (values, result)
        return result

    def forget_others(self, keys: set[str]) -> None:
        """Drop the results of all other keys."""
        if len(self._kept) > len(keys):
            self._kept = {key: kept for key, kept in self._kept.items() if key in keys}


def _same(one: object, other: object) -> bool:
    return one is other
