"""Reports that only say "still so": the same bytes with a higher counter, so that nobody encodes or decodes them anew.

Knows one thing of the codec: names are sorted, so the first `"counter":` of a report or a router's word is its own.
"""

from dataclasses import dataclass

from understudy.core.text import Name

_FIRST = b'"counter":0,'
_NAME = b'"counter":'


@dataclass(frozen=True, slots=True)
class RouterWord:
    """What a host's router says: up to which epoch it has followed."""

    counter: int
    epoch: int
    host: Name


def beat(encoded: bytes, counter: int) -> bytes:
    """The bytes of a value that was encoded with counter 0, with this counter."""
    return encoded.replace(_FIRST, b'"counter":%d,' % counter, 1)


def counter(data: bytes) -> int:
    """The counter of what `content` found to have one."""
    start = data.index(_NAME) + len(_NAME)
    return int(data[start : data.index(b",", start)])


def content(data: bytes | None) -> bytes | None:
    """All of it but the counter: equal when nothing but time has passed."""
    if data is None:
        return None
    start = data.find(_NAME)
    return data if start < 0 else data[:start] + data[data.find(b",", start) :]
