"""The lease: never two holders at once, each by its own clock, whatever clocks, network and store do."""

import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from tests.store.etcd import shared

from understudy.control.clock import FakeClock
from understudy.core.codec import Undecodable, encode
from understudy.store.base import Expect, Item, OutcomeUnknown, Put, Store, StoreFault
from understudy.store.etcd import EtcdSettings, EtcdStore
from understudy.store.lease import DRIFT, Claim, Held, Lease, LeaseKeeper, LeaseSight, see
from understudy.store.memory import MemoryStore, Trouble
from understudy.store.sqlite import SqliteStore

KEY = "clusters/orders/steward"
LEASE_MS = 4000


@dataclass(frozen=True)
class Impostor:
    """Another type, well encoded."""

    owner: str
    epoch: int


class Lossy:
    """A store that does the next transaction, or not, and loses its answer."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.lose: bool | None = None
        self.get = store.get

    async def transact(self, expects, changes):
        lose, self.lose = self.lose, None
        if lose is None:
            return await self.store.transact(expects, changes)
        if lose:
            await self.store.transact(expects, changes)
        raise OutcomeUnknown("The answer was lost.")


@pytest.fixture(params=["memory", "sqlite", "etcd", "etcd-3"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store
    if request.param == "memory":
        made = MemoryStore()
    elif request.param == "sqlite":
        made = await SqliteStore.open(tmp_path / "store.db")
    else:
        etcd = shared(3 if request.param == "etcd-3" else 1)
        name = Path(tempfile.mktemp(prefix="lease")).name
        made = await EtcdStore.open(EtcdSettings(etcd.endpoints, name, timeout_s=10))
    yield made
    await made.close()


@dataclass
class Actor:
    """A candidate with a clock of its own."""

    keeper: LeaseKeeper
    clock: FakeClock


def actor(store: Store, name: str, boot_s: float) -> Actor:
    clock = FakeClock(boot_s)
    return Actor(LeaseKeeper(store, KEY, name, lambda: clock.now().boot_s), clock)


async def test_a_lease_is_held_until_its_renewals_stop(store: Store) -> None:
    """The second candidate waits out the whole duration by its own clock, though theirs agree on nothing."""
    a, b = actor(store, "a", 5.0), actor(store, "b", 90_000.0)
    assert await a.keeper.acquire(1, LEASE_MS)
    assert a.keeper.held
    assert a.keeper.held.deadline_s == 5.0 + 4
    assert not await b.keeper.acquire(1, LEASE_MS)
    for _ in range(5):
        await a.clock.advance(1)
        await b.clock.advance(3.9)
        assert await a.keeper.renew()
        assert not await b.keeper.acquire(1, LEASE_MS)
    await a.clock.advance(3.999)
    assert a.keeper.valid()
    await a.clock.advance(0.001)
    assert not a.keeper.valid()
    await b.clock.advance(4)
    assert not await b.keeper.acquire(1, LEASE_MS)
    await b.clock.advance(4 * DRIFT)
    assert await b.keeper.acquire(1, LEASE_MS)
    assert not await a.keeper.renew()
    assert a.keeper.held is None
    assert b.keeper.valid()


async def test_what_was_given_back_is_free_at_once(store: Store) -> None:
    """Nobody waits for a lease whose holder resigned, and he holds it no longer."""
    a, b = actor(store, "a", 0.0), actor(store, "b", 0.0)
    await a.keeper.acquire(1, LEASE_MS)
    await a.keeper.resign()
    assert not a.keeper.valid()
    assert await b.keeper.acquire(1, LEASE_MS)
    await a.keeper.resign()
    assert await b.keeper.renew()


@pytest.mark.parametrize("took_effect", [True, False])
async def test_a_renewal_whose_answer_is_lost_moves_nothing_and_hurts_nothing(store: Store, took_effect: bool) -> None:
    """The deadline stays where it was, and the next renewal succeeds, whichever way the lost one went."""
    lossy = Lossy(store)
    a = actor(lossy, "a", 100.0)
    await a.keeper.acquire(1, LEASE_MS)
    assert a.keeper.held
    await a.clock.advance(1)
    for _ in range(2):  # twice: the second one cannot take effect any more
        lossy.lose = took_effect
        with pytest.raises(OutcomeUnknown):
            await a.keeper.renew()
        assert a.keeper.held.deadline_s == 104.0
    await a.clock.advance(1)
    assert await a.keeper.renew()
    assert a.keeper.held.deadline_s == 106.0
    item = await store.get(KEY)
    assert item
    assert item.revision == a.keeper.held.revision


@pytest.mark.parametrize("took_effect", [True, False])
async def test_a_first_claim_whose_answer_is_lost_is_no_right_and_no_obstacle(store: Store, took_effect: bool) -> None:
    """Nothing is held on a guess; asking again gives the lease at once."""
    lossy = Lossy(store)
    a = actor(lossy, "a", 0.0)
    lossy.lose = took_effect
    with pytest.raises(OutcomeUnknown):
        await a.keeper.acquire(1, LEASE_MS)
    assert not a.keeper.valid()
    await a.clock.advance(0.1)
    assert await a.keeper.acquire(1, LEASE_MS)
    assert a.keeper.valid()


async def test_a_paused_holder_holds_nothing_when_it_wakes(store: Store) -> None:
    """Its own clock says so before it has asked anybody; a jump of the wall clock means nothing."""
    a, b = actor(store, "a", 0.0), actor(store, "b", 0.0)
    await a.keeper.acquire(1, LEASE_MS)
    a.clock.step_wall(-86_400)
    assert a.keeper.valid()
    b.clock.step_wall(86_400)
    assert not await b.keeper.acquire(1, LEASE_MS)
    await a.clock.advance(60)
    await b.clock.advance(60)
    assert not a.keeper.valid()
    assert await b.keeper.acquire(1, LEASE_MS)
    assert not await a.keeper.renew()


async def test_a_paused_contender_takes_nothing_that_was_renewed_meanwhile(store: Store) -> None:
    """Its clock went on while it slept, and the swap tells it that its sight is old."""
    a, b = actor(store, "a", 0.0), actor(store, "b", 0.0)
    await a.keeper.acquire(1, LEASE_MS)
    sight = await b.keeper.look()
    await a.clock.advance(1)
    await a.keeper.renew()
    await b.clock.advance(60)
    claim = sight.take_over("b", 1, LEASE_MS, 60.0)
    assert claim
    assert not (await store.transact([claim.expect], [claim.put])).committed
    assert a.keeper.valid()


async def test_a_tombstone_ends_renewals_and_keeps_the_sight_of_who_wrote_it(store: Store) -> None:
    """Written with the record in one transaction; from then on no renewal, resumption or takeover.

    The wait goes on from the last renewal for whoever saw it, and is a whole one for a fresh steward; then the
    winner is handed the lease.
    """
    a = actor(store, "a", 0.0)
    await a.keeper.acquire(1, LEASE_MS)
    first, second, fresh = (actor(store, name, 1000.0) for name in ("s1", "s2", "s3"))
    sight = await first.keeper.look()
    await second.keeper.look()
    await first.clock.advance(3)
    await second.clock.advance(3)
    expect, tombstone = sight.bury(2, LEASE_MS)
    assert (await store.transact([expect, Expect("record", 0)], [tombstone, Put("record", b"fencing")])).committed
    assert not await a.keeper.renew()
    assert not await a.keeper.resume(1)
    assert not await a.keeper.resume(2)
    assert not await a.keeper.acquire(2, LEASE_MS)
    for steward, wait_s in ((first, 1.0), (second, 1.0), (fresh, 4.0)):
        assert not (await steward.keeper.look()).expired(steward.clock.now().boot_s)
        await steward.clock.advance(wait_s + 4 * DRIFT)
        assert (await steward.keeper.look()).expired(steward.clock.now().boot_s)
        assert not await steward.keeper.acquire(2, LEASE_MS)
    again, deeper = (await first.keeper.look()).bury(3, LEASE_MS)
    assert (await store.transact([again], [deeper])).committed
    assert (await first.keeper.look()).expired(first.clock.now().boot_s)
    expect, handed = (await first.keeper.look()).hand_out("b", 3, LEASE_MS)
    await store.transact([expect], [handed])
    b = actor(store, "b", 7.0)
    assert not b.keeper.valid()
    assert not await b.keeper.resume(2)
    assert await b.keeper.resume(3)
    assert b.keeper.valid()
    assert not (await first.keeper.look()).expired(first.clock.now().boot_s)


async def test_an_absent_lease_proves_nothing_until_it_was_absent_for_a_whole_duration(store: Store) -> None:
    """A store that lost it may have a holder somewhere: burying what is not there starts the wait."""
    steward = actor(store, "s", 0.0)
    sight = await steward.keeper.look()
    assert not sight.expired(1e9)
    expect, tombstone = sight.bury(5, LEASE_MS)
    assert (await store.transact([expect], [tombstone])).committed
    await steward.clock.advance(3.9)
    assert not (await steward.keeper.look()).expired(steward.clock.now().boot_s)
    await steward.clock.advance(0.2)
    assert (await steward.keeper.look()).expired(steward.clock.now().boot_s)


async def test_a_record_is_written_only_by_who_holds_the_lease(store: Store) -> None:
    """The guard and a renewal go into the record's transaction; who has lost the lease changes nothing."""
    a, b = actor(store, "a", 0.0), actor(store, "b", 0.0)
    await a.keeper.acquire(1, LEASE_MS)
    assert a.keeper.held
    old = a.keeper.held
    await a.clock.advance(1)
    claim = old.renew(a.clock.now().boot_s)
    assert a.keeper.note(claim, await store.transact([claim.expect], [claim.put, Put("record", b"1")]))
    assert a.keeper.held.deadline_s == 5.0
    assert not (await store.transact([old.guard()], [Put("record", b"old")])).committed
    assert (await store.transact([a.keeper.held.guard()], [Put("record", b"2")])).committed
    await b.keeper.look()
    await b.clock.advance(10)
    assert await b.keeper.acquire(2, LEASE_MS)
    assert not (await store.transact([a.keeper.held.guard()], [Put("record", b"3")])).committed
    stale = a.keeper.held.renew(a.clock.now().boot_s)
    assert not a.keeper.note(stale, await store.transact([stale.expect], [stale.put, Put("record", b"4")]))


