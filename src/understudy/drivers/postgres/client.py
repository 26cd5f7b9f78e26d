"""Talking to PostgreSQL without ever waiting for longer than asked: sessions on libpq, each a socket of the event loop.

RULES
1. Nothing blocks, and whoever is cut short while waiting has closed the session: an engine that hangs costs a socket.
   (psycopg's own connections ask the server to cancel, and wait for that, which a stopped server never does.)
2. Names that must be looked up are not used: addresses and sockets only.
3. Passwords come from a passfile. No text that is raised here holds one.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Self

from psycopg import OperationalError, pq
from psycopg.pq.abc import PGconn, PGresult

from understudy.drivers.base import DriverFault

Row = tuple[str | None, ...]

_FAILED = {pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.BAD_RESPONSE, pq.ExecStatus.NONFATAL_ERROR}


class SqlFault(DriverFault):
    """The server said no, or could not be reached. `state` is its SQLSTATE; empty when it did not answer."""

    def __init__(self, text: str, state: str = "") -> None:
        super().__init__(text)
        self.state = state


class Barred(SqlFault):
    """The server ended the connection once it had asked for our password."""


class Session:
    """One connection. One statement at a time."""

    def __init__(self, connection: PGconn) -> None:
        self._connection = connection
        self._waiting: asyncio.Future[None] | None = None
        self._wait_no_more: Callable[[], object] = lambda: None

    @classmethod
    async def open(cls, conninfo: str) -> Self:
        """Connect. Raises SqlFault. Bound it with asyncio.timeout."""
        connection = pq.PGconn.connect_start(conninfo.encode())
        session = cls(connection)
        try:
            await session._connect()
        except BaseException:
            session.close()
            raise
        return session

    async def _connect(self) -> None:
        connection = self._connection
        if connection.status == pq.ConnStatus.BAD:
            raise _fault(connection)
        waits_to_write = True
        while True:
            try:
                await self._ready(write=waits_to_write)
            except OperationalError:
                raise _fault(connection) from None
            match connection.connect_poll():
                case pq.PollingStatus.OK:
                    break
                case pq.PollingStatus.READING:
                    waits_to_write = False
                case pq.PollingStatus.WRITING:
                    waits_to_write = True
                case _:
                    raise _fault(connection)
        connection.nonblocking = 1

    @property
    def alive(self) -> bool:
        """Whether it may be asked."""
        return self._connection.status == pq.ConnStatus.OK

    @property
    def pid(self) -> int:
        """Of the server's process that serves it."""
        return self._connection.backend_pid

    async def ask(self, sql: str, *values: str | None) -> list[Row]:
        """Run it; the rows of its last statement. Several statements only without values. Raises SqlFault."""
        try:
            return await self._ask(sql, values)
        except (asyncio.CancelledError, OSError):
            self.close()
            raise

    async def _ask(self, sql: str, values: Sequence[str | None]) -> list[Row]:
        connection = self._connection
        if connection.status != pq.ConnStatus.OK:
            raise SqlFault("The session with PostgreSQL has ended.")
        try:
            if values:
                connection.send_query_params(sql.encode(), [None if one is None else one.encode() for one in values])
            else:
                connection.send_query(sql.encode())
            while connection.flush():
                await self._ready(write=True)
            return await self._rows()
        except OperationalError as error:
            self.close()
            raise SqlFault(f"The session with PostgreSQL was lost: {str(error).strip()}.") from error

    async def _rows(self) -> list[Row]:
        connection = self._connection
        rows: list[Row] = []
        failure: SqlFault | None = None
        while True:
            while connection.is_busy():
                await self._ready(write=False)
                connection.consume_input()
            result = connection.get_result()
            if result is None:
                break
            if result.status in _FAILED:
                failure = failure or _refusal(result)
            elif result.status == pq.ExecStatus.TUPLES_OK:
                rows = [_row(result, number) for number in range(result.ntuples)]
            result.clear()
        if failure is not None:
            if connection.status != pq.ConnStatus.OK:
                self.close()
            raise failure
        return rows

    def verifier(self, role: str, password: str) -> str:
        """What a server keeps of that password, so that the password itself is in no statement."""
        return self._connection.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()

    def close(self) -> None:
        """End it. Whoever waits for an answer is told that none will come."""
        if self._waiting is not None and not self._waiting.done():
            self._wait_no_more()
            self._waiting.set_exception(SqlFault("The session with PostgreSQL was ended."))
        self._connection.finish()

    async def _ready(self, *, write: bool) -> None:
        """Wait until the connection can be written to, or read from."""
        loop, descriptor = asyncio.get_running_loop(), self._connection.socket
        self._waiting = ready = loop.create_future()
        (loop.add_writer if write else loop.add_reader)(descriptor, _done, ready)
        self._wait_no_more = partial(loop.remove_writer if write else loop.remove_reader, descriptor)
        try:
            await ready
        finally:
            if ready.cancelled() or ready.exception() is None:  # else the number may be another connection's by now
                self._wait_no_more()


async def once(conninfo: str, sql: str, *values: str | None) -> list[Row]:
    """Ask on a fresh connection, and end it."""
    session = await Session.open(conninfo)
    try:
        return await session.ask(sql, *values)
    finally:
        session.close()


def conninfo(**words: str | int) -> str:
    """Libpq's `key='value'` text."""
    return " ".join(f"{key}='{_escaped(str(value))}'" for key, value in words.items())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")


def _row(result: PGresult, number: int) -> Row:
    values = (result.get_value(number, column) for column in range(result.nfields))
    return tuple(None if value is None else value.decode(errors="replace") for value in values)


def _refusal(result: PGresult) -> SqlFault:
    state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode(errors="replace")
    text = (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or result.error_message).decode(errors="replace")
    return SqlFault(f"PostgreSQL says: {text.strip()}.", state)


def _fault(connection: PGconn) -> SqlFault:
    text = connection.get_error_message().strip()
    first = text.splitlines()[0] if text else "it gave no reason"
    return (Barred if connection.used_password else SqlFault)(f"PostgreSQL cannot be reached: {first}.")


def _done(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
