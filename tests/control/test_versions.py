"""Versions of the spec: each number once, the last hundred kept, none overwritten."""

import asyncio
from pathlib import Path

import pytest

from understudy.control import keys
from understudy.control.journal import Journal
from understudy.control.versions import LIMIT, Versions
from understudy.control.view import Version
from understudy.core.errors import Refused
from understudy.core.events import Event, EventKind
from understudy.store.base import Put
from understudy.store.memory import MemoryStore
from understudy.store.sqlite import SqliteStore


def agent(store: MemoryStore | SqliteStore) -> Versions:
    return Versions(store, Journal(store))


async def test_versions_are_numbered_kept_and_found(tmp_path: Path) -> None:
    """The text comes back as it was written, also a large one, and after a restart."""
    store = await SqliteStore.open(tmp_path / "store.db")
    versions = agent(store)
    assert await versions.current() is None
    assert await versions.list() == ()
    large = "".join(f"  - {{name: w{number}, address: 10.0.0.1:{number}}}  # ä\n" for number in range(20_000))
    event = Event(EventKind.SPEC_APPLIED, "version 1 is in force")
    assert await versions.add("a: 1\n", "first", after=0, wall_s=1.5, events=[event]) == Version(1, 1.5, "first")
    assert await versions.add(large, "second", after=1, wall_s=2.5) == Version(2, 2.5, "second")
    await store.close()
    store = await SqliteStore.open(tmp_path / "store.db")
    versions = agent(store)
    current = await versions.current()
    assert current is not None
    assert current.version == Version(2, 2.5, "second")
    assert current.text == large
    assert (await versions.get(1)).text == "a: 1\n"
    assert await versions.list() == (Version(2, 2.5, "second"), Version(1, 1.5, "first"))
    assert [entry.event for entry in await Journal(store).tail(0, 9)] == [event]
    with pytest.raises(Refused, match="no version 3"):
        await versions.get(3)
    await store.close()


async def test_two_agents_never_write_one_version() -> None:
    """Of many that plan on the same version one wins; the others are refused, and their events are not told."""
    store = MemoryStore()
    for turn in range(5):
        tries = [
            agent(store).add(
                f"{turn}.{who}", "", after=turn, wall_s=0.0, events=[Event(EventKind.SPEC_APPLIED, f"{turn}.{who}")]
            )
            for who in range(4)
        ]
        results = await asyncio.gather(*tries, return_exceptions=True)
        assert sorted(type(result).__name__ for result in results) == ["Refused", "Refused", "Refused", "Version"]
        winner = next(who for who, result in enumerate(results) if isinstance(result, Version))
        current = await agent(store).current()
        assert current is not None
        assert current.version.number == turn + 1
        assert current.text == f"{turn}.{winner}"
        assert [entry.event.reason for entry in await Journal(store).tail(-1, 1)] == [current.text]
    assert len(await Journal(store).tail(0, 99)) == 5


async def test_who_is_behind_is_refused() -> None:
    """Planned on an older version, or on none at all, even when the numbers in between are long gone."""
    store = MemoryStore()
    versions = agent(store)
    for number in range(LIMIT + 20):
        await versions.add(str(number), "", after=number, wall_s=0.0)
    before = await store.list("")
    for after in (0, 1, LIMIT, LIMIT + 19, LIMIT + 21):
        with pytest.raises(Refused, match="not the newest"):
            await versions.add("late", "", after=after, wall_s=0.0)
    assert await store.list("") == before
    assert [version.number for version in await versions.list()] == list(range(LIMIT + 20, 20, -1))
    assert len((await store.list(keys.TEXTS)).items) == LIMIT
    assert (await versions.get(21)).text == "20"


@pytest.mark.parametrize("key", [keys.version(1), keys.version_text(1)])
async def test_a_version_that_cannot_be_read_is_said_to_be(key: str) -> None:
    """One sentence; it stays as it is, and a number is not given twice."""
    store = MemoryStore()
    versions = agent(store)
    await versions.add("a", "", after=0, wall_s=0.0)
    await store.transact((), [Put(key, b"rubbish")])
    for call in (versions.current(), versions.get(1)):
        with pytest.raises(Refused, match=r"cannot be read[^\n]*was left as it is"):
            await call
    item = await store.get(key)
    assert item is not None
    assert item.value == b"rubbish"
