"""The example's server does what the example's comments say."""

import http.client
import signal
import socket
import subprocess
import sys
import time

import pytest
from tests.spec.samples import EXAMPLES


@pytest.fixture
def server():
    """A running server named w1, its port and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "server.py", "w1", str(port)], cwd=EXAMPLES)
    try:
        until_s = time.monotonic() + 30
        while socket.socket().connect_ex(("127.0.0.1", port)) and time.monotonic() < until_s:
            time.sleep(0.02)
        yield process, port
    finally:
        process.kill()
        process.wait()


def test_the_server_answers_and_ends(server):
    """It says its name, keeps the connection, is healthy, and ends at once at SIGTERM, an open connection or not."""
    process, port = server
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    answers = []
    for method, path in (("GET", "/"), ("GET", "/healthz"), ("HEAD", "/"), ("GET", "/nothing"), ("GET", "/")):
        connection.request(method, path)
        used = connection.sock
        answer = connection.getresponse()
        answers.append((answer.status, answer.read(), connection.sock is used))
    assert answers == [
        (200, b"w1\n", True),
        (200, b"ok\n", True),
        (200, b"", True),
        (404, b"not found\n", True),
        (200, b"w1\n", True),
    ]
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0
    connection.close()
