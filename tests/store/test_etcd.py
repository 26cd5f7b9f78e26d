"""What etcd alone can do to us: members killed, stopped, restored; log-in, TLS. With real etcd processes."""

import asyncio
import shutil
import time
from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme
from tests.store.etcd import Etcd, Member, shared, text
from tests.store.proxy import Proxy

from understudy.control.clock import FakeClock
from understudy.control.store_leader import MOVE_S, NEWS_S, StoreLeader
from understudy.core.errors import Refused
from understudy.store.base import (
    Change,
    Compacted,
    Delete,
    Expect,
    OutcomeUnknown,
    Put,
    Replaced,
    Store,
    StoreFault,
)
from understudy.store.etcd import EtcdSettings, EtcdStore
from understudy.store.etcd_wire import Login, Tls

PATIENCE_S = 20.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Etcd]:
    etcd = Etcd(3).start()
    yield etcd
    etcd.remove()


@pytest.fixture
def trio(cluster: Etcd) -> Iterator[Etcd]:
    """Three members, all well, before each test and after it."""
    yield cluster
    for member in cluster.members:
        if member.process:
            member.resume()
    cluster.start()


@asynccontextmanager
async def opened(endpoints: tuple[str, ...], name: str, **more) -> AsyncIterator[EtcdStore]:
    store = await EtcdStore.open(EtcdSettings(endpoints, name, **more))
    try:
        async with asyncio.timeout(200):
            yield store
    finally:
        await store.close()


@pytest.fixture
async def store(trio: Etcd, request: pytest.FixtureRequest) -> AsyncIterator[EtcdStore]:
    async with opened(trio.endpoints, request.node.name) as store:
        yield store


def in_use(etcd: Etcd, store: EtcdStore) -> Member:
    return next(member for member in etcd.members if store._client.endpoints.current.endswith(member.endpoint))


async def patiently(call, *arguments):
    """Ask until the store answers."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await call(*arguments)
        except StoreFault:
            assert time.monotonic() < deadline_s
            await asyncio.sleep(0.05)


async def until(reached: Callable[[], bool], limit_s: float = PATIENCE_S) -> None:
    """Wait for that."""
    async with asyncio.timeout(limit_s):
        while not reached():  # noqa: ASYNC110  # it is others' doing, without an event
            await asyncio.sleep(0.01)


@dataclass
class Writer:
    """Counts up by compare-and-swap, without a stop; each number is written at most once."""

    store: Store
    acknowledged: list[int] = field(default_factory=list)
    unknown: list[int] = field(default_factory=list)
    longest_s: float = 0.0
    stop: bool = False

    async def run(self) -> None:
        last_s = time.monotonic()
        while not self.stop:
            with suppress(StoreFault):
                item = await self.store.get("n")
                number, revision = (int(item.value), item.revision) if item else (0, 0)
                try:
                    outcome = await self.store.transact([Expect("n", revision)], [Put("n", str(number + 1).encode())])
                except OutcomeUnknown:
                    self.unknown.append(number + 1)
                else:
                    assert outcome.committed or self.unknown, "there is no other writer"
                    if outcome.committed:
                        self.acknowledged.append(number + 1)
                        self.longest_s = max(self.longest_s, time.monotonic() - last_s)
                        last_s = time.monotonic()
            await asyncio.sleep(0.002)


@dataclass
class Reader:
    """Watches as everybody should: goes on after a fault from the last change told, until the store is closed."""

    store: Store
    after: int
    changes: list[Change] = field(default_factory=list)
    faults: int = 0

    async def run(self) -> None:
        while True:
            try:
                async with aclosing(self.store.watch("n", self.after)) as watch:
                    async for change in watch:
                        self.changes.append(change)
                        self.after = change.revision
            except StoreFault:
                self.faults += 1
                await asyncio.sleep(0.05)
            else:
                return

    async def reaches(self, revision: int) -> None:
        await until(lambda: self.after >= revision)


@asynccontextmanager
async def busy(store: Store) -> AsyncIterator[tuple[Writer, Reader]]:
    """A writer and a watcher at work; afterwards: what was acknowledged is there, and all was told once, in order."""
    start = await store.transact((), [Put("start", b"")])
    writer, reader, late = Writer(store), Reader(store, start.revision), Reader(store, start.revision)
    writing, reading = asyncio.create_task(writer.run()), asyncio.create_task(reader.run())
    tasks = [writing, reading]
    try:
        await asyncio.sleep(0.2)
        yield writer, reader
        count = len(writer.acknowledged)
        await until(lambda: writing.done() or len(writer.acknowledged) >= count + 20)
        writer.stop = True
        await writing
        item = await patiently(store.get, "n")
        await reader.reaches(item.revision)
        tasks.append(asyncio.create_task(late.run()))
        await late.reaches(item.revision)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    assert late.changes == reader.changes
    told = [int(change.value or b"") for change in reader.changes]
    assert told == list(range(1, int(item.value) + 1))
    assert set(told) >= set(writer.acknowledged)
    assert set(told) <= set(writer.acknowledged) | set(writer.unknown)
    assert len(writer.acknowledged) == len(set(writer.acknowledged))


async def test_the_member_in_use_is_killed(trio: Etcd, store: EtcdStore) -> None:
    """Writers and watchers go on with another member, as a follower at once, else when there is a new leader."""
    async with busy(store) as (writer, _):
        for _ in range(2):
            member = in_use(trio, store)
            member.kill()
            count = len(writer.acknowledged)
            await until(lambda count=count: len(writer.acknowledged) > count + 1)
            assert in_use(trio, store) is not member
            member.start()
            await asyncio.to_thread(trio.await_leader)
    assert writer.longest_s < 10


async def test_the_first_endpoint_is_used_again_when_it_is_back(trio: Etcd, store: EtcdStore) -> None:
    """It is our own host's; whoever stayed away from it would depend on another host for ever. Watches go along."""
    first = trio.members[0]
    async with busy(store):
        await until(lambda: in_use(trio, store) is first)
        first.kill()
        await until(lambda: in_use(trio, store) is not first)
        first.start()
        await until(lambda: in_use(trio, store) is first)
        await until(lambda: store._feed._url.endswith(first.endpoint))


