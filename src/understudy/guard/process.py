"""The guard of one stateful node: the engine's parent, which kills everything below it when a deadline passes.

Run by its client as `python -I -S process.py DIRECTORY`. RULES of this file: standard library only and nothing of
ours, so that it starts fast and stays small. Once it has said that it is ready, no disk is read or written (/proc and
the cgroup files are memory): everything is imported, opened, rehearsed and locked before. Nothing ever waits for a
client, and no clock is read but CLOCK_BOOTTIME, which neither steps nor stops in a suspend.

Two processes: the WARDEN, and below it the GUARD, and below that the engine. Both are child subreapers, so whatever
the engine starts stays below the guard for good, also after setsid or a double fork; and when the guard is killed, all
of it falls to the warden, which kills it. When the warden is killed, the guard does the same. When both are killed at
one stroke, the kernel kills the engine's first process (PR_SET_PDEATHSIG); whatever of its family lives on is killed by
the next guard of the node before it starts anything, known by the lock that all of them inherit, and by their cgroup.

PROOF OF DEATH: waitpid(-1) says ECHILD. Whoever lives below us has a chain of parents that ends in a child of ours, and
an orphan becomes our child in the same moment in which its parent is gone. So "no children" is "nobody below".

A GUARD CANNOT BE RESTARTED WITHOUT THE ENGINE DYING. Only the parent and subreaper can prove death in that way, and
parenthood cannot be handed over or taken up again; and between the old guard's end and a new one's first deadline
nobody would end an engine whose lease runs out. An engine without its guard must count as writable for ever, so there
is none: one guard, one engine, one life. What is dead stays dead until the guard ends; the next start is a new guard's.
"""

import contextlib
import ctypes
import fcntl
import gc
import json
import math
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

VERSION = 1
"""Of what is spoken on the socket; a guard outlives the agent that started it, and may meet a newer one."""

SOCKET, LOCK, FAMILY = "guard.sock", "guard.lock", "family.lock"
LONGEST_MESSAGE = 128 * 1024
LONGEST_AHEAD_S = 600.0
"""A deadline further away than this is a mistake of units, and is refused."""
FARTHEST_S = 1e9
"""Where the timer is set for whatever is later; it is looked at anew then."""
MOST_PEERS = 16
PATIENCE_S = 2.0
PRIORITY = 50
DEPTH = 48
"""How many generations one round looks down; each holds a descriptor open. Deeper ones come up when those are dead."""
ROUND_S = 0.001
STUCK_ROUND_S = 0.05
"""Between rounds of killing: at first, and when a second of it has not helped (somebody hangs in the kernel)."""

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 36, 38
_MCL_CURRENT, _MCL_FUTURE = 1, 2
_TFD_FLAGS, _TFD_TIMER_ABSTIME = os.O_NONBLOCK | os.O_CLOEXEC, 1
_CAP_KILL = 1 << 5
_libc = ctypes.CDLL(None, use_errno=True)


class _No(Exception):
    """An order is not followed; the text is the sentence for whoever gave it."""


def _call(name: str, *arguments: object) -> int:
    """Call libc; OSError when it says no."""
    answer = int(getattr(_libc, name)(*arguments))
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return answer


def _prctl(option: int, value: int) -> None:
    _call("prctl", option, *(ctypes.c_ulong(word) for word in (value, 0, 0, 0)))


def _now_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, 65536):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)


# ---- killing: everything below a process, and nothing else ----


def _children(pid: int) -> list[int]:
    """What the kernel lists as a process's children; it may miss some that come or go meanwhile."""
    found: list[int] = []
    with contextlib.suppress(OSError):  # it has ended
        for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208  nothing is imported that is not needed
            found += map(int, _read(f"/proc/{pid}/task/{task}/children").split())
    return found


