"""`understudy up`: everything in one process in the foreground, from the first line to the last.

What the process consists of is wiring.py's; here it is only opened, shown to a person, and closed.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from understudy.cli.words import counted, dialled, journal_line, plain, url
from understudy.control.view import ClusterStatus, JournalEntry, Operator, ServiceStatus, Status
from understudy.core.errors import Refused
from understudy.core.model import Kind, Spec
from understudy.core.objectives import ServiceHealth
from understudy.core.pools import Oper
from understudy.core.stateful import PostgresService

Opener = Callable[[Spec, Path], AbstractAsyncContextManager[Operator]]
"""Starts an agent with its API on a state directory, and ends what it started when it is left."""

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOOK_EVERY_S = 0.1
SHOW_AGAIN_S = 1.0
PATIENCE_S = 5.0
"""How long we wait for all of each service; then one that serves at all is ready, and one that does not is told."""

SERVING = (ServiceHealth.UP, ServiceHealth.DEGRADED)
NAMED_SERVICES = 3


def up(spec: Spec, state_dir: Path, open_agent: Opener) -> None:
    """Run until a signal ends it. Raises Refused when it cannot start."""
    asyncio.run(_up(spec, state_dir, open_agent))


async def _up(spec: Spec, state_dir: Path, open_agent: Opener) -> None:
    """Live until the first signal, also while starting; further ones do not disturb the ending."""
    life = asyncio.create_task(_live(spec, state_dir, open_agent))
    loop = asyncio.get_running_loop()

    def end() -> None:
        for number in ENDING:
            loop.add_signal_handler(number, lambda: None)
        life.cancel()

    for number in ENDING:
        loop.add_signal_handler(number, end)
    with contextlib.suppress(asyncio.CancelledError):
        await life


async def _live(spec: Spec, state_dir: Path, open_agent: Opener) -> None:
    async with open_agent(spec, state_dir) as operator:
        try:
            await asyncio.gather(_show_journal(operator), _show_ready(operator, spec, state_dir))
        finally:
            _say("the agent ends, everything else goes on" if spec.hosts else "ending what was started")


async def _show_journal(operator: Operator) -> None:
    """The journal's sentences since this agent started, as they come; what cannot be shown ends nothing."""
    after, told = -1, False
    while True:
        try:
            if after < 0:
                after = await _before_start(operator)
            async for entry in operator.follow(after):
                after, told = entry.number, False
                _say(journal_line(JournalEntry.of(entry), date=False))
        except Refused as refusal:
            if not told:
                _say(f"the journal cannot be shown: {plain(str(refusal))}")
            told = True
        await asyncio.sleep(SHOW_AGAIN_S)


async def _before_start(operator: Operator) -> int:
    """Number of the last entry of the journal that is older than this agent."""
    started_wall_s = (await operator.status()).started_wall_s
    latest = await operator.events(-1, 100, None)
    ours = next((entry.number for entry in latest if entry.wall_s >= started_wall_s), None)
    return ours - 1 if ours is not None else latest[-1].number if latest else 0


async def _show_ready(operator: Operator, spec: Spec, state_dir: Path) -> None:
    """One line as soon as the services can be used, and one before it when that takes long."""
    begin_s = time.monotonic()
    told = False
    while True:
        looked_s = time.monotonic()
        patient = looked_s - begin_s < PATIENCE_S
        try:
            status = await operator.status()
            everything: list[ServiceStatus | ClusterStatus] = [*status.services, *status.clusters]
            waiting = [
                f"{each.name} ({plain(each.reason)})" for each in everything if not is_ready(each, patient=patient)
            ]
            if not waiting:
                _say(ready_line(status, spec))
                for service in spec.clusters:
                    _say(entry_line(service, spec, state_dir))
                return
        except Refused as refusal:
            waiting = [plain(str(refusal))]
        if not patient and not told:
            told = True
            _say(f"still waiting for {', '.join(waiting[:NAMED_SERVICES])}")
        await asyncio.sleep(max(LOOK_EVERY_S, 20 * (time.monotonic() - looked_s)))  # a large cluster has other work now


def is_ready(service: ServiceStatus | ClusterStatus, *, patient: bool) -> bool:
    """Whether the service can be used; while we are patient, whether all of it is there."""
    return service.health is ServiceHealth.UP if patient else service.health in SERVING


def ready_line(status: Status, spec: Spec) -> str:
    """Where to point a browser, curl or psql."""
    named = [f"{each.name} on {_where(each, spec)} ({_up_of(each)})" for each in status.services[:NAMED_SERVICES]]
    named += [
        f"{each.name} on {url(_dialled(each.write, spec), 'tcp')} (primary {each.primary})" for each in status.clusters
    ]
    more = len(status.services) + len(status.clusters) - len(named)
    services = ", ".join(named) + (f" and {counted(more, 'more service')}" if more else "")
    ends = "the agent alone" if spec.hosts else "it"
    return f"ready: {services}; API and metrics on {url(str(spec.api))}; Ctrl-C ends {ends}"


def entry_line(service: PostgresService, spec: Spec, state_dir: Path) -> str:
    """How a person enters a cluster from this host."""
    host, _, port = _dialled(str(service.write), spec).rpartition(":")
    passwords = state_dir.absolute() / f"{service.name}.pgpass"
    user = service.superuser.name
    return f"to enter {service.name}: PGPASSFILE={passwords} psql -h {host.strip('[]')} -p {port} -U {user} postgres"


def _where(service: ServiceStatus, spec: Spec) -> str:
    listen = _dialled(service.listen, spec)
    return url(listen) + "/" if service.kind is Kind.HTTP else url(listen, "tcp")


def _dialled(listen: str, spec: Spec) -> str:
    """Where a router that listens there is reached from this host, which may have none itself."""
    routers = [host.address for host in spec.hosts if host.name in spec.router_hosts]
    return dialled(listen, *routers[:1])


def _up_of(service: ServiceStatus) -> str:
    serving = sum(endpoint.oper in (Oper.UP, Oper.STARTING) for endpoint in service.endpoints)
    return f"{serving} of {counted(len(service.endpoints), 'endpoint')} up"


def _say(line: str) -> None:
    """A line for whoever reads; when nobody does any more, the services still go on."""
    try:
        print(line, flush=True)  # noqa: T201 - this is what the verb shows
    except OSError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - it stays open until the process ends
