"""Numbers and lists as they stand in a sentence. Nothing of what they mean."""

from collections.abc import Sequence


def span(seconds: float) -> str:
    """`0.4 s`, `12 s`, `2 min 5 s`, `3 h`: a length of time as a person says it."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f}".removesuffix(".0") + " s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    big, small, words = (whole // 60, whole % 60, ("min", "s")) if whole < 7200 else (whole // 3600, 0, ("h", ""))
    return f"{big} {words[0]}" + (f" {small} {words[1]}" if small else "")


def count(number: int, noun: str) -> str:
    """`1 endpoint`, `3 endpoints`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listed(parts: Sequence[str], most: int = 5) -> str:
    """`a, b and c`; what is beyond `most` is counted: `a, b and 3 more`."""
    shown = list(parts[:most])
    if len(parts) > most:
        shown.append(f"{len(parts) - most} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}" if shown else "none"
