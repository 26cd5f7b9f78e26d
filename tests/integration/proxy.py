"""A real HAProxy on a rendered configuration, and real servers behind it: what the traffic tests stand on.

Started as a program (`proxy.py HOST PORT NAME DELAY_S`) it is one server in a process of its own, for tests that kill
or stop it. No test lives here, and nothing of the adapter that drives HAProxy in production.
"""

import asyncio
import contextlib
import csv
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Self

from tests.hosts import Host
from tests.ports import free_port

from understudy.core.model import Endpoint, PoolService, Spec
from understudy.core.pools import PoolRecord
from understudy.core.routes import RouterState, allocate, compile_routes
from understudy.core.text import Address, Name
from understudy.router.change import diff
from understudy.router.config import HostFacts, render
from understudy.router.layout import Layout
from understudy.router.names import backend_name, server_name

CHECK_PATH = "/healthz"


@dataclass
class Server:
    """An HTTP server that names itself in each answer, and whose behaviour a test changes while it runs."""

    name: str
    port: int = field(default_factory=free_port)
    delay_s: float = 0.0
    host: str = "127.0.0.1"
    status: int = 200
    check_status: int = 200
    check_body: str = "all is well"
    hits: int = 0
    checks: int = 0
    active: int = 0
    peak: int = 0
    posts: Counter[str] = field(default_factory=Counter)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    on_post: Callable[[str], None] = lambda _path: None
    _listener: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def endpoint(self, **settings) -> Endpoint:
        """This server as an endpoint of a service."""
        return Endpoint(Name(self.name), Address(self.host, self.port), **settings)

    async def start(self) -> Self:
        """Listen; requests wait while the gate is closed, which it is not at first."""
        self.gate.set()
        self._listener = await asyncio.start_server(self._serve, self.host, self.port)
        return self

    async def stop(self) -> None:
        """Stop listening and break every connection."""
        if self._listener:
            self._listener.close()
            self._listener = None
        for writer in list(self._writers):
            writer.transport.abort()
        self.gate.set()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, path, _ = head.split(" ", 2)
                length = next((int(h.split(":")[1]) for h in head.lower().split("\r\n") if "content-length" in h), 0)
                await reader.readexactly(length)
                status, body = await self._answer(method, path)
                headers = f"X-Server: {self.name}\r\nContent-Length: {len(body)}"
                writer.write(f"HTTP/1.1 {status} -\r\n{headers}\r\n\r\n{body}".encode())
                await writer.drain()
                if "connection: close" in head.lower():
                    break
        self._writers.discard(writer)
        writer.close()

    async def _answer(self, method: str, path: str) -> tuple[int, str]:
        if path == CHECK_PATH:
            self.checks += 1
            return self.check_status, self.check_body
        self.hits += 1
        self.active += 1
        self.peak = max(self.peak, self.active)
        if method == "POST":
            self.posts[path] += 1
            self.on_post(path)
        try:
            await self.gate.wait()
            await asyncio.sleep(self.delay_s)
        finally:
            self.active -= 1
        return self.status, "ok"


@contextlib.asynccontextmanager
async def servers(*names: str) -> AsyncIterator[list[Server]]:
    """Servers of these names, in this process."""
    started = [await Server(name).start() for name in names]
    try:
        yield started
    finally:
        for server in started:
            await server.stop()


class ServerProcess:
    """A server in a process of its own, to be killed, stopped and continued; it prints each POST it executes."""

    def __init__(self, name: str, delay_s: float = 0.0, on: Host | None = None) -> None:
        self.name, self.host, self.port = name, on.address if on else "127.0.0.1", free_port()
        self._output = tempfile.TemporaryFile("w+")  # noqa: SIM115 - open as long as the process; closed in close()
        argv = [sys.executable, "-m", "tests.integration.proxy", self.host, str(self.port), name, str(delay_s)]
        self.process = (on.start if on else subprocess.Popen)(argv, stdout=self._output)

    def endpoint(self, **settings) -> Endpoint:
        """This server as an endpoint of a service."""
        return Endpoint(Name(self.name), Address(self.host, self.port), **settings)

    def posts(self) -> Counter[str]:
        """How often each POST was executed here."""
        self._output.seek(0)
        return Counter(self._output.read().split())

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def close(self) -> None:
        """End it, stopped or not."""
        self.process.kill()
        self.process.wait()
        self._output.close()


@contextlib.contextmanager
def server_processes(*names: str, delay_s: float = 0.0, first_on: Host | None = None) -> Iterator[list[ServerProcess]]:
    """Servers of these names, each in its own process, ready to be asked; the first may be on a test host."""
    started: list[ServerProcess] = []
    try:
        for name in names:
            started.append(ServerProcess(name, delay_s, None if started else first_on))
        for server in started:
            deadline = time.monotonic() + 20
            while not _listens(server.host, server.port):
                assert time.monotonic() < deadline, f"server {server.name} did not start"
                time.sleep(0.02)
        yield started
    finally:
        for server in started:
            server.close()


def _listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


def _haproxy(config: Path, output: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["haproxy", "-f", str(config)], stdout=output, stderr=output)


