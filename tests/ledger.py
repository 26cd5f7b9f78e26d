"""Writers that write down every acknowledgement with its time, and an audit of what the database says afterwards.

Used by fault tests and benches; knows only a conninfo, neither understudy nor any peer. Each write is one insert of an
id that nobody has used before, with a deadline; who fails leaves the connection at once and opens a new one. Nobody
ever asks the server to cancel: a cancelled wait for a standby would be acknowledged all the same.
"""

import itertools
import select
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from threading import Thread
from types import TracebackType
from typing import Self

from psycopg import pq

DEADLINE_S = 1.0
"""How long a client waits for one statement, or for a connection."""
OVERSLEPT_S = 0.3
"""Whoever wakes so much after its deadline cannot tell who was late."""
PAUSE_S = 0.01
"""Between an acknowledgement and the next write of the same writer."""
AGAIN_S = 0.005
"""Between a failure and the next try."""
PLAIN = "sslmode=disable gssencmode=disable dbname=postgres"
"""What spares clients round trips."""


class Failed(Exception):
    """The write or connection was not acknowledged; why."""


class Client:
    """One connection; each step has DEADLINE_S (or what is given) and raises Failed."""

    def __init__(self, conninfo: str, deadline_s: float = DEADLINE_S) -> None:
        self._until_s = time.monotonic() + deadline_s
        self._pg = pq.PGconn.connect_start(f"{PLAIN} {conninfo}".encode())
        try:
            self._connect()
        except BaseException:
            self.close()
            raise

    def rows(self, sql: str, deadline_s: float = DEADLINE_S) -> list[tuple[str, ...]]:
        """Run one statement and answer its rows as text."""
        self._until_s = time.monotonic() + deadline_s
        self._pg.send_query(sql.encode())
        while self._pg.flush():
            self._ready(write=True)
        rows, fault = [], ""
        while True:
            while self._pg.is_busy():
                self._ready()
                self._consume()
            result = self._pg.get_result()
            if result is None:
                break
            if result.status not in {pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK}:
                fault = _first_line(result.error_message)
            rows += [
                tuple((result.get_value(row, column) or b"").decode() for column in range(result.nfields))
                for row in range(result.ntuples)
            ]
        if fault:
            raise Failed(fault)
        return rows

    def close(self) -> None:
        """Hang up."""
        self._pg.finish()

    def _connect(self) -> None:
        waits_to_write = True
        while True:
            if self._pg.status == pq.ConnStatus.BAD:
                raise Failed(self._why())
            self._ready(write=waits_to_write)
            match self._pg.connect_poll():
                case pq.PollingStatus.OK:
                    self._pg.nonblocking = 1
                    return
                case pq.PollingStatus.READING:
                    waits_to_write = False
                case pq.PollingStatus.WRITING:
                    waits_to_write = True
                case _:
                    raise Failed(self._why())

    def _ready(self, *, write: bool = False) -> None:
        socket = self._pg.socket
        reading, writing = ([], [socket]) if write else ([socket], [])
        while not any(select.select(reading, writing, [], max(0.0, self._until_s - time.monotonic()))):
            if time.monotonic() < self._until_s + OVERSLEPT_S:
                raise Failed("deadline")
            self._until_s = time.monotonic() + DEADLINE_S  # this machine stood still, and so did whoever was to answer

    def _consume(self) -> None:
        try:
            self._pg.consume_input()
        except Exception:  # noqa: BLE001  psycopg's own, of several kinds: the connection is lost
            raise Failed(self._why()) from None

    def _why(self) -> str:
        return _first_line(self._pg.error_message)


def ask(conninfo: str, sql: str, deadline_s: float = 20.0) -> list[tuple[str, ...]]:
    """One statement on a connection of its own. Raises Failed."""
    client = Client(conninfo, deadline_s)
    try:
        return client.rows(sql, deadline_s)
    finally:
        client.close()


@dataclass(frozen=True, slots=True)
class Audit:
    """What became of the writes: `lost` were acknowledged and are not there, `unsure` are there without a word."""

    acknowledged: int
    lost: tuple[int, ...]
    unsure: tuple[int, ...]


@dataclass(slots=True)
class _Writer:
    """What one thread has seen; only it writes here."""

    acknowledged: list[tuple[float, int]] = field(default_factory=list)
    transactions: dict[int, int] = field(default_factory=dict)
    failures: list[tuple[float, str]] = field(default_factory=list)
    slowest_wake_s: float = 0.0


