"""Making data and copying it, on the real engine."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.drivers.postgres.real import PASSWORD, PATIENCE_S, Engine, until

from understudy.core.errors import Refused
from understudy.drivers.base import DriverFault
from understudy.drivers.postgres import beside, control_file, copying
from understudy.drivers.postgres.job import Job
from understudy.drivers.postgres.tools import Tools


async def test_first_data(root: Path) -> None:
    """The first data has checksums, UTF-8 and a SCRAM password, starts as a standby, and is never made twice."""
    a = Engine("a", root)
    await copying.bootstrap(a.home, "boss", PASSWORD, patience_s=PATIENCE_S)
    assert (a.data / "standby.signal").is_file()
    assert (await control_file.read(a.tools, a.data)).checksums
    assert not list(beside.of(a.data).root.glob("password*"))
    a.start()
    try:
        assert a.value("SHOW server_encoding") == "UTF8"
        assert a.value("SELECT rolpassword LIKE 'SCRAM-SHA-256$%' FROM pg_authid WHERE rolname = 'boss'") == "True"
    finally:
        a.stop()
    with pytest.raises(Refused, match="not empty"):
        await copying.bootstrap(a.home, "boss", PASSWORD, patience_s=PATIENCE_S)


@pytest.mark.parametrize("after_s", [0.0, 0.1, 0.5])
async def test_first_data_cut_short(root: Path, after_s: float) -> None:
    """Cut short anywhere, there is no data yet, or all of it; done again, it is made."""
    a = Engine("a", root)
    work = asyncio.ensure_future(copying.bootstrap(a.home, "boss", PASSWORD, patience_s=PATIENCE_S))
    await asyncio.sleep(after_s)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    await copying.settle(a.home)
    if copying.is_empty(a.data):
        await copying.bootstrap(a.home, "boss", PASSWORD, patience_s=PATIENCE_S)
    assert (await control_file.read(a.tools, a.data)).state.clean


async def test_foreign_files(root: Path) -> None:
    """A directory with anything in it is not touched."""
    a = Engine("a", root)
    a.data.mkdir()
    (a.data / "letter.txt").write_text("dear")
    with pytest.raises(Refused, match="empty it"):
        await copying.bootstrap(a.home, "boss", PASSWORD, patience_s=PATIENCE_S)
    assert [path.name for path in a.data.iterdir()] == ["letter.txt"]


async def test_rebuild_keeps_the_old(a: Engine, b: Engine) -> None:
    """A rebuilt node is a standby with the source's data and its own settings; what it had is kept as it was."""
    b.stop()
    (b.data / "postgresql.conf").write_text("# b's own\n")
    (b.data / "only-here").write_text("precious")
    a.rows("INSERT INTO t SELECT generate_series(1, 1000)")
    kept = await copying.rebuild(b.home, a.source, "1", consent=False, patience_s=PATIENCE_S)
    assert (kept / "only-here").read_text() == "precious"
    assert not (b.data / "only-here").exists()
    assert (b.data / "postgresql.conf").read_text() == "# b's own\n"
    assert b.configured == [beside.of(b.data).new]
    b.start(a)
    b.caught_up(a)
    assert b.value("SELECT count(*) FROM t") == "1000"
    assert b.value("SELECT pg_is_in_recovery()") == "True"


async def test_same_order_twice(a: Engine, b: Engine) -> None:
    """An order that was carried out is not carried out again; another one is."""
    b.stop()
    assert await copying.rebuild(b.home, a.source, "1", consent=False, patience_s=PATIENCE_S)
    (b.data / "sign").touch()
    assert await copying.rebuild(b.home, a.source, "1", consent=False, patience_s=PATIENCE_S) is None
    assert (b.data / "sign").exists()
    assert await copying.rebuild(b.home, a.source, "2", consent=False, patience_s=PATIENCE_S)
    assert not (b.data / "sign").exists()
    assert len(list(beside.of(b.data).kept.iterdir())) == 2


