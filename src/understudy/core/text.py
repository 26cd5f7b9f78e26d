"""Text that may enter a configuration or a command of HAProxy or of an engine.

Here live the only string types that the router accepts. Each one is checked when it is made, so that a newline, a
space, a semicolon, a quote or a backslash cannot reach HAProxy by any path, nor the files and commands of an
engine. Nothing else may live here.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import ClassVar, Self


class Word(str):
    """A checked string; subclasses say which characters it may have and how a person would put the rule.

    Raises ValueError, with the rule in words, when the text does not follow it.
    """

    pattern: ClassVar[re.Pattern[str]] = re.compile(r"[!-~]+")
    rule: ClassVar[str] = "printable ASCII without spaces"

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Check the text and keep it."""
        if not cls.pattern.fullmatch(text):
            raise ValueError(f"{text!r} will not do: use {cls.rule}")
        return super().__new__(cls, text)


class Name(Word):
    """The name of a cluster, service, endpoint, node, host or group."""

    pattern = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,47}")
    rule = "a letter, then at most 47 letters, digits, '-' or '_'"


class CookieName(Word):
    """The name of a cookie."""

    pattern = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
    rule = "a letter, then at most 63 letters, digits, '-' or '_'"


class HttpPath(Word):
    """The path (and query) of a health check; the characters that HAProxy's parser gives a meaning must be escaped."""

    pattern = re.compile(r"/[A-Za-z0-9._~!$&()*+,=:@/?%-]{0,511}")
    rule = "'/' and then letters, digits and ._~!$&()*+,=:@/?%-, at most 512 characters (percent-encode the rest)"


class HostHeader(Word):
    """The Host header of a health check."""

    pattern = re.compile(r"[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?")
    rule = "a host name or address, with ':port' where needed"


class GrpcService(Word):
    """The service name in a gRPC health check; empty asks for the whole server."""

    pattern = re.compile(r"[A-Za-z0-9._/-]{0,100}")
    rule = "at most 100 letters, digits and ._/-"


class HttpMethod(Word):
    """The method of a health check: only those that change nothing."""

    pattern = re.compile(r"GET|HEAD|OPTIONS")
    rule = "GET, HEAD or OPTIONS"


class DataPath(Word):
    """A directory on a node's host, absolute or relative, without a step upwards.

    The engine's unix socket is in a directory beside it, and the whole path of a socket has at most 107 bytes.
    """

    pattern = re.compile(r"(?=.{1,77}$)(?!(.*/)?\.{1,2}(/|$))/?[A-Za-z0-9._+@-]+(/[A-Za-z0-9._+@-]+)*")
    rule = (
        "a path of at most 77 letters, digits and ._+@-, with single slashes between, "
        "without '.' and '..', such as /srv/orders"
    )


class RoleName(Word):
    """The name of a PostgreSQL role, as it is written without quotes; the engine keeps `pg_` for itself."""

    pattern = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,62}")
    rule = "a small letter or '_', then at most 62 small letters, digits or '_'; not `pg_` at its beginning"


_BYTE = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(rf"(?:{_BYTE}\.){{3}}{_BYTE}")
"""What ipaddress makes of an IPv4 address: it has one form only. Matching it takes a tenth of the time."""
_PORT = re.compile(r"[0-9]{1,5}")


def _shortest(host: str) -> str:
    """An IP literal in its shortest form; ValueError when it is none."""
    return host if _IPV4.fullmatch(host) else str(ipaddress.ip_address(host))


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """An IP address and a TCP port. `host` is an IPv4 or IPv6 literal in its shortest form."""

    host: str
    port: int

    def __post_init__(self) -> None:
        """Refuse what is no IP literal in its shortest form (a scope such as %eth0 may hold anything), or no port."""
        if "%" in self.host or _shortest(self.host) != self.host:
            raise ValueError(f"{self.host!r} is no IP address in its shortest form, without a scope")
        if not 1 <= self.port <= 65535:
            raise ValueError(f"port {self.port} is not between 1 and 65535")

    def __str__(self) -> str:
        """`10.0.0.1:80`, `[::1]:80`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read `10.0.0.1:80` or `[::1]:80`; ValueError says what would be right."""
        host, colon, port = text.rpartition(":")
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if not colon or not _PORT.fullmatch(port) or (":" in bare and bare == host):
            raise ValueError(f"{text!r} is no address: write IP:PORT, such as 10.0.0.1:8080 or [::1]:8080")
        try:
            return cls(_shortest(bare), int(port))
        except ValueError as fault:
            raise ValueError(f"{text!r} is no address: write IP:PORT, such as 10.0.0.1:8080 ({fault})") from None

    def overlaps(self, other: "Address") -> bool:
        """Whether both cannot be listened on at once: same port, and same host or one of them all hosts."""
        return self.port == other.port and (
            self.host == other.host or "0.0.0.0" in (self.host, other.host) or "::" in (self.host, other.host)
        )