async def test_the_leader_dies_while_another_member_is_in_use(trio: Etcd) -> None:
    """What was under way is acknowledged, or told as unknown, never as done when it was not."""
    leader = trio.leader()
    follower = next(member for member in trio.members if member is not leader)
    async with opened((follower.endpoint,), "leader-dies") as store, busy(store) as (writer, _):
        leader.kill()
        await asyncio.sleep(1.0)
    assert writer.longest_s < 10


async def test_the_member_in_use_is_stopped(trio: Etcd, store: EtcdStore) -> None:
    """One that keeps its sockets and says nothing costs one timeout; watchers do not wait for it either."""
    async with busy(store) as (writer, reader):
        member = in_use(trio, store)
        member.pause()
        stopped_s = time.monotonic()
        before = len(writer.acknowledged)
        await until(lambda: len(writer.acknowledged) >= before + 10)
        caught_up = len(writer.acknowledged)
        await until(lambda: len(reader.changes) >= caught_up)
        assert time.monotonic() - stopped_s < 10
        member.resume()
    assert in_use(trio, store) is not member


async def test_a_watch_alone_notices_that_its_member_is_stopped(trio: Etcd, store: EtcdStore) -> None:
    """Nobody else asks this store anything, and still the watch is made again on another member, in time."""
    start = await store.transact((), [Put("a", b"1")])
    async with aclosing(store.watch("a", start.revision - 1)) as watch:
        assert (await anext(watch)).value == b"1"
        in_use(trio, store).pause()
        others = tuple(member.endpoint for member in trio.members if member is not in_use(trio, store))
        async with opened(others, "test_a_watch_alone_notices_that_its_member_is_stopped") as other:
            await patiently(other.transact, (), [Put("a", b"2")])
        async with asyncio.timeout(PATIENCE_S):
            assert (await anext(watch)).value == b"2"


async def test_a_watch_that_goes_silent_is_made_again(trio: Etcd) -> None:
    """A proxy swallows what the watch says and lets all else pass: no change is lost and none is told twice."""
    async with Proxy(trio.members[0].client_port) as proxy:
        endpoints = (f"127.0.0.1:{proxy.port}", trio.members[1].endpoint)
        async with opened(endpoints, "silent") as store, busy(store) as (_, reader):
            proxy.mute(b"/v3/watch")
            count = len(reader.changes)
            await until(lambda: len(reader.changes) >= count + 20)
            await until(lambda: store._client.endpoints.current.endswith(str(proxy.port)))
            assert reader.faults == 0
        assert proxy.muted > 0


