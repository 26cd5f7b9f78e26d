"""What tests of a cluster's ports share: nodes that say who they are, an agent that answers for them, clients."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Self

from tests.routing import HOST, free_ports

from understudy.core.cluster_route import Route
from understudy.core.routes import ClusterPorts, RouterState, Seat
from understudy.core.text import Address, Name

ORDERS, A, B, C = Name("orders"), Name("a"), Name("b"), Name("c")


@dataclass
class Node:
    """A server that greets with its name, then echoes."""

    name: Name
    port: int
    greeted: int = 0
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, HOST, self.port)

    def stop(self) -> None:
        """Like a killed engine: connections are gone, new ones are refused."""
        if self._server is not None:
            self._server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.greeted += 1
        writer.write(f"{self.name}\n".encode())
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        self._writers.discard(writer)
        writer.close()


@dataclass
class Roles:
    """The listener of a host's agent: what it answers to each `NODE ROLE` ("up" where nothing else is said)."""

    port: int
    answers: dict[str, str] = field(default_factory=dict)
    asked: int = 0
    _server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._answer, HOST, self.port)

    def stop(self) -> None:
        """Like a killed agent."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            if question := (await reader.readline()).decode():  # HAProxy may have given up
                word, _cluster, node, role = question.split()
                assert word == "role"
                writer.write((self.answers.get(f"{node} {role}", "up") + "\n").encode())
                self.asked += 1
        writer.close()


class Client:
    """One session."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, node: str) -> None:
        self.reader, self.writer, self.node = reader, writer, node

    @classmethod
    async def enter(cls, address: Address) -> Self:
        """Connect, and wait until a node greets; `node` is empty when nobody ever did."""
        reader, writer = await asyncio.open_connection(address.host, address.port)
        greeting = b""
        with contextlib.suppress(OSError):
            greeting = await reader.readline()
        return cls(reader, writer, greeting.decode().strip())

    async def works(self) -> bool:
        """Whether the session still carries data both ways."""
        try:
            self.writer.write(b"x\n")
            return await asyncio.wait_for(self.reader.readline(), 20) == b"x\n"
        except OSError:
            return False

    async def is_cut(self) -> bool:
        """Whether the session has been ended; waits for it."""
        try:
            return await asyncio.wait_for(self.reader.read(1), 20) == b""
        except TimeoutError:
            return False
        except OSError:
            return True

    def leave(self) -> None:
        self.writer.close()


@dataclass
class Cluster:
    """Three nodes, their agent, and the ports that lead to them."""

    nodes: dict[Name, Node]
    roles: Roles
    ports: ClusterPorts

    @property
    def state(self) -> RouterState:
        """What the router is to be."""
        return RouterState(Name("test"), (), clusters=(self.ports,))

    async def writer(self) -> Client:
        """A client on the port for writing."""
        return await Client.enter(self.ports.write)

    async def reader(self) -> Client:
        """A client on the port for reading."""
        assert self.ports.read
        return await Client.enter(self.ports.read)


def route(epoch: int, write: Name | None, *reads: Name) -> Route:
    """A route."""
    return Route(epoch, write, reads)


@contextlib.asynccontextmanager
async def three_nodes(hold_ms: int = 10_000) -> AsyncIterator[Cluster]:
    """Started servers, ended whatever happens."""
    write, read, agent, *ports = free_ports(6)
    nodes = {name: Node(name, port) for name, port in zip((A, B, C), ports, strict=True)}
    listener = Address(HOST, agent)
    seats = tuple(Seat(node.name, Address(HOST, node.port), listener) for node in nodes.values())
    cluster = Cluster(
        nodes, Roles(agent), ClusterPorts(ORDERS, Address(HOST, write), Address(HOST, read), seats, hold_ms)
    )
    try:
        await cluster.roles.start()
        for node in nodes.values():
            await node.start()
        yield cluster
    finally:
        cluster.roles.stop()
        for node in nodes.values():
            node.stop()
