"""What HAProxy is told of a cluster's route, and what of an old worker has to go: text against text."""

from hypothesis import given
from hypothesis import strategies as st
from tests.clusters import ORDERS, A, B, C, route

from understudy.core.routes import ClusterPorts, Seat
from understudy.core.text import Address, Name
from understudy.router import followed
from understudy.router.cluster_orders import closing, opening, stale_sessions

SEATS = tuple(Seat(name, Address("10.0.0.1", 5432), Address("10.0.0.1", 8601)) for name in (A, B, C))
PORTS = ClusterPorts(ORDERS, Address("::", 6432), Address("::", 6433), SEATS, 1000)
NODES = st.sampled_from((A, B, C))


def sessions(*places: tuple[str, str]) -> str:
    """`show sess` of a worker with these frontends and servers."""
    return "".join(
        f"0x{number:x}: proto=tcpv4 src=127.0.0.1:1 fe={frontend} be=any srv={server} ts=00 epoch=0 age=1s\n"
        for number, (frontend, server) in enumerate(places)
    )


@given(write=st.none() | NODES, reads=st.sets(NODES))
def test_every_server_is_told_and_only_those_of_the_route_are_opened(write: Name | None, reads: set[Name]) -> None:
    """Whatever the route, each place is either closed or opened, never both, and at most one takes writes."""
    wanted = route(1, write, *sorted(reads - {write}))
    closed = {line.line.split()[2] for line in closing(PORTS, wanted) if line.line.endswith(" state maint")}
    opened = {line.line.split()[2] for line in opening(PORTS, wanted) if line.line.endswith(" state ready")}
    places = {
        f"orders.{place}" for node in "abc" for place in (f"writer/{node}", f"readers/{node}", f"readers/{node}.last")
    }
    assert closed | opened == places
    assert not closed & opened
    assert [place for place in opened if "writer/" in place] == ([f"orders.writer/{write}"] if write else [])


def test_in_an_old_worker_all_that_is_not_with_the_writer_goes() -> None:
    """Also what has no server yet, for that worker learns of no route; readers stay where they only read."""
    shown = sessions(
        ("orders.write", "a"),
        ("orders.write", "b"),
        ("orders.write", "<none>"),
        ("orders.write", "0.hold"),
        ("orders.read", "a"),
        ("orders.read", "a.last"),
        ("orders.read", "b"),
        ("orders.read", "b.last"),
        ("orders.read", "<none>"),
        ("orders.read", "0.hold"),
        ("orders.read", "c"),
        ("web", "a"),
        ("GLOBAL", "<none>"),
    )
    assert stale_sessions(PORTS, route(2, B, C), shown) == ["0x0", "0x2", "0x3", "0x5", "0x6", "0x8", "0x9"]
    assert stale_sessions(PORTS, route(2, None), shown) == ["0x0", "0x1", "0x2", "0x3", "0x5", "0x7", "0x8", "0x9"]


@given(
    st.dictionaries(
        st.sampled_from((ORDERS, Name("x"))),
        st.builds(route, st.integers(0, 10**9), st.none() | NODES, NODES),
        max_size=2,
    )
)
def test_what_was_followed_reads_back(routes: dict) -> None:
    """The file says exactly which routes were followed."""
    assert followed.from_text(followed.to_text(routes)) == routes
