"""What every driver must do alike: the suite of the port `Driver`, on PostgreSQL and on the fake engines.

A driver joins with a `Bench`: three nodes of one cluster on an empty disk each, a way to write, and the accidents.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from tests.contract.postgres_bench import PostgresBench

from understudy.core.actions import (
    Action,
    Bootstrap,
    Close,
    Follow,
    Freeze,
    Open,
    Promote,
    Rebuild,
    Rejoin,
    SetSync,
    Start,
    StopGracefully,
)
from understudy.core.cluster import Node
from understudy.core.errors import Refused
from understudy.core.lineage import contains
from understudy.core.record import SyncConfig
from understudy.core.report import Running
from understudy.core.text import Name
from understudy.drivers.base import Driver, NeedsRebuild, Observation
from understudy.drivers.fake import MARIADB, POSTGRES, REDIS, FakeDriver, FakeEngines, Flavour, LoopWorld, Pace

A, B, C = Name("a"), Name("b"), Name("c")
NOBODY = SyncConfig(frozenset(), 0)
ANY_ONE = SyncConfig(frozenset({B, C}), 1)
PATIENCE_S = 20.0
DEADLINE_MS = 60_000


class FakeBench:
    """The fake engines, in real time but fast."""

    def __init__(self, flavour: Flavour) -> None:
        self.world = LoopWorld()
        nodes = tuple(Node(name, Name(f"h-{name}")) for name in (A, B, C))
        pace = Pace(0.0002, 0.0002, 0.002, 0.002, 0.001, 0.001, 0.005)
        self.engines = FakeEngines(nodes, flavour, self.world, pace)
        self.acked: list[str] = []
        self.engines.on_ack = lambda _engine, write: self.acked.append(write.id)
        self._drivers = {name: FakeDriver(self.engines, name) for name in (A, B, C)}

    def driver(self, name: Name) -> Driver:
        return self._drivers[name]

    async def write(self, name: Name, text: str, *, in_vain: bool = False) -> bool:
        """Whether the write was acknowledged; within a moment, where it should not be."""
        if self.engines[name].write(text) is None:
            return False
        turns = 10 if in_vain else 10_000  # turns and not time: this process may be the one that is late
        while turns and text not in self.acked:
            turns -= 1
            await asyncio.sleep(0.002)
        return text in self.acked

    async def cluster(self, rule: SyncConfig) -> None:
        """A leads b and c."""
        hand = Hand(self)
        await hand.do(Bootstrap, A)
        await hand.do(Start, A)
        await hand.do(Promote, A, sync=rule)
        for name in (B, C):
            await hand.do(Rebuild, name, source=A, since=1, consent=False)
            await hand.do(Follow, name, source=A)
        await hand.until(A, lambda seen: seen.covered)
        await hand.do(Open, A)

    async def history(self, name: Name) -> tuple[str, ...]:
        return self.engines[name].history()

    async def kill(self, name: Name) -> None:
        self.engines[name].kill()

    def cut(self, name: Name) -> None:
        others = [Name(f"h-{one}") for one in (A, B, C) if one != name]
        for other in others:
            self.world.cuts |= {(Name(f"h-{name}"), other), (other, Name(f"h-{name}"))}
        self.engines.network_changed()

    def heal(self) -> None:
        self.world.cuts.clear()
        self.engines.network_changed()


class Hand:
    """Gives orders as an agent would."""

    def __init__(self, bench: FakeBench | PostgresBench) -> None:
        self.bench = bench
        self.zero_loss = bench.driver(A).capabilities.zero_loss_commit
        self.sync = ANY_ONE if self.zero_loss else NOBODY

    async def do(self, kind: type[Action], name: Name, epoch: int = 1, **words) -> None:
        await self.bench.driver(name).perform(kind(name, "born-1", epoch, DEADLINE_MS, **words))

    async def see(self, name: Name) -> Observation:
        return await self.bench.driver(name).observe()

    async def until(self, name: Name, condition) -> Observation:
        async with asyncio.timeout(PATIENCE_S):
            while not condition(seen := await self.see(name)):  # noqa: ASYNC110  engines are looked at, they do not tell all
                await asyncio.sleep(0.002)
        return seen

    async def lead(self, name: Name, epoch: int, sync: SyncConfig) -> None:
        await self.do(Promote, name, epoch, sync=sync)
        await self.until(name, lambda seen: seen.covered)
        await self.do(Open, name, epoch)

    async def cluster(self) -> None:
        """A leads b and c."""
        await self.bench.cluster(self.sync)


@pytest.fixture(params=[POSTGRES, REDIS, MARIADB, "PostgreSQL"], ids=lambda one: getattr(one, "name", one))
async def hand(request) -> AsyncIterator[Hand]:
    if isinstance(request.param, Flavour):
        yield Hand(FakeBench(request.param))
        return
    bench = PostgresBench(await asyncio.to_thread(request.getfixturevalue, "stopped_cluster"))
    await bench.begin()
    try:
        yield Hand(bench)
    finally:
        await bench.end()


async def test_empty(hand: Hand) -> None:
    """An empty node is dead, says that it is empty, and is not started."""
    seen = await hand.see(A)
    assert (seen.running, seen.empty, seen.position) == (Running.DEAD, True, None)
    with pytest.raises(Refused):
        await hand.do(Start, A)


async def test_start_is_non_writable(hand: Hand) -> None:
    """What was made first starts non-writable; only promotion and opening let a write in; made data is never remade."""
    await hand.do(Bootstrap, A)
    with pytest.raises(Refused):
        await hand.do(Bootstrap, A)
    await hand.do(Start, A)
    seen = await hand.see(A)
    assert (seen.running, seen.writable, seen.promoted_epoch) == (Running.UP, False, 0)
    await hand.do(Promote, A, sync=NOBODY)
    assert not await hand.bench.write(A, "too early", in_vain=True)
    assert (await hand.see(A)).promoted_epoch == 1
    await hand.do(Open, A)
    assert await hand.bench.write(A, "w1")


async def test_standbys_get_everything(hand: Hand) -> None:
    """What is acknowledged reaches the standbys, whose position then contains the primary's, on a fresh link."""
    await hand.cluster()
    assert await hand.bench.write(A, "w1")
    here = (await hand.see(A)).position
    for name in (B, C):
        seen = await hand.until(name, lambda seen: seen.position is not None and contains(seen.position, here))
        assert (seen.streaming_from, seen.writable) == (A, False)
        await hand.until(name, lambda seen: seen.link_age_ms is not None and seen.link_age_ms < 1000)