async def test_a_write_under_way_when_the_leader_is_lost_ends_with_the_election(trio: Etcd) -> None:
    """The follower never tells what became of it; it is sent once more as soon as somebody leads, and counts once."""
    leader = trio.leader()
    follower = next(member for member in trio.members if member is not leader)
    async with opened((follower.endpoint,), "under-way", timeout_s=15.0) as store:
        item = await _put(store, "a", b"1")
        leader.pause()
        begun_s = time.monotonic()
        outcome = await store.transact([Expect("a", item)], [Put("a", b"2")])
        assert time.monotonic() - begun_s < 10  # etcd itself gives it up later
        assert outcome.committed
        leader.resume()
        await asyncio.to_thread(trio.await_leader)
        found = await patiently(store.get, "a")
        assert (found.value, found.revision) == (b"2", outcome.revision)


async def test_a_write_that_took_effect_without_an_answer_is_unknown_not_declined(trio: Etcd) -> None:
    """Its second copy finds the conditions gone, by its own doing; that must not be told as "not done"."""
    async with Proxy(trio.members[0].client_port) as proxy:
        endpoints = (f"127.0.0.1:{proxy.port}", trio.members[1].endpoint)
        async with opened(endpoints, "unanswered") as store:
            revision = await _put(store, "a", b"1")
            proxy.mute(b"/v3/kv/txn")
            with pytest.raises(OutcomeUnknown):
                await store.transact([Expect("a", revision)], [Put("a", b"2")])
            assert proxy.muted > 0
            item = await store.get("a")
            assert item
            assert item.value == b"2"
            assert not (await store.transact([Expect("a", revision)], [Put("a", b"3")])).committed


async def test_a_write_that_could_take_effect_twice_is_sent_once(trio: Etcd) -> None:
    """Without a condition that it ends itself, a late answer is waited for, however well other members are."""
    async with Proxy(trio.members[0].client_port) as proxy:
        endpoints = (f"127.0.0.1:{proxy.port}", trio.members[1].endpoint)
        async with opened(endpoints, "once") as store:
            revision = await _put(store, "a", b"1")
            proxy.mute(b"/v3/kv/txn")
            with pytest.raises(OutcomeUnknown):
                await store.transact([Expect("a", revision), Expect("b", 0)], [Put("b", b"1")])
            outcome = await store.transact((), [Put("c", b"")])
            assert outcome.revision == revision + 2


async def test_a_member_that_says_nothing_is_not_waited_for(trio: Etcd) -> None:
    """Reads and repeatable writes ask the next member long before the time of a call is over."""
    async with opened(trio.endpoints, "impatient", timeout_s=10.0) as store:
        revision = await _put(store, "a", b"1")
        silent = next(member for member in trio.members if member is not trio.leader())
        while in_use(trio, store) is not silent:
            store._client.failed(store._client.endpoints.current)
        await store.get("a")
        silent.pause()
        begun_s = time.monotonic()
        assert (await store.transact([Expect("a", revision)], [Put("a", b"2")])).committed
        assert await store.get("a")
        assert time.monotonic() - begun_s < 8
        assert in_use(trio, store) is not silent


async def _put(store: Store, key: str, value: bytes) -> int:
    """Set it; the revision."""
    return (await patiently(store.transact, (), [Put(key, value)])).revision


async def test_the_majority_is_lost_and_comes_back(trio: Etcd, store: EtcdStore) -> None:
    """Meanwhile every call fails in one sentence and in its time; afterwards all goes on by itself."""
    async with busy(store) as (writer, _):
        leader = trio.leader()
        dead = [leader, next(member for member in trio.members if member is not leader)]
        for member in dead:
            member.kill()
        await asyncio.sleep(0.5)
        count = len(writer.acknowledged)
        for call in (store.get("n"), store.list("n"), store.transact((), [Put("m", b"")])):
            begun_s = time.monotonic()
            with pytest.raises(StoreFault, match=r"^The store.*\.$"):
                await call
            assert time.monotonic() - begun_s < store._client.timeout_s + 5
        assert len(writer.acknowledged) == count
        for member in dead:
            member.start()
        await asyncio.to_thread(trio.await_leader)


