"""Looking at an own node, and telling the store: observation + facts = report, on change and on cadence.

RULES: a look that does not come back is news too. Facts are read before the look and the position comes last, so that a
position in a frozen node's report is from after the freeze. Times that something lasted are taken here, not in drivers.
"""

from dataclasses import replace

from understudy.control.cluster.beats import beat
from understudy.control.cluster.lane import Lane
from understudy.control.cluster.mirror import Mirror
from understudy.control.cluster.node_state import SETTLES_S, NodeState
from understudy.control.cluster.ports import NodeFacts, Ports
from understudy.control.keys import cluster_report
from understudy.core.codec import Undecodable, decode, encode
from understudy.core.errors import Refused
from understudy.core.lineage import Position, contains, promoted_from
from understudy.core.report import NodeReport, Running
from understudy.drivers.base import Observation
from understudy.store.base import Put, StoreFault

AGAIN_S = 0.2
"""After that time a report that the store did not take is offered again."""
READ_S = 0.1
"""So much later the store hears that a newer record was read, if that is all: most often something is by then."""


def next_beat_s(now_s: float, period_ms: int) -> float:
    """The next full period of this host's clock, so that all that is done regularly is done in the same tick."""
    return ((now_s * 1000 + 1) // period_ms + 1) * period_ms / 1000  # a millisecond for what rounding does


class Observer:
    """Keeps the report of one own node true."""

    def __init__(self, ports: Ports, mirror: Mirror, state: NodeState) -> None:
        self._ports = ports
        self._mirror = mirror
        self._state = state
        self._timers = ports.service.timers
        self.lane = Lane(ports.spawn, ports.wake)
        self._began_s = 0.0
        self._failing: dict[str, float] = {}
        """Since when each thing fails."""
        self._last: Position | None = None
        """Where the running engine was last seen to stand."""
        self._past: Position | None = None
        """With an empty disk: where the node stood by what was last told of it."""
        self._blind = True
        """Whether the last look began before the store was in sight."""
        self._recalled = False
        self.due_s = 0.0
        self._key = cluster_report(ports.service.name, state.name)
        state.own.driver.listen(self.look_now)

    def look_now(self) -> None:
        """Something may have happened; what a deed does to its node is most often over with it."""
        now_s = self._ports.clock.now().boot_s
        self.due_s = min(self.due_s, now_s + SETTLES_S) if self._state.settles_s else 0.0
        self._ports.wake()

    def tick(self, now_s: float) -> None:
        """Look when it is time."""
        state = self._state
        if state.report is not None and state.report.record_serial != state.serial:
            company, whose = state.company, state.company_identity
            state.report = replace(state.report, record_serial=state.serial, company=company, company_identity=whose)
        if self.lane.expired(now_s):
            self._take(None, state.facts, now_s)
        if not self.lane.busy and now_s >= self.next_s(now_s):
            self._began_s = now_s
            self.due_s = next_beat_s(now_s, self._period_ms())
            self.lane.start(self._look, now_s + self._timers.timeout_ms / 1000)

    def next_s(self, now_s: float) -> float:
        """When to come again; at once, when something was done to the node, or the store came, since the last look."""
        overtaken = self._state.looked != self._state.generation or (self._blind and self._mirror.ready)
        due_s = max(self._state.settles_s, 0.0 if overtaken else self.due_s)
        return self.lane.until(due_s, now_s)

    def _period_ms(self) -> int:
        report = self._state.report
        calm = report is not None and report.running is not Running.UNKNOWN and not report.promoted_epoch
        return self._timers.renew_ms if calm else self._timers.report_ms

    async def _look(self) -> bool:
        state, ports = self._state, self._ports
        generation, self._blind = state.generation, not self._mirror.ready
        try:
            if not state.loaded:
                await state.load(ports.clock.now().boot_s, self._timers.lease_over_ms / 1000)
            if not self._blind:
                await self._recall()
            company, whose = state.company, state.company_identity
            if (company, whose) != (state.facts.company, state.facts.company_identity):
                await state.remember(company=company, company_identity=whose)
            facts = state.facts
            seen = await state.own.driver.observe()
            if generation == state.generation:
                await self._watch_for_less_data(seen)
        except Refused:
            facts, seen = state.facts, None
        if generation != state.generation or not state.loaded:
            return True
        return self._take(seen, facts, ports.clock.now().boot_s)

    async def _recall(self) -> None:
        """What an earlier agent reported last must still be there, unless something was begun since that moves it."""
        if self._recalled:
            return
        facts, word = self._state.facts, told(self._mirror.get(self._key).value)
        if facts.identity is None and word is not None:
            self._past = word.position or word.had
        stood = (word.position or word.had) if word is not None else None  # its disk may have hung when it spoke last
        if word is not None and stood and (word.identity, word.moves) == (facts.identity, facts.moves):
            further = facts.reached is None or _goes_on(stood, facts.reached)
            if further and facts.identity is not None:  # also what lacks more than that already: so much is lost
                await self._state.remember(reached=stood)
        self._recalled = True

    async def _watch_for_less_data(self, seen: Observation) -> None:
        """Remember how far a stopped engine had come, and what it means when it comes back with less."""
        facts = self._state.facts
        if self._state.moving:
            self._last = None
            return
        if seen.position is not None and facts.reached is not None and not facts.less_data:
            if not _goes_on(seen.position, facts.reached):
                await self._state.remember(less_data=True)
        elif seen.running is Running.DEAD and self._last is not None:
            await self._state.remember(reached=self._last)
        if seen.running is Running.UP and seen.position is not None:
            self._last = seen.position

    def _take(self, seen: Observation | None, facts: NodeFacts, now_s: float) -> bool:
        """Make the report of what was seen (None: nothing could be seen); whether that is news."""
        state = self._state
        news = state.looked != state.generation
        state.looked = state.generation
        state.progress = seen.progress if seen is not None else state.progress
        if not state.loaded:
            return True
        state.recalled = self._recalled
        now = state.facts
        if facts is not now:
            facts = replace(facts, less_data=now.less_data, reached=now.reached, needs_rebuild=now.needs_rebuild)
        report = self._unseen(facts, now_s) if seen is None else self._seen(seen, facts, now_s)
        if report != state.report:
            state.report, news = report, True
        if report.link_age_ms is not None and report.link_age_ms < self._timers.link_silent_ms and seen is not None:
            silent_s = now_s + (self._timers.link_silent_ms - (seen.link_age_ms or 0)) / 1000
            if silent_s < self.due_s:
                self.due_s, news = silent_s, True
        return news

    def _seen(self, seen: Observation, facts: NodeFacts, now_s: float) -> NodeReport:
        state = self._state
        silent_ms = self._timers.link_silent_ms
        return NodeReport(
            node=state.name,
            counter=0,
            identity=None if seen.empty else facts.identity,
            epoch=facts.epoch,
            running=seen.running,
            empty=seen.empty,
            position=seen.position,
            record_serial=state.serial,
            company=state.company,
            company_identity=state.company_identity,
            promoted_epoch=seen.promoted_epoch,
            writable=seen.writable,
            covered=seen.covered,
            replay_lag_bytes=seen.replay_lag_bytes,
            streaming_from=seen.streaming_from,
            # Whole steps of silence only: a link that is well would make every report a new one.
            link_age_ms=None if seen.link_age_ms is None else seen.link_age_ms // silent_ms * silent_ms,
            frozen_epoch=facts.frozen_epoch,
            closed_epoch=facts.closed_epoch,
            clean_stop=seen.clean_stop,
            sync=seen.sync,
            probe_failing_ms=self._failing_ms("write", seen.write_fails, now_s),
            slow=seen.write_fails and seen.slow,
            starved_ms=self._failing_ms("starved", seen.starved, now_s),
            disk_failing_ms=self._failing_ms("disk", seen.disk_fails, now_s),
            hangs=self._failing_ms("answers", seen.hangs, now_s) >= silent_ms,
            warnings=seen.warnings,
            less_data=facts.less_data,
            moves=-1 if state.moving else facts.moves,
            had=self._had(facts) if facts.less_data or seen.position is None else None,
            needs_rebuild=facts.needs_rebuild,
            rebuilt=facts.rebuilt,
            failed_epoch=state.failed_epoch,
            failure=state.failure,
        )

    def _had(self, facts: NodeFacts) -> Position | None:
        """What the node had: by what is on its disk when that is what it was found to lack, else what was seen last."""
        return facts.reached if facts.less_data else self._last or facts.reached or self._past

    def _unseen(self, facts: NodeFacts, now_s: float) -> NodeReport:
        """What is left to say when a look fails or hangs: all that is durable, and for how long it has been so."""
        before = self._state.report
        unseen = Observation(Running.UNKNOWN, empty=facts.identity is None, position=None)
        if before is not None:
            unseen = replace(
                unseen,
                promoted_epoch=before.promoted_epoch,
                writable=before.writable,
                streaming_from=before.streaming_from,
                link_age_ms=before.link_age_ms,
                sync=before.sync,
                write_fails=before.promoted_epoch > 0,
                disk_fails=True,
            )
        return self._seen(unseen, facts, now_s)

    def _failing_ms(self, what: str, fails: bool, now_s: float) -> int:
        if not fails:
            self._failing.pop(what, None)
            return 0
        return max(1, round((now_s - self._failing.setdefault(what, self._began_s)) * 1000))


def _goes_on(mine: Position, before: Position) -> bool:
    """Whether mine has all of the other, but for a torn end before which a promotion began."""
    return contains(mine, before) or promoted_from(mine, before)


class Reporter:
    """Writes the report of one own node to the store: on change, and so often that silence means something."""

    def __init__(self, ports: Ports, mirror: Mirror, state: NodeState) -> None:
        self._ports = ports
        self._mirror = mirror
        self._state = state
        self._timers = ports.service.timers
        self._key = cluster_report(ports.service.name, state.name)
        self.lane = Lane(ports.spawn, ports.wake)
        self._counter = 0
        self._written: NodeReport | None = None
        self._newest: NodeReport | None = None
        self._newest_due_s = 0.0
        """From when on the newest report is worth being written."""
        self._encoded: tuple[NodeReport | None, bytes] = (None, b"")
        self._due_s = 0.0
        self._again_s = 0.0

    def tick(self, now_s: float, *, leading: bool) -> float:
        """Write when it is time; when to come again. `leading`: the node has the primary's part."""
        self.lane.expired(now_s)
        report = self._state.report
        state = self._state
        if report is None or not self._mirror.ready or not state.recalled or state.looked != state.generation:
            return self.lane.deadline_s
        if report is not self._newest:
            self._newest, self._newest_due_s = report, now_s + (READ_S if self._only_read(report) else 0.0)
        news_s = max(self._again_s, min(self._newest_due_s, self._due_s))
        due_s = self._due_s if report is self._written else news_s
        if now_s >= due_s and not self.lane.busy:
            due_s = self._due_s = next_beat_s(now_s, self._timers.report_ms if leading else self._timers.renew_ms)
            self.lane.start(self._write, now_s + self._timers.timeout_ms / 1000)
        return self.lane.until(due_s, now_s)

    def _only_read(self, report: NodeReport) -> bool:
        """Whether all that is new is that a newer record was read."""
        before = self._written
        if before is None:
            return False
        return replace(report, record_serial=before.record_serial, company=before.company) == before

    async def _write(self) -> bool:
        """On condition that nobody has written since: a report that was held up on its way must not replace a newer.

        What is written is the newest there is by now: a look that began in the same tick may be back already.
        """
        report, sight = self._state.report, self._mirror.get(self._key)
        if report is None:
            return True
        if not self._counter:
            word = told(sight.value)
            self._counter = word.counter if word is not None else 0
        self._counter += 1
        if self._encoded[0] is not report:
            self._encoded = (report, encode(report))
        put = Put(self._key, beat(self._encoded[1], self._counter))
        try:
            outcome = await self._ports.store.transact([sight.expect()], [put])
            if outcome.committed:
                self._mirror.note(put, outcome.revision)
                self._written = report
                return self._state.report is not report
            await self._mirror.refresh()
            self._written = None
        except StoreFault:
            self._again_s = self._ports.clock.now().boot_s + AGAIN_S
        return True


def told(data: bytes | None) -> NodeReport | None:
    """What a node said last; None when it said nothing, or nothing that can be read."""
    try:
        return decode(NodeReport, data) if data is not None else None
    except Undecodable:
        return None