def _stat(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat from the state on; the name before it may hold anything."""
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()


def _hurry(pid: int) -> None:
    """Let a killed process die at once also where others keep the processors busy: it has to run to die.

    Measured, both processors busy: 1 s without this, 16 ms at worst with it. What is killed runs no code of its own.
    """
    with contextlib.suppress(OSError):  # we may not, and have said so in _harden; or it is dead
        for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208  as above
            os.sched_setscheduler(int(task), os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(PRIORITY))


def _kill_below(top: int, parent: int, parent_pidfd: int | None, depth: int) -> int:
    """SIGKILL whoever is listed below `parent`, which is `top` (ourselves) or was found below it; how many there were.

    A pid from a list may be a stranger's by the time it is used. So its pidfd is opened first, and then it is ours only
    if its parent is `top`, or if it is `parent` and that one has not been reaped since its own pidfd was proven.
    """
    found = 0
    for pid in _children(parent):
        pidfd = -1
        try:
            pidfd = os.pidfd_open(pid)
            its_parent = int(_stat(pid)[1])
            if its_parent != top:
                if its_parent != parent or parent_pidfd is None:
                    continue
                signal.pidfd_send_signal(parent_pidfd, 0)  # a question, not a signal
            found += 1
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            _hurry(pid)
            if depth:
                found += _kill_below(top, pid, pidfd, depth - 1)
        except OSError:
            continue  # it ended meanwhile; or we may not, and then it is seen to be alive
        finally:
            if pidfd >= 0:
                os.close(pidfd)
    return found


class _Cgroup:
    """A cgroup (v2) of the engine's own, where the host gives us one: all in it die in one stroke, a fork storm too."""

    def __init__(self, path: str) -> None:
        self.path = path
        with contextlib.suppress(FileExistsError):
            os.mkdir(path)  # noqa: PTH102  nothing is imported that is not needed
        try:
            self._kill = os.open(f"{path}/cgroup.kill", os.O_WRONLY | os.O_CLOEXEC)
        except OSError:  # a kernel before 5.14
            self.remove()
            raise
        self._join = os.open(f"{path}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)

    def join(self) -> None:
        os.write(self._join, b"0")

    def kill(self) -> None:
        os.write(self._kill, b"1")

    def empty(self) -> bool:
        return b"populated 0" in _read(f"{self.path}/cgroup.events")

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            os.rmdir(self.path)  # noqa: PTH106  as above


def _own_cgroup() -> str:
    """The directory of the v2 cgroup that we are in; OSError when there is none."""
    own = next((line[3:] for line in _read("/proc/self/cgroup").decode().splitlines() if line.startswith("0::")), None)
    for line in _read("/proc/self/mountinfo").decode().splitlines():
        before, _, after = line.partition(" - ")
        if own is not None and after.split()[0] == "cgroup2":
            return before.split()[4] + own.rstrip("/")
    raise FileNotFoundError(2, "there is no cgroup v2")


def _kill_round(cgroup: _Cgroup | None) -> int:
    """One round against everything below this process; how many were still listed."""
    if cgroup is not None:
        with contextlib.suppress(OSError):
            cgroup.kill()
    return _kill_below(os.getpid(), os.getpid(), None, DEPTH)


# ---- what warden, guard and the engine's first steps share ----


class _Before:
    """What the guard changed of itself and the engine must not inherit."""

    def __init__(self) -> None:
        self._oom = _read("/proc/self/oom_score_adj")
        capabilities = _read("/proc/self/status").partition(b"CapEff:")[2].split()[0]
        self.may_kill_all = bool(int(capabilities, 16) & _CAP_KILL)

    def restore(self) -> None:
        with contextlib.suppress(OSError):
            _oom_score(self._oom)


class _Kit(NamedTuple):
    """What warden and guard have between them from before they were two."""

    family: int
    """The lock that the engine and all its family inherit."""
    directory: int
    cgroup: _Cgroup | None
    before: _Before
    weak: list[str]
    """What this host did not give us, in words."""

    def clean_up(self) -> None:
        if self.cgroup is not None:
            self.cgroup.remove()
        with contextlib.suppress(OSError):
            os.unlink(SOCKET, dir_fd=self.directory)


# ---- starting the engine ----


def _become_engine(order: dict[str, Any], guard: int, kit: _Kit) -> NoReturn:
    """The last steps of the new process before it is the engine. Here, and here alone, the disk may make us wait.

    The order matters: a change of user clears the death signal, so that comes after it; and the guard may have died
    before it was set, so its pid is compared after that.
    """
    os.setsid()
    for number in signal.valid_signals():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    kit.before.restore()
    if kit.cgroup is not None:
        kit.cgroup.join()
    os.set_inheritable(kit.family, True)
    output = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if order["user"] is not None:
        uid, gid, groups = order["user"]
        os.setgroups(groups)
        os.setgid(gid)
        os.setuid(uid)
    if not kit.before.may_kill_all:
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)  # else a set-uid program below us would be out of our reach
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != guard:
        os._exit(127)
    os.chdir(order["cwd"])
    os.execve(order["argv"][0], order["argv"], order["env"])


def _oom_score(value: bytes) -> None:
    fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value)
    finally:
        os.close(fd)


