"""What the guard does with orders, also with senseless ones, over the agent's client."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from tests.guard.rig import BOUND_S, HERE, NOBODY, boot_s, nobodys_python, state_of

from understudy.core.errors import Fault, Refused
from understudy.guard import process
from understudy.guard.client import Guard, Phase, User

SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
async def guard():
    folder = Path(tempfile.mkdtemp(prefix="us-", dir="/tmp"))
    guard = await Guard.spawn(folder / "guard")
    guard.folder = folder
    yield guard
    try:
        if guard.lost is not None:
            guard = await Guard.attach(folder / "guard")
        await guard.kill(epoch=guard.status.epoch, patience_s=BOUND_S)
        await guard.end()
    finally:
        shutil.rmtree(folder)


def start(guard, argv, *, epoch=1, **words):
    env = {"PATH": "/usr/bin:/bin"}
    return guard.start(argv, env=env, cwd=Path("/"), log=guard.folder / "log", user=None, epoch=epoch, **words)


async def dead(guard):
    async with asyncio.timeout(BOUND_S):
        async for status in guard.changes():
            if status.phase is Phase.DEAD:
                return status
    raise AssertionError(guard.lost)


async def start_shell(guard, on_term):
    """Start an engine that does this on SIGTERM, and wait until it is ready for one."""
    script = f"trap '{on_term}' TERM; echo up; while :; do sleep 0.05; done"
    status = await start(guard, ["/bin/sh", "-c", script])
    async with asyncio.timeout(BOUND_S):
        while "up" not in (guard.folder / "log").read_text():  # noqa: ASYNC110  a file has no event
            await asyncio.sleep(0.01)
    return status


async def test_unarmed_guard_waits_for_ever_and_the_first_deadline_arms_it(guard):
    """Before the first deadline nothing is due; after it, the engine dies without a further word."""
    status = await start(guard, SLEEPER)
    assert (status.phase, status.deadline_boot_s) == (Phase.RUNNING, None)
    deadline_s = boot_s() + 1.0
    await guard.renew(deadline_s, margin_s=0.2, epoch=1)
    status = await dead(guard)
    assert status.deadline_boot_s == deadline_s
    assert deadline_s - 0.2 <= status.began_boot_s <= status.dead_boot_s
    assert status.exit == -signal.SIGKILL


async def test_deadline_moves_only_forward_within_an_epoch(guard):
    """Old renewals cannot bring the deadline forward; a higher epoch sets its own; lower epochs are refused."""
    await start(guard, SLEEPER, epoch=4)
    now_s = boot_s()
    await guard.renew(now_s + 60, margin_s=1, epoch=4)
    with pytest.raises(Refused, match="only forward"):
        await guard.renew(now_s + 59, margin_s=1, epoch=4)
    assert guard.status.deadline_boot_s == now_s + 60
    await guard.renew(now_s + 50, margin_s=1, epoch=5)
    assert guard.status.deadline_boot_s == now_s + 50
    for order in (
        guard.renew(now_s + 70, margin_s=1, epoch=4),
        guard.kill(epoch=4),
        guard.stop(signal.SIGTERM, deadline_boot_s=now_s, epoch=4),
    ):
        with pytest.raises(Refused, match="epoch 5 is known"):
            await order
    assert (guard.status.phase, guard.status.deadline_boot_s) == (Phase.RUNNING, now_s + 50)


async def test_deadline_in_other_units_is_refused(guard):
    """Milliseconds in place of seconds, or a clock of another kind, would be a lease without end."""
    for wrong in (boot_s() * 1000 + 1e6, time.time() + 1e6, float("inf"), float("nan"), -1.0):
        with pytest.raises(Refused):
            await guard.renew(wrong, margin_s=1, epoch=1)
    assert guard.status.deadline_boot_s is None


async def test_kill_is_answered_when_verified_and_the_dead_stay_dead(guard):
    """After a kill nothing is left, no renewal and no start is taken, and a second kill is the same."""
    status = await start(guard, SLEEPER)
    assert (await guard.kill(epoch=7)).phase is Phase.DEAD
    assert state_of(status.engine) == ""
    with pytest.raises(Refused, match="too late"):
        await guard.renew(boot_s() + 5, margin_s=1, epoch=7)
    with pytest.raises(Refused, match="new guard"):
        await start(guard, SLEEPER, epoch=7)
    again = await guard.kill(epoch=9)
    assert (again.phase, again.epoch) == (Phase.DEAD, 9)


async def test_kill_before_the_start_keeps_the_engine_from_starting(guard):
    """An agent that is told to close its node while it starts it cannot start it any more."""
    await guard.kill(epoch=2)
    with pytest.raises(Refused):
        await start(guard, SLEEPER, epoch=2)


async def test_stop_ends_gently(guard):
    """The first process gets the signal asked for and may end in its own way."""
    await start_shell(guard, "exit 3")
    status = await guard.stop(signal.SIGTERM, deadline_boot_s=boot_s() + BOUND_S, epoch=1)
    assert (status.phase, status.exit) == (Phase.DEAD, 3)


async def test_stop_that_takes_too_long_ends_in_a_kill(guard):
    """An engine that does not go is killed when the time given is over."""
    await start_shell(guard, "")
    by_s = boot_s() + 0.4
    status = await guard.stop(signal.SIGTERM, deadline_boot_s=by_s, epoch=1)
    assert (status.phase, status.exit) == (Phase.DEAD, -signal.SIGKILL)
    assert status.began_boot_s >= by_s


async def test_lease_goes_before_a_patient_stop(guard):
    """A stop that may take long does not keep the lease's deadline from being met."""
    await start_shell(guard, "")
    deadline_s = boot_s() + 2.0
    await guard.renew(deadline_s, margin_s=1.5, epoch=1)
    status = await guard.stop(signal.SIGTERM, deadline_boot_s=deadline_s + BOUND_S, epoch=1)
    assert status.spare_s > 0


