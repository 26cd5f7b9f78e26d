"""PostgreSQL on test hosts, kept by real agents: three hosts with an etcd member and an engine each, and a router.

Used by fault tests and benches. `Ground` is what every manager of engines stands on: the hosts, etcd, a folder, and the
faults that need no knowledge of the manager; bench/patroni.py puts a peer on the same. `PgHosts` is understudy on it.

    with PgHosts() as pg:                         # h1, h2, h3: nodes a, b, c; h4: the router
        with pg.ledger() as ledger:               # writers on the write port, here
            struck_s = pg.kill_postmaster(pg.primary())
            ledger.wait_over(struck_s, least_s=3)
        assert not ledger.audit().lost

Needs root. Everything is gone at the end, whatever happened; what a SIGKILLed owner leaves, the next one sweeps away.
"""

import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.hosts import HERE, Host, Hosts
from tests.hosts import missing as missing_hosts
from tests.ledger import Failed, Ledger, ask

ENGINES = ("h1", "h2", "h3")
ROUTER = "h4"
NODES = {"a": "h1", "b": "h2", "c": "h3"}
SERVICE = "orders"
ENGINE_PORT, WRITE, READ = 5432, 7432, 7433
ETCD, ETCD_PEERS = 2379, 2380
HEARTBEAT_MS, ELECTION_MS = 50, 500
"""Of etcd: its defaults (100, 1000) are for members that are far from each other."""
START_S = 90.0
QUIT_S = 3.0
MEMORY, DISK = Path("/dev/shm"), Path("/tmp")
_SHM_RDONLY = 0o10000


def missing() -> str | None:
    """Why there can be no such hosts here, in words; None when there can."""
    lacking = [program for program in ("etcd", "haproxy") if shutil.which(program) is None]
    return missing_hosts() or (f"these hosts need {' and '.join(lacking)}" if lacking else None)


def wait_until(true: Callable[[], bool], what: str, patience_s: float = START_S, every_s: float = 0.1) -> None:
    """Wait for it. TimeoutError that says for what."""
    give_up_s = time.monotonic() + patience_s
    while not true():
        if time.monotonic() > give_up_s:
            raise TimeoutError(f"after {patience_s:.0f} s still not: {what}")
        time.sleep(every_s)


