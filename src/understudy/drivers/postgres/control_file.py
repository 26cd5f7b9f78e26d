"""What PostgreSQL's control file says of a data directory, also while the engine is down. Reading only."""

import struct
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from understudy.drivers.base import DriverFault
from understudy.drivers.postgres import lsn
from understudy.drivers.postgres.tools import Tools

_DEADLINE_S = 5.0
_STATE = struct.Struct("=16xi12xQ8xI")
"""State, last checkpoint, its timeline: the same in 13 to 17. Left out are identifier, versions, time and redo."""
_SHUT_DOWN, _SHUT_DOWN_IN_RECOVERY = 1, 2
STANDBY_SETTINGS = {
    "max_connections": "max_connections",
    "max_worker_processes": "max_worker_processes",
    "max_wal_senders": "max_wal_senders",
    "max_prepared_transactions": "max_prepared_xacts",
    "max_locks_per_transaction": "max_locks_per_xact",
}
"""What a standby must not have less of than its primary, and what pg_controldata calls it."""


class State(StrEnum):
    """How the engine left its data, in PostgreSQL's own words."""

    STARTING = "starting up"
    SHUT_DOWN = "shut down"
    """A primary, cleanly."""
    SHUT_DOWN_IN_RECOVERY = "shut down in recovery"
    """A standby, cleanly."""
    SHUTTING_DOWN = "shutting down"
    IN_CRASH_RECOVERY = "in crash recovery"
    IN_ARCHIVE_RECOVERY = "in archive recovery"
    """A standby, running or killed."""
    IN_PRODUCTION = "in production"
    """A primary, running or killed."""

    @property
    def clean(self) -> bool:
        """Whether it was stopped in order."""
        return self in {State.SHUT_DOWN, State.SHUT_DOWN_IN_RECOVERY}

    @property
    def standby(self) -> bool:
        """Whether it was in recovery: no page on the disk is then newer than `min_recovery`."""
        return self in {State.SHUT_DOWN_IN_RECOVERY, State.IN_ARCHIVE_RECOVERY}


@dataclass(frozen=True, slots=True)
class ControlFile:
    """The parts that decide anything here. Places in the log are in bytes."""

    system_identifier: str
    state: State
    checkpoint: int
    """Where the last checkpoint's record begins."""
    redo: int
    """Where recovery begins."""
    timeline: int
    """Of the last checkpoint."""
    min_recovery: int
    """How far a standby must replay before its pages fit together; 0 on a primary."""
    min_recovery_timeline: int
    checksums: bool
    wal_log_hints: bool
    segment_bytes: int
    """Of a file of the log."""
    settings: dict[str, str]
    """What a standby must not have less of than its primary."""

    @property
    def newest_timeline(self) -> int:
        """On which recovery ends at least."""
        return max(self.timeline, self.min_recovery_timeline)

    @property
    def at_least(self) -> int:
        """How far the log goes at least."""
        return max(self.checkpoint, self.redo, self.min_recovery)

    @property
    def rewindable(self) -> bool:
        """Whether a page changed without a commit leaves a trace in the log."""
        return self.checksums or self.wal_log_hints


class Unreadable(DriverFault):
    """It is not there, damaged, or of another major version than the programs."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a dead engine ended in order, without running a program: for who has to know at once."""

    primary: bool
    checkpoint: int
    """Where its last record begins, for a primary."""
    timeline: int


def ended_in_order(data: Path) -> Ended | None:
    """How it did; None when it did not, or in doubt."""
    try:
        with (data / "global" / "pg_control").open("rb") as file:
            state, checkpoint, timeline = _STATE.unpack(file.read(_STATE.size))
    except (OSError, struct.error):
        return None
    return Ended(state == _SHUT_DOWN, checkpoint, timeline) if state in {_SHUT_DOWN, _SHUT_DOWN_IN_RECOVERY} else None


async def read(tools: Tools, data: Path) -> ControlFile:
    """Read it. Raises Unreadable, and DriverFault when the disk does not answer."""
    ran = await tools.run("pg_controldata", f"--pgdata={data}", deadline_s=_DEADLINE_S)
    if ran.code or "WARNING" in ran.err + ran.out:
        raise Unreadable(f"the control file of {data} cannot be read: {ran.last_words}")
    return parse(ran.out)


def parse(text: str) -> ControlFile:
    """The control file from what pg_controldata prints. Raises Unreadable when something is missing."""
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    facts = {name.strip(): value.strip() for name, value in lines.items()}
    try:
        return ControlFile(
            system_identifier=facts["Database system identifier"],
            state=State(facts["Database cluster state"]),
            checkpoint=lsn.parse(facts["Latest checkpoint location"]),
            redo=lsn.parse(facts["Latest checkpoint's REDO location"]),
            timeline=int(facts["Latest checkpoint's TimeLineID"]),
            min_recovery=lsn.parse(facts["Minimum recovery ending location"]),
            min_recovery_timeline=int(facts["Min recovery ending loc's timeline"]),
            checksums=facts["Data page checksum version"] != "0",
            wal_log_hints=facts["wal_log_hints setting"] == "on",
            segment_bytes=int(facts["Bytes per WAL segment"]),
            settings={name: facts[f"{word} setting"] for name, word in STANDBY_SETTINGS.items()},
        )
    except (KeyError, ValueError) as error:
        raise Unreadable(f"pg_controldata prints something that is not understood ({error}).") from error
