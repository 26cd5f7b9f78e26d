"""What the store holds of one cluster, as this agent has seen it: kept by a watch, each entry with its first sight.

RULES: times are this host's boot clock when an entry was first seen here, never the store's. What was seen stays in
sight while the store is away. Nothing is decoded here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from understudy.control.cluster.beats import content
from understudy.control.cluster.ports import Ports, Work
from understudy.store.base import Delete, Expect, Item, Put, StoreFault

AGAIN_S = 0.2
BACKLOG_S = 1.0
"""What comes so soon after a break may have been written long ago."""


@dataclass(frozen=True, slots=True)
class Sight:
    """An entry as it was seen last; value None: it is not there."""

    key: str
    value: bytes | None
    revision: int
    since_s: float
    content: bytes | None = None
    """The value but for its counter: equal when nothing but time has passed."""

    def item(self) -> Item | None:
        """The entry in the store's own words."""
        return None if self.value is None else Item(self.key, self.value, self.revision)

    def expect(self) -> Expect:
        """The condition that it has not changed since, or still is not there."""
        return Expect(self.key, 0 if self.value is None else self.revision)


class Mirror:
    """The entries of one prefix. `changed` is told of every entry that came, after it is in sight."""

    def __init__(self, ports: Ports, prefix: str, changed: Callable[[Sight | None, Sight], None]) -> None:
        self._store = ports.store
        self._prefix = prefix
        self._clock = ports.clock
        self._spawn = ports.spawn
        self._wake = ports.wake
        self._changed = changed
        self._sights: dict[str, Sight] = {}
        self._there: dict[str, list[str]] = {}
        """By prefix, the keys that are there; forgotten whenever one comes or goes."""
        self._newest = 0
        self._follower: Work | None = None
        self.began_s = 0.0
        """When everything was first in sight."""
        self.contact_s = inf
        """What was first seen after this has just been written; what was seen before may be old, even of a state of the
        store that was put back."""
        self.incarnation = ""
        """Of the store, when it was listed last."""
        self._heard_s = -inf
        self._asked_s = inf
        """When we began to watch."""
        self._gap_s = ports.service.timers.lease_ms / 1000
        self.ready = False
        self.fault = ""
        """Why the store cannot be watched at the moment."""

    def start(self) -> None:
        """Begin to watch, and go on for ever."""
        self._asked_s = min(self._asked_s, self._clock.now().boot_s)
        self._follower = self._spawn(self._follow())

    def stop(self) -> None:
        """Watch no more."""
        if self._follower is not None:
            self._follower.cancel()
            self._follower = None

    def silent_s(self, now_s: float) -> float:
        """For how long nothing has come from the store; what we write ourselves comes too."""
        return max(0.0, now_s - max(self._heard_s, self._asked_s))

    def get(self, key: str) -> Sight:
        """The entry; one that is not there has been missing since we first looked."""
        return self._sights.get(key) or Sight(key, None, 0, self.began_s)

    def under(self, prefix: str) -> list[Sight]:
        """The entries that are there, by the order of their keys."""
        keys = self._there.get(prefix)
        if keys is None:
            found = (key for key, sight in self._sights.items() if key.startswith(prefix) and sight.value is not None)
            keys = self._there[prefix] = sorted(found)
        return [self._sights[key] for key in keys]

    def note(self, change: Put | Delete, revision: int) -> None:
        """Take in what we have written ourselves; the watch brings it again, which changes nothing."""
        self._take(change.key, change.value if isinstance(change, Put) else None, revision)

    async def refresh(self) -> None:
        """Read everything: what was seen may be behind, or the store may have gone back. Raises StoreFault."""
        known = self._newest
        if await self._read() < known and self._follower is not None:
            self.stop()  # the watch waits for a revision that will not come for long
            self.start()

    async def _follow(self) -> None:
        while True:
            try:
                async for change in self._store.watch(self._prefix, await self._read()):
                    self.fault = ""
                    self._take(change.key, change.value, change.revision)
            except StoreFault as fault:
                self.fault = str(fault)
            await self._clock.sleep(AGAIN_S)

    async def _read(self) -> int:
        """List; the revision of the answer.

        Below what the store had shown before we asked, or of another incarnation: it has gone back.
        """
        known, was = self._newest, self.incarnation
        listing = await self._store.list(self._prefix)
        self.incarnation = self._store.incarnation
        back = listing.revision < known or (was not in {"", self.incarnation})
        self._heard(self._clock.now().boot_s, anew=back)
        if not self.ready:
            self.began_s = self._clock.now().boot_s
            self.ready = True
            self._wake()
        self.fault = ""
        there = {item.key for item in listing.items}
        for item in listing.items:
            # what is seen and is not newer than the listing is in it, or was in a history that a backup has replaced
            newer = self.get(item.key).revision > listing.revision
            self._take(item.key, item.value, item.revision, back=back or not newer)
        for key, sight in list(self._sights.items()):
            if key not in there and (back or sight.revision <= listing.revision):
                self._take(key, None, listing.revision, back=back)
        if back:
            self._newest = listing.revision
        # whoever was answered first: a listing has no backlog, what comes now is from after it
        self.contact_s = min(self.contact_s, self._clock.now().boot_s)
        return listing.revision

    def _take(self, key: str, value: bytes | None, revision: int, *, back: bool = False) -> None:
        before = self._sights.get(key)
        if before is not None:
            same = before.value == value and (value is None or before.revision == revision)
            if same or (revision <= before.revision and not back):
                return
        self._newest = max(self._newest, revision)
        if before is None or (before.value is None) != (value is None):
            self._there.clear()
        now_s = self._clock.now().boot_s
        self._heard(now_s)
        sight = self._sights[key] = Sight(key, value, revision, now_s, content(value))
        self._changed(before, sight)

    def _heard(self, now_s: float, *, anew: bool = False) -> None:
        """The store has spoken; contact begins anew after a whole lease of silence, or as it has gone back."""
        if anew or now_s - self._heard_s > self._gap_s:
            self.contact_s = now_s + BACKLOG_S
        self._heard_s = now_s
