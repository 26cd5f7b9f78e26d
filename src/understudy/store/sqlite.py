"""The store of one machine: a SQLite file (WAL, synchronous FULL). Nothing here knows what the facts mean.

One thread writes and one reads, each with its own connection, so that the event loop never waits for the disk.
Transactions that come while the disk is busy are committed together: one fsync for all of them. Watchers read the table
of changes and are woken by commits of this process; commits of other processes they notice within POLL_S.
"""

import asyncio
import contextlib
import os
import sqlite3
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

from understudy.store.base import (
    Change,
    Compacted,
    Delete,
    Expect,
    Item,
    Listing,
    Outcome,
    Put,
    StoreFault,
    check_transaction,
)

SCHEMA = 1
"""Of the tables below, kept as SQLite's user_version."""

APPLICATION_ID = 0x756E6473
"""Marks the file as ours ("unds")."""

HISTORY_CHANGES = 10_000
HISTORY_BYTES = 64 * 1024 * 1024
"""How much history is kept for watchers: the smaller of both, and up to a tenth more between two trimmings."""

POLL_S = 0.5
BUSY_S = 5.0
"""How long to wait for another process that is writing."""

PAGE_CHANGES = 256
"""How much history a watcher reads at a time."""

_TABLES = """
CREATE TABLE items (key BLOB PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL);
CREATE TABLE changes (revision INTEGER NOT NULL, position INTEGER NOT NULL, key BLOB NOT NULL, value BLOB);
CREATE INDEX changes_by_revision ON changes (revision, position);
CREATE TABLE state (revision INTEGER NOT NULL, compacted INTEGER NOT NULL);
INSERT INTO state VALUES (0, 0);
"""

T = TypeVar("T")


class SqliteStore:
    """Fulfils the port `Store`. Made by `open`; several processes may have the same file open."""

    def __init__(self, path: Path, writer: "_Writer | None", reader: "_Reader") -> None:
        self._path = path
        self._writer = writer
        self._reader = reader
        self._closed = False
        self._bells: set[asyncio.Event] = set()

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        read_only: bool = False,
        history_changes: int = HISTORY_CHANGES,
        history_bytes: int = HISTORY_BYTES,
    ) -> Self:
        """Open the file, or make it unless `read_only`; StoreFault when it is not to be had, is damaged or not ours."""
        loop = asyncio.get_running_loop()
        trimmer = _Trimmer(history_changes, history_bytes)
        writer = None if read_only else await asyncio.to_thread(_Writer, path, trimmer)
        try:
            reader = await asyncio.to_thread(_Reader, path)
        except BaseException:
            if writer:
                writer.close()
            raise
        store = cls(path, writer, reader)
        if writer:
            writer.on_commit = lambda: loop.call_soon_threadsafe(store._ring)
        return store

    @property
    def incarnation(self) -> str:
        """A file that was put back cannot be told from one that stayed; its only agent remembers more."""
        return ""

    async def get(self, key: str) -> Item | None:
        """The newest value of the key."""
        return await self._read(partial(_get, key.encode()))

    async def list(self, prefix: str) -> Listing:
        """All keys that begin with the prefix."""
        return await self._read(partial(_list, prefix.encode()))

    async def transact(self, expects: Sequence[Expect], changes: Sequence[Put | Delete]) -> Outcome:
        """All changes if all conditions hold, else none."""
        check_transaction(expects, changes)
        self._refuse_closed()
        if self._writer is None:
            raise StoreFault(
                f"Nothing was stored in {self._path}, because it was opened for reading; ask the agent to."
            )
        return await asyncio.wrap_future(self._writer.submit(tuple(expects), tuple(changes)))

    async def watch(self, prefix: str, after_revision: int) -> AsyncGenerator[Change, None]:
        """Every change of the prefix after that revision, in order, each once, until the store is closed."""
        bell = asyncio.Event()
        self._bells.add(bell)
        try:
            seen = after_revision
            while not self._closed:
                bell.clear()
                page = await self._read(partial(_history, prefix.encode(), seen))
                for change in page.changes:
                    yield change
                seen = max(seen, page.upto)
                if page.upto >= page.revision:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(bell.wait(), POLL_S)
        finally:
            self._bells.discard(bell)

    async def close(self) -> None:
        """End those who watch, finish what was begun, and let go of the file."""
        if self._closed:
            return
        self._closed = True
        self._ring()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._reader.close)
        if self._writer:
            await loop.run_in_executor(None, self._writer.close)

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self._refuse_closed()
        return await asyncio.wrap_future(self._reader.submit(work))

    def _refuse_closed(self) -> None:
        if self._closed:
            raise StoreFault(f"The store {self._path} is closed; open it again.")

    def _ring(self) -> None:
        for bell in self._bells:
            bell.set()


