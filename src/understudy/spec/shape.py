"""The shape of a spec file: every field, its type, bounds, default and description. And its schema.

One field at a time: what several fields must be together is crosscheck.py's. Defaults are the core's; only those that a
person reads are put in words here. A docstring below a field is what an editor shows.
"""

import ipaddress
import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, WithJsonSchema
from pydantic.config import JsonDict
from pydantic_core import CoreSchema, core_schema

from understudy.core import model
from understudy.core.failover_mode import FailoverMode
from understudy.core.model import MAX_WEIGHT, Balance, Group, Kind, Retry
from understudy.core.text import Address, CookieName, GrpcService, HostHeader, HttpMethod, HttpPath, Name, Word
from understudy.spec import units
from understudy.spec.faults import shown
from understudy.spec.secrets import REFERENCE
from understudy.spec.units import DAY_MS, HOUR_MS, SECOND_MS

MAX_SERVICES = 10_000
MAX_ENDPOINTS = 1_000
MAX_CONNECTIONS = 1_000_000
MAX_ARGUMENTS = 100
MAX_ARGUMENT = 4_096
MAX_BODY = 200
MAX_EXPECTED = 20
MAX_SECRETS = 100

LATER_KINDS = ("postgres", "redis", "mariadb", "command")
"""Kinds that the design knows and this version does not."""

_SERVICE_EXAMPLE = {
    "kind": "http",
    "listen": "0.0.0.0:8080",
    "endpoints": [{"name": "w1", "address": "10.0.0.1:9001"}],
}
EXAMPLES: Mapping[str, Any] = {
    "cluster": "shop",
    "services": {"web": _SERVICE_EXAMPLE},
    **_SERVICE_EXAMPLE,
    "name": "w1",
    "address": "10.0.0.1:9001",
    "port": 9100,
    "cookie": "SERVER",
}
"""A right value for every field that must be there."""


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


def _word(kind: type[Word]) -> Reads:
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


def _default_ms(value_ms: int) -> Any:
    return Field(default=value_ms, json_schema_extra={"default": units.duration(value_ms)})


def _default_word(word: Word) -> Any:
    return Field(default=str(word), validate_default=True)  # the schema can show no other string than a plain one


def _share(value: Any) -> int:
    percent = units.share_percent(value) if isinstance(value, str) else None
    if percent is None:
        cure = f"{value}%" if type(value) is int and 0 <= value <= 100 else "34%"
        raise ValueError(
            f"{shown(value)} is no share: write a whole number from 0% to 100% with its sign, such as {cure}"
        )
    return percent


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
    if re.fullmatch(r"[A-Za-z0-9.-]*[A-Za-z][A-Za-z0-9.-]*", host) and port:
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


def _variable(value: Any) -> str:
    if not re.fullmatch(_VARIABLE, _text(value)):
        raise ValueError(f"{shown(value)} is no environment variable: use letters, digits and '_', no digit first")
    return str(value)


_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]{0,127}"
_ADDRESS_SCHEMA = {
    "type": "string",
    "pattern": r"^([0-9]{1,3}(\.[0-9]{1,3}){3}|localhost|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$",
}
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
AddressText = Annotated[Address, Reads(_address, _ADDRESS_SCHEMA)]
Connections = Annotated[int, Field(ge=0, le=MAX_CONNECTIONS)]
Times = Annotated[int, Field(ge=1, le=100)]
Choice = Field(strict=False)
Argument = Annotated[
    str, Reads(_argument, {"type": ["string", "integer", "boolean"], "maxLength": MAX_ARGUMENT, "pattern": r"^[^\0]*$"})
]
Command = Annotated[list[Argument], Field(min_length=1, max_length=MAX_ARGUMENTS)]
Timeout = Annotated[int, duration(1, 7 * DAY_MS)]

_SPEC = model.Spec(Name("x"), ())
_SERVICE = model.PoolService(Name("x"), Kind.HTTP, _SPEC.api, ())
_ENDPOINT = model.Endpoint(Name("x"), _SPEC.api)
_HEALTH = model.HealthPolicy()
_HTTP = model.HttpCheck()
_AGENT = model.AgentCheck(port=1)
_EJECTION = model.EjectionPolicy()
_FAILOVER = model.PoolFailover()
_TIMEOUTS = model.Timeouts()


