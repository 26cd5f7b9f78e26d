"""Quantities with units: durations, sizes and shares, from text and back."""

import re

SECOND_MS = 1000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

_UNITS_MS = {"d": DAY_MS, "h": HOUR_MS, "m": MINUTE_MS, "s": SECOND_MS, "ms": 1}

_UNITS_BYTES = {"TiB": 2**40, "GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "B": 1}

DURATION = re.compile(r"(0|[1-9][0-9]{0,8})(ms|s|m|h|d)")
SIZE = re.compile(r"(0|[1-9][0-9]{0,12})(B|KiB|MiB|GiB|TiB)")
SHARE = re.compile(r"(0|[1-9][0-9]?|100)%")


def duration_ms(text: str) -> int | None:
    """Milliseconds of `500ms`, `4s`, `1m`, `2h`, `1d`; None when it is no duration."""
    match = DURATION.fullmatch(text)
    return int(match[1]) * _UNITS_MS[match[2]] if match else None


def duration(value_ms: int) -> str:
    """The shortest way to write it."""
    if value_ms == 0:
        return "0s"
    unit, unit_ms = next((unit, unit_ms) for unit, unit_ms in _UNITS_MS.items() if value_ms % unit_ms == 0)
    return f"{value_ms // unit_ms}{unit}"


def size_bytes(text: str) -> int | None:
    """Bytes of `512B`, `64KiB`, `1MiB`, `2GiB`, `1TiB`; None when it is no size."""
    match = SIZE.fullmatch(text)
    return int(match[1]) * _UNITS_BYTES[match[2]] if match else None


def size(value_bytes: int) -> str:
    """The shortest way to write it."""
    if value_bytes == 0:
        return "0B"
    unit, unit_bytes = next((unit, many) for unit, many in _UNITS_BYTES.items() if value_bytes % many == 0)
    return f"{value_bytes // unit_bytes}{unit}"


def share_percent(text: str) -> int | None:
    """The number in `34%`; None when it is no share from 0% to 100%."""
    match = SHARE.fullmatch(text)
    return int(match[1]) if match else None
