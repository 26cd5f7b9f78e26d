"""Patroni on the test hosts, as its documentation sets it up: the peer of bench/postgres.py. No measuring here.

Patroni comes from PyPI, pinned in bench/patroni.txt, into a virtual environment of its own inside the test hosts'
folder, for its engines' user must be able to read it. Its HAProxy checks each node's REST API every 3 s, as in its
documentation.
"""

import json
import os
import pwd
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tests.pg_hosts import ENGINE_PORT, ENGINES, ETCD, NODES, ROUTER, WRITE, Engines

REQUIREMENTS = Path(__file__).parent / "patroni.txt"
REST = 8008
USER = "postgres"
PASSWORD = "bench"
INSTALL_S = 300.0
STEADY_S = 180.0
CALM_S = 10
PYTHON = "/usr/bin/python3"
"""The distribution's. One in somebody's home cannot be read by the engines' user, and Patroni hangs without a word."""


@dataclass(frozen=True, slots=True)
class Timers:
    """Patroni's, in seconds."""

    ttl: int = 30
    loop_wait: int = 10
    retry_timeout: int = 10
    primary_start_timeout: int = 300


DEFAULT = Timers()
SMALLEST = Timers(ttl=20, loop_wait=1, retry_timeout=3, primary_start_timeout=0)
"""It refuses less, or changes it silently."""


