"""The port to the store: small facts by key, with revisions (DESIGN 3). Adapters beside it; policy in control/.

A store has one revision, rising by one or more with each transaction that changes something; each entry carries the
revision at which it was last changed. A transaction compares entries' revisions and, if all match, changes all of its
keys at once.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from understudy.core.errors import Fault


class StoreFault(Fault):
    """The store did not answer or could not write; whether a transaction took effect may be unknown."""


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

    async def get(self, key: str) -> Item | None:
        """The newest value of the key."""
        ...

    async def list(self, prefix: str) -> Listing:
        """All keys that begin with the prefix."""
        ...

    async def transact(self, expects: Sequence[Expect], changes: Sequence[Put | Delete]) -> Outcome:
        """All changes if all conditions hold, else none. A key may occur in `changes` once."""
        ...

    def watch(self, prefix: str, after_revision: int) -> AsyncIterator[Change]:
        """Every change of the prefix after that revision, in order, each once, until closed; raises Compacted."""
        ...

    async def close(self) -> None:
        """Let go of what the adapter holds."""
        ...
