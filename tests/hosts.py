"""Test hosts: network namespaces on one switch, with links that can be pulled, cut one way or made lossy.

Used by integration tests and benches; knows nothing of understudy. A host shares the file system and the process table
with everybody else; what it has of its own is its network. The calling process stays outside and sits on the same
switch under the name `here`. Needs root, iproute2 and nftables. Nothing but test hosts may live here.

    with Hosts("a", "b") as hosts:
        hosts["a"].start(["some-server", hosts["a"].address])
        hosts.cut("a", "b")            # what a sends to b is lost; b still reaches a
        hosts["a"].link_down()

Everything disappears on close, at exit, on Ctrl-C, SIGTERM and SIGHUP. What a SIGKILLed owner leaves behind is swept
away when the next test hosts are made: each set of hosts is reserved by a socket that dies with its owner.
"""

import atexit
import contextlib
import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

HERE = "here"
"""The name of the calling process's own place on the switch."""

NAMESPACES = Path("/run/netns")
_OURS = re.compile(r"ustest-(?P<owner>\d+)-(?P<number>\d+)-.+")
_KILL_S = 60.0
_ENTER_S = 60.0
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

T = TypeVar("T")

os.environ["PATH"] += ":/usr/sbin:/sbin"  # ip and nft live there, and not every user's PATH has it


def missing() -> str | None:
    """Why test hosts cannot be made here, in words; None when they can."""
    if os.geteuid() != 0:
        return "test hosts need root (network namespaces)"
    lacking = [program for program in ("ip", "nft") if shutil.which(program) is None]
    return f"test hosts need {' and '.join(lacking)}: apt-get install iproute2 nftables" if lacking else None


