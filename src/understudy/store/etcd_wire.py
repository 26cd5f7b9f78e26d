"""One request to one etcd member: HTTP, TLS, deadlines, half-open sockets, log-in. Which member and what for: above."""

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import aiohttp

from understudy.core.errors import Refused
from understudy.store import etcd_messages as messages
from understudy.store.base import StoreFault
from understudy.store.etcd_faults import Kind, Trouble, classify
from understudy.store.etcd_messages import Answer, Heard, Json, Layout

TXN = "/v3/kv/txn"
WATCH = "/v3/watch"
STATUS = "/v3/maintenance/status"
TRANSFER = "/v3/maintenance/transfer-leadership"
AUTHENTICATE = "/v3/auth/authenticate"

T = TypeVar("T")

CONNECT_SHARE = 0.3
"""Of a request's time may go into connecting; a host that is gone must leave time for another."""

SILENT_S = 3
"""A connection with an unacknowledged byte, or unanswered keep-alive probes, of that age is dead."""


@dataclass(frozen=True, slots=True)
class Login:
    """A user of etcd. The password is read anew at each log-in, so that it may change; Refused when it cannot be."""

    user: str
    read_password: Callable[[], str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM: who is trusted, and what we show (etcd's gateway ignores the name in our certificate)."""

    ca: Path
    certificate: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Raises StoreFault when a file cannot be used."""
        try:
            context = ssl.create_default_context(cafile=str(self.ca))
            if self.certificate:
                context.load_cert_chain(self.certificate, self.key)
        except OSError as error:  # ssl.SSLError is one
            raise StoreFault(
                f"The store cannot be reached, because its TLS files are of no use ({error.strerror or error}); check "
                f"{self.ca}" + (f", {self.certificate} and {self.key}." if self.certificate else ".")
            ) from error
        return context


class Wire:
    """Must be made in a running event loop."""

    def __init__(self, tls: Tls | None, login: Login | None) -> None:
        connector = aiohttp.TCPConnector(ssl=tls.context() if tls else True, socket_factory=_socket, limit=0)
        self._session = aiohttp.ClientSession(connector=connector)
        self._login = login
        self._token: str | None = None
        self._logging_in = asyncio.Lock()

    async def transact(self, url: str, body: Json, timeout_s: float) -> Answer:
        """One transaction with its answer. Raises Trouble."""
        return await self.ask(url, TXN, body, messages.answer, timeout_s)

    async def ask(self, url: str, path: str, body: Json, understand: Callable[[Json], T], timeout_s: float) -> T:
        """One request with its answer; logs in where needed. Raises Trouble."""
        if self._session.closed:
            raise Trouble(Kind.UNSENT, "the store is closed")
        async with _within(url, timeout_s):
            for last in (False, True):
                token = await self._token_for(url, timeout_s)
                try:
                    return await self._post(url, path, body, understand, token=token, timeout_s=timeout_s)
                except Trouble as trouble:
                    self._forget(token, trouble, last=last)
        raise AssertionError("unreachable")

    @asynccontextmanager
    async def watch(self, url: str, layout: Layout, body: Json, timeout_s: float) -> "AsyncIterator[Lines]":
        """A watch, whose answer never ends; the time is for its beginning. Raises Trouble."""
        async with _within(url, timeout_s):
            token = await self._token_for(url, timeout_s)
            response = await self._session.post(url + WATCH, **_request(body, token, timeout_s))
        try:
            if response.status != 200:
                trouble = await _trouble(url, response)
                self._forget(token, trouble, last=True)
            yield Lines(url, layout, response)
        finally:
            response.close()

    async def close(self) -> None:
        """Break all connections."""
        await self._session.close()

    async def _post(
        self, url: str, path: str, body: Json, understand: Callable[[Json], T], *, token: str | None, timeout_s: float
    ) -> T:
        async with self._session.post(url + path, **_request(body, token, timeout_s)) as response:
            if response.status != 200:
                raise await _trouble(url, response)
            return _parse(url, await response.read(), understand)

    async def _token_for(self, url: str, timeout_s: float) -> str | None:
        """Log in unless that is done; one at a time, the others wait for it."""
        if self._login is None:
            return None
        async with self._logging_in:
            if self._token is None:
                try:
                    password = self._login.read_password()
                except Refused as fault:
                    raise Trouble(Kind.REFUSED, f"its password is not to be had: {fault}") from fault
                body = {"name": self._login.user, "password": password}
                self._token = await self._post(url, AUTHENTICATE, body, messages.token, token=None, timeout_s=timeout_s)
            return self._token

    def _forget(self, token: str | None, trouble: Trouble, *, last: bool) -> None:
        """Log in again after this, if that may help; else the trouble stands."""
        if trouble.kind is not Kind.TOKEN or self._login is None:
            raise trouble
        if self._token == token:
            self._token = None
        if last:
            raise trouble


class Lines:
    """The lines of a watch."""

    def __init__(self, url: str, layout: Layout, response: aiohttp.ClientResponse) -> None:
        self._url = url
        self._understand = partial(messages.heard, layout)
        self._response = response
        self._parts: list[bytes] = []
        self._lines: list[bytes] = []

    async def read(self) -> Heard:
        """The next line; may be cancelled and called again. Raises Trouble when the connection breaks."""
        while not self._lines:
            try:
                data = await self._response.content.readany()
            except (aiohttp.ClientError, OSError) as error:
                raise _broken(self._url, error) from error
            if not data:
                raise Trouble(Kind.LOST, f"etcd at {self._url} ended the watch")
            *complete, rest = data.split(b"\n")
            for line in complete:
                self._lines.append(b"".join((*self._parts, line)))
                self._parts.clear()
            self._parts.append(rest)
            self._lines = [line for line in self._lines if line.strip()]
        return _parse(self._url, self._lines.pop(0), self._understand)


@asynccontextmanager
async def _within(url: str, timeout_s: float) -> AsyncIterator[None]:
    """Bound the time, and tell what breaks on the way as a Trouble."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        said = getattr(error, "os_error", None) or error  # without aiohttp's own words, where there is more to say
        raise Trouble(Kind.UNSENT, f"{url} cannot be reached: {getattr(said, 'strerror', None) or said}") from error
    except TimeoutError as error:
        raise Trouble(Kind.LOST, f"{url} did not answer in {timeout_s:.2g} s") from error
    except (aiohttp.ClientError, OSError) as error:
        raise _broken(url, error) from error


def _broken(url: str, error: Exception) -> Trouble:
    return Trouble(Kind.LOST, f"the connection to {url} broke: {error or type(error).__name__}")


def _request(body: Json, token: str | None, timeout_s: float) -> Json:
    headers = {"Content-Type": "application/json", "Grpc-Metadata-hasleader": "true"}  # none: say so at once
    if token:
        headers["Authorization"] = token
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=timeout_s * CONNECT_SHARE)
    return {"data": json.dumps(body), "headers": headers, "timeout": timeout, "allow_redirects": False}


async def _trouble(url: str, response: aiohttp.ClientResponse) -> Trouble:
    text = (await response.read()).decode(errors="replace")
    try:
        said = json.loads(text)
        return classify(url, response.status, int(said["code"]), str(said["error"]))
    except (ValueError, KeyError, TypeError):
        return classify(url, response.status, 0, text.strip()[:200])


def _parse(url: str, data: bytes, understand: Callable[[Json], T]) -> T:
    try:
        return understand(json.loads(data))
    except ValueError as error:
        raise Trouble(Kind.LOST, f"{url} answers nonsense: {error}") from error


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket that notices a peer which has gone without a word."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, SILENT_S - 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_S * 1000)
    return made
