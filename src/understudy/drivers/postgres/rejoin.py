"""Bringing a node back as a standby after its history and its source's parted: as it is, cut, rewound, or not at all.

THE LADDER, from the gentlest
  as it is   Its log ends where the source's history still was its own.
  cut        It was a standby, and has more in its log only, in none of its pages: that part of the log is taken away.
  rewound    Its pages have it too: crash recovery, then pg_rewind.
  rebuilt    None of these is safe (`NeedsRebuild`): copying.py.
RULES
1. What is undone is listed and saved (`reports`) before anything is changed: each transaction, and the log itself.
2. Recovery and rewind outlive the agent (job.py). From before a rewind until it has ended well, the data is marked
   unusable; unless it is certain that one that was cut short has written nothing, only new data takes the mark away.
3. Histories are compared by what they are (the driver's branches), and by PostgreSQL's numbers: where two promotions
   gave the same number, pg_rewind would see no difference, so it is not asked.
"""

import asyncio
import json
import os
import shutil
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

from understudy.core.errors import Refused
from understudy.core.lineage import Position
from understudy.core.words import count
from understudy.drivers.base import DriverFault, NeedsRebuild
from understudy.drivers.postgres import beside, branches, control_file, copying, lsn, wal
from understudy.drivers.postgres.branches import Log
from understudy.drivers.postgres.control_file import ControlFile
from understudy.drivers.postgres.home import Home, Source
from understudy.drivers.postgres.job import Job
from understudy.drivers.postgres.process import make_standby
from understudy.drivers.postgres.tools import last_words
from understudy.drivers.postgres.wal import Content, History, Stretch, Transaction

_SOURCE_TIMELINE = "SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int"
_SOURCE_CHECKPOINT = "SELECT timeline_id FROM pg_control_checkpoint()"
_SOURCE_IDENTIFIER = "SELECT system_identifier FROM pg_control_system()"
_BEGINS_TO_WRITE = "need to copy"
"""What pg_rewind --progress says last before it changes anything."""
_RECOVER = 'rm -f "$1/standby.signal"; shift; "$@"; code=$?; touch "$0/standby.signal"; exit $code'
"""A single-user server takes no orders to be a standby; this puts the order back, whatever becomes of us."""

_LOG = "pg_wal"
_KEEP_ALL = "1000TB"
"""The checkpoint that ends a recovery would remove the log that pg_rewind needs."""


Ours = Callable[[], Awaitable[Position]]
"""Which history the node's own data is of."""


class Rung(StrEnum):
    """How a node came back."""

    AS_IS = "as it is"
    CUT = "cut"
    REWOUND = "rewound"


@dataclass(frozen=True, slots=True)
class LossReport:
    """What of a node's history was undone. Kept as `report.json` beside the log itself."""

    node: str
    source: str
    epoch: int
    at: str
    """When it was listed, by this host's clock."""
    system_identifier: str
    timeline: int
    """On which the histories part."""
    start: str
    """Where they part."""
    end: str
    """The end of the node's log."""
    bytes: int
    records: int
    complete: bool
    """Whether the log was all there; otherwise there may have been more."""
    transactions: tuple[Transaction, ...]
    unfinished: int
    """Transactions that had not ended."""
    log: tuple[str, ...]
    """The names of the files of the log that were saved."""
    path: str = ""
    """Where the report is."""

    @property
    def summary(self) -> str:
        """One sentence."""
        lost = [one for one in self.transactions if one.fate.startswith("committed")]
        rest = count(len(lost), "committed transaction") if lost else "no committed transaction"
        more = "" if self.complete else ", and perhaps more, of which the log is gone"
        return (
            f"{self.node} had {rest} in {count(self.bytes, 'byte')} of log that {self.source} has not ({self.start} to "
            f"{self.end} on timeline {self.timeline}){more}: {self.path}"
        )


def reports(data: Path) -> tuple[LossReport, ...]:
    """Every report of this data directory, the oldest first."""
    found = [_read_report(path) for path in beside.of(data).lost.glob("*/report.json")]
    return tuple(sorted((one for one in found if one), key=lambda one: one.at))


def untold(data: Path) -> tuple[LossReport, ...]:
    """Those that nobody was told of yet, the oldest first."""
    return tuple(report for report in reports(data) if not _told(report).exists())


