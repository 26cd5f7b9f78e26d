"""A pool told as a story: what is seen from look to look, and what `decide` makes of it. For the tests of core."""

from dataclasses import replace

from understudy.core.clock import Now
from understudy.core.events import Event
from understudy.core.model import (
    EjectionPolicy,
    Endpoint,
    FailoverMode,
    Group,
    HealthPolicy,
    Kind,
    PoolFailover,
    PoolService,
)
from understudy.core.pools import (
    Admin,
    EndpointSeen,
    Oper,
    PoolDecision,
    PoolMemory,
    PoolRecord,
    PoolSeen,
    PoolView,
    decide,
)
from understudy.core.text import Address, Name

HEALTH = HealthPolicy(interval_ms=300, timeout_ms=250, fall=2, rise=2, slow_start_ms=10_000)
EJECTION = EjectionPolicy(budget_percent=34, hold_ms=5_000, hold_max_ms=300_000, errors=5, window_ms=5_000)


def pool(
    primary: int = 3,
    backup: int = 0,
    mode: FailoverMode = FailoverMode.FAST,
    *,
    over_ms: int = 30_000,
    ejection: EjectionPolicy | None = None,
    health: HealthPolicy | None = None,
) -> PoolService:
    """The service `web` with endpoints w1, w2, … in the primary and b1, b2, … in the backup group."""
    kinds = [(f"w{n}", Group.PRIMARY) for n in range(1, primary + 1)]
    kinds += [(f"b{n}", Group.BACKUP) for n in range(1, backup + 1)]
    return PoolService(
        name=Name("web"),
        kind=Kind.HTTP,
        listen=Address("127.0.0.1", 8080),
        endpoints=tuple(
            Endpoint(Name(name), Address("127.0.0.1", 9000 + i), group=group) for i, (name, group) in enumerate(kinds)
        ),
        ejection=ejection or EJECTION,
        health=health or HEALTH,
        failover=PoolFailover(mode, over_ms),
    )


def look(service: PoolService, oper: Oper = Oper.UP) -> PoolSeen:
    """All endpoints in one state, for a long time."""
    return PoolSeen(
        tuple(
            EndpointSeen(one.name, one.group, oper, one.weight, 0, 0, "L7OK in 1 ms", since_s=3600.0)
            for one in service.endpoints
        )
    )


class Story:
    """What happens to one pool. `after` lets time pass and decides; the router obeys holds at once, as HAProxy does."""

    def __init__(self, service: PoolService, record: PoolRecord | None = None, seen: PoolSeen | None = None) -> None:
        self.service = service
        self.record = record or PoolRecord(service.name)
        self.seen = seen or look(service)
        self.previous: PoolSeen | None = None
        self.memory = PoolMemory()
        self.now = Now(boot_s=1000.0, wall_s=1_800_000_000.0)
        self.told: list[Event] = []
        self.after(0)

    def is_(self, oper: Oper, *names: str, check: str = "L7OK in 1 ms") -> "Story":
        """These endpoints are in that state from now on."""
        return self.each(names, lambda one: replace(one, oper=oper, check=check, since_s=0.0))

    def counts(self, name: str, requests: int = 0, errors: int = 0, downs: int = 0) -> "Story":
        """The endpoint counts so much more; `errors` are among `requests`."""

        def more(one: EndpointSeen) -> EndpointSeen:
            old = one.counters
            new = replace(old, requests=old.requests + requests, errors=old.errors + errors, downs=old.downs + downs)
            return replace(one, counters=new)

        return self.each((name,), more)

    def after(self, seconds: float, wall_s: float | None = None) -> "Story":
        """Time passes (the wall clock may pass otherwise), and `decide` looks."""
        wall_s = seconds if wall_s is None else wall_s
        self.now = Now(self.now.boot_s + seconds, self.now.wall_s + wall_s)
        self.seen = PoolSeen(tuple(replace(one, since_s=one.since_s + seconds) for one in self.seen.endpoints))
        decision = self.decide()
        self.told = list(decision.events)
        self.record, self.memory, self.previous = decision.record, decision.memory, self.seen
        self._obey()
        return self

    def decide(self) -> PoolDecision:
        """The decision on what is seen now."""
        return decide(PoolView(self.service, self.record, self.seen, self.previous, self.memory), self.now)

    def agent_restarts(self) -> "Story":
        """All that was not stored is forgotten."""
        self.memory, self.previous = PoolMemory(), None
        return self

    @property
    def kinds(self) -> list[str]:
        """The kinds of what was told last, with whom it is about."""
        return [f"{event.kind} {event.subject}" if event.subject else str(event.kind) for event in self.told]

    @property
    def held(self) -> list[str]:
        """Who is held out."""
        return [str(hold.endpoint) for hold in self.record.holds]

    def _obey(self) -> None:
        """The router puts who is held out into maintenance, and lets who no longer is pass its checks."""
        out = {hold.endpoint for hold in self.record.holds}
        out |= {name for name, admin in self.record.admin if admin is Admin.MAINT}
        self.is_(Oper.MAINT, *[one.endpoint for one in self.seen.endpoints if one.endpoint in out])
        back = [o.endpoint for o in self.seen.endpoints if o.oper is Oper.MAINT and o.endpoint not in out]
        self.is_(Oper.UP, *back)

    def each(self, names, change) -> "Story":
        """These endpoints are as `change` makes them."""
        self.seen = PoolSeen(tuple(change(one) if one.endpoint in names else one for one in self.seen.endpoints))
        return self
