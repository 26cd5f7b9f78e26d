"""Which history a data directory holds: PostgreSQL's timelines as branches with ids that are never given twice.

Two standbys promoted from the same point give the same number to their new timeline. So the id of a timeline is a
digest of the first record in it: that one says at what microsecond the recovery ended (docs/decisions/0014). The record
is in the WAL of every node that holds anything of the timeline, before all else, whether it has replayed it or not. As
WAL files are recycled, ids are kept in a file in the data directory, which travels with every copy of the data.

Files are read here, and one small one written: call it on a thread.
"""

import hashlib
import json
import os
import re
import struct
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from understudy.core.lineage import Branch, Position
from understudy.drivers.base import DriverFault
from understudy.drivers.postgres import beside, lsn, theirs
from understudy.drivers.postgres.tools import Account

KEPT = "understudy.lineage"
"""The file of ids in the data directory."""

_PAGE = struct.Struct("<HHIQI4x")
"""Magic, flags, timeline, address, what is left of a record from the page before."""
_FIRST_PAGE = struct.Struct("<QII")
"""After that, on a file's first page: system identifier, bytes of a file, bytes of a page."""
_LENGTH = struct.Struct("<I")
_SHORTEST_RECORD, _LONGEST_RECORD = 64, 8192
"""Of what a timeline begins with."""
_OF_A_TIMELINE = re.compile(r"[0-9A-F]{8}\.history|[0-9A-F]{24}")
_HISTORY = re.compile(r"([0-9A-F]{8})\.history")