async def test_the_leader_moves(trio: Etcd, store: EtcdStore) -> None:
    """A planned move of etcd's leader costs nothing but time."""
    async with busy(store):
        for _ in range(3):
            await asyncio.to_thread(trio.move_leader)
            await asyncio.sleep(0.3)


async def test_the_leader_is_kept_off_the_primarys_host() -> None:
    """It moves when it is on that host, at once after a failover to where it went, not too often, and not elsewhere."""
    etcd = Etcd(3, spread=True)
    try:
        await asyncio.to_thread(etcd.start)
        async with opened(etcd.endpoints, "seat") as store:
            await store.transact((), [Put("a", b"1")])
            clock, primaries = FakeClock(), [etcd.leader().address]
            keeping = asyncio.create_task(StoreLeader(store, clock, lambda: frozenset(primaries)).keep())
            await until(lambda: etcd.leader().address not in primaries)
            await asleep(clock)
            primaries[:] = [etcd.leader().address]
            await clock.advance(MOVE_S - 1)
            await asyncio.sleep(0.3)
            assert etcd.leader().address in primaries
            async with asyncio.timeout(PATIENCE_S):
                while etcd.leader().address in primaries:
                    await clock.advance(1)
                    await asyncio.sleep(0.05)
            await asleep(clock)
            await clock.advance(MOVE_S + 1)  # long ago
            await asleep(clock)
            primaries[:] = [etcd.leader().address]
            await clock.advance(2 * NEWS_S)
            await until(lambda: etcd.leader().address not in primaries)
            keeping.cancel()

            leader = etcd.leader()
            assert await store.lead_away_from(frozenset(etcd_addresses(etcd))) == ""
            assert await store.lead_away_from(frozenset(primaries)) == ""
            next(member for member in etcd.members if member is not leader).kill()
            moved = await store.lead_away_from(frozenset([leader.address]))
            assert moved == etcd.leader().address != leader.address
    finally:
        etcd.remove()


async def asleep(clock: FakeClock) -> None:
    """Wait until somebody sleeps on that clock again, and so will see it move."""
    await until(lambda: any(not sleeper.done() for _, sleeper in clock._sleepers))


def etcd_addresses(etcd: Etcd) -> list[str]:
    return [member.address for member in etcd.members]


async def test_a_transaction_that_nobody_can_have_done_is_no_unknown(trio: Etcd, store: EtcdStore) -> None:
    """Refused connections prove that nothing took effect; a stopped member proves nothing."""
    await store.transact((), [Put("a", b"1")])
    for member in trio.members:
        member.pause()
    with pytest.raises(OutcomeUnknown, match=r"unknown; look again\.$"):
        await store.transact((), [Put("a", b"2")])
    for member in trio.members:
        member.kill()
    with pytest.raises(StoreFault, match="did not answer") as caught:
        await store.transact((), [Put("a", b"3")])
    assert not isinstance(caught.value, OutcomeUnknown)


async def test_a_watch_across_a_compaction(trio: Etcd, store: EtcdStore) -> None:
    """Who was up to date goes on after a reconnection; who missed what is gone is told so."""
    first = await store.transact((), [Put("a", b"1")])
    async with aclosing(store.watch("a", first.revision)) as current:
        waiting = asyncio.ensure_future(anext(current))
        other = await store.transact((), [Put("b", b"1")])
        await until(lambda: store._feed._heard >= other.revision)
        await asyncio.to_thread(trio.compact)
        in_use(trio, store).kill()
        last = await patiently(store.transact, [Expect("a", first.revision)], [Put("a", b"2")])
        assert await waiting == Change("a", b"2", last.revision)
    async with aclosing(store.watch("a", first.revision)) as late:
        with pytest.raises(Compacted):
            await anext(late)
    async with aclosing(store.watch("a", other.revision)) as exact:
        assert await anext(exact) == Change("a", b"2", last.revision)