async def test_every_action_twice(hand: Hand) -> None:
    """Each action done again ends the same."""
    await hand.cluster()
    before = await hand.see(A)
    await hand.do(Promote, A, sync=hand.sync)
    await hand.do(SetSync, A, sync=hand.sync)
    await hand.do(Open, A)
    await hand.do(Start, A)
    await hand.until(A, lambda seen: replace(seen, position=before.position) == before)
    for _ in range(2):
        await hand.do(Follow, B, source=A)
    for _ in range(2):
        await hand.do(Freeze, C, 2)
    for _ in range(2):
        await hand.do(Close, A, 2)
    assert (await hand.see(A)).running is Running.DEAD
    await hand.do(Freeze, A, 2)
    assert (await hand.see(A)).running is Running.DEAD, "a closed node stays dead"


async def test_sync_quorum(hand: Hand) -> None:
    """In zero-loss mode nothing is acknowledged without enough standbys; with one of two it goes on."""
    if not hand.zero_loss:
        await hand.do(Bootstrap, A)
        await hand.do(Start, A)
        with pytest.raises(Refused):
            await hand.do(Promote, A, sync=ANY_ONE)
        return
    await hand.cluster()
    await hand.do(Close, B, 2)
    assert await hand.bench.write(A, "one is left")
    await hand.do(Close, C, 2)
    assert not await hand.bench.write(A, "none is left", in_vain=True)
    await hand.until(A, lambda seen: seen.starved)


async def test_frozen_acknowledges_nothing(hand: Hand) -> None:
    """Frozen standbys no longer acknowledge, and have what was acknowledged before; the position does not move."""
    await hand.cluster()
    assert await hand.bench.write(A, "before")
    for name in (B, C):
        await hand.do(Freeze, name, 2)
    still = [(await hand.see(name)).position for name in (B, C)]
    acked = await hand.bench.write(A, "after", in_vain=hand.zero_loss)
    assert acked is not hand.zero_loss
    assert [(await hand.see(name)).position for name in (B, C)] == still
    if hand.zero_loss:
        async with asyncio.timeout(PATIENCE_S):  # what it has flushed it may yet have to replay
            while not any(["before" in await hand.bench.history(name) for name in (B, C)]):  # noqa: ASYNC110  engines are looked at
                await asyncio.sleep(0.02)


async def test_failover_and_rejoin(hand: Hand) -> None:
    """The old primary, with a tail of its own, comes back as a standby of the new one, or says that it cannot."""
    await hand.cluster()
    assert await hand.bench.write(A, "kept")
    await asyncio.sleep(0.01)
    for name in (B, C):
        await hand.do(Freeze, name, 2)
    await hand.bench.write(A, "tail", in_vain=True)
    await hand.do(Close, A, 2)
    await hand.do(Promote, B, 2, sync=NOBODY)
    await hand.do(Open, B, 2)
    assert await hand.bench.write(B, "new")
    try:
        await hand.do(Rejoin, A, 2, source=B)
    except NeedsRebuild:
        await hand.do(Rebuild, A, 2, source=B, since=2, consent=False)
        await hand.do(Follow, A, 2, source=B)
    there = (await hand.see(B)).position
    await hand.until(A, lambda seen: seen.position is not None and contains(seen.position, there))
    assert "tail" not in await hand.bench.history(A)
    assert not (await hand.see(A)).writable