class Shape(BaseModel):
    """What all sections have in common: unknown fields are faults, and nothing is converted silently."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


class TcpShape(Shape):
    """Up when a connection can be made. It has no fields: write {}."""


class HttpShape(Shape):
    """Up when an HTTP request is answered as expected."""

    path: Annotated[HttpPath, _word(HttpPath)] = _default_word(_HTTP.path)
    """What is asked for."""
    method: Annotated[HttpMethod, _word(HttpMethod)] = _default_word(_HTTP.method)
    """GET, HEAD or OPTIONS."""
    host: Annotated[HostHeader | None, _word(HostHeader)] = None
    """The Host header."""
    expect: Annotated[tuple[tuple[int, int], ...], Reads(_expect, _EXPECT_SCHEMA)] = Field(
        default=_HTTP.expect, json_schema_extra={"default": "200-399"}
    )
    """Good statuses: 200, "200-299", or a list of them."""
    body: Annotated[
        str | None,
        Reads(_body, {"type": "string", "minLength": 1, "maxLength": MAX_BODY, "pattern": r"^[^\0-\x1f\x7f]*$"}),
    ] = None
    """Text that the answer's body must contain."""


class GrpcShape(Shape):
    """Up when the standard gRPC health service answers SERVING."""

    service: Annotated[GrpcService, _word(GrpcService)] = _default_word(model.GrpcCheck().service)
    """The service to ask about; the whole server when it is left out."""


class AgentShape(Shape):
    """A port on the endpoint's host that tells weight and state, in HAProxy's agent-check words."""

    port: Annotated[int, Field(ge=1, le=65535, examples=[EXAMPLES["port"]])]
    """The TCP port of the agent on the endpoint's host."""
    interval: Annotated[int, duration(100, HOUR_MS)] = _default_ms(_AGENT.interval_ms)
    """Between two questions."""


_CHECKS = ("tcp", "http", "grpc", "command")
_ONE_CHECK: JsonDict = {"not": {"anyOf": [{"required": list(pair)} for pair in itertools.combinations(_CHECKS, 2)]}}


class HealthShape(Shape):
    """How we come to believe that an endpoint is up or down. At most one of tcp, http, grpc and command; else tcp."""

    model_config = ConfigDict(json_schema_extra=_ONE_CHECK)

    tcp: TcpShape | None = None
    """Up when a connection can be made: tcp: {}"""
    http: HttpShape | None = None
    """Up when an HTTP request is answered as expected: http: {path: /healthz}"""
    grpc: GrpcShape | None = None
    """Up when the standard gRPC health service answers SERVING: grpc: {}"""
    command: Command | None = None
    """Up when this command ends with 0; it finds ADDRESS and PORT in its environment."""
    interval: Annotated[int, duration(50, HOUR_MS)] = _default_ms(_HEALTH.interval_ms)
    """Between two checks."""
    timeout: Annotated[int, duration(10, HOUR_MS)] = _default_ms(_HEALTH.timeout_ms)
    """A check that takes longer has failed; at most the interval."""
    fall: Times = _HEALTH.fall
    """Failed checks in a row that take an endpoint down."""
    rise: Times = _HEALTH.rise
    """Good checks in a row that bring it up."""
    passive: bool = _HEALTH.passive
    """Whether real traffic's errors count too."""
    slow_start: Annotated[int, duration(0, HOUR_MS)] = _default_ms(_HEALTH.slow_start_ms)
    """How long an endpoint's share rises after it came up; 0s for at once."""
    agent: AgentShape | None = None
    """An agent on the endpoint's host that tells weight and state."""


class EjectionShape(Shape):
    """How endpoints that misbehave although their checks pass are held out."""

    budget: Annotated[int, Reads(_share, {"type": "string", "pattern": f"^({units.SHARE.pattern})$"})] = Field(
        default=_EJECTION.budget_percent, json_schema_extra={"default": f"{_EJECTION.budget_percent}%"}
    )
    """At most this share of a group is held out at once."""
    hold: Annotated[int, duration(100, DAY_MS)] = _default_ms(_EJECTION.hold_ms)
    """The first hold; each further one doubles it."""
    hold_max: Annotated[int, duration(100, DAY_MS)] = _default_ms(_EJECTION.hold_max_ms)
    """The longest hold."""
    errors: Annotated[int, Field(ge=1, le=10_000)] = _EJECTION.errors
    """Errors within the window that make an endpoint misbehave."""
    window: Annotated[int, duration(100, HOUR_MS)] = _default_ms(_EJECTION.window_ms)
    """How far back errors count."""


class FailoverShape(Shape):
    """When and how the backup group takes over."""

    mode: Annotated[FailoverMode, Choice] = _FAILOVER.mode
    """fast: at once; gradual: its share rises; manual: when a person says so."""
    over: Annotated[int, duration(SECOND_MS, DAY_MS)] = _default_ms(_FAILOVER.over_ms)
    """How long a gradual failover takes."""


class AffinityShape(Shape):
    """Clients stay with their endpoint by a cookie that the router sets."""

    cookie: Annotated[CookieName, _word(CookieName), Field(examples=[EXAMPLES["cookie"]])]
    """The cookie's name."""


