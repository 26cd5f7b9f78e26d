"""The engine dies in time, whatever happens to whom; and nothing happens to it when only an agent comes and goes.

`make prove-guard RUNS=200` does the first of these as often as you like and prints the worst margins.
"""

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from tests.guard.proof import FAULTS, once
from tests.guard.rig import (
    LEASE_S,
    LONG_LEASE_S,
    MARGIN_S,
    NOBODY,
    RENEW_S,
    Rig,
    boot_s,
    nobodys_python,
    state_of,
    until,
)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: freezes a file system, or has a cgroup")
needs_nobody = pytest.mark.skipif(nobodys_python() is None, reason="needs root, and a Python that everybody may run")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=needs_nobody if FAULTS[name].as_nobody else ()) for name in FAULTS]
)
def test_engine_is_dead_and_verified_before_the_deadline(name):
    """Whatever happens to agent, disk, engine or guard, nobody of the engine's family is left at the deadline."""
    run = once(FAULTS[name])
    assert run.seen_s > 0
    assert run.said_s is None or run.said_s > 0


def test_storm_rages_until_it_is_killed():
    """The storm of forks of the proof is one: it lives under other pids each time one looks."""
    with Rig("storm") as rig:
        rig.lead(lease_s=LONG_LEASE_S)
        tops: set[str] = set()
        give_up = time.monotonic() + 20
        while len(tops) <= 5 and time.monotonic() < give_up:
            with contextlib.suppress(OSError):
                guard = rig.status["guard"]
                tops |= set(Path(f"/proc/{guard}/task/{guard}/children").read_text().split())
        assert len(tops) > 5


def test_next_agent_goes_on_without_touching_the_engine():
    """An agent dies, another attaches and renews: same engine, and it serves all the time, beyond the old deadline."""
    with Rig("plain") as rig:
        first = rig.lead(lease_s=LONG_LEASE_S)
        engine, answers, done = rig.serves(), [], threading.Event()

        def use():
            while not done.is_set():
                answers.append(rig.serves())
                time.sleep(0.001)

        user = threading.Thread(target=use)
        user.start()
        try:
            for _ in range(3):
                rig.strike(first.pid)
                over_s = boot_s() + LONG_LEASE_S
                first = rig.lead(engine=False, lease_s=LONG_LEASE_S)
            until(lambda: boot_s() > over_s, "the last deadline of whoever was killed")
            status = rig.ask()["status"]
        finally:
            done.set()
            user.join()
        assert set(answers) == {engine}
        assert len(answers) > 100
        assert (status["phase"], str(status["engine"])) == ("running", engine)


def test_silent_agent_does_no_harm_before_the_margin():
    """Between the agent's death and the margin before the deadline the engine serves; only then it is killed."""
    with Rig("plain") as rig:
        agent = rig.lead()
        rig.strike(agent.pid)
        rig.gone_s()
        status = until(lambda: (now := rig.ask()["status"])["phase"] == "dead" and now, "the guard to say so")
        assert status["began_boot_s"] >= status["deadline_boot_s"] - status["margin_s"]
        assert status["why"] == "the deadline of epoch 1 came"


def test_agent_attaches_while_the_disk_hangs():
    """With the disk of guard directory, socket and log frozen, a new agent attaches, and keeps the engine alive."""
    with Rig("plain", disk=True) as rig:
        rig.lead(lease_s=LONG_LEASE_S)
        rig.disk.hang()
        rig.disk = None if not rig.disk.real else rig.disk
        until(lambda: state_of(rig.agents[0].pid) in ("D", "S"), "the old agent to hang")
        late_s = boot_s() + LONG_LEASE_S
        agent = rig.run("lead", lease_s=LONG_LEASE_S, margin_s=MARGIN_S, renew_s=RENEW_S, epoch=1)
        assert "status" in agent.stdout.readline()
        until(lambda: boot_s() > late_s, "the old agent's lease to pass")
        assert rig.ask()["status"]["phase"] == "running"


