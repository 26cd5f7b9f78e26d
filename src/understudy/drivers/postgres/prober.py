"""Asking another host's PostgreSQL whether it answers, as a steward does: fulfils the port `Prober`. Needs no password.

An accepted connection says nothing: the kernel accepts for a stopped postmaster. So a session is begun, which a process
that the postmaster has just started answers by asking for a password; that is answer enough, and we go.
"""

import asyncio
import struct
from contextlib import suppress

from understudy.core.cluster import Node
from understudy.core.stateful import PostgresService
from understudy.core.text import Address, Name
from understudy.drivers.postgres import settings

_DEADLINE_S = 0.5
_PROTOCOL = 3 << 16
_HEAD = struct.Struct(">cI")
_LONGEST = 10_000
_NOT_NOW = "57P"
"""The class of SQLSTATE with which it says that it is starting up, or going down."""


class PostgresProber:
    """For the nodes of one cluster, from this host."""

    def __init__(self, service: PostgresService) -> None:
        self._addresses: dict[Name, Address] = {}
        self.change(service)

    def change(self, service: PostgresService) -> None:
        """The service is another now: nodes have come or gone."""
        self._addresses = {node.name: node.address for node in service.nodes}

    async def answers(self, node: Node) -> bool:
        """Whether it takes sessions: it asks who we are, or says that it does not want us."""
        address = self._addresses.get(node.name)
        if address is None:
            return False
        try:
            async with asyncio.timeout(_DEADLINE_S):
                reader, writer = await asyncio.open_connection(address.host, address.port)
                try:
                    writer.write(_greeting())
                    kind, length = _HEAD.unpack(await reader.readexactly(_HEAD.size))
                    text = await reader.readexactly(min(length - 4, _LONGEST))
                finally:
                    writer.close()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, struct.error):
            return False
        return kind == b"R" or (kind == b"E" and not _state(text).startswith(_NOT_NOW))


def _greeting() -> bytes:
    words = {"user": settings.ROLE, "database": "postgres", "application_name": "understudy probe"}
    body = b"".join(f"{key}\0{value}\0".encode() for key, value in words.items()) + b"\0"
    return struct.pack(">II", len(body) + 8, _PROTOCOL) + body


def _state(text: bytes) -> str:
    """The SQLSTATE in what an error message says."""
    with suppress(UnicodeDecodeError):
        for field in text.split(b"\0"):
            if field.startswith(b"C"):
                return field[1:].decode("ascii")
    return ""
