"""A right for a limited time, kept under one key of any store and timed by each observer's own clock.

The first part is pure and hands out conditions and changes, so that they can go into a transaction together with
whatever the right is needed for; `LeaseKeeper` sends those that go alone.

Why no two can hold it at once, each by its own clock:
- The holder's deadline is its clock BEFORE a renewal was sent + the duration, and only that renewal's success moves it.
- A contender reads its clock AFTER the answer that first showed it a renewal, so never before that was sent, and takes
  over after the duration (and a little for clocks that go differently fast) by compare-and-swap of that very renewal.
- So either the swap succeeds, and that renewal was the last one and has run out; or a newer one was, and it fails.
Neither a store's sense of time, nor agreeing clocks, nor the state of the network plays a part. Clocks are boot clocks
(CLOCK_BOOTTIME, seconds): they never step, and they go on while the host sleeps.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from understudy.core.codec import decode, encode
from understudy.store.base import Delete, Expect, Item, Outcome, Put, Store

DRIFT = 0.002
"""How much faster an observer's clock may go than the holder's: twice what two clocks slewed apart by NTP do."""


@dataclass(frozen=True, slots=True)
class Lease:
    """What stands in the store. The counter rises with each renewal."""

    owner: str
    epoch: int
    counter: int
    duration_ms: int
    buried: int = 0
    """The revision of the last renewal, in a tombstone: nobody holds the lease, and nobody may take it; 0 otherwise."""

    def __post_init__(self) -> None:
        """Refuse what nobody can have written."""
        if self.duration_ms <= 0 or min(self.epoch, self.counter, self.buried) < 0:
            raise ValueError("its numbers make no lease")


@dataclass(frozen=True, slots=True)
class Claim:
    """A first or further renewal, to be put into a transaction; `sent_s` is the clock before that."""

    lease: Lease
    expect: Expect
    put: Put
    sent_s: float

    def granted(self, revision: int) -> "Held":
        """The transaction was committed at that revision."""
        return Held(self.expect.key, self.lease, revision, self.sent_s + self.lease.duration_ms / 1000)


@dataclass(frozen=True, slots=True)
class Held:
    """The lease in its holder's hands. `deadline_s` is by the holder's clock."""

    key: str
    lease: Lease
    revision: int
    deadline_s: float

    def valid(self, now_s: float) -> bool:
        """Whether the holder may still act on it."""
        return now_s < self.deadline_s

    def guard(self) -> Expect:
        """The condition for a transaction that only the holder may make."""
        return Expect(self.key, self.revision)

    def renew(self, now_s: float) -> Claim:
        """The next renewal, to be sent after `now_s`."""
        return _claim(self.guard(), replace(self.lease, counter=self.lease.counter + 1), now_s)

    def resign(self) -> tuple[Expect, Delete]:
        """Give it back. What it was held for must have ended before."""
        return self.guard(), Delete(self.key)

    def recognise(self, item: Item | None) -> "Held | None":
        """Our own renewal whose answer was lost, if the store has it; the deadline is not moved by it."""
        if item is None:
            return None
        found = decode(Lease, item.value)
        if found != replace(self.lease, counter=self.lease.counter + 1):
            return None
        return replace(self, lease=found, revision=item.revision)


@dataclass(frozen=True, slots=True)
class LeaseSight:
    """What one observer saw last, and since when: `since_s` is its clock after the first answer that showed just this.

    lease None and revision 0: there is no such key.
    """

    key: str
    lease: Lease | None
    revision: int
    since_s: float

    def quiet_s(self, now_s: float) -> float:
        """For how long nothing has moved."""
        return now_s - self.since_s

    def expired(self, now_s: float) -> bool:
        """Whether the last renewal that was seen has run out for certain, once a swap has proved that it was the last.

        Never true of a key that is not there: that says nothing of who may hold what. See `take_over`.
        """
        return self.lease is not None and self.quiet_s(now_s) >= self.lease.duration_ms / 1000 * (1 + DRIFT)

    def guard(self) -> Expect:
        """The condition that nothing has moved since."""
        return Expect(self.key, self.revision)

    def take_over(self, owner: str, epoch: int, duration_ms: int, now_s: float) -> Claim | None:
        """Take it when nobody has it or it has run out; None when it is held or buried."""
        if self.lease is None:
            return _claim(self.guard(), Lease(owner, epoch, 1, duration_ms), now_s)
        if self.lease.buried or not self.expired(now_s):
            return None
        return _claim(self.guard(), Lease(owner, epoch, self.lease.counter + 1, duration_ms), now_s)

    def resume(self, owner: str, epoch: int, now_s: float) -> Claim | None:
        """Go on with a lease of our own that was handed to us or outlived our restart; None when it is not ours."""
        if self.lease is None or self.lease.buried or (self.lease.owner, self.lease.epoch) != (owner, epoch):
            return None
        return _claim(self.guard(), replace(self.lease, counter=self.lease.counter + 1), now_s)

    def bury(self, epoch: int, duration_ms: int) -> tuple[Expect, Put]:
        """End it, under a new epoch: no renewal succeeds any more. duration_ms: to wait if there is none to be seen.

        `expired` of what is seen then tells when the last holder's deadline has passed; who wrote this goes on with its
        own sight (`see`), and so does everybody who saw the last renewal.
        """
        if self.lease is None:
            tombstone = Lease("", epoch, 0, duration_ms, buried=1)
        else:
            tombstone = replace(self.lease, epoch=epoch, buried=self.lease.buried or self.revision)
        return self.guard(), Put(self.key, encode(tombstone))

    def hand_out(self, owner: str, epoch: int, duration_ms: int) -> tuple[Expect, Put]:
        """Give it to that owner, who holds it once he has renewed it himself (`resume`)."""
        return self.guard(), Put(self.key, encode(Lease(owner, epoch, 0, duration_ms)))


def see(before: LeaseSight | None, key: str, item: Item | None, now_s: float) -> LeaseSight:
    """What is seen now; `now_s` is the clock after the answer. Undecodable when the entry is no lease."""
    if item is None:
        if before and before.lease is None:
            return before
        return LeaseSight(key, None, 0, now_s)
    lease = decode(Lease, item.value)
    if before and (before.revision, before.lease) == (item.revision, lease):
        return before
    known = before is not None and lease.buried > 0 and _buries(lease, before)
    return LeaseSight(key, lease, item.revision, before.since_s if before and known else now_s)


def _buries(tombstone: Lease, before: LeaseSight) -> bool:
    """Whether the tombstone lies on just what was seen before: that sight was of the last renewal."""
    if before.lease is None:
        return tombstone.counter == 0 and tombstone.owner == ""
    return tombstone.buried in (before.revision, before.lease.buried)


def _claim(expect: Expect, lease: Lease, now_s: float) -> Claim:
    return Claim(lease, expect, Put(expect.key, encode(lease)), now_s)


class LeaseKeeper:
    """One candidate for one lease: looks, takes, renews, gives back. Every method raises StoreFault as the store does.

    owner must be another for each process that could hold it besides this one. `read_clock_s` is the boot clock.
    """

    def __init__(self, store: Store, key: str, owner: str, read_clock_s: Callable[[], float]) -> None:
        self.held: Held | None = None
        self.sight: LeaseSight | None = None
        self._store = store
        self._key = key
        self._owner = owner
        self._read_clock_s = read_clock_s

    def valid(self) -> bool:
        """Whether we hold it now."""
        return self.held is not None and self.held.valid(self._read_clock_s())

    async def look(self) -> LeaseSight:
        """See what stands there."""
        item = await self._store.get(self._key)
        self.sight = see(self.sight, self._key, item, self._read_clock_s())
        return self.sight

    async def acquire(self, epoch: int, duration_ms: int) -> bool:
        """Take it if it is free, run out by our own sight, or ours already; False when another has it."""
        sight = await self.look()
        now_s = self._read_clock_s()
        claim = sight.resume(self._owner, epoch, now_s) or sight.take_over(self._owner, epoch, duration_ms, now_s)
        return claim is not None and await self._send(claim)

    async def resume(self, epoch: int) -> bool:
        """Take it only if it is ours: handed to us, or left from before a restart."""
        sight = await self.look()
        claim = sight.resume(self._owner, epoch, self._read_clock_s())
        return claim is not None and await self._send(claim)

    async def renew(self) -> bool:
        """Move the deadline; False when the lease is lost to us.

        After a StoreFault the deadline stands where it was; call again, whatever became of the renewal.
        """
        if self.held is None:
            return False
        if await self._send(self.held.renew(self._read_clock_s())):
            return True
        self.held = self.held.recognise(await self._store.get(self._key))
        return self.held is not None and await self._send(self.held.renew(self._read_clock_s()))

    async def resign(self) -> None:
        """Give it back, if we have it. What it was held for must have ended before."""
        held, self.held = self.held, None
        if held:
            expect, delete = held.resign()
            await self._store.transact([expect], [delete])

    def note(self, claim: Claim, outcome: Outcome) -> bool:
        """Take in how a transaction went that a claim of ours was part of; whether the lease is ours by it."""
        if outcome.committed:
            self.held = claim.granted(outcome.revision)
        return outcome.committed

    async def _send(self, claim: Claim) -> bool:
        return self.note(claim, await self._store.transact([claim.expect], [claim.put]))
