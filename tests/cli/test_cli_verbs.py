"""The verbs, against the real API over a fake operator: what they print, and how they end."""

import io
import json
import re
from dataclasses import replace

import pytest
from tests.api.fake_operator import FakeOperator, endpoint, service

from understudy.cli.tables import status_view
from understudy.control.view import Progress
from understudy.core.errors import Refused
from understudy.core.events import EventKind
from understudy.core.objectives import Objectives, ServiceHealth
from understudy.core.pools import Admin, Oper

ILL = service(
    "orders",
    ServiceHealth.DEGRADED,
    (
        endpoint("a", weight=4, effective_weight=2, oper=Oper.STARTING, reason="a serves, its share still rising"),
        endpoint("b", oper=Oper.DOWN, check="connection refused", reason="b refuses connections"),
        endpoint("c", oper=Oper.MAINT, held_until_wall_s=1_700_007_212.0, reason="c answered 5 of 6 requests with 500"),
    ),
    reason="orders is degraded: 1 of 3 endpoints can serve",
    objectives=Objectives(0.0, 10.0, 100.0, 0, None, None, 0, 0),
    backup_share_percent=40,
)

PAGE = """\
shop: spec version 3, agent up 2 h, router pid 4711 with 1 worker

web  http on 127.0.0.1:8080  UP
  endpoint  address         state   for  weight  sessions  requests  errors  last check
  w1        127.0.0.1:9001  up     93 s       1         3     1 200       4  answered 200 in 1 ms
  w2        127.0.0.1:9001  up     93 s       1         3     1 200       4  answered 200 in 1 ms
  available 99.950 % of 2 h, 2 failures, MTBF 60 min, MTTR 1.8 s, 1 of 2 400 requests failed

orders  http on 127.0.0.1:8080  DEGRADED  40 % of the traffic on the backup group
  orders is degraded: 1 of 3 endpoints can serve
  endpoint  address         state                for  weight  sessions  requests  errors  last check
  a         127.0.0.1:9001  starting            93 s  2 of 4         3     1 200       4  answered 200 in 1 ms
  b         127.0.0.1:9001  down                93 s       1         3     1 200       4  connection refused
  c         127.0.0.1:9001  ejected, 12 s more  93 s       1         3     1 200       4  answered 200 in 1 ms
  a serves, its share still rising
  b refuses connections
  c answered 5 of 6 requests with 500
  available 100.000 % of 10 s, 0 of 0 requests failed

2 services: 1 up, 1 degraded; `understudy why orders` says more
"""


def test_status_tells_what_is_wrong_and_why(run, operator):
    """Each endpoint has its row; what does not serve has its reason below; figures and a hint close the page."""
    operator.services = (service(), ILL)
    result = run("status")
    assert result.exit_code == 0, result.stderr
    assert [line.rstrip() for line in result.stdout.splitlines()] == PAGE.splitlines()


def test_status_of_a_host_without_a_router(run, operator):
    """There is no process to name there, and none is missing."""
    operator.router = replace(operator.router, pid=0, workers=0)
    assert run("status").stdout.startswith("shop: spec version 3, agent up 2 h, no router on this host\n")


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
async def test_status_fits_any_terminal(width):
    """Names, states and reasons survive on a narrow terminal, and no line is longer than it is wide."""
    from rich.console import Console

    console = Console(width=width, record=True, file=io.StringIO())
    console.print(status_view(await FakeOperator(services=(ILL,)).status(), width))
    lines = console.export_text().splitlines()
    assert all(len(line) <= width for line in lines)
    assert any(re.match(r" +b +.*down", line) for line in lines)
    assert "b refuses connections" in " ".join(" ".join(lines).split())


async def test_many_services_are_told_briefly():
    """With many services most have a line each, and one that is not well has its table wherever it stands."""
    from rich.console import Console

    console = Console(width=100, record=True, file=io.StringIO())
    services = (*(service(f"s{number}") for number in range(60)), ILL)
    console.print(status_view(await FakeOperator(services=services).status(), 100))
    lines = console.export_text().splitlines()
    assert "s59  http on 127.0.0.1:8080  UP  2 endpoints, 99.950 % available" in lines
    assert "  b refuses connections" in lines
    assert sum("endpoint  " in line for line in lines) == 20


def test_reading_verbs_answer_in_json(run, operator):
    """--json is what the API says: the view model, and for events one object a line."""
    operator.note(EventKind.SERVICE_DOWN, "web has no endpoint left", "web")
    operator.note(EventKind.SERVICE_UP, "web serves again", "web")
    assert json.loads(run("status", "--json").stdout)["services"][0]["endpoints"][0]["oper"] == "up"
    lines = run("events", "--json").stdout.splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["service.down", "service.up"]
    assert json.loads(run("why", "web", "--json").stdout)["reasons"][1] == "it would be down if both failed"
    assert json.loads(run("versions", "--json").stdout)[0]["number"] == 3