class Proxy:
    """One HAProxy that does what `state` says."""

    def __init__(self, *services: PoolService, records: dict[Name, PoolRecord] | None = None) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="us-"))
        self.layout = Layout(self.directory)
        self.facts = HostFacts(version=(2, 6, 12), threads=2)
        self._slots: dict[Name, PoolRecord] = {}
        self.state = self._compile(services, records or {})
        self.process: subprocess.Popen[bytes] | None = None

    def _compile(self, services: tuple[PoolService, ...], records: dict[Name, PoolRecord]) -> RouterState:
        """The state, with every endpoint in the slot that it had before, as the agent's records would have it."""
        for service in services:
            kept = self._slots.get(service.name, PoolRecord(service.name)).slots
            record = records.get(service.name, PoolRecord(service.name))
            self._slots[service.name] = allocate(service, replace(record, slots=kept))
        return compile_routes(Spec(Name("test"), services, directory=str(self.directory)), self._slots)

    async def __aenter__(self) -> Self:
        """Write the files, start HAProxy, wait until it answers."""
        rendered = render(self.state, self.layout, self.facts)
        self.layout.config.write_text(rendered.config)
        self.layout.server_state.write_text("1\n")
        for path, text in rendered.files:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            path.chmod(0o755)
        with (self.directory / "output").open("wb") as output:
            self.process = _haproxy(self.layout.config, output)
        try:
            await self.until(lambda: self.layout.admin_socket.exists() and self._ports_open(), "HAProxy listens")
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """End HAProxy and remove its files."""
        if self.process:
            self.process.terminate()
            try:
                await asyncio.to_thread(self.process.wait, 10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.directory)

    def _ports_open(self) -> bool:
        assert self.process
        assert self.process.poll() is None, (self.directory / "output").read_text()
        return all(_listens(route.listen.host, route.listen.port) for route in self.state.routes)

    def command(self, line: str) -> str:
        """What HAProxy answers to one line on its runtime socket."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(self.layout.admin_socket))
            connection.sendall(line.encode() + b"\n")
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    def apply(self, *services: PoolService, records: dict[Name, PoolRecord] | None = None) -> list[str]:
        """Bring it to another state by runtime commands alone; the sentences. Fails where a reload would be needed."""
        new = self._compile(services, records or {})
        change = diff(self.state, new, self.layout)
        assert not change.reload, change.reload
        for command in change.commands:
            answer = self.command(command.line)
            assert command.accepted(answer), (command.line, answer)
        self.state = new
        return list(change.sentences)

    def rows(self) -> dict[tuple[str, str], dict[str, str]]:
        """`show stat` by proxy and server name."""
        text = self.command("show stat").lstrip("# ")
        return {(row["pxname"], row["svname"]): row for row in csv.DictReader(text.strip().splitlines())}

    def row(self, service: str, endpoint: str) -> dict[str, str]:
        """What `show stat` says of one endpoint."""
        route = next(route for route in self.state.routes if route.service == service)
        for pool in (route.primary, route.backup):
            for index, slot in enumerate(pool.slots if pool else ()):
                if pool and slot.endpoint == endpoint:
                    return self.rows()[backend_name(pool.service, pool.group), server_name(index)]
        raise AssertionError(f"{service} has no endpoint {endpoint}")

    async def until(self, holds: Callable[[], bool], what: str, within_s: float = 15.0) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + within_s
        while not await asyncio.to_thread(holds):
            assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
            await asyncio.sleep(0.02)

    async def until_status(self, service: str, endpoint: str, status: str, within_s: float = 15.0) -> None:
        """Wait until HAProxy's status of the endpoint begins so (UP, DOWN, MAINT, DRAIN), by a check where it is UP."""

        def holds() -> bool:
            row = self.row(service, endpoint)
            return row["status"].startswith(status) and (status != "UP" or row["check_status"] not in ("", "INI"))

        await self.until(holds, f"{service}/{endpoint} is {status}", within_s)


@dataclass(frozen=True)
class Answer:
    """What a client got. `status` is 0 when the connection ended without an answer."""

    status: int
    server: str = ""
    cookie: str = ""
    seconds: float = 0.0


async def ask(
    service: PoolService,
    path: str = "/",
    *,
    method: str = "GET",
    source: str | None = None,
    cookie: str = "",
    within_s: float = 20.0,
) -> Answer:
    """One request on a connection of its own."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(within_s):
            reader, writer = await asyncio.open_connection(
                service.listen.host, service.listen.port, local_addr=(source, 0) if source else None
            )
            try:
                headers = f"Host: test\r\nConnection: close\r\nContent-Length: 0\r\n{cookie and f'Cookie: {cookie}'}"
                writer.write(f"{method} {path} HTTP/1.1\r\n{headers.rstrip()}\r\n\r\n".encode())
                text = (await reader.read()).decode()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        text = ""
    seconds = time.monotonic() - began
    if not text:
        return Answer(0, seconds=seconds)
    lines = text.partition("\r\n\r\n")[0].split("\r\n")
    found = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines[1:])}
    return Answer(
        int(lines[0].split()[1]), found.get("x-server", ""), found.get("set-cookie", "").partition(";")[0], seconds
    )


async def ask_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    """One GET on a connection that stays open; the answer's head."""
    writer.write(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = next(int(line.split(":")[1]) for line in head.lower().split("\r\n") if line.startswith("content-length"))
    await reader.readexactly(length)
    return head


async def ask_many(service: PoolService, count: int, at_once: int = 1, path: str = "/") -> Counter[str]:
    """How many of `count` requests each server answered, from clients that each ask again at once; all must succeed."""
    left = iter(range(count))
    served: Counter[str] = Counter()

    async def client() -> None:
        for _ in left:
            answer = await ask(service, path)
            assert answer.status == 200, answer
            served[answer.server] += 1

    await asyncio.gather(*(client() for _ in range(at_once)))
    return served


async def _main() -> None:
    server = Server(sys.argv[3], int(sys.argv[2]), float(sys.argv[4]), host=sys.argv[1])
    server.on_post = lambda path: print(path, flush=True)  # noqa: T201 - read by ServerProcess.posts
    await server.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main())
    os._exit(0)
