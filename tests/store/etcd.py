"""Real etcd members for tests: on ports and in a directory of their own, and none of them outlives the tests."""

import atexit
import json
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from base64 import b64encode
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.ports import free_port

PATIENCE_S = 30.0


@dataclass
class Member:
    """One etcd process, which may be killed, stopped and started again."""

    name: str
    folder: Path
    client_port: int
    peer_port: int
    options: list[str]
    address: str = "127.0.0.1"
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"{self.address}:{self.client_port}"

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "etcd", *self.options], stdout=log, stderr=log, cwd=self.folder
            )

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def pause(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGCONT)


class Etcd:
    """An etcd cluster with that many members. scheme: of the clients' side; `options` are added to each member's.

    spread: each member has an address of its own, as on several hosts.
    """

    def __init__(
        self, count: int, *options: str, scheme: str = "http", fsync: bool = False, spread: bool = False
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="us-etcd-", dir="/tmp"))
        self.scheme = scheme
        self.members: list[Member] = []
        ports = [free_port() for _ in range(2 * count)]
        everybody = ",".join(f"m{n}=http://127.0.0.1:{ports[2 * n + 1]}" for n in range(count))
        for n in range(count):
            home = self.folder / f"m{n}"
            home.mkdir()
            client, peer = ports[2 * n], ports[2 * n + 1]
            address = f"127.0.0.{n + 1}" if spread else "127.0.0.1"
            url, peer_url = f"{scheme}://{address}:{client}", f"http://127.0.0.1:{peer}"
            arguments = ["--name", f"m{n}", "--data-dir", str(home / "data"), "--log-level", "warn"]
            arguments += ["--listen-client-urls", url, "--advertise-client-urls", url]
            arguments += ["--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url]
            arguments += ["--initial-cluster", everybody, *options]
            if not fsync:
                arguments.append("--unsafe-no-fsync")
            self.members.append(Member(f"m{n}", home, client, peer, arguments, address))

    @property
    def endpoints(self) -> tuple[str, ...]:
        return tuple(member.endpoint for member in self.members)

    def start(self) -> "Etcd":
        for member in self.members:
            if member.process is None:
                member.start()
        if self.scheme == "http":
            self.await_leader()
        return self

    def stop(self) -> None:
        for member in self.members:
            member.kill()

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def wipe(self) -> None:
        """Stop all members and forget everything."""
        self.stop()
        for member in self.members:
            shutil.rmtree(member.folder / "data")

    def post(self, member: Member, path: str, body: dict[str, Any], timeout_s: float = 5) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self.scheme}://{member.endpoint}/v3/{path}", json.dumps(body).encode(), method="POST"
        )
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            return dict(json.loads(answer.read()))

    def await_leader(self) -> None:
        """Wait until every running member has the same leader and answers."""
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            running = [member for member in self.members if member.process]
            try:
                leaders = {self.post(m, "maintenance/status", {}, 2)["leader"] for m in running}
                self.post(running[0], "kv/range", {"key": text(b"x")}, 2)
            except (OSError, KeyError, ValueError):
                leaders = set()
            if len(leaders) == 1:
                return
            assert time.monotonic() < deadline_s, "etcd does not come up"
            time.sleep(0.05)

    def leader(self) -> Member:
        """Who leads; waits while nobody does, or somebody who is dead, or nobody answers."""
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                leader = self.post(self.running(), "maintenance/status", {})["leader"]
                return next(member for member in self.members if member.process and self.id(member) == leader)
            except (OSError, KeyError, ValueError, StopIteration):
                assert time.monotonic() < deadline_s, "etcd elects no leader"
                time.sleep(0.02)

    def id(self, member: Member) -> str:
        return str(self.post(member, "maintenance/status", {})["header"]["member_id"])

    def move_leader(self) -> None:
        """Let another member lead; again when they had just elected one by themselves."""
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            leader = self.leader()
            try:
                other = next(member for member in self.members if member.process and member is not leader)
                return self.ctl("move-leader", f"{int(self.id(other)):x}", member=leader)
            except (OSError, subprocess.CalledProcessError):
                assert time.monotonic() < deadline_s, "etcd's leader does not move"
                time.sleep(0.1)

    def running(self) -> Member:
        return next(member for member in self.members if member.process)

    def compact(self, member: Member | None = None) -> None:
        """Cut off all of the history up to now."""
        member = member or self.running()
        revision = self.post(member, "kv/range", {"key": text(b"x")})["header"]["revision"]
        try:
            self.post(member, "kv/compaction", {"revision": revision})
        except urllib.error.HTTPError as error:
            if b"compacted" not in error.read():  # which is said when it was done before at that revision
                raise

    def ctl(self, *arguments: str, member: Member | None = None) -> None:
        """Run etcdctl with one member."""
        subprocess.run(
            ["etcdctl", "--endpoints", (member or self.members[0]).endpoint, *arguments],
            env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"},
            check=True,
            capture_output=True,
        )


def text(data: bytes) -> str:
    return b64encode(data).decode()


@cache
def shared(count: int) -> Etcd:
    """A cluster that all tests of this process use, each under its own prefix; removed when the process ends."""
    etcd = Etcd(count)
    atexit.register(etcd.remove)
    return etcd.start()
