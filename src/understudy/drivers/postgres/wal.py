"""The write-ahead log on a disk, read with pg_waldump: where it ends, and what is in it after a certain place.

Here lives what the log's text and file names mean. Nothing is decided, and nothing on the disk is changed.
"""

import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from understudy.core.lineage import Branch
from understudy.drivers.base import DriverFault
from understudy.drivers.postgres import lsn
from understudy.drivers.postgres.branches import Log
from understudy.drivers.postgres.tools import ENVIRONMENT, Tools, last_words

_FATE = re.compile(
    r"(COMMIT|ABORT|PREPARE)(_PREPARED)?(?: gid (.*):)?(?: (\d+):)? (\d{4}-\d\d-\d\d) ([0-9:.]+) UTC(.*)", re.DOTALL
)
_CHILDREN = re.compile(r"; subxacts: ([\d ]+)")
_SEGMENT = re.compile(r"[0-9A-F]{24}")
_PROBE = re.compile(r"rmgr: LogicalMessage.*desc: MESSAGE transactional, prefix \"understudy\"")
_END_OF_LOG = re.compile("could not find a valid record after|error in WAL record at")
"""What pg_waldump complains of whenever it comes to the end of what was written."""
_PROBE_RECORDS = 2
"""A probe of ours is a message and its commit; nobody's data are in it."""

