"""What services, groups, slots and nodes are called inside HAProxy, and back. Names only: no text, no commands.

A service's and a node's name has no dot, so what is made of them reads back without doubt.
"""

import re

from understudy.core.model import Group
from understudy.core.text import Name

EVENT_RING = "events"
"""The ring that server transitions are written to; followed by `show events`."""

SHARE_MAP = "backup_share.map"
"""The map file, below the layout's `maps`, that holds each service's backup share in percent."""

HOLD_SERVER = "0.hold"
"""The server of a cluster's backends that refuses every connection; no node's name begins with a digit."""

_BACKEND = re.compile(r"([A-Za-z][A-Za-z0-9_-]*)\.(primary|backup)")
_SERVER = re.compile(r"s([1-9][0-9]{0,5})")
_SEAT = re.compile(r"([A-Za-z][A-Za-z0-9_-]*)\.(?:writer|readers)/([A-Za-z][A-Za-z0-9_-]*)(?:\.last)?")


def frontend_name(service: Name) -> str:
    """The frontend of a service: `web`."""
    return str(service)


def backend_name(service: Name, group: Group) -> str:
    """The backend of one group of a service: `web.primary`."""
    return f"{service}.{group}"


def parse_backend(text: str) -> tuple[Name, Group] | None:
    """The service and group of a backend's name; None when the name is not one of ours."""
    match = _BACKEND.fullmatch(text)
    return (Name(match[1]), Group(match[2])) if match else None


def server_name(index: int) -> str:
    """The server in a slot; slots are counted from 0 and servers from 1: `s1` is slot 0."""
    return f"s{index + 1}"


def parse_server(text: str) -> int | None:
    """The slot of a server's name, counted from 0; None when the name is not one of ours."""
    match = _SERVER.fullmatch(text)
    return int(match[1]) - 1 if match else None


def write_frontend(cluster: Name) -> str:
    """Where the clients of a cluster who write come in: `orders.write`."""
    return f"{cluster}.write"


def read_frontend(cluster: Name) -> str:
    """Where those come in who only read: `orders.read`."""
    return f"{cluster}.read"


def write_backend(cluster: Name) -> str:
    """Every node once, named as it is, of which one at most is open: `orders.writer`."""
    return f"{cluster}.writer"


def read_backend(cluster: Name) -> str:
    """Every node twice, as a standby and as the last resort: `orders.readers`."""
    return f"{cluster}.readers"


def last_resort(node: str) -> str:
    """The server of a node that is read from as the primary, when there is no standby: `a.last`."""
    return f"{node}.last"


def find_seat(text: str) -> tuple[str, Name, Name] | None:
    """The first server of a cluster that is named in a line: as it stands there, its cluster, its node."""
    match = _SEAT.search(text)
    return (match[0], Name(match[1]), Name(match[2])) if match else None
