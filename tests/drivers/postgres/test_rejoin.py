"""The ladder, on the real engine: what a node had for itself is listed row for row before it is undone."""

import asyncio
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import psycopg
import pytest
from tests.drivers.postgres.real import PASSWORD, PATIENCE_S, PAUSED, PROGRAMS, Engine, until

from understudy.core.errors import Refused
from understudy.core.lineage import Position
from understudy.drivers.base import DriverFault, NeedsRebuild
from understudy.drivers.postgres import branches, control_file, copying, lsn
from understudy.drivers.postgres.home import Source
from understudy.drivers.postgres.job import Job
from understudy.drivers.postgres.rejoin import Ladder, Rung, _see_checkpoint, reports
from understudy.drivers.postgres.tools import Tools

FAR = 1 << 60


async def where(engine: Engine) -> Position:
    """Its history, as the driver would say it."""
    log = branches.Log.of(engine.data)
    if engine.process is None:
        timeline = (await control_file.read(engine.tools, engine.data)).newest_timeline
    else:
        timeline = int(engine.value("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"), 16)
    return branches.position(log, timeline, FAR, engine.tools.account)


async def rejoin(engine: Engine, source: Engine, patience_s: float = PATIENCE_S) -> Rung:
    return await Ladder(engine.home).rejoin(
        source.source, ours=partial(where, engine), theirs=await where(source), epoch=2, patience_s=patience_s
    )


async def rejoin_in_the_end(engine: Engine, source: Engine) -> Rung:
    """Tried again as the agent does: while a rewind goes on by itself, the files that say the history change, too."""
    give_up_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await rejoin(engine, source)
        except DriverFault:
            assert time.monotonic() < give_up_s, "it never came to its end"
            await asyncio.sleep(0.05)


def write(engine: Engine, first: int, number: int) -> set[int]:
    """So many transactions of one row each; their ids."""
    statements = [f"INSERT INTO t VALUES ({n}) RETURNING pg_current_xact_id()" for n in range(first, first + number)]
    return {int(row[0]) for row in engine.rows(*statements)}


def follows(engine: Engine, source: Engine) -> None:
    """It starts, streams, and has what the source has."""
    write(source, 9000, 1)
    engine.start(source)
    engine.caught_up(source)
    everything = "SELECT coalesce(string_agg(n::text, ' ' ORDER BY n), '') FROM t"
    assert engine.value(everything) == source.value(everything)
    assert engine.value("SELECT pg_is_in_recovery()") == "True"


@pytest.fixture
def c(root: Path, a: Engine, b: Engine) -> Iterator[Engine]:
    """A second standby of a, running."""
    del b
    engine = Engine("c", root)
    asyncio.run(copying.rebuild(engine.home, a.source, "1", consent=False, patience_s=PATIENCE_S))
    engine.start(a)
    engine.caught_up(a)
    yield engine
    engine.crash()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
async def test_as_it_is(a: Engine, b: Engine, how: signal.Signals) -> None:
    """Who has nothing for itself follows as it is, stopped in order or killed; nothing is reported lost."""
    write(a, 0, 3)
    b.caught_up(a)
    a.stop(how)
    b.promote()
    assert await rejoin(a, b) is Rung.AS_IS
    assert reports(a.data) == ()
    follows(a, b)


