"""The pure parts of the etcd adapter: what is said, what errors mean, which member, whether it is the same store."""

import json
from base64 import b64decode, b64encode
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.store.base import Change, Delete, Expect, Put
from understudy.store.etcd_copies import ends_its_conditions
from understudy.store.etcd_endpoints import Endpoints, Sighting
from understudy.store.etcd_faults import Kind, classify, refused, unknown
from understudy.store.etcd_leader import choice
from understudy.store.etcd_messages import (
    Answer,
    Entry,
    Header,
    Heard,
    Layout,
    Nonsense,
    Seat,
    answer,
    change,
    heard,
    read_prefix,
    token,
    transaction,
)

LAYOUT = Layout("shop")
HEADER = {"cluster_id": "7", "member_id": "1", "revision": "12", "raft_term": "2"}


def text(data: bytes) -> str:
    return b64encode(data).decode()


def test_a_transaction_as_etcd_wants_it() -> None:
    """Base64 keys below the cluster's prefix, numbers as strings, the identity first among the conditions."""
    operations = [change(LAYOUT, Put("a", b"\x00")), change(LAYOUT, Delete("b"))]
    assert transaction(LAYOUT, b"me", [Expect("a", 2**60)], operations) == {
        "compare": [
            {"key": text(b"understudy/shop/identity"), "target": "VALUE", "result": "EQUAL", "value": text(b"me")},
            {
                "key": text(b"understudy/shop/facts/a"),
                "target": "MOD",
                "result": "EQUAL",
                "mod_revision": "1152921504606846976",
            },
        ],
        "success": [
            {"request_put": {"key": text(b"understudy/shop/facts/a"), "value": text(b"\x00")}},
            {"request_delete_range": {"key": text(b"understudy/shop/facts/b")}},
        ],
        "failure": [{"request_range": {"key": text(b"understudy/shop/identity")}}],
    }


KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)


@given(KEYS, KEYS, st.booleans())
def test_a_prefix_is_the_range_of_all_keys_that_begin_with_it(prefix: str, key: str, joined: bool) -> None:
    """No key more and none less, whatever characters it ends with."""
    key = prefix + key if joined else key
    asked = read_prefix(LAYOUT.fact(prefix))["request_range"]
    inside = b64decode(asked["key"]) <= LAYOUT.fact(key) < b64decode(asked["range_end"])
    assert inside is key.startswith(prefix)
    assert LAYOUT.key(LAYOUT.fact(key)) == key


def test_answers_are_understood_with_everything_that_etcd_leaves_out() -> None:
    """Zero, false and empty are absent; reads come in their order, writes are no reads."""
    entry = {"key": text(b"k"), "create_revision": "3", "mod_revision": "9", "version": "1"}
    said = {
        "header": HEADER,
        "succeeded": True,
        "responses": [
            {"response_put": {"header": {"revision": "12"}}},
            {"response_range": {"header": {"revision": "12"}}},
            {"response_range": {"header": {"revision": "12"}, "kvs": [entry, entry | {"value": "dg=="}], "count": "2"}},
        ],
    }
    reads = ((), (Entry(b"k", b"", 9), Entry(b"k", b"v", 9)))
    assert answer(said) == Answer(Header("7", 12), succeeded=True, reads=reads)
    assert answer({"header": HEADER}) == Answer(Header("7", 12), succeeded=False, reads=())