def tell(report: LossReport) -> None:
    """Remember that somebody was told."""
    beside.write(_told(report), "")


def _told(report: LossReport) -> Path:
    return Path(report.path).with_name("told")


@dataclass(frozen=True, slots=True)
class _Split:
    """How the node's log and the source's history lie to each other."""

    control: ControlFile
    log: Log
    ours: History
    theirs: History
    fork: int | None
    """Where they part; None when the source goes on from us."""
    seen_by_rewind: bool
    """Whether PostgreSQL's own numbers say the same."""

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        """What we have after that."""
        return () if self.fork is None else wal.stretches(self.ours, self.fork)


async def give_up(home: Home) -> None:
    """End what works on the data by itself. Raises DriverFault when it does not end, on a hung disk."""
    for name in ("recover", "rewind"):
        await Job(home.places.jobs / name).end(home.tools.account)


class Ladder:
    """For one node; keeps what goes on while nobody waits for it."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._listing: asyncio.Future[LossReport | None] | None = None
        self._listed: tuple[str, int | None] | None = None
        """What that is for: the source, and where we part."""

    async def rejoin(self, source: Source, *, ours: Ours, theirs: Position, epoch: int, patience_s: float) -> Rung:
        """Make the data fit for following the source; the engine is dead, and starts as a standby afterwards.

        ours, theirs: for their branches; ours is asked for only where the data is whole. Raises NeedsRebuild when it
        cannot be, Refused for data of another cluster, DriverFault when it is not done yet (what takes long goes on by
        itself, and the next call finds it).
        """
        home, until_s = self._home, time.monotonic() + patience_s
        rewind = Job(home.places.jobs / "rewind")
        await home.on_disk(partial(beside.prepare, home.places, home.tools.account))
        if copying.unusable(home.data):
            return await self._end_rewind(rewind, source, until_s)
        await self._end_recovery(until_s)
        split = await self._compare(source, ours, theirs)
        report = await self._list(split, source, epoch)
        if report is None:
            await home.on_disk(partial(_forget_other_futures, home, split))
            return Rung.AS_IS
        if split.control.state.standby and _only_in_log(home.data, split):
            await home.on_disk(partial(_cut, home, split))
            return Rung.CUT
        _must_be_rewindable(home, split, report)
        await self._recover(split, until_s)
        await _see_checkpoint(source)
        await home.on_disk(partial(_start_rewind, home, split, source, rewind))
        return await self._end_rewind(rewind, source, until_s)

    async def list_before_copy(self, source: Source, *, ours: Ours, theirs: Position, epoch: int) -> None:
        """List and save what the data has that the source has not, because it is replaced. Raises as `rejoin` does."""
        if not copying.unusable(self._home.data):  # what was half rewound has been listed
            await self._list(await self._compare(source, ours, theirs), source, epoch)

    async def _compare(self, source: Source, ours: Ours, theirs: Position) -> _Split:
        home = self._home
        control = await self._control()
        mine = await ours()
        identifier = (await source.ask(_SOURCE_IDENTIFIER))[0][0]
        if str(identifier) != str(control.system_identifier):
            raise Refused(
                f"{home.data} holds data of another cluster than {source.name}'s: move it away, or rebuild {home.node} "
                "with --accept-loss, which keeps it aside where there is room"
            )
        number = int((await source.ask(_SOURCE_TIMELINE))[0][0])
        told = "" if number == 1 else (await source.ask(_history_question(number)))[0][0]
        history = wal.history(number, told)
        return await home.on_disk(partial(_split, home, control, history, mine, theirs))

    async def _control(self) -> ControlFile:
        home = self._home
        if copying.is_empty(home.data):
            raise NeedsRebuild(f"{home.node} has no data.")
        try:
            return await control_file.read(home.tools, home.data)
        except control_file.Unreadable as fault:
            raise NeedsRebuild(str(fault)) from fault

    async def _list(self, split: _Split, source: Source, epoch: int) -> LossReport | None:
        """List and save what we have after the fork; None when that is nothing. It goes on when we are cut short."""
        wanted = (source.name, split.fork)
        if self._listing is None or self._listed != wanted:
            work = self._home.on_disk(partial(_listed, self._home, split, source, epoch))
            self._listing, self._listed = asyncio.ensure_future(work), wanted
        listing = self._listing
        try:
            return await asyncio.shield(listing)
        finally:
            if listing.done():
                self._listing = None

    async def _recover(self, split: _Split, until_s: float) -> None:
        """Crash recovery to the end of our own log: pg_rewind takes only what was stopped in order."""
        if split.control.state.clean:
            return
        home = self._home
        job = Job(home.places.jobs / "recover")
        await home.on_disk(partial(_start_recovery, home, job, split.control))
        await self._end_recovery(until_s)
        if not (await control_file.read(home.tools, home.data)).state.clean:
            raise NeedsRebuild(f"{home.node} could not end its crash recovery: {last_words(job.said)}")

    async def _end_recovery(self, until_s: float) -> None:
        home = self._home
        job = Job(home.places.jobs / "recover")
        if job.there:
            await _patiently(job, until_s, f"{home.node} is in crash recovery")
            await home.on_disk(partial(make_standby, home.data, home.tools))

    async def _end_rewind(self, job: Job, source: Source, until_s: float) -> Rung:
        home = self._home
        await _patiently(job, until_s, f"{home.node} is being rewound")
        other = job.purpose.get("source", source.name)
        await home.on_disk(partial(_finish_rewind, home, job))
        if other != source.name:
            raise DriverFault(
                f"{home.node} was rewound to {other}; how it lies to {source.name} must be looked at anew."
            )
        return Rung.REWOUND


# --- looking ----------------------------------------------------------------------------------------------------------


def _split(home: Home, control: ControlFile, history: History, ours: Position, theirs: Position) -> _Split:
    log = Log.of(home.data)
    own = _own_history(log, control)
    try:
        by_number, by_branch = wal.parted(own, history), wal.parted(ours.branches, theirs.branches)
    except ValueError:
        raise Refused(
            f"{home.data} has no history in common with the cluster: move it away, or rebuild {home.node} "
            "with --accept-loss"
        ) from None
    forks = [fork for fork in (by_number, by_branch) if fork is not None]
    fork = min(forks, default=None)
    return _Split(control, log, own, history, fork, seen_by_rewind=fork == by_number)


def _own_history(log: Log, control: ControlFile) -> History:
    """The timelines of our own log: a standby may have the beginning of one that it has not replayed yet."""
    newest = control.newest_timeline
    if control.state.standby:
        newest, _ = branches.newest(log, newest, control.at_least)
    return _history_here(log, newest)


def _history_here(log: Log, timeline: int) -> History:
    if timeline == 1:
        return wal.history(1, "")
    return wal.history(timeline, (log.directory / wal.history_name(timeline)).read_text(encoding="utf-8"))


def _history_question(timeline: int) -> str:
    return f"SELECT pg_read_file('pg_wal/{wal.history_name(timeline)}')"


def _only_in_log(data: Path, split: _Split) -> bool:
    """Whether no page can hold anything from after the fork."""
    return split.fork is not None and split.control.min_recovery <= split.fork and not (data / "backup_label").exists()


def _must_be_rewindable(home: Home, split: _Split, report: LossReport) -> None:
    why = ""
    if not report.complete:
        why = "a part of its log is gone"
    elif not split.control.rewindable:
        why = "it has neither checksums nor wal_log_hints"
    elif not split.seen_by_rewind:
        why = "two promotions gave the same number to their timelines"
    elif (home.data / "backup_label").exists():
        why = "it is a copy that was never started"
    if why:
        raise NeedsRebuild(f"{home.node} cannot be rewound, because {why}. {report.summary}")


# --- listing and saving -----------------------------------------------------------------------------------------------


def _listed(home: Home, split: _Split, source: Source, epoch: int) -> LossReport | None:
    contents: list[Content] = []
    end, fork = split.fork or 0, split.fork
    if fork is None:
        return None
    gone = _is_gone(split)
    for stretch in split.stretches:
        here = wal.what_is_left(split.log, stretch) if gone else stretch
        content = wal.read(home.tools, split.log, here)
        contents.append(content)
        end = max(end, wal.end(split.log, here, content))
    if end <= fork and not gone:
        return None
    first = split.stretches[0].timeline
    place = home.places.lost / f"{first}-{fork:016X}"
    earlier = _read_report(place / "report.json")
    if earlier is not None and lsn.parse(earlier.end) >= end:
        return earlier  # since then some of it was taken away
    report = LossReport(
        node=home.node,
        source=source.name,
        epoch=epoch,
        at=earlier.at if earlier else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        system_identifier=str(split.control.system_identifier),
        timeline=first,
        start=lsn.text(fork),
        end=lsn.text(end),
        bytes=end - fork,
        records=sum(content.records for content in contents),
        complete=not gone,
        transactions=tuple(one for content in contents for one in content.transactions),
        unfinished=sum(content.unfinished for content in contents),
        log=tuple(_saved(home, split, place)),
        path=str(place / "report.json"),
    )
    beside.write(place / "report.json", json.dumps(asdict(report), indent=1))
    return report


def _is_gone(split: _Split) -> bool:
    """Whether the log right after the fork is no longer there, though we went on from it."""
    stretch = split.stretches[0]
    files = wal.segments(split.log, stretch)
    wanted = lsn.segment_name(stretch.timeline, stretch.start, split.log.segment_bytes)
    here = bool(files) and files[0].name == wanted
    return not here and max(split.control.checkpoint, split.control.min_recovery) > stretch.start


def _saved(home: Home, split: _Split, place: Path) -> list[str]:
    """Copy the files of the log; their names."""
    files = [file for stretch in split.stretches for file in wal.segments(split.log, stretch)]
    needed = sum(file.stat().st_size for file in files)
    if beside.free_bytes(home.places.root) < needed:
        raise DriverFault(
            f"there is no room to save {needed >> 20} MiB of log in {home.places.lost} before {home.node} gives it up: "
            "free some space there"
        )
    place.mkdir(exist_ok=True)
    for file in files:
        new = place / (file.name + ".tmp")
        shutil.copyfile(file, new)
        beside.flush(new)
        new.replace(place / file.name)
    beside.flush(place)
    beside.flush(place.parent)
    return [file.name for file in files]


def _read_report(path: Path) -> LossReport | None:
    try:
        words: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    words["transactions"] = tuple(Transaction(**one) for one in words["transactions"])
    words["log"] = tuple(words["log"])
    return LossReport(**words)


# --- changing ---------------------------------------------------------------------------------------------------------


def _cut(home: Home, split: _Split) -> None:
    """Take away the log after the fork, from its end, so that what is left at any moment is whole."""
    fork, size = split.fork or 0, split.log.segment_bytes
    born_before = {int(branch.id) for branch in split.ours if branch.start < fork}
    for stretch in reversed(split.stretches):
        for file in reversed(wal.segments(split.log, stretch)):
            if stretch.timeline in born_before and file.name == lsn.segment_name(stretch.timeline, fork, size):
                _blank(file, fork % size)
            else:
                beside.remove(file)
    _forget_other_futures(home, split)


def _blank(file: Path, start: int) -> None:
    with file.open("r+b") as log:
        size = os.fstat(log.fileno()).st_size
        log.seek(start)
        log.write(bytes(size - start))
        log.flush()
        os.fsync(log.fileno())


def _forget_other_futures(home: Home, split: _Split) -> None:
    """Remove histories that are not the source's: recovery would look for a way to their timelines."""
    own = max(int(branch.id) for branch in split.ours if split.fork is None or branch.start < split.fork)
    for timeline in split.log.timelines():
        if timeline > own:
            branches.forget(split.log, timeline, home.tools.account)
            if not _is_theirs(split, timeline):
                beside.remove(split.log.directory / wal.history_name(timeline))


