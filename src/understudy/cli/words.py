"""Figures and facts in words, as every verb shows them. Pure; no terminal, no colours."""

import time

from understudy.control.view import JournalEntry
from understudy.core.text import Address


def duration(seconds: float) -> str:
    """A length of time, to two figures that matter: `0.35 s`, `93 s`, `17 min`, `5.2 h`, `12 d`."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    for limit_s, unit_s, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit_s:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def number(value: float) -> str:
    """A whole number with thin groups: `12 345`."""
    return f"{value:,}".replace(",", " ")


def counted(count: int, thing: str) -> str:
    """`1 session`, `2 sessions`."""
    return f"{number(count)} {thing}" if count == 1 else f"{number(count)} {thing}s"


def moment(wall_s: float, *, date: bool = True) -> str:
    """A moment in local time, to the millisecond: `2026-11-23 05:11:05.123`."""
    text = time.strftime("%Y-%m-%d %H:%M:%S" if date else "%H:%M:%S", time.localtime(wall_s))
    return f"{text}.{int(wall_s % 1 * 1000):03d}"


def plain(text: str) -> str:
    """Text that came from outside, on one line and with nothing in it that a terminal would obey."""
    return "".join(each if each.isprintable() else " " for each in text)


def journal_line(entry: JournalEntry, *, date: bool = True) -> str:
    """An entry of the journal on one line."""
    return f"{moment(entry.wall_s, date=date)}  {entry.kind:<19} {plain(entry.reason)}"


def url(listen: str, scheme: str = "http") -> str:
    """Where to reach a listener from this host: `0.0.0.0:8080` becomes `http://127.0.0.1:8080`."""
    return f"{scheme}://{dialled(listen)}"


def dialled(listen: str, router: str = "") -> str:
    """What to dial for a listener of the host with that address; of this host, if none is given."""
    address = Address.parse(listen)
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    return str(Address(router or here[address.host], address.port)) if address.host in here else listen
