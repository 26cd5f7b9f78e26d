"""The only module that names concrete adapters; it puts the parts together and hands them to the command line.

The parts are loaded when they are needed, so that the verbs that only talk to an agent start at once.
"""

import asyncio
import contextlib
import ctypes
import gc
import hashlib
import hmac
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from understudy.cli.app import main as command_line
from understudy.control.view import Operator
from understudy.core.events import Event, EventKind, Fact
from understudy.core.model import LOCAL, EtcdStore, Spec, SqliteStore, TlsFiles
from understudy.core.stateful import PostgresService
from understudy.core.text import Name

if TYPE_CHECKING:
    from socket import socket

    from fastapi import FastAPI

    from understudy.control.clock import Clock
    from understudy.control.clusters import Engines, Parts
    from understudy.control.state_dir import StateDir
    from understudy.drivers.postgres.rejoin import LossReport
    from understudy.router.base import Router
    from understudy.store.base import Store
    from understudy.store.etcd_wire import Login, Tls

AGENT_LOG = "agent.log"
GARBAGE = (10_000, 50, 100)
"""New objects before the youngest are looked through for cycles, and how often that happens before the older are."""
SWITCH_S = 0.0005
"""How long a thread waits for another one's Python to make room. The store's thread has to at each of some twenty calls
to SQLite, and at Python's own 5 ms an order took 100 ms while the agent looked at a thousand services."""

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8
"""Numbers of glibc's mallopt."""
LARGE_BYTES = 131_072


def main() -> None:
    """Entry point of `understudy`."""
    command_line(lambda host: partial(open_agent, host=host))


@asynccontextmanager
async def open_agent(spec: Spec, state_dir: Path, *, host: Name | None) -> AsyncIterator[Operator]:
    """An agent with its API, running for as long as the block lasts. Raises Refused.

    host None: this is the only machine, and what was started ends with the agent; one of several hosts only lets go.
    The order matters: what can refuse without having touched anything comes first.
    """
    from understudy.api.port import bind
    from understudy.control.agent import Agent
    from understudy.control.clock import SystemClock
    from understudy.control.joining import agree, cluster_key
    from understudy.control.journal import Journal
    from understudy.control.logfile import log_to
    from understudy.control.state_dir import StateDir
    from understudy.control.versions import Versions

    # What a large cluster is made of lives long, and its looks replace each other without a cycle: looking through all
    # of it again and again for garbage would hold up orders for tens of milliseconds.
    gc.set_threshold(*GARBAGE)
    sys.setswitchinterval(SWITCH_S)
    _give_back_memory()
    clock = SystemClock()
    with StateDir(state_dir) as place, closing(bind(spec.api)) as listener, log_to(place.path / AGENT_LOG):
        store = await _open_store(spec, place, host or LOCAL)
        try:
            router = _router(spec, place, host or LOCAL)
            engines = None
            if spec.clusters or spec.hosts:
                key = await cluster_key(store, place.key, clock)
                engines = _engines(spec, place, host or LOCAL, key, router, clock)
            if spec.hosts:
                await agree(spec, Versions(store, Journal(store)), place.agreed, clock)
            async with Agent(spec, place.run, store, router, clock, engines) as agent:
                # Loaded only now, and aside: a primary that waits for its agent is fenced when that takes too long.
                create_app, serving = await asyncio.to_thread(_api)
                async with serving(create_app(agent), listener):
                    gc.collect()
                    gc.freeze()
                    yield agent
        finally:
            await store.close()


def _api() -> "tuple[Callable[[Operator], FastAPI], Callable[[FastAPI, socket], AbstractAsyncContextManager[None]]]":
    from understudy.api.app import create_app
    from understudy.api.server import serving

    return create_app, serving


async def _open_store(spec: Spec, place: "StateDir", host: Name) -> "Store":
    """The store that the spec names; an etcd may be away."""
    from understudy.control.reopening import ReopeningStore
    from understudy.store.etcd import TIMEOUT_S, EtcdSettings
    from understudy.store.etcd import EtcdStore as Etcd
    from understudy.store.sqlite import SqliteStore as Sqlite

    wanted = spec.store
    if isinstance(wanted, SqliteStore):
        return await Sqlite.open(place.store)
    # This host's own member first: it goes when we go. The others from the last on, where the primary rarely is.
    here = next((one.address for one in spec.hosts if one.name == host), "")
    last_first = wanted.endpoints[::-1]
    nearest = sorted(last_first, key=lambda endpoint: endpoint.host != here)
    endpoints = tuple(str(endpoint) for endpoint in nearest)
    # No call may take longer than a cluster's own patience with the store: it would count as lost all the same.
    timeout_s = min([TIMEOUT_S, *(one.cluster.timers.timeout_ms / 1000 for one in spec.clusters)])
    settings = EtcdSettings(endpoints, spec.cluster, _tls(wanted.tls), _login(spec, wanted), timeout_s)
    return ReopeningStore(await Etcd.open(settings), partial(Etcd.open, settings))