async def test_what_is_no_lease_is_refused_and_left_alone(store: Store) -> None:
    """Corrupt, foreign or impossible entries are told in a sentence; nothing is overwritten."""
    good = encode(Lease("a", 1, 1, LEASE_MS))
    a = actor(store, "a", 0.0)
    for bad in (b"", b"\xff", b"{}", good[:-1], good.replace(b"4000", b"-400"), encode(Impostor("a", 1))):
        await store.transact((), [Put(KEY, bad)])
        for call in (a.keeper.acquire, a.keeper.resume):
            with pytest.raises(Undecodable, match="left as it is"):
                await call(*((1, LEASE_MS) if call == a.keeper.acquire else (1,)))
        item = await store.get(KEY)
        assert item
        assert item.value == bad


async def test_an_outage_moves_no_deadline() -> None:
    """While the store is away the lease simply runs out; afterwards it can be renewed if nobody took it."""
    store = MemoryStore()
    a = actor(store, "a", 0.0)
    await a.keeper.acquire(1, LEASE_MS)
    store.set_trouble(Trouble.AWAY)
    for _ in range(5):
        await a.clock.advance(1)
        with pytest.raises(StoreFault):
            await a.keeper.renew()
    assert not a.keeper.valid()
    store.set_trouble(Trouble.NONE)
    assert await a.keeper.renew()
    assert a.keeper.valid()


