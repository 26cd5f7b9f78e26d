"""`understudy up` as a user meets it: the real command, HAProxy and servers, and every way in which it can go wrong."""

import contextlib
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from tests.ports import free_port

UNDERSTUDY = str(Path(sys.executable).with_name("understudy"))
SERVER = Path(__file__).parents[2] / "examples" / "server.py"
PATIENCE_S = 30.0

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount something over the real thing")

SPEC = """\
cluster: shop
api: 127.0.0.1:{api}
services:
  web:
    kind: http
    listen: 127.0.0.1:{web}
    health: {{http: {{path: /healthz}}, slow_start: 1s}}
    endpoints:
      - {{name: w1, address: "127.0.0.1:{w1}", run: [python3, server.py, w1, "{w1}"]}}
      - {{name: w2, address: "127.0.0.1:{w2}", run: [python3, server.py, w2, "{w2}"]}}
      - {{name: w3, address: "127.0.0.1:{w3}"}}
"""


class Place:
    """A folder with a spec, ports, and a state directory; whatever runs on it is known by the folder's name."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="us-"))
        shutil.copy(SERVER, self.folder / "server.py")
        self.ports = {name: free_port() for name in ("api", "web", "w1", "w2", "w3")}
        self.text = SPEC.format(**self.ports)
        self.spec = self.folder / "spec.yaml"
        self.spec.write_text(self.text)
        self.state = self.folder / "state"
        self.argv = [UNDERSTUDY, "up", str(self.spec), "--state-dir", str(self.state)]

    def without(self, name):
        """The spec without one endpoint."""
        return "".join(line for line in self.text.splitlines(keepends=True) if f"name: {name}" not in line)

    def run(self, *argv, timeout=60):
        return subprocess.run(
            [UNDERSTUDY, *argv],
            capture_output=True,
            text=True,
            timeout=timeout,
            env=os.environ | {"UNDERSTUDY_API": f"127.0.0.1:{self.ports['api']}"},
            check=False,
        )

    def get(self, path="/"):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['web']}{path}", timeout=10) as answer:
            return answer.read().decode().strip()

    def processes(self):
        """Everything that runs on this place: by its command line, or by the folder it works in."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    if command and (str(self.folder) in command or str(self.folder) in str((entry / "cwd").readlink())):
                        found[int(entry.name)] = command
        return found

    def clean(self):
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)