async def test_copy_outlives_its_caller(a: Engine, b: Engine) -> None:
    """A copy that is not done in time goes on, says how far it is, and is taken up by the next call, of any agent."""
    b.stop()
    a.rows("CREATE TABLE filler AS SELECT repeat(md5(n::text), 30) FROM generate_series(1, 60000) n")
    before = (b.data / "PG_VERSION").stat().st_ino
    with pytest.raises(DriverFault, match="goes on"):
        await copying.rebuild(b.home, a.source, "1", consent=False, patience_s=0.0)
    job = _job(b)
    other = Engine("b", b.root)
    with pytest.raises(DriverFault, match="goes on"):
        await copying.copy(other.home, a.source, "1", consent=False, patience_s=0.1)
    await copying.copy(other.home, a.source, "1", consent=False, patience_s=PATIENCE_S)
    assert _job(b) == job, "the same copy all the time"
    assert (b.data / "PG_VERSION").stat().st_ino == before, "nothing moved yet"
    assert await copying.put_in_place(other.home)
    assert (b.data / "PG_VERSION").stat().st_ino != before


async def test_one_at_a_time_makes_data(a: Engine, b: Engine) -> None:
    """First data that nobody wants any more are not made into a copy: what makes them is ended."""
    c = Engine("c", b.root)
    place = c.root / "bin"
    place.mkdir(mode=0o755)
    slow = 'touch begun; until [ -e go ]; do sleep 0.05; done; rm -r "${1#--pgdata=}"/*'
    (place / "initdb").write_text(f"#!/bin/sh\n{slow}\n")
    (place / "initdb").chmod(0o755)
    home = replace(c.home, tools=Tools(place, c.tools.account))
    with pytest.raises(DriverFault, match="goes on"):
        await copying.bootstrap(home, "boss", PASSWORD, patience_s=0.0)
    first = Job(beside.of(c.data).jobs / "first")
    until((first.directory / "run" / "begun").exists, "it was begun")
    await copying.copy(c.home, a.source, "1", consent=False, patience_s=PATIENCE_S)
    (first.directory / "run" / "go").touch()
    assert await first.wait(PATIENCE_S)
    await copying.put_in_place(c.home)
    c.start(a)
    c.crash()


async def test_another_order_ends_the_copy(a: Engine, b: Engine) -> None:
    """A copy for another order is ended, and does not come in its place."""
    b.stop()
    with pytest.raises(DriverFault, match="goes on"):
        await copying.copy(b.home, a.source, "1", consent=False, patience_s=0.0)
    await copying.rebuild(b.home, a.source, "2", consent=False, patience_s=PATIENCE_S)
    assert json.loads((beside.of(b.data).root / "placed").read_text())["order"] == "2"
    assert Job(beside.of(b.data).jobs / "copy").purpose["order"] == "2", "it is not the first one's copy"


