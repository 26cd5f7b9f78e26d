"""The engine of one node as a process with a configuration: started, told to read it again, stopped, killed, asked.

What is decided about it is elsewhere (driver.py and what it calls). RULES: our files are written before the engine is
told, whole or not at all; `standby.signal` is in the data whenever the engine is started, so no start is ever writable.
"""

import asyncio
import itertools
import os
import pwd
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from understudy.core.errors import Refused
from understudy.drivers.base import DriverFault, EngineProcess, EngineState, OsUser
from understudy.drivers.postgres import beside, binaries, check, settings, theirs
from understudy.drivers.postgres.aside import Aside
from understudy.drivers.postgres.client import Row, Session, conninfo, once
from understudy.drivers.postgres.settings import InForce, Place
from understudy.drivers.postgres.tools import ENVIRONMENT, Account, Tools

FILES_S = 2.0
"""How long small files may take."""
_GLANCE_S = 0.5
"""How long it may take to see that nobody else runs on the data, before a disk counts as hung."""
_ANSWER_S = 5.0
"""How long an engine may take to answer while something is done to it; what is done has a deadline of its own."""
POLL_S = 0.001
_START_POLL_S = 0.005
_READ_LOG_EVERY = 100
"""How many times it is looked for its end before what it says is read."""
_TAIL_BYTES = 4096
_GONE = "has already been removed"
"""What PostgreSQL says, in English, of log that it is asked for and has not any more."""
_LONGEST_SOCKET = 107
_OVERRULED = ("synchronous_standby_names", "primary_conninfo", "hba_file")
"""What safety rests on, and ALTER SYSTEM could change."""
_IN_FORCE = "SELECT " + ", ".join(f"current_setting('{name}')" for name in ("understudy.serial", *_OVERRULED))


class LogIsGone(DriverFault):
    """It cannot come up: it needs log that whom it follows has not any more."""