class Up:
    """A running `understudy up`; its lines as they come."""

    def __init__(self, argv) -> None:
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.lines, self._queue = [], queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def line_with(self, text):
        """The next line that contains the text."""
        deadline_s = time.monotonic() + PATIENCE_S
        while (left_s := deadline_s - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                line = self._queue.get(timeout=left_s)
                assert line is not None, f"ended before {text!r}: {self.lines}"
                self.lines.append(line)
                if text in line:
                    return line
        raise AssertionError(f"no line with {text!r} in {PATIENCE_S} s: {self.lines}")


@pytest.fixture
def place():
    made = Place()
    yield made
    made.clean()


def eventually(true, what):
    """Wait until it is true."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not (value := true()):
        assert time.monotonic() < deadline_s, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.1)
    return value


def test_a_day_in_the_life(place):
    """Up; an endpoint killed and seen; drained, changed, rolled back; a second `up` refused; Ctrl-C leaves nothing."""
    w3 = subprocess.Popen(
        [sys.executable, str(place.folder / "server.py"), "w3", str(place.ports["w3"])], stderr=subprocess.DEVNULL
    )
    up = Up(place.argv)
    try:
        ready = up.line_with("ready")
        assert f"web on http://127.0.0.1:{place.ports['web']}/ (3 of 3 endpoints up)" in ready
        assert f"http://127.0.0.1:{place.ports['api']}" in ready
        eventually(lambda: {place.get() for _ in range(30)} == {"w1", "w2", "w3"}, "all three serve")

        w3.kill()
        w3.wait()
        assert {place.get() for _ in range(60)} == {"w1", "w2"}
        up.line_with("w3")
        eventually(
            lambda: "endpoint.down" in place.run("events", "--service", "web").stdout, "w3's death in the journal"
        )
        status = json.loads(place.run("status", "--json").stdout)["services"][0]
        assert {each["name"]: each["oper"] for each in status["endpoints"]}["w3"] == "down"
        assert status["health"] == "degraded"
        assert "w3" in place.run("why", "web").stdout
        assert "DEGRADED" in place.run("status").stdout

        drained = place.run("drain", "web", "w1")
        assert drained.returncode == 0, drained
        assert "safe to stop" in drained.stdout
        assert {place.get() for _ in range(20)} == {"w2"}
        assert place.run("ready", "web", "w1").returncode == 0
        eventually(lambda: {place.get() for _ in range(20)} == {"w1", "w2"}, "w1 serves again")

        without_w2 = place.folder / "new.yaml"
        without_w2.write_text(place.without("w2"))
        assert "w2" in place.run("plan", str(without_w2)).stdout
        applied = place.run("apply", str(without_w2))
        assert applied.returncode == 0, applied
        eventually(lambda: {place.get() for _ in range(20)} == {"w1"}, "w2 is gone")
        assert len(place.run("versions").stdout.splitlines()) == 2
        assert place.run("apply", "--rollback").returncode == 0
        eventually(lambda: {place.get() for _ in range(20)} == {"w1", "w2"}, "w2 is back")
        assert place.run("apply", "--rollback", "77").returncode == 1

        second = subprocess.run(place.argv, capture_output=True, text=True, timeout=60, check=False)
        assert second.returncode == 1
        assert "in use by process" in one_sentence(second)
        assert place.get() in {"w1", "w2"}

        with urllib.request.urlopen(f"http://127.0.0.1:{place.ports['api']}/metrics", timeout=10) as answer:
            assert 'understudy_endpoint_state{endpoint="w3",service="web",state="down"} 1.0' in answer.read().decode()

        up.process.send_signal(signal.SIGINT)
        assert up.process.wait(PATIENCE_S) == 0
        eventually(lambda: not place.processes(), "no process is left")
    finally:
        w3.kill()
        w3.wait()
        with contextlib.suppress(ProcessLookupError):
            up.process.kill()
        up.process.wait()


def test_the_agent_killed_harms_nobody(place):
    """After kill -9 of the agent traffic flows on, and the next `up` adopts HAProxy and the servers as they are."""
    place.spec.write_text(place.without("w3"))
    up = Up(place.argv)
    try:
        up.line_with("ready")
        up.process.kill()
        up.process.wait()
        assert {place.get() for _ in range(20)} == {"w1", "w2"}
        before = {pid for pid in place.processes() if pid != up.process.pid}
        up = Up(place.argv)
        up.line_with("ready")
        assert before <= set(place.processes())
        assert {place.get() for _ in range(20)} == {"w1", "w2"}
        up.process.send_signal(signal.SIGTERM)
        assert up.process.wait(PATIENCE_S) == 0
        eventually(lambda: not place.processes(), "no process is left")
    finally:
        with contextlib.suppress(ProcessLookupError):
            up.process.kill()
        up.process.wait()


def one_sentence(result) -> str:
    """The refusal: one line, no traceback."""
    assert result.stderr.startswith("understudy: "), result
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def refused(place, *prefix) -> str:
    """What `up` says when it cannot start; nothing that it started is left."""
    result = subprocess.run([*prefix, *place.argv], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1, result
    assert "ready" not in result.stdout
    sentence = one_sentence(result)
    eventually(lambda: not place.processes(), "no process is left")
    return sentence


@pytest.mark.parametrize("which", ["api", "web"])
def test_a_port_in_use(place, which):
    """The sentence names the address that another program has."""
    with socket.create_server(("127.0.0.1", place.ports[which])):
        assert f"127.0.0.1:{place.ports[which]}" in refused(place)


@needs_root
def test_no_haproxy(place):
    """The sentence says how to get it."""
    haproxy = shutil.which("haproxy", path=os.environ["PATH"] + ":/usr/sbin")
    assert "apt-get install haproxy" in refused(place, *mounted(f"mount --bind /dev/null {haproxy}"))


@needs_root
def test_a_read_only_state_directory(place):
    """The sentence names the directory and the cure."""
    place.state.mkdir()
    sentence = refused(place, *mounted(f"mount -t tmpfs -o ro none {place.state}"))
    assert f"{place.state} cannot be used" in sentence
    assert "--state-dir" in sentence


@needs_root
@pytest.mark.parametrize("size", ["4k", "16k", "64k", "100k"])
def test_a_full_disk(place, size):
    """However early or late the disk fills while starting, it is one sentence that says so."""
    place.state.mkdir()
    sentence = refused(place, *mounted(f"mount -t tmpfs -o size={size} none {place.state}"))
    assert "No space left" in sentence or "full" in sentence


@needs_root
def test_a_disk_that_fills_while_running(place):
    """Traffic goes on, an order is refused with one sentence, and Ctrl-C still leaves nothing behind."""
    place.state.mkdir()
    place.spec.write_text(place.without("w3"))
    up = Up([*mounted(f"mount -t tmpfs -o size=1m none {place.state}"), *place.argv])
    try:
        up.line_with("ready")
        room = Path(f"/proc/{up.process.pid}/root{place.state}") / "fill"
        with contextlib.suppress(OSError), room.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        drained = place.run("drain", "web", "w1")
        assert drained.returncode == 1
        assert "full" in one_sentence(drained)
        assert {place.get() for _ in range(20)} == {"w1", "w2"}
        assert place.run("status").returncode == 0
        up.process.send_signal(signal.SIGINT)
        up.process.wait(PATIENCE_S)
        eventually(lambda: not place.processes(), "no process is left")
    finally:
        with contextlib.suppress(ProcessLookupError):
            up.process.kill()
        up.process.wait()


def mounted(command):
    """A prefix that runs what follows with a mount that nobody else sees."""
    return ["unshare", "--mount", "sh", "-c", f'{command} && exec "$@"', "sh"]


def test_a_bad_spec(place):
    """Every fault with its line; nothing is started and nothing is written."""
    place.spec.write_text(place.text.replace("kind: http", "kind: ftp"))
    result = subprocess.run(place.argv, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert "line 5, services.web.kind" in result.stderr
    assert not place.state.exists()
