"""How the spec of a running cluster changes: drawn from the seed as whole specs, each with when every host hears of it.

RULES: drawn by a generator of its own, so that what else a seed draws stays as it is. A spec is always one that may be
written: enough nodes for the asked acknowledgements, one of them fit to be promoted. Timers never change (a running
loop refuses that).
"""

from collections.abc import Callable
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
    strict_engine = plan.rules.capabilities.zero_loss_commit
    changes = draw_changes(plan.seed, plan.service, plan.hosts, plan.faulty_s, strict_engine=strict_engine)
    if plan.theme or plan.observers_only or not changes:
        return plan
    random = Random(f"company {plan.seed}")
    added = sorted({str(node.host) for node in nodes_of(plan.service, changes)} - set(plan.hosts))
    hosts = (*plan.hosts, *added)
    faults = [*plan.faults]
    for change in changes:
        at_s = change.at_s + random.expovariate(0.2)
        if random.random() < 0.6 and at_s < plan.faulty_s - 5.0:
            lasting_s = random.uniform(0.05, 1.0) * random.choice((0.5, 2.5)) * plan.service.timers.lease_ms / 1000
            what = "primary" if random.random() < 0.4 else random.choice(hosts)
            for_s = min(lasting_s, plan.faulty_s - 1.0 - at_s)
            faults.append(Fault(at_s, random.choice(COMPANY), what, for_s, random.randrange(1000)))
    rates = (*plan.rates, *(1.0 + random.uniform(-0.0004, 0.0004) for _ in added))
    ordered = tuple(sorted(faults, key=lambda one: one.at_s))
    return replace(plan, hosts=hosts, rates=rates, faults=ordered, changes=changes)


def draw_changes(
    seed: int, service: ClusterService, hosts: tuple[str, ...], until_s: float, *, strict_engine: bool
) -> tuple[Change, ...]:
    """What becomes of the spec of this run; in most runs nothing."""
    random = Random(f"changes {seed}")
    if random.random() >= SHARE:
        return ()
    unused = [Node(Name(letter), Name(f"new-{letter}"), priority=random.choice((1, 1, 2, 0))) for letter in NEW_NAMES]
    drawing = _Drawing(random, service, strict_engine, unused, [])
    gap_s = random.choice((3.0, 10.0, 30.0))
    places = (*hosts, *(str(node.host) for node in unused))
    changes: list[Change] = []
    at_s = 8.0 + random.expovariate(1 / gap_s)
    while at_s < until_s - 5.0 and len(changes) < 8:
        kind = random.choices(list(_KINDS), [share for _, share in _KINDS.values()])[0]
        changed = _KINDS[kind][0](drawing)
        if changed is not None and _may_be_written(changed):
            drawing.service = replace(changed, version=changed.version + 1)
            spread_s = random.choice(DELAYS_S)
            delays = tuple((place, spread_s * random.random()) for place in places)
            changes.append(Change(at_s, kind, drawing.service, delays))
        at_s += random.expovariate(1 / gap_s)
    return tuple(changes)


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
