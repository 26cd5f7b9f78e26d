"""The supervisor with real processes: what it starts, keeps, adopts and ends, and what it must not touch."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from understudy.control import supervisor as module
from understudy.control.processes import GATE, Process, boot_id, members, stat_of
from understudy.control.supervisor import Supervisor
from understudy.core.events import Event, EventKind
from understudy.core.model import Endpoint, Kind, PoolService, Spec
from understudy.core.text import Address, Name

SLEEPER = ("sh", "-c", "echo hello; sleep 1000")
DEAF = ("sh", "-c", "trap '' TERM; sleep 1001 & while true; do sleep 1002; done")


def spec(directory: Path, **commands: tuple[str, ...]) -> Spec:
    endpoints = tuple(
        Endpoint(Name(name), Address("127.0.0.1", 9000 + number), run=argv)
        for number, (name, argv) in enumerate(commands.items())
    )
    web = PoolService(Name("web"), Kind.HTTP, Address("127.0.0.1", 8080), endpoints)
    return Spec(Name("shop"), (web,), directory=str(directory))


async def eventually(true: Callable[[], object], what: str, within_s: float = 10.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline_s, f"not within {within_s} s: {what}"
        await asyncio.sleep(0.01)


class Stage:
    """A supervisor on a directory of its own, with what it published."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.events: list[Event] = []
        self.made: list[Supervisor] = []
        self.supervisor = self.another()

    def another(self) -> Supervisor:
        self.supervisor = Supervisor(self.directory, self.events.append)
        self.made.append(self.supervisor)
        return self.supervisor

    def process(self, endpoint: str) -> Process:
        process = Process.find(self.directory / f"web.{endpoint}.state")
        assert process is not None
        return process

    def pid(self, endpoint: str) -> int:
        return self.process(endpoint).identity.pid

    def left(self) -> list[Path]:
        found = ((path, Process.find(path)) for path in self.directory.glob("*.state"))
        return [path for path, process in found if process and members(process.identity)]

    def kinds(self) -> list[EventKind]:
        return [event.kind for event in self.events]


@contextmanager
def sleeping_stranger(seconds: int) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", str(seconds)], start_new_session=True) as stranger:
        try:
            yield stranger
        finally:
            stranger.kill()


