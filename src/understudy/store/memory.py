"""The store in memory: for tests and simulation, with a switch that makes it fail. Nothing outlives the process."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from enum import Enum, auto

from understudy.store.base import (
    Change,
    Compacted,
    Delete,
    Expect,
    Item,
    Listing,
    Outcome,
    OutcomeUnknown,
    Put,
    StoreFault,
    check_transaction,
    newer,
)

HISTORY_CHANGES = 10_000


class Trouble(Enum):
    """How the store fails at the moment."""

    NONE = auto()
    AWAY = auto()
    """Nothing is answered and nothing takes effect."""
    ANSWER_LOST = auto()
    """Transactions take effect, and whoever asked for them hears of a failure; all else works."""


class MemoryStore:
    """Fulfils the port `Store`; keeps the newest `history_changes` changes for watchers."""

    def __init__(self, history_changes: int = HISTORY_CHANGES) -> None:
        self._items: dict[str, Item] = {}
        self._history: deque[Change] = deque()
        self._history_changes = history_changes
        self._revision = 0
        self._compacted = 0
        self._trouble = Trouble.NONE
        self._closed = False
        self._bells: dict[asyncio.Event, None] = {}
        """In the order in which they came: a test must go the same way every time."""

    def set_trouble(self, trouble: Trouble) -> None:
        """Begin or end an outage; those who watch hear of it at once."""
        self._trouble = trouble
        self._ring()

    @property
    def incarnation(self) -> str:
        """Nobody puts back a backup of it."""
        return ""

    async def get(self, key: str) -> Item | None:
        """The newest value of the key."""
        await self._answer()
        return self._items.get(key)

    async def list(self, prefix: str) -> Listing:
        """All keys that begin with the prefix."""
        await self._answer()
        found = sorted(key for key in self._items if key.startswith(prefix))
        return Listing(tuple(self._items[key] for key in found), self._revision)

    async def transact(self, expects: Sequence[Expect], changes: Sequence[Put | Delete]) -> Outcome:
        """All changes if all conditions hold, else none."""
        check_transaction(expects, changes)
        await self._answer()
        outcome = self._transact(expects, changes)
        if self._trouble is Trouble.ANSWER_LOST:
            raise OutcomeUnknown(
                "The store's answer was lost, so whether the transaction took effect is unknown; look again."
            )
        return outcome

    def _transact(self, expects: Sequence[Expect], changes: Sequence[Put | Delete]) -> Outcome:
        if any(self._revision_of(expect.key) != expect.revision for expect in expects):
            return Outcome(committed=False, revision=self._revision)
        real = [change for change in changes if isinstance(change, Put) or change.key in self._items]
        if real:
            self._revision += 1
        for change in real:
            if isinstance(change, Put):
                self._items[change.key] = Item(change.key, change.value, self._revision)
                self._history.append(Change(change.key, change.value, self._revision))
            else:
                del self._items[change.key]
                self._history.append(Change(change.key, None, self._revision))
        self._compact()
        self._ring()
        return Outcome(committed=True, revision=self._revision)

    def _revision_of(self, key: str) -> int:
        item = self._items.get(key)
        return item.revision if item else 0

    def _compact(self) -> None:
        """Forget the oldest revisions, each as a whole, but never the newest one."""
        while len(self._history) > self._history_changes and self._history[0].revision < self._revision:
            self._compacted = self._history[0].revision
            while self._history[0].revision == self._compacted:
                self._history.popleft()

    async def watch(self, prefix: str, after_revision: int) -> AsyncGenerator[Change, None]:
        """Every change of the prefix after that revision, in order, each once, until the store is closed."""
        bell = asyncio.Event()
        self._bells[bell] = None
        try:
            seen = after_revision
            while not self._closed:
                bell.clear()
                self._refuse_trouble()
                if seen < self._compacted:
                    raise Compacted(f"The store has no history after revision {seen} any more; list again.")
                fresh = newer(self._history, seen)
                seen = max(seen, self._revision)
                for change in fresh:
                    if change.key.startswith(prefix):
                        yield change
                await bell.wait()
        finally:
            del self._bells[bell]

    async def close(self) -> None:
        """End those who watch; whatever is asked afterwards is refused."""
        self._closed = True
        self._ring()

    async def _answer(self) -> None:
        """Give others their turn, as every real store does, then answer or fail."""
        await asyncio.sleep(0)
        if self._closed:
            raise StoreFault("The store is closed; open it again.")
        self._refuse_trouble()

    def _refuse_trouble(self) -> None:
        if self._trouble is Trouble.AWAY:
            raise StoreFault("The store does not answer; it was told to in a test.")

    def _ring(self) -> None:
        for bell in self._bells:
            bell.set()
