"""Real PostgreSQL 15 for tests: engines in directories of their own, on sockets of their own, ended with the test."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psycopg
from tests.ports import free_port

from understudy.core.text import Name
from understudy.drivers.base import DriverFault
from understudy.drivers.postgres.home import Home, Source
from understudy.drivers.postgres.tools import ENVIRONMENT, Account, Tools

PROGRAMS = Path("/usr/lib/postgresql/15/bin")
PASSWORD = "kept out of every argument"
PATIENCE_S = 60.0
PAUSED = "SELECT pg_get_wal_replay_pause_state()"
"""Says `paused` when replay is; a pause that was asked for may come after some more was replayed."""
QUICK = (
    "fsync=off",
    "shared_buffers=16MB",
    "wal_log_hints=on",
    "autovacuum=off",
    "max_prepared_transactions=10",
    "wal_retrieve_retry_interval=50ms",
    "wal_keep_size=256MB",  # for standbys without a slot
)


def account() -> Account:
    return Account.named("postgres") if os.geteuid() == 0 else Account.own()


class Engine:
    """One node: its data, and the process when it runs."""

    def __init__(self, name: str, root: Path) -> None:
        self.name = Name(name)
        self.root = root
        self.data = root / name
        self.port = free_port()
        self.tools = Tools(PROGRAMS, account())
        self.configured: list[Path] = []
        self.process: subprocess.Popen | None = None
        self._connection: psycopg.Connection | None = None
        self.passfile = root / "passfile"
        self.home = Home(self.name, self.data, self.tools, self.configured.append)

    @property
    def conninfo(self) -> str:
        return f"host=127.0.0.1 port={self.port} user=boss dbname=postgres passfile={self.passfile} connect_timeout=5"

    @property
    def source(self) -> Source:
        async def ask(statement: str) -> list[tuple[str, ...]]:
            try:
                return self.rows(statement)
            except AssertionError as error:
                raise DriverFault(str(error)) from error

        return Source(self.name, self.conninfo, ask)

    def start(self, follow: "Engine | None" = None, *, standby: bool = False, settings: tuple[str, ...] = ()) -> None:
        """Start it and wait for an answer; as a primary unless it follows, or has standby.signal and is to keep it."""
        signal_file = self.data / "standby.signal"
        if follow is None and not standby:
            signal_file.unlink(missing_ok=True)
        else:
            signal_file.touch()
            self.tools.account.give(signal_file)
        words = [*QUICK, f"port={self.port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", *settings]
        words.append("restart_after_crash=off")
        if follow is not None:
            words.append(f"primary_conninfo={follow.conninfo} application_name={self.name}")
        options = [word for setting in words for word in ("-c", setting)]
        with (self.root / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [PROGRAMS / "postgres", "-D", self.data, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=ENVIRONMENT,
                start_new_session=True,
                **self.tools.account.spawning(),
            )
        until(lambda: self.process.poll() is not None or self.answers(), f"{self.name} answers")
        assert self.process.poll() is None, self.log()

    def answers(self) -> bool:
        try:
            self.rows("SELECT 1")
        except AssertionError:
            return False
        return True

    def rows(self, *statements: str) -> list[tuple[str | None, ...]]:
        """Run them, each by itself; the rows of all, as text."""
        found: list[tuple[str | None, ...]] = []
        try:
            if self._connection is None:
                self._connection = psycopg.connect(self.conninfo, autocommit=True)
            for statement in statements:
                cursor = self._connection.execute(statement)
                while cursor is not None:
                    if cursor.description:
                        found += [tuple(None if one is None else str(one) for one in row) for row in cursor.fetchall()]
                    if not cursor.nextset():
                        break
        except psycopg.Error as error:
            self._forget_connection()
            raise AssertionError(str(error)) from error
        return found

    def value(self, statement: str) -> str:
        return self.rows(statement)[0][0]

    def _forget_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def caught_up(self, source: "Engine") -> None:
        """Wait until it has replayed all that the source has now."""
        end = source.value("SELECT pg_current_wal_lsn()")
        until(lambda: self.value(f"SELECT pg_last_wal_replay_lsn() >= '{end}'") == "True", f"{self.name} has caught up")

    def promote(self) -> None:
        self.rows("SELECT pg_promote()")

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: in order. SIGQUIT: at once, as after a crash."""
        self._forget_connection()
        if self.process is None:
            return
        self.process.send_signal(how)
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.process = None

    def crash(self) -> None:
        self.stop(signal.SIGQUIT)

    def log(self) -> str:
        return (self.root / f"{self.name}.log").read_text()[-3000:]


def until(condition, what: str) -> None:
    """Wait for it."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.02)


def copy_tree(template: Path, to: Path) -> None:
    """With owners and modes."""
    shutil.copytree(template, to, copy_function=_copy_with_owner, symlinks=True)
    for folder, _, _ in os.walk(template):
        place = to / Path(folder).relative_to(template)
        there = Path(folder).stat()
        os.chown(place, there.st_uid, there.st_gid)


def _copy_with_owner(one: str, two: str) -> None:
    shutil.copy2(one, two)
    there = Path(one).stat()
    os.chown(two, there.st_uid, there.st_gid)
