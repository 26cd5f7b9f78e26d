"""What agents say to each other directly: only who has the key is heard, and only to the question that was asked."""

import asyncio
import socket

import pytest

from understudy.control.cluster import line
from understudy.control.cluster.listener import AgentTransport, listening
from understudy.control.cluster.ports import PromiseRequest
from understudy.core.cluster import Node
from understudy.core.errors import Fault, Refused
from understudy.core.text import Address, Name

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
REQUEST = PromiseRequest(Name("orders"), "identity", 4, Name("a"), 4000)
NODE = Node(Name("b"), Name("h2"))


class Known:
    """Answers as it was told to."""

    def __init__(self, *, promises: bool = True) -> None:
        self.promises = promises
        self.asked: list[tuple[str, PromiseRequest]] = []

    def may_serve(self, cluster: str, node: str, role: str) -> bool | None:
        if node == "new":
            return None
        return (cluster, node, role) == ("orders", "a", "primary")

    async def promise(self, node: str, request: PromiseRequest) -> bool:
        self.asked.append((node, request))
        return self.promises


@pytest.fixture
def address() -> Address:
    """A port that was free a moment ago."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    return Address("127.0.0.1", port)


async def said(address: Address, text: bytes) -> bytes:
    """The answer to one line."""
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(text)
        answer = await reader.read()
        writer.close()
        return answer


@pytest.mark.parametrize("promises", [True, False])
async def test_a_promise_comes_back_as_it_was_given(address: Address, promises: bool) -> None:
    """The question arrives whole at the node's agent, and its word is what the primary's agent gets."""
    known = Known(promises=promises)
    async with listening(address, known, KEY):
        assert await AgentTransport({Name("h2"): address}, KEY).ask(NODE, REQUEST) is promises
    assert known.asked == [("b", REQUEST)]


async def test_without_the_key_nothing_is_promised_or_believed(address: Address) -> None:
    """Another cluster's agent gets no promise, and no promise of its is counted."""
    known = Known()
    async with listening(address, known, OTHER_KEY):
        with pytest.raises(Refused):
            await AgentTransport({Name("h2"): address}, KEY).ask(NODE, REQUEST)
    assert known.asked == []


def test_an_old_answer_is_no_answer_to_a_new_question() -> None:
    """The nonce of the question must be in the answer, and the node's name."""
    first, second = line.Asked("b", "one", REQUEST), line.Asked("b", "two", REQUEST)
    old = line.answer(line.Granted("b", "one", True), KEY)
    assert line.granted(old, first, KEY)
    with pytest.raises(Refused, match="another question"):
        line.granted(old, second, KEY)
    with pytest.raises(Refused, match="not signed"):
        line.granted(old.replace(b"0", b"1", 1), first, KEY)


async def test_roles_are_told_in_the_words_of_an_agent_check(address: Address) -> None:
    """`up` for who may be sent work, `down` for anybody else, no word where nobody knows yet."""
    async with listening(address, Known(), KEY):
        assert await said(address, b"role orders a primary\n") == b"up\n"
        assert await said(address, b"role orders b primary\n") == b"down\n"
        assert await said(address, b"role orders new primary\n") == b""
        assert await said(address, b"role \xff\xfe b primary\n") == b"down\n"
        assert await said(address, b"GET / HTTP/1.0\n") == b"\n"
        assert await said(address, b"promise zz 00\n") == b"\n"
        assert await said(address, b"x" * 10_000 + b"\n") in (b"", b"\n")


async def test_who_is_not_there_has_not_promised(address: Address) -> None:
    """No agent at the address, and no such host, are faults that name what is missing."""
    with pytest.raises(Fault, match="does not answer"):
        await AgentTransport({Name("h2"): address}, KEY).ask(NODE, REQUEST)
    with pytest.raises(Fault, match="h2"):
        await AgentTransport({}, KEY).ask(NODE, REQUEST)


async def test_a_port_that_is_taken_is_a_fault_with_a_cure(address: Address) -> None:
    """The second listener is refused with a sentence."""
    async with listening(address, Known(), KEY):
        with pytest.raises(Fault, match="agent_port"):
            async with listening(address, Known(), KEY):
                pass
