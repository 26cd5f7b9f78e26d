"""Machines and what runs on them: processes that stop, go on and die, clocks that drift, disks that stall.

A process that is stopped (SIGSTOP, or its whole host frozen) keeps everything that reaches it until it goes on; one
that died loses it. Whatever outlives a death is on the host's disk.
"""

from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from tests.simulation.scheduler import Call, Clock, Scheduler
from tests.simulation.work import Awaited, Work


class Process:
    """One process. `rank` says who goes on first when its host thaws: guards (0) before everybody else."""

    def __init__(self, host: "Host", name: str, rank: int = 1) -> None:
        self.host = host
        self.name = name
        self.rank = rank
        self.alive = True
        self.doom: int | None = None
        """After how many more effects it dies; None: it does not."""
        self._stops = 1 if host.frozen else 0
        self.stopped_s: float | None = host.scheduler.now_s if host.frozen else None
        """Since when it has stood still; None while it runs."""
        self._held: deque[tuple[Call, tuple[Any, ...]]] = deque()
        self._works: dict[Work, None] = {}
        """All that is under way, in its order."""
        host.processes.append(self)

    @property
    def running(self) -> bool:
        """Whether it gets any processor time."""
        return self.alive and self._stops == 0

    def do(self, call: Call, *args: Any) -> None:
        """Run the call in this process: now, when it goes on, or never."""
        if not self.alive:
            return
        if self._stops:
            self._held.append((call, args))
        else:
            call(*args)

    def later(self, delay_s: float, call: Call, *args: Any) -> None:
        """Run the call in this process after that time."""
        self.host.scheduler.later(delay_s, self.do, call, *args)

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> Work:
        """Begin a piece of work in the process; kept, also when the process dies."""
        work = Work(self.host.scheduler, self.do, coroutine, self._ended)
        self._works[work] = None
        return work

    def _ended(self, work: Work, fault: Exception | None) -> None:
        self._works.pop(work, None)
        if fault is not None:
            self.host.report_fault(f"work in the background failed: {fault!r}")

    async def sleep(self, duration_s: float) -> None:
        """Come back after that time by the host's clock."""
        awaited: Awaited[None] = Awaited()
        clock = self.host.clock
        self.host.scheduler.at(clock.true_s(clock.boot_s() + duration_s), self.do, awaited.give, None)
        await awaited

    async def effect(self) -> None:
        """Every effect passes here first: the process may die before it, and then never comes back."""
        if self.doom is not None:
            self.doom -= 1
            if self.doom <= 0:
                self.kill()
        if not self.alive:
            await Awaited[None]()

    def stop(self) -> None:
        """SIGSTOP, or the host froze."""
        self._stops += 1
        if self.stopped_s is None:
            self.stopped_s = self.host.scheduler.now_s

    def go_on(self) -> None:
        """SIGCONT: everything that arrived meanwhile is worked off in its order."""
        self._stops = max(0, self._stops - 1)
        if self._stops == 0:
            self.stopped_s = None
        while self._held and self.running:
            call, args = self._held.popleft()
            call(*args)

    def kill(self) -> None:
        """The process is gone."""
        self.alive = False
        self._held.clear()
        if self in self.host.processes:
            self.host.processes.remove(self)


class Host:
    """One machine."""

    def __init__(self, scheduler: Scheduler, name: str, clock: Clock, fault: Callable[[str], None]) -> None:
        self.scheduler = scheduler
        self.name = name
        self.clock = clock
        self.processes: list[Process] = []
        self.on = True
        self.frozen = False
        self._stalled = False
        self._stalled_s = 0.0
        self._flushing: deque[tuple[Process, Call, tuple[Any, ...]]] = deque()
        self._fault = fault

    def report_fault(self, said: str) -> None:
        """A process failed in a way that nobody caught."""
        self._fault(f"{self.name}: {said}")

    def freeze(self) -> None:
        """The whole machine stands still; its boot clock goes on."""
        if self.on and not self.frozen:
            self.frozen = True
            for process in list(self.processes):
                process.stop()

    def thaw(self) -> None:
        """It goes on: guards first, since they wait in the kernel's timer with the highest priority there is."""
        if self.on and self.frozen:
            self.frozen = False
            for process in sorted(self.processes, key=lambda one: one.rank):
                process.go_on()

    def crash(self) -> None:
        """Power cut: every process is gone, and what was being flushed with them."""
        self.on = False
        self.frozen = False
        self._flushing.clear()
        for process in list(self.processes):
            process.kill()

    def boot(self) -> None:
        """It comes up again, with nothing running."""
        self.on = True
        self._stalled = False
        self.clock.reboot()

    def stall_disk(self) -> None:
        """From now on nothing reaches the disk."""
        if not self._stalled:
            self._stalled, self._stalled_s = True, self.scheduler.now_s

    def free_disk(self) -> None:
        """The disk works again, and works off what waited."""
        self._stalled = False
        while self._flushing and not self._stalled:
            process, call, args = self._flushing.popleft()
            process.do(call, *args)

    @property
    def disk_failing_s(self) -> float:
        """For how long the disk has not answered."""
        return self.scheduler.now_s - self._stalled_s if self._stalled else 0.0

    def flush(self, process: Process, took_s: float, call: Call, *args: Any) -> None:
        """Run the call in the process once what it wrote is on the disk."""
        process.later(took_s, self._flushed, process, call, args)

    def _flushed(self, process: Process, call: Call, args: tuple[Any, ...]) -> None:
        if self._stalled:
            self._flushing.append((process, call, args))
        else:
            call(*args)


class Guard(Process):
    """The fence process of one node: kills the engine at the deadline by the host's own clock; outlives the agent."""

    def __init__(self, host: Host, node: str, kill: Callable[[], None]) -> None:
        super().__init__(host, f"guard-{node}", rank=0)
        self.deadline_s: float | None = None
        """By the host's boot clock; None while unarmed."""
        self._kill = kill

    def arm(self, deadline_s: float, margin_s: float) -> None:
        """Move the deadline; it never moves back. Killing begins `margin_s` before it."""
        if self.deadline_s is None or deadline_s > self.deadline_s:
            self.deadline_s = deadline_s
            self.host.scheduler.at(self.host.clock.true_s(deadline_s - margin_s), self.do, self._strike, deadline_s)

    def _strike(self, deadline_s: float) -> None:
        if self.deadline_s == deadline_s:
            self._kill()
