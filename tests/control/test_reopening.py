"""A replaced store is opened anew; what met it fails once, and is right the next time."""

from collections.abc import AsyncGenerator

import pytest

from understudy.control.reopening import ReopeningStore
from understudy.store.base import Change, Expect, Put, Replaced, StoreFault
from understudy.store.memory import MemoryStore


class Doubted(MemoryStore):
    """Says of everything that it is another store than the one that is known."""

    async def get(self, *_: object) -> None:
        raise Replaced("it was wiped")

    async def list(self, *_: object) -> None:
        raise Replaced("it was wiped")

    async def transact(self, *_: object) -> None:
        raise Replaced("it was wiped")

    async def watch(self, *_: object) -> AsyncGenerator[Change, None]:
        raise Replaced("it was wiped")
        yield


@pytest.mark.parametrize("call", ["get", "list", "transact", "watch"])
async def test_each_call_that_meets_another_store_fails_once(call: str) -> None:
    """The caller hears of it, since what it knew may not hold; the next call finds the store as it is now."""
    fresh = MemoryStore()
    opened = []

    async def open_store() -> MemoryStore:
        opened.append(fresh)
        return fresh

    store = ReopeningStore(Doubted(), open_store)
    calls = {
        "get": lambda: store.get("a"),
        "list": lambda: store.list("a"),
        "transact": lambda: store.transact([Expect("a", 0)], [Put("a", b"1")]),
        "watch": lambda: anext(store.watch("a", 0)),
    }
    with pytest.raises(StoreFault, match="wiped"):
        await calls[call]()
    assert (await store.transact([Expect("a", 0)], [Put("a", b"1")])).committed
    assert (await fresh.get("a")).value == b"1"
    assert opened == [fresh]
