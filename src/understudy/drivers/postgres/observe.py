"""One look at a node: its process, its files, what the engine says, and whether it can still write. Changes nothing.

RULES
1. A position is what is flushed, on the history that it is on, or None: never a guess, never too little. A standby that
   was just started knows how far it goes only once it has replayed all that is in its own WAL. What was flushed of a
   record that is not there as a whole is no history: nobody was promised it, and neither a restart nor a promotion
   keeps it.
2. Whatever may hang has a deadline, and there is one of each kind outstanding at most.
3. Times are by this host's monotonic clock; the wall clock is believed only where that cannot say.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from understudy.core.errors import Refused
from understudy.core.lineage import Position
from understudy.core.record import SyncConfig
from understudy.core.report import Running
from understudy.core.text import Name
from understudy.drivers.base import DriverFault, Observation
from understudy.drivers.postgres import branches, control_file, copying, lsn, settings, theirs, wal
from understudy.drivers.postgres.aside import Aside
from understudy.drivers.postgres.branches import Log
from understudy.drivers.postgres.client import Row, once
from understudy.drivers.postgres.control_file import ControlFile, Ended
from understudy.drivers.postgres.process import Engine, runs_unguarded
from understudy.drivers.postgres.sources import Sources
from understudy.drivers.postgres.tools import Tools
from understudy.drivers.postgres.trial import Trial

ANSWER_S = 0.3
"""How long the engine, and the disk, may take to answer a look."""
PROBE_GIVEN_UP_S = 5.0
"""After that a write probe is given up and another may begin."""
PROBE_EVERY_S = 0.9
END_FOUND_S = 60.0
"""How long it may take to read how far a dead standby's log goes."""
_LATELY_S = 1.0
"""Within that time an engine that lives has answered, however busy its machine is."""
_SLOW_S = 1.0
"""Standbys that have not acknowledged a write after that time do not acknowledge."""

_LOOK = """
SELECT r, current_setting('understudy.epoch', true), current_setting('understudy.clients', true),
       current_setting('understudy.source', true), current_setting('understudy.sync', true),
       CASE WHEN r THEN pg_last_wal_receive_lsn() END, CASE WHEN r THEN pg_last_wal_replay_lsn() END,
       CASE WHEN NOT r THEN pg_current_wal_flush_lsn() END,
       CASE WHEN NOT r THEN pg_walfile_name(pg_current_wal_flush_lsn()) END,
       waits, w.pid, CASE WHEN w.last_msg_send_time <> w.last_msg_receipt_time THEN w.last_msg_receipt_time END,
       extract(epoch FROM clock_timestamp() - w.last_msg_receipt_time),
       CASE WHEN NOT r THEN (SELECT string_agg(application_name || ' ' || flush_lsn, ',') FROM pg_stat_replication
                              WHERE state = 'streaming' AND flush_lsn IS NOT NULL) END
  FROM (SELECT pg_is_in_recovery() AS r,
               (SELECT string_agg(wait_event, '') FROM pg_stat_activity WHERE backend_type = 'startup') AS waits
         OFFSET 0) AS role
  LEFT JOIN pg_stat_wal_receiver AS w ON true
"""
"""A receiver that has just begun has heard nothing yet, and gives one and the same time for both. Whether all on the
disk is replayed is asked before how far that is: the other way round it could be said of less than all."""
_HEARS = "SELECT FROM pg_stat_get_wal_receiver() AS w WHERE w.pid > 0 AND last_msg_send_time <> last_msg_receipt_time"
_IS_HEARD = "SELECT FROM pg_stat_get_wal_senders() WHERE state = 'streaming' AND flush_lsn >= $1::pg_lsn"
"""What changes soon after an action, asked again and again: so much less work than a look."""
_EXHAUSTED = {"RecoveryWalStream", "RecoveryRetrieveRetryInterval"}
"""What the startup process waits for once it has replayed all that is on the disk."""
_PROBE = "SELECT pg_logical_emit_message(true, 'understudy', 'probe')"


