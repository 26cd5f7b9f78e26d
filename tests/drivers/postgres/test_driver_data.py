"""What the driver does about its node's data beyond the port: losses are told, and bad data is refused."""

import asyncio
import errno
import os
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from tests.contract.postgres_bench import DEADLINE_MS, PostgresBench, account
from tests.contract.postgres_bench import PASSWORD as RIGHT
from tests.drivers.postgres.real import PATIENCE_S, PAUSED

from understudy.core.actions import Action, Close, Follow, Freeze, Open, Promote, Rebuild, Rejoin, Start, StopGracefully
from understudy.core.errors import Refused
from understudy.core.lineage import contains
from understudy.core.record import SyncConfig
from understudy.core.report import Running
from understudy.core.text import Name
from understudy.drivers.base import DriverFault, NeedsRebuild, Observation
from understudy.drivers.postgres import beside, binaries, branches, client, copying, lsn, process, theirs, upkeep
from understudy.drivers.postgres.home import Source
from understudy.drivers.postgres.job import Job
from understudy.drivers.postgres.rejoin import LossReport, Rung, untold
from understudy.drivers.postgres.tools import Tools

A, B, C = NODES = Name("a"), Name("b"), Name("c")
NOBODY = SyncConfig(frozenset(), 0)


@pytest.fixture
async def bench(stopped_cluster: Path) -> AsyncIterator[PostgresBench]:
    """A leads b and c, and waits for nobody."""
    bench = PostgresBench(stopped_cluster)
    await bench.begin()
    try:
        await bench.cluster(NOBODY)
        yield bench
    finally:
        await bench.end()


async def do(bench: PostgresBench, kind: type[Action], name: Name, epoch: int, **words) -> None:
    await bench.drivers[name].perform(kind(name, "born-1", epoch, DEADLINE_MS, **words))


async def write(bench: PostgresBench, name: Name, word: str) -> int:
    """A client's transaction; its id."""
    address = bench.addresses[name]
    conninfo = client.conninfo(host=address.host, port=address.port, user="postgres", dbname="postgres", password=RIGHT)
    insert = f"INSERT INTO history (word) VALUES ('{word}') RETURNING pg_current_xact_id()"
    [[xid]] = await client.once(conninfo, insert)
    return int(xid)


async def level(bench: PostgresBench, nodes: tuple[Name, ...] = NODES) -> None:
    """Wait until these have the same."""
    seen: dict[Name, tuple[str, ...]] = {}
    try:
        async with asyncio.timeout(PATIENCE_S):
            while len(set(seen.values())) != 1 or len(seen) < len(nodes):
                await asyncio.sleep(0.02)
                with suppress(client.SqlFault):  # a standby that is not there yet may not even have the table
                    seen = {name: await bench.history(name) for name in nodes}
    except TimeoutError:
        logs = [path.read_text()[-2000:] for path in bench.root.glob("*/data.understudy/run/*.log")]
        raise AssertionError(f"never level: {seen}\n" + "\n".join(logs)) from None


async def lose_some(bench: PostgresBench, old: Name, new: Name, other: Name, epoch: int) -> set[int]:
    """A failover in which the old primary keeps three transactions that nobody else has."""
    await level(bench)
    for name in (other, new):  # the new one last: so it has the most
        await do(bench, Freeze, name, epoch)
    lost = {await write(bench, old, f"lost {epoch} {number}") for number in range(3)}
    await do(bench, Close, old, epoch)
    await do(bench, Promote, new, epoch, sync=NOBODY)
    await do(bench, Open, new, epoch)
    await write(bench, new, f"kept {epoch}")
    return lost