# ---- the guard ----


class _Peer:
    """A client on its connection, and the ids of its orders that wait for the engine's start or death."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.wait_start: list[int] = []
        self.wait_death: list[int] = []


class _Guard:
    """One engine's life: empty, running, killing, dead; never back."""

    def __init__(self, listener: socket.socket, warden: int, kit: _Kit) -> None:
        self._listener, self._warden, self._kit = listener, warden, kit
        self._peers: dict[int, _Peer] = {}
        self._phase = "empty"
        self._engine: int | None = None
        self._engine_pidfd = -1
        self._started_ticks: int | None = None
        self._exit: int | None = None
        self._exec_pipe = -1
        self._start_failure = ""
        self._epoch = 0
        self._deadline: tuple[float, float] | None = None  # and the margin, both in seconds
        self._stop_by: float | None = None
        self._why = ""
        self._began: float | None = None
        self._dead: float | None = None
        self._left = 0
        self._warden_pidfd = os.pidfd_open(warden)
        self._timer = _call("timerfd_create", time.CLOCK_BOOTTIME, _TFD_FLAGS)
        self._wake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._poll = select.epoll()
        for fd in (self._listener.fileno(), self._warden_pidfd, self._timer, self._wake):
            self._poll.register(fd, select.EPOLLIN)
        self._orders: dict[str, Callable[[_Peer, int, dict[str, Any]], bool]] = {
            "status": lambda *_: True,
            "start": self._order_start,
            "deadline": self._order_deadline,
            "stop": self._order_stop,
            "kill": self._order_kill,
            "end": self._order_end,
        }

    def step(self) -> None:
        """Wait for something to happen and do what it asks for; the clock comes before everybody's wishes."""
        ready = [fd for fd, _ in self._poll.poll(self._pause_s())]
        self._tick(_now_s())
        for fd in ready:
            if fd == self._listener.fileno():
                self._accept()
            elif fd == self._exec_pipe:
                self._read_exec_pipe()
            elif fd == self._warden_pidfd:
                self._poll.unregister(fd)
                self._begin("the warden was killed, without whom nobody would see the guard die")
            elif fd == self._wake:
                os.read(fd, 4096)
            elif fd == self._timer:
                with contextlib.suppress(BlockingIOError):
                    os.read(fd, 8)
            elif fd in self._peers:
                self._hear(self._peers[fd])

    def _pause_s(self) -> float | None:
        if self._began is None or self._dead is not None:
            return None
        return ROUND_S if _now_s() < self._began + 1.0 else STUCK_ROUND_S

    def _tick(self, now_s: float) -> None:
        none_left = self._reap()
        if self._phase in ("empty", "running"):
            if self._deadline is not None and now_s >= self._deadline[0] - self._deadline[1]:
                self._begin(f"the deadline of epoch {self._epoch} came")
            elif self._stop_by is not None and now_s >= self._stop_by:
                self._begin("the engine had not stopped in the time given")
        if self._phase == "killing":
            if not none_left:
                self._left = _kill_round(self._kit.cgroup)
                none_left = self._reap()
            if none_left:
                self._bury()

    def _reap(self) -> bool:
        """Take note of who has ended; True when nobody is left below us (see PROOF OF DEATH above)."""
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return False
                if pid == self._engine and self._exit is None:
                    self._read_exec_pipe()
                    self._exit = os.waitstatus_to_exitcode(status)
                    self._begin(self._start_failure or f"the engine ended by itself ({self._how()})")
                    self._tell("exited")
        except ChildProcessError:
            return True

    def _how(self) -> str:
        assert self._exit is not None  # noqa: S101  only asked when it is known
        return f"exit code {self._exit}" if self._exit >= 0 else f"signal {-self._exit}"

    def _begin(self, why: str) -> None:
        """From here on nothing but death; the first reason stands."""
        if self._phase in ("empty", "running"):
            self._phase, self._why, self._began = "killing", why, _now_s()
            self._left = _kill_round(self._kit.cgroup)

    def _bury(self) -> None:
        self._phase, self._dead, self._left = "dead", _now_s(), 0
        for peer in list(self._peers.values()):
            for number in peer.wait_start:
                self._answer(peer, number, self._why)
            for number in peer.wait_death:
                self._answer(peer, number)
            peer.wait_start, peer.wait_death = [], []
        self._tell("dead")

    def _wind(self, at_s: float) -> None:
        """Set the timer; it counts suspend, which the timeout of a poll does not."""
        whole, part = divmod(min(max(at_s, 0.0), FARTHEST_S), 1.0)
        value = struct.pack("qqqq", 0, 0, int(whole), max(int(part * 1e9), 1))
        _call("timerfd_settime", self._timer, _TFD_TIMER_ABSTIME, value, None)

    def _rewind(self) -> None:
        due = [self._deadline[0] - self._deadline[1]] if self._deadline is not None else []
        due += [self._stop_by] if self._stop_by is not None else []
        if due:
            self._wind(min(due))

    # orders: each says no by _No, True to be answered at once, False to be answered later

    def _order_start(self, peer: _Peer, number: int, order: dict[str, Any]) -> bool:
        self._new_epoch(order)
        if self._phase != "empty":
            raise _No(
                f"this guard's one engine has been started and is {self._phase}; start the next under a new guard"
            )
        _check_start(order)
        hear, tell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        guard = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            os.close(hear)
            os.close(tell)
            raise
        if pid == 0:
            try:
                _become_engine(order, guard, self._kit)
            except BaseException as error:  # noqa: BLE001  whatever it is, it has to be told, and this process must end
                os.write(tell, str(error).encode())
            os._exit(127)
        os.close(tell)
        self._phase, self._engine, self._engine_pidfd = "running", pid, os.pidfd_open(pid)
        self._started_ticks, self._exec_pipe = int(_stat(pid)[19]), hear
        self._poll.register(self._exec_pipe, select.EPOLLIN)
        peer.wait_start.append(number)
        return False

    def _read_exec_pipe(self) -> None:
        """The new process says why it could not become the engine, or closes the pipe by becoming it."""
        if self._exec_pipe < 0:
            return
        try:
            failure = os.read(self._exec_pipe, 4096).decode(errors="replace")
        except BlockingIOError:
            return
        self._poll.unregister(self._exec_pipe)
        os.close(self._exec_pipe)
        self._exec_pipe = -1
        if failure:
            self._start_failure = f"the engine could not be started ({failure})"
        if failure or self._phase != "running":
            return  # its end, which follows, answers
        for peer in list(self._peers.values()):
            for number in peer.wait_start:
                self._answer(peer, number)
            peer.wait_start = []

    def _order_deadline(self, _peer: _Peer, _number: int, order: dict[str, Any]) -> bool:
        deadline_s, margin_s = _seconds(order, "deadline_boot_s"), _seconds(order, "margin_s")
        if deadline_s > _now_s() + LONGEST_AHEAD_S:
            raise _No(
                f"a deadline more than {LONGEST_AHEAD_S:.0f} s ahead is a mistake; give it in s of CLOCK_BOOTTIME"
            )
        if self._new_epoch(order) and self._deadline is not None and deadline_s < self._deadline[0]:
            raise _No("a deadline moves only forward within an epoch; the later one stands")
        if self._phase not in ("empty", "running"):
            raise _No(f"it is too late: {self._why}, and the engine is {self._phase}")
        self._deadline = (deadline_s, margin_s)
        self._rewind()
        return True

    def _order_stop(self, peer: _Peer, number: int, order: dict[str, Any]) -> bool:
        by_s, kind = _seconds(order, "deadline_boot_s"), _whole(order, "signal")
        if kind not in signal.valid_signals():
            raise _No(f"{kind} is not the number of a signal")
        self._new_epoch(order)
        if self._phase == "empty":
            raise _No("there is no engine to stop; order kill to keep it from ever being started by this guard")
        if self._phase == "dead":
            return True
        peer.wait_death.append(number)
        if self._phase == "running":
            self._stop_by = by_s
            self._rewind()
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._engine_pidfd, kind)
        return False

    def _order_kill(self, peer: _Peer, number: int, order: dict[str, Any]) -> bool:
        self._new_epoch(order)
        if self._phase == "dead":
            return True
        peer.wait_death.append(number)
        self._begin(f"it was ordered to kill at epoch {self._epoch}")
        return False

    def _order_end(self, _peer: _Peer, _number: int, _order: dict[str, Any]) -> bool:
        if self._phase not in ("empty", "dead"):
            raise _No(f"the engine is {self._phase}, and a guard never leaves one behind; order kill first")
        sys.exit(0)

    def _new_epoch(self, order: dict[str, Any]) -> bool:
        """Take the order's epoch; True when it is the one already known."""
        epoch = _whole(order, "epoch")
        if epoch < self._epoch:
            raise _No(f"the order is of epoch {epoch}, and epoch {self._epoch} is known here; read the record anew")
        known = epoch == self._epoch
        self._epoch = epoch
        return known

    # the socket: it never makes us wait; whoever does not take what it is told is dropped

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        uid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
        if uid != os.getuid():
            connection.close()
            return
        if len(self._peers) >= MOST_PEERS:
            self._drop(next(iter(self._peers.values())))  # the oldest; a live one comes back
        connection.setblocking(False)
        self._peers[connection.fileno()] = peer = _Peer(connection)
        self._poll.register(connection.fileno(), select.EPOLLIN)
        self._send(peer, {"event": "hello"})

    def _hear(self, peer: _Peer) -> None:
        number = 0
        try:
            text, _, flags, _ = peer.connection.recvmsg(LONGEST_MESSAGE)
            if not text:
                self._drop(peer)
                return
            if flags & socket.MSG_TRUNC:
                self._answer(peer, number, f"an order may have {LONGEST_MESSAGE} bytes at most")
                return
            message = json.loads(text)
            number = _whole(message, "id")
            if self._orders[message["order"]](peer, number, message):
                self._answer(peer, number)
        except BlockingIOError:
            return
        except _No as no:
            self._answer(peer, number, str(no))
        except OSError as error:
            self._answer(peer, number, f"the system said no: {error}")
        except Exception as error:  # noqa: BLE001  no message may end the guard, for that would end the engine
            self._answer(peer, number, f"that is no order ({type(error).__name__}: {error})")

    def _answer(self, peer: _Peer, number: int, refused: str | None = None) -> None:
        self._send(peer, {"id": number, "refused": refused})

    def _tell(self, event: str) -> None:
        for peer in list(self._peers.values()):
            self._send(peer, {"event": event})

    def _send(self, peer: _Peer, message: dict[str, Any]) -> None:
        try:
            peer.connection.send(json.dumps(message | {"status": self._status()}).encode())
        except OSError:  # it does not read, or is gone
            self._drop(peer)

    def _drop(self, peer: _Peer) -> None:
        if self._peers.pop(peer.connection.fileno(), None) is not None:
            self._poll.unregister(peer.connection.fileno())
            peer.connection.close()

    def _status(self) -> dict[str, Any]:
        deadline, margin = self._deadline if self._deadline is not None else (None, None)
        return {
            "version": VERSION,
            "guard": os.getpid(),
            "warden": self._warden,
            "phase": self._phase,
            "engine": self._engine,
            "started_ticks": self._started_ticks,
            "exit": self._exit,
            "epoch": self._epoch,
            "deadline_boot_s": deadline,
            "margin_s": margin,
            "now_boot_s": _now_s(),
            "why": self._why,
            "began_boot_s": self._began,
            "dead_boot_s": self._dead,
            "left": self._left,
            "weak": self._kit.weak,
        }


