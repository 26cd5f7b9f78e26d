"""The driver's bench on real PostgreSQL: three nodes of one host in a directory of their own, behind cuttable links.

Making a cluster takes seconds; so it is made once a session, stopped in order, and each test gets a copy of its data.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from tests.ports import free_port

from understudy.control.clock import SystemClock
from understudy.control.cluster.guarded import GuardedEngine
from understudy.core.actions import Bootstrap, Close, Follow, Open, Promote, Rebuild, Start, StopGracefully
from understudy.core.cluster import ClusterService, Node
from understudy.core.errors import Refused
from understudy.core.record import SyncConfig
from understudy.core.stateful import EngineNode, PostgresService
from understudy.core.text import Address, DataPath, Name
from understudy.drivers.base import DriverFault
from understudy.drivers.postgres import binaries, client
from understudy.drivers.postgres.driver import PostgresDriver
from understudy.drivers.postgres.tools import Account

A, B, C = NODES = Name("a"), Name("b"), Name("c")
ANY_ONE = SyncConfig(frozenset({B, C}), 1)
PASSWORD = "a word of \\ and ' and :"
ACKED_S, IN_VAIN_S = 20.0, 1.0
"""How long a client waits for its acknowledgement: where there should be one, and where not."""
DEADLINE_MS = 60_000
LAST_EPOCH = 99
_TABLE = "CREATE TABLE IF NOT EXISTS history (number serial, word text)"


def missing() -> str:
    """Why there can be no bench here; empty when there can."""
    try:
        binaries.programs()
        account()
    except Refused as why:
        return str(why)
    return ""


def account() -> Account:
    return Account.named("postgres") if os.geteuid() == 0 else Account.own()


class Link:
    """The way to one node for the others, which can be cut: a proxy."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = free_port()
        self.open = True
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    def cut(self) -> None:
        self.open = False
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = {writer}
        try:
            if not self.open:
                return
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.target)
            writers.add(there_writer)
            self._writers |= writers
            ways = [asyncio.create_task(_pass(reader, there_writer)), asyncio.create_task(_pass(there_reader, writer))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
        except OSError:
            pass
        finally:
            self._writers -= writers
            for one in writers:
                one.transport.abort()

    def close(self) -> None:
        self._server.close()
        self.cut()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


class PostgresBench:
    """Three nodes. `template`: a directory with the data of a stopped cluster, by node; None begins with nothing."""

    def __init__(self, template: Path | None) -> None:
        where = "/dev/shm" if Path("/dev/shm").is_dir() else "/tmp"
        self.root = Path(tempfile.mkdtemp(prefix="us-", dir=where))
        self.root.chmod(0o755)
        self._template = template
        self._links: dict[Name, Link] = {}
        self.processes: dict[Name, GuardedEngine] = {}
        self.drivers: dict[Name, PostgresDriver] = {}
        self.addresses: dict[Name, Address] = {}

    async def begin(self) -> None:
        """Have the nodes, all of them dead."""
        for name in NODES:
            self.addresses[name] = Address("127.0.0.1", free_port())
            self._links[name] = Link(self.addresses[name].port)
            await self._links[name].start()
            (self.root / name).mkdir()
            account().give(self.root / name)
        for name in NODES:
            self._agent(name)

    def _agent(self, name: Name, password: str = PASSWORD) -> None:
        self.processes[name] = GuardedEngine(self.root / f"guard-{name}", SystemClock())
        self.drivers[name] = PostgresDriver(
            self._service(name),
            name,
            data=self.data(name),
            process=self.processes[name],
            account=account(),
            password=password,
        )

    async def renew(self, name: Name, password: str = PASSWORD) -> None:
        """Let another agent take care of the node; guard and engine go on."""
        await self.drivers[name].close()
        await self.processes[name].close()
        self._agent(name, password)

    def _service(self, own: Name) -> PostgresService:
        """The cluster as that node sees it: the others are reached through their links."""
        nodes = tuple(
            EngineNode(Node(name, Name(f"h-{name}")), self._seen(name, own), DataPath(str(self.data(name))))
            for name in NODES
        )
        cluster = ClusterService(Name("orders"), tuple(one.node for one in nodes))
        return PostgresService(cluster, Address("127.0.0.1", 1), None, nodes)

    def _seen(self, name: Name, own: Name) -> Address:
        return self.addresses[name] if name == own else Address("127.0.0.1", self._links[name].port)

    def data(self, name: Name) -> Path:
        return self.root / name / "data"

    async def cluster(self, rule: SyncConfig) -> None:
        """A leads b and c."""
        if self._template is None:
            await self._first(rule)
        else:
            for name in NODES:
                shutil.copytree(self._template / name, self.data(name), symlinks=True)
                _give(self.data(name))
            await self._do(Start, A)
            await self._do(Promote, A, sync=rule)
            await asyncio.gather(*(self._do(Follow, name, source=A) for name in (B, C)))
        while not (await self.drivers[A].observe()).covered:  # noqa: ASYNC110  the engine is looked at
            await asyncio.sleep(0.01)
        await self._do(Open, A)
        await client.once(self.drivers[A]._engine.conninfo("bench"), _TABLE)

    async def _first(self, rule: SyncConfig) -> None:
        await self._do(Bootstrap, A)
        with (self.data(A) / "postgresql.conf").open("a") as file:
            file.write("dynamic_shared_memory_type = mmap\n")  # in the data directory, and so removed with it
        await self._do(Start, A)
        await self._do(Promote, A, sync=rule)
        for name in (B, C):
            await self._do(Rebuild, name, source=A, since=1, consent=False)
            await self._do(Follow, name, source=A)

    async def _do(self, kind, name: Name, **words) -> None:
        await self.drivers[name].perform(kind(name, "born-1", 1, DEADLINE_MS, **words))

    async def end(self) -> None:
        """Leave nothing behind."""
        for name in NODES:
            driver, process = self.drivers[name], self.processes[name]
            try:
                with contextlib.suppress(DriverFault):  # it does not run
                    await process.stop(signal.SIGQUIT, within_s=IN_VAIN_S, epoch=LAST_EPOCH)
                await driver.perform(Close(name, "born-1", LAST_EPOCH, DEADLINE_MS))
            finally:
                await driver.close()
                await process.end()
            _forget_memory(self.data(name))
        for link in self._links.values():
            link.close()
        await asyncio.to_thread(shutil.rmtree, self.root)

    # ---- what the suite asks of a bench ----

    def driver(self, name: Name) -> PostgresDriver:
        return self.drivers[name]

    async def write(self, name: Name, text: str, *, in_vain: bool = False) -> bool:
        """Whether the write of a client, who comes by TCP, was acknowledged in time."""
        address = self.addresses[name]
        conninfo = client.conninfo(
            host=address.host, port=address.port, user="postgres", dbname="postgres", password=PASSWORD
        )
        try:
            async with asyncio.timeout(IN_VAIN_S if in_vain else ACKED_S):
                await client.once(conninfo, f"{_TABLE}; INSERT INTO history (word) VALUES ('{text}')")
        except (TimeoutError, DriverFault):
            return False
        return True

    async def history(self, name: Name) -> tuple[str, ...]:
        rows = await client.once(
            self.drivers[name]._engine.conninfo("bench"), "SELECT word FROM history ORDER BY number"
        )
        return tuple(str(word) for (word,) in rows)

    async def kill(self, name: Name) -> None:
        """The postmaster alone; what it leaves is the guard's."""
        await self.processes[name].signal(9)

    def cut(self, name: Name) -> None:
        self._links[name].cut()

    def heal(self) -> None:
        for link in self._links.values():
            link.open = True


async def make_template(directory: Path) -> None:
    """The data of a cluster that was stopped in order."""
    bench = PostgresBench(None)
    await bench.begin()
    try:
        await bench.cluster(ANY_ONE)
        await bench._do(StopGracefully, A)
        for name in (B, C):
            await bench._do(StopGracefully, name)
        for name in NODES:
            await asyncio.to_thread(shutil.copytree, bench.data(name), directory / name, symlinks=True)
    finally:
        await bench.end()


def _forget_memory(data: Path) -> None:
    """A killed engine leaves a shared segment, which only the next start on the same data would take away."""
    with contextlib.suppress(OSError, IndexError):
        segment = (data / "postmaster.pid").read_text().splitlines()[6].split()[1]
        subprocess.run(["ipcrm", "-m", segment], check=False, stderr=subprocess.DEVNULL)


def _give(directory: Path) -> None:
    """The whole tree belongs to PostgreSQL's user."""
    who = account()
    who.give(directory)
    for folder, folders, files in os.walk(directory):
        for one in (*folders, *files):
            who.give(Path(folder) / one)
    directory.chmod(0o700)