@dataclass(frozen=True, slots=True)
class Said:
    """What the engine answered."""

    in_recovery: bool
    epoch: int
    clients: bool
    source: Name | None
    rule: SyncConfig | None
    received: int
    replayed: int
    flushed: int
    timeline: int | None
    exhausted: bool
    receiver: int | None
    heard: str | None
    silent_s: float
    standbys: tuple[tuple[str, int], ...]

    @property
    def offset(self) -> int:
        """Up to where everything is on the disk."""
        return max(self.received, self.replayed) if self.in_recovery else self.flushed

    def having(self, offset: int) -> int:
        """How many voters of the rule have all up to there."""
        voters = self.rule.voters if self.rule is not None else frozenset()
        return sum(1 for name, flushed in self.standbys if name in voters and flushed >= offset)

    @property
    def acks(self) -> int:
        """How many must have a write."""
        return self.rule.acks if self.rule is not None else 0


@dataclass(frozen=True, slots=True)
class _Found:
    """What the files of a dead engine say at once."""

    empty: bool
    ended: Ended | None


class Link:
    """How long the link to whom we follow has been silent, remembered when the link is gone."""

    def __init__(self) -> None:
        self._value: str | None = None
        self._since_s = 0.0
        self._looked_s = 0.0

    def age_ms(self, said: Said, now_s: float) -> int | None:
        """Since the last message; None when none was ever heard."""
        if said.heard is not None and said.heard != self._value:
            most = now_s - self._looked_s if self._value is not None else said.silent_s
            self._value, self._since_s = said.heard, now_s - max(0.0, min(said.silent_s, most))
        self._looked_s = now_s
        return None if self._value is None else round((now_s - self._since_s) * 1000)


