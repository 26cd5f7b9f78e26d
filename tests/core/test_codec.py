"""Frozen values survive the way to bytes and back, and nothing else is taken for one."""

import ipaddress
import json
import time
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from understudy.control.cluster.beats import beat
from understudy.control.journal import Head, Page
from understudy.control.records import InForce
from understudy.control.view import Version
from understudy.core.codec import FORMAT, Undecodable, decode, encode
from understudy.core.events import Entry, Event, EventKind
from understudy.core.lineage import Branch, Position
from understudy.core.model import PoolService
from understudy.core.objectives import Ledger
from understudy.core.pools import Admin, Hold, PoolRecord
from understudy.core.report import NodeReport, Running
from understudy.core.text import Address, Name, Word

STORED = (PoolRecord, Ledger, Page, Head, InForce, Version, PoolService)
"""Every type that is in the store, and one that has all that types can have."""

SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(max_size=10),
    int: st.integers(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    NoneType: st.none(),
    Address: st.builds(
        Address, st.ip_addresses().map(lambda host: str(ipaddress.ip_address(host))), st.integers(1, 65535)
    ),
}


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of a type, from its annotations alone."""
    if kind in SCALARS:
        return SCALARS[kind]
    if get_origin(kind) in (Union, UnionType):
        return st.one_of(*map(values, get_args(kind)))
    if get_origin(kind) is tuple:
        first, *others = get_args(kind)
        endless = others == [Ellipsis]
        return st.lists(values(first), max_size=3).map(tuple) if endless else st.tuples(*map(values, (first, *others)))
    if issubclass(kind, (Enum, Word)):
        return (
            st.sampled_from(kind) if issubclass(kind, Enum) else st.from_regex(kind.pattern, fullmatch=True).map(kind)
        )
    assert is_dataclass(kind), f"teach this function about {kind}"
    hints = get_type_hints(kind)
    return st.builds(kind, **{member.name: values(hints[member.name]) for member in fields(kind)})


@pytest.mark.parametrize("kind", STORED)
def test_every_stored_type_survives(kind: type) -> None:
    """The value that comes back is equal, of the same types all the way down, and gives the same bytes again."""

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(values(kind))
    def check(value: object) -> None:
        data = encode(value)
        again = decode(kind, data)
        assert again == value
        assert repr(again) == repr(value)
        assert encode(again) == data

    check()


RECORD = PoolRecord(
    Name("web"),
    admin=((Name("w1"), Admin.DRAIN),),
    holds=(Hold(Name("w2"), 1.5, 2, "it answered 7 of 10 requests with 5xx"),),
)


def test_the_bytes_are_canonical_and_legible() -> None:
    """Sorted names, no spaces, plain ASCII; this is what is in the stores out there and may not change by itself."""
    entry = Entry(7, 1.0, Event(EventKind.ENDPOINT_DOWN, "wégone", Name("web"), None, (("n", 1), ("share", 1.0))))
    assert encode(entry) == (
        b'{"format":1,"type":"Entry","value":{"event":{"data":[["n",1],["share",1.0]],"kind":"endpoint.down",'
        b'"reason":"w\\u00e9gone","service":"web","subject":null},"number":7,"wall_s":1.0}}'
    )


def changed(**value: object) -> bytes:
    """The record's bytes with some of its fields replaced; None removes one."""
    envelope = json.loads(encode(RECORD))
    for name, new in value.items():
        if new is None:
            del envelope["value"][name]
        else:
            envelope["value"][name] = new
    return json.dumps(envelope).encode()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "Expecting value"),
        (b"\xff\xfe\x00", "decode"),
        (encode(RECORD)[:-5], "delimiter"),
        (b"[" * 100_000, "recursion"),
        (b"[]", "no format, type and value"),
        (encode(RECORD).replace(b'"format":1', b'"format":2'), "format 2 and this understudy knows 1"),
        (encode(Ledger(0.0)), "it is a 'Ledger'"),
        (changed(service=None), "PoolRecord lacks service"),
        (changed(service="a b"), "service: 'a b' will not do"),
        (changed(service=7), "service: 7 is no text"),
        (changed(failed_over=1), "failed_over: 1 is neither true nor false"),
        (changed(admin=[["w1", "asleep"]]), "admin: 'asleep' is not a valid Admin"),
        (changed(admin=[["w1"]]), "admin: ['w1'] has not 2 items"),
        (changed(admin={}), "admin: {} is no list"),
        (changed(backup_share_percent=1.5), "backup_share_percent: 1.5 is no whole number"),
        (changed(backup_share_percent=True), "backup_share_percent: True is no whole number"),
        (changed(holds=[{"endpoint": "w2", "count": 1, "reason": ""}]), "holds: Hold lacks until_wall_s"),
        (changed(ramp=[1]), "ramp: [1] is no Ramp"),
        (encode(RECORD).replace(b"1.5", b"1e999"), "no finite number"),
        (encode(RECORD).replace(b"1.5", b"NaN"), "NaN is no number"),
    ],
)
def test_anything_else_is_refused_in_one_sentence(data: bytes, why: str) -> None:
    """Corrupt, of another version, of another type, too little: it is said where and why."""
    with pytest.raises(Undecodable) as said:
        decode(PoolRecord, data)
    assert why in str(said.value)
    assert "was left as it is" in str(said.value)
    assert "\n" not in str(said.value)


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_damaged_bytes_never_give_a_traceback(data: st.DataObject) -> None:
    """Any byte of a record may be lost, changed or doubled: it is refused, or is a record all the same."""
    content = bytearray(encode(RECORD))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    with suppress(Undecodable):
        assert isinstance(decode(PoolRecord, bytes(content)), PoolRecord)


