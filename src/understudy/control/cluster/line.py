"""What agents and routers say to each other directly, when the store may be away: one line, one answer. No sockets.

A role check is what HAProxy's agent-check asks, and tells nothing that a connection to the engine would not tell: it is
not signed. A promise is signed both ways with the cluster key, and the answer names the question's nonce, so that no
old answer can be played back to a primary that counts promises.
"""

import hashlib
import hmac
from dataclasses import dataclass
from typing import TypeVar

from understudy.control.cluster.ports import PromiseRequest
from understudy.core.codec import Undecodable, decode, encode
from understudy.core.errors import Refused

LONGEST_BYTES = 4096

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RoleCheck:
    """Whether a node may be sent what its part is for: `primary` takes writes, `standby` may be read from."""

    cluster: str
    node: str
    role: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A promise that is asked of one node."""

    node: str
    nonce: str
    """Drawn anew for every question."""
    request: PromiseRequest


@dataclass(frozen=True, slots=True)
class Granted:
    """The answer to the question of that nonce."""

    node: str
    nonce: str
    promised: bool


def read(line: bytes, key: bytes) -> RoleCheck | Asked:
    """A request. Raises Refused when it is none, or is not signed with this key."""
    words = line.split()
    if len(words) == 4 and words[0] == b"role":
        cluster, node, role = (word.decode("ascii", "replace") for word in words[1:])
        return RoleCheck(cluster, node, role)
    if len(words) == 3 and words[0] == b"promise":
        return _decoded(Asked, _verified(words[1], words[2], key))
    raise Refused("that is no request which an agent answers")


def question(asked: Asked, key: bytes) -> bytes:
    """The line that asks for a promise."""
    return b"promise " + _signed(encode(asked), key)


def answer(granted: Granted, key: bytes) -> bytes:
    """The line that answers it."""
    return _signed(encode(granted), key)


def granted(line: bytes, asked: Asked, key: bytes) -> bool:
    """Whether this line is the promise that was asked for. Raises Refused when it is no answer to that."""
    words = line.split()
    if len(words) != 2:
        raise Refused("that is no answer to the promise that was asked for")
    told = _decoded(Granted, _verified(words[0], words[1], key))
    if (told.node, told.nonce) != (asked.node, asked.nonce):
        raise Refused("that answers another question")
    return told.promised


def _signed(content: bytes, key: bytes) -> bytes:
    body = content.hex().encode()
    return body + b" " + _signature(body, key) + b"\n"


def _signature(body: bytes, key: bytes) -> bytes:
    return hmac.new(key, body, hashlib.sha256).hexdigest().encode()


def _verified(body: bytes, signature: bytes, key: bytes) -> bytes:
    if not hmac.compare_digest(signature, _signature(body, key)):
        raise Refused("that is not signed with this cluster's key")
    try:
        return bytes.fromhex(body.decode("ascii"))
    except ValueError:
        raise Refused("that cannot be read") from None


def _decoded(kind: type[T], content: bytes) -> T:
    try:
        return decode(kind, content)
    except Undecodable as fault:
        raise Refused(f"that cannot be read: {fault}") from None
