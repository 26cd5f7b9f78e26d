"""What the spec says of clusters, as the core's own values: timers that hold together, words that are safe."""

from dataclasses import replace

import pytest

from understudy.core.cluster import ClusterService, Node, Timers, refusal
from understudy.core.model import LOCAL, EtcdStore, Host, Spec, SqliteStore
from understudy.core.stateful import overlap
from understudy.core.text import Address, DataPath, Name, RoleName


def test_timers_follow_the_lease():
    """The default lease gives the defaults, and no length of lease gives impossible timers."""
    assert Timers.for_lease(4000) == Timers()
    assert all(Timers.for_lease(lease_ms).faults() == () for lease_ms in range(2000, 60_001, 7))
    assert Timers.for_lease(8000, renew_ms=500).renew_ms == 500


def test_a_spec_that_a_running_agent_must_not_take() -> None:
    """Impossible timers, an older version, other timers, a node that moves: each is refused in its own words."""
    a, b = Node(Name("a"), Name("h1")), Node(Name("b"), Name("h2"))
    now = ClusterService(Name("orders"), (a, b), version=5)
    moved = Node(b.name, Name("h3"))
    assert refusal(now, None) == refusal(now, now) == refusal(replace(now, version=6, nodes=(a,)), now) == ""
    refused = {
        "cannot be kept: every timer must be above zero": (replace(now, timers=Timers(confirm_ms=0)), ()),
        "Version 4 of orders came after version 5": (replace(now, version=4), ()),
        "cannot change while its agent runs": (replace(now, version=6, timers=Timers.for_lease(8000)), ()),
        "b of orders cannot move from h2 to h3": (replace(now, version=6, nodes=(a, moved)), ()),
        "or wait until c has left": (
            replace(now, version=6, nodes=(a, Node(Name("c"), a.host))),
            (Node(Name("c"), b.host),),
        ),
    }
    for words, (spec, known) in refused.items():
        assert words in refusal(spec, now, known)


@pytest.mark.parametrize(
    ("word", "good", "bad"),
    [
        (
            DataPath,
            ["/srv/orders", "orders", "a/b.c/..d", "/var/lib/postgresql/15/main", "a" * 77],
            ["", "/", "a/", "//a", "a//b", "..", "a/../b", "./a", "a/.", "/..", "a b", "a'b", "a%b", "a\nb", "a" * 78],
        ),
        (RoleName, ["postgres", "_a9"], ["", "Postgres", "pg_a", "9a", "a-b", "a b", 'a"b', "a" * 64]),
    ],
)
def test_words_that_enter_an_engines_files(word, good, bad):
    """What is no plain path or name is refused when the value is made."""
    assert [str(word(text)) for text in good] == good
    for text in bad:
        with pytest.raises(ValueError, match="will not do"):
            word(text)


def test_addresses_and_stores_as_they_stand_in_a_sentence():
    """What is no address is refused; a store names itself; on one machine every address is that machine's."""
    v6 = Address.parse("[::1]:80")
    assert str(v6) == "[::1]:80"
    assert v6.overlaps(Address.parse("[::]:80"))
    assert not v6.overlaps(Address.parse("[::1]:81"))
    for text in ("80", "::1:80", "10.0.0.1:http", "10.0.0.256:80", "fe80::1%eth0:80"):
        with pytest.raises(ValueError, match="is no address"):
            Address.parse(text)
    for host, port, words in (("10.0.0.1", 65536, "is not between"), ("0::1", 80, "is no IP address in its shortest")):
        with pytest.raises(ValueError, match=words):
            Address(host, port)
    assert str(SqliteStore()) == "sqlite"
    assert str(EtcdStore((v6, Address("10.0.0.1", 2379)))) == "etcd at [::1]:80, 10.0.0.1:2379"
    spec = Spec(Name("c"), (), ())
    assert (spec.host_of(v6), spec.service("web")) == (LOCAL, None)
    assert replace(spec, hosts=(Host(Name("h1"), "::1"),)).host_of(v6) == "h1"


def test_directories_overlap():
    """The same, or one inside the other; names that only begin alike do not."""
    a, inside, alike = DataPath("/srv/a"), DataPath("/srv/a/b"), DataPath("/srv/ab")
    assert overlap(a, a)
    assert overlap(a, inside)
    assert overlap(inside, a)
    assert not overlap(a, alike)
    assert not overlap(alike, a)