async def test_two_clusters_share_an_etcd_without_meeting() -> None:
    """Each sees its own keys alone, though a name may begin like the other's."""
    endpoints = shared(1).endpoints
    async with opened(endpoints, "shop") as one, opened(endpoints, "shop2") as two:
        begin = (await two.list("")).revision
        await one.transact((), [Put("a", b"1")])
        await two.transact([Expect("a", 0)], [Put("a", b"2"), Delete("b")])
        assert [item.value for item in (await one.list("")).items] == [b"1"]
        async with aclosing(two.watch("", begin)) as watch:
            assert (await anext(watch)).value == b"2"


async def test_a_busy_neighbour_in_the_same_etcd_disturbs_no_watch() -> None:
    """Revisions rise without us, which looks like a silent watch; made again and again, it tells what is ours, once."""
    etcd = shared(1)
    async with opened(etcd.endpoints, "calm") as store:
        reader = Reader(store, (await store.transact((), [Put("n", b"0")])).revision)
        reading = asyncio.create_task(reader.run())
        for number in range(3):
            for _ in range(15):
                await asyncio.to_thread(etcd.post, etcd.members[0], "kv/put", {"key": text(b"noise")})
                await asyncio.sleep(0.1)
            last = await store.transact((), [Put("n", str(number).encode())])
        await reader.reaches(last.revision)
        reading.cancel()
        assert [change.value for change in reader.changes] == [b"0", b"1", b"2"]
        assert reader.faults == 0


@pytest.mark.parametrize("interval", ["100ms", "10m"])
async def test_progress_notifications_carry_a_quiet_watch_over_a_compaction(interval: str) -> None:
    """With them a watch knows how far it has heard, though nothing was for it; without, it must list again."""
    etcd = Etcd(1, "--experimental-watch-progress-notify-interval", interval)
    try:
        await asyncio.to_thread(etcd.start)
        async with opened(etcd.endpoints, "quiet") as store:
            base = (await store.transact((), [Put("n", b"0")])).revision
            async with aclosing(store.watch("n", base)) as watch:
                waiting = asyncio.ensure_future(anext(watch))
                await asyncio.sleep(0.3)
                for _ in range(5):
                    noise = etcd.post(etcd.members[0], "kv/put", {"key": text(b"noise")})["header"]["revision"]
                if interval == "10m":
                    await asyncio.sleep(0.3)
                else:
                    await until(lambda: store._feed._heard >= int(noise))
                etcd.compact()
                etcd.members[0].kill()
                await asyncio.to_thread(etcd.start)
                put = await patiently(store.transact, (), [Put("n", b"1")])
                if interval == "10m":
                    with pytest.raises(Compacted):
                        await waiting
                else:
                    assert await waiting == Change("n", b"1", put.revision)
    finally:
        etcd.remove()


@pytest.fixture
def single() -> Iterator[Etcd]:
    etcd = Etcd(1)
    yield etcd
    etcd.remove()


def stored(etcd: Etcd) -> int:
    return int(etcd.post(etcd.members[0], "kv/range", {"key": "AA==", "range_end": "AA=="}).get("count", 0))


async def test_a_wiped_etcd_is_refused_and_nothing_is_written_to_it(single: Etcd) -> None:
    """It has the same cluster id, and still no read, write or watch takes it for the old one."""
    await asyncio.to_thread(single.start)
    async with opened(single.endpoints, "wiped") as store, opened(single.endpoints, "wiped") as idle:
        before = await store.transact((), [Put("a", b"1")])
        await idle.get("a")
        watch = store.watch("a", before.revision)
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0.2)
        single.wipe()
        await asyncio.to_thread(single.start)
        for call in (store.transact([Expect("b", 0)], [Put("b", b"")]), store.get("a"), store.list("")):
            with pytest.raises(Replaced, match=r"not the one it was.*\.$"):
                await call
        with pytest.raises(Replaced):
            await waiting
        assert await asyncio.to_thread(stored, single) == 0
        for number in range(before.revision + 5):  # its revision overtakes the old one
            single.post(single.members[0], "kv/put", {"key": text(f"x{number}".encode()), "value": ""})
        with pytest.raises(Replaced):
            await store.get("a")
        count = await asyncio.to_thread(stored, single)
        with pytest.raises(Replaced, match="mark"):
            await idle.transact([Expect("b", 0)], [Put("b", b"")])
        assert await asyncio.to_thread(stored, single) == count
    async with opened(single.endpoints, "wiped") as store:
        assert await store.get("a") is None