async def test_engine_that_cannot_be_run_is_refused_with_the_reason(guard):
    """A start that fails says why, and leaves a guard that can only be ended."""
    with pytest.raises(Refused, match=r"could not be started.*No such file"):
        await start(guard, ["/nonexistent/engine"])
    assert (await dead(guard)).exit == 127


async def test_exit_is_told_at_once(guard):
    """Who watches hears of the engine's end without asking, with how it ended."""
    status = await start_shell(guard, "exit 3")
    watcher = asyncio.create_task(dead(guard))
    await asyncio.sleep(0.05)
    signal.pidfd_send_signal(pidfd := os.pidfd_open(status.engine), signal.SIGTERM)
    os.close(pidfd)
    status = await watcher
    assert (status.exit, status.why) == (3, "the engine ended by itself (exit code 3)")


async def test_end_is_refused_while_the_engine_lives(guard):
    """Nobody can send the guard away from a living engine."""
    await start(guard, SLEEPER)
    with pytest.raises(Refused, match="never leaves one behind"):
        await guard.end()
    assert (await guard.ask()).phase is Phase.RUNNING


async def test_signals_that_end_others_do_not_end_a_guard(guard):
    """At a shutdown everybody is asked to end; the engine must be able to take its time under its guard."""
    await start(guard, SLEEPER)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        os.kill(guard.status.guard, number)
        os.kill(guard.status.warden, number)
    assert (await guard.ask()).phase is Phase.RUNNING


def raw(guard):
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(BOUND_S)
    connection.connect(str(guard.folder / "guard" / process.SOCKET))
    return connection