class Engine:
    """One node's engine."""

    def __init__(self, place: Place, process: EngineProcess, tools: Callable[[], Tools], password: str) -> None:
        self.place = place
        self.process = process
        self.changed = False
        """Whether what runs has yet to be told of another `place`."""
        self._tools = tools
        self._password = password
        self.disk = Aside(f"{place.name}'s disk")
        self._session: Session | None = None
        self._life = ""
        self._one_at_a_time = asyncio.Lock()
        self._in_force: InForce | None = None
        if len(str(place.ours)) + len(f"/.s.PGSQL.{place.address.port}") >= _LONGEST_SOCKET:
            raise Refused(
                f"{place.data} has too long a name for a socket beside it: choose a data directory of at most "
                f"{_LONGEST_SOCKET - len('.understudy/run/.s.PGSQL.65535')} bytes."
            )

    # ---- what is asked of it ----

    def conninfo(self, application: str = "understudy") -> str:
        """How we reach it, from this host."""
        place = self.place
        return conninfo(
            host=str(place.ours),
            port=place.address.port,
            user=place.superuser,
            dbname="postgres",
            passfile=str(place.passwords),
            application_name=application,
            gssencmode="disable",
            options="-c synchronous_commit=local",
        )

    async def ask(self, sql: str, *values: str | None, within_s: float = _ANSWER_S) -> list[Row]:
        """Ask on the session that is kept. Raises SqlFault; DriverFault when it does not answer in time."""
        try:
            async with asyncio.timeout(within_s), self._one_at_a_time:
                if self._session is None or not self._session.alive:
                    self._session = await Session.open(self.conninfo())
                return await self._session.ask(sql, *values)
        except TimeoutError:
            raise DriverFault(f"PostgreSQL on {self.place.name} does not answer within {within_s:.1f} s.") from None

    def drop(self) -> None:
        """Let go of the session."""
        if self._session is not None:
            self._session.close()
            self._session = None

    # ---- configuration ----

    async def in_force(self) -> InForce:
        """What was written last."""
        if self._in_force is None:
            self._in_force = await self.disk.do(self._read, FILES_S)
        return self._in_force

    async def write(self, *, anew: bool = False, **changes: Any) -> InForce:
        """Write our files with these changes, or `anew` with nothing but these. The engine does not know of it yet."""
        now = await self.in_force()
        now = replace(InForce() if anew else now, serial=now.serial + 1, **changes)
        self._in_force = None  # cut short, nobody knows which is there
        await self.disk.do(lambda: self._write(now), FILES_S)
        self._in_force = now
        return now

    async def reload(self, **changes: Any) -> InForce:
        """Write our files, and have the engine read them: when this returns, new sessions go by them."""
        now = await self.write(**changes)
        await self.process.signal(signal.SIGHUP)
        await self.has_read(now)
        return now

    async def has_read(self, now: InForce) -> None:
        """Wait until the session that is kept has read this configuration: the postmaster has before it."""
        await until(lambda: self._has_read(now))

    async def _has_read(self, now: InForce) -> bool:
        return self._is_read(now, (await self.ask(_IN_FORCE))[0])

    async def has_read_for_certain(self, now: InForce) -> None:
        """Wait until the postmaster has read all of it, and whoever comes in goes by it."""
        try:
            async with asyncio.timeout(_ANSWER_S):
                await until(lambda: self._newcomer_has_read(now))
        except TimeoutError:
            raise DriverFault(f"PostgreSQL on {self.place.name} does not read its configuration.") from None

    async def _newcomer_has_read(self, now: InForce) -> bool:
        """Asked of a process that the postmaster has just started."""
        return self._is_read(now, (await once(self.conninfo(), _IN_FORCE))[0])

    def _is_read(self, now: InForce, row: Row) -> bool:
        """Whether the engine goes by this configuration. DriverFault when something else overrules a part of it."""
        serial, *found = row
        if serial != str(now.serial):
            return False
        for name, value in zip(_OVERRULED, found, strict=True):
            if value != settings.owned(self.place, now)[name]:
                raise DriverFault(
                    f"{name} on {self.place.name} is not what understudy has set: postgresql.auto.conf overrules it. "
                    f"Take it out there (ALTER SYSTEM RESET {name}) and start the engine anew."
                )
        return True

    def role_verifier(self) -> str:
        """What the server keeps of the role's password."""
        if self._session is None:
            raise DriverFault("There is no session with PostgreSQL.")
        return self._session.verifier(settings.ROLE, settings.role_password(self._password))

    async def keep_passwords(self) -> None:
        """Have ours in the files by which this node reaches others: an earlier agent may have gone by another one."""
        await self.disk.do(self._keep_passwords, FILES_S)

    def _keep_passwords(self) -> None:
        """Between two writings of our files, never within one: who is frozen must not get its password back."""
        place, account = self.place, self._tools().account
        try:
            _put(place.passwords, settings.passwords(place, self._password), account)
            if self._read().source is not None and place.follow_password.exists():
                _put(place.follow_password, settings.follow_password(self._password), account)
        except OSError as error:
            raise DriverFault(f"The passwords of {place.name} cannot be written ({error}).") from error

    def fits_role(self, digest: str) -> bool:
        """Whether what a server keeps of the role's password is of ours. Takes milliseconds; for a thread."""
        return check.fits(digest.encode(), settings.ROLE, settings.role_password(self._password))

    def make_standby(self) -> None:
        """See to it that the next start is a standby's, where there is any data. On a thread."""
        if (self.place.data / "PG_VERSION").exists():
            make_standby(self.place.data, self._tools())

    def _read(self) -> InForce:
        try:
            return settings.read_back(self.place.configuration.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return InForce()
        except OSError as error:
            raise DriverFault(f"{self.place.configuration} cannot be read ({error}).") from error

    def _write(self, now: InForce) -> None:
        place, account = self.place, self._tools().account
        try:
            beside.prepare(beside.of(place.data), account)
            text = theirs.read(place.data / "pg_hba.conf", account)
            _put(place.passwords, settings.passwords(place, self._password), account)
            _put(place.hba, settings.hba(place, now, text), account)
            mapped = theirs.read(place.data / "pg_ident.conf", account)
            us = (account.name, pwd.getpwuid(os.geteuid()).pw_name)
            _put(place.ident, settings.ident(place, us, mapped), account)
            if now.source is None:
                place.follow_password.unlink(missing_ok=True)
            else:
                _put(place.follow_password, settings.follow_password(self._password), account)
            major = binaries.major_of(place.data) or binaries.VERSIONS[0]
            if now.epoch:  # a promotion takes it away
                make_standby(place.data, self._tools())
            _put(place.configuration, settings.configuration(place, now, major), account)
        except OSError as error:
            raise DriverFault(f"The configuration of {place.name} cannot be written ({error}).") from error

    # ---- life ----

    async def start(self, epoch: int, **changes: Any) -> None:
        """Start it as a standby, and wait until it takes sessions; as it is, when it runs already."""
        state = await self.process.look()
        if not state.running:
            now = await self.write(anew=True, **changes)
            await self.disk.do(self._before_start, FILES_S)
            self.drop()
            said = await self.disk.do(self._log_bytes, FILES_S)
            tools = self._tools()
            account = tools.account
            who = OsUser(account.uid, account.gid, account.groups) if os.geteuid() == 0 else None
            await self.process.start(
                [tools.path("postgres"), "-D", str(self.place.data), "-c", f"config_file={self.place.configuration}"],
                environment=ENVIRONMENT,
                directory=self.place.data,
                log=self.place.log,
                user=who,
                epoch=epoch,
            )
            await self._until_it_serves(said)
            await self.has_read(now)
        else:
            await self._until_it_serves(None)

    async def _until_it_serves(self, said_before: int | None) -> None:
        """said_before: how long its log was when it was started; None when that is not known."""
        for number in itertools.count(1):
            state = await self.process.look()
            if not state.running:
                said = await self.disk.do(self._last_words, FILES_S)
                raise DriverFault(f"PostgreSQL on {self.place.name} ended while it started: {said}")
            if await self.disk.do(self._says_ready, FILES_S):
                with suppress(DriverFault):
                    await self.ask("SELECT 1")
                    return
            if said_before is not None and number % _READ_LOG_EVERY == 0:
                await self.disk.do(partial(self._must_have_log, said_before), FILES_S)
            await asyncio.sleep(_START_POLL_S)

    def _says_ready(self) -> bool:
        """Whether it takes sessions, by the word in its pid file; asked itself, it would log each refusal."""
        try:
            return (self.place.data / "postmaster.pid").read_text(encoding="utf-8").rstrip().endswith("ready")
        except OSError:
            return False

    def _before_start(self) -> None:
        """Nothing lives below this node's guard: what names a process is stale, and its number another's."""
        place = self.place
        stranger = runs_unguarded(place.data)
        if stranger is not None:
            raise DriverFault(
                f"PostgreSQL runs on {place.data} already (process {stranger}), and not by our hand: stop that one."
            )
        try:
            make_standby(place.data, self._tools())
            for stale in (place.data / "postmaster.pid", place.ours / f".s.PGSQL.{place.address.port}.lock"):
                stale.unlink(missing_ok=True)
        except OSError as error:
            raise DriverFault(f"{place.data} cannot be made ready to start ({error}).") from error

    def _log_bytes(self) -> int:
        return self.place.log.stat().st_size if self.place.log.exists() else 0

    def _must_have_log(self, said_before: int) -> None:
        """Raises LogIsGone, by what it has said since: it would try again for ever."""
        with self.place.log.open("rb") as file:
            file.seek(max(said_before, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
        gone = [line for line in lines if _GONE in line]
        if gone:
            raise LogIsGone(f"PostgreSQL on {self.place.name} cannot come up: {gone[-1].strip()}.")

    def _last_words(self) -> str:
        try:
            with self.place.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            return f"its log {self.place.log} cannot be read."
        telling = [line for line in lines if any(word in line for word in ("FATAL:", "PANIC:", "ERROR:"))]
        return f"{(telling or lines or ['it said nothing'])[-1].strip()} (more in {self.place.log})."

    async def kill(self, epoch: int) -> None:
        """Kill it with its whole family, verified; and one that somebody else started on the same data."""
        self.drop()
        await self.process.kill(epoch=epoch)
        try:
            stranger = await self.disk.do(lambda: runs_unguarded(self.place.data), _GLANCE_S)
        except DriverFault:
            return  # on a hung disk nothing can have been started
        if stranger is not None:
            await until(self._strangers_gone)

    async def _strangers_gone(self) -> bool:
        return not await self.disk.do(lambda: _kill_on(self.place.data), FILES_S)

    async def state(self) -> EngineState:
        """Its process. The session of an earlier life is let go."""
        state = await self.process.look()
        if state.life != self._life:
            self.drop()
            self._life = state.life
        return state


async def until(came: Callable[[], Awaitable[bool]], every_s: float = POLL_S) -> None:
    """Ask again and again, which is how PostgreSQL has to be waited for."""
    while not await came():  # noqa: ASYNC110  the engine tells nobody
        await asyncio.sleep(every_s)


def runs_unguarded(data: Path) -> int | None:
    """The postmaster that has this data, by its pid file; None when it does not live. Ask when the guard has none."""
    try:
        pid = int((data / "postmaster.pid").read_text(encoding="utf-8").partition("\n")[0])
        return pid if Path(f"/proc/{pid}/cwd").resolve() == data.resolve() else None
    except (OSError, ValueError):
        return None


def _kill_on(data: Path) -> int:
    """Kill whoever lives in this data directory, as every process of PostgreSQL does; how many there were."""
    found = 0
    for pid in (int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit()):
        with suppress(OSError):
            pidfd = os.pidfd_open(pid)
            try:
                if Path(f"/proc/{pid}/cwd").resolve() == data.resolve():
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    found += 1
            finally:
                os.close(pidfd)
    return found


def make_standby(data: Path, tools: Tools) -> None:
    """See to it that whatever starts on this data is a standby."""
    if theirs.make(data / "standby.signal", tools.account):
        beside.flush(data)


def _put(path: Path, text: str, account: Account) -> None:
    """Replace a small file where it is another. Not flushed: every start of an engine writes all of them anew."""
    try:
        if path.read_text(encoding="utf-8") == text:
            return
    except (FileNotFoundError, UnicodeDecodeError):
        pass
    theirs.put(path, text, account, flush=False)