class Ground:
    """Four test hosts with etcd on the first three. A context manager; `memory`: files lie in memory, not on disk.

    The three hosts share this machine's disk, which real hosts would not.
    """

    def __init__(self, *, memory: bool = True) -> None:
        parent = MEMORY if memory else DISK
        _sweep(parent)
        self.memory = memory
        self.folder = Path(tempfile.mkdtemp(prefix=f"us-pg-{os.getpid()}-", dir=parent))
        self.folder.chmod(0o755)  # engines run as a user of their own, and must be able to pass
        self._members: dict[str, subprocess.Popen[Any]] = {}
        try:
            self.hosts = Hosts(*ENGINES, ROUTER)
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start everything and wait until it is in order."""
        self.start_etcd()

    def close(self) -> None:
        """End everything; may be called again."""
        for place in _disks(self.folder):
            unfreeze(place)  # nobody dies who waits for it
        self.hosts.close()
        _remove(self.folder)

    # --- etcd ---------------------------------------------------------------------------------------------------------

    @property
    def endpoints(self) -> list[str]:
        """IP:PORT of the members' clients' side."""
        return [f"{self.hosts[host].address}:{ETCD}" for host in ENGINES]

    def start_etcd(self, *hosts: str) -> None:
        """Start the members of these hosts (none named: of all) and wait until they have a leader."""
        for host in hosts or ENGINES:
            self.start_member(host)
        wait_until(lambda: self.etcd_leader() is not None, "etcd has a leader")

    def start_member(self, name: str) -> None:
        """Start the member of that host, whether it finds the others or not."""
        host = self.hosts[name]
        home = self.folder / "etcd" / name
        home.mkdir(parents=True, exist_ok=True)
        url, peers = f"http://{host.address}:{ETCD}", f"http://{host.address}:{ETCD_PEERS}"
        argv = ["etcd", "--name", name, "--data-dir", str(home / "data"), "--log-level", "warn"]
        argv += ["--listen-client-urls", url, "--advertise-client-urls", url]
        argv += ["--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers]
        argv += ["--initial-cluster", self._everybody(), "--experimental-watch-progress-notify-interval=1s"]
        argv += [f"--heartbeat-interval={HEARTBEAT_MS}", f"--election-timeout={ELECTION_MS}"]
        argv += ["--enable-v2=false", "--pre-vote"]  # else a member that comes back costs an election
        with (home / "log").open("ab") as log:
            self._members[name] = host.start(argv, stdout=log, stderr=log)

    def _everybody(self) -> str:
        return ",".join(f"{each}=http://{self.hosts[each].address}:{ETCD_PEERS}" for each in ENGINES)

    def kill_etcd(self, *hosts: str) -> None:
        """SIGKILL the members of these hosts (none named: of all); start_etcd brings them back with what they had."""
        for host in hosts or ENGINES:
            self._members[host].kill()
            self._members[host].wait()

    def wipe_etcd(self) -> None:
        """Kill all members and forget all that they had."""
        self.kill_etcd()
        shutil.rmtree(self.folder / "etcd")

    def save_etcd(self) -> None:
        """Keep a copy of all that the members have now; they must be dead."""
        shutil.copytree(self.folder / "etcd", self.folder / "etcd.kept")

    def restore_etcd(self) -> None:
        """Give the dead members back what they had when it was saved."""
        shutil.rmtree(self.folder / "etcd")
        (self.folder / "etcd.kept").rename(self.folder / "etcd")

    def renew_etcd(self, token: str) -> None:
        """Save a snapshot of what etcd has now, and start it anew from that, as another cluster of that token."""
        file = str(self.folder / "snapshot")
        environment = {**os.environ, "ETCDCTL_API": "3"}
        save = ["etcdctl", "--endpoints", self.endpoints[0], "snapshot", "save", file]
        subprocess.run(save, env=environment, check=True, capture_output=True, timeout=60)
        self.wipe_etcd()
        for host in ENGINES:
            restore = ["etcdctl", "snapshot", "restore", file, "--name", host, "--initial-cluster-token", token]
            restore += ["--initial-cluster", self._everybody(), "--data-dir", str(self.folder / "etcd" / host / "data")]
            restore += ["--initial-advertise-peer-urls", f"http://{self.hosts[host].address}:{ETCD_PEERS}"]
            subprocess.run(restore, env=environment, check=True, capture_output=True, timeout=60)
        self.start_etcd()

    def etcd_leader(self) -> str | None:
        """The host whose member leads, by the members' own words; None when they do not agree on one."""
        leaders: set[str] = set()
        ids: dict[str, str] = {}
        for name in ENGINES:
            if self._members[name].poll() is None:
                try:
                    said = self._etcd(name, "maintenance/status", {})
                except (OSError, ValueError):
                    continue
                ids[said["header"]["member_id"]] = name
                leaders.add(said.get("leader", "0"))
        return ids.get(leaders.pop()) if len(leaders) == 1 else None

    def move_etcd_leader(self, host: str) -> None:
        """Let this host's member lead."""
        wait_until(lambda: self._moved(host), f"etcd is led from {host}", every_s=0.02)

    def _moved(self, host: str) -> bool:
        """Whether that member leads, or was just made to: somebody else may move it on at once."""
        leader = self.etcd_leader()
        if leader in (None, host):
            return leader == host
        try:
            wanted = self._etcd(host, "maintenance/status", {})["header"]["member_id"]
            self._etcd(leader, "maintenance/transfer-leadership", {"targetID": wanted})
        except (OSError, ValueError):  # they have just elected another one
            return False
        return True

    def _etcd(self, host: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            f"http://{self.hosts[host].address}:{ETCD}/v3/{path}", json.dumps(body).encode(), method="POST"
        )
        with urllib.request.urlopen(request, timeout=2) as answer:
            return dict(json.loads(answer.read()))

    # --- faults; each answers when it was about to strike, by the monotonic clock -------------------------------------

    def power_off(self, host: str) -> float:
        """Kill everything on the host; what it had in memory is gone."""
        struck_s = time.monotonic()
        self.hosts[host].kill_all()
        return struck_s

    def link_down(self, host: str) -> float:
        """Pull the host's cable."""
        struck_s = time.monotonic()
        self.hosts[host].link_down()
        return struck_s

    def link_up(self, host: str) -> None:
        """Put it back."""
        self.hosts[host].link_up()

    def cut(self, sender: str, receivers: Sequence[str], ports: Sequence[int] = ()) -> float:
        """What the one sends to the others (to these TCP ports only, if any) is lost; the other way still works.

        `mend` takes it back.
        """
        struck_s = time.monotonic()
        for receiver in receivers:
            self.hosts.cut(sender, receiver, ports)
        return struck_s

    def part(self, host: str, others: Sequence[str], ports: Sequence[int] = ()) -> float:
        """Cut both ways between the host and the others; by ports: whoever of them listens there."""
        struck_s = time.monotonic()
        for other in others:
            self.hosts.cut(host, other, ports)
            self.hosts.cut(other, host, ports)
        return struck_s

    def lose(self, host: str, percent: int) -> float:
        """That share of all packets from and to the host is lost. `mend` takes it back."""
        struck_s = time.monotonic()
        for other in self.others(host):
            self.hosts.lose(host, other, percent)
            self.hosts.lose(other, host, percent)
        return struck_s

    def mend(self) -> None:
        """Take back cuts and losses, not pulled cables."""
        self.hosts.mend()

    def others(self, host: str) -> list[str]:
        """All other hosts, and us."""
        return [each for each in (*ENGINES, ROUTER, HERE) if each != host]


