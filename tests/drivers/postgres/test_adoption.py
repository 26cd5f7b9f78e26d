"""A cluster that was made by hand, taken on by `understudy up` with all that is in it. Everything real."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests.drivers.postgres.real import PASSWORD, Engine, copy_tree, until
from tests.ports import free_port

from understudy.drivers.postgres.branches import KEPT

UNDERSTUDY = Path(sys.executable).with_name("understudy")
SPEC = """\
cluster: shop
api: 127.0.0.1:{api}
agent_port: {agent}
services:
  orders:
    kind: postgres
    listen: {{write: "127.0.0.1:{write}", read: "127.0.0.1:{read}"}}
    durability: zero_loss
    superuser: {{name: boss, password: "file:{root}/password"}}
    nodes:
      - {{name: a, address: "127.0.0.1:{a}", data: {root}/a}}
      - {{name: b, address: "127.0.0.1:{b}", data: {root}/b}}
      - {{name: c, address: "127.0.0.1:{c}", data: {root}/c}}
"""


class Up:
    """`understudy up`, and what it says."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ports = {name: free_port() for name in ("api", "agent", "write", "read", "a", "b", "c")}
        (root / "spec.yaml").write_text(SPEC.format(root=root, **self.ports))
        (root / "password").write_text(PASSWORD + "\n")
        self.said = ""
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        command = [UNDERSTUDY, "up", self.root / "spec.yaml", "--state-dir", self.root / "state"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        threading.Thread(target=self._read, args=(self.process,), daemon=True).start()

    def _read(self, process: subprocess.Popen) -> None:
        for line in process.stdout:
            self.said += line

    def cluster(self) -> dict:
        environment = os.environ | {"UNDERSTUDY_API": f"127.0.0.1:{self.ports['api']}"}
        ran = subprocess.run(
            [UNDERSTUDY, "status", "--json"], capture_output=True, text=True, env=environment, check=False
        )
        with contextlib.suppress(ValueError, LookupError):
            return json.loads(ran.stdout)["clusters"][0]
        return {}

    def ask(self, port: str, statement: str) -> list[tuple]:
        with contextlib.suppress(psycopg.Error):
            where = f"host=127.0.0.1 port={self.ports[port]} user=boss dbname=postgres connect_timeout=5"
            with psycopg.connect(where, password=PASSWORD, autocommit=True) as connection:
                return connection.execute(statement).fetchall()
        return []

    def end(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(30)
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if str(self.root).encode() in (entry / "cmdline").read_bytes():
                    os.kill(int(entry.name), signal.SIGKILL)


@pytest.fixture
def up(root: Path, template: Path) -> Iterator[Up]:
    """A primary and a standby, made by hand, with a failover in their past, and stopped; a directory for a third."""
    for name in ("a", "b"):
        copy_tree(template / name, root / name)
        (root / name / KEPT).unlink(missing_ok=True)
        with (root / name / "postgresql.conf").open("a") as file:
            file.write("max_prepared_transactions = 10\n")
    b = Engine("b", root)
    a = Engine("a", root)
    a.start(standby=True)
    b.start(a)
    a.promote()
    a.rows("INSERT INTO t SELECT generate_series(1, 1000)")
    b.caught_up(a)
    a.stop()
    b.stop()
    (root / "c").mkdir(mode=0o700)
    a.tools.account.give(root / "c")
    up = Up(root)
    yield up
    up.end()
    sys.stdout.write(up.said)  # pytest shows it with what failed


def test_adoption(up: Up) -> None:
    """An existing primary with its standby and an empty directory become a cluster: all data is there, all stream."""
    up.start()
    count = "SELECT count(*) FROM t"
    until(lambda: up.ask("write", count) == [(1000,)], "the port for writing leads to the data")
    streams = "SELECT DISTINCT application_name FROM pg_stat_replication WHERE state = 'streaming'"
    until(lambda: len(up.ask("write", streams)) == 2, "both others stream")
    assert up.ask("write", "INSERT INTO t VALUES (1001) RETURNING n") == [(1001,)]
    for name in ("a", "b", "c"):
        until(lambda name=name: up.ask(name, count) == [(1001,)], f"{name} has it all")
    until(lambda: up.cluster().get("phase") == "steady", "nothing is under way")
