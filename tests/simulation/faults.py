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
}
"""Each kind and its share."""
PLOTS = {
    "lag_then_lose": 5,
    "isolate_then_step": 3,
    "outage_then_isolate": 3,
    "promised_then_isolate": 3,
    "late_answer": 3,
    "candidate_cut_off": 3,
    "late_standby_stays": 2,
    "late_wal": 2,
    "longer_tail": 3,
    "switchover_to_laggard": 3,
    "steward_dies": 4,
    "pause_with_work": 1,
    "preferred_dies": 1,
}
"""Known incidents (plots.py): one trouble on top of another, well timed."""
RARE = {
    "store_restore": 3,
    "restore_behind": 2,
    "store_wipe": 2,
    "disk_shrinks": 6,
    "voter_shrinks": 3,
    "disk_wiped": 3,
}
"""At most one of these a run, and in a third of the runs only."""
OBSERVERS = {
    "agent_kill": 3,
    "agent_doom": 3,
    "agent_stop": 3,
    "cut_store": 4,
    "cut_store_one_way": 3,
    "wall_step": 1,
    "mute": 3,
}
"""What may befall those who only watch; and the primary's own agent for a moment (mute)."""
STRICT, LOOSE, ANY = "zero_loss, three nodes or more", "loss is allowed, two nodes or more", "two nodes or more"
LOOSE_WIDE = "loss is allowed, three nodes or more"
THEMES = {
    "lag_then_lose": STRICT,
    "isolate_then_step": LOOSE,
    "promised_then_isolate": LOOSE,
    "late_answer": LOOSE,
    "candidate_cut_off": LOOSE,
    "late_standby_stays": STRICT,
    "late_wal": STRICT,
    "longer_tail": STRICT,
    "voter_shrinks": STRICT,
    "switchover_to_laggard": STRICT,
    "restore_behind": ANY,
    "steward_dies": ANY,
    "store_wipe": ANY,
    "pause_with_work": ANY,
    "preferred_dies": ANY,
    "mute": ANY,
    "loosened": STRICT,
    "older_steward": LOOSE_WIDE,
    "leaver_counts": STRICT,
}
"""What a whole run may be about, and the cluster that each needs."""


def theme_of(seed: int) -> str:
    """What a seed is about: every other one about nothing, the rest about each theme in its turn."""
    return "" if seed % 2 else list(THEMES)[seed // 2 % len(THEMES)]


def draw_faults(
    random: Random, service: ClusterService, hosts: tuple[str, ...], until_s: float, *, observers_only: bool
) -> tuple[Fault, ...]:
    """A schedule; the first 10 seconds belong to the birth of the cluster."""
    kinds = OBSERVERS if observers_only else KINDS | PLOTS
    gap_s = random.choice((3.0, 10.0, 10.0, 30.0, 60.0))
    faults: list[Fault] = []
    at_s = 10.0 + random.expovariate(1 / gap_s)
    while at_s < until_s - 5.0:
        faults.append(_fault(random, service, hosts, at_s, until_s, _one_of(random, kinds)))
        # troubles like company: the next one often hits the failover that the last one caused
        at_s += random.expovariate(1 / gap_s) if random.random() < 0.5 else random.expovariate(1.0)
    if not observers_only and random.random() < 0.35:
        kind = _one_of(random, RARE)
        at_s = random.uniform(12.0, until_s - 5.0)
        if kind == "store_restore":
            faults.append(Fault(random.uniform(10.0, at_s), "backup", "", 0.0))
        faults.append(_fault(random, service, hosts, at_s, until_s, kind))
    return tuple(sorted(faults, key=lambda one: one.at_s))


def draw_themed(
    random: Random, service: ClusterService, hosts: tuple[str, ...], until_s: float, theme: str
) -> tuple[Fault, ...]:
    """One plot again and again, each time when the last one should be over, and little else in between."""
    lease_s = service.timers.lease_ms / 1000
    ordinary = OBSERVERS if theme == "mute" else KINDS
    if theme == "preferred_dies":  # how often it fails back is measured by the wall clock
        ordinary = {kind: share for kind, share in KINDS.items() if kind != "wall_step"}
    faults: list[Fault] = []
    at_s = random.uniform(12.0, 20.0)
    while at_s < until_s - 5.0:
        faults.append(_fault(random, service, hosts, at_s, until_s, theme))
        next_s = at_s + (6 * lease_s + 8.0) * random.uniform(0.6, 1.4)
        if random.random() < 0.4:
            between_s = random.uniform(at_s + 3 * lease_s, next_s)
            faults.append(_fault(random, service, hosts, between_s, until_s, _one_of(random, ordinary)))
        at_s = next_s if theme not in RARE else until_s
    return tuple(sorted((one for one in faults if one.at_s < until_s - 1.0), key=lambda one: one.at_s))


def _one_of(random: Random, kinds: dict[str, int]) -> str:
    return random.choices(list(kinds), list(kinds.values()))[0]


def _fault(  # noqa: PLR0917  # all that a fault is drawn from
    random: Random, service: ClusterService, hosts: tuple[str, ...], at_s: float, until_s: float, kind: str
) -> Fault:
    lease_s = service.timers.lease_ms / 1000
    longest_s = random.choice((0.3 * lease_s, lease_s, 2.5 * lease_s, 30.0))
    for_s = min(random.uniform(0.05, 1.0) * longest_s, until_s - 1.0 - at_s)
    what = "primary" if random.random() < 0.5 or kind in THEMES else random.choice(hosts)
    return Fault(at_s, kind, what, max(0.01, for_s), random.randrange(1000))
