"""The test hosts themselves: links, cuts, losses, processes, and that nothing is left behind, whatever happens."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.hosts import HERE, NAMESPACES, Hosts, missing

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))

ECHO = (
    "import socket, sys\n"
    "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
    "s.bind((sys.argv[1], 9000))\n"
    "print('ready', flush=True)\n"
    "while True:\n"
    "    data, sender = s.recvfrom(100)\n"
    "    print(data.decode(), flush=True)\n"
    "    s.sendto(data, sender)\n"
)


SOON_S, SURELY_S = 0.3, 20.0
"""How long nobody may answer; how long somebody may take on a busy machine."""


def answers(address: str, asked: int = 1, wait_s: float = SOON_S) -> int:
    """How many of `asked` datagrams to the echo server come back, each of them that long after the one before."""
    back = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
        here.settimeout(wait_s)
        here.connect((address, 9000))
        for number in range(asked):
            here.send(b"%d" % number)
        with contextlib.suppress(TimeoutError, ConnectionRefusedError):
            while back < asked:
                here.recv(100)
                back += 1
    return back


def answered(address: str) -> bool:
    """Whether a datagram comes back, however busy the machine is."""
    return answers(address, wait_s=SURELY_S) == 1


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    with Hosts("a", "b") as made:
        yield made


def start_echo(hosts: Hosts) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", ECHO, hosts["a"].address]
    echo: subprocess.Popen[str] = hosts["a"].start(argv, stdout=subprocess.PIPE, text=True)
    assert echo.stdout is not None
    assert echo.stdout.readline() == "ready\n"
    return echo


def test_links_and_processes(hosts: Hosts) -> None:
    """A pulled cable silences a host until it is put back; stop, continue and kill reach the very process."""
    echo = start_echo(hosts)
    assert answered(hosts["a"].address)
    hosts["a"].link_down()
    assert answers(hosts["a"].address) == 0
    hosts["a"].link_up()
    give_up_s = time.monotonic() + SURELY_S
    while not answers(hosts["a"].address):  # the first may be lost while neighbours are found
        assert time.monotonic() < give_up_s, "the cable is back and nobody answers"
    assert hosts["a"].pids() == [echo.pid]
    os.kill(echo.pid, signal.SIGSTOP)
    assert answers(hosts["a"].address) == 0
    hosts["a"].kill_all()
    assert echo.returncode == -signal.SIGKILL


def test_inside_reaches_what_only_the_host_can(hosts: Hosts) -> None:
    """A function run inside a host meets that host's loopback, and the caller's own network stays as it was."""

    def loopback() -> int:
        with socket.create_server(("127.0.0.1", 0)) as server:
            return hosts["a"].inside(lambda: socket.socket().connect_ex(server.getsockname()))

    assert loopback() != 0, "the caller's loopback must not be there"
    start_echo(hosts)
    assert hosts["a"].inside(answered, hosts["a"].address)
    assert answered(hosts["a"].address)


def test_cut_is_one_way(hosts: Hosts) -> None:
    """With the way back cut, requests still arrive and answers do not; with the way there cut, nothing arrives."""
    echo = start_echo(hosts)
    assert echo.stdout is not None
    assert answered(hosts["a"].address)
    hosts.cut("a", HERE)
    assert answers(hosts["a"].address) == 0
    hosts.cut(HERE, "a")
    assert answers(hosts["a"].address) == 0
    hosts.mend()
    assert answered(hosts["a"].address)
    echo.kill()
    assert len(echo.stdout.readlines()) == 3, "the request of the second cut must not have arrived"


def test_loss_is_a_share(hosts: Hosts) -> None:
    """Half of the packets lost means about half of the answers missing."""
    start_echo(hosts)
    hosts.lose(HERE, "a", 50)
    assert 10 <= answers(hosts["a"].address, asked=60, wait_s=1.0) <= 50


OWNER = (
    "import signal, time\n"
    "from tests.hosts import Hosts\n"
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # whoever started the tests may ignore it
    "with Hosts('a') as hosts:\n"
    "    print(hosts['a'].namespace, hosts['a'].start(['sleep', '600']).pid, flush=True)\n"
    "    time.sleep(600)\n"
)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left(how: signal.Signals) -> None:
    """However the owner ends, its hosts and their processes go: at once, or with the next sweep after a SIGKILL."""
    root = Path(__file__).parents[2]
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert owner.stdout is not None
        namespace, pid = owner.stdout.readline().split()
        assert (NAMESPACES / namespace).exists()
        owner.send_signal(how)
        owner.wait(60)
    finally:
        owner.kill()
        owner.wait()
    with Hosts("other"):  # making hosts sweeps
        assert not (NAMESPACES / namespace).exists()
        assert not is_running(int(pid))


def is_running(pid: int) -> bool:
    """Whether the process is there for another two seconds; an orphan may wait that long for its new parent."""
    give_up = time.monotonic() + 2
    while time.monotonic() < give_up:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return False
        except FileNotFoundError:
            return False
        time.sleep(0.02)
    return True