def _seconds(order: dict[str, Any], name: str) -> float:
    value = order[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise _No(f"{name} must be a number of seconds, 0 or more, and it is {value!r}")
    return float(value)


def _whole(order: dict[str, Any], name: str) -> int:
    value = order[name]
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _No(f"{name} must be a whole number, 0 or more, and it is {value!r}")
    return value


def _check_start(order: dict[str, Any]) -> None:
    argv, env, user = order["argv"], order["env"], order["user"]
    if not isinstance(argv, list) or not isinstance(env, dict):
        raise _No("argv must be a list and env a mapping")
    words = [*argv, *env, *env.values(), order["cwd"], order["log"]]
    if not all(isinstance(word, str) and "\0" not in word for word in words):
        raise _No("argv, env, cwd and log must be text without zero bytes")
    if not argv or not all(path.startswith("/") for path in (argv[0], order["cwd"], order["log"])):
        raise _No("the command, cwd and log must be absolute paths, for the guard has no directory of its own")
    if user is not None:
        uid, gid, groups = user
        if not all(isinstance(number, int) for number in (uid, gid, *groups)):
            raise _No("user must be a user's number, its group's, and a list of groups'")


# ---- coming to life ----


def _harden() -> list[str]:
    """Make this process hard to hold up; what could not be had, in words."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    weak = []
    try:
        _call("mlockall", _MCL_CURRENT | _MCL_FUTURE)
    except OSError as error:
        weak.append(f"its memory is not locked ({error.strerror}): grant CAP_IPC_LOCK or raise LimitMEMLOCK")
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(PRIORITY))
    except OSError as error:
        weak.append(f"it has no real-time priority ({error.strerror}): grant CAP_SYS_NICE or raise LimitRTPRIO")
    gc.collect()
    gc.freeze()
    gc.disable()
    return weak


def _take_lock() -> int:
    """The lock of a living pair of guard and warden; SystemExit when there is one."""
    lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    give_up_s = _now_s() + PATIENCE_S  # a warden may just be killing what its guard left
    while not _locked(lock):
        if _now_s() > give_up_s:
            sys.exit("a guard of this node runs already: attach to it")
        time.sleep(0.01)
    return lock


def _take_family() -> int:
    """The lock that an engine's whole family inherits; with no guard alive, whoever still holds it is killed."""
    path = os.path.realpath(FAMILY)
    family = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    give_up_s = _now_s() + PATIENCE_S
    while not _locked(family):
        left = [pid for pid in _everybody() if _kill_if_heir(pid, path)]
        if _now_s() > give_up_s:
            sys.exit(f"what an earlier guard started does not die of SIGKILL: pid {' '.join(map(str, left))}")
        time.sleep(0.001)
    return family


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _everybody() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]  # noqa: PTH208