def _is_theirs(split: _Split, timeline: int) -> bool:
    numbers = [int(branch.id) for branch in split.theirs]
    if timeline not in numbers:
        return False
    try:
        return _history_here(split.log, timeline) == split.theirs[: numbers.index(timeline) + 1]
    except ValueError:
        return False


def _start_recovery(home: Home, job: Job, control: ControlFile) -> None:
    _no_process(home.data)
    settings = {**control.settings, "archive_mode": "off", "wal_keep_size": _KEEP_ALL}
    settings |= {"config_file": str(home.config_file)} if home.config_file else {}
    words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    command = ["/bin/sh", "-c", _RECOVER, str(home.data), str(home.data), home.tools.path("postgres"), "--single"]
    command += ["-D", str(home.data), *words, "template1"]
    job.start(home.tools, command, {"what": f"the crash recovery of {home.node}"})


def _start_rewind(home: Home, split: _Split, source: Source, job: Job) -> None:
    places = home.places
    _no_process(home.data)
    beside.clear(places, places.own_files)
    places.own_files.mkdir()
    copying.keep_own_files(home.data, places.own_files)
    _keep_log(split, places.own_files / _LOG)
    job.forget()  # how an earlier one ended
    beside.write(places.unusable, f"a rewind of {home.data} to {source.name} was begun and has not ended well")
    command = [
        home.tools.path("pg_rewind"),
        f"--target-pgdata={home.data}",
        f"--source-server={source.conninfo}",
        "--no-ensure-shutdown",
        "--progress",
    ]
    try:
        job.start(home.tools, command, {"what": f"the rewind of {home.node}", "source": source.name})
    except DriverFault:
        _unmark(home, job)
        raise