def test_events_are_sentences(run, operator):
    """An entry is one line with number, time, kind and sentence; nothing in it commands the terminal."""
    operator.note(EventKind.AGENT_STARTED, "the agent started")
    operator.note(EventKind.ENDPOINT_DOWN, "w1 of web is down:\nit said \x1b[2Jboo", "web")
    assert len(run("events").stdout.splitlines()) == 2
    (line,) = run("events", "--service", "web", "-n", "1").stdout.splitlines()
    assert re.fullmatch(
        r" +2  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}  endpoint\.down       w1 of web is down: it said  \[2Jboo", line
    )


def test_following_goes_on_until_the_agent_ends(run, operator):
    """-f prints the newest, then what comes, once each, and says when the agent has ended."""
    for number in range(3):
        operator.note(EventKind.SERVICE_UP, f"fact {number}", "web")
    operator.news.put_nowait(None)
    result = run("events", "-f", "-n", "2")
    assert [line[-6:] for line in result.stdout.splitlines()] == ["fact 1", "fact 2"]
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("argv", "asked", "said"),
    [
        (("failover", "web"), ("failover", "web"), "web moves to its backup group\n"),
        (("failback", "web"), ("failback", "web"), "web moves back to its primary group\n"),
        (("ready", "web", "w1"), ("admin", "web", "w1", Admin.READY), "web/w1 is to be ready\n"),
        (("maint", "web", "w1"), ("admin", "web", "w1", Admin.MAINT), "web/w1 is to be maint\n"),
        (("weight", "web", "w1", "0"), ("weight", "web", "w1", 0), "web/w1 has weight 0 from now on\n"),
    ],
)
def test_orders_reach_the_operator(run, operator, argv, asked, said):
    """An order is handed on, and the sentence of its event is printed."""
    result = run(*argv)
    assert (result.exit_code, result.stdout) == (0, said)
    assert operator.asked == [asked]


def test_plan_apply_rollback(run, operator, tmp_path):
    """Plan tells what would change and whether it reloads; apply and rollback tell what has changed."""
    spec = tmp_path / "new.yaml"
    spec.write_text("cluster: shop")
    planned = run("plan", str(spec)).stdout.splitlines()
    assert planned == ["  web gains endpoint w3", "  reload: web needs more slots"]
    applied = run("apply", str(spec)).stdout.splitlines()
    assert applied == ["  web gains endpoint w3", "no reload was needed", "version 4 is in force (it was 3)"]
    assert run("apply", "--rollback").exit_code == 0
    assert run("apply", "--rollback", "2").exit_code == 0
    assert operator.asked == [
        ("plan", "web", "cluster: shop"),
        ("apply", "web", "cluster: shop"),
        ("rollback", "web", None),
        ("rollback", "web", 2),
    ]


def test_drain_waits_until_it_is_safe_to_stop(run, operator):
    """It orders the drain, tells each change once, and ends when nothing is in flight."""
    operator.drain = [
        Progress(2, safe_to_stop=False, reason="2 sessions are still running"),
        Progress(2, safe_to_stop=False, reason="2 sessions are still running"),
        Progress(1, safe_to_stop=False, reason="1 session is still running"),
        Progress(0, safe_to_stop=True, reason="w1 has no work in flight: it is safe to stop"),
    ]
    result = run("drain", "web", "w1")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "web/w1 is to be drain",
        "2 sessions are still running",
        "1 session is still running",
        "w1 has no work in flight: it is safe to stop",
    ]
    assert operator.asked[0] == ("admin", "web", "w1", Admin.DRAIN)


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_drain_that_is_not_waited_out_stays_in_force(run, operator, monkeypatch, interrupted):
    """When the time is up, or Ctrl-C comes, it says what still runs and that the drain stays."""
    operator.drain = [Progress(3, safe_to_stop=False, reason="3 sessions are still running")]
    if interrupted:
        monkeypatch.setattr("understudy.cli.drain.time.sleep", lambda _s: (_ for _ in ()).throw(KeyboardInterrupt))
    result = run("drain", "web", "w1", *(() if interrupted else ("--timeout", "0.1")))
    assert isinstance(result.exception, Refused)
    assert "3 sessions of web/w1 are still running" in str(result.exception)
    assert "stays in force" in str(result.exception)
    assert ("admin", "web", "w1", Admin.READY) not in operator.asked


@pytest.mark.parametrize(
    "argv",
    [
        ("weight", "web", "w1", "257"),
        ("weight", "web", "w1", "two"),
        ("events", "-n", "0"),
        ("apply",),
        ("apply", "--rollback", "latest"),
        ("status", "--watch", "--json"),
        ("drain", "web", "w1", "--timeout", "-1"),
        ("fly",),
        ("why",),
    ],
)
def test_wrong_usage_is_told_before_anything_is_asked(run, operator, argv):
    """Usage ends with 2, and nothing has reached the agent."""
    result = run(*argv)
    assert result.exit_code == 2
    assert "Usage" in result.stderr
    assert operator.asked == []