def _kill_if_heir(pid: int, path: str) -> bool:
    """SIGKILL a process if it holds the lock on `path`. It can have that from a guard alone: nobody else takes it."""
    with contextlib.suppress(OSError):  # it ended, or is somebody else's and so not an heir
        pidfd = os.pidfd_open(pid)
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208  nothing is imported that is not needed
                if os.readlink(f"/proc/{pid}/fd/{fd}") == path and b"FLOCK" in _read(f"/proc/{pid}/fdinfo/{fd}"):  # noqa: PTH115
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    return True
        finally:
            os.close(pidfd)
    return False


def _take_cgroup(lock: int, weak: list[str]) -> _Cgroup | None:
    """The engine's cgroup, emptied of what an earlier guard may have left in it.

    It is named after the lock file, and we hold the lock; so whoever is in it was put there by a guard of this node.
    """
    facts = os.fstat(lock)
    try:
        cgroup = _Cgroup(f"{_own_cgroup()}/understudy-guard-{facts.st_dev}-{facts.st_ino}")
    except OSError as error:
        weak.append(f"it has no cgroup (v2) of its own ({error.strerror}): a storm of forks is chased one by one")
        return None
    give_up_s = _now_s() + PATIENCE_S
    while not cgroup.empty():
        cgroup.kill()
        if _now_s() > give_up_s:
            sys.exit(f"what an earlier guard started does not die of SIGKILL; see {cgroup.path}/cgroup.procs")
        time.sleep(0.001)
    return cgroup