class Sight:
    """What must be remembered from look to look, of one engine."""

    def __init__(self, engine: Engine, sources: Sources, tools: Callable[[], Tools]) -> None:
        self._engine = engine
        self._sources = sources
        self._tools = tools
        self._files = Aside(f"{engine.place.name}'s data")
        self._witness = Aside(f"{engine.place.name}'s disk")
        self._long_reads = Aside(f"{engine.place.name}'s log")
        self._life = ""
        self._exhausted = False
        self._opening: int | None = None
        """Where a primary stood before clients were let in."""
        self._unacknowledged: tuple[int, float] | None = None
        self._link = Link()
        self._followed: Name | None = None
        self._writing = Trial(self._write, PROBE_EVERY_S, ANSWER_S)
        self._flushing = Trial(self._flush, PROBE_EVERY_S, ANSWER_S)
        self._learning = Trial(self._learn, PROBE_EVERY_S, ANSWER_S)
        self._finding = Trial(self._find_end, PROBE_EVERY_S, ANSWER_S)
        self._end: tuple[Ended, Position] | None = None
        """How far the log goes of a standby that was stopped in order."""
        self._last: Observation | None = None
        """Of this life."""
        self._answered_s = 0.0
        """When the engine last answered."""
        self._log: Log | None = None
        self.receiver: int | None = None
        """The process that holds the link, for who wants to hear of its end."""

    @property
    def knows_its_end(self) -> bool:
        """Whether a running standby has been seen with all that is on its disk replayed."""
        return self._exhausted

    def close(self) -> None:
        """Give up what is outstanding."""
        self._writing.end()
        self._flushing.end()
        self._learning.end()
        self.data_change()

    def data_change(self) -> None:
        """To be called before and after anything that may change the data of a dead engine."""
        self._finding.end()
        self._end = None

    async def look(self) -> Observation:
        """All of it. Raises DriverFault when nothing can be said."""
        state = await self._engine.state()
        if state.life != self._life:
            self._new_life(state.life)
        if state.running:
            seen = await self._alive()
            lately = time.monotonic() - self._answered_s < _LATELY_S
            return replace(seen, slow=seen.write_fails and lately and not is_stopped(state.pid))
        return await self._dead(await self._files.do(self._found, ANSWER_S))

    def _new_life(self, life: str) -> None:
        self._life = life
        self._writing.end()
        self._exhausted = False
        self._opening = self._unacknowledged = self._last = self._log = None
        self._link, self._followed, self.receiver = Link(), None, None

    def _found(self) -> _Found:
        data = self._engine.place.data
        stranger = runs_unguarded(data)
        if stranger is not None:
            raise DriverFault(f"PostgreSQL runs on {data} (process {stranger}), and not by our hand.")
        empty = copying.is_empty(data)
        usable = not empty and not copying.unusable(data)
        return _Found(empty, control_file.ended_in_order(data) if usable else None)

    # ---- while it does not run ----

    async def _dead(self, found: _Found) -> Observation:
        position = None
        ended = found.ended
        if ended is not None and not ended.primary:
            return Observation(Running.DEAD, empty=found.empty, position=self._found_end(ended))
        if ended is not None:
            with suppress(Refused):
                position = await self._files.do(lambda: self._end_of(ended), ANSWER_S)
        return Observation(Running.DEAD, empty=found.empty, position=position, clean_stop=position is not None)

    def _end_of(self, ended: Ended) -> Position:
        """Where the record of the last checkpoint ends: after a clean stop of a primary nothing comes behind it."""
        log = Log.of(self._engine.place.data)
        end = log.record_end(ended.timeline, ended.checkpoint)
        if end is None:
            raise DriverFault("The record of its last checkpoint is not in its log.")
        return branches.position(log, ended.timeline, end, self._tools().account, first=True)

    def _found_end(self, ended: Ended) -> Position | None:
        """How far the log of this standby goes, once that is found out; it may have more than it has replayed."""
        if self._end is None or self._end[0] != ended:
            self._finding.fails()
            return None
        return self._end[1]

    async def _find_end(self) -> None:
        data, tools = self._engine.place.data, self._tools()
        ended = await self._files.do(lambda: control_file.ended_in_order(data), ANSWER_S)
        control = await control_file.read(tools, data)
        end = await self._long_reads.do(lambda: _end_of_log(Log.of(data), control, tools), END_FOUND_S)
        self._end = None if ended is None else (ended, end)

    async def end(self) -> Position | None:
        """How far the log of a dead standby goes; None when it is none, or that cannot be told. May take seconds."""
        data, tools = self._engine.place.data, self._tools()
        with suppress(DriverFault):
            control = await control_file.read(tools, data)
            if control.state.standby:
                return await self._long_reads.do(lambda: _end_of_log(Log.of(data), control, tools), END_FOUND_S)
        return None

    async def history(self) -> Position:
        """Which history the data of a dead engine is of, and at least how far. Raises DriverFault."""
        control = await control_file.read(self._tools(), self._engine.place.data)
        timeline, at_least = control.newest_timeline, control.at_least
        data, account = self._engine.place.data, self._tools().account
        look = branches.gone_on if control.state.standby else branches.position
        return await self._files.do(lambda: look(Log.of(data), timeline, at_least, account), ANSWER_S)

    # ---- while it runs ----

    async def _alive(self) -> Observation:
        disk_fails = self._flushing.fails()
        try:
            said = await self.ask()
        except DriverFault:
            return await self._mute(disk_fails=disk_fails)
        now_s = self._answered_s = time.monotonic()
        self.receiver = said.receiver
        if said.source != self._followed:
            self._link, self._followed = Link(), said.source
        age_ms = self._link.age_ms(said, now_s) if said.source is not None else None
        primary = not said.in_recovery
        self._last = Observation(
            running=Running.UP,
            empty=False,
            promoted_epoch=said.epoch if primary else 0,
            # One that was promoted by another hand may take writes, and nobody allowed it to.
            writable=primary and (said.clients or not said.epoch),
            covered=self.covered(said),
            replay_lag_bytes=max(0, said.received - said.replayed) if said.in_recovery else 0,
            streaming_from=said.source if age_ms is not None else None,
            link_age_ms=age_ms,
            sync=said.rule if primary else None,
            write_fails=self._write_fails(said),
            starved=self._starved(said, now_s),
            disk_fails=disk_fails,
            position=await self.position(said),
        )
        return self._last

    async def ask(self) -> Said:
        """What the engine says."""
        said = _said((await self._engine.ask(_LOOK, within_s=ANSWER_S))[0])
        self._exhausted = self._exhausted or said.exhausted or said.receiver is not None
        return said

    async def _mute(self, *, disk_fails: bool) -> Observation:
        """It runs, and says nothing: it is starting, or it hangs."""
        if self._last is None:
            now = await self._engine.in_force()
            starting = Observation(Running.STARTING, empty=False, position=None, disk_fails=disk_fails)
            if not now.epoch:
                return starting
            self._last = replace(starting, running=Running.UP, promoted_epoch=now.epoch, writable=now.clients)
        leads = self._last.promoted_epoch > 0
        return replace(self._last, position=None, write_fails=leads, disk_fails=disk_fails, hangs=True)

    async def position(self, said: Said) -> Position | None:
        """Where it stands by that; None when it cannot be told."""
        if said.in_recovery and not self._exhausted:
            return None
        with suppress(DriverFault):
            try:
                return await self._files.do(lambda: self._translate(said), ANSWER_S)
            except branches.Unknown:
                if said.receiver is not None and said.source is not None and said.heard is not None:
                    self._learning.fails()
        return None

    def _translate(self, said: Said) -> Position:
        if self._log is None:
            self._log = Log.of(self._engine.place.data)
        timeline, offset = said.timeline, said.offset
        if offset > said.replayed:  # what is replayed is whole
            timeline, end = branches.whole(self._log, timeline, offset)
            offset = max(end, said.replayed)
        return branches.position(self._log, timeline, offset, self._tools().account, first=not said.in_recovery)

    async def _learn(self) -> None:
        """Ask whom we hear, and so have the history of, for the ids that are missing here."""
        said = await self.ask()
        if said.receiver is not None and said.source is not None and said.heard is not None:
            told, offset = await self._sources.ids(said.source), said.offset
            await self.learn(told, offset)

    async def learn(self, told: str, offset: int | None) -> None:
        """Take over what another node knows of its timelines (see branches.learn)."""
        data, account = self._engine.place.data, self._tools().account
        await self._files.do(lambda: branches.learn(data, told, account, offset), ANSWER_S)

    async def hears(self) -> bool:
        """Whether a standby has heard of whom it follows."""
        return bool(await self._engine.ask(_HEARS, within_s=ANSWER_S))

    async def is_covered(self) -> bool:
        """Whether enough voters have all that was there before clients come in."""
        if self._opening is not None and not await self._engine.ask(
            _IS_HEARD, lsn.text(self._opening), within_s=ANSWER_S
        ):
            return False
        return self.covered(await self.ask())

    def covered(self, said: Said) -> bool:
        """Whether enough voters have all that was there before clients come in."""
        if said.in_recovery or said.clients:
            return True
        if self._opening is None:
            self._opening = said.flushed
        return said.having(self._opening) >= said.acks

    def _starved(self, said: Said, now_s: float) -> bool:
        """Whether too few voters are there, or do not acknowledge what was written a while ago."""
        if said.in_recovery or not said.clients:
            self._unacknowledged = None
            return False
        if said.having(0) < said.acks:
            return True
        if self._unacknowledged is None or said.having(self._unacknowledged[0]) >= said.acks:
            self._unacknowledged = (said.flushed, now_s)
        return now_s - self._unacknowledged[1] > _SLOW_S

    def _write_fails(self, said: Said) -> bool:
        """Whether a write on a fresh connection is not executed. It does not wait for standbys."""
        if said.in_recovery or not said.clients:
            self._writing.end()
            return False
        return self._writing.fails()

    async def _write(self) -> None:
        async with asyncio.timeout(PROBE_GIVEN_UP_S):
            await once(self._engine.conninfo("understudy probe"), _PROBE)

    async def _flush(self) -> None:
        await self._witness.do(self._touch, PROBE_GIVEN_UP_S)

    def _touch(self) -> None:
        """Write a few bytes beside the data, and have them on the disk."""
        place = self._engine.place
        theirs.put(place.ours / "witness", f"{time.monotonic_ns()}\n", self._tools().account, flush=True)