async def test_losses_are_told(bench: PostgresBench) -> None:
    """What a node had for itself is told once, exactly, when it is out of its data: rewound or copied anew.

    Told means that whoever is told says so: an agent that ends before tells it again when it is back.
    """
    told: list[LossReport] = []
    deaf = True

    async def hear(report: LossReport) -> None:
        if deaf:
            raise Refused("The store is away.")
        told.append(report)

    for driver in bench.drivers.values():
        driver._discarded = hear
    lost = await lose_some(bench, A, B, C, 2)
    assert not told
    reserved = "SELECT restart_lsn IS NOT NULL FROM pg_replication_slots WHERE slot_name = 'understudy_a'"
    ladder = bench.drivers[A]._the_ladder(await bench.drivers[A]._settled())
    climb = ladder.rejoin

    async def climb_once_reserved(source: Source, **words) -> Rung:
        assert await source.ask(reserved) == [("t",)], "the source may throw away what comes meanwhile"
        return await climb(source, **words)

    ladder.rejoin = climb_once_reserved
    await do(bench, Rejoin, A, 2, source=B)
    await do(bench, Follow, C, 2, source=B)
    await until(bench, A, lambda seen: seen.link_age_ms is not None)
    await asyncio.sleep(0.2)
    assert not told
    await bench.renew(A)
    bench.drivers[A]._discarded = hear
    deaf = False
    await until(bench, A, lambda _: len(told) == 1)
    assert [{one.xid for one in report.transactions} for report in told] == [lost]
    assert (told[0].node, told[0].source, told[0].epoch, told[0].complete) == (A, B, 2, True)
    again = await lose_some(bench, B, C, A, 3)
    await do(bench, Rebuild, B, 3, source=C, since=3, consent=False)
    await until(bench, B, lambda _: len(told) == 2)
    assert [{one.xid for one in report.transactions} for report in told] == [lost, again]
    await do(bench, Rebuild, B, 3, source=C, since=3, consent=False)
    await do(bench, Follow, B, 3, source=C)
    await do(bench, Rejoin, A, 3, source=C)
    await until(bench, A, lambda seen: seen.link_age_ms is not None)
    await asyncio.sleep(0.2)
    assert len(told) == 2


async def test_a_rewind_that_ended_in_the_middle_is_copied(bench: PostgresBench) -> None:
    """Whatever it left of the files that say which history this is: a full disk cuts them to nothing."""
    await lose_some(bench, A, B, C, 2)
    data = bench.drivers[A]._place.data
    beside.write(beside.of(data).unusable, "a rewind was begun")
    for name in (branches.KEPT, "global/pg_control"):
        os.truncate(data / name, 0)
    with pytest.raises(NeedsRebuild, match="ended in the middle"):
        await do(bench, Rejoin, A, 2, source=B)
    await do(bench, Rebuild, A, 2, source=B, since=2, consent=False)
    await do(bench, Follow, A, 2, source=B)
    await until(bench, A, lambda seen: seen.link_age_ms is not None)


def programs(root: Path, name: str, script: str) -> Tools:
    """PostgreSQL's own, but for one."""
    real, place = binaries.programs(), root / "bin"
    place.mkdir(mode=0o755)
    for program in real.iterdir():
        (place / program.name).symlink_to(program)
    (place / name).unlink()
    (place / name).write_text(f"#!/bin/sh\n{script.replace('REAL', str(real / name))}\n")
    (place / name).chmod(0o755)
    return Tools(place, account())


async def begun(bench: PostgresBench, name: Name, what: str) -> Job:
    """Rejoin, given up once this is under way, which goes on by itself."""
    job = Job(beside.of(bench.data(name)).jobs / what)
    rejoining = asyncio.create_task(do(bench, Rejoin, name, 2, source=B))
    async with asyncio.timeout(PATIENCE_S):
        while not (job.directory / "run" / "begun").exists():
            assert not rejoining.done(), await rejoining
            await asyncio.sleep(0.02)
    rejoining.cancel()
    await asyncio.wait({rejoining})
    return job


async def test_a_copy_ends_the_rewind(bench: PostgresBench) -> None:
    """A rewind that nobody wants any more is ended before other data comes in its place: it would write into that."""
    await lose_some(bench, A, B, C, 2)
    slow = 'touch begun; until [ -e go ]; do sleep 0.05; done; : >"${1#--target-pgdata=}/global/pg_control"'
    bench.drivers[A]._programs = programs(bench.root, "pg_rewind", slow)
    job = await begun(bench, A, "rewind")
    await do(bench, Rebuild, A, 2, source=B, since=2, consent=False)
    (job.directory / "run" / "go").touch()
    assert await job.wait(PATIENCE_S)
    await do(bench, Follow, A, 2, source=B)
    await until(bench, A, lambda seen: seen.link_age_ms is not None)


async def test_an_engine_is_started_alone(bench: PostgresBench) -> None:
    """A crash recovery that goes on by itself is ended before the engine is started on the same data."""
    await lose_some(bench, A, B, C, 2)
    slow = 'case "$1" in --single) touch begun; sleep 60 | REAL "$@";; *) exec REAL "$@";; esac'
    bench.drivers[A]._programs = programs(bench.root, "postgres", slow)
    job = await begun(bench, A, "recover")
    async with asyncio.timeout(PATIENCE_S):
        while not (bench.data(A) / "postmaster.pid").exists():  # noqa: ASYNC110  PostgreSQL tells nobody
            await asyncio.sleep(0.02)
    await do(bench, Start, A, 2)
    assert not job.alive


