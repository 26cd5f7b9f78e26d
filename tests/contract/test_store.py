"""What every store must do alike. A new adapter is a new entry of ADAPTERS, and nothing else here changes.

The tests assume an empty store, but not that its revision is 0.
"""

import asyncio
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from tests.store.etcd import shared

from understudy.store.base import (
    MAX_CHANGES,
    MAX_VALUE_BYTES,
    Change,
    Compacted,
    Delete,
    Expect,
    Item,
    Put,
    Store,
    StoreFault,
)
from understudy.store.etcd import EtcdSettings, EtcdStore
from understudy.store.memory import MemoryStore
from understudy.store.sqlite import SqliteStore

PATIENCE_S = 20.0
ODD_KEYS = (
    "a",
    "a ",
    "a\n",
    'a"b',
    "a'; DROP TABLE items; --",
    "a%",
    "a_",
    "a\x00b",
    "ä",
    "\U0001f600",
    "a/" * 200,
    "Z",
)


class Adapter(Protocol):
    """How the suite gets at one kind of store."""

    async def open(self) -> Store:
        """A new, empty store."""
        ...

    async def compact(self, store: Store) -> None:
        """Cut off all of the history up to now."""
        ...

    def clean(self) -> None:
        """Remove whatever is left."""
        ...


class Memory:
    """The store in memory."""

    async def open(self) -> Store:
        return MemoryStore()

    async def compact(self, store: Store) -> None:
        await push_out(store)

    def clean(self) -> None:
        pass