async def test_forked_is_not_followed_silently(hand: Hand) -> None:
    """Positions of two promotions from the same point are told apart."""
    await hand.cluster()
    for name in (B, C):
        await hand.do(Freeze, name, 2)
    await hand.do(Promote, B, 2, sync=NOBODY)
    await hand.do(Promote, C, 3, sync=NOBODY)
    await hand.do(Open, B, 2)
    await hand.bench.write(B, "only here")
    ours = (await hand.until(B, lambda seen: seen.position is not None)).position
    theirs = (await hand.until(C, lambda seen: seen.position is not None)).position
    assert not contains(theirs, ours)


async def test_clean_stop(hand: Hand) -> None:
    """A graceful stop leaves the standbys with everything, and says so; a kill does not claim it."""
    await hand.cluster()
    for number in range(5):
        await hand.bench.write(A, f"w{number}")
    await hand.do(StopGracefully, A)
    seen = await hand.see(A)
    assert (seen.running, seen.clean_stop) == (Running.DEAD, True)
    for name in (B, C):
        there = await hand.until(name, lambda seen: seen.position is not None)
        assert contains(there.position, seen.position)
    await hand.bench.kill(B)
    assert not (await hand.until(B, lambda seen: seen.running is Running.DEAD)).clean_stop


async def test_restart_is_no_primary(hand: Hand) -> None:
    """A primary that crashed comes back as nobody's primary, whatever it was."""
    await hand.cluster()
    await hand.bench.kill(A)
    await hand.until(A, lambda seen: seen.running is Running.DEAD)
    await hand.do(Start, A)
    seen = await hand.until(A, lambda seen: seen.position is not None)
    assert (seen.running, seen.promoted_epoch, seen.writable) == (Running.UP, 0, False)


async def test_link_age(hand: Hand) -> None:
    """A cut link is heard of, ages, and keeps the name of whom it followed; healed, it streams again by itself."""
    await hand.cluster()
    await hand.until(B, lambda seen: seen.streaming_from == A)
    news: list[None] = []
    hand.bench.driver(B).listen(lambda: news.append(None))
    hand.bench.cut(A)
    seen = await hand.until(B, lambda seen: news and (seen.link_age_ms or 0) >= 20)
    assert seen.streaming_from == A
    hand.bench.heal()
    await hand.until(B, lambda seen: seen.link_age_ms is not None and seen.link_age_ms < 20)
    assert await hand.bench.write(A, "again")


async def test_cancelled_anywhere(hand: Hand) -> None:
    """An action that is cut short at any point can be done again."""
    await hand.cluster()
    wait_s = 0.0
    while wait_s < 0.012:
        wait_s += 0.001
        for kind, words in ((Rebuild, {"source": A, "since": 2, "consent": False}), (Follow, {"source": A})):
            work = asyncio.ensure_future(hand.do(kind, B, **words))
            await asyncio.sleep(wait_s)
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            assert not (await hand.see(B)).writable
    await hand.do(Rebuild, B, source=A, since=3, consent=False)
    await hand.do(Follow, B, source=A)
    assert await hand.bench.write(A, "last")
    here = (await hand.see(A)).position
    await hand.until(B, lambda seen: seen.position is not None and contains(seen.position, here))


@pytest.mark.parametrize("dead", [False, True])
async def test_who_has_more_of_the_old_history_does_not_follow(hand: Hand, dead: bool) -> None:
    """What a standby alone heard of the old primary is no acknowledgement to the new one; it rejoins, without it."""
    await hand.cluster()
    await hand.do(Freeze, B, 2)
    await hand.bench.write(A, "tail", in_vain=True)
    had = (await hand.see(A)).position
    assert had is not None
    await hand.until(C, lambda seen: seen.position is not None and contains(seen.position, had))
    await hand.do(Close, A, 2)
    if dead:
        await hand.bench.kill(C)
    start = (await hand.until(B, lambda seen: seen.position is not None)).position
    await hand.do(Promote, B, 2, sync=SyncConfig(frozenset({C}), 1) if hand.zero_loss else NOBODY)
    if hand.zero_loss:  # others throw away by themselves what is their own
        with pytest.raises(Refused):
            await hand.do(Follow, C, 2, source=B, start=start)
        await asyncio.sleep(0.3)
        assert ((await hand.see(C)).streaming_from, (await hand.see(B)).covered) == (None, False)
    try:
        await hand.do(Rejoin, C, 2, source=B)
    except NeedsRebuild:
        await hand.do(Rebuild, C, 2, source=B, since=2, consent=False)
        await hand.do(Follow, C, 2, source=B)
    await hand.until(B, lambda seen: seen.covered)
    assert "tail" not in await hand.bench.history(C)
