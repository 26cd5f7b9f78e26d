"""The runtime socket's client against a scripted socket: lines that fit, answers that are verified one by one."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tests.routing import short_directory

from understudy.router import runtime
from understudy.router.base import RouterFault
from understudy.router.change import Command

DONE = re.compile("")
ADDRESS = re.compile("(IP changed|no need to change).*", re.DOTALL)


def command(line: str, answer: re.Pattern[str] = DONE) -> Command:
    return Command(line, answer, "a sentence")


@contextlib.asynccontextmanager
async def socket_that_answers(answer: Callable[[str], str]) -> AsyncIterator[tuple[Path, list[str]]]:
    """A unix socket like HAProxy's: one line in, the answer out, closed; with the lines it got."""
    lines: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = (await reader.readline()).decode().rstrip("\n")
        lines.append(line)
        writer.write(answer(line).encode())
        await writer.drain()
        writer.close()

    with short_directory() as directory:
        path = directory / "socket"
        async with await asyncio.start_unix_server(serve, path, limit=1 << 20):
            yield path, lines


async def test_long_orders_are_split_into_lines_that_haproxy_takes():
    """No line is longer than the limit, and every command is sent once, in order."""
    commands = [command(f"set server backend{number}.primary/s1 weight {number % 256}") for number in range(2_000)]
    async with socket_that_answers(lambda line: "\n" * (line.count(";") + 1)) as (path, lines):
        await runtime.send(path, commands)
    assert len(lines) > 1
    assert max(len(line) for line in lines) <= runtime.LINE_BYTES
    assert [each for line in lines for each in line.split("; ")] == [each.line for each in commands]


@pytest.mark.parametrize(
    ("answers", "culprit"),
    [
        ("\n\n\n\n", None),
        ("\nNo such server.\n\n\n\n", "two"),
        ("\n\n", "three; four"),
        ("", "one"),
        ("\n\n\nUnknown command\n\n", "three; four"),
    ],
)
async def test_each_answer_is_verified(answers: str, culprit: str | None):
    """One refused or missing answer among many is found, with the command that it belongs to."""
    commands = [command("one"), command("two"), command("three; four")]
    async with socket_that_answers(lambda _line: answers) as (path, _):
        if culprit is None:
            await runtime.send(path, commands)
        else:
            with pytest.raises(RouterFault, match=f"'{culprit}'"):
                await runtime.send(path, commands)


async def test_answers_with_text_are_accepted_where_they_mean_success():
    """HAProxy answers a change of address with a sentence."""
    said = "IP changed from '127.0.0.1' to '127.0.0.2' by 'stats socket command'\n\n\n"
    async with socket_that_answers(lambda _line: said) as (path, _):
        await runtime.send(path, [command("set server a/b addr 127.0.0.2", ADDRESS), command("then")])


async def test_silence_is_a_sentence_within_the_time_given():
    """A socket that accepts and says nothing, and one that is not there, do not hang the agent."""
    held = asyncio.Event()

    async def mute(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await held.wait()
        writer.close()

    with short_directory() as directory:
        async with await asyncio.start_unix_server(mute, directory / "socket"):
            with pytest.raises(RouterFault, match=r"no answer within 0\.1 s"):
                await runtime.ask(directory / "socket", "show info", timeout_s=0.1)
            held.set()
            await asyncio.sleep(0)
        with pytest.raises(RouterFault, match="does not answer"):
            await runtime.ask(directory / "nobody", "show info")


SHOW_PROC = """\
#<PID>          <type>          <reloads>       <uptime>        <version>
8857            master          1 [failed: 0]   0d00h00m21s     2.6.12-1+deb12u4
# workers
9214            worker          0               0d00h00m01s     2.6.12-1+deb12u4
# old workers
8871            worker          1               0d00h00m21s     2.6.12-1+deb12u4
8800            worker          2               0d00h00m41s     2.6.12-1+deb12u4
# programs

"""


async def test_the_masters_list_is_read():
    """Worker, old workers and failed reloads; a master in the middle of a reload answers nothing and is called busy."""
    async with socket_that_answers(lambda _line: SHOW_PROC) as (path, _):
        assert await runtime.processes(path) == runtime.Processes(worker=9214, old=(8871, 8800), failed_reloads=0)
    async with socket_that_answers(lambda _line: "") as (path, _):
        with pytest.raises(RouterFault, match="busy"):
            await runtime.processes(path)
