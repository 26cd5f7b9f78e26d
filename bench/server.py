"""A small honest HTTP server for benches, and how a set of them is started on test hosts.

Usage: python -m bench.server ADDRESS PORT LOG. It answers at once and writes down the id (the body) of every POST that
it runs: an id goes to LOG before its answer goes out, unbuffered, so that a SIGKILL loses none. Of HTTP/1.1 it reads
only what it must: header block, Content-Length, keep-alive.
"""

import asyncio
import os
import subprocess
import sys
import time
from asyncio import Transport
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.hosts import Host

PORT = 9000
START_S = 10.0

BODY = b"x" * 100
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


class Connection(asyncio.Protocol):
    """One client connection."""

    def __init__(self, log: int) -> None:
        self.log = log
        self.received = b""
        self.transport: Transport

    def connection_made(self, transport: Transport) -> None:
        """Keep the transport."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each request that is complete."""
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            head = self.received[:end].lower()
            _, _, length = head.partition(b"\r\ncontent-length:")
            size = int(length.split(b"\r\n", 1)[0]) if length else 0
            whole = end + 4 + size
            if len(self.received) < whole:
                return
            if head.startswith(b"post "):
                os.write(self.log, self.received[end + 4 : whole] + b"\n")
            self.transport.write(ANSWER)
            self.received = self.received[whole:]
            if head.split(b"\r\n", 1)[0].endswith(b"http/1.0") or b"\r\nconnection: close" in head:
                self.transport.close()
                return


async def serve(address: str, port: int, log: str) -> None:
    """Serve until killed."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(descriptor), address, port, backlog=1024)
    await server.serve_forever()


@dataclass(slots=True)
class Servers:
    """Servers, each on its own host, with the files that tell which POSTs they ran."""

    hosts: list[Host]
    processes: list[subprocess.Popen[bytes]]
    logs: list[Path]

    @property
    def addresses(self) -> list[str]:
        """Each one's IP:PORT."""
        return [f"{host.address}:{PORT}" for host in self.hosts]

    def posts(self) -> Counter[str]:
        """How often each POST was run."""
        return Counter(line for log in self.logs for line in log.read_text().split())


def serving(hosts: Sequence[Host], folder: Path) -> Servers:
    """Start a server on each host and wait until all listen; they end with their hosts."""
    logs = [folder / f"{host.name}.posts" for host in hosts]
    processes = [
        host.start([sys.executable, "-m", "bench.server", host.address, str(PORT), str(log)])
        for host, log in zip(hosts, logs, strict=True)
    ]
    servers = Servers(list(hosts), processes, logs)
    give_up_s = time.monotonic() + START_S
    for host in hosts:
        while not _listens(host):
            if time.monotonic() > give_up_s:
                raise RuntimeError(f"the bench server on {host.name} does not come up")
            time.sleep(0.05)
    return servers


def _listens(host: Host) -> bool:
    return f"{host.address}:{PORT}" in host.run(["ss", "-Htln"])


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