async def test_rewound(a: Engine, b: Engine) -> None:
    """What only the old primary has is listed to the transaction and saved, then undone; its own settings stay."""
    write(a, 0, 3)
    b.caught_up(a)
    b.stop()
    only_here = write(a, 100, 20)
    only_here.add(
        int(
            a.value(
                "BEGIN; INSERT INTO t VALUES (200) RETURNING pg_current_xact_id(); SAVEPOINT s; "
                "INSERT INTO t VALUES (201); COMMIT"
            )
        )
    )
    a.rows("BEGIN; INSERT INTO t VALUES (300); ROLLBACK")
    prepared = int(
        a.value("BEGIN; INSERT INTO t VALUES (400) RETURNING pg_current_xact_id(); PREPARE TRANSACTION 'p 1'")
    )
    both = int(a.value("BEGIN; INSERT INTO t VALUES (500) RETURNING pg_current_xact_id(); PREPARE TRANSACTION 'p2'"))
    a.rows("COMMIT PREPARED 'p2'")
    a.rows("SELECT pg_create_physical_replication_slot('old')")
    with (a.data / "postgresql.conf").open("a") as file:
        file.write("# a's own\n")
    a.crash()
    b.start(standby=True)
    b.promote()
    write(b, 100, 5)
    assert await rejoin(a, b) is Rung.REWOUND
    (report,) = reports(a.data)
    assert {one.xid for one in report.transactions if one.fate == "committed"} == only_here | {both}
    assert [(one.xid, one.gid) for one in report.transactions if one.fate == "prepared"] == [(prepared, "p 1")]
    assert report.complete
    assert "22 committed transactions" in report.summary
    assert all((Path(report.path).parent / name).stat().st_size == copying.SEGMENT_MIB << 20 for name in report.log)
    assert (a.data / "postgresql.conf").read_text().endswith("# a's own\n")
    assert not copying.unusable(a.data)
    follows(a, b)
    assert a.value("SELECT count(*) FROM pg_replication_slots") == "0"
    assert a.value("SELECT count(*) FROM pg_prepared_xacts") == "0"


async def test_the_source_has_thrown_away_what_recovery_begins_in(a: Engine, b: Engine) -> None:
    """After a rewind a node begins at what may be a gigabyte before its last common checkpoint: in log of its own."""
    b.stop()
    b.start(a, settings=("wal_keep_size=0",))
    begins = checkpoint_slowly(a)
    b.caught_up(a)
    b.stop()
    only_here = write(a, 300, 3)
    a.crash()
    b.start(standby=True, settings=("wal_keep_size=0",))
    b.promote()
    b.rows("CHECKPOINT", "CHECKPOINT")
    assert not (b.data / "pg_wal" / begins).exists()
    assert await rejoin(a, b) is Rung.REWOUND
    assert only_here == {one.xid for one in reports(a.data)[0].transactions}
    follows(a, b)
    assert not a.home.places.own_files.exists()


def checkpoint_slowly(engine: Engine) -> str:
    """As the checkpointer does by itself, a page at a time, while the log goes on; the file in which it began."""
    begins, ends, number = "", "", 1000
    while begins >= ends:
        write(engine, number, 50)
        with psycopg.connect(engine.conninfo, autocommit=True) as other, ThreadPoolExecutor() as pool:
            begun = pool.submit(other.execute, "SELECT pg_backup_start('slow')")
            while not begun.done():
                engine.rows("SELECT pg_switch_wal()")
                number += len(write(engine, number + 50, 1))
                time.sleep(0.05)
        [[begins, ends]] = engine.rows(
            "SELECT redo_wal_file, pg_walfile_name(checkpoint_lsn) FROM pg_control_checkpoint()"
        )
        number += 50
    return begins


async def test_stopped_in_order_with_more(a: Engine, b: Engine) -> None:
    """Who was stopped in order, but has more, is rewound without recovery."""
    b.stop()
    only_here = write(a, 100, 2)
    a.stop()
    b.start(standby=True)
    b.promote()
    assert await rejoin(a, b) is Rung.REWOUND
    assert {one.xid for one in reports(a.data)[0].transactions} == only_here
    follows(a, b)


async def test_files_made_ahead(a: Engine, b: Engine) -> None:
    """Empty files of the log, which PostgreSQL makes before it needs them, hide nothing of what was written."""
    b.stop()
    only_here = write(a, 100, 2)
    a.crash()
    log = branches.Log.of(a.data)
    newest = max(path.name for path in log.directory.iterdir() if len(path.name) == len("0" * 24))
    for ahead in range(1, 16):
        path = log.directory / f"{int(newest, 16) + ahead:024X}"
        path.write_bytes(bytes(log.segment_bytes))
        a.tools.account.give(path)
    b.start(standby=True)
    b.promote()
    assert await rejoin(a, b) is Rung.REWOUND
    assert {one.xid for one in reports(a.data)[0].transactions} == only_here
    follows(a, b)


async def test_stale_history(a: Engine, b: Engine) -> None:
    """What a node heard of a timeline that came to nothing does not lead it astray when another gets its number."""
    b.caught_up(a)
    a.stop()
    b.promote()
    stale = a.data / "pg_wal" / "00000002.history"
    stale.write_text("1\t0/1000028\tno recovery target specified\n")
    a.tools.account.give(stale)
    assert await rejoin(a, b) is Rung.AS_IS
    follows(a, b)


