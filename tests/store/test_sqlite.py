"""What only the SQLite store promises: durability against kill -9, bounds, one sentence for each bad file."""

import asyncio
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import aclosing, closing
from pathlib import Path

import pytest

from understudy.store.base import Change, Compacted, Delete, Expect, Item, Put, StoreFault
from understudy.store.sqlite import POLL_S, SqliteStore

HERE = Path(__file__).parent
ONE_SENTENCE = r"^[^\n]+\.$"


async def opened_and_said(path: Path, *, read_only: bool = False) -> str:
    """What opening the file is refused with."""
    with pytest.raises(StoreFault, match=ONE_SENTENCE) as said:
        await (await SqliteStore.open(path, read_only=read_only)).close()
    return str(said.value)


async def filled(path: Path) -> None:
    """A store with enough in it to have several pages."""
    store = await SqliteStore.open(path)
    for number in range(50):
        await store.transact((), [Put(f"n/{number:03}", bytes([number]) * 2000)])
    await store.close()


async def read_back(path: Path, turn: int) -> tuple[Item | None, Item | None, set[int]]:
    """What a killed writer left: its pair of keys and the numbers of its turn."""
    store = await SqliteStore.open(path, read_only=True)
    numbers = {int(item.key.rpartition("/")[2]) for item in (await store.list(f"n/{turn}/")).items}
    left, right = await store.get("left"), await store.get("right")
    await store.close()
    return left, right, numbers


