"""Ports for tests that must know them before anybody listens there.

Between the choice of a port and its use it is nobody's; so none is handed out twice, neither by this worker nor by the
other workers of the same run.
"""

import os
import socket

_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_given: set[int] = set()


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on just now."""
    while True:
        with socket.socket() as probe:
            probe.bind((host, 0))
            port = int(probe.getsockname()[1])
        if port not in _given and port // 2 % _WORKERS == _WORKER:  # by halves: Linux prefers odd ones
            _given.add(port)
            return port
