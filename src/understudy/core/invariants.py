"""What must never happen, as checks over the truth of a world: I1 to I12 (docs/decisions/0010). Pure.

The simulator fills a `World` after every step with what is really so (not with what anybody believes) and with what
happened since the last step; in real runs the checks go over the journal (`check_journal`). A violation is a sentence.

I8 (any agent may die between any two actions) is no check of its own: it is that the others hold whoever dies when.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from understudy.core.events import Entry, EventKind
from understudy.core.lineage import Position, contains, lacks_bytes
from understudy.core.record import Ground
from understudy.core.text import Name


@dataclass(frozen=True, slots=True)
class NodeTruth:
    """What a node really is."""

    name: Name
    epoch: int
    """The epoch under which its engine was promoted; 0 when it is none."""
    acknowledges: bool
    """A write that reached it now would be acknowledged: it is open, and enough voters would answer it."""
    open: bool
    """It is promoted and lets clients in."""
    closed: bool
    """It bears the closed mark."""


@dataclass(frozen=True, slots=True)
class Ack:
    """A write that a client was told is done."""

    node: Name
    epoch: int
    position: Position
    """Its end."""
    zero_loss: bool
    """Whether the commit rule of that moment promised that it would never be lost."""


@dataclass(frozen=True, slots=True)
class Promotion:
    """An engine that became primary."""

    node: Name
    epoch: int
    position: Position
    """Where it stood before."""
    ground: Ground | None
    max_loss_bytes: int | None
    """What may be lost, by the spec in force; None: nothing."""
    known: Position | None
    """The last position that the record knew of the one before."""
    accept_loss: bool = False
    """A person accepted loss."""


@dataclass(frozen=True, slots=True)
class Failover:
    """A primary that was fenced."""

    epoch: int
    old: Name | None
    healthy: bool
    """It was up, took writes, and its standbys, or its agent and the store, heard it."""
    ordered: bool
    """A person ordered it, or the record had to be made anew."""


@dataclass(frozen=True, slots=True)
class Routed:
    """A router that sent a write."""

    router: Name
    epoch: int
    known_epoch: int
    """The highest that this router has read."""


@dataclass(frozen=True, slots=True)
class Destroyed:
    """Data that were overwritten or removed."""

    node: Name
    kept_copy: bool
    consent: bool


@dataclass(frozen=True, slots=True)
class World:
    """One moment, and what happened since the one before."""

    now_s: float
    nodes: tuple[NodeTruth, ...]
    acks: tuple[Ack, ...] = ()
    promotions: tuple[Promotion, ...] = ()
    failovers: tuple[Failover, ...] = ()
    routed: tuple[Routed, ...] = ()
    destroyed: tuple[Destroyed, ...] = ()
    failbacks: int = 0
    paused: bool = False
    """The newest record that the node's agents have all read says so."""
    acted: tuple[str, ...] = ()
    """Actions that were begun, but the self-fence."""
    able_since_s: float | None = None
    """Since when, without a break, the store had a majority and an eligible node was there; None while it is not so."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the liveness checks allow."""

    writable_s: float
    failback_every_s: float


@dataclass(frozen=True, slots=True)
class Memory:
    """What the checks remember from step to step."""

    acked_epoch: int = 0
    acked_by: tuple[tuple[int, Name], ...] = ()
    """Who acknowledged in each epoch."""
    owed: tuple[Position, ...] = ()
    """The furthest acknowledged positions that must be in every later primary, none within another."""
    promoted_by: tuple[tuple[int, Name], ...] = ()
    """Who was promoted in each epoch."""
    silenced_epoch: int = 0
    """The newest epoch with a promotion that rested on the end of all reigns before it, not on revocation."""
    writable_s: float = 0.0
    """When somebody was last open."""
    failback_s: float | None = None


@dataclass(frozen=True, slots=True)
class Violation:
    """Which rule, and what broke it."""

    rule: str
    what: str

    def __str__(self) -> str:
        """`I1: b acknowledged in epoch 4 after epoch 5 had`."""
        return f"{self.rule}: {self.what}"


def check(memory: Memory, world: World, bounds: Bounds) -> tuple[Memory, tuple[Violation, ...]]:
    """Every violation of this step, and the memory for the next."""
    found: list[Violation] = []
    for promotion in world.promotions:
        memory = _promotion(memory, promotion, found)
    for ack in world.acks:
        memory = _ack(memory, ack, found)
    _two_primaries(memory, world, found)
    for rule in _RULES:
        found.extend(rule(world))
    memory = _liveness(memory, world, bounds, found)
    return _failback(memory, world, bounds, found), tuple(found)


def _promotion(memory: Memory, promotion: Promotion, found: list[Violation]) -> Memory:
    """I2, I3, I4.

    After a revocation, which waits for nobody's end, a candidate of before that is cut off may be promoted late, by its
    own lease: it can acknowledge nothing (I1 looks at that), and is no later primary.
    """
    node, epoch, by = promotion.node, promotion.epoch, dict(memory.promoted_by)
    newest, late = max(by, default=0), epoch < max(by, default=0)
    if epoch < memory.silenced_epoch or by.setdefault(epoch, node) != node:
        found.append(Violation("I4", f"{node} was promoted in epoch {epoch} after {newest}"))
    if promotion.ground is None:
        found.append(Violation("I1", f"{node} was promoted in epoch {epoch} without a ground"))
    if late:
        return replace(memory, promoted_by=tuple(by.items()))
    if promotion.accept_loss:
        owed = tuple(one for one in memory.owed if contains(promotion.position, one))
    else:
        owed = memory.owed
        found.extend(_lost(promotion, owed))
    silenced = memory.silenced_epoch if promotion.ground is Ground.REVOCATION else epoch
    return replace(memory, promoted_by=tuple(by.items()), silenced_epoch=silenced, owed=owed)