@pytest.mark.parametrize("same_cluster_id", [True, False])
async def test_an_etcd_restored_from_an_old_snapshot_is_refused(single: Etcd, same_cluster_id: bool) -> None:
    """Whether etcd calls it the same cluster or another one, it has gone back, and a stale sight must not pass."""
    await asyncio.to_thread(single.start)
    member = single.members[0]
    async with opened(single.endpoints, "restored") as store:
        await store.transact((), [Put("a", b"1")])
        before = store.incarnation
        single.ctl("snapshot", "save", str(single.folder / "snapshot"))
        await store.transact((), [Put("a", b"2")])
        single.stop()
        shutil.rmtree(member.folder / "data")
        token = "etcd-cluster" if same_cluster_id else "another"
        peer = f"http://127.0.0.1:{member.peer_port}"
        where = ("--name", "m0", "--initial-advertise-peer-urls", peer, "--initial-cluster", f"m0={peer}")
        data = ("--data-dir", str(member.folder / "data"), "--initial-cluster-token", token)
        single.ctl("snapshot", "restore", str(single.folder / "snapshot"), *where, *data)
        await asyncio.to_thread(single.start)
        with pytest.raises(Replaced, match="revision" if same_cluster_id else "cluster id"):
            await store.get("a")
        for number in range(10):  # its revision overtakes the old one
            single.post(member, "kv/put", {"key": text(f"x{number}".encode()), "value": ""})
        with pytest.raises(Replaced):
            await store.transact((), [Put("a", b"3")])
    async with opened(single.endpoints, "restored") as store:
        item = await store.get("a")
        assert item
        assert item.value == b"1"
        assert (store.incarnation == before) == same_cluster_id
        assert before


async def test_an_endpoint_of_another_etcd_is_passed_over(trio: Etcd) -> None:
    """One wrong address in the spec neither stops us nor gets a single write; with nothing else left it is named."""
    wrong, first, second = shared(1), *trio.members[:2]
    async with opened((first.endpoint, wrong.endpoints[0], second.endpoint), "astray") as store:
        await store.transact((), [Put("a", b"1")])
        for member in (first, second):
            member.kill()
            await asyncio.sleep(0.1)  # its end reaches us
            assert (await patiently(store.transact, (), [Put("a", b"2")])).committed
            assert (await patiently(store.get, "a")).value == b"2"
            member.start()
            await asyncio.to_thread(trio.await_leader)
        for member in trio.members:
            member.kill()
        await asyncio.sleep(0.1)
        for call in (store.transact((), [Put("a", b"3")]), store.get("a")):
            with pytest.raises(Replaced, match="cluster id"):
                await call
    found = wrong.post(wrong.members[0], "kv/range", {"key": text(b"understudy/astray/"), "range_end": text(b"v")})
    assert not any("astray" in b64decode(entry["key"]).decode() for entry in found.get("kvs", []))