class _Reader:
    """The reading thread: each piece of work sees one snapshot, which holds everything committed before it began."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = _open_for_reading(path)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store-read")

    def submit(self, work: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """Run the work in the thread."""
        return self._thread.submit(self._run, work)

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            with _transaction(self._connection, "BEGIN"):
                return work(self._connection)
        except sqlite3.Error as error:
            raise _fault(self._path, "read", error) from error

    def close(self) -> None:
        """Finish and let go of the file."""
        self._thread.submit(self._connection.close)
        self._thread.shutdown()


@dataclass(frozen=True, slots=True)
class _Job:
    expects: tuple[Expect, ...]
    changes: tuple[Put | Delete, ...]
    outcome: Future[Outcome]


class _Writer:
    """The writing thread. `on_commit` is called in it after each commit."""

    def __init__(self, path: Path, trimmer: "_Trimmer") -> None:
        self._path = path
        self._connection = _open_for_writing(path)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store-write")
        self._trimmer = trimmer
        self._jobs: deque[_Job] = deque()
        self.on_commit: Callable[[], object] = lambda: None

    def submit(self, expects: tuple[Expect, ...], changes: tuple[Put | Delete, ...]) -> Future[Outcome]:
        """Queue a transaction. Cancelling the future before the thread takes it up means that it never happens."""
        job = _Job(expects, changes, Future())
        self._jobs.append(job)
        self._thread.submit(self._drain)
        return job.outcome

    def _drain(self) -> None:
        """Commit everything that is queued with one fsync; each job is answered only after that."""
        jobs: list[_Job] = []
        while self._jobs:
            job = self._jobs.popleft()
            if job.outcome.set_running_or_notify_cancel():
                jobs.append(job)
        if not jobs:
            return
        try:
            with _transaction(self._connection, "BEGIN IMMEDIATE"):
                outcomes = [_apply(self._connection, job.expects, job.changes) for job in jobs]
                self._trimmer.trim(self._connection, jobs)
        except sqlite3.Error as error:
            for job in jobs:
                job.outcome.set_exception(_fault(self._path, "written", error))
        except BaseException as error:  # noqa: BLE001  # whoever waits must hear of it, whatever it is
            for job in jobs:
                job.outcome.set_exception(error)
        else:
            for job, outcome in zip(jobs, outcomes, strict=True):
                job.outcome.set_result(outcome)
            with contextlib.suppress(RuntimeError):  # the event loop has ended: nobody watches any more
                self.on_commit()

    def close(self) -> None:
        """Finish what is queued and let go of the file."""
        self._thread.submit(self._connection.close)
        self._thread.shutdown()


class _Trimmer:
    """Bounds the history; looks only after each tenth of the bound, since counting reads all of it."""

    def __init__(self, history_changes: int, history_bytes: int) -> None:
        self._history_changes = history_changes
        self._history_bytes = history_bytes
        self._new_changes = 0
        self._new_bytes = 0

    def trim(self, connection: sqlite3.Connection, jobs: list[_Job]) -> None:
        """Forget the oldest revisions, each as a whole, but never the newest one."""
        for job in jobs:
            self._new_changes += len(job.changes)
            self._new_bytes += sum(len(change.value) for change in job.changes if isinstance(change, Put))
        if self._new_changes * 10 <= self._history_changes and self._new_bytes * 10 <= self._history_bytes:
            return
        self._new_changes = self._new_bytes = 0
        cutoff = min(self._cutoff(connection), _revision(connection) - 1)
        if cutoff > 0:
            connection.execute("DELETE FROM changes WHERE revision <= ?", (cutoff,))
            connection.execute("UPDATE state SET compacted = max(compacted, ?)", (cutoff,))

    def _cutoff(self, connection: sqlite3.Connection) -> int:
        """The newest revision that is too much, counted back from now; 0 when all of it may stay."""
        size_bytes = 0
        newest_first = "SELECT revision, coalesce(length(value), 0) FROM changes ORDER BY revision DESC, position DESC"
        for rows, (revision, value_bytes) in enumerate(connection.execute(newest_first), start=1):
            size_bytes += value_bytes
            if rows > self._history_changes or size_bytes > self._history_bytes:
                return int(revision)
        return 0


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    """Commit, or roll back on any error, that of the commit too."""
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):  # the first error is the one to report
                connection.execute("ROLLBACK")
        raise


def _revision(connection: sqlite3.Connection) -> int:
    (revision,) = connection.execute("SELECT revision FROM state").fetchone()
    return int(revision)


def _get(key: bytes, connection: sqlite3.Connection) -> Item | None:
    row = connection.execute("SELECT value, revision FROM items WHERE key = ?", (key,)).fetchone()
    return Item(key.decode(), row[0], row[1]) if row else None


def _list(prefix: bytes, connection: sqlite3.Connection) -> Listing:
    rows = connection.execute(
        f"SELECT key, value, revision FROM items WHERE {_WITHIN} ORDER BY key",  # noqa: S608  # a constant
        _within(prefix),
    )
    return Listing(tuple(Item(key.decode(), value, revision) for key, value, revision in rows), _revision(connection))


_WITHIN = "key >= ? AND (? IS NULL OR key < ?)"


def _within(prefix: bytes) -> tuple[bytes, bytes | None, bytes | None]:
    """What _WITHIN is given so that it means the keys with this prefix: the first of them, and the first after them."""
    end = prefix[:-1] + bytes([prefix[-1] + 1]) if prefix else None  # UTF-8 has no byte 0xff
    return prefix, end, end


@dataclass(frozen=True, slots=True)
class _Page:
    """Changes of whole revisions `upto` one of them; `revision` is the store's."""

    changes: tuple[Change, ...]
    upto: int
    revision: int


