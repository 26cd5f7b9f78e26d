"""What a seed stands for: a cluster, its hosts' clocks, and what befalls it. Values only; all from the seed."""

from dataclasses import dataclass
from random import Random

from tests.simulation.changes import Change, nodes_of, with_changes
from tests.simulation.engine import ALL_RULES, MARIADB, POSTGRES, Rules
from tests.simulation.faults import LOOSE, LOOSE_WIDE, STRICT, THEMES, Fault, draw_faults, draw_themed, theme_of

from understudy.core.cluster import ClusterService, Durability, Node, Timers
from understudy.core.failover_mode import FailoverMode
from understudy.core.text import Name

CLUSTER = Name("shop")
LEASES_MS = (2000, 3000, 4000, 6000, 8000, 10_000, 12_000, 15_000, 15_000, 15_000)


@dataclass(frozen=True, slots=True)
class Plan:
    """One run."""

    seed: int
    service: ClusterService
    rules: Rules
    hosts: tuple[str, ...]
    """All that have an agent; the first ones have a node each."""
    routers: tuple[str, ...]
    rates: tuple[float, ...]
    """How fast each host's clock goes."""
    faults: tuple[Fault, ...]
    faulty_s: float
    """When the last fault has healed."""
    quiet_s: float
    """How long it runs on after that."""
    theme: str
    """The plot that it is about; empty: nothing in particular."""
    last_loss: str
    """How the primary's machine is lost for good in the end; empty: not at all."""
    observers_only: bool
    """Faults befall only those who watch: the primary must keep its part (I11)."""
    write_every_s: float
    changes: tuple[Change, ...] = ()
    """How the spec changes; the last one stands in the end."""

    @property
    def final(self) -> ClusterService:
        """The spec in the end."""
        return self.changes[-1].service if self.changes else self.service

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Every node that is ever in the spec."""
        return nodes_of(self.service, self.changes)

    def __str__(self) -> str:
        """One line that says what is special about it."""
        service = self.service
        loss = service.durability.max_loss_bytes
        rule = f"zero_loss, acks {service.durability.acks}" if loss is None else f"max_loss {loss}"
        extra = " observers only" if self.observers_only else f", about {self.theme}" if self.theme else ""
        return (
            f"{self.rules.kind}, {len(service.nodes)} nodes, {len(self.hosts)} agents, {rule}, {service.mode}, "
            f"lease {service.timers.lease_ms} ms, preferred {service.preferred}, {len(self.faults)} faults{extra}"
            + (f", {len(self.changes)} changes" if self.changes else "")
        )


def draw(seed: int) -> Plan:
    """The plan of a seed."""
    random = Random(f"plan {seed}")
    theme = theme_of(seed)
    rules, service = _themed(random, theme) if theme else _anything(random)
    count = len(service.nodes)
    hosts = tuple(f"h{number}" for number in range(1, count + 1 + random.choice((0, 0, 1))))
    observers_only = theme == "mute" or (not theme and random.random() < 0.15 and count > 1)
    faulty_s = _faulty_s(random, service, theme)
    plan = Plan(
        seed=seed,
        service=service,
        rules=rules,
        hosts=hosts,
        routers=tuple(sorted(random.sample(hosts, k=min(len(hosts), random.choice((1, 2)))))),
        rates=tuple(1.0 + random.uniform(-0.0004, 0.0004) for _ in hosts),
        faults=(
            draw_themed(random, service, hosts, faulty_s, theme)
            if theme
            else draw_faults(random, service, hosts, faulty_s, observers_only=observers_only)
        ),
        faulty_s=faulty_s,
        quiet_s=bound_s(service.timers) + 15.0,
        theme=theme,
        last_loss="" if observers_only else random.choice(("host_crash", "host_crash", "isolate", "")),
        observers_only=observers_only,
        write_every_s=random.choice((0.3, 1.0, 2.0)),
    )
    return with_changes(plan)


def _faulty_s(random: Random, service: ClusterService, theme: str) -> float:
    """Its length is drawn in leases, since that is what troubles take: most runs are short, so that there are many.

    How often something fails back is measured in minutes, whatever the lease.
    """
    leases = 4.0 + 20.0 * random.random() ** 2
    return (120.0 if theme == "preferred_dies" else 25.0) + leases * service.timers.lease_ms / 1000


def bound_s(timers: Timers) -> float:
    """Within what time after the last fault somebody must take writes.

    What may have to run out one after the other: a promotion or a switchover under way, a fence that gets late, a
    person's answer to what is blocked, and once more a fence and a promotion.
    """
    return (3 * timers.fence_ms + 2 * timers.promote_ms + timers.handover_ms + timers.elector_drop_ms) / 1000 + 30.0


def _anything(random: Random) -> tuple[Rules, ClusterService]:
    rules = random.choice((POSTGRES, *ALL_RULES))
    count = random.choice((1, 2, 3, 3, 3, 3, 4, 5))
    strict = rules.capabilities.zero_loss_commit and count > 1 and random.random() < 0.75
    acks = random.choice((1, 1, 2)) if count > 2 else 1
    nodes = _nodes(random, count)
    return rules, ClusterService(
        name=CLUSTER,
        nodes=nodes,
        durability=_durability(random, acks, strict=strict),
        mode=FailoverMode.MANUAL if random.random() < 0.1 else FailoverMode.FAST,
        timers=_timers(random, random.choice(LEASES_MS), random.choice((5000, 30_000))),
        preferred=random.choice(nodes).name if random.random() < 0.2 else None,
        failback_every_s=random.choice((60, 600)),
    )


def _themed(random: Random, theme: str) -> tuple[Rules, ClusterService]:
    """A cluster to which the theme's plot can happen, with leases short enough that it happens often."""
    need, failback = THEMES[theme], theme == "preferred_dies"
    strict = need is STRICT or (need not in (LOOSE, LOOSE_WIDE) and random.random() < 0.6)
    rules = random.choice((POSTGRES, POSTGRES, MARIADB) if strict else ALL_RULES)
    nodes = _nodes(random, random.choice((3, 3, 3, 4, 5) if need in (STRICT, LOOSE_WIDE) else (2, 3, 3, 3, 4)))
    return rules, ClusterService(
        name=CLUSTER,
        nodes=nodes,
        durability=_durability(random, 1, strict=strict),
        timers=_timers(random, random.choice(LEASES_MS[:5]), 5000),
        preferred=random.choice(nodes).name if failback else None,
        failback_every_s=60,
    )