async def test_what_is_no_etcd_is_told_in_a_sentence() -> None:
    """Nothing there, something that answers otherwise, something that says nothing: each in its time."""

    async def talk(answer: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()
        if answer:
            writer.close()

    answers = (
        b"",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b'HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\n{"header":"nonsense!"}',
        b"SSH-2.0-OpenSSH\r\n",
    )
    for answer in answers:
        server = await asyncio.start_server(lambda _, writer, answer=answer: talk(answer, writer), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with opened((f"127.0.0.1:{port}",), "none", timeout_s=0.3) as store:
            for call in (store.get("a"), store.transact((), [Put("a", b"")])):
                with pytest.raises(StoreFault, match=r"^The store.*\.$"):
                    await call
        server.close()
    async with opened((f"127.0.0.1:{port}", "no-such-host.invalid:1"), "none") as store:
        with pytest.raises(StoreFault, match=r"^The store.*\.$"):
            await store.get("a")


async def test_log_in_and_again_when_the_token_has_run_out() -> None:
    """Tokens that live for a second are renewed unseen, for calls and for watches; a changed password is read anew."""
    etcd = Etcd(1, "--auth-token-ttl", "1")
    try:
        await asyncio.to_thread(etcd.start)
        etcd.ctl("user", "add", "root:secret")
        etcd.ctl("user", "grant-role", "root", "root")
        etcd.ctl("user", "add", "agent:first")
        etcd.ctl("role", "add", "understudy")
        etcd.ctl("role", "grant-permission", "understudy", "--prefix=true", "readwrite", "understudy/shop/")
        etcd.ctl("user", "grant-role", "agent", "understudy")
        etcd.ctl("auth", "enable")
        password = ["first"]
        login = Login("agent", lambda: password[0])
        async with (
            opened(etcd.endpoints, "shop", login=login) as store,
            opened(etcd.endpoints, "shop", login=login) as idle,
        ):
            await idle.transact((), [Put("a", b"")])
            await asyncio.gather(*(store.transact((), [Put(f"k/{n}", b"")]) for n in range(20)))
            base = (await store.list("")).revision
            reader = Reader(store, base)
            reading = asyncio.create_task(reader.run())
            for number in range(3):
                await asyncio.sleep(2.2)
                assert (await store.transact((), [Put("n", str(number).encode())])).committed
            await reader.reaches((await store.list("")).revision)
            assert [change.value for change in reader.changes] == [b"0", b"1", b"2"]
            reading.cancel()
            await asyncio.wait([reading])
            token = idle._client.wire._token
            assert (await idle.transact((), [Put("a", b"")])).committed
            assert idle._client.wire._token != token, "the token did not run out"
        password[0] = "wrong"
        async with opened(etcd.endpoints, "shop", login=login) as store:
            with pytest.raises(StoreFault, match="check the user and the password") as caught:
                await store.get("a")
            assert "wrong" not in str(caught.value)
            password[0] = "first"
            assert await store.get("none") is None
        async with opened(etcd.endpoints, "shop") as store:
            with pytest.raises(StoreFault, match="name a user"):
                await store.transact((), [Put("a", b"")])
        async with opened(etcd.endpoints, "elsewhere", login=login) as store:
            with pytest.raises(StoreFault, match="grant the user"):
                await store.get("a")

        def unreadable() -> str:
            raise Refused("the file /x cannot be read (gone): put the secret there")

        async with opened(etcd.endpoints, "shop", login=Login("agent", unreadable)) as store:
            with pytest.raises(StoreFault, match="put the secret there"):
                await store.get("a")
    finally:
        etcd.remove()


async def test_tls_with_our_own_authority_and_a_client_certificate(tmp_path: Path) -> None:
    """Both sides prove who they are; a wrong authority, no certificate or a lost file is told in a sentence."""
    authority, stranger = trustme.CA(), trustme.CA()
    server, client = authority.issue_cert("127.0.0.1"), authority.issue_cert("agent@understudy")
    for name, blob in {
        "ca": authority.cert_pem,
        "stranger": stranger.cert_pem,
        "server": server.cert_chain_pems[0],
        "server-key": server.private_key_pem,
        "client": client.cert_chain_pems[0],
        "client-key": client.private_key_pem,
    }.items():
        blob.write_to_path(tmp_path / name)
    options = ["--cert-file", "server", "--key-file", "server-key", "--trusted-ca-file", "ca"]
    options = [option if option.startswith("--") else str(tmp_path / option) for option in options]
    etcd = Etcd(1, *options, "--client-cert-auth", scheme="https")
    try:
        etcd.start()
        good = Tls(tmp_path / "ca", tmp_path / "client", tmp_path / "client-key")
        async with opened(etcd.endpoints, "tls", tls=good) as store:
            put = await patiently(store.transact, (), [Put("a", b"1")])
            async with aclosing(store.watch("a", put.revision - 1)) as watch:
                assert (await anext(watch)).value == b"1"
        for tls in (Tls(tmp_path / "stranger", good.certificate, good.key), Tls(good.ca)):
            async with opened(etcd.endpoints, "tls", tls=tls) as store:
                with pytest.raises(StoreFault, match=r"^The store.*\.$"):
                    await store.get("a")
        for tls in (Tls(tmp_path / "none"), Tls(good.ca, good.certificate, tmp_path / "ca")):
            with pytest.raises(StoreFault, match=r"TLS files are of no use.*\.$"):
                await EtcdStore.open(EtcdSettings(etcd.endpoints, "tls", tls=tls))
    finally:
        etcd.remove()