def _history(prefix: bytes, after: int, connection: sqlite3.Connection) -> _Page:
    revision, compacted = connection.execute("SELECT revision, compacted FROM state").fetchone()
    if after < compacted:
        raise Compacted(f"The store has no history after revision {after} any more; list again.")
    (upto,) = connection.execute(
        "SELECT max(revision) FROM (SELECT revision FROM changes WHERE revision > ? ORDER BY revision LIMIT ?)",
        (after, PAGE_CHANGES),
    ).fetchone()
    if upto is None:
        return _Page((), revision, revision)
    rows = connection.execute(
        f"SELECT key, value, revision FROM changes WHERE revision > ? AND revision <= ? AND {_WITHIN} "  # noqa: S608
        "ORDER BY revision, position",
        (after, upto, *_within(prefix)),
    )
    return _Page(tuple(Change(key.decode(), value, at) for key, value, at in rows), upto, revision)


_PUT = (
    "INSERT INTO items VALUES (?, ?, ?) "
    "ON CONFLICT (key) DO UPDATE SET value = excluded.value, revision = excluded.revision"
)


def _apply(connection: sqlite3.Connection, expects: Sequence[Expect], changes: Sequence[Put | Delete]) -> Outcome:
    """One transaction of the port, inside one of SQLite's."""
    revision = _revision(connection)
    for expect in expects:
        row = connection.execute("SELECT revision FROM items WHERE key = ?", (expect.key.encode(),)).fetchone()
        if (row[0] if row else 0) != expect.revision:
            return Outcome(committed=False, revision=revision)
    position = 0
    for change in changes:
        key = change.key.encode()
        value = change.value if isinstance(change, Put) else None
        if value is not None:
            connection.execute(_PUT, (key, value, revision + 1))
        elif connection.execute("DELETE FROM items WHERE key = ?", (key,)).rowcount == 0:
            continue
        connection.execute("INSERT INTO changes VALUES (?, ?, ?, ?)", (revision + 1, position, key, value))
        position += 1
    if position:
        connection.execute("UPDATE state SET revision = ?", (revision + 1,))
    return Outcome(committed=True, revision=revision + (1 if position else 0))