class Host:
    """One test host. `address` is its IPv4 address on the switch, `namespace` what `ip netns` calls it."""

    def __init__(self, hosts: "Hosts", name: str, address: str) -> None:
        self.name = name
        self.address = address
        self.namespace = hosts.namespace(name)
        self._switch = hosts.namespace("switch")
        self._started: list[subprocess.Popen[Any]] = []

    def start(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a program on this host; the answer's `pid` is the program's own. Options as for Popen.

        It gets a session of its own, so that a Ctrl-C reaches us first and we end it in order.
        """
        command = ["ip", "netns", "exec", self.namespace, *argv]
        process = subprocess.Popen(command, **{"start_new_session": True, "stdin": subprocess.DEVNULL} | options)
        self._started.append(process)
        self._wait_inside(process)  # until then, whoever ends this host's processes would miss it
        return process

    def _wait_inside(self, process: subprocess.Popen[Any]) -> None:
        here = (NAMESPACES / self.namespace).stat().st_ino
        give_up = time.monotonic() + _ENTER_S
        while process.poll() is None and time.monotonic() < give_up:
            with contextlib.suppress(OSError):  # it has just ended
                if Path(f"/proc/{process.pid}/ns/net").stat().st_ino == here:
                    return
            time.sleep(0.001)

    def run(self, argv: Sequence[str], timeout_s: float = 60.0) -> str:
        """Run a program on this host to its end and answer its output; RuntimeError when it fails."""
        return _run("ip", "netns", "exec", self.namespace, *argv, timeout_s=timeout_s)

    def inside(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call the function in a thread whose new sockets are on this host, and answer what it answers."""
        answer: Future[T] = Future()

        def work() -> None:
            try:
                _enter(self.namespace)
                answer.set_result(function(*arguments))
            except BaseException as fault:  # noqa: BLE001  whatever it is, it is the caller's to see
                answer.set_exception(fault)

        Thread(target=work, daemon=True).start()  # daemon: a Ctrl-C must not wait for it
        return answer.result()

    def pids(self) -> list[int]:
        """Every process on this host, started by us or by one of its own."""
        return _pids(self.namespace)

    def kill_all(self) -> None:
        """End every process on this host with SIGKILL and wait until they are gone, like a power cut."""
        _kill_all([self.namespace])
        for process in self._started:
            process.wait(_KILL_S)

    def link_down(self) -> None:
        """Pull this host's cable: nothing comes or goes, and both ends lose their carrier."""
        _run("ip", "-n", self._switch, "link", "set", "dev", self.name, "down")

    def link_up(self) -> None:
        """Put this host's cable back."""
        _run("ip", "-n", self._switch, "link", "set", "dev", self.name, "up")


class Hosts:
    """A set of test hosts on one switch; use it as a context manager.

    Names have at most 12 letters or digits. Addresses are 10.77.X.1, .2, … in the order of the names, X free on this
    machine, and 10.77.X.254 `here`.
    """

    def __init__(self, *names: str) -> None:
        reason = missing()
        if reason is not None:
            raise RuntimeError(reason)
        for name in names:
            if not re.fullmatch(r"[a-z][a-z0-9]{0,11}", name) or name in (HERE, "switch"):
                raise ValueError(f"{name!r} cannot be the name of a test host")
        sweep()
        self._reservation, self._number = _reserve()
        self._filters: dict[tuple[str, str], tuple[str, ...]] = {}
        self._hosts = {
            name: Host(self, name, f"10.77.{self._number}.{place}") for place, name in enumerate(names, start=1)
        }
        self.here = f"10.77.{self._number}.254"
        _install_signals()
        atexit.register(self.close)
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getitem__(self, name: str) -> Host:
        return self._hosts[name]

    def __iter__(self) -> Iterator[Host]:
        return iter(self._hosts.values())

    def namespace(self, name: str) -> str:
        """What `ip netns` calls the host of that name; the owner's pid is in it for people who wonder."""
        return f"ustest-{os.getpid()}-{self._number}-{name}"

    def cut(self, sender: str, receiver: str, ports: Sequence[int] = ()) -> None:
        """From now on, what `sender` sends to `receiver` is lost; not the other way.

        ports: only in connections to these ports, whichever of the two listens there.
        """
        among = f"{{ {', '.join(map(str, ports))} }}"
        both = [f"tcp {end} {among} drop" for end in ("dport", "sport")]
        self._filter(sender, receiver, *(both if ports else ["drop"]))

    def lose(self, sender: str, receiver: str, percent: int) -> None:
        """From now on, this share of the packets from `sender` to `receiver` is lost, by chance."""
        self._filter(sender, receiver, f"numgen random mod 100 < {percent} drop")

    def mend(self) -> None:
        """Take back every cut and every loss; a pulled cable stays pulled."""
        self._filters.clear()
        self._write_filters()

    def close(self) -> None:
        """End everything on the hosts, then the hosts. May be called again."""
        atexit.unregister(self.close)
        for host in self:
            if (NAMESPACES / host.namespace).exists():
                host.kill_all()
        _remove([host.namespace for host in self] + [self.namespace("switch")], self._number)
        self._reservation.close()

    def _build(self) -> None:
        switch = self.namespace("switch")
        for namespace in [switch, *(host.namespace for host in self)]:
            _run("ip", "netns", "add", namespace)
        _batch(switch, ["link add bridge type bridge", "link set dev bridge up"])
        _run("ip", "link", "add", _uplink(self._number), "type", "veth", "peer", "name", HERE, "netns", switch)
        _run("ip", "address", "add", f"{self.here}/24", "dev", _uplink(self._number))
        _run("ip", "link", "set", "dev", _uplink(self._number), "up")
        for host in self:
            peer = ["type", "veth", "peer", "name", host.name, "netns", switch]
            _run("ip", "link", "add", "eth0", "netns", host.namespace, *peer)
            _batch(
                host.namespace,
                ["link set dev lo up", f"address add {host.address}/24 dev eth0", "link set dev eth0 up"],
            )
        ports = [HERE, *(host.name for host in self)]
        _batch(switch, [f"link set dev {port} master bridge up" for port in ports])

    def _filter(self, sender: str, receiver: str, *verdicts: str) -> None:
        self._filters[sender, receiver] = verdicts
        self._write_filters()

    def _write_filters(self) -> None:
        """All filters sit in the switch, where both ends have no say; ARP passes, so a cut is silence and no error."""
        rules = [
            f"ip saddr {self._address(sender)} ip daddr {self._address(receiver)} {verdict}"
            for (sender, receiver), verdicts in self._filters.items()
            for verdict in verdicts
        ]
        anew = ["table bridge hosts", "delete table bridge hosts"]
        chain = ["chain forward {", "type filter hook forward priority 0;", *rules, "}"]
        text = "\n".join([*anew, "table bridge hosts {", *chain, "}"])
        _run("ip", "netns", "exec", self.namespace("switch"), "nft", "-f", "-", input_text=text)

    def _address(self, name: str) -> str:
        return self.here if name == HERE else self[name].address


def sweep() -> None:
    """Remove the test hosts whose owner is gone."""
    groups: dict[int, list[str]] = {}
    for namespace in NAMESPACES.glob("ustest-*"):
        if ours := _OURS.fullmatch(namespace.name):
            groups.setdefault(int(ours["number"]), []).append(namespace.name)
    for number, namespaces in groups.items():
        with contextlib.suppress(OSError), _reservation(number):  # OSError: its owner lives
            _remove(namespaces, number)


def _enter(namespace: str) -> None:
    """Move the calling thread, and nothing else of this process, into the namespace."""
    with (NAMESPACES / namespace).open() as place:
        if _libc.setns(place.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")


def _uplink(number: int) -> str:
    return f"ustest{number}"


def _reservation(number: int) -> socket.socket:
    """Hold the number until the socket is closed or this process dies; OSError when another process has it."""
    holder = socket.socket(socket.AF_UNIX)
    try:
        holder.bind(f"\0understudy-test-hosts-{number}")
    except OSError:
        holder.close()
        raise
    return holder


def _reserve() -> tuple[socket.socket, int]:
    used = _run("ip", "-o", "address")
    for number in range(1, 255):
        if f" 10.77.{number}." in used:
            continue
        with contextlib.suppress(OSError):
            return _reservation(number), number
    raise RuntimeError("no free network 10.77.X.0/24 is left for test hosts")


def _pids(namespace: str) -> list[int]:
    return [int(pid) for pid in _run("ip", "netns", "pids", namespace).split()]


def _kill_all(namespaces: Sequence[str]) -> None:
    """Kill until nothing is left: what is killed may have been about to fork."""
    give_up = time.monotonic() + _KILL_S
    while pids := [pid for namespace in namespaces for pid in _pids(namespace)]:
        if time.monotonic() > give_up:
            raise RuntimeError(f"processes {pids} on test hosts do not die")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _remove(namespaces: Sequence[str], number: int) -> None:
    existing = [namespace for namespace in namespaces if (NAMESPACES / namespace).exists()]
    _kill_all(existing)
    if Path("/sys/class/net", _uplink(number)).exists():
        _run("ip", "link", "delete", "dev", _uplink(number))
    for namespace in existing:
        _run("ip", "netns", "delete", namespace)


def _batch(namespace: str, lines: Sequence[str]) -> None:
    _run("ip", "-n", namespace, "-batch", "-", input_text="\n".join(lines))


def _run(*argv: str, input_text: str | None = None, timeout_s: float = 60.0) -> str:
    done = subprocess.run(argv, input=input_text, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _install_signals() -> None:
    """Let the signals that would end us silently end us through `finally` and `atexit`, where close() waits."""

    def leave(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, leave)