async def test_senseless_orders_are_answered_and_change_nothing(guard):
    """Whatever comes over the socket, the guard answers with a sentence and goes on."""
    await start(guard, SLEEPER)
    senseless = (
        b"\xff\xfe",
        b"{",
        b"[]",
        b"7",
        b"[" * 60_000,
        b'{"id": 1}',
        b'{"id": true, "order": "status"}',
        b'{"id": 1, "order": "dance"}',
        b'{"id": 1, "order": ["kill"]}',
        b'{"id": 1, "order": "kill"}',
        b'{"id": 1, "order": "kill", "epoch": -1}',
        b'{"id": 1, "order": "kill", "epoch": 1.5}',
        b'{"id": 1, "order": "kill", "epoch": "9"}',
        b'{"id": 1, "order": "deadline", "epoch": 1, "deadline_boot_s": NaN, "margin_s": 0}',
        b'{"id": 1, "order": "deadline", "epoch": 1, "deadline_boot_s": null, "margin_s": 0}',
        b'{"id": 1, "order": "stop", "epoch": 1, "deadline_boot_s": 1, "signal": 999}',
        b'{"id": 1, "order": "start", "epoch": 1}',
        b'{"id": 1, "order": "deadline", "epoch": 1, "deadline_boot_s": 1e308, "margin_s": 0}',
        b'{"id": ' + b"9" * 5000 + b', "order": "status"}',
    )
    with raw(guard) as connection:
        connection.recv(65536)
        for text in senseless:
            connection.send(text)
            answer = json.loads(connection.recv(65536))
            assert answer["refused"], text
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        connection.send(b"x" * (process.LONGEST_MESSAGE + 1))
        assert "bytes at most" in json.loads(connection.recv(65536))["refused"]
    status = await guard.ask()
    assert (status.phase, status.deadline_boot_s, status.epoch) == (Phase.RUNNING, None, 1)


@pytest.mark.parametrize(
    ("argv", "word"),
    [([], "absolute"), (["engine"], "absolute"), (["/bin/\0sh"], "zero bytes"), ([7], "must be text")],
)
async def test_senseless_start_leaves_the_guard_fresh(guard, argv, word):
    """A start that is refused before anything was tried can be given again."""
    with pytest.raises(Refused, match=word):
        await start(guard, argv)
    assert (await start(guard, SLEEPER)).phase is Phase.RUNNING


async def test_client_that_does_not_read_is_dropped_and_holds_up_nobody(guard):
    """A stuck agent costs its own connection, never the fence."""
    await start(guard, SLEEPER)
    with raw(guard) as stuck:
        stuck.setblocking(False)
        for _ in range(100_000):
            try:
                stuck.send(b'{"id": 1, "order": "status"}')
            except BlockingIOError:
                await guard.ask()
            except ConnectionError:
                break
        else:
            pytest.fail("it was not dropped")
        deadline_s = boot_s() + 2.0
        await guard.renew(deadline_s, margin_s=1.5, epoch=1)
        assert (await dead(guard)).spare_s > 0


async def test_many_silent_clients_do_not_keep_the_agent_out(guard):
    """When all places are taken, the oldest connection gives way."""
    await start(guard, SLEEPER)
    crowd = [raw(guard) for _ in range(3 * process.MOST_PEERS)]
    other = await Guard.attach(guard.folder / "guard")
    assert (await other.ask()).phase is Phase.RUNNING
    await other.close()
    for connection in crowd:
        connection.close()


@pytest.mark.skipif(nobodys_python() is None, reason="needs root, and a Python that everybody may run")
async def test_another_user_is_not_heard(guard):
    """Even with the directory's mode spoilt, only the guard's own user is listened to."""
    for folder, mode in ((guard.folder, 0o711), (guard.folder / "guard", 0o711)):
        folder.chmod(mode)
    path = guard.folder / "guard" / process.SOCKET
    path.chmod(0o777)
    script = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect(sys.argv[1]); "
        "s.settimeout(20); sys.exit(0 if s.recv(65536) == b'' else 1)"
    )
    command = [nobodys_python(), "-c", script, str(path)]
    done = await asyncio.to_thread(subprocess.run, command, check=False, user=NOBODY, group=NOBODY, extra_groups=[])
    assert done.returncode == 0


