# ruff: noqa: T201  it prints what it has proven
"""The proof of the guard: every fault, many times, on real processes; prints the worst margin of each.

    python -m tests.guard.proof --runs 200 [--jobs 4] [--only NAME]

A margin is what was left until the deadline when the engine's whole family was gone: by the guard's word, and as seen
from outside. Exit code 1 when one was below zero.
"""

import argparse
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NoReturn

from tests.guard.rig import BOUND_S, LEASE_S, MARGIN_S, RENEW_S, Rig, boot_s, nobodys_python, state_of, until


@dataclass(frozen=True)
class Fault:
    """An engine, and what happens to whom."""

    engine: str
    strike: Callable[[Rig], None]
    disk: bool = False
    as_nobody: bool = False
    guard_lives: bool = True


@dataclass(frozen=True)
class Run:
    """How one run went, in seconds."""

    seen_s: float
    """Left until the deadline when the last of the family was seen to be gone."""
    said_s: float | None
    """The same by the guard's word; None where it was killed."""
    killing_s: float | None
    """From the first stroke to verified death."""


def _agent_killed(rig: Rig) -> None:
    rig.strike(rig.agents[0].pid)


def _agent_stopped(rig: Rig) -> None:
    rig.strike(rig.agents[0].pid, signal.SIGSTOP)


def _disk_hung(rig: Rig) -> None:
    rig.disk.hang()
    asleep = "D" if rig.disk.real else "S"
    until(lambda: state_of(rig.agents[0].pid) == asleep, "the agent to hang in its disk")


def _guard_killed(rig: Rig) -> None:
    rig.strike(rig.status["guard"])


def _warden_killed(rig: Rig) -> None:
    rig.strike(rig.status["warden"])


def _both_killed(rig: Rig) -> None:
    rig.strike(rig.status["warden"])
    rig.strike(rig.status["guard"])


def _guard_stopped(rig: Rig) -> None:
    rig.strike(rig.status["guard"], signal.SIGSTOP)
    _agent_killed(rig)


FAULTS = {
    "agent killed -9": Fault("plain", _agent_killed),
    "agent stopped": Fault("plain", _agent_stopped),
    "agent's disk hung": Fault("plain", _disk_hung, disk=True),
    "engine ignores signals": Fault("deaf", _agent_killed),
    "engine stopped": Fault("stopped", _agent_killed),
    "engine's family: setsid, daemons": Fault("family", _agent_killed),
    "engine's storm of forks": Fault("storm", _agent_killed),
    "family, no privileges": Fault("family", _agent_killed, as_nobody=True),
    "storm, no privileges, no cgroup": Fault("storm", _agent_killed, as_nobody=True),
    "guard killed -9, family": Fault("family", _guard_killed, guard_lives=False),
    "guard killed -9, no privileges": Fault("family", _guard_killed, as_nobody=True, guard_lives=False),
    "guard killed -9, storm": Fault("storm", _guard_killed, as_nobody=True, guard_lives=False),
    "warden killed -9, family": Fault("family", _warden_killed),
    "guard and warden killed -9, one process": Fault("plain", _both_killed, guard_lives=False),
    "guard stopped, agent killed -9": Fault("family", _guard_stopped),
}


def once(fault: Fault) -> Run:
    """One run of one fault, from nothing to nothing."""
    with Rig(fault.engine, disk=fault.disk, as_nobody=fault.as_nobody) as rig:
        rig.lead()
        time.sleep(random.uniform(0, 2 * RENEW_S))
        no_earlier_s = boot_s() + LEASE_S - 2 * RENEW_S  # than this is the deadline in force, in any case
        fault.strike(rig)
        gone_s = rig.gone_s()
        if not fault.guard_lives:
            return Run(no_earlier_s - gone_s, None, None)
        status = until(lambda: (now := rig.ask()["status"])["phase"] == "dead" and now, "the guard to say so")
        deadline_s, dead_s = status["deadline_boot_s"], status["dead_boot_s"]
        assert dead_s - status["began_boot_s"] < BOUND_S
        return Run(deadline_s - gone_s, deadline_s - dead_s, dead_s - status["began_boot_s"])


def many(fault: Fault, runs: int, jobs: int) -> list[Run]:
    """That many runs, some at the same time."""
    with ThreadPoolExecutor(jobs) as pool:
        try:
            return list(pool.map(lambda _: once(fault), range(runs)))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _give_up(*_: object) -> NoReturn:
    """End in the way in which each run cleans up behind itself; that is not to be interrupted again."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _give_up)
    chosen = {name: fault for name, fault in FAULTS.items() if arguments.only in name}
    print(f"lease {LEASE_S * 1000:.0f} ms, margin {MARGIN_S * 1000:.0f} ms, {arguments.runs} runs each, times in ms")
    print(f"{'fault':42} {'worst margin: guard':>20} {'seen':>8} {'longest kill':>14}", flush=True)
    worst: list[float] = []
    for name, fault in chosen.items():
        if fault.as_nobody and nobodys_python() is None:
            print(f"{name:42} not run: needs root, and a Python >= 3.11 that everybody may run")
            continue
        all_runs = many(fault, arguments.runs, arguments.jobs)
        seen = min(run.seen_s for run in all_runs)
        said = [run.said_s for run in all_runs if run.said_s is not None]
        killing = [run.killing_s for run in all_runs if run.killing_s is not None]
        worst += [seen, *said]
        told = (f"{min(said) * 1000:20.1f}", f"{max(killing) * 1000:14.2f}") if said else (f"{'-':>20}", f"{'-':>14}")
        print(f"{name:42} {told[0]} {seen * 1000:8.1f} {told[1]}", flush=True)
    print(f"worst margin of all: {min(worst) * 1000:.1f} ms")
    sys.exit(min(worst) <= 0)


if __name__ == "__main__":
    main()
