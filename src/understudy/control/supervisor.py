"""Keeps the endpoints that carry `run:` running: start, restart with back-off, adopt, stop.

Policy lives here; how a process is known, signalled and ended is processes.py's. One task watches one endpoint.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from understudy.control.processes import Process
from understudy.core.errors import Fault, Refused
from understudy.core.events import Event, EventKind
from understudy.core.model import Spec
from understudy.core.text import Name
from understudy.core.words import span
from understudy.spec.secrets import resolve_all

FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 10.0
STEADY_S = 10.0
"""A process that lived this long begins its back-off anew."""
PATIENCE_S = 5.0
"""Between asking a process to end and forcing it."""
LOG_LIMIT_BYTES = 10_000_000
LOG_KEEP_BYTES = 1_000_000
LOG_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class Job:
    """One endpoint's command, and the folder it starts in."""

    service: Name
    endpoint: Name
    argv: tuple[str, ...]
    secrets: tuple[tuple[str, str], ...]
    directory: str

    @property
    def what(self) -> str:
        """All that makes a restart necessary when it changes; secrets as references, for it is written to disk."""
        return json.dumps([self.argv, self.secrets, self.directory])

    @property
    def title(self) -> str:
        """Its name as people see it, and that of its files."""
        return f"{self.service}.{self.endpoint}"


def jobs_of(spec: Spec) -> dict[str, Job]:
    """Everything that a spec wants supervised, by title."""
    jobs = (
        Job(service.name, endpoint.name, endpoint.run, endpoint.secrets, spec.directory)
        for service in spec.services
        for endpoint in service.endpoints
        if endpoint.run
    )
    return {job.title: job for job in jobs}


def delay_s(failures: int) -> float:
    """How long to wait before the next start, after so many short lives in a row."""
    return float(min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** min(failures - 1, 16)))


def worth_telling(failures: int) -> bool:
    """Whether the journal, which is bounded, should hear of this failure: the 1st, 2nd, 4th, 8th… in a row."""
    return failures & (failures - 1) == 0


class Supervisor:
    """All supervised endpoints of this host. `publish` is told each event; it must not block.

    After `detach`, or after kill -9, the processes live on, and the next supervisor of the directory adopts them.
    """

    def __init__(self, directory: Path, publish: Callable[[Event], None]) -> None:
        self._directory = directory
        self._publish = publish
        self._watches: dict[str, _Watch] = {}
        self._housekeeper: asyncio.Task[None] | None = None

    def plan(self, spec: Spec) -> tuple[str, ...]:
        """What `apply` would do, a sentence each."""
        wanted = jobs_of(spec)
        running = {title: watch.job for title, watch in self._watches.items()}
        return (
            *(f"{title}: its command is started" for title in wanted if title not in running),
            *(f"{title}: its command changed, so it is restarted" for title in _changed(running, wanted)),
            *(f"{title}: its command is stopped" for title in running if title not in wanted),
        )

    async def start(self, spec: Spec) -> None:
        """Adopt what an earlier agent left running, end what is no longer wanted of it, and start the rest."""
        wanted = jobs_of(spec)
        left = {path.stem: process for path in self._states() if (process := Process.find(path)) is not None}
        strangers = {title: process for title, process in left.items() if not _adoptable(process, wanted.get(title))}
        await self._end(strangers)
        for title, job in wanted.items():
            self._watch(job, left.get(title) if title not in strangers else None)
        await asyncio.sleep(0)  # each watch takes its first step: everything is started when this returns
        self._housekeeper = asyncio.create_task(self._keep_logs_small())

    def unwanted(self, spec: Spec) -> tuple[Job, ...]:
        """What runs, and the spec does not have any more."""
        wanted = jobs_of(spec)
        return tuple(watch.job for title, watch in self._watches.items() if title not in wanted)

    def outdated(self, spec: Spec) -> tuple[Job, ...]:
        """What runs, and the spec has with another command, as it should be."""
        wanted = jobs_of(spec)
        return tuple(wanted[title] for title in _changed({t: w.job for t, w in self._watches.items()}, wanted))

    async def start_new(self, spec: Spec) -> None:
        """Start what the spec has and is not there yet; the rest is left as it is."""
        for title, job in jobs_of(spec).items():
            if title not in self._watches:
                self._watch(job, None)
        await asyncio.sleep(0)  # as in start

    async def restart(self, job: Job) -> None:
        """End what runs under that name, and run this."""
        try:
            await self._drop([job.title])
        finally:
            self._watch(job, None)
            await asyncio.sleep(0)  # as in start

    async def prune(self, spec: Spec) -> None:
        """Stop what the spec does not want any more; to be called when the router sends nothing there any more."""
        await self._drop(job.title for job in self.unwanted(spec))

    async def stop(self) -> None:
        """End all that was started here or adopted, and nothing else. Raises Fault when something would not end."""
        await self._rest()
        await self._drop(tuple(self._watches))

    async def detach(self) -> None:
        """Let go and leave the processes running, for the next supervisor to adopt."""
        await self._rest()
        for watch in self._watches.values():
            await watch.release()
        self._watches.clear()

    def log_of(self, title: str) -> Path:
        """Where an endpoint's output goes."""
        return self._directory / f"{title}.log"

    def _states(self) -> Iterable[Path]:
        return sorted(self._directory.glob("*.state"))

    def _state_of(self, title: str) -> Path:
        return self._directory / f"{title}.state"

    def _watch(self, job: Job, process: Process | None) -> None:
        files = (self.log_of(job.title), self._state_of(job.title))
        self._watches[job.title] = _Watch(job, *files, self._publish, process)

    async def _drop(self, titles: Iterable[str]) -> None:
        watches = {title: self._watches[title] for title in titles}
        released = [(title, await watch.release()) for title, watch in watches.items()]
        for title in watches:
            del self._watches[title]
        await self._end({title: process for title, process in released if process is not None})

    async def _end(self, processes: dict[str, Process]) -> None:
        ends = await asyncio.gather(*(process.end(PATIENCE_S) for process in processes.values()))
        for title, gone in zip(processes, ends, strict=True):
            if gone:
                self._state_of(title).unlink(missing_ok=True)
        alive = [title for title, gone in zip(processes, ends, strict=True) if not gone]
        if alive:
            raise Fault(
                f"{', '.join(alive)} did not end, not even by SIGKILL: look at what they wait for (ps, D state)"
            )

    async def _rest(self) -> None:
        if self._housekeeper is not None:
            self._housekeeper.cancel()
            await asyncio.gather(self._housekeeper, return_exceptions=True)

    async def _keep_logs_small(self) -> None:
        while True:
            for title in self._watches:
                with contextlib.suppress(OSError):  # a full disk: truncating comes first, so the next look succeeds
                    shorten(self.log_of(title))
            await asyncio.sleep(LOG_EVERY_S)


