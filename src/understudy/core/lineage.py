"""How much history a node has, and which: positions and lineages, the same for every engine. Pure arithmetic.

RULES: engine words (LSN, timeline, replication id, GTID) stay in the drivers; a driver translates them into branches.
Lineage is compared before any offset: two offsets on different histories say nothing about each other. Unknown is never
better than anything.
"""

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Branch:
    """One stretch of history: its id (timeline, replication id, domain) and the offset where it left the one before."""

    id: str
    start: int


@dataclass(frozen=True, slots=True)
class Position:
    """All history up to `offset` bytes along `branches` (oldest first, the node's own branch last)."""

    branches: tuple[Branch, ...]
    offset: int

    def __post_init__(self) -> None:
        """Refuse a position without a history, or one whose branches do not rise."""
        starts = [branch.start for branch in self.branches]
        if not starts or starts != sorted(starts) or self.offset < starts[-1]:
            raise ValueError(f"no position: branches {self.branches} with offset {self.offset}")

    def __str__(self) -> str:
        """`3/81293`: own branch and offset."""
        return f"{self.branches[-1].id}/{self.offset}"


class Relation(StrEnum):
    """What one position is to another."""

    SAME = "same"
    BEHIND = "behind"
    """The other has everything that this one has, and more."""
    AHEAD = "ahead"
    FORKED = "forked"
    """Each has something that the other has not, or they never had anything in common."""


def lacks_bytes(mine: Position, other: Position) -> int:
    """How much of the other's history is not in mine; 0 means that mine contains the other."""
    return other.offset - _common_end(mine, other)


def contains(mine: Position, other: Position) -> bool:
    """Whether everything in the other is in mine too."""
    return _related(mine, other) and lacks_bytes(mine, other) == 0


def promoted_from(mine: Position, other: Position) -> bool:
    """Whether mine goes on where other's own branch ends, on one that begins with a promotion.

    That may end a little before other: what was received of a record that is not there as a whole is no history.
    """
    shared = len(other.branches)
    return len(mine.branches) > shared and mine.branches[:shared] == other.branches


def fits(mine: Position | None, start: Position | None) -> bool:
    """Whether who has `mine` can follow, as it is, a primary that was promoted at `start`; in doubt yes.

    It has nothing of the primary's last branch but one that the primary has not. A `start` at the very beginning of a
    branch may be the beginning of the primary's own.
    """
    if mine is None or start is None or start.offset == start.branches[-1].start:
        return True
    shared = len(start.branches)
    return contains(start, mine) or (promoted_from(mine, start) and mine.branches[shared].start <= start.offset)


def loses_nothing(mine: Position | None, start: Position | None) -> bool:
    """Whether who has `mine` only gets more by following a primary that was promoted at `start`; in doubt no."""
    if mine is None or start is None:
        return False
    same_way = mine.branches[: len(start.branches)] == start.branches
    return contains(start, mine) or (same_way and fits(mine, start))


def relate(mine: Position, other: Position) -> Relation:
    """What `mine` is to `other`."""
    if contains(mine, other):
        return Relation.SAME if contains(other, mine) else Relation.AHEAD
    return Relation.BEHIND if contains(other, mine) else Relation.FORKED


def further(known: Position | None, own: Position | None) -> Position | None:
    """What a primary is known to have reached: its own word, unless that is only older, or has lost something.

    Where the two went different ways, `known` is from before its reign, which began without it (a crown at a position
    that could not be read).
    """
    if known is None or own is None:
        return known or own
    return known if relate(own, known) is Relation.BEHIND else own


def _related(mine: Position, other: Position) -> bool:
    return mine.branches[0] == other.branches[0]


def _common_end(mine: Position, other: Position) -> int:
    """Up to where both are the same history."""
    shared = 0
    for one, two in zip(mine.branches, other.branches, strict=False):
        if one != two:
            break
        shared += 1
    if shared == 0:
        return other.branches[0].start
    ends = [one.branches[shared].start if shared < len(one.branches) else one.offset for one in (mine, other)]
    return min(ends)