async def test_cut(a: Engine, b: Engine, c: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A standby that received more than was ever used, and had not replayed it, is cut, not copied."""
    b.caught_up(a)
    b.stop()
    c.rows("SELECT pg_wal_replay_pause()")
    until(lambda: c.value(PAUSED) == "paused", "replay is paused")
    only_here = write(a, 100, 30)
    a.rows("SELECT pg_switch_wal()")
    only_here |= write(a, 200, 3)
    end = a.value("SELECT pg_current_wal_lsn()")
    c_has = f"SELECT pg_last_wal_receive_lsn() >= '{end}'"
    until(lambda: c.value(c_has) == "True", "c has received it")
    c.crash()
    a.crash()
    b.start(standby=True)
    b.promote()
    for step in ("beside.remove", "_blank"):
        monkeypatch.setattr(f"understudy.drivers.postgres.rejoin.{step}", _stumble)
        with pytest.raises(DriverFault, match="killed"):
            await rejoin(c, b)
        monkeypatch.undo()
    assert await rejoin(c, b) is Rung.CUT
    assert {one.xid for one in reports(c.data)[0].transactions} == only_here
    assert await rejoin(c, b) is Rung.AS_IS, "done again, there is nothing left to do"
    assert {one.xid for one in reports(c.data)[0].transactions} == only_here
    follows(c, b)


async def test_standby_that_replayed_more(a: Engine, b: Engine, c: Engine) -> None:
    """A killed standby whose pages hold more than the new primary is recovered and rewound.

    Also when its receiver has fetched the new primary's history already, which comes before any log of it.
    """
    b.caught_up(a)
    b.stop()
    only_here = write(a, 100, 30)
    a.rows("CHECKPOINT")
    c.caught_up(a)
    c.rows("CHECKPOINT")
    c.crash()
    a.crash()
    b.start(standby=True)
    b.promote()
    history = "pg_wal/00000002.history"
    (c.data / history).write_text((b.data / history).read_text())
    c.tools.account.give(c.data / history)
    assert await rejoin(c, b) is Rung.REWOUND
    assert {one.xid for one in reports(c.data)[0].transactions} == only_here
    follows(c, b)


async def test_twin_timelines(a: Engine, b: Engine, c: Engine) -> None:
    """Two promotions from the same point get the same number; the wrong one is not taken for the right one."""
    b.caught_up(a)
    c.caught_up(a)
    a.crash()
    b.stop()
    c.promote()
    only_here = write(c, 100, 4)
    c.rows("CHECKPOINT")
    c.crash()
    b.start(standby=True)
    b.promote()
    write(b, 100, 40)
    assert (await where(b)).branches[-1].start == (await where(c)).branches[-1].start
    with pytest.raises(NeedsRebuild, match="same number"):
        await rejoin(c, b)
    assert {one.xid for one in reports(c.data)[0].transactions} == only_here
    await copying.rebuild(c.home, b.source, "2", consent=False, patience_s=PATIENCE_S)
    follows(c, b)


async def test_rewind_outlives_its_caller(a: Engine, b: Engine) -> None:
    """A rewind that is not done in time goes on; until it has ended well the data is marked, and nothing starts it."""
    _diverge(a, b)
    ladder = Ladder(a.home)
    theirs = await where(b)
    for _ in range(1000):
        try:
            rung = await ladder.rejoin(b.source, ours=partial(where, a), theirs=theirs, epoch=2, patience_s=0.01)
            break
        except DriverFault as fault:
            said = str(fault)
    assert "goes on by itself" in said
    assert rung is Rung.REWOUND
    follows(a, b)


async def test_recovery_leaves_a_standby(a: Engine, b: Engine) -> None:
    """However it goes on, the data that was recovered starts as nothing but a standby."""
    _diverge(a, b)
    (a.data / "standby.signal").touch()
    with pytest.raises(DriverFault, match="crash recovery; it goes on"):
        await rejoin(a, b, patience_s=0.0)
    job = Job(a.home.places.jobs / "recover")
    assert await job.wait(PATIENCE_S)
    assert job.code == 0
    assert (a.data / "standby.signal").is_file()


@pytest.mark.parametrize("after_s", [0.05, 0.3, 0.6])
async def test_cancelled_anywhere(a: Engine, b: Engine, after_s: float) -> None:
    """Given up at any moment, the next call brings it to its end, with the same report."""
    only_here = _diverge(a, b)
    work = asyncio.ensure_future(rejoin(a, b))
    await asyncio.sleep(after_s)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    assert await rejoin_in_the_end(a, b) in {Rung.REWOUND, Rung.AS_IS}
    assert {one.xid for one in reports(a.data)[0].transactions} == only_here
    follows(a, b)


_READS = "echo 'pg_rewind: reading source file list'"
_WRITES = "echo 'pg_rewind: need to copy 5 MB'; for _ in $(seq 200); do echo ' 1234/5678 kB (21%) copied'; done"
_LOST_ITS_SOURCE = "echo 'pg_rewind: error: could not fetch remote file'; exit 1"


@pytest.mark.parametrize(
    ("does", "whole"),
    [
        (f"{_READS}; {_LOST_ITS_SOURCE}", True),
        (f"{_READS}; {_WRITES}; {_LOST_ITS_SOURCE}", False),
        (f"{_READS}; kill -9 0", False),
        (f"{_READS}; {_WRITES}; kill -9 0", False),
        ("truncate --size 0 log; exit 1", False),
    ],
    ids=["read", "wrote for minutes", "killed, and what it said may not be on the disk", "killed", "says nothing"],
)
async def test_rewind_came_to_nothing(a: Engine, b: Engine, does: str, *, whole: bool) -> None:
    """Unless it is certain that it has written nothing, the data is marked until it is copied anew."""
    only_here = _diverge(a, b)
    a.tools = _programs(a.root, does)
    a.home = type(a.home)(a.name, a.data, a.tools, a.configured.append)
    with pytest.raises(DriverFault if whole else NeedsRebuild, match="could not be rewound" if whole else "unusable"):
        await rejoin(a, b)
    assert {one.xid for one in reports(a.data)[0].transactions} == only_here, "listed before anything was undone"
    assert bool(copying.unusable(a.data)) is not whole
    a.tools = Tools(PROGRAMS, a.tools.account)
    a.home = type(a.home)(a.name, a.data, a.tools, a.configured.append)
    if whole:
        assert await rejoin(a, b) is Rung.REWOUND
    else:
        with pytest.raises(NeedsRebuild, match="unusable"):
            await rejoin(a, b)
        await copying.rebuild(a.home, b.source, "2", consent=False, patience_s=PATIENCE_S)
        assert not copying.unusable(a.data)
    follows(a, b)


async def test_own_settings_survive_half_a_rewind(a: Engine, b: Engine) -> None:
    """Whatever it did to the node's own configuration in the data, the copy made after it has that as it was."""
    own = (a.data / "postgresql.conf").read_text() + "# a's own\n"
    (a.data / "postgresql.conf").write_text(own)
    _diverge(a, b)
    hba = (a.data / "pg_hba.conf").read_text()
    spoils = 'for name in postgresql.conf pg_hba.conf; do : >"${1#--target-pgdata=}/$name"; done'
    a.home = type(a.home)(a.name, a.data, _programs(a.root, f"{_WRITES}; {spoils}; exit 1"), a.configured.append)
    with pytest.raises(NeedsRebuild, match="unusable"):
        await rejoin(a, b)
    await copying.rebuild(a.home, b.source, "2", consent=False, patience_s=PATIENCE_S)
    assert (a.data / "postgresql.conf").read_text() == own
    assert (a.data / "pg_hba.conf").read_text() == hba
    follows(a, b)


@pytest.mark.parametrize("killed", [False, True])
async def test_a_rewind_that_was_not_begun(
    a: Engine, b: Engine, monkeypatch: pytest.MonkeyPatch, *, killed: bool
) -> None:
    """How an earlier one ended is not taken for its end; one that could not be begun has done nothing."""
    only_here = _diverge(a, b)
    rewind, start = Job(a.home.places.jobs / "rewind"), Job.start
    rewind.start(a.tools, ["/bin/true"], {"source": b.name})
    assert await rewind.wait(PATIENCE_S)

    def stumble(job: Job, *words) -> None:
        if job == rewind:
            raise _Killed if killed else DriverFault("no room")
        start(job, *words)

    with monkeypatch.context() as patch:
        patch.setattr(Job, "start", stumble)
        with pytest.raises(_Killed if killed else DriverFault):
            await rejoin(a, b)
    if killed:
        with pytest.raises(NeedsRebuild, match="unusable"):
            await rejoin(a, b)
        await copying.rebuild(a.home, b.source, "2", consent=False, patience_s=PATIENCE_S)
    else:
        assert await rejoin(a, b) is Rung.REWOUND
    assert {one.xid for one in reports(a.data)[0].transactions} == only_here
    follows(a, b)


async def test_without_checksums_and_hints(a: Engine, b: Engine) -> None:
    """Without checksums and wal_log_hints nothing is rewound; what would be lost is listed all the same."""
    a.stop()
    ran = await a.tools.run("pg_checksums", "--disable", "-D", str(a.data), deadline_s=PATIENCE_S)
    assert ran.code == 0, ran.err
    a.start(settings=("wal_log_hints=off",))
    b.stop()
    only_here = write(a, 100, 2)
    a.crash()
    b.start(standby=True)
    b.promote()
    with pytest.raises(NeedsRebuild, match="neither checksums nor wal_log_hints"):
        await rejoin(a, b)
    assert {one.xid for one in reports(a.data)[0].transactions} == only_here
    assert not copying.unusable(a.data)


async def test_log_is_gone(a: Engine, b: Engine) -> None:
    """Where the log after the fork is no longer there, the report says so and the data is copied, not guessed at."""
    b.stop()
    write(a, 100, 2)
    for _ in range(3):
        a.rows("SELECT pg_switch_wal()")
        a.rows("CHECKPOINT")
    last = write(a, 200, 1)
    a.crash()
    files = sorted(path for path in (a.data / "pg_wal").iterdir() if len(path.name) == 24)
    control = await control_file.read(a.tools, a.data)
    b.start(standby=True)
    b.promote()
    for file in files:
        if file.name < lsn.segment_name(1, control.redo, control.segment_bytes):
            file.unlink()
    with pytest.raises(NeedsRebuild, match="perhaps more, of which the log is gone"):
        await rejoin(a, b)
    assert not reports(a.data)[0].complete
    assert last <= {one.xid for one in reports(a.data)[0].transactions}


async def test_another_cluster(root: Path, a: Engine) -> None:
    """Data of another cluster is refused and stays as it is."""
    other = Engine("x", root)
    await copying.bootstrap(other.home, "boss", PASSWORD, patience_s=PATIENCE_S)
    with pytest.raises(Refused, match="another cluster") as refused:
        await rejoin(other, a)
    assert not isinstance(refused.value, NeedsRebuild)


async def test_source_without_checkpoint() -> None:
    """A source whose control file does not know its timeline yet is told to write it down first."""
    asked: list[str] = []

    async def ask(statement: str) -> list[tuple[int]]:
        asked.append(statement)
        return [(1 if "control" in statement else 2,)]

    await _see_checkpoint(Source("b", "", ask))
    assert asked[-1] == "CHECKPOINT"


class _Killed(BaseException):
    """Nobody comes to hear of it."""


def _stumble(path: Path, *_: object) -> None:
    if not _:  # it is to be removed
        path.unlink()
    raise OSError("killed")


def _diverge(a: Engine, b: Engine) -> set[int]:
    """Transactions on a alone; then it was killed, and b leads."""
    b.stop()
    only_here = write(a, 100, 10)
    a.crash()
    b.start(standby=True)
    b.promote()
    return only_here


def _programs(root: Path, script: str) -> Tools:
    """The real ones, but for pg_rewind."""
    place = root / "bin"
    place.mkdir(mode=0o755)
    for program in PROGRAMS.iterdir():
        (place / program.name).symlink_to(program)
    (place / "pg_rewind").unlink()
    (place / "pg_rewind").write_text(f"#!/bin/sh\n{script}\n")
    (place / "pg_rewind").chmod(0o755)
    return Tools(place, Engine("x", root).tools.account)
