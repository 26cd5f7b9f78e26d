"""The versions of the spec, in the store: what was in force when, and why. What a spec means is spec/'s business."""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from understudy.control import keys
from understudy.control.journal import Journal
from understudy.control.records import InForce
from understudy.control.view import Version
from understudy.core.codec import decode, encode
from understudy.core.errors import Refused
from understudy.core.events import Event, EventKind
from understudy.store.base import Delete, Expect, Item, Put, Store

LIMIT = 100
"""Versions that are kept."""


@dataclass(frozen=True, slots=True)
class StoredSpec:
    """A version and its text, as it was written."""

    version: Version
    text: str


class Versions:
    """One agent's access to the versions. Raises StoreFault; Refused for what is not there or cannot be read."""

    def __init__(self, store: Store, journal: Journal) -> None:
        self._store = store
        self._journal = journal

    async def current(self) -> StoredSpec | None:
        """The newest version; None when there is none yet."""
        items = (await self._store.list(keys.VERSIONS)).items
        return await self._complete(decode(Version, items[-1].value)) if items else None

    async def get(self, number: int) -> StoredSpec:
        """The version of that number."""
        item = await self._store.get(keys.version(number))
        if item is None:
            raise Refused(
                f"There is no version {number} of the spec (the last {LIMIT} are kept); list those there are."
            )
        return await self._complete(decode(Version, item.value))

    async def list(self) -> tuple[Version, ...]:
        """All that are kept, newest first."""
        items = (await self._store.list(keys.VERSIONS)).items
        return tuple(decode(Version, item.value) for item in reversed(items))

    async def seed(self, text: str, wall_s: float) -> StoredSpec:
        """The version in force; where there is none yet, this text becomes it, at once or not at all."""
        while True:
            item = await self._store.get(keys.IN_FORCE)
            if item is not None:
                return await self.get(decode(InForce, item.value).version)
            first = Version(1, wall_s, "first start")
            expects = [Expect(keys.IN_FORCE, 0), Expect(keys.version(1), 0)]
            puts = [
                Put(keys.IN_FORCE, encode(InForce(1, 1))),
                Put(keys.version(1), encode(first)),
                Put(keys.version_text(1), zlib.compress(text.encode())),
            ]
            event = Event(EventKind.SPEC_APPLIED, "Version 1 of the spec is in force.", data=(("version", 1),))
            outcome = await self._journal.commit(expects, puts, [event], wall_s=wall_s)
            if not outcome.committed and await self._store.get(keys.IN_FORCE) is None:
                raise Refused(
                    "The store has versions of a spec and none that is in force, so nothing was started; "
                    "put a backup of the store in place, or start with an empty one."
                )

    async def add(
        self, text: str, note: str, *, after: int, wall_s: float, replaced: int = 0, events: Iterable[Event] = ()
    ) -> Version:
        """Store the version that follows `after` (0: the first), with the events that say why, at once or not at all.

        `after` is the version that the new one was planned on: Refused when it is not the newest any more. `replaced`
        is the version that was in force before it.
        """
        items = (await self._store.list(keys.VERSIONS)).items
        newest = decode(Version, items[-1].value).number if items else 0
        version = Version(after + 1, wall_s, note, replaced)
        if newest == after:
            expects = [
                Expect(keys.version(version.number), 0),
                *(Expect(item.key, item.revision) for item in items[-1:]),
            ]
            puts = [
                Put(keys.version(version.number), encode(version)),
                Put(keys.version_text(version.number), zlib.compress(text.encode())),
            ]
            if (await self._journal.commit(expects, [*puts, *_too_old(items)], events, wall_s=wall_s)).committed:
                return version
        raise Refused(
            f"Nothing was applied, because version {after}, on which this was planned, is not the newest any more; "
            "look at the new plan and apply again."
        )

    async def _complete(self, version: Version) -> StoredSpec:
        item = await self._store.get(keys.version_text(version.number))
        try:
            return StoredSpec(version, zlib.decompress(item.value if item else b"").decode())
        except (zlib.error, UnicodeDecodeError) as fault:
            raise Refused(
                f"The text of version {version.number} of the spec cannot be read ({fault}) and was left as it is; "
                "apply a spec from a file."
            ) from None


def _too_old(items: tuple[Item, ...]) -> list[Delete]:
    """What has to go so that one more may come; a few at a time, which is more than come."""
    old = items[: max(0, len(items) + 1 - LIMIT)][:10]
    return [Delete(key) for item in old for key in (item.key, item.key.replace(keys.VERSIONS, keys.TEXTS))]
