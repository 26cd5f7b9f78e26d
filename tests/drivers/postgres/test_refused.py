"""Bad input through the real command: refused with the sentence that helps, and nothing of anybody's was touched."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.drivers.postgres.real import PASSWORD, PROGRAMS, account, copy_tree, until
from tests.drivers.postgres.test_adoption import Up
from tests.ports import free_port
from tests.store.etcd import Etcd

from understudy.drivers.postgres.claim import Claim

UNDERSTUDY = Path(sys.executable).with_name("understudy")
SPEC = """\
cluster: shop
api: 127.0.0.1:{api}
agent_port: {agent}
{where}services:
  orders:
    kind: postgres
    listen: {{write: "127.0.0.1:{write}", read: "127.0.0.1:{read}"}}
    durability: zero_loss
    acks: {acks}
    superuser: {{name: boss, password: "file:{root}/password"}}
    nodes:
      - {{name: a, {host}address: "127.0.0.1:{a}", data: {root}/a}}
      - {{name: b, {host}address: "127.0.0.1:{b}", data: {root}/b}}
"""


class Bench:
    """A primary's data in a, nothing in b, and a spec for both."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.acks = 1
        self.password = PASSWORD
        self.where = self.host = ""
        self.held: list[Claim] = []

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        ports = {name: free_port() for name in ("api", "agent", "write", "read", "a", "b")}
        text = SPEC.format(root=self.root, acks=self.acks, where=self.where, host=self.host, **ports)
        (self.root / "spec.yaml").write_text(text)
        (self.root / "password").write_text(self.password)
        verb, *more = argv
        command = [UNDERSTUDY, verb, self.root / "spec.yaml", *more, "--state-dir", self.root / "state"]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def initdb(self, name: str, *options: str) -> None:
        """Other data than what is there."""
        shutil.rmtree(self.root / name, ignore_errors=True)
        argv = [PROGRAMS / "initdb", "--no-sync", "--auth=trust", "--username=boss", *options, self.root / name]
        who = {"user": account().name} if os.geteuid() == 0 else {}
        place = self.root / name
        place.mkdir(mode=0o700)
        account().give(place)
        subprocess.run(argv, check=True, capture_output=True, cwd="/", **who)

    def seen(self) -> dict[str, tuple[object, ...]]:
        """Everything of the nodes, to the last byte."""
        found: dict[str, tuple[object, ...]] = {}
        for path in self.root.rglob("*"):
            if path.relative_to(self.root).parts[0] not in {"spec.yaml", "password", "state"}:
                now = path.lstat()
                what = hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b""
                found[str(path)] = (now.st_mode, now.st_uid, now.st_mtime_ns, what)
        return found


@pytest.fixture
def bench(root: Path, template: Path) -> Iterator[Bench]:
    copy_tree(template / "a", root / "a")
    with (root / "a" / "postgresql.conf").open("a") as file:
        file.write("max_prepared_transactions = 10\n")
    bench = Bench(root)
    yield bench
    for claim in bench.held:
        claim.close()


def other_owner(bench: Bench) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to give a directory away")
    os.chown(bench.root / "a", 1, 1)


def claimed(whose: str) -> Callable[[Bench], None]:
    """By an agent that runs: this process is as good as any."""

    def claim(bench: Bench) -> None:
        bench.held.append(Claim(bench.root / "a", whose, account()))
        bench.held[0].take()

    return claim


def given_up_by_its_agent(bench: Bench) -> None:
    claimed("node x of bank/orders")(bench)
    bench.held[0].close()


BAD = {
    "another cluster": (lambda bench: bench.initdb("b", "--data-checksums"), "data of different clusters (a: "),
    "another version": (lambda bench: (bench.root / "a/PG_VERSION").write_text("12\n"), "is of PostgreSQL 12"),
    "wrong owner": (other_owner, "belongs to user 1, and PostgreSQL runs as"),
    "wrong password": (lambda bench: setattr(bench, "password", "nonsense"), "has another password than the spec"),
    "too few standbys": (lambda bench: setattr(bench, "acks", 2), "durability: {max_loss: 1MiB}"),
    "no checksums": (lambda bench: bench.initdb("a"), "neither checksums nor wal_log_hints"),
    "another agent's": (claimed("node a of shop/orders"), "is in the care of another agent"),
    "another spec's": (given_up_by_its_agent, "is the data directory of node x of bank/orders, and this spec gives it"),
}


def refused(bench: Bench, says: str, *argv: str) -> None:
    before = bench.seen()
    ran = bench.run(*argv)
    said = " ".join((ran.stdout + ran.stderr).split())
    assert ran.returncode == 1, said
    assert says in said
    assert "Traceback" not in said
    assert "nonsense" not in said, "the password is told to nobody"
    assert bench.seen() == before


@pytest.mark.parametrize("name", BAD)
def test_refused_by_up(bench: Bench, name: str) -> None:
    """Each mistake ends `understudy up` with 1 and its sentence; data, modes and times are what they were."""
    spoil, says = BAD[name]
    spoil(bench)
    refused(bench, says, "up")


def test_refused_by_agent(bench: Bench) -> None:
    """So it is for one agent of several."""
    etcd = Etcd(1).start()
    try:
        member = etcd.endpoints[0]
        bench.where = f'hosts: {{h1: 127.0.0.1}}\nrouters: [h1]\nstore: {{etcd: {{endpoints: ["{member}"]}}}}\n'
        bench.host = "host: h1, "
        other_owner(bench)
        refused(bench, "belongs to user 1", "agent", "--host", "h1")
    finally:
        etcd.remove()


def test_refused_by_apply(bench: Bench) -> None:
    """A node that is added later is looked at just so: the spec in force stays, and so does the cluster."""
    (bench.root / "a").rename(bench.root / "old")
    up = Up(bench.root)
    spec = (bench.root / "spec.yaml").read_text().replace("zero_loss", "{max_loss: 1MiB}")
    alone = "".join(
        line for line in spec.splitlines(keepends=True) if "name: b," not in line and "name: c," not in line
    )
    (bench.root / "spec.yaml").write_text(alone)
    up.start()
    try:
        until(lambda: up.ask("write", "SELECT 1") == [(1,)], "one node takes writes")
        (bench.root / "old").rename(bench.root / "b")
        before = {path: one for path, one in bench.seen().items() if path.startswith(f"{bench.root}/b")}
        (bench.root / "spec.yaml").write_text(spec)
        argv = [UNDERSTUDY, "apply", bench.root / "spec.yaml"]
        environment = os.environ | {"UNDERSTUDY_API": f"127.0.0.1:{up.ports['api']}"}
        ran = subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=60, check=False)
        said = " ".join((ran.stdout + ran.stderr).split())
        assert ran.returncode == 1, said
        assert "the nodes hold data of different clusters (a: " in said
        assert {path: one for path, one in bench.seen().items() if path.startswith(f"{bench.root}/b")} == before
        assert [node["name"] for node in up.cluster()["nodes"]] == ["a"]
        assert up.ask("write", "SELECT 1") == [(1,)]
    finally:
        up.end()
