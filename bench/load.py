"""An open-loop HTTP client: sends on schedule whatever the answers do, so that no outage hides behind a waiting client.

Connections are kept and used in turn, so that idle ones are met too. A request is never sent twice. Latency counts from
the moment the request was due, so a late client would show as slow answers, not as fewer of them.
"""

import asyncio
import time
from asyncio import Transport
from collections import deque
from dataclasses import dataclass, field

GET = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Sent:
    """One request: when it was due (seconds after the start), how long it took, and what went wrong (None: nothing)."""

    post: bool
    due_s: float
    took_s: float
    fault: str | None


@dataclass(slots=True)
class Plan:
    """What to send: `rate` GETs a second, and one POST after every `gets_per_post` of them; 0 means no POSTs.

    `connections` are opened before the first request; more are when all are busy.
    """

    rate: float
    length_s: float
    deadline_s: float = 3.0
    gets_per_post: int = 0
    connections: int = 0
    post_prefix: str = "p"


@dataclass(slots=True)
class Load:
    """What came of a plan. `stall_s` is the longest time that the client itself ran late: the machine's noise."""

    sent: list[Sent] = field(default_factory=list)
    stall_s: float = 0.0
    connects: int = 0


class _Connection(asyncio.Protocol):
    """One connection to the proxy; at most one request at a time on it."""

    def __init__(self) -> None:
        self.transport: Transport
        self.answer: asyncio.Future[str | None] | None = None
        self.received = b""
        self.open = True

    def connection_made(self, transport: Transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.received[:end].lower()
        _, _, length = head.partition(b"\r\ncontent-length:")
        size = int(length.split(b"\r\n", 1)[0]) if length else 0
        if len(self.received) < end + 4 + size:
            return
        if b"\r\nconnection: close" in head or head.startswith(b"http/1.0"):
            self.open = False
        status = head[9:12].decode()
        self._finish(None if status == "200" else f"status {status}")

    def connection_lost(self, _fault: Exception | None) -> None:
        self.open = False
        self._finish("connection closed")

    async def ask(self, request: bytes) -> str | None:
        """Send and wait; the fault in words, None when all was well."""
        self.received = b""
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self.answer

    def _finish(self, fault: str | None) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(fault)


class Client:
    """Sends a plan to one address."""

    def __init__(self, address: str, port: int) -> None:
        self._address = address
        self._port = port
        self._idle: deque[_Connection] = deque()
        self.load = Load()

    async def run(self, plan: Plan, start_s: float | None = None) -> Load:
        """Send the whole plan from `start_s` (monotonic clock) on, wait for the last answer, and close."""
        self._idle.extend([await self._connect() for _ in range(plan.connections)])
        start_s = time.monotonic() if start_s is None else start_s
        tasks: list[asyncio.Task[None]] = []
        for number in range(round(plan.rate * plan.length_s)):
            due_s = number / plan.rate
            late_s = time.monotonic() - start_s - due_s
            self.load.stall_s = max(self.load.stall_s, late_s)
            if late_s < 0:
                await asyncio.sleep(-late_s)
            tasks.append(asyncio.create_task(self._send(GET, start_s, due_s, plan, post=False)))
            if plan.gets_per_post and number % plan.gets_per_post == 0:
                body = f"{plan.post_prefix}-{number}".encode()
                request = b"POST / HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
                tasks.append(asyncio.create_task(self._send(request, start_s, due_s, plan, post=True)))
        await asyncio.gather(*tasks)
        for connection in self._idle:
            connection.transport.abort()
        return self.load

    async def _send(self, request: bytes, start_s: float, due_s: float, plan: Plan, *, post: bool) -> None:
        due_at_s = start_s + due_s
        try:
            async with asyncio.timeout(due_at_s + plan.deadline_s - time.monotonic()):
                fault = await self._ask(request)
        except TimeoutError:
            fault = "deadline"
        except OSError as refused:
            fault = refused.strerror or str(refused)
        self.load.sent.append(Sent(post, due_s, time.monotonic() - due_at_s, fault))

    async def _ask(self, request: bytes) -> str | None:
        connection = await self._connection()
        try:
            fault = await connection.ask(request)
        except asyncio.CancelledError:
            connection.transport.abort()
            raise
        if connection.open:
            self._idle.append(connection)
        else:
            connection.transport.abort()
        return fault

    async def _connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.popleft()
            if connection.open:
                return connection
        return await self._connect()

    async def _connect(self) -> _Connection:
        self.load.connects += 1
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, self._address, self._port)
        return connection


def quantile(values: list[float], share: float) -> float:
    """The value below which that share of the values lies; 0 when there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
