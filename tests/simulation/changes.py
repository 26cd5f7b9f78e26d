"""How the spec of a running cluster changes: drawn from the seed as whole specs, each with when every host hears of it.

RULES: drawn by a generator of its own, so that what else a seed draws stays as it is. A spec is always one that may be
written: enough nodes for the asked acknowledgements, one of them fit to be promoted. Timers never change (a running
loop refuses that).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

from tests.simulation.faults import Fault

from understudy.core.cluster import ClusterService, Durability, Node
from understudy.core.model import FailoverMode
from understudy.core.text import Name

if TYPE_CHECKING:
    from tests.simulation.draw import Plan

SHARE = 0.35
"""Of the runs in which the spec changes."""
NEW_NAMES = "fgh"
"""Of the nodes that are added; each has a host of its own, which is there from the beginning."""
MOST_NODES = 6
DELAYS_S = (0.0, 0.1, 1.0, 5.0, 20.0)
"""How far apart the hosts may hear of it."""
BOUNDS_BYTES = (100, 1000, 1_000_000)
MUCH = Durability(1_000_000, 1)
PREPARED_S = 1.0
"""For how long a plot prepares before its change of the spec is applied."""
COMPANY = (
    "host_crash",
    "engine_kill",
    "agent_kill",
    "agent_doom",
    "isolate",
    "cut_store",
    "store_outage",
    "cut",
    "burst",
)
"""What befalls somebody while a change is under way."""


@dataclass(frozen=True, slots=True)
class Change:
    """At `at_s` a person applies `service`; each host hears of it so many seconds later."""

    at_s: float
    kind: str
    service: ClusterService
    delays_s: tuple[tuple[str, float], ...]


@dataclass(slots=True)
class _Drawing:
    """The spec as it stands while changes are drawn."""

    random: Random
    service: ClusterService
    strict_engine: bool
    """Whether the engine can lose nothing."""
    unused: list[Node]
    """Nodes that may be added."""
    gone: list[Node]
    """Nodes that were removed, and may come back with what is on their disks."""


def with_changes(plan: "Plan") -> "Plan":
    """The plan, in some of the runs with changes of its spec and with troubles that meet them."""
    if plan.theme in _THEMED:
        return _about(plan)
    strict_engine = plan.rules.capabilities.zero_loss_commit
    changes = draw_changes(plan.seed, plan.service, plan.hosts, plan.faulty_s, strict_engine=strict_engine)
    if plan.theme or plan.observers_only or not changes:
        return plan
    random = Random(f"company {plan.seed}")
    hosts = (*plan.hosts, *_added(plan, changes))
    faults = [*plan.faults]
    for change in changes:
        at_s = change.at_s + random.expovariate(0.2)
        if random.random() < 0.6 and at_s < plan.faulty_s - 5.0:
            lasting_s = random.uniform(0.05, 1.0) * random.choice((0.5, 2.5)) * plan.service.timers.lease_ms / 1000
            what = "primary" if random.random() < 0.4 else random.choice(hosts)
            for_s = min(lasting_s, plan.faulty_s - 1.0 - at_s)
            faults.append(Fault(at_s, random.choice(COMPANY), what, for_s, random.randrange(1000)))
    return _beside(plan, changes, tuple(sorted(faults, key=lambda one: one.at_s)), random)


def _added(plan: "Plan", changes: tuple[Change, ...]) -> list[str]:
    """The hosts of the nodes that the changes add."""
    return sorted({str(node.host) for node in nodes_of(plan.service, changes)} - set(plan.hosts))


def _beside(plan: "Plan", changes: tuple[Change, ...], faults: tuple[Fault, ...], random: Random) -> "Plan":
    """The plan with these changes, the hosts that they add, and these faults."""
    added = _added(plan, changes)
    rates = (*plan.rates, *(1.0 + random.uniform(-0.0004, 0.0004) for _ in added))
    return replace(plan, hosts=(*plan.hosts, *added), rates=rates, faults=faults, changes=changes)


def draw_changes(
    seed: int, service: ClusterService, hosts: tuple[str, ...], until_s: float, *, strict_engine: bool
) -> tuple[Change, ...]:
    """What becomes of the spec of this run; in most runs nothing."""
    random = Random(f"changes {seed}")
    if random.random() >= SHARE:
        return ()
    unused = _newcomers(random)
    drawing = _Drawing(random, service, strict_engine, unused, [])
    gap_s = random.choice((3.0, 10.0, 30.0))
    places = (*hosts, *(str(node.host) for node in unused))
    changes: list[Change] = []
    at_s = 8.0 + random.expovariate(1 / gap_s)
    while at_s < until_s - 5.0 and len(changes) < 8:
        kind = random.choices(list(_KINDS), [share for _, share in _KINDS.values()])[0]
        changed = _KINDS[kind][0](drawing)
        if changed is not None and _may_be_written(changed):
            changes.append(_applied(drawing, changed, kind, at_s, places, random.choice(DELAYS_S)))
        at_s += random.expovariate(1 / gap_s)
    return tuple(changes)


def _newcomers(random: Random) -> list[Node]:
    return [Node(Name(letter), Name(f"new-{letter}"), priority=random.choice((1, 1, 2, 0))) for letter in NEW_NAMES]


def _applied(  # noqa: PLR0917  # all that a change is made of
    drawing: _Drawing, changed: ClusterService, kind: str, at_s: float, places: tuple[str, ...], spread_s: float
) -> Change:
    """The next version of the spec, of which each place hears at some time within the spread."""
    drawing.service = replace(changed, version=drawing.service.version + 1)
    delays = tuple((place, spread_s * drawing.random.random()) for place in places)
    return Change(at_s, kind, drawing.service, delays)


def nodes_of(service: ClusterService, changes: tuple[Change, ...]) -> tuple[Node, ...]:
    """Every node that is ever in the spec."""
    found = {node.name: node for spec in (service, *(one.service for one in changes)) for node in spec.nodes}
    return tuple(found.values())


def _may_be_written(service: ClusterService) -> bool:
    needed = service.durability.acks + 1 if service.durability.zero_loss else 1
    return len(service.nodes) >= needed and any(node.priority for node in service.nodes)


def _add_node(drawing: _Drawing) -> ClusterService | None:
    if not drawing.unused or len(drawing.service.nodes) >= MOST_NODES:
        return None
    return replace(drawing.service, nodes=(*drawing.service.nodes, drawing.unused.pop(0)))


def _remove_node(drawing: _Drawing) -> ClusterService | None:
    service = drawing.service
    leaver = drawing.random.choice(service.nodes)
    nodes = tuple(node for node in service.nodes if node is not leaver)
    changed = replace(service, nodes=nodes, preferred=None if service.preferred == leaver.name else service.preferred)
    if not nodes or not _may_be_written(changed):
        return None
    drawing.gone.append(leaver)
    return changed


def _replace_node(drawing: _Drawing) -> ClusterService | None:
    """One goes and another comes in the same change."""
    if not drawing.unused:
        return None
    service, newcomer = drawing.service, drawing.unused[0]
    leaver = drawing.random.choice(service.nodes)
    nodes = (*(node for node in service.nodes if node is not leaver), newcomer)
    changed = replace(service, nodes=nodes, preferred=None if service.preferred == leaver.name else service.preferred)
    if not _may_be_written(changed):
        return None
    drawing.unused.pop(0)
    drawing.gone.append(leaver)
    return changed


def _readd_node(drawing: _Drawing) -> ClusterService | None:
    if not drawing.gone or len(drawing.service.nodes) >= MOST_NODES:
        return None
    back = drawing.gone.pop(drawing.random.randrange(len(drawing.gone)))
    return replace(drawing.service, nodes=(*drawing.service.nodes, back))


def _change_durability(drawing: _Drawing) -> ClusterService | None:
    service, random = drawing.service, drawing.random
    if service.durability.zero_loss or not drawing.strict_engine:
        return replace(service, durability=Durability(random.choice(BOUNDS_BYTES), service.durability.acks))
    return replace(service, durability=Durability(None, random.choice((1, 1, 2))))


def _change_acks(drawing: _Drawing) -> ClusterService | None:
    durability = drawing.service.durability
    return replace(drawing.service, durability=replace(durability, acks=3 - durability.acks))


def _change_wishes(drawing: _Drawing) -> ClusterService | None:
    """Who is preferred, what is manual, who comes first."""
    service, random = drawing.service, drawing.random
    nodes = tuple(replace(node, priority=random.choice((1, 1, 2, 0))) for node in service.nodes)
    return replace(
        service,
        nodes=nodes,
        preferred=random.choice((None, random.choice(nodes).name)),
        mode=FailoverMode.MANUAL if random.random() < 0.1 else FailoverMode.FAST,
    )


_KINDS: dict[str, tuple[Callable[[_Drawing], ClusterService | None], int]] = {
    "add_node": (_add_node, 4),
    "remove_node": (_remove_node, 4),
    "replace_node": (_replace_node, 3),
    "readd_node": (_readd_node, 4),
    "change_durability": (_change_durability, 4),
    "change_acks": (_change_acks, 2),
    "change_wishes": (_change_wishes, 1),
}
"""Each kind and its share."""


# Runs that are about changes: for each time that the plot happens there is one, just after it has begun.


def _about(plan: "Plan") -> "Plan":
    """The plan with a change for each plot, and before it what takes the last one back."""
    random = Random(f"changes {plan.seed}")
    drawing = _Drawing(random, plan.service, True, _newcomers(random), [])
    places = (*plan.hosts, *(str(node.host) for node in drawing.unused))
    lease_s = plan.service.timers.lease_ms / 1000
    changes: list[Change] = []
    for fault in plan.faults:
        if fault.kind == plan.theme:
            changes += _THEMED[plan.theme](drawing, fault.at_s, places, lease_s)
    return _beside(plan, tuple(changes), plan.faults, random)


def _loosened(drawing: _Drawing, at_s: float, places: tuple[str, ...], lease_s: float) -> Iterator[Change]:
    """Nothing may be lost; then much may."""
    service = drawing.service
    strict, loose = replace(service, durability=Durability(None, 1)), replace(service, durability=MUCH)
    if not service.durability.zero_loss:
        yield _applied(drawing, strict, "change_durability", at_s - 1.5 * lease_s, places, 0.1)
    spread_s = drawing.random.choice((0.0, 0.1, 1.0, 0.5 * lease_s))
    yield _applied(drawing, loose, "change_durability", at_s + PREPARED_S, places, spread_s)


def _lessened(drawing: _Drawing, at_s: float, places: tuple[str, ...], lease_s: float) -> Iterator[Change]:
    """Much may be lost; then little, of which all but the steward hear late (the plot tells the steward)."""
    service = drawing.service
    if service.durability != MUCH:
        much = replace(service, durability=MUCH)
        yield _applied(drawing, much, "change_durability", max(1.0, at_s - 1.5 * lease_s), places, 0.1)
    little = replace(service, durability=Durability(drawing.random.choice((100, 100, 1000)), 1))
    change = _applied(drawing, little, "change_durability", at_s + PREPARED_S, places, lease_s)
    yield replace(change, delays_s=tuple((place, delay_s + 4 * lease_s) for place, delay_s in change.delays_s))


def _regrouped(drawing: _Drawing, at_s: float, places: tuple[str, ...], lease_s: float) -> Iterator[Change]:
    """A node goes, or is replaced, or one that went comes back."""
    names = ["remove_node", "replace_node", "readd_node"]
    drawing.random.shuffle(names)
    for name in sorted(names, key=lambda one: one == "readd_node" and drawing.random.random() < 0.6):
        changed = _KINDS[name][0](drawing)
        if changed is not None and _may_be_written(changed):
            spread_s = drawing.random.choice((0.0, 0.1, 1.0, 0.5 * lease_s))
            yield _applied(drawing, changed, name, at_s + PREPARED_S, places, spread_s)
            return


_THEMED: dict[str, Callable[[_Drawing, float, tuple[str, ...], float], Iterator[Change]]] = {
    "loosened": _loosened,
    "older_steward": _lessened,
    "leaver_counts": _regrouped,
}
"""How the spec changes in a run about each of these."""