class Engines(Ground):
    """A manager's three engines on it, whoever manages them. Each manager fills in the first part."""

    def managers(self) -> list[subprocess.Popen[Any]]:
        """The processes that would start an engine again."""
        raise NotImplementedError

    @property
    def conninfo(self) -> str:
        """Of the port that leads to the primary, as superuser."""
        raise NotImplementedError

    def data(self, node: str) -> Path:
        """The node's data directory."""
        raise NotImplementedError

    def primary(self) -> str:
        """The node that is primary; empty when there is none."""
        raise NotImplementedError

    def is_steady(self) -> bool:
        """Whether there is a primary, everybody follows it, and nothing is under way."""
        raise NotImplementedError

    def target(self) -> str:
        """A node that a switchover may go to."""
        primary = self.primary()
        return next(node for node in NODES if node != primary)

    def switchover(self, to: str) -> float:
        """Order it and wait for its end."""
        raise NotImplementedError

    def said(self) -> str:
        """The end of what the managers have said, for whoever wonders why a test failed."""
        raise NotImplementedError

    def close(self) -> None:
        """End everything; may be called again. Engines that end by themselves give back their memory."""
        for process in self.managers():
            process.kill()
        left = [node for node in NODES if self._quit(node)]
        give_up_s = time.monotonic() + QUIT_S
        while any(map(self._lives, left)) and time.monotonic() < give_up_s:
            time.sleep(0.02)
        for node in NODES:
            self._forget_memory(node)
        super().close()

    def _quit(self, node: str) -> bool:
        """Whether there was an engine to be told."""
        if not self._lives(node):
            return False
        with contextlib.suppress(OSError, ValueError):  # it has just ended
            for number in (signal.SIGQUIT, signal.SIGCONT):
                os.kill(self.postmaster(node), number)
        return True

    def _lives(self, node: str) -> bool:
        try:
            return Path(f"/proc/{self.postmaster(node)}/cwd").resolve() == self.data(node).resolve()
        except (OSError, ValueError, IndexError):
            return False

    def _forget_memory(self, node: str) -> None:
        """Remove the segment of a killed engine, which else only the next start on the same data would."""
        with contextlib.suppress(OSError, IndexError):
            segment = (self.data(node) / "postmaster.pid").read_text().splitlines()[6].split()[1]
            subprocess.run(["ipcrm", "-m", segment], check=False, stderr=subprocess.DEVNULL)

    def wait_steady(self, patience_s: float = START_S) -> None:
        """Wait until all is well and clients can write."""
        try:
            wait_until(self.is_steady, "the cluster is steady", patience_s)
            wait_until(self.accepts_writes, "the write port accepts writes", 40)
        except TimeoutError as late:
            raise TimeoutError(f"{late}\n{self.said()}") from None

    def accepts_writes(self) -> bool:
        """Whether a client can write."""
        sql = "CREATE TABLE IF NOT EXISTS tried (at timestamptz); INSERT INTO tried VALUES (now())"
        try:
            ask(self.conninfo, sql, deadline_s=5.0)
        except Failed:
            return False
        return True

    def ledger(self, **options: Any) -> Ledger:
        """Writers on the write port, with an empty table."""
        Ledger.prepare(self.conninfo)
        return Ledger(self.conninfo, **options)

    # --- faults -------------------------------------------------------------------------------------------------------

    def postmaster(self, node: str) -> int:
        """Its pid. FileNotFoundError when the engine is down."""
        return int((self.data(node) / "postmaster.pid").read_text().split()[0])

    def backends(self, node: str) -> list[int]:
        """The pids of the engine's other processes."""
        postmaster = self.postmaster(node)
        return [int(pid) for pid in Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()]

    def kill_postmaster(self, node: str) -> float:
        """SIGKILL the postmaster alone."""
        pid, struck_s = self.postmaster(node), time.monotonic()
        os.kill(pid, signal.SIGKILL)
        return struck_s

    def freeze_postmaster(self, node: str) -> float:
        """SIGSTOP the postmaster alone; `thaw` lets it go on."""
        return _signal([self.postmaster(node)], signal.SIGSTOP)

    def freeze_engine(self, node: str) -> float:
        """SIGSTOP all of the engine."""
        return _signal([self.postmaster(node), *self.backends(node)], signal.SIGSTOP)

    def freeze_host(self, host: str) -> float:
        """SIGSTOP everything on the host, like a virtual machine that is paused."""
        return _signal(self.hosts[host].pids(), signal.SIGSTOP)

    def thaw(self, host: str) -> None:
        """SIGCONT everything on the host."""
        _signal(self.hosts[host].pids(), signal.SIGCONT)

    def host_of(self, node: str) -> Host:
        """The host of a node."""
        return self.hosts[NODES[node]]


