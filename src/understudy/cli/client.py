"""Asks a running agent over its HTTP API. The only module of the command line that speaks HTTP."""

import json
import socket
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from pydantic import TypeAdapter, ValidationError

from understudy.core.errors import Fault, Refused

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 60.0
"""An apply may reload the router and waits for it."""

STREAM_TIMEOUT_S = 45.0
"""The agent sends something at least every 15 s, even when nothing happens."""

V1 = "/api/v1"

Value = TypeVar("Value")


class Client:
    """One agent, at `HOST:PORT` or `http://HOST:PORT`. Methods raise Refused, with the agent's own sentence."""

    def __init__(self, api: str) -> None:
        parts = urlsplit(api if "//" in api else f"//{api}", scheme="http")
        try:
            self.host, self.port = parts.hostname, parts.port
        except ValueError:
            self.host = self.port = None
        if parts.scheme != "http" or not self.host or not self.port or parts.path.strip("/"):
            raise Refused(f"{api!r} is no address of an agent: write HOST:PORT, such as 127.0.0.1:8600")
        self.address = parts.netloc

    def get(self, *steps: str, **query: object) -> Any:
        """What the API answers at this path, as JSON values."""
        return self._json("GET", _path(steps, query), None)

    def post(self, *steps: str, **body: object) -> Any:
        """Send an order, and what the API answers to it."""
        return self._json("POST", _path(steps, {}), body)

    def stream(self, *steps: str, **query: object) -> Iterator[Any]:
        """The data of each server-sent event at this path, as JSON values, until the agent ends it."""
        answer = self._ask("GET", _path(steps, query), None, STREAM_TIMEOUT_S)
        try:
            for line in answer:
                if line.startswith(b"data: "):
                    value = json.loads(line[6:])
                    if value.keys() == {"reason"}:
                        raise Refused(value["reason"])
                    yield value
        except (OSError, HTTPException, ValueError) as failure:
            raise self._lost(failure) from failure

    def _json(self, method: str, path: str, body: object) -> Any:
        answer = self._ask(method, path, body, ANSWER_TIMEOUT_S)
        try:
            return json.loads(answer.read())
        except (OSError, HTTPException, ValueError) as failure:
            raise self._lost(failure) from failure

    def _ask(self, method: str, path: str, body: object, timeout_s: float) -> HTTPResponse:
        connection = HTTPConnection(self.host or "", self.port, timeout=CONNECT_TIMEOUT_S)
        try:
            connection.connect()
        except OSError as failure:
            raise Fault(
                f"no agent answers at {self.address} ({_told(failure)}): start one with `understudy up SPEC`, "
                "or say with --api where it is"
            ) from failure
        if isinstance(connection.sock, socket.socket):
            connection.sock.settimeout(timeout_s)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"Content-Type": "application/json"} if text else {})
            answer = connection.getresponse()
            if answer.status >= 400:
                raise Refused(json.loads(answer.read())["reason"])
        except (OSError, HTTPException, ValueError, LookupError, TypeError) as failure:
            raise self._lost(failure) from failure
        return answer

    def _lost(self, failure: Exception) -> Fault:
        if isinstance(failure, TimeoutError):
            return Fault(
                f"the agent at {self.address} did not answer in time: `understudy status` tells whether it does"
            )
        if isinstance(failure, (OSError, HTTPException)):
            return Fault(
                f"the agent at {self.address} ended the connection ({_told(failure)}): see whether it still runs"
            )
        return Fault(f"what answers at {self.address} is no understudy agent: say with --api where it is")


def understood(kind: type[Value] | Any, answer: Any) -> Value:
    """An answer as values of the view model."""
    try:
        value: Value = TypeAdapter(kind).validate_python(answer)
    except ValidationError as failure:
        raise Fault("the agent's answer is not understood: it and this command are of different releases") from failure
    return value


def _path(steps: tuple[str, ...], query: dict[str, object]) -> str:
    given = {name: value for name, value in query.items() if value is not None}
    path = "/".join([V1, *(quote(step, safe="") for step in steps)])
    return f"{path}?{urlencode(given)}" if given else path


def _told(failure: Exception) -> str:
    return (isinstance(failure, OSError) and failure.strerror) or str(failure) or type(failure).__name__
