"""What is decided and counted, in the store: typed, and written only over what was read.

Each record is saved on condition that it still has the revision at which it was read or last saved. What cannot be read
is refused with a reason, and never overwritten. Names of keys are in keys.py.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from understudy.control import keys
from understudy.control.journal import MAX_BESIDE, TRIMMED_AT_ONCE, Journal
from understudy.core.codec import Undecodable, decode, encode
from understudy.core.errors import Refused
from understudy.core.events import Event
from understudy.core.objectives import Ledger
from understudy.core.pools import PoolRecord
from understudy.core.text import Name
from understudy.store.base import Delete, Expect, Item, Put, Store

AT_ONCE = MAX_BESIDE - TRIMMED_AT_ONCE
"""Records that are saved in one transaction; more go in several, each of them whole."""

NONE: Mapping[Name, Ledger] = {}


@dataclass(frozen=True, slots=True)
class InForce:
    """Which version of the spec the agent has brought into force; 0 before the first."""

    version: int
    change: int = 0
    """How often that has changed: it rises also when an earlier version comes into force again."""

    def then(self, version: int) -> "InForce":
        """That version's turn; the same when it has come already."""
        return self if version == self.version else InForce(version, self.change + 1)


@dataclass(slots=True)
class Loaded:
    """Everything that was stored. `refused` tells, by key, why a record could not be read; it stays as it is."""

    pools: dict[Name, PoolRecord] = field(default_factory=dict)
    ledgers: dict[Name, Ledger] = field(default_factory=dict)
    in_force: InForce = InForce(0)
    """The version of the spec that was brought into force last."""
    refused: dict[str, str] = field(default_factory=dict)


class Records:
    """One agent's access to the records; `load` first, then `save` as often as something changes."""

    def __init__(self, store: Store, journal: Journal) -> None:
        self._store = store
        self._journal = journal
        self._revisions: dict[str, int] = {}
        self._refused: dict[str, str] = {}
        self._doubtful: dict[str, bytes | None] = {}
        """What a transaction of unknown fate would have left under each of its keys."""
        self._turn = asyncio.Lock()

    async def load(self) -> Loaded:
        """Read everything, and begin anew to remember what it was read at. Raises StoreFault."""
        async with self._turn:
            loaded = Loaded()
            prefixes = (keys.POOLS, keys.LEDGERS, keys.IN_FORCE)
            items = [item for prefix in prefixes for item in (await self._store.list(prefix)).items]
            for item in items:
                try:
                    _read_into(loaded, item)
                except (Undecodable, ValueError) as fault:
                    loaded.refused[item.key] = (
                        f"The record {item.key} is not used ({fault}); put a backup of the store in place or delete it."
                    )
            self._revisions = {item.key: item.revision for item in items}
            self._refused = loaded.refused
            self._doubtful = {}
            return loaded

    async def save(
        self,
        pools: Mapping[Name, PoolRecord],
        events: Iterable[Event],
        wall_s: float,
        *,
        ledgers: Mapping[Name, Ledger] = NONE,
        removed: Iterable[Name] = (),
        in_force: InForce | None = None,
    ) -> None:
        """Save records and the events that say why, and forget services that were removed, at once or not at all.

        More than AT_ONCE records go in several transactions, an event with the records of its service. Raises Refused
        when another agent has changed one of the records or one cannot be read (then `load` again), and StoreFault when
        it is unknown whether it was saved: saving again is right in that case.
        """
        changes: list[Put | Delete] = [] if in_force is None else [Put(keys.IN_FORCE, encode(in_force))]
        changes += [Put(keys.pool(service), encode(record)) for service, record in pools.items()]
        changes += [Put(keys.ledger(service), encode(ledger)) for service, ledger in ledgers.items()]
        changes += [Delete(key) for service in removed for key in (keys.pool(service), keys.ledger(service))]
        for change in changes:
            if reason := self._refused.get(change.key):
                raise Refused(reason)
        async with self._turn:
            for part, its_events in _parts(changes, list(events)):
                if part or its_events:
                    await self._save(part, its_events, wall_s)

    async def _save(self, changes: list[Put | Delete], events: list[Event], wall_s: float) -> None:
        await self._settle()
        expects = [Expect(change.key, self._revisions.get(change.key, 0)) for change in changes]
        self._doubtful = {change.key: change.value if isinstance(change, Put) else None for change in changes}
        outcome = await self._journal.commit(expects, changes, events, wall_s=wall_s)
        self._doubtful = {}
        if not outcome.committed:
            what = ", ".join(change.key for change in changes)
            raise Refused(
                f"Nothing was saved of {what}, because another agent has changed it meanwhile; "
                "look at what it is now and order again."
            )
        for change in changes:
            self._revisions[change.key] = outcome.revision if isinstance(change, Put) else 0

    async def _settle(self) -> None:
        """Find out what became of a transaction whose fate is unknown: what is stored as we wanted it is ours."""
        for key, wanted in self._doubtful.items():
            item = await self._store.get(key)
            if (item.value if item else None) == wanted:
                self._revisions[key] = item.revision if item else 0
        self._doubtful = {}


def _parts(changes: list[Put | Delete], events: list[Event]) -> Iterator[tuple[list[Put | Delete], list[Event]]]:
    """As many changes as one transaction takes, with the events of their services; all other events come first."""
    for start in range(0, max(1, len(changes)), AT_ONCE):
        part = changes[start : start + AT_ONCE]
        later = {_service(change.key) for change in changes[start + AT_ONCE :]}
        now = [event for event in events if event.service not in later]
        events = [event for event in events if event.service in later]
        yield part, now


def _service(key: str) -> str:
    return key.rpartition("/")[2]


def _read_into(loaded: Loaded, item: Item) -> None:
    """Put a record where it belongs; raises what says why it cannot be used."""
    if item.key == keys.IN_FORCE:
        loaded.in_force = decode(InForce, item.value)
        return
    service = Name(_service(item.key))
    if item.key == keys.ledger(service):
        loaded.ledgers[service] = decode(Ledger, item.value)
    elif item.key == keys.pool(service):
        record = decode(PoolRecord, item.value)
        if record.service != service:
            raise ValueError(f"it is about {record.service!r}; delete it, or put the right one in its place")
        loaded.pools[service] = record
    else:
        raise ValueError("its key has more than a name; delete it")
