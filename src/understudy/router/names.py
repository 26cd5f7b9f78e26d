"""What services, groups and slots are called inside HAProxy, and back. Names only; no configuration, no commands.

A service's name has no dot, so a backend's name reads back without doubt.
"""

import re

from understudy.core.model import Group
from understudy.core.text import Name

EVENT_RING = "events"
"""The ring that server transitions are written to; followed by `show events`."""

SHARE_MAP = "backup_share.map"
"""The map file, below the layout's `maps`, that holds each service's backup share in percent."""

_BACKEND = re.compile(r"([A-Za-z][A-Za-z0-9_-]*)\.(primary|backup)")
_SERVER = re.compile(r"s([1-9][0-9]{0,5})")


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