@dataclass
class Candidate:
    """One side of the property below: everything it does may be held up, lost or come late."""

    name: str
    rate: float
    offset_s: float
    sight: LeaseSight | None = None
    held: Held | None = None
    read: Item | None = None
    reading: bool = False
    asked_s: float = 0.0
    flying: list[Claim] = field(default_factory=list)
    landed: list[tuple[Claim, int | None]] = field(default_factory=list)

    def clock_s(self, true_s: float) -> float:
        return self.offset_s + true_s * self.rate

    def valid(self, true_s: float) -> bool:
        return self.held is not None and self.held.valid(self.clock_s(true_s))


class World:
    """A store of one key, true time, and candidates."""

    def __init__(self, rates: list[float]) -> None:
        self.true_s = 0.0
        self.item: Item | None = None
        self.revision = 0
        self.held_by: set[str] = set()
        self.candidates = [Candidate(str(n), rate, 1000.0 * n) for n, rate in enumerate(rates)]

    def play(self, steps: list[tuple[str, int, float]]) -> bool:
        """Whether two ever held it at once; checked at the end of each step, and just before the time moves."""
        for action, number, passed_s in steps:
            self.true_s += passed_s
            getattr(self, action)(self.candidates[number])
            holders = [candidate.name for candidate in self.candidates if candidate.valid(self.true_s)]
            self.held_by.update(holders)
            if len(holders) > 1:
                return True
        return False

    def send(self, who: Candidate) -> None:
        """Renew, or take over, by what is known now; the request is on its way."""
        now_s = who.clock_s(self.true_s)
        if who.held:
            who.flying.append(who.held.renew(now_s))
        elif who.sight:
            claim = who.sight.resume(who.name, 1, now_s) or who.sight.take_over(who.name, 1, LEASE_MS, now_s)
            if claim:
                who.flying.append(claim)

    def arrive(self, who: Candidate) -> None:
        """The store does a request, in no particular order."""
        if not who.flying:
            return
        claim = who.flying.pop()
        won = claim.expect.revision == (self.item.revision if self.item else 0)
        if won:
            self.revision += 1
            self.item = Item(KEY, claim.put.value, self.revision)
        who.landed.append((claim, self.revision if won else None))

    def answer(self, who: Candidate) -> None:
        """An answer comes, maybe late."""
        if not who.landed:
            return
        claim, revision = who.landed.pop()
        if revision and (who.held is None or who.held.revision < revision):
            who.held = claim.granted(revision)
        elif who.held and revision is None:
            who.held = who.held.recognise(self.item)

    def lose(self, who: Candidate) -> None:
        """All answers under way are lost, and what flies is forgotten by who sent it, though it may arrive."""
        who.landed.clear()

    def renew(self, who: Candidate) -> None:
        """A request that nothing hinders."""
        self.send(who)
        self.arrive(who)
        self.answer(who)

    def observe(self, who: Candidate) -> None:
        """A look that nothing hinders."""
        self.read(who)
        self.look(who)

    def read(self, who: Candidate) -> None:
        """The store reads for a look."""
        who.read, who.reading = self.item, True

    def look(self, who: Candidate) -> None:
        """The answer of a look comes, maybe late; the clock is read then."""
        if who.reading:
            who.sight, who.reading = see(who.sight, KEY, who.read, who.clock_s(self.true_s)), False

    def restart(self, who: Candidate) -> None:
        """The process dies and comes back with nothing; its requests may still arrive, their answers reach nobody."""
        who.held = who.sight = None
        who.reading = False
        who.landed.clear()