@dataclass(frozen=True, slots=True)
class Log:
    """The WAL directory of one data directory."""

    data: Path
    segment_bytes: int
    page_bytes: int
    system_identifier: str

    @property
    def directory(self) -> Path:
        """Where the files are."""
        return self.data / "pg_wal"

    @classmethod
    def of(cls, data: Path) -> "Log":
        """What any file of it says about all. Raises Unknown when there is none, DriverFault."""
        try:
            names = sorted(name for name in os.listdir(data / "pg_wal") if re.fullmatch("[0-9A-F]{24}", name))  # noqa: PTH208  may be thousands
            for name in names:
                with (data / "pg_wal" / name).open("rb") as file:
                    head = file.read(_PAGE.size + _FIRST_PAGE.size)
                if len(head) == _PAGE.size + _FIRST_PAGE.size:
                    identifier, segment, page = _FIRST_PAGE.unpack_from(head, _PAGE.size)
                    if identifier and segment >= page >= 1024:  # a new file is empty until it is used
                        return cls(data, segment, page, str(identifier))
        except OSError as error:
            raise DriverFault(f"The log in {data} cannot be read ({error}).") from error
        raise Unknown(f"There is no log in {data / 'pg_wal'}, so it cannot be told which history the data is of.")

    def timelines(self) -> list[int]:
        """Every timeline whose history is here, the newest first."""
        found = (_HISTORY.fullmatch(name) for name in os.listdir(self.directory))  # noqa: PTH208  as above
        return [*sorted((int(one[1], 16) for one in found if one), reverse=True), 1]

    def history(self, timeline: int) -> list[tuple[int, int]]:
        """The timelines that led to this one, oldest first, with where each was left. Raises Unknown, DriverFault."""
        if timeline == 1:
            return []
        path = self.directory / f"{timeline:08X}.history"
        try:
            return parse_history(path.read_text(encoding="utf-8", errors="replace"))
        except (FileNotFoundError, ValueError, IndexError) as error:
            raise Unknown(f"The history of timeline {timeline} cannot be read in {path} ({error}).") from error
        except OSError as error:
            raise DriverFault(f"The history of timeline {timeline} cannot be read in {path} ({error}).") from error

    def holds(self, timeline: int, offset: int) -> bool:
        """Whether the byte before `offset` was written as part of this timeline."""
        page = (offset - 1) // self.page_bytes * self.page_bytes
        head = self._read(timeline, page, _PAGE.size)
        if not any(head):  # behind a switch to the next file all is zero, heads of pages too
            page -= page % self.segment_bytes
            head = self._read(timeline, page, _PAGE.size)
        return len(head) == _PAGE.size and _PAGE.unpack(head)[3] == page

    def first_record(self, timeline: int, start: int, offset: int) -> bytes | None:
        """The record that a timeline begins with at `start`; None when it is not here, or not all before `offset`."""
        length = self._bytes(timeline, start, _LENGTH.size)
        if length is None:
            return None
        whole = _LENGTH.unpack(length)[0]
        if not _LENGTH.size < whole <= _LONGEST_RECORD or start + whole > offset:
            return None
        return self._bytes(timeline, start, whole)

    def begins(self, timeline: int, start: int) -> bool:
        """Whether anything of the record at `start` is here."""
        length = self._bytes(timeline, start, _LENGTH.size)
        return length is not None and _LENGTH.unpack(length)[0] > 0

    def record_end(self, timeline: int, start: int) -> int | None:
        """Where the record that begins at `start` ends; None when it is not here."""
        length = self._bytes(timeline, start, _LENGTH.size)
        return None if length is None else self._end(start, _LENGTH.unpack(length)[0])

    def whole(self, timeline: int, offset: int) -> int:
        """Where the last record ends of which all is before `offset`. Raises DriverFault.

        What is flushed by the page, or sent by it, may end in the middle of a record.
        """
        page = (offset - 1) // self.page_bytes * self.page_bytes
        while True:
            here = self._read(timeline, page, self.page_bytes)
            address, left = _PAGE.unpack_from(here)[3:] if len(here) == self.page_bytes else (-1, 0)
            if address == 0 and not any(here):
                return offset  # the empty rest of a file, behind a switch to the next one
            if address != page:
                raise DriverFault(f"The log on timeline {timeline} is not there before {lsn.text(offset)}.")
            at = self._skip(page) + (left + 7) // 8 * 8
            if at <= min(offset, page + self.page_bytes):
                return self._last_end(here, page, at, offset)
            page -= self.page_bytes  # what is not here as a whole began before

    def _last_end(self, here: bytes, page: int, at: int, offset: int) -> int:
        """From a record's beginning `at` on this page: past all that end before `offset`."""
        while at < page + self.page_bytes:
            end = self._end(at, _LENGTH.unpack_from(here, at - page)[0])
            if not at < end <= offset:
                break
            at = end
        return page if at == self._skip(page) else at

    def _end(self, start: int, length: int) -> int:
        """Where a record of that length ends."""
        end, left = self._skip(start), length
        while left:
            room = self.page_bytes - end % self.page_bytes
            taken = min(room, left)
            end, left = end + taken, left - taken
            if left:
                end = self._skip(end)
        return (end + 7) // 8 * 8

    def _skip(self, at: int) -> int:
        """Past a page's head, if one is there."""
        if at % self.segment_bytes == 0:
            return at + _PAGE.size + _FIRST_PAGE.size
        return at + _PAGE.size if at % self.page_bytes == 0 else at

    def _bytes(self, timeline: int, start: int, count: int) -> bytes | None:
        """So many bytes of what was logged, pages' heads left out."""
        parts, at = b"", start
        while len(parts) < count:
            at = self._skip(at)
            taken = min(count - len(parts), self.page_bytes - at % self.page_bytes)
            part = self._read(timeline, at, taken)
            if len(part) < taken:
                return None
            parts, at = parts + part, at + taken
        return parts

    def _read(self, timeline: int, at: int, count: int) -> bytes:
        path = self.directory / lsn.segment_name(timeline, at, self.segment_bytes)
        try:
            with path.open("rb") as file:
                file.seek(at % self.segment_bytes)
                return file.read(count)
        except FileNotFoundError:
            return b""


def parse_history(text: str) -> list[tuple[int, int]]:
    """The timelines that a history file names, each with where it was left; ValueError, IndexError when it is none."""
    lines = (line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))
    return [(int(part[0]), lsn.parse(part[1])) for part in (line.split("\t") for line in lines)]


class Unknown(DriverFault):
    """It cannot be told here which history this is: somebody who has the same may know its ids (`learn`)."""


def position(log: Log, timeline: int | None, offset: int, account: Account, *, first: bool = False) -> Position:
    """All that is there up to `offset`. Raises Unknown, DriverFault.

    timeline: the one that it is on, where that is known for certain. first: whoever has no ids yet may give them, as a
    primary that was not ours before: its timelines so far are known by their numbers.
    """
    kept = _ids(log, account, first=first)
    own = timeline if timeline is not None else _own_timeline(log, offset)
    found: dict[str, str] = dict(kept)
    branches: list[Branch] = []
    for number, start in _line(log, own):
        if start > offset:
            break
        if number == own or str(number) not in found:  # another's of the same number may be known from before
            record = log.first_record(number, start, offset) if number > 1 else None
            if record is not None and found.get(str(number)) != str(number):
                found[str(number)] = f"{number}-{hashlib.sha256(record).hexdigest()[:16]}"
            elif str(number) not in found and offset > start + _SHORTEST_RECORD and not log.begins(number, start):
                raise Unknown(f"What timeline {number} began with is no longer in {log.directory}.")
            elif str(number) not in found:
                return Position(tuple(branches), start)  # nothing whole is there of it
        branches.append(Branch(found[str(number)], start))
    if found != kept:
        _keep(log, found, account)
    return Position(tuple(branches), offset)