@needs_root
def test_engine_that_hangs_in_the_kernel_is_never_called_dead():
    """SIGKILL does not end a process that the kernel holds: the guard says killing, and dead only once it is."""
    with Rig("writer", disk=True) as rig:
        agent = rig.lead()
        rig.disk.hang()
        until(lambda: state_of(rig.status["engine"]) == "D", "the engine to hang in its disk")
        rig.strike(agent.pid)
        time.sleep(1.5 * LEASE_S)
        status = rig.ask()["status"]
        assert (status["phase"], status["dead_boot_s"]) == ("killing", None)
        assert status["left"] > 0
        rig.disk.heal()
        rig.gone_s()
        until(lambda: rig.ask()["status"]["phase"] == "dead", "the guard to say so")


def test_family_dies_with_the_engine():
    """When the engine ends by itself, what it leaves behind is killed at once, and its exit code is told."""
    with Rig("leaver") as rig:
        rig.lead()
        rig.gone_s()
        status = until(lambda: (now := rig.ask()["status"])["phase"] == "dead" and now, "the guard to say so")
        assert (status["exit"], status["why"]) == (7, "the engine ended by itself (exit code 7)")


@pytest.mark.parametrize("as_nobody", [False, pytest.param(True, marks=needs_nobody)])
def test_new_guard_kills_what_was_left_when_both_were_killed(as_nobody):
    """Guard and warden killed at one stroke leave a family; the next guard of the node starts on a clean field."""
    with Rig("family", as_nobody=as_nobody) as rig:
        rig.lead()
        for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped first, so that neither can see the other die
            for name in ("warden", "guard"):
                rig.strike(rig.status[name], number)
        until(lambda: state_of(rig.status["engine"]) in ("", "Z"), "the engine's first process to die with its parent")
        assert rig.anybody_left()
        assert "status" in rig.ask("replace")
        rig.gone_s()


def test_second_guard_of_a_node_is_refused():
    """One node has one guard: a second is not started while the first lives, and the first is not disturbed."""
    with Rig("plain") as rig:
        rig.lead(lease_s=LONG_LEASE_S)
        assert "runs already" in rig.ask("replace")["refused"]
        assert rig.ask()["status"]["phase"] == "running"


def test_deadline_is_on_the_clock_that_counts_suspend():
    """The timer that wakes the guard is one of CLOCK_BOOTTIME (7), which no step of the wall clock moves."""
    with Rig("plain") as rig:
        rig.lead()
        facts = Path(f"/proc/{rig.status['guard']}/fdinfo")
        assert any("clockid: 7" in entry.read_text() for entry in facts.iterdir())


@needs_root
def test_root_guard_is_hard_and_its_engine_is_not():
    """Where we may, the guard is locked in memory and real-time, and hands neither on to the engine."""
    with Rig("plain") as rig:
        rig.lead(lease_s=LONG_LEASE_S)

        def facts(pid):
            locked = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmLck" in line)
            return os.sched_getscheduler(pid) & ~os.SCHED_RESET_ON_FORK, int(locked.split()[1]) > 0

        assert facts(rig.status["guard"]) == facts(rig.status["warden"]) == (os.SCHED_FIFO, True)
        assert facts(rig.status["engine"]) == (os.SCHED_OTHER, False)


@needs_nobody
def test_guard_without_privileges_says_what_it_lacks():
    """Each thing that the host does not give is named, with what would grant it."""
    with Rig("plain", as_nobody=True) as rig:
        rig.lead(lease_s=LONG_LEASE_S)
        weak = " ".join(rig.status["weak"])
        assert all(word in weak for word in ("cgroup", "CAP_IPC_LOCK", "CAP_SYS_NICE", "CAP_SYS_RESOURCE"))
        assert Path(f"/proc/{rig.status['engine']}").stat().st_uid == NOBODY