def test_records_can_grow_by_fields_with_defaults() -> None:
    """What an older understudy wrote is read, with defaults, and what a newer one did, without what we do not know.

    While agents of both run they understand each other. Another format is refused all the same.
    """
    assert decode(PoolRecord, changed(holds=None)) == PoolRecord(Name("web"), admin=RECORD.admin)
    hold = json.loads(encode(RECORD))["value"]["holds"][0] | {"colour": "red"}
    assert decode(PoolRecord, changed(colour={"red": [1]}, holds=[hold])) == RECORD
    report = NodeReport(Name("a"), 0, "orders-1", 3, Running.UP, Position((Branch("1", 0),), 5))
    newer = encode(report).replace(b'"empty":false', b'"empty":false,"fresh":{"counter":7}')
    older = encode(report).replace(b'"hangs":false,', b"")
    assert len(newer) > len(encode(report)) > len(older)
    for told in (newer, older):
        assert decode(NodeReport, beat(told, 9)) == replace(report, counter=9)
    with pytest.raises(Undecodable, match="use the understudy that wrote it"):
        decode(NodeReport, newer.replace(b'"format":1', b'"format":2'))
    assert FORMAT == 1


@dataclass(frozen=True, slots=True)
class Either:
    """What a field may be one of."""

    fact: int | str | None = None
    part: Branch | Ledger | None = None


def test_what_is_none_of_the_choices_is_refused() -> None:
    """A fact is told by its kind, a part by its name; a type whose choices cannot be told apart is a mistake."""
    for either in (Either(7), Either("7"), Either(), Either(part=Branch("1", 0)), Either(part=Ledger(1.0))):
        assert decode(Either, encode(either)) == either
    good = encode(Either(7))
    with pytest.raises(Undecodable, match="fact: True is none of int, str"):
        decode(Either, good.replace(b":7", b":true"))
    for part in (b"[]", b"{}", b'{"Leaf":{}}', b'{"Branch":{},"Ledger":{}}'):
        with pytest.raises(Undecodable, match="is none of Branch, Ledger"):
            decode(Either, good.replace(b'"part":null', b'"part":' + part))

    @dataclass(frozen=True, slots=True)
    class Unclear:
        one: int | tuple[int, ...]

    with pytest.raises(TypeError, match="cannot tell"):
        encode(Unclear(1))


def test_a_number_that_is_not_finite_is_refused_before_it_is_stored() -> None:
    """Infinity is no JSON; it must not get as far as the store."""
    with pytest.raises(ValueError, match="JSON"):
        encode(Ledger(float("inf")))


@dataclass(frozen=True)
class Odd:
    """A type that the codec cannot know how to write."""

    words: set[str]


def test_a_type_without_a_plan_is_a_mistake_at_once() -> None:
    """Whoever adds a field of a new type hears of it in his first test, not from a user."""
    with pytest.raises(TypeError, match="no plan"):
        encode(Odd({"a"}))


def test_it_is_fast_enough() -> None:
    """A journal of 10 000 entries is read in a blink (some 10 µs an entry; the bound is generous)."""
    event = Event(EventKind.ENDPOINT_DOWN, "w1 is down: connection refused", Name("web"), Name("w1"), (("downs", 1),))
    data = encode(Page(tuple(Entry(number, 1.0, event) for number in range(1000))))
    began_s = time.process_time()
    assert len(decode(Page, data).entries) == 1000
    assert time.process_time() - began_s < 0.5