class PgHosts(Engines):
    """understudy with a three-node PostgreSQL on it. `service` is more YAML for it, four spaces deep.

    durability: `zero_loss`, or `{max_loss: 1MiB}`. disk_mib: each engine's host has a disk of its own of that size,
    which holds all that its agent keeps and the engine's data. command: how the agent of a host is started, if not as
    it is; it gets the host's name and the words.
    """

    def __init__(
        self,
        *,
        durability: str = "zero_loss",
        lease: str = "4s",
        memory: bool = True,
        service: str = "",
        disk_mib: int = 0,
        command: Callable[[str, list[str]], list[str]] = lambda _host, words: words,
    ) -> None:
        super().__init__(memory=memory)
        self.agents: dict[str, subprocess.Popen[Any]] = {}
        self._disk_mib = disk_mib
        self._command = command
        self.spec = self.folder / "spec.yaml"
        self.spec.write_text(self._spec(durability, lease, service))

    def start(self) -> None:
        """Start everything and wait until it is in order."""
        super().start()
        for host in ENGINES if self._disk_mib else ():
            make_disk(self.folder / f"{host}.disk", self.state(host), self._disk_mib)
        for host in (*ENGINES, ROUTER):
            self.start_agent(host)
        wait_until(lambda: self._an_agent_ended() or self.is_steady(), "the cluster is steady")
        if self._an_agent_ended():
            raise RuntimeError(f"an agent ended:\n{self.said()}")
        self.wait_steady()

    def _an_agent_ended(self) -> bool:
        return any(agent.poll() is not None for agent in self.agents.values())

    def _spec(self, durability: str, lease: str, service: str) -> str:
        addresses = ", ".join(f"{host.name}: {host.address}" for host in self.hosts)
        endpoints = ", ".join(f'"{endpoint}"' for endpoint in self.endpoints)
        nodes = "".join(
            f"      - {{name: {node}, host: {host}, address: '{self.hosts[host].address}:{ENGINE_PORT}', "
            f"data: {SERVICE}/{node}}}\n"
            for node, host in NODES.items()
        )
        return (
            "cluster: test\n"
            f"store: {{etcd: {{endpoints: [{endpoints}]}}}}\n"
            f"hosts: {{{addresses}}}\n"
            f"routers: [{ROUTER}]\n"
            "services:\n"
            f"  {SERVICE}:\n"
            "    kind: postgres\n"
            f"    listen: {{write: 0.0.0.0:{WRITE}, read: 0.0.0.0:{READ}}}\n"
            f"    durability: {durability}\n"
            f"    failover: {{lease: {lease}}}\n"
            f"    nodes:\n{nodes}{service}"
        )

    # --- agents -------------------------------------------------------------------------------------------------------

    def start_agent(self, host: str) -> None:
        """Start the agent of that host; what it says is in FOLDER/HOST.out."""
        argv = [str(Path(sys.executable).parent / "understudy"), "agent", str(self.spec), "--host", host]
        with (self.folder / f"{host}.out").open("ab") as log:
            self.agents[host] = self.hosts[host].start(
                self._command(host, [*argv, "--state-dir", str(self.state(host))]), stdout=log, stderr=log
            )

    def managers(self) -> list[subprocess.Popen[Any]]:
        """The agents."""
        return list(self.agents.values())

    def end_agent(self, host: str) -> None:
        """Let it end in order (SIGTERM), and wait."""
        self.agents[host].terminate()
        self.agents[host].wait(60)

    def kill_agent(self, host: str) -> float:
        """SIGKILL it; its engine and router go on."""
        struck_s = time.monotonic()
        self.agents[host].kill()
        self.agents[host].wait()
        return struck_s

    def state(self, host: str) -> Path:
        """The state directory of that host's agent."""
        return self.folder / host

    def said(self) -> str:
        """The end of what each agent has said, and what goes on there, for whoever wonders why a test failed."""
        return "\n".join(f"{host}:\n{self._said(host)}" for host in (*ENGINES, ROUTER))

    def _said(self, host: str) -> str:
        file = self.folder / f"{host}.out"
        output = file.read_text()[-3000:] if file.exists() else ""
        try:
            nodes = "\n".join(f"{node['name']}: {node['reason']}" for node in self.cluster(host)["nodes"])
        except OSError as why:
            nodes = str(why)
        pids = ",".join(map(str, self.hosts[host].pids()))
        shown = ["ps", "-o", "pid,ppid,stat,wchan:20,etime,args", "-p", pids or "0"]
        return f"{output}\n{nodes}\n{subprocess.run(shown, capture_output=True, text=True, check=False).stdout}"

    def ask(self, path: str, body: dict[str, Any] | None = None, *, of: str = ROUTER, patience_s: float = 15.0) -> Any:
        """Ask the API of that host's agent, as a person there would. OSError when it does not answer."""

        def fetch() -> Any:
            data = json.dumps(body).encode() if body is not None else None
            request = urllib.request.Request(f"http://127.0.0.1:8600/api/v1/{path}", data)
            request.add_header("Content-Type", "application/json")
            with urllib.request.urlopen(request, timeout=patience_s) as answer:
                return json.loads(answer.read())

        try:
            return self.hosts[of].inside(fetch)
        except urllib.error.HTTPError as refusal:
            raise OSError(refusal.read().decode(errors="replace")) from None

    def cluster(self, of: str = ROUTER) -> dict[str, Any]:
        """The cluster's part of `status`."""
        return dict(self.ask("status", of=of)["clusters"][0])

    def primary(self, of: str = ROUTER) -> str:
        """The node that is primary by the record; empty when there is none."""
        return self.cluster(of)["primary"] or ""

    def is_steady(self, of: str = ROUTER) -> bool:
        """Whether there is a primary, everybody follows it, and nothing is under way."""
        try:
            seen = self.cluster(of)
        except OSError:
            return False
        roles = sorted(node["role"] for node in seen["nodes"])
        well = all(node["health"] == "up" for node in seen["nodes"])
        return seen["phase"] == "steady" and seen["health"] == "up" and well and roles == ["primary", *2 * ["standby"]]

    def switchover(self, to: str) -> float:
        """Order it and wait for its end."""
        struck_s = time.monotonic()
        self.wish("switchover", to)
        return struck_s

    def wish(self, kind: str, node: str | None = None) -> str:
        """Order something of the cluster and wait for its end; the sentence about it. OSError when it is refused."""
        order = {"kind": kind, "node": node}
        return str(self.ask(f"services/{SERVICE}/wishes", order, patience_s=60)["reason"])

    # --- clients ------------------------------------------------------------------------------------------------------

    @property
    def conninfo(self) -> str:
        """Of the write port, as superuser."""
        return self._conninfo(self.hosts[ROUTER].address, WRITE)

    def conninfo_of(self, node: str) -> str:
        """Of one engine, past the router."""
        return self._conninfo(self.hosts[NODES[node]].address, ENGINE_PORT)

    def _conninfo(self, address: str, port: int) -> str:
        return f"host={address} port={port} user=postgres passfile={self.passfile}"

    @property
    def passfile(self) -> Path:
        """Holds the superuser's password, in libpq's form."""
        return self.state(ROUTER) / f"{SERVICE}.pgpass"

    def data(self, node: str) -> Path:
        """The node's data directory."""
        return self.state(NODES[node]) / "data" / SERVICE / node

    def freeze_agent(self, host: str) -> float:
        """SIGSTOP the agent alone."""
        return _signal([self.agents[host].pid], signal.SIGSTOP)

    def kill_node(self, node: str) -> float:
        """SIGKILL agent, guard and engine of the node's host; the store's member there lives. `start_agent` follows."""
        host = NODES[node]
        struck_s = time.monotonic()
        while own := [pid for pid in self.hosts[host].pids() if pid != self._members[host].pid]:
            _signal(own, signal.SIGKILL)
            self.agents[host].wait()
            time.sleep(0.01)
        return struck_s

    def power_on(self, host: str) -> None:
        """Start what was on a host that had been powered off: its member of etcd, and its agent."""
        if host in ENGINES:
            self.start_member(host)
        self.start_agent(host)

    # --- disks --------------------------------------------------------------------------------------------------------

    def fill_disk(self, host: str) -> float:
        """Leave not a single block of it."""
        struck_s = time.monotonic()
        with (self.state(host) / "filler").open("ab") as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(65536))
                file.flush()
        return struck_s

    def empty_disk(self, host: str) -> None:
        """Give back what `fill_disk` took."""
        (self.state(host) / "filler").unlink(missing_ok=True)

    def hang_disk(self, host: str) -> float:
        """From now on no write to it comes back."""
        struck_s = time.monotonic()
        subprocess.run(["fsfreeze", "-f", self.state(host)], check=True, timeout=60)
        return struck_s

    def unhang_disk(self, host: str) -> None:
        """Let it go on."""
        unfreeze(self.state(host))


