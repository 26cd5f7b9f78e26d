"""An operator without an agent: it answers from values that a test can set, and notes the verbs that it was asked."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from understudy.control.view import (
    ClusterStatus,
    EndpointStatus,
    Foretold,
    LastFailover,
    NodeStatus,
    Progress,
    RouterStatus,
    ServiceStatus,
    SpecChange,
    Status,
    Version,
    Wish,
)
from understudy.core.cluster_why import NodeHealth
from understudy.core.errors import Refused
from understudy.core.events import Entry, Event, EventKind
from understudy.core.model import Group, Kind
from understudy.core.objectives import Objectives, ServiceHealth
from understudy.core.pools import Admin, Oper
from understudy.core.report import Running
from understudy.core.text import Name
from understudy.core.what_if import Mishap

STARTED_WALL_S = 1_700_000_000.0


def endpoint(name: str, oper: Oper = Oper.UP, **changes) -> EndpointStatus:
    fields = {
        "name": name,
        "address": "127.0.0.1:9001",
        "group": Group.PRIMARY,
        "oper": oper,
        "admin": Admin.READY,
        "weight": 1,
        "effective_weight": 1,
        "sessions": 3,
        "queued": 0,
        "requests": 1200,
        "errors": 4,
        "check": "answered 200 in 1 ms",
        "since_s": 93.0,
        "held_until_wall_s": None,
        "reason": f"{name} answers its checks",
    }
    return EndpointStatus(**(fields | changes))


def service(name: str = "web", health: ServiceHealth = ServiceHealth.UP, endpoints=None, **changes) -> ServiceStatus:
    fields = {
        "name": name,
        "kind": Kind.HTTP,
        "listen": "127.0.0.1:8080",
        "health": health,
        "active_group": Group.PRIMARY,
        "backup_share_percent": 0,
        "endpoints": endpoints or (endpoint("w1"), endpoint("w2")),
        "objectives": Objectives(STARTED_WALL_S, 7200.0, 99.95, 2, 3600.0, 1.8, 2400, 1),
        "reason": f"{name} has all of its endpoints",
    }
    return ServiceStatus(**(fields | changes))


def node(name: str, role: str = "standby", **changes) -> NodeStatus:
    fields = {
        "name": name,
        "host": "local",
        "address": "127.0.0.1:15432",
        "role": role,
        "health": NodeHealth.UP,
        "running": Running.UP,
        "timeline": "3",
        "position": "3/4711",
        "lag_bytes": 0,
        "sync": role == "standby",
        "follows": "a" if role == "standby" else None,
        "reason": f"{name} does its duty.",
    }
    return NodeStatus(**(fields | changes))


def cluster(name: str = "orders", health: ServiceHealth = ServiceHealth.UP, **changes) -> ClusterStatus:
    fields = {
        "name": name,
        "kind": "postgres",
        "write": "127.0.0.1:6432",
        "read": "127.0.0.1:6433",
        "health": health,
        "phase": "steady",
        "epoch": 3,
        "primary": "a",
        "durability": "zero_loss, 1 of the standbys",
        "steward": "local",
        "nodes": (node("a", "primary"), node("b"), node("c", lag_bytes=120)),
        "last_failover": LastFailover(3, 0.01, 0.02, 0.03, 0.04, 0.05, 0, "everything is there"),
        "unblock": None,
        "reason": "a is primary in epoch 3 (steady).",
    }
    return ClusterStatus(**(fields | changes))


@dataclass
class FakeOperator:
    """Fulfils control.view.Operator."""

    services: tuple[ServiceStatus, ...] = (service(),)
    clusters: tuple[ClusterStatus, ...] = ()
    entries: list[Entry] = field(default_factory=list)
    asked: list[tuple] = field(default_factory=list)
    router: RouterStatus = RouterStatus(4711, 1, healthy=True, reason="the router does what is desired")
    fault: Exception | None = None
    """Raised by every verb and question, when set."""
    drain: list[Progress] = field(default_factory=list)
    """What `progress` answers, one after the other; the last one for good."""
    news: asyncio.Queue = field(default_factory=asyncio.Queue)

    def note(self, kind: EventKind, reason: str, service: str | None = None, **data) -> Entry:
        """Put an entry into the journal."""
        event = Event(kind, reason, Name(service) if service else None, None, tuple(data.items()))
        entry = Entry(len(self.entries) + 1, STARTED_WALL_S + len(self.entries), event)
        self.entries.append(entry)
        self.news.put_nowait(entry)
        return entry

    async def status(self) -> Status:
        if isinstance(self.fault, RuntimeError):
            raise self.fault
        return Status("shop", 3, STARTED_WALL_S, STARTED_WALL_S + 7200.0, self.router, self.services, self.clusters)

    def _ask(self, *verb, endpoint: str | None = None) -> None:
        self.asked.append(verb)
        if self.fault:
            raise self.fault
        named = next((each for each in self.services if each.name == verb[1]), None)
        if named is None:
            raise Refused(f"there is no service {verb[1]!r}: the spec names {self.services[0].name}")
        if endpoint is not None and all(each.name != endpoint for each in named.endpoints):
            raise Refused(f"{verb[1]} has no endpoint {endpoint!r}")

    async def why(self, service: str) -> tuple[str, ...]:
        self._ask("why", service)
        return (f"{service} is up since all of its endpoints answer", "it would be down if both failed")

    async def events(self, after: int, limit: int, service: str | None) -> tuple[Entry, ...]:
        chosen = [e for e in self.entries if e.number > after and service in (None, e.event.service)]
        return tuple(chosen[-limit:] if after == -1 else chosen[:limit])

    async def follow(self, after: int) -> AsyncIterator[Entry]:
        while entry := await self.news.get():
            if entry.number > after:
                yield entry

    async def set_admin(self, service: str, endpoint: str, admin: Admin) -> str:
        self._ask("admin", service, endpoint, admin, endpoint=endpoint)
        return f"{service}/{endpoint} is to be {admin}"

    async def progress(self, service: str, endpoint: str) -> Progress:
        self._ask("progress", service, endpoint, endpoint=endpoint)
        return self.drain.pop(0) if len(self.drain) > 1 else self.drain[0]

    async def set_weight(self, service: str, endpoint: str, weight: int) -> str:
        self._ask("weight", service, endpoint, weight, endpoint=endpoint)
        return f"{service}/{endpoint} has weight {weight} from now on"

    async def failover(self, service: str) -> str:
        self._ask("failover", service)
        return f"{service} moves to its backup group"

    async def ask(self, service: str, wish: Wish) -> str:
        self.asked.append(("ask", service, wish))
        if self.fault:
            raise self.fault
        return f"The {wish.kind} of {service} is done."

    async def what_if(self, node: str, service: str | None) -> tuple[Foretold, ...]:
        self.asked.append(("what_if", node, service))
        if self.fault:
            raise self.fault
        engine = Foretold(node, Mishap.ENGINE, "b", 0.25, 0, f"b would take over from {node} after about 0.2 s.")
        return (engine, Foretold(node, Mishap.HOST, None, None, None, f"Nobody would take over from {node}."))

    async def decision(self, number: int) -> tuple[Entry, ...]:
        return tuple(entry for entry in self.entries if entry.number == number)

    async def failback(self, service: str) -> str:
        self._ask("failback", service)
        return f"{service} moves back to its primary group"

    async def plan(self, text: str) -> SpecChange:
        self._ask("plan", "web", text)
        return SpecChange(3, None, ("web gains endpoint w3",), ("web needs more slots",))

    async def apply(self, text: str) -> SpecChange:
        self._ask("apply", "web", text)
        return SpecChange(3, 4, ("web gains endpoint w3",), ())

    async def rollback(self, to_version: int | None) -> SpecChange:
        self._ask("rollback", "web", to_version)
        return SpecChange(4, 5, ("web loses endpoint w3",), ())

    async def versions(self) -> tuple[Version, ...]:
        return (Version(3, STARTED_WALL_S + 60, "applied"), Version(2, STARTED_WALL_S, "read at start"))