def whole(log: Log, timeline: int | None, offset: int) -> tuple[int, int]:
    """The timeline that is flushed up to `offset`, and up to where all of it is whole. Raises DriverFault."""
    own = timeline if timeline is not None else _own_timeline(log, offset)
    return own, log.whole(own, offset)


def gone_on(log: Log, timeline: int, offset: int, account: Account) -> Position:
    """As `position`, and on into every newer timeline that the log goes on to from there, replayed or not."""
    return position(log, *newest(log, timeline, offset), account)


def newest(log: Log, timeline: int, offset: int) -> tuple[int, int]:
    """The timeline that the log goes on to from this place, replayed or not, and up to where at least.

    A standby's control file knows of a timeline only from its next restart point on.
    """
    for number in reversed(log.timelines()):
        line = _line(log, number)
        start = line[-1][1]
        ours = timeline in {before for before, _ in line[:-1]} and offset <= start
        if ours and log.first_record(number, start, sys.maxsize) is not None:
            timeline, offset = number, max(offset, log.record_end(number, start) or start)
    return timeline, offset


def drop_unborn(data: Path, timeline: int, offset: int, account: Account) -> None:
    """Take away what is here of newer timelines than the log goes on to from this place; on a dead engine only.

    Who follows a promotion asks for the new timeline from the beginning of a file on. Cut short before it has come to
    where that begins, there are two files of one place, and the newer one holds less. PostgreSQL reads the newest: it
    would not find what it has replayed already, and wait for that for ever (seen with 15; XLogFileReadAnyTLI).
    """
    log = Log.of(data)
    own, _ = newest(log, timeline, offset)
    for number in log.timelines():
        if number > own:
            forget(log, number, account)
    found = [name for name in os.listdir(log.directory) if _OF_A_TIMELINE.fullmatch(name)]  # noqa: PTH208  as above
    for name in sorted(found, reverse=True):  # a history last
        if int(name[:8], 16) > own:
            (log.directory / name).unlink()
    beside.flush(log.directory)


def learn(data: Path, told: str, account: Account, offset: int | None = None) -> None:
    """Take the ids that are missing from what another node keeps. Our history must be a part of its.

    offset: how far ours goes, where the other may have been on a newer timeline already when it told.
    """
    log = Log.of(data)
    others: dict[str, str] = json.loads(told)
    ours: dict[str, str] = {}
    with suppress(FileNotFoundError, ValueError):
        ours = json.loads((data / KEPT).read_text(encoding="utf-8"))
    if offset is not None:
        line = {str(number) for number, _ in _line(log, _own_timeline(log, offset))}
        others = {number: word for number, word in others.items() if number in line}
    _keep(log, others | ours, account)


def forget(log: Log, timeline: int, account: Account) -> None:
    """Take away the id of a timeline whose log was taken away: another one may get its number."""
    ids = _ids(log, account, first=True)
    if ids.pop(str(timeline), None) is not None:
        _keep(log, ids, account)


def _own_timeline(log: Log, offset: int) -> int:
    """The newest timeline that what is here belongs to: of a newer one there may be the history and nothing else."""
    for timeline in log.timelines():
        history = log.history(timeline)
        if not history or (offset > history[-1][1] and log.holds(timeline, offset)):
            return timeline
    return 1


def _line(log: Log, timeline: int) -> list[tuple[int, int]]:
    """The timelines that lead to this one, and itself, oldest first, each with where it begins."""
    history = log.history(timeline)
    starts = [0, *(end for _, end in history)]
    return list(zip([*(number for number, _ in history), timeline], starts, strict=True))


def _ids(log: Log, account: Account, *, first: bool) -> dict[str, str]:
    """What is kept, begun where it is certain."""
    path = log.data / KEPT
    try:
        words: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        timelines = log.timelines()
        if not first and timelines != [1]:
            raise Unknown(f"There is no {path} yet, and more than one timeline.") from None
        words = {str(timeline): str(timeline) for timeline in timelines} | {"1": log.system_identifier}
        _keep(log, words, account)
    except ValueError as error:
        raise Unknown(f"The ids of timelines in {path} cannot be read ({error}).") from error
    return words


def _keep(log: Log, ids: Mapping[str, str], account: Account) -> None:
    theirs.put(log.data / KEPT, json.dumps(dict(ids)), account, flush=True)
