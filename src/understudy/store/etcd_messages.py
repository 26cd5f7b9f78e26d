"""What is said to etcd's JSON gateway and what it says back: pure translation, no I/O.

Facts of the gateway: POST only; keys and values are base64; 64-bit numbers are strings, and fields that are zero or
empty are left out; a prefix is a range up to the prefix with its last byte raised by one. A watch answers with one line
of JSON after another. Every request but a watch is a transaction that first compares the store's identity, so that
nothing is read from or written to another store under the same address.
"""

from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from understudy.store.base import Change, Delete, Expect, Item, Put

Json = dict[str, Any]


class Nonsense(ValueError):
    """What was said is no answer of etcd."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the facts of one understudy cluster are in etcd, which other programs may use too."""

    cluster: str

    @property
    def identity(self) -> bytes:
        """The key that tells this store from any other: a random value, written once."""
        return f"understudy/{self.cluster}/identity".encode()

    def fact(self, key: str) -> bytes:
        """The key in etcd of a fact, or of a prefix of facts."""
        return f"understudy/{self.cluster}/facts/{key}".encode()

    def key(self, fact: bytes) -> str:
        """Our key again."""
        return fact.removeprefix(self.fact("")).decode()


@dataclass(frozen=True, slots=True)
class Header:
    """Who answered, and the revision of the store at that time."""

    cluster_id: str
    revision: int


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands under a key of etcd."""

    key: bytes
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class Answer:
    """To a transaction: whether its conditions held, and the entries that each of its reads found."""

    header: Header
    succeeded: bool
    reads: tuple[tuple[Entry, ...], ...]


@dataclass(frozen=True, slots=True)
class Seat:
    """What a member says of itself: its number, its leader's, the etcd cluster's, how far it is, and if all is well."""

    member: str
    leader: str
    cluster_id: str
    applied: int
    well: bool


@dataclass(frozen=True, slots=True)
class Heard:
    """One line of a watch.

    revision: everything up to there has been told; None when the line says nothing of that.
    compacted: the history up to there is gone. refusal: why the watch has ended.
    """

    cluster_id: str
    changes: tuple[Change, ...] = ()
    revision: int | None = None
    compacted: int | None = None
    refusal: str | None = None


def read_one(key: bytes) -> Json:
    """Operation: read one entry."""
    return {"request_range": {"key": _text(key)}}


def read_prefix(prefix: bytes) -> Json:
    """Operation: read all entries that begin with the prefix."""
    return {"request_range": {"key": _text(prefix), "range_end": _text(_after(prefix))}}


def change(layout: Layout, wanted: Put | Delete) -> Json:
    """Operation: one change."""
    key = _text(layout.fact(wanted.key))
    if isinstance(wanted, Put):
        return {"request_put": {"key": key, "value": _text(wanted.value)}}
    return {"request_delete_range": {"key": key}}


def transaction(layout: Layout, identity: bytes, expects: Sequence[Expect], operations: Sequence[Json]) -> Json:
    """The operations if all conditions hold; else the identity is read, to tell a refusal from another store."""
    compares: list[Json] = [
        {"key": _text(layout.identity), "target": "VALUE", "result": "EQUAL", "value": _text(identity)}
    ]
    compares += [
        {
            "key": _text(layout.fact(expect.key)),
            "target": "MOD",
            "result": "EQUAL",
            "mod_revision": str(expect.revision),
        }
        for expect in expects
    ]
    return {"compare": compares, "success": list(operations), "failure": [read_one(layout.identity)]}


def introduction(layout: Layout, identity: bytes) -> Json:
    """Write the identity unless there is one, and read what there is."""
    key = _text(layout.identity)
    return {
        "compare": [{"key": key, "target": "CREATE", "result": "EQUAL", "create_revision": "0"}],
        "success": [{"request_put": {"key": key, "value": _text(identity)}}, read_one(layout.identity)],
        "failure": [read_one(layout.identity)],
    }


def watch(layout: Layout, from_revision: int) -> Json:
    """Every change of a fact from that revision on, itself included, and a word now and then when there is none."""
    key = layout.fact("")
    return {
        "create_request": {
            "key": _text(key),
            "range_end": _text(_after(key)),
            "start_revision": str(from_revision),
            "progress_notify": True,
        }
    }


def answer(said: Json) -> Answer:
    """Understand the answer to a transaction; Nonsense when it is none."""
    with _sense():
        ranges = [each["response_range"] for each in said.get("responses", ()) if "response_range" in each]
        reads = tuple(tuple(_entry(found) for found in each.get("kvs", ())) for each in ranges)
        return Answer(_header(said), bool(said.get("succeeded")), reads)


def token(said: Json) -> str:
    """Understand the answer to a log-in."""
    with _sense():
        return str(said["token"])


def seat(said: Json) -> Seat:
    """Understand a member's status."""
    with _sense():
        well = not said.get("errors") and not said.get("isLearner")
        member, leader = str(said["header"]["member_id"]), str(said.get("leader", "0"))
        return Seat(member, leader, _header(said).cluster_id, int(said.get("raftAppliedIndex", 0)), well)


def transfer(to: Seat) -> Json:
    """Let that member lead; asked of the one that does."""
    return {"targetID": to.member}


def item(layout: Layout, entry: Entry) -> Item:
    """One fact that was read."""
    return Item(layout.key(entry.key), entry.value, entry.revision)


def heard(layout: Layout, said: Json) -> Heard:
    """Understand one line of a watch; Nonsense when it is none."""
    with _sense():
        if "error" in said:
            return Heard("", refusal=str(said["error"].get("message", said["error"])))
        said = said["result"]
        header = _header(said)
        if said.get("canceled"):
            compacted = int(said.get("compact_revision", 0)) or None
            return Heard(
                header.cluster_id, compacted=compacted, refusal=said.get("cancel_reason", "it gives no reason")
            )
        if said.get("created"):
            return Heard(header.cluster_id)
        changes = tuple(_change(layout, event) for event in said.get("events", ()))
        return Heard(header.cluster_id, changes, changes[-1].revision if changes else header.revision)


def _change(layout: Layout, event: Json) -> Change:
    entry = _entry(event["kv"])
    return Change(layout.key(entry.key), None if event.get("type") == "DELETE" else entry.value, entry.revision)


def _entry(found: Json) -> Entry:
    return Entry(b64decode(found["key"]), b64decode(found.get("value", "")), int(found["mod_revision"]))


def _header(said: Json) -> Header:
    header = said["header"]
    return Header(header["cluster_id"], int(header.get("revision", 0)))


@contextmanager
def _sense() -> Iterator[None]:
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise Nonsense(f"not what etcd would say ({error!r})") from error


def _after(prefix: bytes) -> bytes:
    """The first key behind all that begin with the prefix; UTF-8 has no byte 0xff."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


def _text(data: bytes) -> str:
    return b64encode(data).decode()