def _tls(files: TlsFiles | None) -> "Tls | None":
    from understudy.store.etcd_wire import Tls

    if files is None:
        return None
    shown = (Path(name) if name else None for name in (files.certificate, files.key))
    return Tls(Path(files.ca), *shown)


def _login(spec: Spec, wanted: EtcdStore) -> "Login | None":
    from understudy.spec.secrets import resolve
    from understudy.store.etcd_wire import Login

    if wanted.username is None or wanted.password is None:
        return None
    return Login(wanted.username, partial(resolve, wanted.password, spec.directory, os.environ))


def _router(spec: Spec, place: "StateDir", host: Name) -> "Router":
    """HAProxy, where this host runs a router."""
    from understudy.router.haproxy import HAProxyRouter
    from understudy.router.idle import IdleRouter
    from understudy.router.layout import Layout

    return HAProxyRouter(Layout(place.router)) if host in spec.router_hosts else IdleRouter()


def _engines(  # noqa: PLR0917  # all that engines are put together from
    spec: Spec, place: "StateDir", host: Name, key: bytes, router: "Router", clock: "Clock"
) -> "Engines":
    """What the agent needs for its clusters."""
    from understudy.control.clusters import Engines

    assemble = partial(_assemble, spec, place, host, key, clock)
    keep_password = partial(_keep_password, spec, place, key)
    return Engines(host, assemble, router if host in spec.router_hosts else None, key, keep_password)


def _assemble(  # noqa: PLR0917  # all that a cluster's parts are put together from
    spec: Spec,
    place: "StateDir",
    host: Name,
    key: bytes,
    clock: "Clock",
    service: PostgresService,
    happened: Callable[[Event], Awaitable[None]],
    before: "Parts | None" = None,
) -> "Parts":
    """The nodes of this host, each with driver, guard and memory; those of before stay as they are."""
    from understudy.control.cluster.guarded import GuardedEngine
    from understudy.control.cluster.node_state import FileDisk
    from understudy.control.cluster.ports import OwnNode
    from understudy.control.clusters import EngineParts, Parts
    from understudy.drivers.postgres.claim import Claim
    from understudy.drivers.postgres.driver import CAPABILITIES, PostgresDriver
    from understudy.drivers.postgres.prober import PostgresProber
    from understudy.drivers.postgres.tools import Account

    account = Account.named("postgres") if os.geteuid() == 0 else Account.own()
    password = _superuser_password(spec, service, key)
    kept = {one.name: one for one in before.engines} if before is not None else {}
    engines = []
    for engine in service.nodes:
        if former := kept.get(engine.name):
            former.driver.change(service)
            engines.append(replace(former, own=replace(former.own, node=engine.node)))
        elif engine.node.host == host:
            data, process = place.data(engine.data), GuardedEngine(place.guard(service.name, engine.name), clock)
            driver = PostgresDriver(
                service,
                engine.name,
                data=data,
                process=process,
                account=account,
                password=password,
                discarded=partial(_discarded, service.name, happened),
            )
            own = OwnNode(engine.node, driver, process, FileDisk(data.with_name(f"{data.name}.node")))
            claim = Claim(data, f"node {engine.name} of {spec.cluster}/{service.name}", account)
            engines.append(EngineParts(own, driver, process, claim))
    prober = before.prober if before is not None else PostgresProber(service)
    if isinstance(prober, PostgresProber):
        prober.change(service)
    return Parts(tuple(engines), prober, CAPABILITIES)


async def _discarded(service: Name, happened: Callable[[Event], Awaitable[None]], report: "LossReport") -> None:
    """What a node had beyond its source is out of its data, and saved: the journal says what it was."""
    data: dict[str, Fact] = {
        "epoch": report.epoch,
        "lost_bytes": report.bytes,
        "transactions": len(report.transactions),
        "complete": report.complete,
        "path": report.path,
    }
    event = Event(EventKind.NODE_DISCARDED, f"{report.summary}.", service, Name(report.node), tuple(data.items()))
    await happened(event)


def _keep_password(spec: Spec, place: "StateDir", key: bytes, service: PostgresService) -> None:
    place.keep_password(service.name, service.superuser.name, _superuser_password(spec, service, key))


def _superuser_password(spec: Spec, service: PostgresService, key: bytes) -> str:
    """Where the spec says; else one that every agent of the cluster works out alike."""
    from understudy.spec.secrets import resolve

    if service.superuser.password:
        return resolve(service.superuser.password, spec.directory, os.environ)
    return hmac.new(key, f"superuser of {service.name}".encode(), hashlib.sha256).hexdigest()


def _give_back_memory() -> None:
    """Let what is large and short-lived (statistics, configurations, answers) go back to the kernel when it is done.

    Left to itself, glibc learns to keep such blocks, in a pool for each thread: 10 to 20 MB for a thousand services.
    """
    with contextlib.suppress(AttributeError):  # another C library: so be it
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(M_ARENA_MAX, 1)
