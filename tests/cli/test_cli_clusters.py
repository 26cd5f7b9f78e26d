"""What people see of clusters on the command line, and how their wishes reach the operator."""

import io

import pytest
from rich.console import Console
from tests.api.fake_operator import FakeOperator, cluster, node

from understudy.cli.tables import status_view
from understudy.control.view import LastFailover, Wish
from understudy.core.cluster_why import NodeHealth
from understudy.core.events import EventKind
from understudy.core.objectives import ServiceHealth
from understudy.core.record import RequestKind

LOST = cluster(
    "orders",
    ServiceHealth.DOWN,
    phase="blocked",
    primary=None,
    nodes=(
        node("a", "closed", health=NodeHealth.DOWN, lag_bytes=None, reason="a is closed."),
        node("b", "frozen", timeline="", position=""),
    ),
    unblock="understudy failover orders --accept-loss",
    reason="orders is blocked: b may lack writes. Unblock with: understudy failover orders --accept-loss",
    last_failover=LastFailover(4, 0.5, 0.4, 0.02, 0.03, 0.01, None, "a was never heard again"),
)

PAGE = """\
orders  postgres, writes on 127.0.0.1:6432, reads on 127.0.0.1:6433  UP
  steady, epoch 3, zero_loss, 1 of the standbys, steward local
  node  role     health  lag_bytes        timeline  host   address          position
  a     primary  up              0        3         local  127.0.0.1:15432  3/4711
  b     standby  up              0  sync  3         local  127.0.0.1:15432  3/4711
  c     standby  up            120  sync  3         local  127.0.0.1:15432  3/4711
  epoch 3 began after 0.15 s (detect 0.01 s, confirm 0.02 s, fence 0.03 s, promote 0.04 s, route 0.05 s);
lost: 0 bytes (everything is there)
"""


def test_status_shows_who_is_what_and_how_far(run, operator):
    """Role, timeline, lag, sync state, and the last failover by its steps."""
    operator.services, operator.clusters = (), (cluster(),)
    result = run("status")
    assert result.exit_code == 0, result.stderr
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    assert lines[2:-2] == PAGE.splitlines()
    assert lines[-1] == "1 service: 1 up"


def test_status_tells_what_a_person_should_change(run, operator):
    """A warning stands below the nodes, though all is up."""
    operator.services, operator.clusters = (), (cluster(warnings=("ALTER SYSTEM on a has set port",)),)
    assert "  ALTER SYSTEM on a has set port." in run("status").stdout


@pytest.mark.parametrize("width", [60, 100, 200])
async def test_a_blocked_cluster_says_what_unblocks_it(width):
    """The reason and the command stand below its name on any terminal."""
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(status_view(await FakeOperator(services=(), clusters=(LOST,)).status(), width))
    text = " ".join(console.export_text().split())
    assert "DOWN" in text
    assert "understudy failover orders --accept-loss" in text
    assert "a is closed." in text


@pytest.mark.parametrize(
    ("argv", "wish"),
    [
        (["switchover", "orders"], Wish(RequestKind.SWITCHOVER)),
        (["switchover", "orders", "b"], Wish(RequestKind.SWITCHOVER, "b")),
        (["failover", "orders", "--accept-loss"], Wish(RequestKind.FAILOVER, accept_loss=True)),
        (["failover", "orders", "--sworn-dead", "a"], Wish(RequestKind.FAILOVER, sworn_dead=("a",))),
        (
            ["failover", "orders", "--sworn-dead", "a", "--sworn-dead", "b", "--accept-loss"],
            Wish(RequestKind.FAILOVER, accept_loss=True, sworn_dead=("a", "b")),
        ),
        (["pause", "orders"], Wish(RequestKind.PAUSE)),
        (["resume", "orders"], Wish(RequestKind.RESUME)),
        (["rebuild", "orders", "c"], Wish(RequestKind.REBUILD, "c")),
    ],
)
def test_wishes_reach_the_operator(run, operator, argv, wish):
    """Each verb is one wish, and its outcome is what is printed."""
    operator.clusters = (cluster(),)
    result = run(*argv)
    assert (result.exit_code, result.stdout) == (0, f"The {wish.kind} of orders is done.\n")
    assert operator.asked == [("ask", "orders", wish)]


def test_what_if_tells_rto_and_rpo(run, operator):
    """For a dead engine and for a lost machine; what nobody can foretell is said in words."""
    result = run("what-if", "orders/a")
    assert operator.asked == [("what_if", "a", "orders")]
    assert result.stdout.splitlines() == [
        "If a's engine died now: b would take over from a after about 0.2 s.",
        "  expected RTO 0.25 s, RPO 0 bytes",
        "If a's machine were lost now: Nobody would take over from a.",
        "  expected RTO a person must decide, RPO not known",
    ]


def test_events_show_prints_the_whole_decision(run, operator):
    """The entry's failover, with its values."""
    operator.note(EventKind.FAILOVER_DONE, "b takes writes after 0.2 s.", "orders", epoch=4, lost_bytes=0)
    result = run("events", "--show", "1")
    assert "b takes writes after 0.2 s." in result.stdout
    assert "    epoch: 4\n    lost_bytes: 0\n" in result.stdout