def _finish_rewind(home: Home, job: Job) -> None:
    """Make what was rewound a standby of ours again; or say what is to be done."""
    places = home.places
    if job.code != 0:
        why = last_words(job.said) if job.code else "pg_rewind was killed"
        if job.code and job.said_first and _BEGINS_TO_WRITE not in job.said_first:
            _unmark(home, job)
            raise _rewind_fault(home, why)
        raise NeedsRebuild(f"{home.node} is unusable, because its rewind ended in the middle: {why}")
    copying.keep_own_files(places.own_files, home.data)
    _put_back_log(places.own_files / _LOG, home.data / _LOG)
    copying.finish_standby(home, home.data)
    _unmark(home, job)


def _keep_log(split: _Split, to: Path) -> None:
    """Keep links to our log from before the fork, where the recovery after the rewind begins.

    pg_rewind removes what the source has not, but for what it has read itself, from the last checkpoint's record on;
    the recovery begins earlier, where that checkpoint began.
    """
    fork, size = split.fork or 0, split.log.segment_bytes
    ends = [*(branch.start for branch in split.ours[1:]), fork]
    to.mkdir()
    for branch, end in zip(split.ours, ends, strict=True):
        whole = min(end, fork) // size * size
        if branch.start < whole:
            for file in wal.segments(split.log, Stretch(int(branch.id), branch.start, whole)):
                with suppress(OSError):  # on another filesystem: then the source may have it
                    (to / file.name).hardlink_to(file)
    beside.flush(to)


