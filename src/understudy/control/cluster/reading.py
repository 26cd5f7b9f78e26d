"""Entries of the mirror as values, each decoded once; what cannot be read is refused with a reason and left alone."""

from collections.abc import Callable
from typing import Generic, TypeVar

from understudy.control.cluster.mirror import Mirror, Sight
from understudy.core.codec import Undecodable, decode
from understudy.core.record import ClusterRecord
from understudy.core.text import Name

T = TypeVar("T")


class Reader(Generic[T]):
    """One entry. The value stays the same object as long as its `content` stays the same."""

    def __init__(self, mirror: Mirror, key: str, kind: type[T]) -> None:
        self._mirror = mirror
        self._key = key
        self._kind = kind
        self._read: Sight | None = None
        self._known: bytes | None = None
        self._value: T | None = None
        self.refused = ""
        """Why the entry that is there cannot be used."""

    def sight(self) -> Sight:
        """The entry as it stands."""
        return self._mirror.get(self._key)

    def value(self) -> T | None:
        """What it says; None when it is not there or cannot be read."""
        sight = self._mirror.get(self._key)
        if sight is not self._read:
            self._read = sight
            if sight.content != self._known:
                self._known = sight.content
                self._take(sight)
        return self._value

    def _take(self, sight: Sight) -> None:
        self._value, self.refused = None, ""
        if sight.value is not None:
            try:
                self._value = decode(self._kind, sight.value)
            except Undecodable as fault:
                self.refused = f"{sight.key}: {fault}"


class RecordReader:
    """The record of the cluster: as it stands in the store, and the newest that could be read, which stays in force."""

    def __init__(self, mirror: Mirror, key: str, cluster: Name) -> None:
        self._reader = Reader(mirror, key, ClusterRecord)
        self._cluster = cluster
        self.current: ClusterRecord | None = None
        """As it stands; None when there is none, or none that can be used (then `refused` says why)."""
        self.newest: ClusterRecord | None = None
        """The last one that was of this cluster and could be read."""
        self.highest: ClusterRecord | None = None
        """Of those with that one's identity, the one that was decided last, though the store may have gone back."""
        self.phase_since_s = 0.0
        """When the record was first seen in its phase and epoch."""
        self.refused = ""
        self.foreign = False
        """Whether what stands there is another cluster's, so that the whole store may be."""

    def sight(self) -> Sight:
        """The entry as it stands."""
        return self._reader.sight()

    def read(self, foreign: Callable[[ClusterRecord], str]) -> None:
        """Take in what stands there now; `foreign` says why a record is another cluster's, or nothing."""
        record, before = self._reader.value(), self.current
        self.refused = self._reader.refused
        why = self._why_not(record, foreign) if record is not None else ""
        self.foreign = bool(why)
        if why:
            self.refused, record = f"{self.sight().key} cannot be used: {why}", None
        if record is before:
            return
        self.current = record
        if before is None or record is None or (before.phase, before.epoch) != (record.phase, record.epoch):
            self.phase_since_s = self.sight().since_s
        if record is not None:
            self.newest = record
            high = self.highest
            further = high is None or (record.epoch, record.serial) > (high.epoch, high.serial)
            if high is None or further or high.identity != record.identity:
                self.highest = record

    def _why_not(self, record: ClusterRecord, foreign: Callable[[ClusterRecord], str]) -> str:
        if record.cluster != self._cluster:
            return f"it is the record of {record.cluster}"
        return foreign(record)
