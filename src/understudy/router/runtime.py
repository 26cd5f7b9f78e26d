"""Talking to HAProxy's two unix sockets, the worker's runtime socket and the master's. No decisions, no files.

A runtime socket takes one line (commands joined by ';'), answers and closes. The master socket closes only after we
have closed our half; it hands a line to one worker when each command begins with `@!PID`.
"""

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from understudy.router.base import RouterFault
from understudy.router.change import Command

LINE_BYTES = 12_000
"""A longer command line may be dropped without a word (HAProxy's buffer is 16 kB)."""

ANSWER_S = 5.0
"""How long an answer may take; HAProxy's own limit for an idle socket is 10 s."""


@dataclass(frozen=True, slots=True)
class Processes:
    """What the master says of its workers; `worker` takes new connections, `old` finish theirs after a reload."""

    worker: int | None
    old: tuple[int, ...]
    failed_reloads: int


async def ask(path: Path, line: str, timeout_s: float = ANSWER_S) -> str:
    """The whole answer to one command line; RouterFault when there is none in time."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(line.encode() + b"\n")
                writer.write_eof()
                answer = await reader.read()
            finally:
                writer.close()
    except (OSError, TimeoutError) as fault:
        why = f"no answer within {timeout_s:g} s" if isinstance(fault, TimeoutError) else (fault.strerror or str(fault))
        raise RouterFault(
            f"HAProxy does not answer on {path} ({why}): see whether it runs and what its log says"
        ) from None
    return answer.decode(errors="replace")


async def send(path: Path, commands: Sequence[Command]) -> None:
    """Run the commands in order and verify each answer; RouterFault names the first that HAProxy did not accept."""
    for chunk in chunks(commands):
        answers = _blocks(await ask(path, "; ".join(command.line for command in chunk)))
        for command in chunk:
            answer = "\n".join(next(answers, "no answer") for _ in command.line.split(";"))
            if not command.accepted(answer):
                raise RouterFault(f"HAProxy did not accept '{command.line}': {answer.strip() or 'an empty answer'}")


def chunks(commands: Sequence[Command]) -> Iterator[list[Command]]:
    """The commands in runs that fit on one line each."""
    chunk: list[Command] = []
    size = 0
    for command in commands:
        if chunk and size + len(command.line) > LINE_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(command)
        size += len(command.line) + 2
    if chunk:
        yield chunk


def _blocks(text: str) -> Iterator[str]:
    """The answers of chained commands: each ends with an empty line, and is nothing else on silent success."""
    block: list[str] = []
    for line in text.split("\n")[:-1]:
        if line:
            block.append(line)
        else:
            yield "\n".join(block)
            block = []
    if block:
        yield "\n".join(block)


async def worker_pid(path: Path) -> int:
    """The pid of the worker that answers on the runtime socket."""
    info = await ask(path, "show info")
    return int(_field(info, "Pid"))


async def is_stopping(master: Path, pid: int) -> bool:
    """Whether a worker has stopped listening (or is gone altogether)."""
    info = await ask_worker(master, pid, ["show info"])
    return not info.strip() or "\nStopping: 1\n" in info


def _field(info: str, name: str) -> str:
    match = re.search(rf"^{name}: (.*)$", info, re.MULTILINE)
    if match is None:
        raise RouterFault(f"HAProxy's 'show info' has no {name}: it is being stopped or is no HAProxy")
    return match[1]


async def ask_worker(master: Path, pid: int, lines: Sequence[str]) -> str:
    """The answers of one worker, old or not, by way of the master; empty when that worker is gone."""
    answer = await ask(master, "; ".join(f"@!{pid} {line}" for line in lines))
    return "" if answer.startswith("Can't find the target") else answer


async def processes(master: Path) -> Processes:
    """The workers, as the master lists them; RouterFault while it is busy with a reload."""
    text = await ask(master, "show proc")
    failed = re.search(r"\[failed: (\d+)\]", text)
    if failed is None:
        raise RouterFault(f"HAProxy's master on {master} is busy: ask again")
    current, _, rest = text.partition("# old workers")
    old = rest.partition("# programs")[0]
    live = re.findall(r"^(\d+)\s+worker\s", current, re.MULTILINE)
    return Processes(
        worker=int(live[0]) if live else None,
        old=tuple(int(pid) for pid in re.findall(r"^(\d+)\s+worker\s", old, re.MULTILINE)),
        failed_reloads=int(failed[1]),
    )


async def reload(master: Path) -> None:
    """Order a reload; HAProxy 2.6 does not say how it went, so look at `processes` afterwards."""
    with contextlib.suppress(RouterFault):  # the master may cut the connection while it executes itself anew
        await ask(master, "reload")


def listener_pid(path: Path) -> int | None:
    """The process that listens on a unix socket, as the kernel knows it; None when nobody does."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return None
        pid, _, _ = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(pid)


async def follow(path: Path, ring: str, *, only_new: bool) -> AsyncGenerator[str, None]:
    """The lines of a ring as they come, until the worker closes the stream."""
    try:
        reader, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return
    try:
        writer.write(f"show events {ring} -w{' -n' if only_new else ''}\n".encode())
        while line := await reader.readline():
            yield line.decode(errors="replace").strip()
    except OSError:
        return
    finally:
        writer.close()