def _signal(pids: Sequence[int], number: int) -> float:
    struck_s = time.monotonic()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.kill(pid, number)
    return struck_s


def make_disk(image: Path, place: Path, size_mib: int) -> None:
    """A file system of its own at that place, none of it for root alone."""
    place.mkdir(parents=True)
    with image.open("wb") as file:
        file.truncate(size_mib << 20)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-m", "0", "-O", "^has_journal", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    place.chmod(0o755)


def unfreeze(place: Path) -> None:
    """Let a frozen file system go on; one that goes on stays as it is."""
    subprocess.run(["fsfreeze", "-u", place], check=False, stderr=subprocess.DEVNULL)


def _sweep(parent: Path) -> None:
    """Remove the folders of owners that are gone."""
    for folder in parent.glob("us-pg-*"):
        owner = re.match(r"us-pg-(\d+)-", folder.name)
        if owner and not Path("/proc", owner[1]).exists():
            _remove(folder)


def _remove(folder: Path) -> None:
    """The folder with its disks, and the shared memory that killed engines with data in it have left behind."""
    for file in folder.rglob("postmaster.pid"):
        forget_memory(file.parent)
    for place in _disks(folder):
        unfreeze(place)
        subprocess.run(["umount", "-l", place], check=False)
    shutil.rmtree(folder, ignore_errors=True)