class Ledger:
    """Writers on one conninfo. A context manager: they write until it ends. `prepare` first, once a database.

    All times are of the monotonic clock, in seconds.
    """

    def __init__(self, conninfo: str, *, writers: int = 4, pause_s: float = PAUSE_S, first_id: int = 1) -> None:
        self._conninfo = conninfo
        self._pause_s = pause_s
        self._ids = itertools.count(first_id)
        self._over = threading.Event()
        self._writers = [_Writer() for _ in range(writers)]
        self._threads = [Thread(target=self._write, args=(one,), daemon=True) for one in self._writers]

    @staticmethod
    def prepare(conninfo: str) -> None:
        """Make the table, empty; tried twice. Raises Failed."""
        sql = "DROP TABLE IF EXISTS ledger; CREATE TABLE ledger (id bigint PRIMARY KEY)"
        try:
            ask(conninfo, sql)
        except Failed:
            ask(conninfo, sql)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Write no more; may be called again."""
        self._over.set()
        for thread in self._threads:
            thread.join(2 * DEADLINE_S + 5)

    # --- seeing -------------------------------------------------------------------------------------------------------

    def acknowledgements(self) -> list[tuple[float, int]]:
        """When each id was acknowledged, in the order of time."""
        return sorted(entry for one in self._writers for entry in list(one.acknowledged))

    def transactions(self) -> dict[int, int]:
        """The number of the transaction, by the database, that wrote each acknowledged id."""
        return {number: one.transactions[number] for one in self._writers for number in list(one.transactions)}

    def failures(self, since_s: float = 0.0) -> Counter[str]:
        """What clients were told instead, and how often."""
        return Counter(why for one in self._writers for when_s, why in list(one.failures) if when_s >= since_s)

    @property
    def stall_s(self) -> float:
        """The longest that a writer woke too late: this machine's noise, which is in every outage."""
        return max(one.slowest_wake_s for one in self._writers)

    def last_s(self) -> float:
        """When the last acknowledgement came; 0 before the first."""
        return max((one.acknowledged[-1][0] for one in self._writers if one.acknowledged), default=0.0)

    def outage_s(self, since_s: float) -> float:
        """The longest time without an acknowledgement, of those times that end after `since_s` (now ends one too)."""
        times = [when_s for when_s, _ in self.acknowledgements()]
        before = max((when_s for when_s in times if when_s <= since_s), default=since_s)
        after = [when_s for when_s in times if when_s > since_s]
        end = [] if self._over.is_set() and after else [time.monotonic()]
        points = [before, *after, *end]
        return max(b - a for a, b in itertools.pairwise(points))

    def wait_writing(self, patience_s: float = 30.0) -> None:
        """Wait until every writer has been acknowledged something from now on. TimeoutError."""
        since_s = time.monotonic()
        while not all(one.acknowledged and one.acknowledged[-1][0] > since_s for one in self._writers):
            if time.monotonic() - since_s > patience_s:
                raise TimeoutError(f"not everybody could write in {patience_s} s: {self.failures(since_s)}")
            time.sleep(0.01)

    def wait_over(self, since_s: float, *, least_s: float, calm_s: float = 1.0, patience_s: float = 60.0) -> bool:
        """Wait until `least_s` have passed and for `calm_s` nobody waited long for anything; False: patience is out."""
        while True:
            now_s = time.monotonic()
            times = [when_s for when_s, _ in self.acknowledgements() if when_s > now_s - calm_s]
            gaps = [b - a for a, b in itertools.pairwise([now_s - calm_s, *times, now_s])]
            if now_s - since_s >= least_s + calm_s and max(gaps) < calm_s / 4:
                return True
            if now_s - since_s > patience_s:
                return False
            time.sleep(0.05)

    def audit(self, conninfo: str | None = None, patience_s: float = 30.0) -> Audit:
        """Compare with what the database holds now, asked by `conninfo` or where was written. Raises Failed."""
        give_up_s = time.monotonic() + patience_s
        while True:
            try:
                rows = ask(conninfo or self._conninfo, "SELECT id FROM ledger", 10.0)
                break
            except Failed:
                if time.monotonic() > give_up_s:
                    raise
                time.sleep(0.2)
        there = {int(row[0]) for row in rows}
        said = {number for _, number in self.acknowledgements()}
        return Audit(len(said), tuple(sorted(said - there)), tuple(sorted(there - said)))

    # --- writing ------------------------------------------------------------------------------------------------------

    def _write(self, own: _Writer) -> None:
        client: Client | None = None
        while not self._over.is_set():
            try:
                client = client or Client(self._conninfo)
                number = next(self._ids)
                [[transaction]] = client.rows(f"INSERT INTO ledger VALUES ({number}) RETURNING pg_current_xact_id()")
                own.acknowledged.append((time.monotonic(), number))
                own.transactions[number] = int(transaction)
                self._rest(own, self._pause_s)
            except Failed as why:
                own.failures.append((time.monotonic(), str(why)))
                if client is not None:
                    client.close()
                client = None
                self._rest(own, AGAIN_S)
        if client is not None:
            client.close()

    def _rest(self, own: _Writer, pause_s: float) -> None:
        begin_s = time.monotonic()
        self._over.wait(pause_s)
        own.slowest_wake_s = max(own.slowest_wake_s, time.monotonic() - begin_s - pause_s)


def _first_line(message: bytes | str) -> str:
    text = message.decode(errors="replace") if isinstance(message, bytes) else message
    return text.strip().splitlines()[0] if text.strip() else "connection lost"
