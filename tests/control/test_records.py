"""Records are written only over what was read, together with their events, and never over what cannot be read."""

import pytest

from understudy.control import keys
from understudy.control.journal import Journal
from understudy.control.records import AT_ONCE, InForce, Records
from understudy.core.errors import Refused
from understudy.core.events import Event, EventKind
from understudy.core.objectives import Ledger
from understudy.core.pools import Admin, PoolRecord
from understudy.core.text import Name
from understudy.store.base import Put, StoreFault
from understudy.store.memory import MemoryStore, Trouble

WEB, API = Name("web"), Name("api")


def drained(service: Name, *endpoints: str) -> PoolRecord:
    """A record that differs from others by who is drained."""
    return PoolRecord(service, admin=tuple((Name(endpoint), Admin.DRAIN) for endpoint in endpoints))


def fact(service: Name | None, reason: str = "because") -> Event:
    return Event(EventKind.ENDPOINT_ADMIN, reason, service)


async def agent(store: MemoryStore) -> tuple[Records, Journal]:
    """One agent's records, loaded, and its journal."""
    journal = Journal(store)
    records = Records(store, journal)
    await records.load()
    return records, journal


async def test_what_was_saved_is_loaded_by_the_next_agent() -> None:
    """Pools, ledgers and the version in force, with their events; a removed service is forgotten."""
    store = MemoryStore()
    records, journal = await agent(store)
    await records.save(
        {WEB: drained(WEB, "w1"), API: drained(API)},
        [fact(WEB)],
        5.0,
        ledgers={WEB: Ledger(1.0), API: Ledger(2.0)},
        in_force=InForce(3, 1),
    )
    await records.save({WEB: drained(WEB, "w2")}, [], 6.0, removed=[API])
    loaded = await Records(store, journal).load()
    assert loaded.pools == {WEB: drained(WEB, "w2")}
    assert loaded.ledgers == {WEB: Ledger(1.0)}
    assert loaded.in_force == InForce(3, 1)
    assert loaded.refused == {}
    assert [(entry.wall_s, entry.event) for entry in await journal.tail(0, 9)] == [(5.0, fact(WEB))]
    await records.save({API: drained(API, "a1")}, [], 7.0)
    assert (await Records(store, journal).load()).pools[API] == drained(API, "a1")


async def test_what_another_agent_changed_is_not_overwritten() -> None:
    """The later one is refused with everything it wanted to save, events too; after loading again it may."""
    store = MemoryStore()
    first, journal = await agent(store)
    second, _ = await agent(store)
    await first.save({WEB: drained(WEB, "w1")}, [fact(WEB, "first")], 1.0)
    with pytest.raises(Refused, match="another agent"):
        await second.save({WEB: drained(WEB, "w2"), API: drained(API)}, [fact(WEB, "second")], 2.0)
    loaded = await second.load()
    assert loaded.pools == {WEB: drained(WEB, "w1")}
    await second.save({WEB: drained(WEB, "w1", "w2")}, [fact(WEB, "third")], 3.0)
    assert [entry.event.reason for entry in await journal.tail(0, 9)] == ["first", "third"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (keys.pool(WEB), b"rubbish"),
        (keys.pool(WEB), b'{"format":9,"type":"PoolRecord","value":{}}'),
        (keys.pool(WEB), b'{"format":1,"type":"PoolRecord","value":{"service":"other"}}'),
        (keys.ledger(WEB), b'{"format":1,"type":"PoolRecord","value":{"service":"web"}}'),
        (keys.IN_FORCE, b""),
        (keys.POOLS + "a b", b"{}"),
        (keys.POOLS + "a/web", b'{"format":1,"type":"PoolRecord","value":{"service":"web"}}'),
    ],
)
async def test_what_cannot_be_read_is_refused_and_left_as_it_is(key: str, value: bytes) -> None:
    """All others are loaded; saving over it is refused with the same sentence, and not a byte changes."""
    store = MemoryStore()
    records, _ = await agent(store)
    await records.save({API: drained(API)}, [], 1.0)
    await store.transact((), [Put(key, value)])
    before = await store.list("")
    loaded = await records.load()
    assert list(loaded.pools) == [API]
    assert list(loaded.refused) == [key]
    assert loaded.refused[key].endswith(".")
    assert "\n" not in loaded.refused[key]
    if key.count("/") == 1 and " " not in key:
        with pytest.raises(Refused, match=key):
            await records.save({WEB: drained(WEB)}, [], 2.0, ledgers={WEB: Ledger(1.0)}, in_force=InForce(1, 1))
    assert await store.list("") == before


async def test_saving_again_after_an_unknown_fate_is_right() -> None:
    """Whether the first try took effect or not, the second one is not taken for another agent's conflict."""
    store = MemoryStore()
    records, _ = await agent(store)
    for trouble in (Trouble.ANSWER_LOST, Trouble.AWAY):
        for names in (("w1",), ("w1", "w2")):
            store.set_trouble(trouble)
            with pytest.raises(StoreFault):
                await records.save({WEB: drained(WEB, "w9", *names)}, [fact(WEB)], 1.0, removed=[API])
            store.set_trouble(Trouble.NONE)
            await records.save({WEB: drained(WEB, *names)}, [fact(WEB)], 1.0, ledgers={WEB: Ledger(1.0)})
            assert (await Records(store, Journal(store)).load()).pools[WEB] == drained(WEB, *names)


async def test_more_than_one_transaction_takes_keeps_each_event_with_its_record() -> None:
    """A second agent that changed one service makes its part fail as a whole; the part before is stored whole."""
    store = MemoryStore()
    records, journal = await agent(store)
    services = [Name(f"s{number:04}") for number in range(AT_ONCE * 2)]
    other, _ = await agent(store)
    await other.save({services[-1]: drained(services[-1])}, [], 1.0)
    events = [fact(service, str(service)) for service in reversed(services)] + [fact(None, "all")]
    with pytest.raises(Refused, match=services[-1]):
        await records.save({service: drained(service, "e1") for service in services}, events, 2.0)
    saved = [name for name, record in (await records.load()).pools.items() if record.admin]
    assert sorted(saved) == services[:AT_ONCE]
    said = {entry.event.reason for entry in await journal.tail(0, 9999)}
    assert said == {"all", *map(str, services[:AT_ONCE])}
