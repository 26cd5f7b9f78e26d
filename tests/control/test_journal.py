"""The journal keeps what it was given, in order, once, within its bounds, whatever happens to the store."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from understudy.control import journal as journal_module
from understudy.control import keys
from understudy.control.journal import PAGE_ENTRIES, TEXT_CHARACTERS, Journal
from understudy.core.errors import Refused
from understudy.core.events import Entry, Event, EventKind
from understudy.core.text import Name
from understudy.store.base import Delete, Expect, Listing, Outcome, Put, StoreFault
from understudy.store.memory import MemoryStore, Trouble
from understudy.store.sqlite import SqliteStore

WEB, DB = Name("web"), Name("db")


def fact(number: int, service: Name | None = None) -> Event:
    """An event that can be told from others."""
    return Event(EventKind.ENDPOINT_UP, f"fact {number}", service)


def facts(*numbers: int) -> list[Event]:
    return [fact(number) for number in numbers]


def reasons(entries: tuple[Entry, ...]) -> list[str]:
    return [entry.event.reason for entry in entries]


def told(*numbers: int) -> list[str]:
    return [f"fact {number}" for number in numbers]


@asynccontextmanager
async def running(journal: Journal) -> AsyncIterator[None]:
    """The journal's writer, ended afterwards."""
    task = asyncio.ensure_future(journal.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def first(count: int, journal: Journal) -> tuple[Entry, ...]:
    """The first entries, as soon as they are stored."""
    async with asyncio.timeout(10), aclosing(journal.follow(0)) as following:
        return tuple([await anext(following) for _ in range(count)])


async def test_entries_are_numbered_by_one_and_survive_a_restart(tmp_path: Path) -> None:
    """Time and order stay; the numbers go on after a restart."""
    store = await SqliteStore.open(tmp_path / "store.db")
    journal = Journal(store)
    journal.append(facts(1, 2), 10.5)
    journal.append(facts(3), 11.0)
    await journal.flush()
    await store.close()
    store = await SqliteStore.open(tmp_path / "store.db")
    journal = Journal(store)
    await journal.commit((), (), facts(4), wall_s=12.0)
    entries = await journal.tail(0, 100)
    assert [(entry.number, entry.wall_s) for entry in entries] == [(1, 10.5), (2, 10.5), (3, 11.0), (4, 12.0)]
    assert reasons(entries) == told(1, 2, 3, 4)
    await store.close()
    reading = await SqliteStore.open(tmp_path / "store.db", read_only=True)
    assert await Journal(reading).tail(-1, 2) == entries[2:]
    await reading.close()


async def test_tail_takes_from_a_number_or_the_newest_and_one_service_alone() -> None:
    """`after` counts up from it, -1 counts down from the end; the limit holds for what is asked for."""
    journal = Journal(MemoryStore())
    for number in range(1, 31):
        journal.append([fact(number, WEB if number % 3 else DB)], 1.0)
        if number % 4 == 0:
            await journal.flush()
    await journal.flush()
    assert reasons(await journal.tail(0, 5)) == told(1, 2, 3, 4, 5)
    assert reasons(await journal.tail(17, 3)) == told(18, 19, 20)
    assert reasons(await journal.tail(28, 100)) == told(29, 30)
    assert reasons(await journal.tail(30, 100)) == []
    assert reasons(await journal.tail(-1, 5)) == told(26, 27, 28, 29, 30)
    assert reasons(await journal.tail(-1, 3, "db")) == told(24, 27, 30)
    assert reasons(await journal.tail(10, 2, "db")) == told(12, 15)
    assert reasons(await journal.tail(-1, 3, "d")) == []
    assert reasons(await journal.tail(-1, 0)) == []
    assert len(await journal.tail(0, 100)) == 30


async def test_it_is_bounded_and_numbers_never_come_again() -> None:
    """The oldest go, by whole pages; the newest are all there; the store does not grow."""
    store = MemoryStore()
    journal = Journal(store, limit=50)
    for number in range(1, 401):
        journal.append(facts(number), 1.0)
        if number % 3 == 0:
            await journal.flush()
    await journal.flush()
    entries = await journal.tail(0, 1000)
    assert 45 <= len(entries) <= 50
    assert [entry.number for entry in entries] == list(range(entries[0].number, 401))
    assert reasons(entries) == told(*range(entries[0].number, 401))
    assert len((await store.list(keys.JOURNAL)).items) <= 51


async def test_a_burst_after_many_small_pages_is_trimmed_in_steps() -> None:
    """One page may push out more pages than a transaction can delete; later ones make up for it."""
    store = MemoryStore()
    journal = Journal(store, limit=200)
    for number in range(200):
        await journal.commit((), (), facts(number), wall_s=1.0)
    journal.append(facts(*range(200)), 1.0)
    await journal.flush()
    for number in range(4):
        await journal.commit((), (), facts(number), wall_s=1.0)
    assert len(await journal.tail(0, 1000)) <= 204
    assert len((await store.list(keys.JOURNAL_PAGES)).items) <= 5


async def test_a_burst_costs_few_transactions() -> None:
    """A thousand facts at once become a few pages, without anybody asking for a flush."""
    store = MemoryStore()
    journal = Journal(store)
    async with running(journal):
        for number in range(1000):
            journal.append(facts(number), 1.0)
        assert reasons(await first(1000, journal)) == told(*range(1000))
    assert (await store.list("")).revision <= 2 + 1000 // PAGE_ENTRIES


async def test_a_decision_and_its_events_are_stored_together_or_not_at_all() -> None:
    """Conditions that do not hold keep the events back too; what was appended before comes first, and stays."""
    store = MemoryStore()
    journal = Journal(store)
    journal.append(facts(1), 1.0)
    done = await journal.commit([Expect("a", 0)], [Put("a", b"1")], facts(2), wall_s=2.0)
    assert done.committed
    journal.append(facts(3), 1.0)
    refused = await journal.commit([Expect("a", 0)], [Put("a", b"2")], facts(4), wall_s=2.0)
    assert not refused.committed
    item = await store.get("a")
    assert item is not None
    assert item.value == b"1"
    assert item.revision == done.revision
    await journal.flush()
    assert reasons(await journal.tail(0, 10)) == told(1, 2, 3)


async def test_two_agents_write_one_journal() -> None:
    """No number is used twice and nobody's entry is lost, though both write at once."""
    store = MemoryStore()
    journals = [Journal(store), Journal(store)]

    async def write(journal: Journal, first: int) -> None:
        for number in range(first, first + 40):
            if number % 2:
                journal.append(facts(number), 1.0)
            else:
                assert (await journal.commit((), [Put(f"k/{number}", b"")], facts(number), wall_s=1.0)).committed
        await journal.flush()

    await asyncio.gather(write(journals[0], 0), write(journals[1], 100))
    entries = await journals[0].tail(0, 1000)
    assert [entry.number for entry in entries] == list(range(1, 81))
    for own in (range(40), range(100, 140)):
        assert [reason for reason in reasons(entries) if int(reason[5:]) in own] == told(*own)


async def test_an_outage_is_survived_and_what_was_lost_is_said() -> None:
    """Nothing waits without bound; the first facts are kept, the gap stands where it was, then it goes on."""
    store = MemoryStore()
    journal = Journal(store, pending=5)
    store.set_trouble(Trouble.AWAY)
    journal.append(facts(1, 2, 3), 10.0)
    with pytest.raises(StoreFault):
        await journal.flush()
    journal.append(facts(4, 5, 6), 20.0)
    journal.append(facts(7, 8), 23.5)
    with pytest.raises(StoreFault):
        await journal.flush()
    store.set_trouble(Trouble.NONE)
    await journal.flush()
    journal.append(facts(9), 30.0)
    await journal.flush()
    entries = await journal.tail(0, 100)
    assert [entry.number for entry in entries] == list(range(1, 8))
    gap = entries[5]
    assert gap.event.kind is EventKind.JOURNAL_GAP
    assert gap.wall_s == 23.5
    assert dict(gap.event.data) == {"count": 3, "lasted_s": 3.5}
    assert gap.event.reason.startswith("3 events were lost")
    assert reasons(entries[:5]) + reasons(entries[6:]) == told(1, 2, 3, 4, 5, 9)


async def test_the_writer_goes_on_by_itself_after_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has to ask again when the store is back."""
    monkeypatch.setattr(journal_module, "RETRY_S", 0.01)
    store = MemoryStore()
    journal = Journal(store)
    store.set_trouble(Trouble.AWAY)
    async with running(journal):
        journal.append(facts(1), 1.0)
        await asyncio.sleep(0.05)
        store.set_trouble(Trouble.NONE)
        assert reasons(await first(1, journal)) == told(1)


async def test_a_lost_answer_doubles_nothing() -> None:
    """A page that was stored though we heard of a failure is not written again; what was not stored is."""
    store = MemoryStore()
    journal = Journal(store)
    journal.append(facts(1), 1.0)
    store.set_trouble(Trouble.ANSWER_LOST)
    for number in (2, 3):
        with pytest.raises(StoreFault):
            await journal.flush()
        journal.append(facts(number), 1.0)
    store.set_trouble(Trouble.AWAY)
    with pytest.raises(StoreFault):
        await journal.flush()
    store.set_trouble(Trouble.NONE)
    await journal.flush()
    entries = await journal.tail(0, 10)
    assert reasons(entries) == told(1, 2, 3)
    assert [entry.number for entry in entries] == [1, 2, 3]


async def test_a_cancelled_flush_loses_and_doubles_nothing() -> None:
    """Wherever the cancellation comes, all entries are there once in the end."""
    store = MemoryStore()
    journal = Journal(store)
    for turns in range(12):
        journal.append(facts(turns), 1.0)
        task = asyncio.ensure_future(journal.flush())
        for _ in range(turns % 6):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await journal.flush()
    assert reasons(await journal.tail(0, 100)) == told(*range(12))


async def test_follow_tells_what_is_there_and_then_what_comes() -> None:
    """Each entry once, in order, from any writer, also when the reader was too slow for the store's history."""
    store = MemoryStore(history_changes=20)
    journal, other = Journal(store), Journal(store)
    journal.append(facts(1, 2, 3), 1.0)
    await journal.flush()
    async with asyncio.timeout(20), aclosing(journal.follow(1)) as following:
        assert [(await anext(following)).number for _ in range(2)] == [2, 3]
        waiting = asyncio.ensure_future(anext(following))
        await asyncio.sleep(0.02)
        await other.commit((), (), facts(4), wall_s=1.0)
        assert (await waiting).number == 4
        for number in range(5, 60):
            await other.commit((), (), facts(number), wall_s=1.0)
        rest = [await anext(following) for _ in range(55)]
    assert [entry.number for entry in rest] == list(range(5, 60))
    assert reasons(tuple(rest)) == told(*range(5, 60))


async def test_follow_ends_when_the_store_is_closed() -> None:
    """Who follows is let go, without an error."""
    store = MemoryStore()
    journal = Journal(store)

    async def read() -> int:
        return len([entry async for entry in journal.follow(0)])

    reading = asyncio.ensure_future(read())
    await journal.commit((), (), facts(1), wall_s=1.0)
    await asyncio.sleep(0.02)
    await store.close()
    async with asyncio.timeout(10):
        assert await reading == 1


async def test_a_corrupt_page_hides_only_itself() -> None:
    """The others are read, and the one that cannot be says so in its place; it is not touched."""
    store = MemoryStore()
    journal = Journal(store)
    for number in (1, 2, 3):
        await journal.commit((), (), facts(number), wall_s=1.0)
    await store.transact((), [Put(keys.journal_page(2), b"rubbish")])
    entries = await Journal(store).tail(0, 10)
    assert [entry.number for entry in entries] == [1, 2, 3]
    assert entries[1].event.kind is EventKind.JOURNAL_GAP
    assert "cannot be read" in entries[1].event.reason
    await journal.commit((), (), facts(4), wall_s=1.0)
    item = await store.get(keys.journal_page(2))
    assert item is not None
    assert item.value == b"rubbish"


@pytest.mark.parametrize("change", [Put(keys.JOURNAL_HEAD, b"rubbish"), Delete(keys.JOURNAL_HEAD)])
async def test_without_its_head_the_journal_is_read_but_not_written(change: Put | Delete) -> None:
    """A number could come twice; so it is refused in one sentence, and what is there can still be read."""
    store = MemoryStore()
    await Journal(store).commit((), (), facts(1), wall_s=1.0)
    await store.transact((), [change])
    before = await store.list("")
    with pytest.raises(Refused, match=r"^[^\n]+$"):
        await Journal(store).commit((), [Put("a", b"")], facts(2), wall_s=1.0)
    assert await store.list("") == before
    assert reasons(await Journal(store).tail(0, 10)) == told(1)


async def test_what_does_not_fit_is_cut_or_spread() -> None:
    """A huge text is cut off; more events than a page holds are stored on several, the last with the changes."""
    store = MemoryStore()
    journal = Journal(store)
    journal.append([Event(EventKind.RUN_EXITED, "x" * 100_000, data=(("output", "y" * 100_000),))], 1.0)
    outcome = await journal.commit((), [Put("a", b"")], facts(*range(1200)), wall_s=1.0)
    entries = await journal.tail(0, 5000)
    assert len(entries) == 1201
    assert len(entries[0].event.reason) == TEXT_CHARACTERS
    assert len(str(dict(entries[0].event.data)["output"])) == TEXT_CHARACTERS
    assert outcome == Outcome(committed=True, revision=(await store.list("")).revision)
    with pytest.raises(ValueError, match="JSON"):
        journal.append([Event(EventKind.RUN_EXITED, "x", data=(("share", float("nan")),))], 1.0)


async def test_several_writers_take_turns_without_reading_the_whole_journal_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Numbers stay consecutive, old pages of both go, and a page of another's costs one small read."""
    monkeypatch.setattr(journal_module, "LISTED_EVERY", 40)
    store = MemoryStore()
    listed = []
    real_list = store.list

    async def counted_list(prefix: str) -> Listing:
        listed.append(prefix)
        return await real_list(prefix)

    monkeypatch.setattr(store, "list", counted_list)
    writers = (Journal(store, limit=20), Journal(store, limit=20))
    for number in range(1, 101):
        await writers[number % 2].commit((), (), facts(number), wall_s=1.0)
    assert len(listed) <= 2 * (1 + 100 // 40)
    entries = await writers[0].tail(0, 1000)
    assert [entry.number for entry in entries] == list(range(entries[0].number, 101))
    assert 20 <= len(entries) <= 20 + 2 * 40