class Sqlite:
    """The store in a file."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="us-"))
        self._count = 0

    async def open(self) -> Store:
        self._count += 1
        return await SqliteStore.open(self._folder / f"{self._count}.db")

    async def compact(self, store: Store) -> None:
        await push_out(store)

    def clean(self) -> None:
        shutil.rmtree(self._folder)


class EtcdOfOne:
    """The store in an etcd of one member."""

    members = 1
    _count = 0

    async def open(self) -> Store:
        EtcdOfOne._count += 1
        return await EtcdStore.open(EtcdSettings(shared(self.members).endpoints, f"c{EtcdOfOne._count}", timeout_s=10))

    async def compact(self, store: Store) -> None:  # noqa: ARG002  # all stores in one etcd share its history
        await asyncio.to_thread(shared(self.members).compact)

    def clean(self) -> None:
        pass


class EtcdOfThree(EtcdOfOne):
    """The store in an etcd of three members."""

    members = 3


async def push_out(store: Store) -> None:
    """Write so much that nothing older is kept by a store that bounds its own history."""
    for _ in range(12_000 // MAX_CHANGES):
        await store.transact((), [Put(f"filler/{number}", b"") for number in range(MAX_CHANGES)])


ADAPTERS: dict[str, Callable[[], Adapter]] = {
    "memory": Memory,
    "sqlite": Sqlite,
    "etcd": EtcdOfOne,
    "etcd-3": EtcdOfThree,
}


@dataclass
class Bench:
    """One adapter with one open store."""

    adapter: Adapter
    store: Store


@pytest.fixture(params=ADAPTERS)
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    adapter = ADAPTERS[request.param]()
    store = await adapter.open()
    try:
        async with asyncio.timeout(200):
            yield Bench(adapter, store)
    finally:
        await store.close()
        adapter.clean()


@pytest.fixture
def store(bench: Bench) -> Store:
    return bench.store


async def take(watch: AsyncIterator[Change], count: int) -> list[Change]:
    """The next changes of a watch, which goes on."""
    async with asyncio.timeout(PATIENCE_S):
        return [await anext(watch) for _ in range(count)]


async def test_what_was_put_is_got_and_listed_in_the_order_of_the_keys(store: Store) -> None:
    """Every later read sees a commit, with the revision that it was made at; a prefix is no path."""
    assert await store.get("pools/web") is None
    before = (await store.list("")).revision
    outcome = await store.transact((), [Put("pools/web", b"1"), Put("pools2", b"2"), Put("pool", b"3")])
    assert outcome.committed
    assert outcome.revision > before
    assert await store.get("pools/web") == Item("pools/web", b"1", outcome.revision)
    assert [item.key for item in (await store.list("")).items] == ["pool", "pools/web", "pools2"]
    assert [item.key for item in (await store.list("pools")).items] == ["pools/web", "pools2"]
    assert [item.key for item in (await store.list("pools/")).items] == ["pools/web"]
    assert (await store.list("none")).items == ()
    assert (await store.list("none")).revision == outcome.revision


async def test_conditions_are_all_or_nothing(store: Store) -> None:
    """One condition that does not hold keeps every change back, and leaves the revision alone."""
    first = await store.transact([Expect("a", 0)], [Put("a", b"1")])
    assert first.committed
    second = await store.transact((), [Put("b", b"1")])
    for expects in (
        [Expect("a", 0)],
        [Expect("a", second.revision)],
        [Expect("gone", first.revision)],
        [Expect("a", first.revision), Expect("b", first.revision)],
    ):
        assert await store.transact(expects, [Put("a", b"2"), Delete("b"), Put("c", b"2")]) == type(second)(
            committed=False, revision=second.revision
        )
    assert [(item.key, item.value) for item in (await store.list("")).items] == [("a", b"1"), ("b", b"1")]
    third = await store.transact([Expect("a", first.revision), Expect("c", 0)], [Put("c", b"3"), Delete("a")])
    assert third.committed
    assert [(item.key, item.value) for item in (await store.list("")).items] == [("b", b"1"), ("c", b"3")]


async def test_a_deleted_key_counts_as_never_there(store: Store) -> None:
    """Revision 0 holds for it again, and the old revision does not."""
    first = await store.transact((), [Put("a", b"1")])
    await store.transact((), [Delete("a")])
    assert await store.get("a") is None
    assert not (await store.transact([Expect("a", first.revision)], [Put("a", b"2")])).committed
    again = await store.transact([Expect("a", 0)], [Put("a", b"2")])
    assert again.revision > first.revision


async def test_the_revision_rises_only_when_something_changes(store: Store) -> None:
    """The same value put again is a change; conditions alone and the removal of what is not there are none."""
    first = await store.transact((), [Put("a", b"1")])
    assert (await store.transact([Expect("a", first.revision)], ())).revision == first.revision
    gone = await store.transact((), [Delete("missing")])
    assert gone.committed
    assert gone.revision == first.revision
    same = await store.transact((), [Put("a", b"1")])
    assert same.revision > first.revision
    item = await store.get("a")
    assert item is not None
    assert item.revision == same.revision


async def test_no_update_is_lost_among_concurrent_writers(store: Store) -> None:
    """Compare-and-swap makes many writers of one key take turns."""

    async def add_ten() -> None:
        for _ in range(10):
            committed = False
            while not committed:
                item = await store.get("n")
                value, revision = (int(item.value), item.revision) if item else (0, 0)
                outcome = await store.transact([Expect("n", revision)], [Put("n", str(value + 1).encode())])
                committed = outcome.committed

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(add_ten())
    item = await store.get("n")
    assert item is not None
    assert int(item.value) == 80


async def test_what_no_store_could_do_is_refused_before_anything_happens(store: Store) -> None:
    """A key twice, an empty key and too many changes are mistakes; too many bytes are a fault in one sentence."""
    before = await store.list("")
    for changes in ([Put("a", b""), Delete("a")], [Put("", b"")], [Put(str(n), b"") for n in range(MAX_CHANGES + 1)]):
        with pytest.raises(ValueError, match=r"key|more than"):
            await store.transact((), changes)
    with pytest.raises(ValueError, match="key"):
        await store.transact([Expect("", 0)], ())
    with pytest.raises(StoreFault, match=r"^Nothing was stored.*\.$"):
        await store.transact((), [Put("a", b"x" * MAX_VALUE_BYTES), Put("b", b"x")])
    assert await store.list("") == before


async def test_large_values_odd_keys_and_full_transactions_come_back_as_they_were(store: Store) -> None:
    """A value of 1 MiB, an empty one, any characters in a key, and as many changes as are allowed."""
    large = random.Random(1).randbytes(MAX_VALUE_BYTES)
    start = await store.transact((), [Put("large", large), Put("empty", b"")])
    await store.transact((), [Put(f"odd/{key}", key.encode()) for key in ODD_KEYS])
    await store.transact((), [Put(f"many/{n}", b"") for n in range(MAX_CHANGES)])
    item = await store.get("large")
    assert item is not None
    assert item.value == large
    odd = (await store.list("odd/")).items
    assert [item.key for item in odd] == sorted((f"odd/{key}" for key in ODD_KEYS), key=str.encode)
    assert all(item.value == item.key.removeprefix("odd/").encode() for item in odd)
    assert len((await store.list("many/")).items) == MAX_CHANGES
    async with aclosing(store.watch("odd/", start.revision)) as watch:
        assert [change.key for change in await take(watch, len(ODD_KEYS))] == [f"odd/{key}" for key in ODD_KEYS]


async def test_a_watch_tells_each_change_of_its_prefix_once_in_order(store: Store) -> None:
    """History first, then what comes; within a transaction in its own order; removals too; nothing else."""
    base = (await store.list("")).revision
    first = await store.transact((), [Put("p/b", b"1"), Put("q", b"-"), Put("p/a", b"1")])
    async with aclosing(store.watch("p/", base)) as watch:
        assert await take(watch, 2) == [Change("p/b", b"1", first.revision), Change("p/a", b"1", first.revision)]
        await store.transact([Expect("q", 0)], [Put("p/never", b"")])
        await store.transact((), [Delete("p/none")])
        second = await store.transact((), [Delete("p/b"), Delete("q")])
        third = await store.transact((), [Put("p/b", b"2")])
        assert await take(watch, 2) == [Change("p/b", None, second.revision), Change("p/b", b"2", third.revision)]
    async with aclosing(store.watch("p/", second.revision)) as watch:
        assert await take(watch, 1) == [Change("p/b", b"2", third.revision)]
        waiting = asyncio.ensure_future(take(watch, 1))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        fourth = await store.transact((), [Put("p/c", b"")])
        assert await waiting == [Change("p/c", b"", fourth.revision)]


async def test_a_revision_not_yet_reached_is_waited_for(store: Store) -> None:
    """A watch from the future tells nothing of what comes before it."""
    first = await store.transact((), [Put("a", b"1")])
    ahead = first.revision + 1
    async with aclosing(store.watch("", ahead)) as watch:
        waiting = asyncio.ensure_future(take(watch, 1))
        await asyncio.sleep(0.05)
        await store.transact((), [Put("a", b"2")])
        third = await store.transact((), [Put("a", b"3")])
        assert await waiting == [Change("a", b"3", third.revision)]


async def watch_to_end(store: Store, after: int) -> list[Change]:
    """Everything below `w/` after that revision, up to the removal of `w/end`."""
    seen: list[Change] = []
    async with asyncio.timeout(PATIENCE_S), aclosing(store.watch("w/", after)) as watch:
        async for change in watch:
            seen.append(change)
            if change.key == "w/end" and change.value is None:
                break
    return seen


async def test_nothing_is_lost_or_told_twice_under_concurrent_writers(store: Store) -> None:
    """Watchers that join at any moment see the same suffix of one history, and it amounts to what is listed."""
    writers, each = 4, 60

    async def write(name: int) -> None:
        for number in range(each):
            await store.transact((), [Put(f"w/{name}", str(number).encode()), Put(f"w/{name}/{number % 7}", b"x")])
            await asyncio.sleep(0)

    async def join(delay_s: float) -> tuple[int, list[Change]]:
        await asyncio.sleep(delay_s)
        after = (await store.list("w/")).revision
        return after, await watch_to_end(store, after)

    start = await store.transact((), [Put("w/end", b"")])
    watching = asyncio.ensure_future(watch_to_end(store, start.revision))
    joining = [asyncio.ensure_future(join(number * 0.003)) for number in range(6)]
    async with asyncio.TaskGroup() as group:
        for name in range(writers):
            group.create_task(write(name))
    await asyncio.sleep(0.03)
    await store.transact((), [Delete("w/end")])
    final = await store.list("w/")
    history = await watching
    assert len(history) == writers * each * 2 + 1
    assert [change.revision for change in history] == sorted(change.revision for change in history)
    history.pop()
    assert {change.key: change.value for change in history} == {item.key: item.value for item in final.items}
    for after, seen in await asyncio.gather(*joining):
        assert seen[:-1] == [change for change in history if change.revision > after]


async def test_history_that_is_gone_is_said_to_be_gone(bench: Bench) -> None:
    """A watch from before a compaction raises Compacted; from the revision of a listing it goes on."""
    old = await bench.store.transact((), [Put("a", b"1")])
    await bench.store.transact((), [Put("a", b"2")])
    await bench.adapter.compact(bench.store)
    async with aclosing(bench.store.watch("a", old.revision)) as watch:
        with pytest.raises(Compacted):
            await take(watch, 1)
    listing = await bench.store.list("a")
    assert [item.value for item in listing.items] == [b"2"]
    async with aclosing(bench.store.watch("a", listing.revision)) as watch:
        last = await bench.store.transact((), [Put("a", b"3")])
        assert await take(watch, 1) == [Change("a", b"3", last.revision)]


async def test_a_waiting_watch_of_a_quiet_prefix_survives_compaction(bench: Bench) -> None:
    """Who keeps up loses nothing, however little of the history is his."""
    base = (await bench.store.list("")).revision
    async with aclosing(bench.store.watch("quiet", base)) as watch:
        first = await bench.store.transact((), [Put("quiet", b"0")])
        assert await take(watch, 1) == [Change("quiet", b"0", first.revision)]
        waiting = asyncio.ensure_future(take(watch, 1))
        await asyncio.sleep(0.05)
        await bench.adapter.compact(bench.store)
        last = await bench.store.transact((), [Put("quiet", b"1")])
        assert await waiting == [Change("quiet", b"1", last.revision)]


async def test_a_slow_watcher_gets_all_or_is_told(bench: Bench) -> None:
    """One that stopped reading while the history was cut off never misses a change without hearing of it."""
    base = (await bench.store.list("")).revision
    await bench.store.transact((), [Put("a", b"0")])
    seen: list[bytes | None] = []
    async with aclosing(bench.store.watch("a", base)) as watch:
        seen += [change.value for change in await take(watch, 1)]
        await bench.store.transact((), [Put("a", b"1")])
        await bench.adapter.compact(bench.store)
        await bench.store.transact((), [Put("a", b"2")])
        try:
            seen += [change.value for change in await take(watch, 2)]
        except Compacted:
            return
    assert seen == [b"0", b"1", b"2"]


async def test_many_watchers_all_hear_of_a_change(store: Store) -> None:
    """Two hundred watches at once; one that is left early disturbs nobody."""
    base = (await store.list("")).revision
    watches = [store.watch("a", base) for _ in range(200)]
    waiting = [asyncio.ensure_future(take(watch, 1)) for watch in watches]
    await asyncio.sleep(0.05)
    for left in waiting[:20]:
        left.cancel()
    change = await store.transact((), [Put("a", b"1")])
    assert await asyncio.gather(*waiting[20:]) == [[Change("a", b"1", change.revision)]] * 180
    await asyncio.gather(*waiting[:20], return_exceptions=True)


async def test_closing_ends_those_who_watch_and_refuses_the_rest(store: Store) -> None:
    """A watch ends without an error, every call is one sentence, and closing twice is no mistake."""
    base = (await store.list("")).revision
    told: list[list[Change]] = [[] for _ in range(5)]

    async def read(changes: list[Change]) -> None:
        async for change in store.watch("", base):
            changes.append(change)  # noqa: PERF401  each is seen as it comes

    reading = [asyncio.ensure_future(read(changes)) for changes in told]
    put = await store.transact((), [Put("a", b"1")])
    async with asyncio.timeout(PATIENCE_S):
        while not all(told):  # noqa: ASYNC110  watches raise no event
            await asyncio.sleep(0.01)
    await store.close()
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*reading)
    assert told == [[Change("a", b"1", put.revision)]] * 5
    await store.close()
    for call in (store.get("a"), store.list(""), store.transact((), [Put("a", b"")])):
        with pytest.raises(StoreFault, match=r"closed.*\.$"):
            await call


async def test_cancelling_leaves_a_transaction_whole(store: Store) -> None:
    """Whenever the cancellation comes, both of its keys are there or neither is, and the store goes on."""
    chance = random.Random(2)

    async def pair(number: int) -> None:
        await store.transact((), [Put(f"x/{number:03}", b""), Put(f"y/{number:03}", b"")])

    tasks = []
    for number in range(150):
        task = asyncio.ensure_future(pair(number))
        tasks.append(task)
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        if chance.random() < 0.7:
            chance.choice(tasks).cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert any(isinstance(result, asyncio.CancelledError) for result in results)
    await pair(999)
    left = [item.key[2:] for item in (await store.list("x/")).items]
    right = [item.key[2:] for item in (await store.list("y/")).items]
    assert left == right
    assert {f"{number:03}" for number, result in enumerate(results) if result is None} <= set(left)


KEYS = st.sampled_from(["a", "a/", "a/b", "a/b/c", "b", "ä", "a\x00"])
VALUES = st.binary(max_size=8)
CHANGES = st.dictionaries(KEYS, st.one_of(st.none(), VALUES), max_size=4).map(
    lambda wanted: [Delete(key) if value is None else Put(key, value) for key, value in wanted.items()]
)


class Model(RuleBasedStateMachine):
    """A store beside a dictionary, doing the same."""

    adapter: Adapter

    @initialize()
    def begin(self) -> None:
        self.runner = asyncio.Runner()
        self.store = self.runner.run(self.adapter.open())
        self.items: dict[str, Item] = {}
        self.base = self.revision = self.runner.run(self.store.list("")).revision
        self.history: list[Change] = []

    @rule(changes=CHANGES, guarded=st.lists(KEYS, max_size=3), off=st.sampled_from([0, 0, 0, 1]))
    def transact(self, changes: list[Put | Delete], guarded: list[str], off: int) -> None:
        """Conditions are the model's own revisions, sometimes off by one."""
        expects = [Expect(key, self.items[key].revision + off if key in self.items else 0) for key in guarded]
        holds = not any(off and key in self.items for key in guarded)
        real = [change for change in changes if isinstance(change, Put) or change.key in self.items] if holds else []
        outcome = self.runner.run(self.store.transact(expects, changes))
        assert outcome.committed is holds
        assert (outcome.revision > self.revision) if real else (outcome.revision == self.revision)
        self.revision = outcome.revision
        for change in real:
            if isinstance(change, Put):
                self.items[change.key] = Item(change.key, change.value, self.revision)
            else:
                del self.items[change.key]
            self.history.append(Change(change.key, getattr(change, "value", None), self.revision))

    @rule(key=KEYS)
    def get(self, key: str) -> None:
        assert self.runner.run(self.store.get(key)) == self.items.get(key)

    @rule(prefix=st.sampled_from(["", "a", "a/", "a/b", "z"]))
    def listing(self, prefix: str) -> None:
        listing = self.runner.run(self.store.list(prefix))
        wanted = sorted((key for key in self.items if key.startswith(prefix)), key=str.encode)
        assert listing.items == tuple(self.items[key] for key in wanted)
        assert listing.revision == self.revision

    @rule(prefix=st.sampled_from(["", "a/"]), back=st.integers(0, 10))
    def watch(self, prefix: str, back: int) -> None:
        after = max(self.base, self.revision - back)
        wanted = [change for change in self.history if change.revision > after and change.key.startswith(prefix)]

        async def read() -> list[Change]:
            async with aclosing(self.store.watch(prefix, after)) as watch:
                return await take(watch, len(wanted))

        assert self.runner.run(read()) == wanted

    def teardown(self) -> None:
        with suppress(AttributeError):
            self.runner.run(self.store.close())
            self.runner.close()


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_store_does_what_a_dictionary_would(name: str) -> None:
    """Any sequence of transactions, reads and watches agrees with the simplest model there is."""
    adapter = ADAPTERS[name]()

    class Machine(Model):
        pass

    Machine.adapter = adapter
    try:
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=40,
                stateful_step_count=30,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        adapter.clean()