async def test_cut_between_the_renames(a: Engine, b: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut after any of the renames, the next call ends the swap, and the old data is there once."""
    b.stop()
    (b.data / "only-here").touch()
    await copying.copy(b.home, a.source, "1", consent=False, patience_s=PATIENCE_S)
    move, moves = beside.move, []

    def stumble(path: Path, to: Path) -> None:
        move(path, to)
        moves.append(to)
        raise OSError("killed")

    monkeypatch.setattr(beside, "move", stumble)
    for _ in range(2):
        with pytest.raises(DriverFault, match="killed"):
            await copying.put_in_place(b.home)
    assert len(moves) == 2
    assert not list(beside.of(b.data).kept.glob("*/*/only-here"))
    monkeypatch.undo()
    await copying.settle(b.home)
    assert (await control_file.read(b.tools, b.data)).system_identifier
    assert await copying.rebuild(b.home, a.source, "1", consent=False, patience_s=1) is None, "it is in place"
    assert len(list(beside.of(b.data).kept.glob("*/only-here"))) == 1


async def test_no_room(a: Engine, b: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room for both nothing is touched; with consent the old data makes room, if that is enough."""
    b.stop()
    monkeypatch.setattr(beside, "free_bytes", lambda _: 150 * copying.MEBIBYTE)
    with pytest.raises(Refused, match=r"150 MiB are free.*--accept-loss"):
        await copying.rebuild(b.home, a.source, "1", consent=False, patience_s=PATIENCE_S)
    assert (b.data / "PG_VERSION").is_file()
    monkeypatch.setattr(beside, "free_bytes", lambda _: 1 * copying.MEBIBYTE)
    with pytest.raises(Refused, match="free some space"):
        await copying.rebuild(b.home, a.source, "1", consent=True, patience_s=PATIENCE_S)
    assert (b.data / "PG_VERSION").is_file()
    monkeypatch.setattr(beside, "free_bytes", lambda _: 150 * copying.MEBIBYTE)
    assert await copying.rebuild(b.home, a.source, "1", consent=True, patience_s=PATIENCE_S) is None
    assert not list(beside.of(b.data).kept.iterdir())
    b.start(a)


async def test_source_is_away(a: Engine, b: Engine) -> None:
    """A source that cannot be copied is named with what it said, and nothing is left of the attempt."""
    b.stop()
    a.rows("ALTER SYSTEM SET max_wal_senders = 0")
    a.rows("ALTER SYSTEM SET wal_level = minimal")
    a.stop()
    a.start()
    with pytest.raises(DriverFault, match=r"copied from a: .*max_wal_senders"):
        await copying.rebuild(b.home, a.source, "1", consent=False, patience_s=PATIENCE_S)
    assert not beside.of(b.data).new.exists()
    assert (b.data / "PG_VERSION").is_file()


async def test_damaged_source(a: Engine, b: Engine) -> None:
    """A source whose pages are damaged is not copied."""
    b.stop()
    path = a.data / a.value("SELECT pg_relation_filepath('pg_proc')")
    a.stop()
    with path.open("r+b") as file:
        file.seek(8192 * 3 + 1000)
        file.write(b"\x55" * 64)
    a.start()
    with pytest.raises(DriverFault, match="checksum"):
        await copying.rebuild(b.home, a.source, "1", consent=False, patience_s=PATIENCE_S)
    assert (b.data / "PG_VERSION").is_file()


async def test_what_lies_elsewhere(a: Engine, root: Path) -> None:
    """Tablespaces and a log in places of their own are copied beside where the source has them, more than once."""
    (root / "fast").mkdir()
    a.tools.account.give(root / "fast")
    a.rows(f"CREATE TABLESPACE fast LOCATION '{root}/fast'")
    a.rows("CREATE TABLE here (n int) TABLESPACE fast")
    c = Engine("c", root)
    await copying.rebuild(c.home, a.source, "1", consent=False, patience_s=PATIENCE_S)
    (root / "wal").mkdir()
    (c.data / "pg_wal").rename(root / "wal" / "c")
    (c.data / "pg_wal").symlink_to(root / "wal" / "c")
    await asyncio.sleep(1.1)  # its name holds the second
    await copying.rebuild(c.home, a.source, "2", consent=False, patience_s=PATIENCE_S)
    assert (c.data / "pg_wal").readlink().parent == root / "wal"
    (link,) = (c.data / "pg_tblspc").iterdir()
    assert link.readlink().name.startswith("fast.c-")
    c.start(a, settings=("max_prepared_transactions=10",))
    try:
        c.caught_up(a)
        assert c.value("SELECT count(*) FROM here") == "0"
    finally:
        c.crash()


async def test_symbolic_link(a: Engine, b: Engine) -> None:
    """Data behind a symbolic link is replaced where it really is, and the link stays."""
    b.stop()
    real = b.root / "disk" / "b"
    real.parent.mkdir()
    b.data.rename(real)
    b.data.symlink_to(real)
    await copying.rebuild(b.home, a.source, "1", consent=False, patience_s=PATIENCE_S)
    assert b.data.readlink() == real
    assert len(list((real.parent / "b.understudy" / "kept").iterdir())) == 1
    b.start(a)


async def test_no_secret_in_sight(root: Path) -> None:
    """No password is in an argument of anything that is started for the first data."""
    a = Engine("a", root)
    seen: list[str] = []
    work = asyncio.ensure_future(copying.bootstrap(a.home, "boss", PASSWORD, patience_s=PATIENCE_S))
    while not work.done():
        seen += await asyncio.to_thread(_all_arguments)
        await asyncio.sleep(0.01)
    await work
    assert any("initdb" in words for words in seen)
    assert not any(PASSWORD in words for words in seen)


def _all_arguments() -> list[str]:
    return [_arguments(path) for path in Path("/proc").glob("[0-9]*/cmdline")]


def _arguments(path: Path) -> str:
    try:
        return path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _job(engine: Engine) -> int:
    return (beside.of(engine.data).jobs / "copy" / "lock").stat().st_ino