def _disks(folder: Path) -> list[Path]:
    mounts = (Path(line.split()[1]) for line in Path("/proc/self/mounts").read_text().splitlines())
    return [place for place in mounts if folder in place.parents]


def forget_memory(data: Path) -> None:
    """Remove the shared memory of the dead engine of this data, which its next start would do, should there be one."""
    with contextlib.suppress(OSError, IndexError, ValueError, struct.error):
        segment = int((data / "postmaster.pid").read_text().splitlines()[6].split()[1])
        for handle in _dynamic_memory(segment):
            Path(f"/dev/shm/PostgreSQL.{handle}").unlink(missing_ok=True)
        subprocess.run(["ipcrm", "-m", str(segment)], check=False, stderr=subprocess.DEVNULL)


def _dynamic_memory(segment: int) -> list[int]:
    """The names of the memory in /dev/shm, which the segment leads to by PostgreSQL's own structures."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.shmat.restype = ctypes.c_void_p
    address = libc.shmat(segment, None, _SHM_RDONLY)
    if address == ctypes.c_void_p(-1).value:
        return []
    header = ctypes.string_at(address, 28)
    libc.shmdt(ctypes.c_void_p(address))
    (control,) = struct.unpack_from("I", header, 24)
    text = Path(f"/dev/shm/PostgreSQL.{control}").read_bytes()
    (used,) = struct.unpack_from("I", text, 4)
    items = [struct.unpack_from("I", text, 16 + 40 * number)[0] for number in range(used)]
    return [control, *(handle for handle in items if handle % 2)]  # the even ones are in the segment itself