def _nodes(random: Random, count: int) -> tuple[Node, ...]:
    return tuple(
        Node(Name("abcde"[index]), Name(f"h{index + 1}"), priority=random.choice((1, 1, 1, 2, 0 if index > 1 else 1)))
        for index in range(count)
    )


def _durability(random: Random, acks: int, *, strict: bool) -> Durability:
    return Durability(None, acks) if strict else Durability(random.choice((100, 1000, 1_000_000)), acks)


def _timers(random: Random, lease_ms: int, failback_ms: int) -> Timers:
    renew, timeout, margin = random.choice(((0.3, 0.2, 0.25), (0.3, 0.2, 0.25), (0.25, 0.25, 0.25)))
    return Timers(
        lease_ms=lease_ms,
        renew_ms=int(lease_ms * renew),
        timeout_ms=int(lease_ms * timeout),
        margin_ms=int(lease_ms * margin),
        confirm_ms=lease_ms // 10,
        hang_ms=lease_ms // 2,
        report_ms=lease_ms // random.choice((6, 6, 10)),
        link_silent_ms=lease_ms // 4,
        drop_ms=lease_ms,
        elector_drop_ms=lease_ms * random.choice((2, 6)),
        elect_ms=lease_ms // 8,
        promote_ms=10_000,
        route_ms=lease_ms // 2,
        rejoin_ms=20_000,
        handover_ms=random.choice((3000, 10_000)),
        failback_ms=failback_ms,
    )
