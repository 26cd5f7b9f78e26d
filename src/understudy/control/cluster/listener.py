"""The agent's own port: answers role checks and promises, one line each (line.py), and asks other agents for promises.

The one thing by which agents speak without the store. Nothing is decided here: who promises is tenure.py's.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Protocol

import structlog

from understudy.control.cluster import line
from understudy.control.cluster.ports import PromiseRequest
from understudy.core.cluster import Node
from understudy.core.errors import Fault, Refused
from understudy.core.text import Address, Name

READ_S = 2.0
"""How long a caller may take to say its line."""
ROLE_WORDS = {True: b"up\n", False: b"down\n", None: b""}
"""HAProxy's words for an agent-check; where nothing is said, it leaves the server as it is."""


class Answering(Protocol):
    """Who knows."""

    def may_serve(self, cluster: str, node: str, role: str) -> bool | None:
        """Whether the node may be sent what that role is for, now; None when that is not known yet."""
        ...

    async def promise(self, node: str, request: PromiseRequest) -> bool:
        """Whether that node of ours promises."""
        ...


@asynccontextmanager
async def listening(address: Address, answering: Answering, key: bytes) -> AsyncIterator[None]:
    """Answer on that address for as long as the block lasts. Fault when it cannot be had."""
    callers: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            callers.add(task)
            task.add_done_callback(callers.discard)
        try:
            said = await asyncio.wait_for(reader.readline(), READ_S)
            writer.write(await _answer(said, answering, key))
            await asyncio.wait_for(writer.drain(), READ_S)
        except (OSError, ValueError, TimeoutError):
            pass  # it went away, or said nothing that is a line
        finally:
            writer.close()

    try:
        server = await asyncio.start_server(serve, address.host, address.port, limit=line.LONGEST_BYTES)
    except OSError as failure:
        raise Fault(
            f"the agent cannot listen on {address} ({failure.strerror or failure}): "
            "free that port, or set `agent_port:` in the spec to another"
        ) from failure
    try:
        yield
    finally:
        server.close()
        for task in list(callers):
            task.cancel()
        await asyncio.gather(*callers, return_exceptions=True)


async def _answer(said: bytes, answering: Answering, key: bytes) -> bytes:
    try:
        request = line.read(said, key)
        if isinstance(request, line.RoleCheck):
            return ROLE_WORDS[answering.may_serve(request.cluster, request.node, request.role)]
        promised = await answering.promise(request.node, request.request)
        return line.answer(line.Granted(request.node, request.nonce, promised), key)
    except Refused as refusal:
        structlog.get_logger().warning(f"A request from another program was refused: {refusal}.")
        return b"\n"


class AgentTransport:
    """Fulfils the port `Transport` over the other agents' ports."""

    def __init__(self, addresses: Mapping[Name, Address], key: bytes) -> None:
        self.addresses = addresses
        """Of each host's agent."""
        self._key = key

    async def ask(self, node: Node, request: PromiseRequest) -> bool:
        """Whether that node's agent promised. Raises Fault when it does not answer; the caller bounds the time."""
        address = self.addresses.get(node.host)
        if address is None:
            raise Fault(f"the host {node.host} of {node.name} is not in the spec")
        asked = line.Asked(node.name, secrets.token_hex(16), request)
        try:
            reader, writer = await asyncio.open_connection(address.host, address.port, limit=line.LONGEST_BYTES)
            try:
                writer.write(line.question(asked, self._key))
                await writer.drain()
                return line.granted(await reader.readline(), asked, self._key)
            finally:
                writer.close()
        except (OSError, ValueError) as failure:
            raise Fault(f"the agent at {address} does not answer ({failure})") from failure