def _lost(promotion: Promotion, owed: Iterable[Position]) -> Iterable[Violation]:
    have, known, most = promotion.position, promotion.known, promotion.max_loss_bytes
    for one in owed:
        if not contains(have, one):
            yield Violation("I2", f"{promotion.node} at {have} was promoted without the acknowledged {one}")
    if most is None or known is None or contains(have, known):
        return
    if not contains(known, have):
        yield Violation("I3", f"{promotion.node} at {have} was promoted though it forked from {known}")
    elif lacks_bytes(have, known) > most:
        yield Violation("I3", f"{promotion.node} at {have} was promoted more than {most} bytes behind {known}")


def _ack(memory: Memory, ack: Ack, found: list[Violation]) -> Memory:
    """I1, and what is owed from now on."""
    by = dict(memory.acked_by)
    if ack.epoch < memory.acked_epoch:
        found.append(Violation("I1", f"{ack.node} acknowledged in epoch {ack.epoch} after {memory.acked_epoch} had"))
    if by.setdefault(ack.epoch, ack.node) != ack.node:
        found.append(Violation("I1", f"{ack.node} and {by[ack.epoch]} both acknowledged in epoch {ack.epoch}"))
    owed = memory.owed
    if ack.zero_loss:
        owed = (*(one for one in owed if not contains(ack.position, one)), ack.position)
    newest = max(memory.acked_epoch, ack.epoch)
    return replace(memory, acked_epoch=newest, acked_by=tuple(by.items()), owed=owed)


def _two_primaries(memory: Memory, world: World, found: list[Violation]) -> None:
    """I1, before anybody is told anything."""
    able = [node for node in world.nodes if node.acknowledges]
    found.extend(
        Violation("I1", f"{node.name} could acknowledge in epoch {node.epoch}, below the newest")
        for node in able
        if node.epoch < memory.acked_epoch
    )
    epochs = [node.epoch for node in able]
    if len(set(epochs)) < len(epochs):
        names = ", ".join(node.name for node in able)
        found.append(Violation("I1", f"{names} could acknowledge in the same epoch"))


def _closed_stay_closed(world: World) -> Iterable[Violation]:
    for node in world.nodes:
        if node.closed and node.open:
            yield Violation("I5", f"{node.name} is open though it is marked closed")


def _no_write_to_an_old_epoch(world: World) -> Iterable[Violation]:
    for one in world.routed:
        if one.epoch < one.known_epoch:
            yield Violation("I6", f"{one.router} sent a write to epoch {one.epoch}, knowing {one.known_epoch}")


def _nothing_destroyed(world: World) -> Iterable[Violation]:
    for one in world.destroyed:
        if not one.kept_copy and not one.consent:
            yield Violation("I7", f"the data of {one.node} were destroyed without a copy or consent")


def _paused_means_paused(world: World) -> Iterable[Violation]:
    for action in world.acted if world.paused else ():
        yield Violation("I10", f"{action} was done while paused")


def _no_failover_of_the_healthy(world: World) -> Iterable[Violation]:
    for one in world.failovers:
        if one.healthy and not one.ordered:
            yield Violation("I11", f"{one.old} was healthy and lost the part in epoch {one.epoch}")


_RULES: tuple[Callable[[World], Iterable[Violation]], ...] = (
    _closed_stay_closed,
    _no_write_to_an_old_epoch,
    _nothing_destroyed,
    _paused_means_paused,
    _no_failover_of_the_healthy,
)


def _liveness(memory: Memory, world: World, bounds: Bounds, found: list[Violation]) -> Memory:
    """I9; a second real failure that is held back (I12) shows here too."""
    if any(node.open for node in world.nodes):
        return replace(memory, writable_s=world.now_s)
    if world.able_since_s is not None and not world.paused:
        waited_s = world.now_s - max(world.able_since_s, memory.writable_s)
        if waited_s > bounds.writable_s:
            found.append(Violation("I9", f"nobody has taken writes for {waited_s:.1f} s though somebody could"))
    return memory


def _failback(memory: Memory, world: World, bounds: Bounds, found: list[Violation]) -> Memory:
    """I12."""
    if not world.failbacks:
        return memory
    before = memory.failback_s
    if world.failbacks > 1 or (before is not None and world.now_s - before < bounds.failback_every_s):
        found.append(Violation("I12", "it failed back more often than once in the time between"))
    return replace(memory, failback_s=world.now_s)


def check_journal(entries: Iterable[Entry]) -> tuple[Violation, ...]:
    """What a real run's journal alone shows: epochs that do not rise (I4), a promotion with nobody fenced (I1)."""
    found: list[Violation] = []
    epochs: dict[Name | None, int] = {}
    fenced: dict[Name | None, int] = {}
    for entry in entries:
        event, data = entry.event, dict(entry.event.data)
        epoch = data.get("epoch")
        if not isinstance(epoch, int):
            continue
        if event.kind in (EventKind.FAILOVER_STARTED, EventKind.CLUSTER_ADOPTED):
            fenced[event.service] = epoch
        if event.kind is not EventKind.CLUSTER_CROWNED:
            continue
        if epoch <= epochs.get(event.service, 0):
            found.append(Violation("I4", f"entry {entry.number} crowns {event.subject} in epoch {epoch} again"))
        proven = data.get("ground") in ("first", "found", "fenced") or fenced.get(event.service) == epoch
        if not proven:
            found.append(Violation("I1", f"entry {entry.number} crowns {event.subject} with nobody fenced before"))
        epochs[event.service] = epoch
    return tuple(found)
