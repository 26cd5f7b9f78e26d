"""The truth of a run, and whether it breaks a rule.

Fills core/invariants.py's World after every step that changed something, and adds what only the simulator can know:
every single acknowledged write, and what a report may claim.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from tests.simulation.engine import UNIT, Engine
from tests.simulation.scheduler import Scheduler
from tests.simulation.transcript import Transcript

from understudy.core import invariants
from understudy.core.actions import Action, Close
from understudy.core.cluster import ClusterService
from understudy.core.codec import decode
from understudy.core.invariants import Ack, Bounds, Destroyed, Failover, Memory, NodeTruth, Routed, Violation, World
from understudy.core.lineage import Position, Relation, relate
from understudy.core.record import ClusterRecord, Ground, Phase
from understudy.core.report import NodeReport, Running
from understudy.core.text import Name


@dataclass(slots=True)
class _News:
    """What happened since the last check."""

    acks: list[Ack] = field(default_factory=list)
    promotions: list[invariants.Promotion] = field(default_factory=list)
    failovers: list[Failover] = field(default_factory=list)
    routed: list[Routed] = field(default_factory=list)
    destroyed: list[Destroyed] = field(default_factory=list)
    failbacks: int = 0


class Checker:
    """Is told of everything that really happens; remembers the first violation."""

    def __init__(
        self, scheduler: Scheduler, specs: dict[int, ClusterService], bounds: Bounds, transcript: Transcript
    ) -> None:
        self._scheduler = scheduler
        self._specs = specs
        """By version: a promotion is judged by the one that its record was decided by."""
        self._bounds = bounds
        self._lease_s = next(iter(specs.values())).timers.lease_ms / 1000
        self.transcript = transcript
        self.violation: Violation | None = None
        self.engines: dict[Name, Engine] = {}
        self.closed: Callable[[Name], bool] = lambda _name: False
        """Whether a node bears the closed mark on its disk."""
        self.record: ClusterRecord | None = None
        """The newest that was ever stored."""
        self.known_epoch: Callable[[Name], int] = lambda _name: 0
        """The highest epoch that a node ever had on its disk."""
        self._stored_epoch = 0
        """The highest epoch of any record that was ever stored."""
        self._crowned: dict[tuple[int, Name], ClusterRecord] = {}
        """The records that gave somebody the part, by epoch and node; `known` is what was known before."""
        self.able_since_s: float | None = None
        self.healthy: Callable[[Name], bool] = lambda _name: False
        """Whether a primary is up, takes writes, and is heard; set where a run promises to know."""
        self.paused: Callable[[], bool] = lambda: False
        """Whether the record says so."""
        self.acknowledged_writes: dict[int, tuple[Name, int]] = {}
        """Every write that must be in every later primary, and where and in which epoch it was acknowledged."""
        self.eaten: set[int] = set()
        """Writes that a disk lost, after it had confirmed them and before its agent had told anybody of them."""
        self.still: Callable[[Name], int] = lambda _name: 0
        """For which epoch a node has said that it is frozen or closed: from then on it takes part in the election."""
        self._there: dict[tuple[int, Name], frozenset[Name]] = {}
        """Who took part when somebody was given the part."""
        self._told: list[tuple[float, int, bytes]] = []
        """What primaries told of themselves: when, of which epoch; the newest last, what is much older is dropped."""
        self._known: dict[int, Position] = {}
        """How far the last primary had told that it was, a lease before an epoch began: what a loss is measured from,
        whatever the record says."""
        self.acks = 0
        self.promotions = 0
        self._marker = 0
        self._memory = Memory()
        self._news: _News | None = None

    # What engines tell.

    def draw_marker(self) -> int:
        """The id of an entry that no client wrote."""
        self._marker -= 1
        return self._marker

    def acknowledged(self, engine: Engine, write: int) -> None:
        """A client was told that its write is done."""
        self.acks += 1
        strict = engine.sync.acks > 0
        at = next(index for index in range(len(engine.data.log), 0, -1) if engine.data.log[index - 1] == write)
        position = Position(engine.data.branches, at * UNIT)
        self._fresh().acks.append(Ack(engine.name, engine.promoted_epoch, position, strict))
        if strict:
            self.acknowledged_writes[write] = (engine.name, engine.promoted_epoch)

    def promoted(self, engine: Engine, epoch: int) -> None:
        """An engine became primary; its own branch has begun, nothing is in it yet but a marker.

        The ground is that of the record which crowned it, not of the newest: a candidate that is cut off may be
        promoted late, in the next epoch, which waits for the end of its lease (I1 looks at what both acknowledge). The
        bound is that of the spec by which that record was decided. One whose engine died while it was promoting is
        promoted again in the same epoch: what it may lack was judged the first time; since then it went its own way.
        What was acknowledged in a higher epoch is not asked of one that comes late (invariants._promotion).
        """
        self.promotions += 1
        record = self._crowned.get((epoch, engine.name))
        before = Position(engine.data.branches[:-1], (len(engine.data.log) - 1) * UNIT)
        again = any(branch.id == f"{epoch}" for branch in before.branches)
        had = set(engine.data.log)
        missing = {write for write, (_, one) in self.acknowledged_writes.items() if one <= epoch and write not in had}
        accepted = bool(record and record.accept_loss)
        gone = missing if accepted else {write for write in missing if self._beyond_all(write, epoch, engine.name)}
        promotion = invariants.Promotion(
            engine.name,
            epoch,
            before,
            record.ground if record else None,
            self._specs[record.spec if record else 0].durability.max_loss_bytes,
            self._last_known(record, before) if record and not again else None,
            accept_loss=bool(gone) or accepted,
        )
        self._fresh().promotions.append(promotion)
        self.noted(engine.name, "promoted", f"epoch {epoch} at {before}")
        for write in gone:
            del self.acknowledged_writes[write]
        if missing - gone:
            write = min(missing - gone)
            name, in_epoch = self.acknowledged_writes[write]
            self.fail("I2", f"{engine.name} lacks write {write}, acknowledged by {name} in epoch {in_epoch}")

    def _last_known(self, record: ClusterRecord, mine: Position) -> Position | None:
        """From where a loss is measured: by the record, or by what the last primary had told, if that is further.

        Not asked where a record was made anew: what had been told was lost with the store. Who has reigned since then,
        though nobody heard of it, was judged when that reign began.
        """
        told, known = self._known.get(record.epoch), record.known
        if told is not None and known is not None and record.previous is not None:
            known = told if relate(known, told) is Relation.BEHIND else known
        return None if known is not None and _last_reign(mine) > _last_reign(known) else known

    def told(self, epoch: int, report: bytes) -> None:
        """The primary of that epoch said how far it is."""
        now_s = self._scheduler.now_s
        while len(self._told) > 1 and self._told[1][0] < now_s - self._lease_s:
            del self._told[0]
        self._told.append((now_s, epoch, report))

    def _begins(self, epoch: int) -> None:
        """That epoch begins: what had been told long enough ago was known to everybody who heard the store."""
        before_s = self._scheduler.now_s - self._lease_s
        last = max((one for _, one, _ in self._told if one < epoch), default=0)
        old = [report for at_s, one, report in self._told if at_s < before_s and one == last]
        position = decode(NodeReport, old[-1]).position if old else None
        if position is not None:
            self._known.setdefault(epoch, position)

    def _beyond_all(self, write: int, epoch: int, winner: Name) -> bool:
        """Whether nobody who took part could have had it: a disk lost it unnoticed, and who has it was not there.

        Two copies are out of reach then, where the commit rule may have made no more (docs/decisions/0010).
        """
        holders = {name for name, engine in self.engines.items() if write in engine.data.log}
        return write in self.eaten and not holders & self._there.get((epoch, winner), holders)

    def opened(self, engine: Engine) -> None:
        """An engine lets clients in."""
        self._fresh()
        self.noted(engine.name, "opened", f"epoch {engine.promoted_epoch}")

    def discarded(self, engine: Engine, log: list[int]) -> None:
        """Data were undone or replaced."""
        kept = not log or log in engine.kept
        self._fresh().destroyed.append(Destroyed(engine.name, kept, consent=False))
        self.noted(engine.name, "discarded", f"{len(log)} entries, {'kept aside' if kept else 'gone'}")

    def noted(self, who: str, what: str, detail: str) -> None:
        """Anything that a reader wants to know."""
        self.transcript.add(self._scheduler.now_s, who, what, detail)

    # What the rest of the world tells.

    def stored(self, record: ClusterRecord) -> None:
        """A record took effect in the store."""
        before = self.record
        self._stored_epoch = max(self._stored_epoch, record.epoch)
        again = self._crowned_so(record)
        if record.phase is Phase.PROMOTING and record.primary is not None:
            known = before.known if before is not None and before.identity == record.identity else None
            self._crowned[record.epoch, record.primary] = replace(record, known=known or record.known)
            fenced = record.previous if record.ground is Ground.FENCED else None
            there = (name for name in self.engines if name == fenced or self.still(name) >= record.epoch)
            self._there.setdefault((record.epoch, record.primary), frozenset(there))
        if before is None or before.identity != record.identity or record.epoch >= before.epoch:
            self.record = record
        if before is not None and before.identity == record.identity:
            if record.epoch < before.epoch and record.phase is Phase.PROMOTING and not again:
                self.fail("I4", f"epoch {record.epoch} was used again after {before.epoch}")
            if record.epoch > before.epoch:
                self._begins(record.epoch)
            if record.epoch > before.epoch and record.phase is Phase.FENCING:
                self._fenced(before, record)
            if (
                record.request
                and record.request.by == "failback"
                and before.phase is Phase.STEADY
                and (record.phase is Phase.HANDING_OVER)
            ):
                self._fresh().failbacks += 1

    def _crowned_so(self, record: ClusterRecord) -> bool:
        """Whether this is the very crown that was given in that epoch: a backup may bring it back."""
        crown = self._crowned.get((record.epoch, record.primary)) if record.primary is not None else None
        before = (crown.electorate_serial, crown.ground, crown.start) if crown is not None else None
        return before == (record.electorate_serial, record.ground, record.start)

    def _fenced(self, before: ClusterRecord, record: ClusterRecord) -> None:
        ordered = record.request is not None or before.phase not in (Phase.STEADY, Phase.SUSPECT, Phase.CONFIRMED)
        healthy = before.primary is not None and self.healthy(before.primary)
        self._fresh().failovers.append(Failover(record.epoch, before.primary, healthy, ordered))

    def routed(self, router: Name, epoch: int, known_epoch: int) -> None:
        """A router sent a write to an epoch."""
        self._fresh().routed.append(Routed(router, epoch, known_epoch))

    def acted(self, engine: Engine, action: Action, *, paused: bool) -> None:
        """An agent begins an action; `paused`: though it knows that it must not."""
        said = f"{type(action).__name__} at epoch {action.epoch} on {engine.name}"
        if paused:
            self.fail("I10", f"{said} was begun while paused")
        if action.epoch > self._stored_epoch:
            self.fail("I8", f"{said} was begun before the record that orders it was stored")
        if isinstance(action, Close):
            self._not_needed(engine, action)
        if action.epoch < self.known_epoch(engine.name):
            self.fail("I4", f"{said} was begun though the node knew epoch {self.known_epoch(engine.name)}")

    def _not_needed(self, standby: Engine, action: Action) -> None:
        """A node that leaves goes on acknowledging until the primary's rule does without it: writes never wait for it.

        Only failovers fence who counts, and they do it under a higher epoch.
        """
        for primary in self.engines.values():
            reigns = primary.promoted_epoch == action.epoch and primary.serves and primary is not standby
            link = primary.links.get(standby.name)
            counts = link is not None and standby.name in primary.sync.voters and standby.hears(primary, link.token)
            if reigns and counts and primary.voters_heard <= primary.sync.acks:
                self.fail("I9", f"{standby.name} is closed, without which {primary.name} can acknowledge nothing")

    def touched(self) -> None:
        """Something about a node changed."""
        self._fresh()

    def fail(self, rule: str, what: str) -> None:
        """A rule is broken; the run ends here."""
        if self.violation is None:
            self.violation = Violation(rule, what)
            self.noted("CHECK", rule, what)
        self._scheduler.stop()

    def _fresh(self) -> _News:
        if self._news is None:
            self._news = _News()
            self._scheduler.soon(self.check)
        return self._news

    def check(self) -> None:
        """Look at the world as it is now."""
        news, self._news = self._news or _News(), None
        world = World(
            now_s=self._scheduler.now_s,
            nodes=tuple(self._truth(engine) for engine in self.engines.values()),
            acks=tuple(news.acks),
            promotions=tuple(news.promotions),
            failovers=tuple(news.failovers),
            routed=tuple(news.routed),
            destroyed=tuple(news.destroyed),
            failbacks=news.failbacks,
            paused=self.paused(),
            able_since_s=self.able_since_s,
        )
        self._memory, found = invariants.check(self._memory, world, self._bounds)
        for violation in found:
            self.fail(violation.rule, violation.what)

    def _truth(self, engine: Engine) -> NodeTruth:
        is_open = engine.writable and engine.running is not Running.DEAD
        able = is_open and engine.answers and not engine.host.disk_failing_s
        able = able and engine.voters_heard >= engine.sync.acks
        return NodeTruth(engine.name, engine.promoted_epoch, able, is_open, self.closed(engine.name))

    # The end.

    def history(self, primary: Engine) -> None:
        """At the end: everything that had to be kept is in the final primary."""
        missing = self.acknowledged_writes.keys() - set(primary.data.log)
        if missing:
            write = min(missing)
            name, epoch = self.acknowledged_writes[write]
            self.fail("I2", f"{primary.name} ends without write {write}, acknowledged by {name} in epoch {epoch}")


def _last_reign(position: Position) -> int:
    """The epoch in which its last branch was begun; 0 for what was there before any."""
    branch = position.branches[-1].id
    return int(branch) if branch.isdigit() else 0