class _Watch:
    """Keeps one job running, from a process that is already there or from none."""

    def __init__(
        self, job: Job, log: Path, state: Path, publish: Callable[[Event], None], process: Process | None
    ) -> None:
        self.job = job
        self._log = log
        self._state = state
        self._publish = publish
        self._process = process
        self._failures = 0
        if process is not None:
            self._tell(EventKind.RUN_ADOPTED, f"{job.title} runs on as process {process.identity.pid}: adopted.")
        self._task = asyncio.create_task(self._run())

    async def release(self) -> Process | None:
        """Stop watching; the process that runs, if there is one, is the caller's from now on."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        return self._process

    async def _run(self) -> None:
        while True:
            began_s = asyncio.get_running_loop().time()
            how = self._begin() if self._process is None else None
            if self._process is not None:
                how = await self._process.exited()
                await self._process.end(PATIENCE_S)  # what it left behind would hold its port
                self._process = None
                self._state.unlink(missing_ok=True)
            lived_s = asyncio.get_running_loop().time() - began_s
            self._failures = 1 if lived_s >= STEADY_S else self._failures + 1
            self._tell_end(str(how), lived_s)
            await asyncio.sleep(delay_s(self._failures))

    def _begin(self) -> str | None:
        """Start the process; when that cannot be, why."""
        job = self.job
        try:
            secrets = resolve_all(job.secrets, job.directory, os.environ)
            self._process = Process.start(job.argv, job.directory, secrets, job.what, log=self._log, state=self._state)
        except OSError as fault:
            return f"cannot be started: {fault.strerror}" + (f" ({fault.filename})" if fault.filename else "")
        except (Refused, ValueError) as fault:  # a secret that is gone, or text that no command may hold
            return f"cannot be started: {fault}"
        if worth_telling(self._failures):
            self._tell(EventKind.RUN_STARTED, f"{job.title} started as process {self._process.identity.pid}.")
        return None

    def _tell_end(self, how: str, lived_s: float) -> None:
        if not worth_telling(self._failures):
            return
        again = f", {self._failures} times in a row" if self._failures > 1 else ""
        self._tell(
            EventKind.RUN_EXITED,
            f"{self.job.title} {how}{again}; next start in {span(delay_s(self._failures))}, output in {self._log}.",
            ("lived_s", round(lived_s, 3)),
            ("failures", self._failures),
        )

    def _tell(self, kind: EventKind, reason: str, *data: tuple[str, int | float]) -> None:
        self._publish(Event(kind, reason, self.job.service, self.job.endpoint, data))


def _changed(running: dict[str, Job], wanted: dict[str, Job]) -> tuple[str, ...]:
    return tuple(title for title, job in wanted.items() if title in running and running[title] != job)


def _adoptable(process: Process, job: Job | None) -> bool:
    return job is not None and process.alive and process.identity.what == job.what


def shorten(log: Path) -> None:
    """Cut a log beyond the limit down to its newest part, in place, since a process holds it open for appending."""
    with contextlib.suppress(FileNotFoundError), log.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size <= LOG_LIMIT_BYTES:
            return
        file.seek(size - LOG_KEEP_BYTES)
        file.readline()  # to the start of a line
        newest = file.read(LOG_KEEP_BYTES)
        file.truncate(0)
        with log.open("ab") as end:
            end.write(newest)
