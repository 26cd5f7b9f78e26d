"""What the cluster loop needs from outside, besides store, clock and drivers. Every effect goes through one of these.

RULES: no port may be asked from within `tick` itself, only from work in a lane (lane.py); so nothing that hangs can
hold up a tick, and a fake that answers without suspending is done at once, without an event loop.
"""

from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from understudy.control.clock import Clock
from understudy.core.cluster import Capabilities, ClusterService, Node
from understudy.core.cluster_route import Route
from understudy.core.events import Event
from understudy.core.lineage import Position
from understudy.core.text import Name
from understudy.drivers.base import Driver, Prober
from understudy.store.base import Delete, Expect, Outcome, Put, Store


class Work(Protocol):
    """Something that runs in the background."""

    def cancel(self) -> object:
        """End it where it is; it must run no step of its own any more, but for cleaning up."""
        ...


Spawn = Callable[[Coroutine[Any, Any, None]], Work]
"""Begin to run it. What does not have to wait may be done before this returns. Its exceptions are programmer errors."""


class Fence(Protocol):
    """A node's guard: kills the engine before the deadline unless it is moved."""

    async def renew(self, deadline_boot_s: float, *, margin_s: float, epoch: int) -> object:
        """Arm it, or move its deadline. Raises Refused when it is too late, Fault when there is no guard."""
        ...


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a node must remember whatever happens to its agent, its host or the store."""

    identity: str | None = None
    """Of the cluster whose data this is."""
    epoch: int = 0
    """The highest under which anything was begun here."""
    serial: int = 0
    """Of the record that ordered it."""
    frozen_epoch: int = 0
    closed_epoch: int = 0
    rebuilt: int = 0
    less_data: bool = False
    needs_rebuild: bool = False
    company: tuple[Name, ...] = ()
    """Who had a duty in the newest record read."""
    company_identity: str | None = None
    """Of the cluster that this was a record of."""
    reached: Position | None = None
    """The last position known when the engine stopped: what it must still have when it comes back."""
    moves: int = 0
    """How many deeds were begun here after which the node may rightly have less."""
    reign: int = 0
    """The epoch in which this node has, or last had, the part."""
    electorates: tuple[frozenset[Name], ...] = ()
    """Whose promises it needs in that reign while the store is away, by the record of `serial`."""
    promised_epoch: int = 0
    """Above 0: a promise to a primary of this epoch may be outstanding. A new agent takes it for a whole one."""
    promised_ms: int = 0
    """How long that was for: a new agent may have another lease in its spec."""


class NodeDisk(Protocol):
    """Where the facts of one node are kept, beside its data: they are lost with it, and only with it."""

    async def load(self) -> NodeFacts:
        """What was saved last; the default when nothing ever was. Raises Fault when it cannot be read."""
        ...

    async def save(self, facts: NodeFacts) -> None:
        """Flushed when this returns. Raises Fault when it cannot be; then either the old or the new ones are there.

        Calls are carried out in the order in which they were made, also when one of them is given up.
        """
        ...


@dataclass(frozen=True, slots=True)
class PromiseRequest:
    """A primary's agent that has lost the store asks: be part of no promotion above `epoch` for that long."""

    cluster: Name
    identity: str
    epoch: int
    primary: Name
    duration_ms: int


class Transport(Protocol):
    """From agent to agent, for when the store is away."""

    async def ask(self, node: Node, request: PromiseRequest) -> bool:
        """Whether that node's agent promised (its `ClusterLoop.promise`). Raises Fault when it does not answer."""
        ...


class Chronicle(Protocol):
    """The journal (control/journal.py): stores what is decided together with the events that say why."""

    async def commit(
        self, expects: Sequence[Expect], changes: Sequence[Put | Delete], events: Iterable[Event], *, wall_s: float
    ) -> Outcome:
        """All or nothing; raises StoreFault when the fate is unknown."""
        ...


class Rerouter(Protocol):
    """The router of this host."""

    async def follow(self, cluster: Name, route: Route) -> None:
        """Bring the route into force, old sessions cut; done when it is. Refuses lower epochs. Raises Fault."""
        ...


@dataclass(frozen=True, slots=True)
class OwnNode:
    """A node of this host, and what it takes to run it."""

    node: Node
    driver: Driver
    fence: Fence
    disk: NodeDisk


@dataclass(frozen=True, slots=True)
class Ports:
    """All effects of one agent, for one cluster."""

    host: Name
    service: ClusterService
    capabilities: Capabilities
    """Of the service's engine, also where no node of it runs."""
    clock: Clock
    store: Store
    spawn: Spawn
    prober: Prober
    transport: Transport
    chronicle: Chronicle
    own: tuple[OwnNode, ...]
    """Those of the spec that are on this host, and those that have left it and were not let go yet (`let_go`)."""
    draw_identity: Callable[[], str]
    """A new cluster's identity, never drawn before."""
    wake: Callable[[], None]
    """Something came that `tick` should look at before its time."""
    tell: Callable[[Event], None] = field(default=lambda _event: None)
    """What happened, once it is stored: for log, metrics and console."""
    let_go: Callable[[Name], None] = field(default=lambda _name: None)
    """A node of this host has left: its engine is stopped and nothing is done to it any more; its data stay."""
    router: Rerouter | None = None