async def test_engine_runs_as_another_user_and_still_dies_with_its_guard(guard):
    """The death signal survives the change of user: with guard and warden gone at a stroke, the engine goes too."""
    if os.geteuid() != 0:
        pytest.skip("needs root: changes the user")
    facts = await guard.start(
        ["/bin/sleep", "60"],
        env={},
        cwd=Path("/"),
        log=guard.folder / "log",
        user=User(NOBODY, NOBODY, (NOBODY,)),
        epoch=1,
    )
    assert os.stat(f"/proc/{facts.engine}").st_uid == NOBODY  # noqa: PTH116  no disk
    pidfd = os.pidfd_open(facts.engine)
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in (facts.warden, facts.guard):
            os.kill(pid, number)
    signalled = asyncio.Event()
    asyncio.get_running_loop().add_reader(pidfd, signalled.set)
    async with asyncio.timeout(BOUND_S):
        await signalled.wait()
    asyncio.get_running_loop().remove_reader(pidfd)
    os.close(pidfd)
    await guard.close()
    await (await Guard.spawn(guard.folder / "guard")).close()  # for the fixture to end


async def test_lost_guard_is_a_fault_with_a_way_on(guard):
    """When the guard dies, waiting orders fail at once, and attaching says that no engine runs."""
    await start(guard, SLEEPER)
    os.kill(guard.status.guard, signal.SIGKILL)
    async with asyncio.timeout(BOUND_S):
        async for _ in guard.changes():
            pass
    with pytest.raises(Fault, match="attach anew"):
        await guard.ask()
    with pytest.raises(Fault, match="its engine does not run"):
        await Guard.attach(guard.folder / "guard")
    await (await Guard.spawn(guard.folder / "guard")).close()  # for the fixture to end


def test_open_directory_is_refused(tmp_path):
    """A guard does not live where others could reach its socket."""
    tmp_path.chmod(0o755)
    with pytest.raises(Refused, match="chmod 700"):
        asyncio.run(Guard.spawn(tmp_path))


def test_guard_is_one_file_of_the_standard_library():
    """It must start where nothing of ours can be imported, and pull in nothing big."""
    script = (
        "import sys; sys.argv = ['']; import runpy; runpy.run_path(sys.orig_argv[-1]); print('\\n'.join(sys.modules))"
    )
    source = str(HERE.parents[1] / "src" / "understudy" / "guard" / "process.py")
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, source], capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded - sys.stdlib_module_names - {"__main__", "sitecustomize"}
    assert not loaded & {"asyncio", "subprocess", "logging", "threading", "pathlib", "dataclasses"}


async def test_start_with_fields_of_other_kinds_is_refused(guard):
    """No shape of an order ends the guard, and none of these starts anything."""
    good = {"argv": ["/bin/sleep", "1"], "env": {}, "cwd": "/", "log": "/dev/null", "user": None, "epoch": 1}
    with raw(guard) as connection:
        connection.recv(65536)
        for name, value in (
            ("argv", "/bin/sh"),
            ("env", []),
            ("cwd", 7),
            ("user", 7),
            ("user", [1, 2, 3]),
            ("log", None),
        ):
            connection.send(json.dumps({"id": 1, "order": "start"} | good | {name: value}).encode())
            assert json.loads(connection.recv(65536))["refused"], name
    assert (await guard.ask()).phase is Phase.EMPTY


async def test_stop_may_be_as_patient_as_it_likes(guard):
    """A time beyond what the kernel's timer takes is only far away."""
    await start(guard, SLEEPER)
    waiting = asyncio.create_task(guard.stop(signal.SIGCONT, deadline_boot_s=1e300, epoch=1))
    await asyncio.sleep(0.1)
    assert (await guard.ask()).phase is Phase.RUNNING
    await guard.kill(epoch=1)
    assert (await waiting).phase is Phase.DEAD