History = tuple[Branch, ...]
"""The timelines that lead to a place, the oldest first: `Branch("2", start)` is timeline 2, from there on."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of the log on one timeline, in bytes; `end` is None where it goes on as far as there is any."""

    timeline: int
    start: int
    end: int | None = None


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction whose fate stands in a stretch of the log."""

    xid: int
    fate: str
    """`committed`, `prepared`; `committed prepared`, `rolled back prepared`: it was prepared before this stretch."""
    at: str
    """By the clock of the node that wrote it: `2026-11-23T08:17:25.318877Z`."""
    lsn: str
    """Where that stands."""
    records: int
    """How many records of the stretch are of it, of its subtransactions too."""
    gid: str = ""
    """The name under which it was prepared, as far as this stretch says it."""


@dataclass(frozen=True, slots=True)
class Content:
    """What is in a stretch."""

    last: int | None
    """Where its last whole record begins; None when it has none."""
    switched: bool
    """Whether that record leaves the rest of its file empty."""
    records: int
    transactions: tuple[Transaction, ...]
    unfinished: int
    """Transactions whose end does not stand in it."""


def history(timeline: int, text: str) -> History:
    """What the history file of a timeline says; timeline 1 has none."""
    rows = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    numbers = [*(row[0] for row in rows), str(timeline)]
    starts = [0, *(lsn.parse(row[1]) for row in rows)]
    return tuple(Branch(number, start) for number, start in zip(numbers, starts, strict=True))


def history_name(timeline: int) -> str:
    """Of the file."""
    return f"{timeline:08X}.history"


def parted(ours: History, theirs: History) -> int | None:
    """Where two histories part; None when one goes on from the end of the other. ValueError: nothing in common."""
    shared = 0
    for one, two in zip(ours, theirs, strict=False):
        if one != two:
            break
        shared += 1
    if shared == 0:
        raise ValueError("no common history")
    return min((line[shared].start for line in (ours, theirs) if len(line) > shared), default=None)


def stretches(ours: History, start: int) -> tuple[Stretch, ...]:
    """Our own log from there to its end."""
    ends = [*(branch.start for branch in ours[1:]), None]
    return tuple(
        Stretch(int(branch.id), max(start, branch.start), end)
        for branch, end in zip(ours, ends, strict=True)
        if end is None or end > start
    )


def segments(log: Log, stretch: Stretch) -> list[Path]:
    """The files that are there of it, in order."""
    first = lsn.segment_name(stretch.timeline, stretch.start, log.segment_bytes)
    last = _last_name(log, stretch)
    return sorted(
        path for path in log.directory.iterdir() if _SEGMENT.fullmatch(path.name) and first <= path.name <= last
    )


def _last_name(log: Log, stretch: Stretch) -> str:
    """Of its last file; where it has no end, one that is behind every other of its timeline."""
    if stretch.end is None:
        return f"{stretch.timeline:08X}" + "F" * 16
    return lsn.segment_name(stretch.timeline, max(stretch.start, stretch.end - 1), log.segment_bytes)


def what_is_left(log: Log, stretch: Stretch) -> Stretch:
    """The stretch from where there is a file of it."""
    files = segments(log, stretch)
    if not files:
        return stretch
    high, low = int(files[0].name[8:16], 16), int(files[0].name[16:], 16)
    first = (high << 32) + low * log.segment_bytes
    return replace(stretch, start=max(stretch.start, first))


def end(log: Log, stretch: Stretch, content: Content) -> int:
    """Where the log ends; the start of the stretch when nothing is in it."""
    if content.last is None:
        return stretch.start
    place = log.record_end(stretch.timeline, content.last)
    if place is None:
        raise DriverFault(f"the end of the log in {log.directory} cannot be told: a part of it is gone.")
    return -(-place // log.segment_bytes) * log.segment_bytes if content.switched else place


def read(tools: Tools, log: Log, stretch: Stretch) -> Content:
    """What is in it. Takes seconds for a gigabyte; for a thread. Raises DriverFault when it cannot be read at all."""
    files = segments(log, stretch)
    if not files or not log.holds(stretch.timeline, stretch.start + 1):
        # Files are made, or used again, before there is anything for them.
        return understand(())
    try:
        with subprocess.Popen(
            [tools.path("pg_waldump"), *_what_to_dump(log, stretch, files)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=ENVIRONMENT,
            cwd="/",
            **tools.account.spawning(),
        ) as dump:
            content = understand(dump.stdout or ())
            said = dump.stderr.read() if dump.stderr else ""
    except OSError as error:
        raise DriverFault(f"pg_waldump cannot be started ({error.strerror}); is PostgreSQL installed?") from error
    if not content.records and not _END_OF_LOG.search(said):
        raise DriverFault(f"The log in {log.directory} cannot be read: {last_words(said)}")
    return content


def _what_to_dump(log: Log, stretch: Stretch, files: list[Path]) -> list[str]:
    """Its arguments. It takes the size of all files from the first one named, or else from any, an empty one too."""
    words = [f"--path={log.directory}", f"--start={lsn.text(stretch.start)}"]
    if stretch.end is not None:
        words += [f"--end={lsn.text(stretch.end)}"] if files[-1].name == _last_name(log, stretch) else []
    return [*words, files[0].name, files[-1].name]


def understand(lines: Iterable[str]) -> Content:
    """The content from what pg_waldump prints."""
    counts: Counter[str] = Counter()
    fates: list[tuple[str, str, str]] = []
    probes: set[int] = set()
    last = ""
    for line in lines:
        if not line.startswith("rmgr: "):  # the name of a prepared transaction may go on over several lines
            if last.startswith("Transaction", 6) and fates:
                fates[-1] = (*fates[-1][:2], fates[-1][2] + line)
            continue
        _, owner, where, rest = line.split(", ", 3)
        counts[owner] += 1
        last = line
        if line.startswith("Transaction", 6):
            fates.append((owner, where, rest))
        elif _PROBE.match(line):
            probes.add(int(owner.removeprefix("tx:")))
    records = {int(owner.removeprefix("tx:")): number for owner, number in counts.items()}
    settled = _settled(list(_fates(fates)), records)
    transactions = tuple(one for one in settled if one.xid not in probes or one.records > _PROBE_RECORDS)
    place = lsn.parse(last.split(", ", 3)[2].removeprefix("lsn: ")) if last else None
    switched = last.startswith("rmgr: XLOG ") and "desc: SWITCH" in last
    return Content(place, switched, counts.total(), transactions, _unfinished(fates, records))


@dataclass(frozen=True, slots=True)
class _Fate:
    """One record of the resource manager `Transaction`."""

    xid: int
    word: str
    of_prepared: bool
    gid: str
    at: str
    lsn: str
    children: tuple[int, ...]


def _fates(rows: Iterable[tuple[str, str, str]]) -> Iterator[_Fate]:
    for owner, where, rest in rows:
        found = _FATE.match(rest.partition("desc: ")[2])
        if found:
            word, prepared, gid, xid, day, time, more = found.groups()
            children = _CHILDREN.search(more)
            yield _Fate(
                xid=int(xid if prepared else owner.removeprefix("tx:")),
                word=word,
                of_prepared=bool(prepared),
                gid=gid or "",
                at=f"{day}T{time}Z",
                lsn=lsn.text(lsn.parse(where.removeprefix("lsn: "))),
                children=tuple(map(int, children[1].split())) if children else (),
            )


def _settled(fates: list[_Fate], records: dict[int, int]) -> Iterator[Transaction]:
    """What became of each: a transaction prepared in this stretch counts once, with its end."""
    prepared = {fate.xid: fate for fate in fates if fate.word == "PREPARE"}
    ended = {fate.xid for fate in fates if fate.of_prepared}
    for fate in fates:
        here = prepared.get(fate.xid)
        if fate.word == "PREPARE" and fate.xid not in ended:
            word = "prepared"
        elif fate.word == "COMMIT":
            word = "committed prepared" if fate.of_prepared and here is None else "committed"
        elif fate.word == "ABORT" and fate.of_prepared and here is None:
            word = "rolled back prepared"
        else:
            continue  # it never was, as far as anybody was told
        children = fate.children or (here.children if here else ())
        number = sum(records.get(xid, 0) for xid in {fate.xid, *children}) + fate.of_prepared  # that is nobody's
        yield Transaction(fate.xid, word, fate.at, fate.lsn, number, fate.gid or (here.gid if here else ""))


def _unfinished(rows: list[tuple[str, str, str]], records: dict[int, int]) -> int:
    ended = {xid for fate in _fates(rows) for xid in (fate.xid, *fate.children)}
    return len(records.keys() - ended - {0})
