"""The shape of a stateful service: every field, its type, bounds, default and description.

One field at a time, as in pool_shape.py; what several fields must be together is crosscheck_clusters.py's.
"""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from understudy.core.cluster import ClusterService, Node, Timers
from understudy.core.failover_mode import FailoverMode
from understudy.core.stateful import PostgresService, Superuser
from understudy.core.text import Address, DataPath, Name, RoleName
from understudy.spec import units
from understudy.spec.faults import shown
from understudy.spec.fields import (
    AddressText,
    Reads,
    Reference,
    Shape,
    default_ms,
    default_word,
    duration,
    size,
    word,
    word_or_mapping,
)
from understudy.spec.units import DAY_MS, MINUTE_MS, SECOND_MS

POSTGRES = "postgres"
MAX_NODES = 9
MAX_BYTES = 2**40
LEAST_LEASE_MS = 2 * SECOND_MS
"""Shorter ones were never simulated, and leave a busy machine no room."""

_NODE = Node(Name("x"), Name("x"))
_CLUSTER = ClusterService(Name("x"), ())
_SERVICE = PostgresService(_CLUSTER, Address("127.0.0.1", 80), None, ())
_TIMERS = Timers()
_NODES_EXAMPLE = [{"name": "a", "address": "10.0.0.1:5432", "data": "/var/lib/understudy/orders"}]
_LISTEN_EXAMPLE = {"write": "0.0.0.0:7432"}
ZERO_LOSS = "zero_loss"


class ListenShape(Shape):
    """What applications dial."""

    write: Annotated[AddressText, Field(examples=[_LISTEN_EXAMPLE["write"]])]
    """IP:PORT that leads to the primary; 0.0.0.0 for all addresses of the machine."""
    read: AddressText | None = None
    """IP:PORT that leads to a standby, or to the primary where there is none."""


class MaxLossShape(Shape):
    """Writes do not wait for a standby, and a failover may lose some."""

    max_loss: Annotated[int, size(1, MAX_BYTES), Field(examples=["1MiB"])]
    """A standby that lacks more than this is not promoted."""


def _zero_loss(value: Any) -> str:
    if value != ZERO_LOSS:
        raise ValueError(f"{shown(value)} will not do: write zero_loss or {{max_loss: 1MiB}}")
    return ZERO_LOSS


Durability = Annotated[
    Annotated[str, Reads(_zero_loss, {"const": ZERO_LOSS}), Tag("word")] | Annotated[MaxLossShape, Tag("mapping")],
    Discriminator(word_or_mapping),
]


def _mode(value: Any) -> FailoverMode:
    if value not in _MODES:
        raise ValueError(f"{shown(value)} will not do: choose one of {', '.join(_MODES)}; a cluster has one primary")
    return FailoverMode(value)


_MODES = (str(FailoverMode.FAST), str(FailoverMode.MANUAL))
_LONGEST_TIMER_MS = 30 * SECOND_MS


class ClusterFailoverShape(Shape):
    """When and how another node takes over. renew + 2 x timeout + margin must not exceed the lease."""

    model_config = ConfigDict(json_schema_extra={"dependentRequired": {"failback_every": ["preferred"]}})

    mode: Annotated[FailoverMode, Reads(_mode, {"enum": list(_MODES)})] = _CLUSTER.mode
    """fast: by itself, as soon as the primary is lost; manual: when a person says so."""
    lease: Annotated[int, duration(LEAST_LEASE_MS, MINUTE_MS)] = default_ms(_TIMERS.lease_ms)
    """How long a primary that is cut off may go on; other timers follow it in proportion."""
    renew: Annotated[int, duration(100, _LONGEST_TIMER_MS)] | None = None
    """How often the primary renews its lease; a quarter of the lease when it is left out."""
    timeout: Annotated[int, duration(100, _LONGEST_TIMER_MS)] | None = None
    """How long one renewal may take; a quarter of the lease when it is left out."""
    margin: Annotated[int, duration(100, _LONGEST_TIMER_MS)] | None = None
    """What is left of the lease for ending the engine; a quarter of the lease when it is left out."""
    promote: Annotated[int, duration(SECOND_MS, DAY_MS)] = default_ms(_TIMERS.promote_ms)
    """How long a promotion may take, crash recovery included, before another node is tried."""
    preferred: Annotated[Name, word(Name)] | None = None
    """The node where the primary should be when all is well; without it, the primary stays where it is."""
    failback_every: Annotated[int, duration(MINUTE_MS, 30 * DAY_MS)] = default_ms(_CLUSTER.failback_every_s * SECOND_MS)
    """At most so often does the primary go back to the preferred node by itself."""


class NodeShape(Shape):
    """One engine process of the cluster."""

    name: Annotated[Name, word(Name), Field(examples=[_NODES_EXAMPLE[0]["name"]])]
    """Unique within the service."""
    host: Annotated[Name, word(Name)] | None = None
    """Which of `hosts` it runs on; left out on one machine."""
    address: Annotated[AddressText, Field(examples=[_NODES_EXAMPLE[0]["address"]])]
    """IP:PORT where the engine listens, on its own host."""
    data: Annotated[DataPath, word(DataPath), Field(examples=[_NODES_EXAMPLE[0]["data"]])]
    """The directory of its data, which no other node has; a relative one is below `data` in the state directory."""
    priority: Annotated[int, Field(ge=0, le=100)] = _NODE.priority
    """The higher is preferred among equals; 0 is never promoted."""


class SuperuserShape(Shape):
    """The engine's superuser, by whom understudy works."""

    name: Annotated[RoleName, word(RoleName)] = default_word(Superuser().name)
    """Its name."""
    password: Reference | None = None
    """Where its password is, env:NAME or file:PATH; understudy draws one when it is left out."""


class PostgresShape(Shape):
    """A PostgreSQL cluster: one node takes writes, the others stand by."""

    kind: Annotated[Literal["postgres"], Field(examples=[POSTGRES])]
    """What is spoken: postgres."""
    listen: Annotated[ListenShape, Field(examples=[_LISTEN_EXAMPLE])]
    """What applications dial."""
    nodes: Annotated[list[NodeShape], Field(min_length=1, max_length=MAX_NODES, examples=[_NODES_EXAMPLE])]
    """The engine processes, in order."""
    durability: Durability = ZERO_LOSS
    """zero_loss: no acknowledged write is lost; {max_loss: 1MiB}: writes do not wait, and so much may be lost."""
    acks: Annotated[int, Field(ge=1, le=MAX_NODES - 1)] = _CLUSTER.durability.acks
    """How many standbys must have a write before it is acknowledged (zero_loss only)."""
    failover: ClusterFailoverShape = Field(default_factory=ClusterFailoverShape)
    """When and how another node takes over."""
    superuser: SuperuserShape = Field(default_factory=SuperuserShape)
    """The engine's superuser, by whom understudy works."""
    max_lag: Annotated[int, size(0, MAX_BYTES)] = Field(
        default=_SERVICE.max_lag_bytes, json_schema_extra={"default": units.size(_SERVICE.max_lag_bytes)}
    )
    """A standby that is further behind than this is not read from."""

    def dialled(self) -> list[tuple[tuple[str, ...], Address]]:
        """Where routers listen for it, each with its place below the service."""
        both = (("write", self.listen.write), ("read", self.listen.read))
        return [(("listen", step), address) for step, address in both if address is not None]