def _be_warden(guard: int, kit: _Kit) -> NoReturn:
    """Outlive the guard by just as long as it takes to kill what it leaves; and wake it when somebody stops it."""
    while True:
        news = os.waitid(os.P_ALL, 0, os.WEXITED | os.WSTOPPED)
        if news is None or news.si_pid != guard:
            continue
        if news.si_code not in (os.CLD_STOPPED, os.CLD_TRAPPED):
            break
        os.kill(guard, signal.SIGCONT)  # our own child, not reaped: the pid is its own
    pause_s = ROUND_S
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            break
        _kill_round(kit.cgroup)
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.1, STUCK_ROUND_S)
    kit.clean_up()
    os._exit(0)


def _be_guard(guard: _Guard, ready: int, kit: _Kit) -> NoReturn:
    _kill_below(os.getpid(), os.getpid(), None, DEPTH)  # a rehearsal: there is nobody, and now all of it is in memory
    json.loads(json.dumps({"rehearsal": [1.5, "ä", None]}))
    os.write(ready, b"ready")
    os.close(ready)
    with contextlib.suppress(SystemExit):
        while True:
            guard.step()
    kit.clean_up()
    os._exit(0)


def main(directory: str) -> None:
    """Take the lock, start warden and guard, and return when they can be spoken to; SystemExit with a sentence if not.

    Whoever started us waits for our exit code and sees the reason on stderr; what stays has no parent and no terminal.
    """
    os.chdir(directory)
    facts = os.stat(".")  # noqa: PTH116  nothing is imported that is not needed
    if facts.st_uid != os.getuid() or facts.st_mode & 0o077:
        sys.exit(f"{directory} must belong to us alone: chmod 700 {directory}")
    lock = _take_lock()
    weak: list[str] = []
    before = _Before()
    try:
        _oom_score(b"-1000")
    except OSError as error:
        weak.append(f"the kernel may choose it when memory is short ({error.strerror}): grant CAP_SYS_RESOURCE")
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    cgroup = _take_cgroup(lock, weak)
    kit = _Kit(_take_family(), here, cgroup, before, weak)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(SOCKET)  # noqa: PTH108  left over: we hold the lock
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    listener.bind(SOCKET)
    listener.listen(128)
    os.chdir("/")
    answer, ready = os.pipe2(os.O_CLOEXEC)
    if os.fork() == 0:
        os.close(answer)
        _detached(lambda: _two(listener, kit, ready))
    os.close(ready)
    if os.read(answer, 16) != b"ready":
        sys.exit("the guard ended while it started")


def _detached(live: Callable[[], None]) -> NoReturn:
    """Run what never returns, away from terminal and parent; should it fail, die, and the other of the two will act."""
    try:
        os.setsid()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)  # at shutdown all are asked to end: that is the engine's to answer
        nowhere = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(nowhere, fd)
        os.close(nowhere)
        live()
    finally:
        os._exit(1)  # without a traceback, which would read the source from disk


def _two(listener: socket.socket, kit: _Kit, ready: int) -> NoReturn:
    """Become the warden, and below it the guard."""
    warden = os.getpid()
    kit.weak.extend(_harden())
    guard = os.fork()
    if guard:
        os.close(ready)
        listener.close()
        _be_warden(guard, kit)
    _harden()
    _be_guard(_Guard(listener, warden, kit), ready, kit)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: process.py DIRECTORY")
    try:
        main(sys.argv[1])
    except OSError as error:
        sys.exit(f"the guard could not start: {error}")
