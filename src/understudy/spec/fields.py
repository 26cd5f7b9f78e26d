"""How one value of a spec file is read, and the same for editors: words, addresses, quantities, commands, secrets.

No field of a section lives here; those are in pool_shape.py, cluster_shape.py and shape.py, in the same words.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, WithJsonSchema
from pydantic_core import CoreSchema, core_schema

from understudy.core.text import Address, Name, Word
from understudy.spec import units
from understudy.spec.faults import shown
from understudy.spec.secrets import REFERENCE
from understudy.spec.units import DAY_MS

MAX_CONNECTIONS = 1_000_000
MAX_ARGUMENTS = 100
MAX_ARGUMENT = 4_096
MAX_BODY = 200
MAX_EXPECTED = 20
MAX_PATH = 1024
MAX_USER = 128


@dataclass(frozen=True, slots=True, eq=False)
class Reads:
    """How a field is read: `read` raises ValueError with a sentence; `schema` is the same for editors."""

    read: Callable[[Any], Any]
    schema: Mapping[str, Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Read with `read` alone."""
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Show `schema`."""
        return dict(self.schema)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        sentence = f"{shown(value)} is no text: write text, in quotes where it looks like something else"
        raise ValueError(sentence)  # noqa: TRY004  pydantic makes a fault of a ValueError only
    return value


def word(kind: type[Word]) -> Reads:
    """Text that follows the rule of a word of the core."""

    def read(value: Any) -> Word:
        if not kind.pattern.fullmatch(_text(value)):
            raise ValueError(f"{shown(value)} will not do: use {kind.rule}")
        return kind(value)

    return Reads(read, {"type": "string", "pattern": f"^({kind.pattern.pattern})$"})


def duration(least_ms: int, most_ms: int) -> Reads:
    """A duration with its unit, between two bounds."""

    def read(value: Any) -> int:
        value_ms = units.duration_ms(value) if isinstance(value, str) else None
        if value_ms is None:
            cure = f"{value}ms or {value}s" if type(value) is int and value >= 0 else "500ms, 4s, 1m, 2h or 1d"
            raise ValueError(f"{shown(value)} is no duration: write a whole number with its unit, such as {cure}")
        if not least_ms <= value_ms <= most_ms:
            bounds = f"{units.duration(least_ms)} to {units.duration(most_ms)}"
            raise ValueError(f"{shown(value)} is out of bounds: {bounds} will do")
        return value_ms

    return Reads(read, {"type": "string", "pattern": f"^({units.DURATION.pattern})$"})


def default_ms(value_ms: int) -> Any:
    """A default that editors see as a duration."""
    return Field(default=value_ms, json_schema_extra={"default": units.duration(value_ms)})


def default_word(word: Word) -> Any:
    """A default that is a word of the core."""
    return Field(default=str(word), validate_default=True)  # the schema can show no other string than a plain one


def _share(value: Any) -> int:
    percent = units.share_percent(value) if isinstance(value, str) else None
    if percent is None:
        cure = f"{value}%" if type(value) is int and 0 <= value <= 100 else "34%"
        raise ValueError(
            f"{shown(value)} is no share: write a whole number from 0% to 100% with its sign, such as {cure}"
        )
    return percent


def size(least_bytes: int, most_bytes: int) -> Reads:
    """A number of bytes with its unit, between two bounds."""

    def read(value: Any) -> int:
        value_bytes = units.size_bytes(value) if isinstance(value, str) else None
        if value_bytes is None:
            cure = f"{value}B or {value}MiB" if type(value) is int and value >= 0 else "64KiB, 1MiB or 1GiB"
            raise ValueError(f"{shown(value)} is no size: write a whole number with its unit, such as {cure}")
        if not least_bytes <= value_bytes <= most_bytes:
            bounds = f"{units.size(least_bytes)} to {units.size(most_bytes)}"
            raise ValueError(f"{shown(value)} is out of bounds: {bounds} will do")
        return value_bytes

    return Reads(read, {"type": "string", "pattern": f"^({units.SIZE.pattern})$"})


def _address(value: Any) -> Address:
    text = str(value) if type(value) is int else _text(value)
    host, _, port = text.rpartition(":")
    try:
        return Address.parse(f"127.0.0.1:{port}" if host == "localhost" else text)
    except ValueError:
        raise ValueError(_no_address(text, host, port)) from None


def _no_address(text: str, host: str, port: str) -> str:
    if re.fullmatch(r"[0-9]+", text):
        return f"{text[:9]} is no address: write IP:PORT, such as 0.0.0.0:{text[:5]} for all addresses of this machine"
    named = re.fullmatch(r"[A-Za-z0-9.-]*[A-Za-z][A-Za-z0-9.-]*", host) and host != "localhost"
    if named and re.fullmatch(r"[0-9]+", port):
        return f"{shown(text)}: names of hosts are not looked up; write the IP address, such as 10.0.0.1:{port[:5]}"
    if _is_ip(text.strip("[]")):
        return f"{shown(text)} lacks a port: write IP:PORT, such as 10.0.0.1:8080 or [::1]:8080"
    return f"{shown(text)} is no address: write IP:PORT, such as 10.0.0.1:8080 or [::1]:8080, ports from 1 to 65535"


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def _ip(value: Any) -> str:
    text = _text(value)
    if not _is_ip(text):
        raise ValueError(f"{shown(text)} is no IP address: write one without a port, such as 10.0.0.1")
    return str(ipaddress.ip_address(text))


_STATUS = re.compile(r"([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?")


def _expect(value: Any) -> tuple[tuple[int, int], ...]:
    entries = value if isinstance(value, list) else [value]
    if not 1 <= len(entries) <= MAX_EXPECTED:
        raise ValueError(f"write 1 to {MAX_EXPECTED} statuses or ranges")
    return tuple(_statuses(entry) for entry in entries)


def _statuses(value: Any) -> tuple[int, int]:
    match = _STATUS.fullmatch(str(value)) if type(value) in {int, str} else None
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if first > last:
        raise ValueError(f'{shown(value)} is no HTTP status: write 200, "200-299" or a list of them, from 100 to 599')
    return first, last


def _argument(value: Any) -> str:
    """One word of a command; numbers and true/false are given as they are written."""
    text = shown(value) if type(value) in {int, bool} else _text(value)
    if len(text) > MAX_ARGUMENT or "\0" in text:
        raise ValueError(f"{shown(value)} will not do: at most {MAX_ARGUMENT} characters, none of them NUL")
    return text


def _body(value: Any) -> str:
    if not 1 <= len(_text(value)) <= MAX_BODY or not value.isprintable():
        raise ValueError(f"{shown(value)} will not do: write 1 to {MAX_BODY} printable characters of one line")
    return str(value)


def _reference(value: Any) -> str:
    if not isinstance(value, str) or not REFERENCE.fullmatch(value):
        raise ValueError("write where the secret is, env:NAME or file:PATH, never the secret itself")  # never shown
    return value


def _user(value: Any) -> str:
    if not 1 <= len(_text(value)) <= MAX_USER or not value.isprintable():
        raise ValueError(f"{shown(value)} is no name of a user: write 1 to {MAX_USER} printable characters")
    return str(value)


def _file_path(value: Any) -> str:
    if not 1 <= len(_text(value)) <= MAX_PATH or not value.isprintable():
        raise ValueError(f"{shown(value)} is no path of a file: write 1 to {MAX_PATH} printable characters")
    return str(value)


def _variable(value: Any) -> str:
    if not re.fullmatch(_VARIABLE, _text(value)):
        raise ValueError(f"{shown(value)} is no environment variable: use letters, digits and '_', no digit first")
    return str(value)


_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]{0,127}"
_ADDRESS_SCHEMA = {
    "type": "string",
    "pattern": r"^([0-9]{1,3}(\.[0-9]{1,3}){3}|localhost|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$",
}
_IP_SCHEMA = {"type": "string", "pattern": r"^([0-9]{1,3}(\.[0-9]{1,3}){3}|[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*)$"}
_STATUS_SCHEMA = {
    "oneOf": [
        {"type": "integer", "minimum": 100, "maximum": 599},
        {"type": "string", "pattern": f"^({_STATUS.pattern})$"},
    ]
}
_EXPECT_SCHEMA = {
    "oneOf": [
        *_STATUS_SCHEMA["oneOf"],
        {"type": "array", "items": _STATUS_SCHEMA, "minItems": 1, "maxItems": MAX_EXPECTED},
    ]
}

ServiceName = Annotated[str, WithJsonSchema({"type": "string", "pattern": f"^({Name.pattern.pattern})$"})]
"""Checked by crosscheck.py, so that a bad name does not hide what else is wrong with the service."""
HostName = ServiceName
"""The same."""
AddressText = Annotated[Address, Reads(_address, _ADDRESS_SCHEMA)]
Connections = Annotated[int, Field(ge=0, le=MAX_CONNECTIONS)]
Times = Annotated[int, Field(ge=1, le=100)]
Choice = Field(strict=False)
Argument = Annotated[
    str, Reads(_argument, {"type": ["string", "integer", "boolean"], "maxLength": MAX_ARGUMENT, "pattern": r"^[^\0]*$"})
]
Command = Annotated[list[Argument], Field(min_length=1, max_length=MAX_ARGUMENTS)]
Timeout = Annotated[int, duration(1, 7 * DAY_MS)]
Share = Annotated[int, Reads(_share, {"type": "string", "pattern": f"^({units.SHARE.pattern})$"})]
Expected = Annotated[tuple[tuple[int, int], ...], Reads(_expect, _EXPECT_SCHEMA)]
BodyText = Annotated[
    str, Reads(_body, {"type": "string", "minLength": 1, "maxLength": MAX_BODY, "pattern": r"^[^\0-\x1f\x7f]*$"})
]
Variable = Annotated[str, Reads(_variable, {"type": "string", "pattern": f"^({_VARIABLE})$"})]
Reference = Annotated[str, Reads(_reference, {"type": "string", "pattern": "^(env:.+|file:.+)$"})]
FilePath = Annotated[str, Reads(_file_path, {"type": "string", "pattern": r"^[^\0-\x1f\x7f]{1,1024}$"})]
UserText = Annotated[str, Reads(_user, {"type": "string", "pattern": r"^[^\0-\x1f\x7f]{1,128}$"})]
IpText = Annotated[str, Reads(_ip, _IP_SCHEMA)]


def word_or_mapping(value: Any) -> str:
    """Which tag a field has that is either one word or a mapping."""
    return "mapping" if isinstance(value, dict) else "word"


class Shape(BaseModel):
    """What all sections have in common: unknown fields are faults, and nothing is converted silently."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)