def _end_of_log(log: Log, control: ControlFile, tools: Tools) -> Position:
    timeline, start = branches.newest(log, control.newest_timeline, control.at_least)
    left = wal.Stretch(timeline, start)
    end = wal.end(log, left, wal.read(tools, log, left))
    return branches.position(log, timeline, end, tools.account, first=True)


def is_stopped(pid: int | None) -> bool:
    """Whether somebody stopped this process, so that it will do nothing until it is told to go on."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in {"T", "t"}


def _said(row: Row) -> Said:
    (role, epoch, clients, source, rule, received, replayed, flushed, file, waits, pid, heard, silent, standbys) = row
    return Said(
        in_recovery=role == "t",
        epoch=int(epoch or 0),
        clients=clients == "in",
        source=Name(source) if source else None,
        rule=settings.read_rule(rule or ""),
        received=lsn.parse(received) if received else 0,
        replayed=lsn.parse(replayed) if replayed else 0,
        flushed=lsn.parse(flushed) if flushed else 0,
        timeline=int(file[:8], 16) if file else None,
        exhausted=waits in _EXHAUSTED,
        receiver=int(pid) if pid else None,
        heard=heard,
        silent_s=float(silent or 0),
        standbys=tuple(_standby(part) for part in (standbys or "").split(",") if part),
    )


def _standby(part: str) -> tuple[str, int]:
    name, _, flushed = part.rpartition(" ")
    return name, lsn.parse(flushed)