def _put_back_log(kept: Path, to: Path) -> None:
    """Give back what is not there any more; what was cut short is the beginning of a copy that came to nothing."""
    files = sorted(kept.iterdir()) if kept.is_dir() else []
    size = max((file.stat().st_size for file in files), default=0)
    for file in files:
        if file.stat().st_size == size and not (to / file.name).exists():
            file.rename(to / file.name)
    beside.flush(to)


def _rewind_fault(home: Home, why: str) -> Exception:
    if "connect" in why or "connection" in why or "could not fetch" in why:
        return DriverFault(f"{home.node} could not be rewound: {why}")
    return NeedsRebuild(f"{home.node} cannot be rewound: {why}")


def _unmark(home: Home, job: Job) -> None:
    beside.remove(home.places.unusable)
    beside.clear(home.places, home.places.own_files)
    job.forget()


def _no_process(data: Path) -> None:
    """Whoever calls us has seen the engine dead; this finds what was started behind our back."""
    try:
        pid = int((data / "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0])
        there = Path(f"/proc/{pid}/cwd").resolve() == data.resolve()
    except (FileNotFoundError, ValueError):
        return
    if there:
        raise Refused(f"process {pid} runs on {data} and is none of ours: stop it, and disable what started it")
    (data / "postmaster.pid").unlink()


async def _see_checkpoint(source: Source) -> None:
    """pg_rewind believes the source's control file, which knows of its timeline only from the first checkpoint on."""
    now = (await source.ask(_SOURCE_TIMELINE))[0][0]
    if (await source.ask(_SOURCE_CHECKPOINT))[0][0] != now:
        await source.ask("CHECKPOINT")


async def _patiently(job: Job, until_s: float, what: str) -> None:
    if not await job.wait(max(0.0, until_s - time.monotonic())):
        raise DriverFault(f"{what}; it goes on by itself.")