def test_kill_9_loses_no_committed_transaction(tmp_path: Path) -> None:
    """Killed at any moment, again and again on one file: all that was acknowledged is there, and whole."""
    path = tmp_path / "store.db"
    chance = random.Random(3)
    for turn in range(8):
        writer = [sys.executable, HERE / "crash_writer.py", path, str(turn)]
        with subprocess.Popen(writer, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "1\n"
            time.sleep(chance.random() * 0.15)
            process.send_signal(signal.SIGKILL)
            acknowledged = [int(line) for line in process.stdout if line.endswith("\n")]
        left, right, numbers = asyncio.run(read_back(path, turn))
        assert left is not None
        assert right is not None
        assert (left.value, left.revision) == (right.value, right.revision)
        label, _, number = left.value.decode().partition(":")
        assert int(label) == turn
        assert int(number) >= max(acknowledged, default=1)
        assert numbers == set(range(1, int(number) + 1))
    with closing(sqlite3.connect(path)) as plain:
        assert plain.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_full_disk_is_one_sentence_and_costs_nothing(tmp_path: Path) -> None:
    """What was committed stays, what was not leaves no trace, and the store goes on when there is room again."""
    run = subprocess.run(
        [sys.executable, HERE / "full_disk.py", tmp_path / "store.db"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    said, committed, listed, went_on = run.stdout.splitlines()
    assert said.startswith("The store ")
    assert "disk" in said
    assert int(committed) > 3
    assert int(listed) == int(committed) + 1
    assert went_on == "True"


async def test_revisions_and_history_go_on_after_a_restart(tmp_path: Path) -> None:
    """The file opened again continues where it was; what was watched from before can be watched on."""
    path = tmp_path / "store.db"
    first = await SqliteStore.open(path)
    one = await first.transact((), [Put("a", b"1")])
    two = await first.transact((), [Put("a", b"2")])
    await first.close()
    second = await SqliteStore.open(path)
    three = await second.transact([Expect("a", two.revision)], [Delete("a")])
    assert three.revision > two.revision
    async with aclosing(second.watch("a", one.revision)) as watch:
        assert await anext(watch) == Change("a", b"2", two.revision)
        assert await anext(watch) == Change("a", None, three.revision)
    await second.close()


async def test_the_history_is_bounded_in_changes_and_in_bytes(tmp_path: Path) -> None:
    """Neither many small changes nor a few large ones grow the file without end."""
    path = tmp_path / "store.db"
    store = await SqliteStore.open(path, history_changes=100, history_bytes=300_000)
    base = (await store.list("")).revision
    for number in range(500):
        await store.transact((), [Put("small", str(number).encode())])
    with closing(sqlite3.connect(path)) as plain:
        (rows,) = plain.execute("SELECT count(*) FROM changes").fetchone()
        assert 90 <= rows <= 112
    for _ in range(40):
        await store.transact((), [Put("large", bytes(100_000))])
    with closing(sqlite3.connect(path)) as plain:
        (size_bytes,) = plain.execute("SELECT sum(length(value)) FROM changes").fetchone()
        assert size_bytes <= 500_000
    async with aclosing(store.watch("small", base)) as watch:
        with pytest.raises(Compacted, match=ONE_SENTENCE):
            await anext(watch)
    await store.close()


async def test_another_process_reads_and_watches_what_the_agent_writes(tmp_path: Path) -> None:
    """A second opening, for reading, sees commits at once and watches them; it may not write, and disturbs nobody."""
    path = tmp_path / "store.db"
    agent = await SqliteStore.open(path)
    reader = await SqliteStore.open(path, read_only=True)
    put = await agent.transact((), [Put("a", b"1")])
    item = await reader.get("a")
    assert item is not None
    assert item.revision == put.revision
    async with asyncio.timeout(10), aclosing(reader.watch("a", put.revision)) as watch:
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0.05)
        second = await agent.transact((), [Put("a", b"2")])
        assert await waiting == Change("a", b"2", second.revision)
    with pytest.raises(StoreFault, match="opened for reading"):
        await reader.transact((), [Put("a", b"3")])
    await agent.close()
    assert (await reader.list("")).revision == second.revision
    await reader.close()


async def test_two_writers_of_one_file_take_turns(tmp_path: Path) -> None:
    """Conditions hold between processes too: no update is lost."""
    stores = [await SqliteStore.open(tmp_path / "store.db") for _ in range(2)]

    async def add(store: SqliteStore) -> None:
        done = 0
        while done < 30:
            item = await store.get("n")
            value, revision = (int(item.value), item.revision) if item else (0, 0)
            done += (await store.transact([Expect("n", revision)], [Put("n", str(value + 1).encode())])).committed

    await asyncio.gather(*map(add, stores))
    item = await stores[0].get("n")
    assert item is not None
    assert int(item.value) == 60
    for store in stores:
        await store.close()


async def test_transactions_that_come_together_share_one_commit(tmp_path: Path) -> None:
    """Many small writes at once cost a few fsyncs, not one each."""
    store = await SqliteStore.open(tmp_path / "store.db")
    commits = 0

    def count() -> None:
        nonlocal commits
        commits += 1

    store._writer.on_commit = count
    await asyncio.gather(*(store.transact((), [Put(f"k/{number}", b"")]) for number in range(500)))
    assert len((await store.list("k/")).items) == 500
    assert commits < 250
    await store.close()


def names_and_modes(folder: Path) -> dict[str, int]:
    """What is in a folder, and who may do what with it."""
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


async def test_a_watch_that_waits_costs_nothing(tmp_path: Path) -> None:
    """It looks when something was committed and now and then, not all the time."""
    store = await SqliteStore.open(tmp_path / "store.db")
    base = await store.transact((), [Put("a", b"")])
    looks = 0
    submit = store._reader.submit

    def count(work):
        nonlocal looks
        looks += 1
        return submit(work)

    async with aclosing(store.watch("a", base.revision)) as watch:
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0.05)
        store._reader.submit = count
        begun_s = time.monotonic()
        for _ in range(5):
            await store.transact((), [Put("other", b"")])
        async with asyncio.timeout(10):
            while not looks:  # noqa: ASYNC110  it tells nobody
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        assert looks <= 7 + (time.monotonic() - begun_s) / POLL_S
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    await store.close()


async def test_every_commit_is_synced(tmp_path: Path) -> None:
    """A power cut cannot be tried here; so at least what survives one is asked for."""
    store = await SqliteStore.open(tmp_path / "store.db")
    ask = store._writer._connection.execute
    assert ask("PRAGMA synchronous").fetchone() == (2,)
    assert ask("PRAGMA journal_mode").fetchone() == ("wal",)
    await store.close()


async def test_only_the_owner_may_read_the_files(tmp_path: Path) -> None:
    """The store will hold the cluster's key."""
    store = await SqliteStore.open(tmp_path / "store.db")
    await store.transact((), [Put("a", b"")])
    assert set(names_and_modes(tmp_path).values()) == {0o600}
    await store.close()


@pytest.mark.parametrize("damage", ["garbage", "cut", "header", "pages", "last page"])
async def test_a_damaged_file_is_refused_and_left_as_it_is(tmp_path: Path, damage: str) -> None:
    """Every kind of damage is one sentence at opening, and not a byte is written."""
    path = tmp_path / "store.db"
    await filled(path)
    content = bytearray(path.read_bytes())
    assert len(content) > 20 * 4096
    if damage == "garbage":
        content = bytearray(b"services:\n  web:\n" * 1000)
    elif damage == "cut":
        del content[len(content) // 2 // 4096 * 4096 :]
    elif damage == "header":
        content[0:100] = bytes(range(100))
    elif damage == "last page":
        content[-4096:] = random.Random(4).randbytes(4096)
    else:
        content[4096 : 4096 * 12] = random.Random(4).randbytes(4096 * 11)
    path.write_bytes(content)
    said = await opened_and_said(path)
    assert "damaged" in said
    assert str(path) in said
    assert path.read_bytes() == content


async def test_a_file_of_a_newer_understudy_or_of_another_program_is_left_alone(tmp_path: Path) -> None:
    """It is said what it is, for reading too, and nothing in it changes."""
    newer, foreign = tmp_path / "newer.db", tmp_path / "foreign.db"
    await filled(newer)
    with closing(sqlite3.connect(newer)) as plain:
        plain.execute("PRAGMA journal_mode = DELETE")
        plain.execute("PRAGMA user_version = 2")
    with closing(sqlite3.connect(foreign)) as plain:
        plain.execute("CREATE TABLE items (name TEXT)")
        plain.commit()
    for path, word in ((newer, "schema 2"), (foreign, "no store of understudy")):
        content = path.read_bytes()
        assert word in await opened_and_said(path)
        assert word in await opened_and_said(path, read_only=True)
        assert path.read_bytes() == content


async def test_an_empty_file_is_a_new_store(tmp_path: Path) -> None:
    """What a crash at the first moment leaves behind does no harm."""
    path = tmp_path / "store.db"
    path.touch()
    store = await SqliteStore.open(path)
    assert (await store.transact((), [Put("a", b"")])).committed
    await store.close()


async def test_a_missing_folder_or_file_is_one_sentence(tmp_path: Path) -> None:
    """Reading makes no file, and writing makes no folder."""
    assert "cannot be made" in await opened_and_said(tmp_path / "none" / "store.db")
    assert "no agent has run" in await opened_and_said(tmp_path / "store.db", read_only=True)
    assert "opened" in await opened_and_said(tmp_path)
    assert names_and_modes(tmp_path) == {}


@pytest.fixture
def closed_folder() -> Iterator[Path]:
    """A folder that everybody may look into."""
    folder = Path(tempfile.mkdtemp(prefix="us-"))
    yield folder
    folder.chmod(0o700)
    shutil.rmtree(folder)


OPEN_AND_SAY = """
import asyncio, os, pathlib, sys
from understudy.store.base import StoreFault
from understudy.store.sqlite import SqliteStore
if os.geteuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
try:
    asyncio.run(SqliteStore.open(pathlib.Path(sys.argv[1])))
except StoreFault as fault:
    sys.stdout.write(f"{fault}\\n")
"""


@pytest.mark.parametrize("exists", [False, True])
def test_a_read_only_folder_is_one_sentence(closed_folder: Path, exists: bool) -> None:
    """No file can be made there, and one that is there cannot be written; as nobody, for root may do anything."""
    path = closed_folder / "store.db"
    if exists:
        asyncio.run(filled(path))
        path.chmod(0o444)
    closed_folder.chmod(0o555)
    run = subprocess.run(
        [sys.executable, "-c", OPEN_AND_SAY, path], capture_output=True, text=True, timeout=60, check=True
    )
    (said,) = run.stdout.splitlines()
    assert str(closed_folder) in said
    assert "writable" in said
    assert said.endswith(".")


async def test_damage_found_while_running_is_one_sentence(tmp_path: Path) -> None:
    """A page that went bad under a running agent is a fault of the store, not a traceback."""
    path = tmp_path / "store.db"
    await filled(path)
    store = await SqliteStore.open(path)
    content = path.read_bytes()
    path.write_bytes(content[:4096] + random.Random(5).randbytes(len(content) - 4096))
    with pytest.raises(StoreFault, match=ONE_SENTENCE):
        await store.list("")
    await store.close()
