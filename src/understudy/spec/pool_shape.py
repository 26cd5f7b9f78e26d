"""The shape of a stateless service: every field, its type, bounds, default and description.

One field at a time: what several fields must be together is crosscheck.py's. Defaults are the core's; only those that a
person reads are put in words here. A docstring below a field is what an editor shows.
"""

import itertools
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from understudy.core import model
from understudy.core.failover_mode import FailoverMode
from understudy.core.model import MAX_WEIGHT, Balance, Group, Kind, Retry
from understudy.core.text import Address, CookieName, GrpcService, HostHeader, HttpMethod, HttpPath, Name
from understudy.spec.fields import (
    AddressText,
    BodyText,
    Choice,
    Command,
    Connections,
    Expected,
    Reference,
    Shape,
    Share,
    Timeout,
    Times,
    Variable,
    default_ms,
    default_word,
    duration,
    word,
)
from understudy.spec.units import DAY_MS, HOUR_MS, SECOND_MS

MAX_ENDPOINTS = 1_000
MAX_SECRETS = 100

EXAMPLE: dict[str, Any] = {
    "kind": "http",
    "listen": "0.0.0.0:8080",
    "endpoints": [{"name": "w1", "address": "10.0.0.1:9001"}],
}
"""A right service."""

_ADDRESS = Address("127.0.0.1", 80)
_SERVICE = model.PoolService(Name("x"), Kind.HTTP, _ADDRESS, ())
_ENDPOINT = model.Endpoint(Name("x"), _ADDRESS)
_HEALTH = model.HealthPolicy()
_HTTP = model.HttpCheck()
_AGENT = model.AgentCheck(port=1)
_EJECTION = model.EjectionPolicy()
_FAILOVER = model.PoolFailover()
_TIMEOUTS = model.Timeouts()


class TcpShape(Shape):
    """Up when a connection can be made. It has no fields: write {}."""


class HttpShape(Shape):
    """Up when an HTTP request is answered as expected."""

    path: Annotated[HttpPath, word(HttpPath)] = default_word(_HTTP.path)
    """What is asked for."""
    method: Annotated[HttpMethod, word(HttpMethod)] = default_word(_HTTP.method)
    """GET, HEAD or OPTIONS."""
    host: Annotated[HostHeader | None, word(HostHeader)] = None
    """The Host header."""
    expect: Expected = Field(default=_HTTP.expect, json_schema_extra={"default": "200-399"})
    """Good statuses: 200, "200-299", or a list of them."""
    body: BodyText | None = None
    """Text that the answer's body must contain."""


class GrpcShape(Shape):
    """Up when the standard gRPC health service answers SERVING."""

    service: Annotated[GrpcService, word(GrpcService)] = default_word(model.GrpcCheck().service)
    """The service to ask about; the whole server when it is left out."""


class AgentShape(Shape):
    """A port on the endpoint's host that tells weight and state, in HAProxy's agent-check words."""

    port: Annotated[int, Field(ge=1, le=65535, examples=[9100])]
    """The TCP port of the agent on the endpoint's host."""
    interval: Annotated[int, duration(100, HOUR_MS)] = default_ms(_AGENT.interval_ms)
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
    interval: Annotated[int, duration(50, HOUR_MS)] = default_ms(_HEALTH.interval_ms)
    """Between two checks."""
    timeout: Annotated[int, duration(10, HOUR_MS)] = default_ms(_HEALTH.timeout_ms)
    """A check that takes longer has failed; at most the interval."""
    fall: Times = _HEALTH.fall
    """Failed checks in a row that take an endpoint down."""
    rise: Times = _HEALTH.rise
    """Good checks in a row that bring it up."""
    passive: bool = _HEALTH.passive
    """Whether real traffic's errors count too."""
    slow_start: Annotated[int, duration(0, HOUR_MS)] = default_ms(_HEALTH.slow_start_ms)
    """How long an endpoint's share rises after it came up; 0s for at once."""
    agent: AgentShape | None = None
    """An agent on the endpoint's host that tells weight and state."""


class EjectionShape(Shape):
    """How endpoints that misbehave although their checks pass are held out."""

    budget: Share = Field(
        default=_EJECTION.budget_percent, json_schema_extra={"default": f"{_EJECTION.budget_percent}%"}
    )
    """At most this share of a group is held out at once."""
    hold: Annotated[int, duration(100, DAY_MS)] = default_ms(_EJECTION.hold_ms)
    """The first hold; each further one doubles it."""
    hold_max: Annotated[int, duration(100, DAY_MS)] = default_ms(_EJECTION.hold_max_ms)
    """The longest hold."""
    errors: Annotated[int, Field(ge=1, le=10_000)] = _EJECTION.errors
    """Errors within the window that make an endpoint misbehave."""
    window: Annotated[int, duration(100, HOUR_MS)] = default_ms(_EJECTION.window_ms)
    """How far back errors count."""


class FailoverShape(Shape):
    """When and how the backup group takes over."""

    mode: Annotated[FailoverMode, Choice] = _FAILOVER.mode
    """fast: at once; gradual: its share rises; manual: when a person says so."""
    over: Annotated[int, duration(SECOND_MS, DAY_MS)] = default_ms(_FAILOVER.over_ms)
    """How long a gradual failover takes."""


class AffinityShape(Shape):
    """Clients stay with their endpoint by a cookie that the router sets."""

    cookie: Annotated[CookieName, word(CookieName), Field(examples=["SERVER"])]
    """The cookie's name."""


class TimeoutsShape(Shape):
    """How long the router waits."""

    connect: Timeout = default_ms(_TIMEOUTS.connect_ms)
    """For a connection to an endpoint."""
    client: Timeout = default_ms(_TIMEOUTS.client_ms)
    """For an idle client."""
    server: Timeout = default_ms(_TIMEOUTS.server_ms)
    """For an endpoint's answer."""
    queue: Timeout = default_ms(_TIMEOUTS.queue_ms)
    """In the queue of a full pool."""


class EndpointShape(Shape):
    """One of the interchangeable servers of a service."""

    model_config = ConfigDict(json_schema_extra={"dependentRequired": {"secrets": ["run"]}})

    name: Annotated[Name, word(Name), Field(examples=["w1"])]
    """Unique within the service."""
    address: Annotated[AddressText, Field(examples=["10.0.0.1:9001"])]
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
        dict[Variable, Reference], Field(max_length=MAX_SECRETS, json_schema_extra={"additionalProperties": False})
    ] = Field(default_factory=dict)
    """Environment variables of the command, each with where its value is: env:NAME or file:PATH."""


_HTTP_ONLY: JsonDict = {
    "if": {"properties": {"kind": {"const": "tcp"}}, "required": ["kind"]},
    "then": {"not": {"anyOf": [{"required": ["affinity"]}, {"required": ["retry"]}]}},
}


class PoolShape(Shape):
    """What an application dials: a pool of endpoints behind one address."""

    model_config = ConfigDict(json_schema_extra=_HTTP_ONLY)

    kind: Annotated[Kind, Field(strict=False, examples=[EXAMPLE["kind"]])]
    """What is spoken: http or tcp."""
    listen: Annotated[AddressText, Field(examples=[EXAMPLE["listen"]])]
    """IP:PORT that applications dial; 0.0.0.0 for all addresses of this machine."""
    endpoints: Annotated[
        list[EndpointShape], Field(min_length=1, max_length=MAX_ENDPOINTS, examples=[EXAMPLE["endpoints"]])
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

    def dialled(self) -> list[tuple[tuple[str, ...], Address]]:
        """Where routers listen for it, each with its place below the service."""
        return [(("listen",), self.listen)]
