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
    """Each has something that the other has not."""


def relate(mine: Position, other: Position) -> Relation:
    """What `mine` is to `other`."""
    shared = 0
    for one, two in zip(mine.branches, other.branches, strict=False):
        if one != two:
            break
        shared += 1
    if shared == 0:
        return Relation.FORKED
    mine_end = mine.branches[shared].start if shared < len(mine.branches) else mine.offset
    other_end = other.branches[shared].start if shared < len(other.branches) else other.offset
    mine_left = shared < len(mine.branches) and mine.offset > mine.branches[shared].start
    other_left = shared < len(other.branches) and other.offset > other.branches[shared].start
    mine_has_more = mine_left or mine_end > other_end
    other_has_more = other_left or other_end > mine_end
    if mine_has_more and other_has_more:
        return Relation.FORKED
    if mine_has_more:
        return Relation.AHEAD
    return Relation.BEHIND if other_has_more else Relation.SAME
