"""The switch that makes the store in memory fail, since tests of everything above rest on it."""

import asyncio
from contextlib import aclosing

import pytest

from understudy.store.base import Put, StoreFault
from understudy.store.memory import MemoryStore, Trouble


async def test_an_outage_fails_everything_and_changes_nothing() -> None:
    """Reads, writes and those who already watch fail; afterwards all is as before."""
    store = MemoryStore()
    before = await store.transact((), [Put("a", b"1")])
    async with aclosing(store.watch("a", before.revision)) as watch:
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        store.set_trouble(Trouble.AWAY)
        with pytest.raises(StoreFault):
            await waiting
    for call in (store.get("a"), store.list(""), store.transact((), [Put("a", b"2")])):
        with pytest.raises(StoreFault):
            await call
    store.set_trouble(Trouble.NONE)
    assert (await store.list("")).revision == before.revision


async def test_a_lost_answer_is_a_transaction_that_took_effect() -> None:
    """The caller hears of a failure, and the change is there: what every caller has to reckon with."""
    store = MemoryStore()
    store.set_trouble(Trouble.ANSWER_LOST)
    with pytest.raises(StoreFault, match="unknown"):
        await store.transact((), [Put("a", b"1")])
    item = await store.get("a")
    assert item is not None
    assert item.value == b"1"