class TimeoutsShape(Shape):
    """How long the router waits."""

    connect: Timeout = _default_ms(_TIMEOUTS.connect_ms)
    """For a connection to an endpoint."""
    client: Timeout = _default_ms(_TIMEOUTS.client_ms)
    """For an idle client."""
    server: Timeout = _default_ms(_TIMEOUTS.server_ms)
    """For an endpoint's answer."""
    queue: Timeout = _default_ms(_TIMEOUTS.queue_ms)
    """In the queue of a full pool."""


class EndpointShape(Shape):
    """One of the interchangeable servers of a service."""

    model_config = ConfigDict(json_schema_extra={"dependentRequired": {"secrets": ["run"]}})

    name: Annotated[Name, _word(Name), Field(examples=[EXAMPLES["name"]])]
    """Unique within the service."""
    address: Annotated[AddressText, Field(examples=[EXAMPLES["address"]])]
    """IP:PORT where it answers."""
    weight: Annotated[int, Field(ge=0, le=MAX_WEIGHT)] = _ENDPOINT.weight
    """Its share of the traffic in proportion to the others'; 0 for none."""
    group: Annotated[Group, Choice] = _ENDPOINT.group
    """The backup group serves when the primary group cannot."""
    maxconn: Connections = _ENDPOINT.maxconn
    """Connections at once before requests queue; 0 for no limit."""
    run: Command | None = None
    """The command that understudy starts and restarts, in the folder of this file; left out when others start it."""
    secrets: Annotated[
        dict[
            Annotated[str, Reads(_variable, {"type": "string", "pattern": f"^({_VARIABLE})$"})],
            Annotated[str, Reads(_reference, {"type": "string", "pattern": "^(env:.+|file:.+)$"})],
        ],
        Field(max_length=MAX_SECRETS, json_schema_extra={"additionalProperties": False}),
    ] = Field(default_factory=dict)
    """Environment variables of the command, each with where its value is: env:NAME or file:PATH."""


_HTTP_ONLY: JsonDict = {
    "if": {"properties": {"kind": {"const": "tcp"}}, "required": ["kind"]},
    "then": {"not": {"anyOf": [{"required": ["affinity"]}, {"required": ["retry"]}]}},
}


class ServiceShape(Shape):
    """What an application dials: a pool of endpoints behind one address."""

    model_config = ConfigDict(json_schema_extra=_HTTP_ONLY)

    kind: Annotated[Kind, Field(strict=False, examples=[EXAMPLES["kind"]])]
    """What is spoken: http or tcp."""
    listen: Annotated[AddressText, Field(examples=[EXAMPLES["listen"]])]
    """IP:PORT that applications dial; 0.0.0.0 for all addresses of this machine."""
    endpoints: Annotated[
        list[EndpointShape], Field(min_length=1, max_length=MAX_ENDPOINTS, examples=[EXAMPLES["endpoints"]])
    ]
    """The servers, in order."""
    balance: Annotated[Balance, Choice] = _SERVICE.balance
    """How the next endpoint is chosen."""
    health: HealthShape = Field(default_factory=HealthShape)
    """How we come to believe that an endpoint is up or down."""
    ejection: EjectionShape = Field(default_factory=EjectionShape)
    """How endpoints that misbehave although their checks pass are held out."""
    failover: FailoverShape = Field(default_factory=FailoverShape)
    """When and how the backup group takes over."""
    affinity: AffinityShape | None = None
    """Keeps each client at its endpoint, by a cookie (http only)."""
    retry: Annotated[Retry, Choice] = _SERVICE.retry
    """Which requests may be sent to a second endpoint when the first may have begun to execute them (http only)."""
    timeouts: TimeoutsShape = Field(default_factory=TimeoutsShape)
    """How long the router waits."""
    maxconn: Connections = _SERVICE.maxconn
    """Connections at once before clients wait; 0 for the router's own limit."""


def _store(value: Any) -> str:
    if value != "sqlite":
        raise ValueError(
            f"{shown(value)} will not do: only `sqlite`, the store of one machine, works today; etcd comes later"
        )
    return "sqlite"


class SpecShape(Shape):
    """The services that understudy keeps available, in one file."""

    cluster: Annotated[Name, _word(Name), Field(examples=[EXAMPLES["cluster"]])]
    """The name of the whole."""
    store: Annotated[str, Reads(_store, {"const": "sqlite"})] = "sqlite"
    """Where facts are kept: sqlite, a file in the state directory."""
    api: AddressText = Field(default=_SPEC.api, json_schema_extra={"default": str(_SPEC.api)})
    """IP:PORT of the API and the metrics."""
    services: Annotated[
        dict[ServiceName, ServiceShape],
        Field(
            min_length=1,
            max_length=MAX_SERVICES,
            examples=[EXAMPLES["services"]],
            json_schema_extra={"additionalProperties": False},
        ),
    ]
    """The services by name."""
