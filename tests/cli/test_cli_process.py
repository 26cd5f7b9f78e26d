"""The command as a process: exit codes, one sentence each, never a traceback, quick to start."""

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tests.api.fake_operator import FakeOperator
from tests.cli.conftest import api_of
from tests.ports import free_port

from understudy.core.errors import Refused
from understudy.core.events import EventKind

UNDERSTUDY = str(Path(sys.executable).with_name("understudy"))

GOOD = """\
cluster: shop
services:
  web:
    kind: http
    listen: 127.0.0.1:8080
    endpoints:
      - {name: w1, address: 127.0.0.1:9001}
"""


def run(*argv, **env):
    return subprocess.run(
        [UNDERSTUDY, *argv], capture_output=True, text=True, timeout=60, env=os.environ | env, check=False
    )


def refused(result) -> str:
    """The one sentence of a refusal."""
    assert result.returncode == 1, result
    assert result.stdout == ""
    assert result.stderr.startswith("understudy: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_validate_and_schema(tmp_path):
    """A good spec is called good, a bad one gets all of its faults with their lines, and the schema is JSON."""
    spec = tmp_path / "spec.yaml"
    spec.write_text(GOOD)
    result = run("validate", str(spec))
    assert (result.returncode, result.stdout) == (0, f"{spec} is good: cluster shop, 1 service, 1 endpoint\n")
    shop = Path(__file__).parents[2] / "examples/shop.yaml"
    assert run("validate", str(shop)).stdout.endswith(": cluster shop, 2 services, 3 endpoints, 3 nodes\n")
    spec.write_text(GOOD.replace("127.0.0.1:9001", "nowhere").replace("kind: http", "kind: htp"))
    result = run("validate", str(spec))
    assert result.returncode == 1
    assert "line 4, services.web.kind" in result.stderr
    assert "line 7, services.web.endpoints[0].address" in result.stderr
    assert "Traceback" not in result.stderr
    assert json.loads(run("schema").stdout)["properties"]["cluster"]
    assert "cannot be read" in refused(run("validate", str(tmp_path / "none.yaml")))


def test_no_agent_is_one_sentence():
    """Without an agent every verb says so and what to do; a wrong address is told as such."""
    address = f"127.0.0.1:{free_port()}"
    for argv in (("status",), ("drain", "web", "w1"), ("events", "-f")):
        assert f"no agent answers at {address}" in refused(run(*argv, UNDERSTUDY_API=address))
    assert "is no address of an agent" in refused(run("status", "--api", "nonsense"))
    assert "is no address of an agent" in refused(run("status", "--api", "https://127.0.0.1:1"))


def test_another_program_on_the_port_is_told():
    """What answers with something else than our JSON is named as no agent."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n<html>")

        thread = threading.Thread(target=answer)
        thread.start()
        result = run("status", "--api", "{}:{}".format(*server.getsockname()))
        thread.join(20)
    assert "is no understudy agent" in refused(result)


def test_refusals_and_closed_pipes():
    """The agent's sentence goes to stderr with exit code 1; a reader that leaves early is no error worth a word."""
    operator = FakeOperator(fault=Refused("web has no backup group: name one in the spec"))
    for number in range(1000):
        operator.note(EventKind.SERVICE_UP, f"fact {number} " + "x" * 300, "web")
    with api_of(operator) as address:
        told = refused(run("failover", "web", "--api", f"http://{address}/"))
        assert told == "understudy: web has no backup group: name one in the spec\n"
        piped = subprocess.run(
            ["bash", "-c", f"'{UNDERSTUDY}' events -n 1000 --api {address} | head -n 1"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert "fact 0" in piped.stdout
    assert piped.stderr == ""


@pytest.mark.parametrize(("module", "verb"), [("fastapi", "validate"), ("aiohttp", "validate"), ("uvicorn", "--help")])
def test_light_verbs_load_no_heavy_modules(module, verb, tmp_path):
    """--help and validate start without the server's modules; time itself is not asserted, what costs it is."""
    spec = tmp_path / "spec.yaml"
    spec.write_text(GOOD)
    argv = [verb, str(spec)] if verb == "validate" else [verb]
    code = (
        f"import sys; sys.argv = ['understudy', *{argv!r}]\n"
        "from understudy.wiring import main\n"
        "try: main()\n"
        f"except SystemExit as end: assert not end.code and {module!r} not in sys.modules, (end.code, 'loaded')\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr


def test_an_unforeseen_error_keeps_its_details(tmp_path):
    """An error of ours is one sentence that says where the traceback was kept."""
    code = (
        "import sys; sys.argv = ['understudy', 'status']\n"
        "import understudy.cli.seeing as seeing\n"
        "def broken(*_args, **_more): raise ZeroDivisionError('boo')\n"
        "seeing.status = broken\n"
        "import understudy.cli.places as places, pathlib\n"
        f"places.state_home = lambda: pathlib.Path({str(tmp_path)!r})\n"
        "from understudy.wiring import main\n"
        "main()\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert f"(ZeroDivisionError): the details are in {tmp_path}/errors.log" in refused(result)
    assert "ZeroDivisionError: boo" in (tmp_path / "errors.log").read_text()
