"""The data of a node: the very first of a cluster (initdb), and copies of a source (pg_basebackup).

RULES
1. New data is made beside the old one, and is put in its place by renames once it is whole, configured and on the disk.
   Before that nothing changes, whatever is cut short; after it nothing is copied twice for the same order.
2. The old data is kept, always: it may hold what nobody else has. It is removed by a person; by us only with consent,
   and only where both do not fit.
3. Whatever is put in place starts as a standby: `standby.signal` is in it.
"""

import json
import os
import re
import shutil
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from understudy.core.errors import Refused
from understudy.core.words import listed
from understudy.drivers.base import DriverFault
from understudy.drivers.postgres import beside
from understudy.drivers.postgres.beside import Beside
from understudy.drivers.postgres.home import Home, Source
from understudy.drivers.postgres.job import Job
from understudy.drivers.postgres.tools import last_words

SEGMENT_MIB = 4
"""Of the log's files. A promotion writes a whole one before anything else, and each standby is sent one anew: with
PostgreSQL's 16 that took 6 to 27 ms of a failover in memory, and more on a disk."""
LOCALE = "C.UTF-8"
"""The same order of text on every machine and after every upgrade of its C library."""
OWN_FILES = ("postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "pg_ident.conf")
"""What the user may have set for this node: a copy or a rewind brings the source's, and ours are put back."""
MEBIBYTE = 1024 * 1024
_SPARE_BYTES = 128 * MEBIBYTE
"""For WAL that comes while we copy; and 5 % of everything."""
_FIRST_HBA = """\
# Everybody may come, from anywhere, with a password. Who may come to what: change it as you like.
local   all   all          scram-sha-256
host    all   all   all    scram-sha-256
"""
_SIZES = "SELECT pg_tablespace_location(oid), sum(pg_tablespace_size(oid))::bigint FROM pg_tablespace GROUP BY 1"
_PROGRESS = re.compile(r"(\d+)/(\d+) kB \((\d+)%\)")


@dataclass(frozen=True, slots=True)
class _Plan:
    """Where each part of a copy goes: the data itself, and what lies elsewhere."""

    needs: tuple[tuple[Path, int], ...]
    """Directories that must have that much room, in bytes."""
    elsewhere: tuple[tuple[str, Path], ...]
    """The source's tablespaces, or `wal`, and where ours will be."""

    @property
    def words(self) -> list[str]:
        """What pg_basebackup is told of it."""
        return [
            f"--waldir={place}" if what == _WAL else f"--tablespace-mapping={_escaped(what)}={_escaped(str(place))}"
            for what, place in self.elsewhere
        ]


_WAL = "wal"


def is_empty(data: Path) -> bool:
    """Whether there is no data at all: nothing was ever put here, or not to its end."""
    try:
        return next(data.iterdir(), None) is None
    except FileNotFoundError:
        return True


def unusable(data: Path) -> str:
    """Why this data must never be started; empty when it may."""
    try:
        return beside.of(data).unusable.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


async def settle(home: Home) -> None:
    """End what was cut in half between two renames. To be called before anything else is done."""
    await home.on_disk(partial(_settle, home.places))


async def bootstrap(home: Home, superuser: str, password: str, *, patience_s: float) -> None:
    """Make the first data of a cluster: checksums, UTF-8, SCRAM. Refused where there is anything at all.

    Raises DriverFault when it is not done yet: it goes on by itself, and the next call finds it.
    """
    purpose = {"what": f"the first data of {home.node}", "order": "bootstrap", "source": superuser}
    job = Job(home.places.jobs / "first")
    await home.on_disk(partial(_must_be_empty, home))
    if job.purpose != purpose:
        await _end_makers(home)
        await home.on_disk(partial(_start_first, home, job, purpose, password))
    if not await job.wait(patience_s):
        raise DriverFault(f"{purpose['what']} is being made; it goes on by itself.")
    await home.on_disk(partial(_end_first, home, job, purpose))
    await home.on_disk(partial(_put_in_place, home))


async def copy(home: Home, source: Source, order: str, *, consent: bool, patience_s: float) -> None:
    """Copy the source beside the data in place, which stays as it is (and may be in use, but for `consent`).

    order: what tells this copy from another; the same order from the same source takes up what is under way or done.
    consent: where both do not fit, the data in place is destroyed first.
    Raises DriverFault when it is not done yet: it goes on by itself, and the next call finds it.
    """
    purpose = {"what": f"the copy of {source.name} for {home.node}", "order": order, "source": source.name}
    if await home.on_disk(partial(_is_done, home, purpose)):
        return
    job = Job(home.places.jobs / "copy")
    if job.purpose != purpose:
        await _end_makers(home)
        await _begin(home, source, job, purpose, consent=consent)
    if not await job.wait(patience_s):
        raise DriverFault(f"{home.node} is being copied from {source.name}{_progress(job)}; it goes on by itself.")
    await home.on_disk(partial(_end, home, source, job, purpose))


async def put_in_place(home: Home) -> Path | None:
    """Let the copy take the place of the data; where the old data is kept, if there was any. The engine is dead."""
    return await home.on_disk(partial(_put_in_place, home))


async def rebuild(home: Home, source: Source, order: str, *, consent: bool, patience_s: float) -> Path | None:
    """Copy, and put in place. The engine is dead."""
    await copy(home, source, order, consent=consent, patience_s=patience_s)
    return await put_in_place(home)


async def _end_makers(home: Home) -> None:
    """End whatever makes new data, for this order or another: all of it is made in one place."""
    for name in ("first", "copy"):
        await Job(home.places.jobs / name).end(home.tools.account)


def keep_own_files(data: Path, to: Path) -> None:
    """Copy what the user may have set for this node."""
    for name in OWN_FILES:
        if (data / name).is_file():
            shutil.copy2(data / name, to / name)
            beside.flush(to / name)
    beside.flush(to)


def finish_standby(home: Home, data: Path) -> None:
    """Configure it, and let it start as nothing but a standby."""
    home.configure(data)
    signal = data / "standby.signal"
    signal.touch(mode=0o600)
    for name in ("standby.signal", *OWN_FILES):
        if (data / name).is_file():
            home.tools.account.give(data / name)
            beside.flush(data / name)
    beside.flush(data)


# --- the first data -------------------------------------------------------------------------------------------------


def _must_be_empty(home: Home) -> None:
    beside.prepare(home.places, home.tools.account)
    _settle(home.places)
    if not is_empty(home.data):
        raise Refused(
            f"{home.data} is not empty, so the first data of {home.node} is not made there: "
            "empty it if nothing in it is needed, or name another directory"
        )


def _start_first(home: Home, job: Job, purpose: dict[str, str], password: str) -> None:
    places, account = home.places, home.tools.account
    beside.remove(places.whole)
    beside.write(_password_file(places), password + "\n")
    account.give(_password_file(places))
    command = [
        home.tools.path("initdb"),
        f"--pgdata={beside.make_new(places, account)}",
        f"--username={purpose['source']}",
        f"--pwfile={_password_file(places)}",
        "--auth-local=scram-sha-256",
        "--auth-host=scram-sha-256",
        "--data-checksums",
        f"--wal-segsize={SEGMENT_MIB}",
        "--encoding=UTF8",
        f"--locale={LOCALE}",
    ]
    job.start(home.tools, command, purpose)


def _end_first(home: Home, job: Job, purpose: dict[str, str]) -> None:
    places = home.places
    beside.remove(_password_file(places))
    if job.code != 0:
        why = last_words(job.said) if job.code else "initdb was killed"
        job.forget()
        raise DriverFault(f"{purpose['what']} could not be made: {why}")
    hba = places.new / "pg_hba.conf"
    hba.write_text(_FIRST_HBA, encoding="utf-8")
    _finish(home, purpose)
    job.forget()


def _password_file(places: Beside) -> Path:
    return places.root / "password"


# --- a copy ---------------------------------------------------------------------------------------------------------


def _is_done(home: Home, purpose: dict[str, str]) -> bool:
    """Whether this copy is whole, or in place already."""
    places = home.places
    beside.prepare(places, home.tools.account)
    _settle(places)
    wanted = {name: purpose[name] for name in ("order", "source")}.items()
    in_place = wanted <= _noted(_placed(places)).items() and not is_empty(home.data)
    return in_place or wanted <= _noted(places.whole).items()


async def _begin(home: Home, source: Source, job: Job, purpose: dict[str, str], *, consent: bool) -> None:
    sizes = [(str(where), int(size)) for where, size in await source.ask(_SIZES)]
    await home.on_disk(partial(_clear_failed, home, job))
    plan = await home.on_disk(partial(_planned, home, sizes))
    await home.on_disk(partial(_make_room, home, plan, consent=consent))
    await home.on_disk(partial(_start, home, source, job, purpose, plan))


def _planned(home: Home, sizes: list[tuple[str, int]]) -> _Plan:
    """Where everything goes. What the source has elsewhere, we have in the same places, under names of our own."""
    places, suffix = home.places, f".{home.node}-{_stamp()}"
    needs, elsewhere = [(places.root, dict(sizes).get("", 0))], []
    for location, size in sizes:
        if location:
            place = Path(_plain(location) + suffix)
            needs.append((place.parent, size))
            elsewhere.append((location, place))
    wal = home.data / "pg_wal"
    if wal.is_symlink():
        elsewhere.append((_WAL, Path(_plain(os.path.realpath(wal)) + suffix)))
    return _Plan(tuple(needs), tuple(elsewhere))


def _plain(location: str) -> str:
    """Without what an earlier copy has added."""
    return re.sub(r"\.[A-Za-z][A-Za-z0-9_-]*-\d{8}T\d{6}Z(-\d+)?$", "", location)


def _make_room(home: Home, plan: _Plan, *, consent: bool) -> None:
    """Refuse what does not fit, before anything is touched; with consent, destroy the data in place."""
    needed: dict[int, int] = {}
    where: dict[int, Path] = {}
    for directory, size in plan.needs:
        if not directory.is_dir():
            raise Refused(
                f"{directory} is not there, and the source of {home.node} keeps a tablespace in such a place: make it"
            )
        device = directory.stat().st_dev
        needed[device] = needed.get(device, _SPARE_BYTES) + size + size // 20
        where[device] = directory
    short = {device: size for device, size in needed.items() if beside.free_bytes(where[device]) < size}
    if not short:
        return
    here = home.places.root.stat().st_dev
    gained = beside.bytes_below(home.data) if consent else 0
    if set(short) == {here} and gained and beside.free_bytes(home.places.root) + gained >= short[here]:
        beside.clear(home.places, home.places.data)
        return
    device, size = next(iter(short.items()))
    raise Refused(_no_room(home, where[device], size, consent=consent))


def _no_room(home: Home, directory: Path, size: int, *, consent: bool) -> str:
    kept = sorted(path.name for path in home.places.kept.iterdir())
    cure = [f"remove what you no longer need of the old data in {home.places.kept} ({listed(kept)})"] if kept else []
    cure += ["free some space"]
    cure += (
        [] if consent or is_empty(home.data) else ["agree with --accept-loss that the data in place is destroyed first"]
    )
    return (
        f"a copy for {home.node} needs {size // MEBIBYTE} MiB in {directory}, where "
        f"{beside.free_bytes(directory) // MEBIBYTE} MiB are free: {', or '.join(cure)}"
    )


def _start(home: Home, source: Source, job: Job, purpose: dict[str, str], plan: _Plan) -> None:
    places, account = home.places, home.tools.account
    beside.write(_made(places), json.dumps([str(place) for _, place in plan.elsewhere]))
    for _, place in plan.elsewhere:
        place.mkdir(mode=0o700)
        account.give(place)
    command = [
        home.tools.path("pg_basebackup"),
        f"--pgdata={beside.make_new(places, account)}",
        f"--dbname={source.conninfo}",
        "--no-password",
        "--wal-method=stream",  # over a temporary slot, so that none is recycled while we copy
        "--checkpoint=fast",
        "--progress",
        "--label=understudy",
        *plan.words,
    ]
    job.start(home.tools, command, purpose)


def _end(home: Home, source: Source, job: Job, purpose: dict[str, str]) -> None:
    """Make what was copied ready, or say why it was not."""
    places = home.places
    if job.code != 0 or not (places.new / "backup_manifest").is_file():  # written last, when all is on the disk
        why = last_words(job.said) if job.code else "pg_basebackup was killed"
        _clear_failed(home, job)
        raise DriverFault(f"{home.node} could not be copied from {source.name}: {why}")
    if _major(home.data) == _major(places.new):
        # half a rewind has put its source's there
        keep_own_files(places.own_files if unusable(home.data) else home.data, places.new)
    _finish(home, purpose)


def _clear_failed(home: Home, job: Job) -> None:
    """Remove all that a copy that came to nothing has left."""
    places = home.places
    beside.remove(places.whole)
    beside.clear(places, places.new)
    for place in map(Path, _noted_list(_made(places))):
        if place.is_dir():
            shutil.rmtree(place)
    beside.remove(_made(places))
    job.forget()


def _made(places: Beside) -> Path:
    """The list of directories elsewhere that belong to `new`."""
    return places.root / "elsewhere"


def _progress(job: Job) -> str:
    found = _PROGRESS.findall(job.said)
    if not found:
        return ""
    done, whole, share = found[-1]
    return f" ({share} %: {int(done) // 1024} of {int(whole) // 1024} MiB)"


def _major(data: Path) -> str:
    try:
        return (data / "PG_VERSION").read_text(encoding="ascii").strip()
    except OSError:
        return ""


# --- putting in place -------------------------------------------------------------------------------------------------


def _finish(home: Home, purpose: dict[str, str]) -> None:
    places = home.places
    finish_standby(home, places.new)
    beside.write(places.whole, json.dumps({**purpose, "kept": _free_name(places.kept), "going": ""}))


def _put_in_place(home: Home) -> Path | None:
    places = home.places
    noted = _noted(places.whole)
    if not noted:
        return None  # it is there already
    kept = places.kept / noted["kept"]
    beside.write(places.whole, json.dumps({**noted, "going": "yes"}))
    if not is_empty(places.data):
        beside.move(places.data, kept)
    _settle(places)
    return kept if kept.exists() else None


def _settle(places: Beside) -> None:
    """Go on from the first rename, if that was made."""
    noted = _noted(places.whole)
    if not noted.get("going") or (places.new.exists() and not is_empty(places.data)):
        return
    if places.new.exists():
        beside.move(places.new, places.data)
    beside.write(_placed(places), json.dumps(noted))
    beside.remove(_made(places))
    beside.remove(places.unusable)
    beside.remove(places.whole)


def _placed(places: Beside) -> Path:
    """What is in place now, if we put it there."""
    return places.root / "placed"


def _noted(path: Path) -> dict[str, Any]:
    try:
        noted: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return noted


def _noted_list(path: Path) -> list[str]:
    try:
        noted: list[str] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    return noted


def _stamp() -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())


def _free_name(directory: Path) -> str:
    """A name by the time that nothing there has."""
    stamp = _stamp()
    names = [stamp, *(f"{stamp}-{number}" for number in range(2, 1000))]
    return next(name for name in names if not (directory / name).exists())


def _escaped(location: str) -> str:
    """As pg_basebackup wants a path that may hold an equals sign."""
    return location.replace("=", "\\=")
