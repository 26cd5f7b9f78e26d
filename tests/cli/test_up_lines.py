"""What `up` shows, over a fake agent: the ready line, the journal, patience, and signals."""

import asyncio
import os
import signal
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tests.api.fake_operator import STARTED_WALL_S, FakeOperator, endpoint, service

from understudy.cli import up as verb
from understudy.core.cluster import ClusterService
from understudy.core.errors import Fault, Refused
from understudy.core.events import EventKind
from understudy.core.model import Address, Host, Kind, Spec
from understudy.core.objectives import ServiceHealth
from understudy.core.pools import Oper
from understudy.core.stateful import PostgresService
from understudy.core.text import Name

SPEC = Spec(Name("shop"), ())


async def ready_line_of(operator):
    return verb.ready_line(await operator.status(), SPEC)


async def test_the_ready_line_says_where_to_point_a_browser():
    """Each service with an address that works from here, its endpoints counted; many services are not all named."""
    half = (endpoint("a"), endpoint("b", Oper.DOWN), endpoint("c", Oper.STARTING))
    operator = FakeOperator(
        services=(
            service(listen="0.0.0.0:80", endpoints=(endpoint("w1"),)),
            service("db", listen="[::]:5432", kind=Kind.TCP, endpoints=half),
            *(service(f"more{number}") for number in range(3)),
        )
    )
    assert await ready_line_of(operator) == (
        "ready: web on http://127.0.0.1:80/ (1 of 1 endpoint up), db on tcp://[::1]:5432 (2 of 3 endpoints up), "
        "more0 on http://127.0.0.1:8080/ (2 of 2 endpoints up) and 2 more services; "
        "API and metrics on http://127.0.0.1:8600; Ctrl-C ends it"
    )


def test_who_wants_to_enter_a_cluster_is_told_how():
    """A line to be copied: where the password is, and an address that works from here."""
    service = PostgresService(ClusterService(Name("orders"), ()), Address("0.0.0.0", 7432), None, ())
    assert verb.entry_line(service, SPEC, Path("/state")) == (
        "to enter orders: PGPASSFILE=/state/orders.pgpass psql -h 127.0.0.1 -p 7432 -U postgres postgres"
    )


async def test_a_host_without_a_router_points_to_one_that_has_it():
    """Of several hosts one may run HAProxy: all the others say where that is, and that they end alone."""
    hosts = (Host(Name("h1"), "10.0.0.1"), Host(Name("h2"), "10.0.0.2"))
    spec = replace(SPEC, hosts=hosts, routers=(Name("h2"),))
    operator = FakeOperator(services=(service(listen="0.0.0.0:80", endpoints=(endpoint("w1"),)),))
    line = verb.ready_line(await operator.status(), spec)
    assert line.startswith("ready: web on http://10.0.0.2:80/ (")
    assert line.endswith("Ctrl-C ends the agent alone")
    cluster = PostgresService(ClusterService(Name("orders"), ()), Address("0.0.0.0", 7432), None, ())
    assert " -h 10.0.0.2 -p 7432 " in verb.entry_line(cluster, spec, Path("/state"))


def live(operator, on_line, monkeypatch, during_start=None):
    """Run `up` over the operator; `on_line` sees each line. Answers whether the agent was closed properly."""
    closed = []

    @asynccontextmanager
    async def opener(_spec, _directory):
        try:
            if during_start:
                await during_start()
            yield operator
        finally:
            await asyncio.sleep(0.01)
            closed.append(True)

    monkeypatch.setattr(verb, "_say", on_line)
    verb.up(SPEC, Path("/nowhere"), opener)
    return closed == [True]


def test_only_this_agents_journal_is_shown_and_a_fault_ends_nothing(monkeypatch):
    """Entries from before the start stay away; when the journal cannot be read, it is told once and read on later."""
    monkeypatch.setattr(verb, "SHOW_AGAIN_S", 0.01)
    operator, lines = FakeOperator(), []
    operator.entries = []
    old = operator.note(EventKind.AGENT_STOPPED, "yesterday")
    operator.entries[0] = replace(old, wall_s=STARTED_WALL_S - 5)
    operator.note(EventKind.AGENT_STARTED, "the agent started")
    follow = operator.follow
    faults = [Fault("the disk is full"), Fault("the disk is full")]

    async def faulty(after):
        if len(faults) == 1:
            raise faults.pop()
        async for entry in follow(after):
            yield entry
            if faults:
                raise faults.pop()

    operator.follow = faulty

    def on_line(line):
        lines.append(line)
        if "disk is full" in line:
            operator.note(EventKind.SERVICE_DOWN, "web is down", "web")
        if "web is down" in line:
            os.kill(os.getpid(), signal.SIGINT)

    assert live(operator, on_line, monkeypatch)
    told = [line for line in lines if not line.startswith("ready")]
    expected = ["the agent started", "the journal cannot be shown: the disk is full", "web is down", "ending what was"]
    assert len(told) == len(expected)
    assert all(part in line for part, line in zip(expected, told, strict=True)), told


def test_it_waits_for_all_then_for_some(monkeypatch):
    """A service that is down is waited for and told once; when patience is over, degraded is ready enough."""
    monkeypatch.setattr(verb, "PATIENCE_S", 0.3)
    operator, lines = FakeOperator(services=(service(health=ServiceHealth.DOWN, reason="web has nobody"),)), []

    def on_line(line):
        lines.append(line)
        if "waiting" in line:
            operator.services = (service(health=ServiceHealth.DEGRADED),)
        if line.startswith("ready"):
            os.kill(os.getpid(), signal.SIGTERM)

    assert live(operator, on_line, monkeypatch)
    assert lines[0] == "still waiting for web (web has nobody)"
    assert lines[1].startswith("ready: web")
    assert len(lines) == 3


def test_a_signal_while_starting_ends_the_start(monkeypatch):
    """Ctrl-C need not wait until a slow start is over, and what was begun is closed."""

    async def slow():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)

    assert live(FakeOperator(), lambda _line: None, monkeypatch, slow)


def test_a_refused_start_is_raised(monkeypatch):
    """A start that cannot be made is the caller's to tell."""

    async def refuse():
        raise Refused("no HAProxy")

    with pytest.raises(Refused, match="no HAProxy"):
        live(FakeOperator(), lambda _line: None, monkeypatch, refuse)