def without_log(data: Path) -> None:
    for file in (data / "pg_wal").glob("0*"):
        file.unlink()


def without_history(data: Path) -> None:
    max((data / "pg_wal").glob("*.history")).unlink()


def with_half_a_history(data: Path) -> None:
    max((data / "pg_wal").glob("*.history")).write_text("1\t0/")


@pytest.mark.parametrize("damage", [without_log, without_history, with_half_a_history])
async def test_a_log_that_cannot_be_read(bench: PostgresBench, damage: Callable[[Path], None]) -> None:
    """Dead data whose log does not say any more which history it is of is copied anew, and nobody tries for ever."""
    await lose_some(bench, A, B, C, 2)
    await do(bench, Rejoin, A, 2, source=B)
    await do(bench, Follow, C, 2, source=B)
    await lose_some(bench, B, C, A, 3)
    damage(bench.data(B))
    with pytest.raises(NeedsRebuild, match="must be copied anew"):
        await do(bench, Rejoin, B, 3, source=C)
    await do(bench, Rebuild, B, 3, source=C, since=3, consent=False)
    await do(bench, Follow, B, 3, source=C)
    await until(bench, B, lambda seen: seen.link_age_ms is not None)


async def test_a_disk_that_takes_no_more(bench: PostgresBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a full disk prevents is said in the port's words: nobody else's count, and nobody would come to hear it."""
    await lose_some(bench, A, B, C, 2)

    def full(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(beside, "write", full)
        for kind, words in ((Rejoin, {}), (Rebuild, {"since": 2, "consent": False})):
            with pytest.raises(DriverFault, match="No space left"):
                await do(bench, kind, A, 2, source=B, **words)
    told: list[LossReport] = []

    async def hear(report: LossReport) -> None:
        told.append(report)

    bench.drivers[A]._discarded = hear
    with monkeypatch.context() as patch:
        patch.setattr("understudy.drivers.postgres.driver.tell", lambda report: full(Path(report.path)))
        patch.setattr("understudy.drivers.postgres.driver._AGAIN_S", 0.01)
        await do(bench, Rejoin, A, 2, source=B)
        await asyncio.sleep(0.2)
    async with asyncio.timeout(PATIENCE_S):
        while untold(bench.data(A)):  # noqa: ASYNC110  it is noted on the disk
            await asyncio.sleep(0.02)
    assert len(told) == 1, "and told once"
    with monkeypatch.context() as patch:
        patch.setattr(theirs, "put", full)
        (bench.data(B) / branches.KEPT).unlink()
        assert (await bench.drivers[B].observe()).position is None
    assert (await bench.drivers[B].observe()).position is not None


async def test_a_source_that_is_off_is_noticed(bench: PostgresBench) -> None:
    """Whoever copies from a host that goes off, or is rewound to it, hears of it by TCP, and not after hours."""
    connection = await asyncio.to_thread(psycopg.connect, bench.drivers[A]._sources.of(B).conninfo)
    with connection, socket.socket(fileno=os.dup(connection.fileno())) as tcp:
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
        idle_s, every_s, times, unheard_ms = (tcp.getsockopt(socket.IPPROTO_TCP, option) for option in options)
    assert idle_s + every_s * times <= 60
    assert 0 < unheard_ms <= 60_000


async def test_a_timeline_of_which_only_a_beginning_came(bench: PostgresBench) -> None:
    """A candidate killed while it began to hear a new timeline, before where that begins, has all that it had."""
    await level(bench)
    for _ in range(3):
        await write(bench, A, secrets.token_hex(50_000))
    await level(bench)
    driver = bench.drivers[B]
    said = await driver._sight.ask()
    await do(bench, Close, B, 2)
    log = branches.Log.of(driver._place.data)
    own, end = branches.whole(log, said.timeline, said.offset)
    newer, place = own + 1, end % log.segment_bytes // log.page_bytes * log.page_bytes
    older = log.directory / lsn.segment_name(own, end, log.segment_bytes)
    begun = log.directory / lsn.segment_name(newer, end, log.segment_bytes)
    begun.write_bytes(older.read_bytes()[: place - 4 * log.page_bytes].ljust(log.segment_bytes, b"\0"))
    history = log.directory / f"{newer:08X}.history"
    before = log.directory / f"{own:08X}.history"
    lines = before.read_text() if before.exists() else ""
    history.write_text(f"{lines}{own}\t{lsn.text(end)}\tno recovery target specified\n")
    for path in (begun, history):
        driver._account.give(path)
        path.chmod(0o600)
    await do(bench, Freeze, B, 2)
    async with asyncio.timeout(PATIENCE_S):
        await do(bench, Start, B, 2)
    await do(bench, Promote, B, 2, sync=NOBODY)
    await do(bench, Open, B, 2)
    await write(bench, B, "mine")
    words = [word for word in await bench.history(B) if len(word) > 10 or word == "mine"]
    assert len(words) == 4


async def test_ids_that_cannot_be_read(bench: PostgresBench) -> None:
    """Dead data whose file of ids is damaged is copied anew, and not guessed at."""
    await lose_some(bench, A, B, C, 2)
    os.truncate(bench.drivers[A]._place.data / branches.KEPT, 0)
    with pytest.raises(NeedsRebuild, match="cannot be read"):
        await do(bench, Rejoin, A, 2, source=B)
    await do(bench, Rebuild, A, 2, source=B, since=2, consent=False)


async def test_a_timeline_since_the_last_restart_point_is_no_loss(
    bench: PostgresBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A standby went on into a new timeline and died: what it has of it is its source's too, and stays in its log.

    Should it not come up because its source has thrown away what it needs, it is copied.
    """
    told: list[LossReport] = []

    async def hear(report: LossReport) -> None:
        told.append(report)

    bench.drivers[C]._discarded = hear
    await level(bench)
    for name in (C, B):
        await do(bench, Freeze, name, 2)
    await do(bench, Close, A, 2)
    await do(bench, Promote, B, 2, sync=NOBODY)
    await do(bench, Open, B, 2)
    await do(bench, Follow, C, 2, source=B)
    await write(bench, B, "new")
    await level(bench, (B, C))
    await do(bench, Close, C, 2)
    await do(bench, Rejoin, C, 2, source=B)
    await do(bench, Close, C, 2)
    monkeypatch.setattr(process, "_READ_LOG_EVERY", 1)
    monkeypatch.setattr(process, "_GONE", "starting PostgreSQL")
    monkeypatch.setattr(process.Engine, "_says_ready", lambda _: False)
    with pytest.raises(NeedsRebuild, match="c must be copied anew"):
        await do(bench, Rejoin, C, 2, source=B)
    monkeypatch.undo()
    await do(bench, Close, C, 2)
    await do(bench, Rebuild, C, 2, source=B, since=2, consent=False)
    await asyncio.sleep(0.2)
    assert not told


async def test_a_standby_stopped_in_order_tells_all_that_it_has(bench: PostgresBench) -> None:
    """Its position is the end of its log, replayed or not: what it is told to have is never too little."""
    await level(bench)
    driver = bench.drivers[B]
    await client.once(driver._engine.conninfo("test"), "SELECT pg_wal_replay_pause()")
    async with asyncio.timeout(PATIENCE_S):
        while await client.once(driver._engine.conninfo("test"), PAUSED) != [("paused",)]:  # noqa: ASYNC110  it tells nobody
            await asyncio.sleep(0.02)
    await write(bench, A, "not replayed")
    has = (await bench.drivers[A].observe()).position
    await until(bench, B, lambda seen: seen.position is not None and contains(seen.position, has))
    await until(bench, B, lambda seen: (seen.replay_lag_bytes or 0) > 0)
    await bench.processes[B].signal(signal.SIGINT)
    seen = await until(bench, B, lambda seen: seen.running is Running.DEAD and seen.position is not None)
    assert contains(seen.position, has)
    assert not seen.clean_stop


async def until(bench: PostgresBench, name: Name, true: Callable[[Observation], bool]) -> Observation:
    async with asyncio.timeout(PATIENCE_S):
        while not true(seen := await bench.drivers[name].observe()):  # noqa: ASYNC110  engines are looked at
            await asyncio.sleep(0.02)
    return seen


async def test_the_empty_rest_of_a_file_of_the_log_is_no_other_history(bench: PostgresBench) -> None:
    """A standby whose log ends where the next file will begin is on its timeline all the same, and is not copied."""
    await level(bench)
    before = (await bench.drivers[B].observe()).position
    await client.once(bench.drivers[A]._engine.conninfo("test"), "SELECT pg_switch_wal()")
    whole = copying.SEGMENT_MIB * copying.MEBIBYTE
    seen = await until(bench, B, lambda seen: seen.position is not None and seen.position.offset % whole == 0)
    assert seen.position.branches == before.branches
    assert contains(seen.position, before)


async def test_check(bench: PostgresBench) -> None:
    """A node that runs below us, or fits, has no fault; one that was never ours is looked at closely."""
    driver = bench.drivers[A]
    assert await driver.check() == ()
    await do(bench, StopGracefully, A, 2)
    assert await driver.check() == ()
    beside.of(bench.data(A)).root.rename(bench.root / "elsewhere")
    try:
        assert await driver.check() == ()
        driver._password = "nonsense"
        assert "another password" in (await driver.check())[0]
        assert not beside.of(bench.data(A)).root.exists(), "looking makes nothing"
    finally:
        (bench.root / "elsewhere").rename(beside.of(bench.data(A)).root)


async def load(bench: PostgresBench, name: Name) -> None:
    """Rows by the thousand until cancelled: the log is sent, and flushed, by the page and not by the record."""
    conninfo = bench.drivers[name]._engine.conninfo("load")
    await client.once(conninfo, "CREATE TABLE IF NOT EXISTS bulk (words text)")
    with suppress(client.SqlFault):  # it may be killed
        while True:
            await client.once(conninfo, "INSERT INTO bulk SELECT repeat('x', n % 3000) FROM generate_series(1, 5000) n")


async def test_what_was_begun_of_a_record_is_no_history(bench: PostgresBench) -> None:
    """Whoever dies in the middle of a record, as it happens under bulk load, has afterwards what it said to have."""
    loading = asyncio.create_task(load(bench, A))
    try:
        for _ in range(5):
            await asyncio.sleep(0.2)
            await do(bench, Freeze, B, 1)
            said = (await bench.drivers[B].observe()).position
            await bench.processes[B].signal(signal.SIGKILL)
            await until(bench, B, lambda seen: seen.running is Running.DEAD)
            await do(bench, Start, B, 1)
            seen = await until(bench, B, lambda seen: seen.position is not None)
            assert contains(seen.position, said), (said, seen.position)
            await do(bench, Follow, B, 1, source=A)
            await until(bench, B, lambda seen: seen.link_age_ms is not None)
        await do(bench, Freeze, B, 2)
        said = (await bench.drivers[B].observe()).position
    finally:
        loading.cancel()
    await do(bench, Close, A, 2)
    await do(bench, Promote, B, 2, sync=NOBODY)
    seen = await until(bench, B, lambda seen: seen.position is not None and len(seen.position.branches) > 1)
    assert contains(seen.position, said), (said, seen.position)


async def test_another_password(bench: PostgresBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents may come to go by another password (the key is lost, the file was changed): nodes reach each other again.

    As long as one goes by the old one it says what is the matter, and links that stand are not touched. Where all come
    back with another one, whoever is promoted lets the others in at once.
    """
    monkeypatch.setattr(upkeep, "EVERY_S", 0.1)
    await level(bench)
    await bench.renew(A, "new")
    await bench.renew(B, "new")
    await bench.renew(C)
    await until(bench, A, lambda _seen: bench.drivers[A]._upkeep._fitting is not None)
    assert await write(bench, A, "links stand")
    await level(bench)
    for name in (B, C):
        await do(bench, Freeze, name, 1)
        await do(bench, Follow, name, 1, source=A)
    await until(bench, B, lambda seen: seen.link_age_ms is not None)
    [said] = (await until(bench, C, lambda seen: bool(seen.warnings))).warnings
    assert 'failed for user "understudy"' in said
    assert "superuser.password is the same text on every host" in said
    await bench.renew(C, "new")
    await until(bench, C, lambda seen: seen.link_age_ms is not None and not seen.warnings)
    monkeypatch.undo()
    for name in NODES:
        await do(bench, Close, name, 2)
        await bench.renew(name, "newer")
    await do(bench, Start, A, 2)
    await until(bench, A, lambda _seen: bench.drivers[A]._upkeep._misfit)
    monkeypatch.setattr(bench.drivers[A]._upkeep._trial, "_every_s", 2 * PATIENCE_S)  # "at once" is not by and by
    await do(bench, Promote, A, 2, sync=NOBODY)
    await do(bench, Follow, B, 2, source=A)
    await until(bench, A, lambda _seen: not bench.drivers[A]._upkeep._misfit)
    await until(bench, B, lambda seen: seen.link_age_ms is not None)