class PatroniHosts(Engines):
    """Patroni with a three-node PostgreSQL on test hosts. `synchronous`: its synchronous_mode."""

    def __init__(self, *, timers: Timers = DEFAULT, synchronous: bool = False, memory: bool = True) -> None:
        super().__init__(memory=memory)
        self._timers = timers
        self._synchronous = synchronous
        self._passwords = self.folder / "pgpass"
        self._started: list[subprocess.Popen[Any]] = []

    def start(self) -> None:
        """Start everything and wait until it is in order."""
        super().start()
        self._passwords.write_text(f"*:*:*:{USER}:{PASSWORD}\n")
        self._passwords.chmod(0o600)
        programs = _install(self.folder / "venv")
        for node in NODES:
            self._start_node(node, programs)
        self._start_haproxy()
        self.wait_steady()

    def _start_node(self, node: str, programs: Path) -> None:
        home = self.folder / node
        home.mkdir()
        config = home / "patroni.yaml"
        config.write_text(yaml.safe_dump(self._config(node, home)))
        os.chown(home, *_ids())
        argv = [
            "setpriv",
            f"--reuid={USER}",
            f"--regid={USER}",
            "--init-groups",
            str(programs / "patroni"),
            str(config),
        ]
        with (self.folder / f"{node}.out").open("ab") as log:
            self._started.append(self.host_of(node).start(argv, stdout=log, stderr=log, cwd=home))

    def _config(self, node: str, home: Path) -> dict[str, Any]:
        address, timers = self.host_of(node).address, self._timers
        network = f"{address.rsplit('.', 1)[0]}.0/24"
        login = {"username": USER, "password": PASSWORD}
        return {
            "scope": "bench",
            "name": node,
            "restapi": {"listen": f"{address}:{REST}", "connect_address": f"{address}:{REST}"},
            "etcd3": {"hosts": [f"{self.hosts[host].address}:{ETCD}" for host in ENGINES]},
            "bootstrap": {
                "dcs": {
                    "ttl": timers.ttl,
                    "loop_wait": timers.loop_wait,
                    "retry_timeout": timers.retry_timeout,
                    "primary_start_timeout": timers.primary_start_timeout,
                    "maximum_lag_on_failover": 2**20,
                    "synchronous_mode": self._synchronous,
                    "postgresql": {"use_pg_rewind": True, "use_slots": True},
                },
                "initdb": [{"encoding": "UTF8"}, "data-checksums"],
            },
            "postgresql": {
                "listen": f"{address}:{ENGINE_PORT}",
                "connect_address": f"{address}:{ENGINE_PORT}",
                "data_dir": str(self.data(node)),
                "bin_dir": str(max(Path("/usr/lib/postgresql").glob("*/bin"))),
                "pgpass": str(home / "pgpass"),
                "authentication": {
                    "superuser": login,
                    "replication": {"username": "replicator", "password": PASSWORD},
                    "rewind": {"username": "rewinder", "password": PASSWORD},
                },
                "parameters": {"unix_socket_directories": str(home)},  # the hosts share one file system
                "pg_hba": [
                    "local all all trust",
                    f"host all all {network} scram-sha-256",
                    f"host replication replicator {network} scram-sha-256",
                ],
            },
        }

    def _start_haproxy(self) -> None:
        config = self.folder / "haproxy.cfg"
        servers = "".join(
            f"    server {node} {self.host_of(node).address}:{ENGINE_PORT} maxconn 100 check port {REST}\n"
            for node in NODES
        )
        config.write_text(
            "global\n    maxconn 100\n"
            "defaults\n    mode tcp\n    retries 2\n    timeout client 30m\n    timeout connect 4s\n"
            "    timeout server 30m\n    timeout check 5s\n"
            f"listen primary\n    bind *:{WRITE}\n"
            "    option httpchk OPTIONS /primary\n    http-check expect status 200\n"
            f"    default-server inter 3s fall 3 rise 2 on-marked-down shutdown-sessions\n{servers}"
        )
        with (self.folder / "haproxy.out").open("ab") as log:
            self.hosts[ROUTER].start(["haproxy", "-W", "-db", "-f", str(config)], stdout=log, stderr=log)

    def managers(self) -> list[subprocess.Popen[Any]]:
        """Patroni's own."""
        return self._started

    # --- seeing and ordering ------------------------------------------------------------------------------------------

    @property
    def conninfo(self) -> str:
        """Of the port that leads to the primary, as superuser."""
        return f"host={self.hosts[ROUTER].address} port={WRITE} user={USER} passfile={self._passwords}"

    def data(self, node: str) -> Path:
        """The node's data directory."""
        return self.folder / node / "data"

    def members(self) -> list[dict[str, Any]]:
        """What the first node that answers says of all of them; nothing when nobody does."""
        for node in NODES:
            try:
                return list(self._ask(node, "cluster")["members"])
            except (OSError, ValueError, KeyError):
                continue
        return []

    def primary(self) -> str:
        """The node that is primary; empty when there is none."""
        return next((str(one["name"]) for one in self.members() if one["role"] == "leader"), "")

    def is_steady(self) -> bool:
        """Whether there is a primary, everybody follows it, and somebody is synchronous where that is asked."""
        members = self.members()
        roles = [one["role"] for one in members]
        well = all(one["state"] in {"running", "streaming"} for one in members)
        lines = {one.get("timeline") for one in members}
        synchronous = not self._synchronous or "sync_standby" in roles
        return len(members) == len(NODES) and roles.count("leader") == 1 and well and len(lines) == 1 and synchronous

    def wait_steady(self, patience_s: float = STEADY_S) -> None:
        """Wait until all is well, also in the eyes of HAProxy, which for 9 s takes a former primary for one."""
        super().wait_steady(patience_s)
        good = 0
        while good < CALM_S:
            good = good + 1 if self.accepts_writes() else 0
            time.sleep(1.0)

    def target(self) -> str:
        """The node that a switchover may go to."""
        wanted = "sync_standby" if self._synchronous else "replica"
        return next(str(one["name"]) for one in self.members() if one["role"] == wanted)

    def switchover(self, to: str) -> float:
        """Order it and wait for its end."""
        leader, struck_s = self.primary(), time.monotonic()
        self._ask(leader, "switchover", {"leader": leader, "candidate": to}, patience_s=60.0)
        return struck_s

    def said(self) -> str:
        """The end of what each has said."""
        return "\n".join(f"{file.name}:\n{file.read_text()[-3000:]}" for file in sorted(self.folder.glob("*.out")))

    def _ask(self, node: str, path: str, body: dict[str, Any] | None = None, patience_s: float = 2.0) -> Any:
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"http://{self.host_of(node).address}:{REST}/{path}", data)
        try:
            with urllib.request.urlopen(request, timeout=patience_s) as answer:
                text = answer.read().decode()
        except urllib.error.HTTPError as refusal:
            raise OSError(refusal.read().decode(errors="replace")) from None
        return json.loads(text) if body is None else text


def _install(folder: Path) -> Path:
    """Make the virtual environment; the directory of its programs."""
    _run([PYTHON, "-m", "venv", str(folder)])
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "--requirement", str(REQUIREMENTS)])
    return folder / "bin"


def _run(argv: Sequence[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)} failed: {done.stderr.strip()[-1000:]}")


def _ids() -> tuple[int, int]:
    entry = pwd.getpwnam(USER)
    return entry.pw_uid, entry.pw_gid