ACTIONS = ("renew", "observe", "send", "arrive", "answer", "read", "look", "lose", "restart")
PASSED_S = (0.0, 0.05, 1.0, 3.95, 4.05)
STEPS = st.lists(st.sampled_from(list(product(ACTIONS, (0, 1), PASSED_S))), min_size=30, max_size=60)
RATES = st.lists(st.sampled_from([0.9995, 1.0, 1.0005]), min_size=2, max_size=2)
STORIES = settings(max_examples=1500, deadline=None)
SEARCH = settings(max_examples=20_000, deadline=None, database=None, phases=[Phase.generate])


@STORIES
@given(STEPS, RATES)
def test_never_two_valid_holders(steps: list[tuple[str, int, float]], rates: list[float]) -> None:
    """By their own clocks and at any true moment, whatever is late, lost, reordered, paused or restarted."""
    assert not World(rates).play(steps)


class Steward(World):
    """The second candidate only observes; others, who come and go, end the first one's lease and hand it out again."""

    def play(self, steps: list[tuple[str, int, float]]) -> bool:
        """Whether the first one held it when the steward thought that it had run out."""
        holder, steward = self.candidates
        for action, number, passed_s in steps:
            self.true_s += passed_s
            if number == 0 or action in ("read", "look", "observe", "restart"):
                getattr(self, action)(self.candidates[number])
            elif action == "renew":
                self.write(see(None, KEY, self.item, 0.0).bury(2, LEASE_MS)[1])
            elif action == "send":
                self.write(see(None, KEY, self.item, 0.0).hand_out(holder.name, 1, LEASE_MS)[1])
            sight = steward.sight
            if sight and sight.lease and sight.lease.buried and self.stands(sight):
                gone = sight.expired(steward.clock_s(self.true_s))
                self.held_by.update(["proven"] if gone else [])
                if gone and holder.valid(self.true_s):
                    return True
        return False

    def write(self, put: Put) -> None:
        """By a steward who has just seen for the first time what stands there."""
        self.revision += 1
        self.item = Item(KEY, put.value, self.revision)

    def stands(self, sight: LeaseSight) -> bool:
        return self.item is not None and sight.revision == self.item.revision