def kill_and_reap(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    for supervisor in stage.made:
        await supervisor.stop()
    assert not stage.left()


async def test_starts_each_command_in_the_folder_of_the_spec_with_its_output_in_a_log(stage: Stage) -> None:
    """A command runs in its own session, in the spec's folder, its output in a log; the journal hears of it."""
    (stage.directory / "spec").mkdir()
    await stage.supervisor.start(spec(stage.directory / "spec", w1=("sh", "-c", "pwd; echo oops >&2; sleep 1000")))
    log = stage.supervisor.log_of("web.w1")
    await eventually(lambda: log.exists() and "oops" in log.read_text(), "output in the log")
    assert log.read_text().splitlines() == [str(stage.directory / "spec"), "oops"]
    assert os.getsid(stage.pid("w1")) == stage.pid("w1") != os.getsid(0)
    assert stage.kinds() == [EventKind.RUN_STARTED]


async def test_restarts_what_dies_and_what_it_left_behind_is_gone_first(stage: Stage) -> None:
    """A killed command is back soon, and none of its children lives on to hold the port."""
    await stage.supervisor.start(spec(stage.directory, w1=("sh", "-c", "sleep 1003 & sleep 1004")))
    first = stage.process("w1")
    await eventually(lambda: len(members(first.identity)) == 3, "the command and both of its children")
    os.kill(first.identity.pid, signal.SIGKILL)
    await eventually(lambda: stage.kinds().count(EventKind.RUN_STARTED) == 2, "started again")
    assert not members(first.identity)
    assert stage.pid("w1") != first.identity.pid
    [ended] = [event for event in stage.events if event.kind is EventKind.RUN_EXITED]
    assert "was killed by SIGKILL" in ended.reason
    assert ended.subject == "w1"


async def test_a_missing_command_is_one_sentence_and_a_back_off(stage: Stage) -> None:
    """What cannot be started is told in one sentence that names the file, not once for each of many attempts."""
    await stage.supervisor.start(spec(stage.directory, w1=("./no-such-thing",), w2=SLEEPER))
    await eventually(lambda: stage.kinds().count(EventKind.RUN_EXITED) == 2, "two of the failures are told")
    first, second = (event for event in stage.events if event.kind is EventKind.RUN_EXITED)
    assert first.reason.startswith("web.w1 cannot be started: no such command (./no-such-thing)")
    assert "2 times in a row; next start in 0.4 s" in second.reason
    assert stage.process("w2").alive


async def test_secrets_reach_the_command_and_nothing_else(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret is in the command's environment; neither the state file nor an event holds it."""
    monkeypatch.setenv("VAULT", "open sesame")
    shown = Endpoint(
        Name("w1"),
        Address("127.0.0.1", 9001),
        run=("sh", "-c", "echo $TOKEN; sleep 1011"),
        secrets=(("TOKEN", "env:VAULT"),),
    )
    gone = replace(shown, name=Name("w2"), secrets=(("TOKEN", "env:NOT_THERE_AT_ALL"),))
    wanted = spec(stage.directory)
    wanted = replace(wanted, services=(replace(wanted.services[0], endpoints=(shown, gone)),))
    await stage.supervisor.start(wanted)
    log = stage.supervisor.log_of("web.w1")
    await eventually(lambda: log.exists() and log.read_text() == "open sesame\n", "the secret in its environment")
    assert "sesame" not in (stage.directory / "web.w1.state").read_text() + repr(stage.events)
    await eventually(lambda: EventKind.RUN_EXITED in stage.kinds(), "the one without its secret")
    assert any("NOT_THERE_AT_ALL is not set" in event.reason for event in stage.events)


def test_back_off_doubles_to_its_bound_and_the_journal_hears_ever_less() -> None:
    """0.2 s doubling to 10 s; of a thousand failures in a row the journal hears of ten."""
    assert [module.delay_s(count) for count in (1, 2, 3, 6, 7, 1000)] == [0.2, 0.4, 0.8, 6.4, 10.0, 10.0]
    assert sum(module.worth_telling(count) for count in range(1, 1000)) == 10


async def test_stop_ends_the_deaf_ones_too_and_nothing_else(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that ignores SIGTERM is forced, its children too; a stranger in its own session is left alone."""
    monkeypatch.setattr(module, "PATIENCE_S", 0.3)
    with sleeping_stranger(1005) as stranger:
        await stage.supervisor.start(spec(stage.directory, w1=DEAF, w2=SLEEPER))
        identities = [stage.process(name).identity for name in ("w1", "w2")]
        await eventually(lambda: len(members(identities[0])) >= 3, "the deaf one's children")
        await stage.supervisor.stop()
        assert [members(identity) for identity in identities] == [(), ()]
        assert [stat_of(identity.pid) for identity in identities] == [None, None]
        assert not list(stage.directory.glob("*.state"))
        assert stranger.poll() is None


async def test_apply_touches_only_what_changed(stage: Stage) -> None:
    """A changed command restarts that one; a new one starts; what is not wanted is stopped by prune alone."""
    await stage.supervisor.start(spec(stage.directory, w1=SLEEPER, w2=SLEEPER, w3=SLEEPER))
    before = {name: stage.pid(name) for name in ("w1", "w2", "w3")}
    new = spec(stage.directory, w1=SLEEPER, w2=("sleep", "1006"), w4=SLEEPER)
    assert stage.supervisor.plan(new) == (
        "web.w4: its command is started",
        "web.w2: its command changed, so it is restarted",
        "web.w3: its command is stopped",
    )
    await stage.supervisor.start_new(new)
    for job in stage.supervisor.outdated(new):
        await stage.supervisor.restart(job)
    await eventually((stage.directory / "web.w4.state").exists, "the new one")
    await eventually(lambda: stage.pid("w2") != before["w2"], "the changed one restarted")
    assert stage.pid("w1") == before["w1"]
    assert stat_of(before["w2"]) is None
    assert stage.process("w3").alive
    await stage.supervisor.prune(new)
    assert stat_of(before["w3"]) is None
    assert stage.supervisor.plan(new) == ()


AGENT = textwrap.dedent(
    """
    import asyncio, sys
    from pathlib import Path
    from tests.integration.test_supervisor import SLEEPER, spec
    from understudy.control.supervisor import Supervisor

    async def main():
        directory, events = Path(sys.argv[1]), []
        await Supervisor(directory, events.append).start(spec(directory, w1=SLEEPER, w2=SLEEPER, w3=SLEEPER))
        while len(events) < 3:  # each tells that it was started
            await asyncio.sleep(0.01)
        print("running", flush=True)
        await asyncio.sleep(1000)

    asyncio.run(main())
    """
)


async def test_after_kill_9_of_the_agent_the_next_one_adopts(stage: Stage) -> None:
    """Endpoints outlive a killed agent; the next adopts the same, ends what is not wanted, restarts what changed."""
    agent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", AGENT, str(stage.directory), stdout=asyncio.subprocess.PIPE
    )
    assert agent.stdout is not None
    assert await agent.stdout.readline() == b"running\n"
    before = {name: stage.pid(name) for name in ("w1", "w2", "w3")}
    agent.kill()
    await agent.wait()
    assert all(stage.process(name).alive for name in before)

    await stage.supervisor.start(spec(stage.directory, w1=SLEEPER, w2=("sleep", "1007")))
    assert stage.pid("w1") == before["w1"]
    await eventually((stage.directory / "web.w2.state").exists, "the changed one")
    assert stage.pid("w2") != before["w2"]
    assert not any((stat := stat_of(before[name])) and stat.state not in "ZX" for name in ("w2", "w3"))
    assert EventKind.RUN_ADOPTED in stage.kinds()

    os.kill(before["w1"], signal.SIGKILL)
    await eventually(lambda: EventKind.RUN_EXITED in stage.kinds(), "the adopted one's end is seen")
    await eventually(
        lambda: stage.pid("w1") != before["w1"] if Process.find(stage.directory / "web.w1.state") else False,
        "the adopted one is restarted",
    )


async def test_a_pid_that_was_used_anew_is_neither_adopted_nor_signalled(stage: Stage) -> None:
    """A state file whose pid now belongs to another process (later start, or another boot) is only a leftover."""
    with sleeping_stranger(1008) as stranger:
        stat, wanted = stat_of(stranger.pid), module.jobs_of(spec(stage.directory, w1=("sleep", "1008")))
        assert stat is not None
        for name, change in {"w1": {"started_ticks": stat.started_ticks - 1}, "w2": {"boot": "another"}}.items():
            state = {
                "pid": stranger.pid,
                "started_ticks": stat.started_ticks,
                "boot": boot_id(),
                "mark": "",
                "what": wanted["web.w1"].what,
            } | change
            (stage.directory / f"web.{name}.state").write_text(json.dumps(state))
        (stage.directory / "web.w3.state").write_text("{ torn")
        await stage.supervisor.start(spec(stage.directory, w1=("sleep", "1008")))
        await eventually(lambda: EventKind.RUN_STARTED in stage.kinds(), "one of its own")
        assert EventKind.RUN_ADOPTED not in stage.kinds()
        assert stage.pid("w1") != stranger.pid
        await stage.supervisor.stop()
        assert stranger.poll() is None


async def test_workers_whose_first_process_died_while_no_agent_ran_are_ended(stage: Stage) -> None:
    """What remains of a command, known by its mark, does not hold the port when the next agent starts it anew."""
    both = ("sh", "-c", "sleep 1009 & exec sleep 1010")
    await stage.supervisor.start(spec(stage.directory, w1=both))
    old = stage.process("w1").identity
    await eventually(lambda: len(members(old)) == 2, "two processes")
    await stage.supervisor.detach()
    kill_and_reap(old.pid)
    assert len(members(old)) == 1
    await stage.another().start(spec(stage.directory, w1=both))
    assert members(old) == ()


def test_a_child_whose_agent_dies_before_its_state_is_written_never_runs(tmp_path: Path) -> None:
    """The gate: without the go-ahead, which follows the state file, the command is not run at all."""
    gated = subprocess.Popen([*GATE, "touch", str(tmp_path / "ran")], stdin=subprocess.PIPE)
    gated.communicate(b"")
    assert gated.returncode != 0
    assert not (tmp_path / "ran").exists()


def test_a_log_is_cut_in_place_to_its_newest_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond its bound a log keeps its newest whole lines, and a process that holds it open goes on at its end."""
    monkeypatch.setattr(module, "LOG_LIMIT_BYTES", 1000)
    monkeypatch.setattr(module, "LOG_KEEP_BYTES", 100)
    log = tmp_path / "web.w1.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"".join(b"line %d\n" % number for number in range(200)))
        module.shorten(log)
        writer.write(b"after\n")
    lines = log.read_text().splitlines()
    assert lines[-2:] == ["line 199", "after"]
    assert all(line.startswith("line ") for line in lines[:-1])
    assert 50 < log.stat().st_size <= 110