def _open_for_writing(path: Path) -> sqlite3.Connection:
    try:
        with contextlib.suppress(FileExistsError):  # made by us, so that only we may read it
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as error:
        raise StoreFault(
            f"The store {path} cannot be made ({error.strerror}); make its folder writable or choose another one."
        ) from error
    return _connect(path, "rw", _prepare)


def _open_for_reading(path: Path) -> sqlite3.Connection:
    if not path.exists():
        raise StoreFault(f"There is no store {path}, because no agent has run there yet; check the state directory.")
    return _connect(path, "ro", _check_schema)


def _connect(path: Path, mode: str, prepare: Callable[[Path, sqlite3.Connection], None]) -> sqlite3.Connection:
    connection: sqlite3.Connection | None = None
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=BUSY_S,
            isolation_level=None,  # we say BEGIN and COMMIT ourselves
            check_same_thread=False,  # opened in one thread, then used by its own thread alone
        )
        prepare(path, connection)
    except BaseException as error:
        if connection:
            connection.close()
        if isinstance(error, sqlite3.Error):
            raise _fault(path, "opened", error) from error
        raise
    return connection


def _prepare(path: Path, connection: sqlite3.Connection) -> None:
    """Look before anything is written; then make the tables in an empty file, or check those that are there."""
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if tables:
        _check_schema(path, connection)
        _check_damage(path, connection)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    with _transaction(connection, "BEGIN IMMEDIATE"):  # also proves that we may write
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if tables:
            _check_schema(path, connection)
            connection.execute("UPDATE state SET revision = revision")
            return
        for statement in filter(str.strip, _TABLES.split(";")):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA}")


def _check_schema(path: Path, connection: sqlite3.Connection) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (schema,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise StoreFault(f"{path} is no store of understudy and was left as it is; choose another state directory.")
    if schema != SCHEMA:
        raise StoreFault(
            f"The store {path} has schema {schema} and this understudy knows {SCHEMA}, so it was left as it is; "
            "use the understudy that wrote it."
        )


def _check_damage(path: Path, connection: sqlite3.Connection) -> None:
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise StoreFault(_damaged(path, str(verdict).splitlines()[-1]))


def _damaged(path: Path, detail: str) -> str:
    return (
        f"The store {path} is damaged ({detail}) and was left as it is; move it (with its -wal and -shm files) away "
        "and start again, or put a good copy in its place."
    )


def _fault(path: Path, done: str, error: sqlite3.Error) -> StoreFault:
    """What SQLite said, as a sentence with a way out."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StoreFault(_damaged(path, str(error)))
    advice = {
        sqlite3.SQLITE_FULL: "free space on its disk; what was stored before is safe",
        sqlite3.SQLITE_IOERR: "check that its disk is healthy and not full; what was stored before is safe",
        sqlite3.SQLITE_READONLY: f"make the file and its folder {path.parent} writable",
        sqlite3.SQLITE_CANTOPEN: f"check that its folder {path.parent} exists and may be used",
        sqlite3.SQLITE_BUSY: "another process holds it: find that process and end it",
    }.get(code, "try again, and tell us if it comes back")
    return StoreFault(f"The store {path} could not be {done} ({error}); {advice}.")
