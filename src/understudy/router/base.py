"""The port to a proxy: whole desired state in, minimal change out. Adapters: HAProxy and a fake."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from understudy.core.cluster_route import Route
from understudy.core.errors import Fault
from understudy.core.events import EventKind
from understudy.core.pools import PoolSeen
from understudy.core.routes import RouterState
from understudy.core.text import Name


class RouterFault(Fault):
    """The proxy is missing, does not answer, or refused; what it was doing before goes on."""


@dataclass(frozen=True, slots=True)
class Change:
    """What it takes to get from the running state to a desired one, in words, in order."""

    live: tuple[str, ...]
    """Changes made without a reload, a sentence each."""
    reload: tuple[str, ...]
    """Why a reload is needed, a sentence each; empty when it is not."""


@dataclass(frozen=True, slots=True)
class RouterEvent:
    """The proxy saw a server change its state, or itself changed."""

    service: Name | None
    endpoint: Name | None
    text: str
    kind: EventKind = EventKind.ROUTER_CHANGED
    """What the journal files it under, when it is about the proxy itself (`service` is None)."""


@dataclass(frozen=True, slots=True)
class RouterSeen:
    """What the proxy reports now; `workers` counts its processes, the ones still finishing old connections too."""

    pools: Mapping[Name, PoolSeen]
    pid: int
    """Of the worker that takes new connections."""
    workers: int
    cost_s: float = 0.0
    """Processor time that looking took in this process, so that the caller can look less often where it is much."""


class Router(Protocol):
    """One proxy on this host. Methods raise RouterFault with one sentence."""

    async def start(self, desired: RouterState) -> bool:
        """Adopt the running proxy, or start one; True when it was adopted. Then bring it to the desired state."""
        ...

    def plan(self, desired: RouterState) -> Change:
        """What `apply` would do; changes nothing."""
        ...

    async def apply(self, desired: RouterState) -> Change:
        """Bring the proxy to the desired state; on RouterFault it goes on with the one it had."""
        ...

    async def follow(self, cluster: Name, route: Route) -> None:
        """Bring a cluster's route into force, old sessions cut in every worker; done when it is.

        It stays in force over reloads and restarts of the proxy, until another is followed. RouterFault for an epoch
        lower than one that was ever followed here, and for a cluster that the state does not hold.
        """
        ...

    async def observe(self) -> RouterSeen:
        """What the proxy reports now."""
        ...

    def events(self) -> AsyncIterator[RouterEvent]:
        """What the proxy says as it happens; goes on across reloads and restarts of the proxy."""
        ...

    async def cut(self, service: Name, endpoint: Name) -> int:
        """End every session on that endpoint in every worker, old ones too; how many were ended."""
        ...

    async def sessions(self, service: Name, endpoint: Name) -> int:
        """Connections in flight on that endpoint over all workers, old ones too."""
        ...

    async def stop(self) -> None:
        """End the proxy and everything it started."""
        ...

    async def detach(self) -> None:
        """Let go and leave the proxy running."""
        ...
