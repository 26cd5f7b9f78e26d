"""What the router's tests share: free ports, small servers that can misbehave, desired states, clients that count."""

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.ports import free_port

from understudy.core.model import Balance, Endpoint, Group, HealthPolicy, Kind, PoolService, Spec
from understudy.core.pools import Admin, PoolRecord
from understudy.core.routes import RouterState, allocate, compile_routes
from understudy.core.text import Address, Name
from understudy.router.haproxy import HAProxyRouter
from understudy.router.layout import Layout

HOST = f"127.{1 + os.getpid() // 250 % 250}.{1 + os.getpid() % 250}.1"
"""A loopback address of this process's own, where no other test run and no client's port can be in the way."""

CHECKS = HealthPolicy(interval_ms=100, timeout_ms=90, fall=2, rise=2, slow_start_ms=0)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at this moment, all different."""
    return [free_port(HOST) for _ in range(count)]


@contextlib.contextmanager
def short_directory() -> Iterator[Path]:
    """A directory whose path leaves room for a unix socket."""
    path = Path(tempfile.mkdtemp(prefix="us-"))
    path.chmod(0o711)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@dataclass
class Backend:
    """A server that answers HTTP with its name, or, as a TCP server, echoes what it gets; it counts what it served."""

    name: str
    port: int
    tcp: bool = False
    served: int = 0
    open: int = 0
    delay_s: float = 0.0
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, HOST, self.port)

    async def stop(self) -> None:
        """Like a killed process: nobody listens any more, and open connections are gone."""
        if self._server is not None:
            self._server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while data := await (reader.read(65536) if self.tcp else _request(reader)):
                self.served += 1
                self.open += 1
                await asyncio.sleep(self.delay_s)
                body = data if self.tcp else _answer(self.name)
                writer.write(body)
                await writer.drain()
                self.open -= 1
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


async def _request(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


def _answer(body: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def service(
    name: str, port: int, backends: list[Backend], *, kind: Kind = Kind.HTTP, backup: tuple[Backend, ...] = ()
) -> PoolService:
    """A service in front of these servers."""
    return PoolService(
        name=Name(name),
        kind=kind,
        listen=Address(HOST, port),
        endpoints=tuple(
            Endpoint(Name(backend.name), Address(HOST, backend.port), group=group)
            for group, members in ((Group.PRIMARY, backends), (Group.BACKUP, backup))
            for backend in members
        ),
        balance=Balance.ROUND_ROBIN,
        health=CHECKS,
    )


def desired(
    *services: PoolService,
    admin: dict[str, Admin] | None = None,
    weights: dict[str, int] | None = None,
    share: int = 0,
    records: dict[Name, PoolRecord] | None = None,
) -> RouterState:
    """The state that these services and overrides compile to; pass `records` on to keep slots across calls."""
    kept: dict[Name, PoolRecord] = records if records is not None else {}
    for each in services:
        record = allocate(each, kept.get(each.name, PoolRecord(each.name)))
        kept[each.name] = replace(
            record,
            admin=tuple((Name(name), wish) for name, wish in (admin or {}).items()),
            weights=tuple((Name(name), weight) for name, weight in (weights or {}).items()),
            backup_share_percent=share,
        )
    return compile_routes(Spec(Name("test"), services), kept)


@contextlib.asynccontextmanager
async def running(directory: Path, state: RouterState) -> AsyncIterator[HAProxyRouter]:
    """A started HAProxy, ended whatever happens."""
    router = HAProxyRouter(Layout(directory), threads=1)
    try:
        await router.start(state)
        yield router
    finally:
        await end_proxy(directory, router)


async def end_proxy(directory: Path, router: HAProxyRouter) -> None:
    """End the HAProxy of that directory, also when the router let go of it."""
    await router.stop()
    from understudy.router import process, runtime

    layout = Layout(directory)
    pid = runtime.listener_pid(layout.master_socket)
    if pid is not None and (left := process.adopt(pid, layout)) is not None:
        await left.end()


async def eventually(holds: Callable[[], Awaitable[bool]], timeout_s: float = 20.0) -> None:
    """Wait until it holds; fail loudly when it never does."""
    deadline = time.monotonic() + timeout_s
    while not await holds():
        assert time.monotonic() < deadline, f"did not come true within {timeout_s} s"
        await asyncio.sleep(0.02)


async def get(port: int, timeout_s: float = 10.0) -> str:
    """One GET on a connection of its own: the body, or 'failed: …'."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                return (await exchange(reader, writer))[0]
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError) as fault:
        return f"failed: {fault!r}"


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, bool]:
    """One GET on an open connection: the body, or the status that was not 200; and whether the server hangs up now."""
    writer.write(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = int(head.partition("content-length: ")[2].partition("\r\n")[0] or 0)
    body = (await reader.readexactly(length)).decode()
    status = head.split(" ")[1]
    return body if status == "200" else f"failed: {status}", "connection: close" in head


@dataclass
class Load:
    """Clients with keep-alive connections, asking at a steady rate."""

    port: int
    per_second: int
    clients: int = 10
    done: int = 0
    failures: list[str] = field(default_factory=list)
    _stop: bool = False

    @contextlib.asynccontextmanager
    async def on(self) -> AsyncIterator["Load"]:
        """Ask for as long as the block lasts."""
        tasks = [asyncio.create_task(self._client()) for _ in range(self.clients)]
        try:
            yield self
        finally:
            self._stop = True
            await asyncio.gather(*tasks)

    async def _client(self) -> None:
        """A client as browsers are: a kept connection that was closed while idle is opened anew; nothing is retried."""
        pause_s = self.clients / self.per_second
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not self._stop:
            began = time.monotonic()
            try:
                if streams is None or streams[0].at_eof():
                    if streams is not None:
                        streams[1].close()
                    streams = await asyncio.open_connection(HOST, self.port)
                body, is_last = await exchange(*streams)
                if body.startswith("failed"):
                    self.failures.append(body)
                if is_last:
                    streams[1].close()
                    streams = None
            except (OSError, asyncio.IncompleteReadError) as fault:
                self.failures.append(repr(fault))
                streams = None
            self.done += 1
            await asyncio.sleep(max(0.0, pause_s - (time.monotonic() - began)))
        if streams is not None:
            streams[1].close()


def is_alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(pid: int) -> list[int]:
    """Processes whose parent is that one."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                    found.append(int(entry.name))
    return found