@STORIES
@given(STEPS, RATES)
def test_a_buried_lease_that_has_run_out_is_held_by_nobody(
    steps: list[tuple[str, int, float]], rates: list[float]
) -> None:
    """The ground LEASE: whoever's sight of the tombstone has expired may promote."""
    assert not Steward(rates).play(steps)


def test_a_tombstone_on_a_renewal_that_was_not_seen_starts_the_wait_anew() -> None:
    """Only a sight of the very last renewal goes on."""
    seen = see(None, KEY, Item(KEY, encode(Lease("a", 1, 1, LEASE_MS)), 10), 0.0)
    newer = see(None, KEY, Item(KEY, encode(Lease("a", 1, 2, LEASE_MS)), 11), 3.0)
    tombstone = Item(KEY, newer.bury(2, LEASE_MS)[1].value, 12)
    assert see(newer, KEY, tombstone, 5.0).since_s == 3.0
    assert see(seen, KEY, tombstone, 5.0).since_s == 5.0


class DeadlineFromAnswer(World):
    """Counts the duration from when the answer came."""

    def answer(self, who: Candidate) -> None:
        super().answer(who)
        if who.held:
            who.held = replace(who.held, deadline_s=who.clock_s(self.true_s) + LEASE_MS / 1000)


class DeadlineFromGuess(World):
    """Holds it from sending on, before there is an answer."""

    def send(self, who: Candidate) -> None:
        super().send(who)
        if who.flying:
            who.held = who.flying[-1].granted(who.held.revision if who.held else 0)


class SightFromQuestion(World):
    """Reads the clock before the read was sent."""

    def read(self, who: Candidate) -> None:
        if not who.reading:
            who.asked_s, who.reading = who.clock_s(self.true_s), True

    def look(self, who: Candidate) -> None:
        if who.reading:
            who.sight, who.reading = see(who.sight, KEY, self.item, who.asked_s), False


class NoSwap(World):
    """Writes whatever stands there."""

    def arrive(self, who: Candidate) -> None:
        if who.flying:
            revision = self.item.revision if self.item else 0
            who.flying[-1] = replace(who.flying[-1], expect=Expect(KEY, revision))
        super().arrive(who)


class NoWait(World):
    """Takes over at first sight."""

    def look(self, who: Candidate) -> None:
        super().look(who)
        if who.sight:
            who.sight = replace(who.sight, since_s=-1e9)


@pytest.mark.parametrize("wrong", [DeadlineFromAnswer, DeadlineFromGuess, SightFromQuestion, NoSwap, NoWait])
def test_the_property_catches_the_classic_mistakes(wrong: type[World]) -> None:
    """Each of them makes two holders in some story of the same kind (else `find` raises)."""
    assert find(STEPS, lambda steps: wrong([1.0, 1.0]).play(steps), settings=SEARCH)


def test_the_property_reaches_takeovers() -> None:
    """Its stories let one after the other hold it."""

    def both(steps: list[tuple[str, int, float]]) -> bool:
        world = World([1.0, 1.0])
        return not world.play(steps) and len(world.held_by) == 2

    def proven(steps: list[tuple[str, int, float]]) -> bool:
        world = Steward([1.0, 1.0])
        world.play(steps)
        return "proven" in world.held_by

    assert find(STEPS, both, settings=SEARCH)
    assert find(STEPS, proven, settings=SEARCH)