def test_lines_of_a_watch_are_understood() -> None:
    """Changes, a word without any, the beginning, an end with and without a compaction, an error."""
    key = text(b"understudy/shop/facts/a")
    events = [
        {"kv": {"key": key, "mod_revision": "5", "value": "dg=="}},
        {"type": "DELETE", "kv": {"key": key, "mod_revision": "6"}},
    ]
    changes = (Change("a", b"v", 5), Change("a", None, 6))
    assert heard(LAYOUT, {"result": {"header": HEADER, "events": events}}) == Heard("7", changes, revision=6)
    assert heard(LAYOUT, {"result": {"header": HEADER}}) == Heard("7", revision=12)
    assert heard(LAYOUT, {"result": {"header": HEADER, "created": True}}) == Heard("7")
    ended = heard(LAYOUT, {"result": {"header": HEADER, "canceled": True, "compact_revision": "8"}})
    assert ended.compacted == 8
    refused = {"header": HEADER, "created": True, "canceled": True, "cancel_reason": "permission denied"}
    assert heard(LAYOUT, {"result": refused}) == Heard("7", refusal="permission denied")
    assert heard(LAYOUT, {"error": {"grpc_code": 14, "message": "no leader"}}).refusal == "no leader"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["header", "result", "error", "responses", "response_range", "kvs", "events", "kv", "key"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_nonsense_is_called_so(said: object) -> None:
    """Whatever JSON comes: understood or Nonsense, never another error."""
    for understand in (answer, token, lambda said: heard(LAYOUT, said)):
        with suppress(Nonsense):
            understand(json.loads(json.dumps(said)))


@pytest.mark.parametrize(
    ("http_status", "code", "said", "kind"),
    [
        (401, 16, "etcdserver: invalid auth token", Kind.TOKEN),
        (400, 3, "etcdserver: revision of auth store is old", Kind.TOKEN),
        (403, 7, "etcdserver: permission denied", Kind.REFUSED),
        (429, 8, "etcdserver: mvcc: database space exceeded", Kind.REFUSED),
        (400, 3, "etcdserver: some new complaint about an argument", Kind.REFUSED),
        (429, 8, "etcdserver: too many requests", Kind.UNSENT),
        (503, 14, "etcdserver: no leader", Kind.LEADERLESS),
        (404, 0, "Not Found", Kind.UNSENT),
        (503, 14, "etcdserver: request timed out", Kind.LOST),
        (503, 14, "etcdserver: leader changed", Kind.LED_ANEW),
        (503, 14, "etcdserver: request timed out, possibly due to connection lost", Kind.LOST),
        (500, 13, "panic", Kind.LOST),
        (500, 2, "context canceled", Kind.LOST),
        (502, 0, "<html>Bad Gateway</html>", Kind.LOST),
    ],
)
def test_what_an_error_means_for_the_request(http_status: int, code: int, said: str, kind: Kind) -> None:
    """Only what certainly took no effect is called so; whatever is not known counts as lost."""
    trouble = classify("http://e:2379", http_status, code, said)
    assert trouble.kind is kind
    for sentence in (refused(trouble), unknown(trouble)):
        assert sentence.endswith(".")
        assert ".;" not in sentence


def test_the_member_in_use_stays_until_it_fails() -> None:
    """A failure of another one moves nothing; the turn goes round."""
    endpoints = Endpoints(("a", "b", "c"))
    endpoints.failed("b")
    assert endpoints.current == "a"
    endpoints.failed("a")
    endpoints.failed("a")
    assert endpoints.in_turn() == ("b", "c", "a")
    assert endpoints.after("c") == "a"
    endpoints.failed("b")
    endpoints.failed("c")
    assert endpoints.current == "a"


def test_a_store_is_the_same_if_nothing_contradicts() -> None:
    """Cluster id, mark and revision must all fit what was known when the question was sent."""
    sight = Sighting("7", b"me", 100)
    assert sight.contradiction(Header("7", 100), b"me") is None
    assert sight.seen(120).contradiction(Header("7", 119), b"me") == "it had revision 120 and has 119"
    assert sight.seen(90) == sight
    assert "cluster id" in (sight.contradiction(Header("8", 500), b"me") or "")
    assert "gone" in (sight.contradiction(Header("7", 500), None) or "")
    assert "another mark" in (sight.contradiction(Header("7", 500), b"you") or "")


def test_who_may_lead_in_place_of_the_leader() -> None:
    """Nobody when it is elsewhere already; never one that is behind, unwell, of another etcd, or on such a host too."""

    def seat(member: str, **more) -> Seat:
        return replace(Seat(member, "1", "c", 5000, well=True), **more)

    one, two, three = "http://10.0.0.1:2379", "http://10.0.0.2:2379", "http://[fd00::3]:2379"
    seats = {one: seat("1"), two: seat("2"), three: seat("3")}
    assert choice(seats, frozenset({"10.0.0.1"})) == (one, two)
    assert choice(seats, frozenset({"10.0.0.1", "10.0.0.2"})) == (one, three)
    assert choice(seats, frozenset({"10.0.0.1", "10.0.0.2", "fd00::3"})) is None
    assert choice(seats, frozenset({"10.0.0.2"})) is None
    for unfit in ({"well": False}, {"cluster_id": "d"}, {"applied": 3000}, {"leader": "2"}):
        assert choice({one: seat("1"), two: seat("2", **unfit)}, frozenset({"10.0.0.1"})) is None


@pytest.mark.parametrize(
    ("expects", "changes", "ends"),
    [
        ([Expect("a", 7)], [Put("a", b"")], True),
        ([Expect("a", 7), Expect("b", 0)], [Put("b", b""), Delete("a")], True),
        ([Expect("a", 7)], [Put("b", b"")], False),
        ([Expect("a", 0)], [Put("a", b"")], False),
        ([], [Put("a", b"")], False),
    ],
)
def test_what_may_be_sent_twice(expects: list[Expect], changes: list[Put | Delete], ends: bool) -> None:
    """Only what can never take effect a second time: it changes an entry that it expects as it was."""
    assert ends_its_conditions(expects, changes) is ends
