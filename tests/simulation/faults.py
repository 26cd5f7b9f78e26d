"""What befalls a world: drawn from the seed beforehand as plain values, carried out by name, and healed again.

RULES: a fault is a line of data; the world's method of its kind does it. A schedule has at most one fault that takes
data from a disk, since no rule promises anything after two.
"""

from dataclasses import dataclass
from random import Random

from understudy.core.cluster import ClusterService


@dataclass(frozen=True, slots=True)
class Fault:
    """At `at_s` true time, `kind` befalls `what` (a host, a node, "primary", or nothing) for `for_s`."""

    at_s: float
    kind: str
    what: str
    for_s: float
    number: int = 0
    """Whatever else the kind wants to know."""

    def __str__(self) -> str:
        """One line."""
        return f"{self.kind} {self.what} for {self.for_s:.3f} s ({self.number})"


KINDS = {
    "host_crash": 4,
    "host_freeze": 4,
    "engine_kill": 5,
    "engine_stop": 3,
    "agent_kill": 4,
    "agent_doom": 8,
    "agent_stop": 4,
    "guard_kill": 1,
    "isolate": 5,
    "cut": 5,
    "cut_one_way": 4,
    "cut_store": 5,
    "cut_store_one_way": 3,
    "weather": 3,
    "disk_stall": 3,
    "store_outage": 3,
    "store_majority": 4,
    "store_slow": 2,
    "wall_step": 2,
    "switchover": 5,
    "failover": 1,
    "pause": 1,
    "rebuild": 1,
    "backup": 2,
    "burst": 5,
    "lag_then_lose": 6,
    "isolate_then_step": 4,
    "outage_then_isolate": 4,
    "stop_then_isolate": 4,
    "switchover_then_kill": 4,
}
"""Each kind and its share. The last ones are plots of known incidents: one trouble on top of another, well timed."""
RARE = {"store_restore": 3, "store_wipe": 2, "disk_shrinks": 6, "disk_wiped": 3}
"""At most one of these a run, and in a third of the runs only."""
OBSERVERS = {"agent_kill": 3, "agent_doom": 3, "agent_stop": 3, "cut_store": 4, "cut_store_one_way": 3, "wall_step": 1}
"""What may befall those who only watch."""


def draw_faults(
    random: Random, service: ClusterService, hosts: tuple[str, ...], until_s: float, *, observers_only: bool
) -> tuple[Fault, ...]:
    """A schedule; the first 10 seconds belong to the birth of the cluster."""
    kinds = OBSERVERS if observers_only else KINDS
    gap_s = random.choice((3.0, 10.0, 10.0, 30.0, 60.0))
    faults: list[Fault] = []
    at_s = 10.0 + random.expovariate(1 / gap_s)
    while at_s < until_s - 5.0:
        kind = random.choices(list(kinds), list(kinds.values()))[0]
        faults.append(_fault(random, service, hosts, at_s, until_s, kind))
        # troubles like company: the next one often hits the failover that the last one caused
        at_s += random.expovariate(1 / gap_s) if random.random() < 0.5 else random.expovariate(1.0)
    if not observers_only and random.random() < 0.35:
        kind = random.choices(list(RARE), list(RARE.values()))[0]
        at_s = random.uniform(12.0, until_s - 5.0)
        if kind == "store_restore":
            faults.append(Fault(random.uniform(10.0, at_s), "backup", "", 0.0))
        faults.append(_fault(random, service, hosts, at_s, until_s, kind))
    return tuple(sorted(faults, key=lambda one: one.at_s))


def _fault(  # noqa: PLR0917  # all that a fault is drawn from
    random: Random, service: ClusterService, hosts: tuple[str, ...], at_s: float, until_s: float, kind: str
) -> Fault:
    lease_s = service.timers.lease_ms / 1000
    longest_s = random.choice((0.3 * lease_s, lease_s, 2.5 * lease_s, 30.0))
    for_s = min(random.uniform(0.05, 1.0) * longest_s, until_s - 1.0 - at_s)
    what = "primary" if random.random() < 0.5 else random.choice(hosts)
    return Fault(at_s, kind, what, max(0.01, for_s), random.randrange(1000))
