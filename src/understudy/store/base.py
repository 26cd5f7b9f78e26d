"""The port to the store: small facts by key, with revisions. Adapters beside it; policy in control/.

A store has one revision, rising by one or more with each transaction that changes something; each entry carries the
revision at which it was last changed. A transaction compares entries' revisions and, if all match, changes all of its
keys at once. What every adapter must do alike is in tests/contract/test_store.py; the limits are etcd's defaults.
"""

from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Protocol, runtime_checkable

from understudy.core.errors import Fault

MAX_CHANGES = 127
"""Conditions, and changes, that one transaction may have: one less than etcd takes, whose adapter adds a condition."""

MAX_VALUE_BYTES = 1024 * 1024
"""Of one value, and of all that one transaction writes together."""


class StoreFault(Fault):
    """The store did not answer or could not write."""


class OutcomeUnknown(StoreFault):
    """The answer to a transaction was lost: it may have taken effect, or may yet do so."""


class Replaced(StoreFault):
    """What answers is another store, or an older state of the one we knew (wiped, or restored from a backup).

    Nothing is read from it or written to it; whoever knows what to make of it opens the store anew.
    """


class Compacted(StoreFault):
    """History before the asked revision is gone: list again and watch from the revision of that answer."""


@dataclass(frozen=True, slots=True)
class Item:
    """One fact: its key, its value, and the revision that last changed it."""

    key: str
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class Listing:
    """The items of a prefix in the order of their keys, all as of one revision of the store."""

    items: tuple[Item, ...]
    revision: int


@dataclass(frozen=True, slots=True)
class Expect:
    """A condition: the key was last changed at `revision`; 0 means that it must not exist."""

    key: str
    revision: int


@dataclass(frozen=True, slots=True)
class Put:
    """Set the key."""

    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove the key; removing what is not there is no error and no change."""

    key: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether every condition held (and the changes were made), and the store's revision afterwards."""

    committed: bool
    revision: int


@dataclass(frozen=True, slots=True)
class Change:
    """A key was set (`value`) or removed (None) at `revision`."""

    key: str
    value: bytes | None
    revision: int


class Store(Protocol):
    """Linearizable small facts. Every method raises StoreFault, with a sentence, when the store cannot be relied on."""

    @property
    def incarnation(self) -> str:
        """Which making of the store answered last: another one after a backup was put back. Empty: that cannot be told.

        So what was written in another incarnation may be followed by more, in a future that is lost.
        """
        ...

    async def get(self, key: str) -> Item | None:
        """The newest value of the key."""
        ...

    async def list(self, prefix: str) -> Listing:
        """All keys that begin with the prefix."""
        ...

    async def transact(self, expects: Sequence[Expect], changes: Sequence[Put | Delete]) -> Outcome:
        """All changes if all conditions hold, else none; cancelled or failed, it is still all or none.

        A key may occur in `changes` once (ValueError). Bounds: MAX_CHANGES (ValueError), MAX_VALUE_BYTES (StoreFault).
        """
        ...

    def watch(self, prefix: str, after_revision: int) -> AsyncGenerator[Change, None]:
        """Every change of the prefix after that revision, in order, each once, until the store is closed.

        Changes of one transaction come in its own order. A revision not yet reached is waited for. Raises Compacted
        when the history has been cut off above that revision, also later when the reader is too slow for it.
        """
        ...

    async def close(self) -> None:
        """Let go of what the adapter holds."""
        ...


@runtime_checkable
class Relocatable(Protocol):
    """A store of several members of which one leads, and whose loss costs more than another one's: some stores are."""

    async def lead_away_from(self, addresses: frozenset[str]) -> str:
        """Let a healthy member elsewhere lead if the one on a host with such an address does; that member's address.

        Empty when nothing had to be done, or nothing can be. Raises StoreFault when the store does not let us.
        """
        ...


def check_transaction(expects: Sequence[Expect], changes: Sequence[Put | Delete]) -> None:
    """Refuse, in every adapter alike, what one of them could not do."""
    keys = [change.key for change in changes]
    if len(set(keys)) != len(keys):
        raise ValueError("a key occurs twice in one transaction")
    if not all(keys) or not all(expect.key for expect in expects):
        raise ValueError("a key is empty")
    if max(len(expects), len(keys)) > MAX_CHANGES:
        raise ValueError(f"a transaction has more than {MAX_CHANGES} conditions or changes")
    size_bytes = sum(len(change.value) for change in changes if isinstance(change, Put))
    if size_bytes > MAX_VALUE_BYTES:
        raise StoreFault(
            f"Nothing was stored, because {keys[0]!r} and what goes with it have {size_bytes} bytes and the store "
            f"takes {MAX_VALUE_BYTES} at once; make it smaller."
        )


def newer(history: deque[Change], revision: int) -> list[Change]:
    """The changes after that revision, oldest first; costs no more than there are."""
    newest_first = takewhile(lambda change: change.revision > revision, reversed(history))
    return list(newest_first)[::-1]
