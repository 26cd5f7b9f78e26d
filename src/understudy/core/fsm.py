"""THE table: every transition of a cluster, as rows that a program can read.

RULES
1. The rows are the machine: `decide` executes them, `understudy fsm` prints them, docs/fsm.md is written from them, and
   tests/core/test_fsm.py goes through every phase and every situation to show that exactly one row matches, that every
   phase can be left and every goal reached. There is no other place where a phase changes.
2. A row asks only for fields of `Situation`; no row asks which engine it is.
3. Rows of a phase are disjoint: their order means nothing.
4. `effects` name what core/effects.py does to the record; each is idempotent.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import StrEnum
from itertools import product
from typing import Any, get_type_hints

from understudy.core.record import Origin, Phase
from understudy.core.situation import Asked, Handover, Judged, Promotion, Situation


class Effect(StrEnum):
    """What a transition does to the record beyond the phase; carried out by core/effects.py."""

    TEND = "tend"
    """Keep the cluster in order: commit rule, electorate, duties of standbys, failback."""
    OPEN_EPOCH = "open a new epoch"
    """Epoch + 1, the old lease's key overwritten, the old primary closed, every standby frozen."""
    FREEZE = "freeze who has joined"
    """A node that joins, or comes back, with data of this cluster while nobody reigns may be the only one left."""
    PROVE = "write down the proof"
    """What was proven stays so for the rest of the epoch, though the next steward may not have seen it."""
    CROWN = "crown the winner"
    """The winner is to be primary under the strict commit rule, the lease is its own, the others follow it."""
    CROWN_TARGET = "open a new epoch and crown the target"
    """For a switchover: the old primary has stopped cleanly, which is the ground."""
    CROWN_OLD = "crown the old primary again"
    """The way back out of a switchover, under the same epoch."""
    BEGIN_REIGN = "write down where the reign begins"
    """By the new primary's own word: at the crown its position may not have been readable."""
    CONCLUDE = "say what it took"
    """How long each step took and what was lost."""
    HAND_OVER = "hand over"
    """The primary stops gracefully; clients queue at the router."""
    TAKE_REQUEST = "take the request"
    FINISH_REQUEST = "finish the request"
    BLOCK = "say what blocks"
    """Write down why, and the command that unblocks."""
    UNBLOCK = "unblock"
    ADOPT = "make the record anew"
    """Far above what the nodes carry; everybody is frozen."""


Wanted = frozenset[Any]


@dataclass(frozen=True, slots=True)
class Row:
    """In `phase`, when every field of the situation named in `when` has one of the values given there: go to `then`."""

    phase: Phase
    when: dict[str, Wanted]
    then: Phase
    effects: tuple[Effect, ...]
    sentence: str

    def matches(self, situation: Situation) -> bool:
        """Whether this row is the one."""
        return all(getattr(situation, name) in wanted for name, wanted in self.when.items())


def _row(phase: Phase, then: Phase, sentence: str, *effects: Effect, **when: object) -> Row:
    """A row; a single value stands for the set of it."""
    wanted = {name: value if isinstance(value, frozenset) else frozenset({value}) for name, value in when.items()}
    return Row(phase, wanted, then, effects, sentence)


_GONE = frozenset({Judged.LOST, Judged.DEAD})
_UNCLEAR = frozenset({Judged.MUTE, Judged.DOUBTFUL})
_IDLE = frozenset({Asked.NOTHING, Asked.RESUME})
"""Nothing that this phase could do: there is nothing to resume."""
_HEARD = frozenset({Judged.WELL}) | _UNCLEAR
_UNREADY = frozenset({Handover.WAITING, Handover.FAILED})
_BUT_RESUME = frozenset(Asked) - {Asked.RESUME}
_BUT_FAILOVER = frozenset(Asked) - {Asked.FAILOVER}
_NOT_NOW = frozenset({Asked.NOTHING, Asked.RESUME, Asked.SWITCHOVER})
"""As above, and a switchover needs a primary that is well."""
OWN = {"foreign": False}
"""What every row outside `blocked` and `paused` asks: that the nodes belong to this record."""

P, J, A, E = Phase, Judged, Asked, Effect

# fmt: off
ROWS: tuple[Row, ...] = (
    # Detect.
    _row(P.STEADY, P.STEADY, "the primary is well", E.TEND, judged=J.WELL, asked=_IDLE, **OWN),
    _row(P.STEADY, P.HANDING_OVER, "a switchover is asked for and the primary is well",
         E.TAKE_REQUEST, E.HAND_OVER, judged=J.WELL, asked=A.SWITCHOVER, **OWN),
    _row(P.STEADY, P.SUSPECT, "the primary does not answer as it should", judged=_UNCLEAR, asked=_NOT_NOW, **OWN),
    _row(P.STEADY, P.CONFIRMED, "the primary is lost", judged=_GONE, asked=_NOT_NOW, **OWN),
    _row(P.SUSPECT, P.STEADY, "the primary is well again", judged=J.WELL, asked=_NOT_NOW, **OWN),
    _row(P.SUSPECT, P.SUSPECT, "its agent is silent but its engine is heard: a dead agent is no dead primary",
         judged=J.MUTE, asked=_NOT_NOW, **OWN),
    _row(P.SUSPECT, P.SUSPECT, "the witnesses do not agree yet", judged=J.DOUBTFUL, asked=_NOT_NOW, **OWN),
    _row(P.SUSPECT, P.CONFIRMED, "the witnesses agree that the primary is lost", judged=_GONE, asked=_NOT_NOW, **OWN),
    # Confirm.
    _row(P.CONFIRMED, P.STEADY, "the primary came back before anything was done",
         judged=J.WELL, asked=_NOT_NOW, **OWN),
    _row(P.CONFIRMED, P.SUSPECT, "the witnesses no longer agree", judged=_UNCLEAR, asked=_NOT_NOW, **OWN),
    _row(P.CONFIRMED, P.FENCING, "somebody can take over", E.OPEN_EPOCH,
         judged=_GONE, asked=_NOT_NOW, manual=False, hope=True, **OWN),
    _row(P.CONFIRMED, P.CONFIRMED, "too few are heard to take over without loss; a person may order the failover",
         judged=_GONE, asked=_NOT_NOW, manual=False, hope=False, **OWN),
    _row(P.CONFIRMED, P.BLOCKED, "failover is manual", E.BLOCK,
         judged=_GONE, asked=_NOT_NOW, manual=True, **OWN),
    # A person's word, wherever the primary of the record still counts.
    *(
        _row(phase, P.PAUSED, "a person paused the cluster", E.TAKE_REQUEST, E.FINISH_REQUEST, asked=A.PAUSE, **OWN)
        for phase in (P.STEADY, P.SUSPECT, P.CONFIRMED, P.REJOINING)
    ),
    *(
        _row(phase, P.FENCING, "a person asked for a failover", E.TAKE_REQUEST, E.OPEN_EPOCH, asked=A.FAILOVER, **OWN)
        for phase in (P.STEADY, P.SUSPECT, P.CONFIRMED, P.REJOINING)
    ),
    # Transfer.
    _row(P.FENCING, P.ELECTING, "a promotion is proven safe and enough positions are known", E.PROVE,
         ground=True, votes=True, **OWN),
    _row(P.FENCING, P.FENCING, "the old primary is not proven silent yet", E.FREEZE,
         ground=False, late=False, **OWN),
    _row(P.FENCING, P.FENCING, "not enough positions are known yet", E.FREEZE,
         ground=True, votes=False, late=False, **OWN),
    _row(P.FENCING, P.BLOCKED, "the old primary could not be proven silent", E.BLOCK,
         ground=False, late=True, **OWN),
    _row(P.FENCING, P.BLOCKED, "too few positions are known to lose nothing", E.BLOCK,
         ground=True, votes=False, late=True, **OWN),
    _row(P.ELECTING, P.PROMOTING, "an eligible candidate has all that counts", E.CROWN, winner=True, **OWN),
    _row(P.ELECTING, P.ELECTING, "no candidate is eligible yet", E.FREEZE, winner=False, late=False, **OWN),
    _row(P.ELECTING, P.BLOCKED, "no candidate is eligible", E.BLOCK, winner=False, late=True, **OWN),
    _row(P.PROMOTING, P.ROUTING, "the new primary is promoted", E.BEGIN_REIGN, promotion=Promotion.DONE, **OWN),
    _row(P.PROMOTING, P.BOOTSTRAPPING, "the first data could not be made there; nobody was let in yet", E.OPEN_EPOCH,
         promotion=Promotion.UNMADE, **OWN),
    _row(P.PROMOTING, P.FENCING, "the promotion failed, and the candidate may have begun to take writes",
         E.OPEN_EPOCH, promotion=Promotion.FAILED, **OWN),
    _row(P.PROMOTING, P.FENCING, "the promotion took too long, and the candidate may have begun to take writes",
         E.OPEN_EPOCH, promotion=Promotion.PENDING, late=True, **OWN),
    _row(P.PROMOTING, P.PROMOTING, "the candidate is being promoted",
         promotion=Promotion.PENDING, late=False, **OWN),
    _row(P.ROUTING, P.CONFIRMED, "the new primary is lost before the routers followed", judged=_GONE, **OWN),
    _row(P.ROUTING, P.REJOINING, "every router has followed", E.CONCLUDE, judged=_HEARD, routed=True, **OWN),
    _row(P.ROUTING, P.REJOINING, "a router has not followed; it refuses lower epochs by itself", E.CONCLUDE,
         judged=_HEARD, routed=False, late=True, **OWN),
    _row(P.ROUTING, P.ROUTING, "the routers are following", judged=_HEARD, routed=False, late=False, **OWN),
    # Recover.
    _row(P.REJOINING, P.CONFIRMED, "the new primary is lost while others rejoin",
         judged=_GONE, asked=_NOT_NOW, **OWN),
    _row(P.REJOINING, P.STEADY, "every node does its duty", E.TEND, E.FINISH_REQUEST,
         judged=_HEARD, asked=_NOT_NOW, converged=True, **OWN),
    _row(P.REJOINING, P.STEADY, "some nodes rejoin slowly; they are tended from here", E.TEND, E.FINISH_REQUEST,
         judged=_HEARD, asked=_NOT_NOW, converged=False, late=True, **OWN),
    _row(P.REJOINING, P.REJOINING, "nodes are rejoining", E.TEND,
         judged=_HEARD, asked=_NOT_NOW, converged=False, late=False, **OWN),
    # Switchover.
    _row(P.HANDING_OVER, P.PROMOTING, "the old primary stopped cleanly and the target has everything",
         E.CROWN_TARGET, handover=Handover.READY, **OWN),
    _row(P.HANDING_OVER, P.PROMOTING, "the switchover is given up; the old primary goes on", E.CROWN_OLD,
         handover=Handover.FAILED, judged=_HEARD, **OWN),
    _row(P.HANDING_OVER, P.PROMOTING, "the switchover took too long; the old primary goes on", E.CROWN_OLD,
         handover=Handover.WAITING, judged=_HEARD, late=True, **OWN),
    _row(P.HANDING_OVER, P.HANDING_OVER, "the primary is stopping and the target is catching up",
         handover=Handover.WAITING, judged=_HEARD, late=False, **OWN),
    _row(P.HANDING_OVER, P.FENCING, "the old primary was lost while handing over", E.OPEN_EPOCH,
         handover=_UNREADY, judged=_GONE, **OWN),
    # Held by a person, or waiting for one.
    _row(P.PAUSED, P.STEADY, "a person resumed the cluster", E.TAKE_REQUEST, E.FINISH_REQUEST, asked=A.RESUME),
    _row(P.PAUSED, P.PAUSED, "paused: nothing is done but the self-fence", asked=_BUT_RESUME),
    _row(P.BLOCKED, P.FENCING, "a person asked for a failover", E.TAKE_REQUEST, E.UNBLOCK, E.OPEN_EPOCH,
         origin=Origin.CONFIRMED, asked=A.FAILOVER, **OWN),
    _row(P.BLOCKED, P.STEADY, "the primary is well again", E.UNBLOCK,
         origin=Origin.CONFIRMED, asked=_BUT_FAILOVER, judged=J.WELL, **OWN),
    _row(P.BLOCKED, P.BLOCKED, "waiting for a person to order the failover",
         origin=Origin.CONFIRMED, asked=_BUT_FAILOVER, judged=_GONE | _UNCLEAR, **OWN),
    _row(P.BLOCKED, P.ELECTING, "proof, positions and a candidate are there now", E.PROVE, E.UNBLOCK,
         origin=Origin.FENCING, ground=True, votes=True, winner=True, **OWN),
    _row(P.BLOCKED, P.BLOCKED, "the old primary is still not proven silent", E.FREEZE, E.BLOCK,
         origin=Origin.FENCING, ground=False, **OWN),
    _row(P.BLOCKED, P.BLOCKED, "still too few positions are known", E.FREEZE, E.BLOCK,
         origin=Origin.FENCING, ground=True, votes=False, **OWN),
    _row(P.BLOCKED, P.BLOCKED, "still no candidate is eligible", E.FREEZE, E.BLOCK,
         origin=Origin.FENCING, ground=True, votes=True, winner=False, **OWN),
    _row(P.BLOCKED, P.SUSPECT, "the nodes belong to this record again", E.UNBLOCK, origin=Origin.FOREIGN, **OWN),
    # First of all.
    _row(P.BOOTSTRAPPING, P.PROMOTING, "the first node is ready to be made", E.CROWN, winner=True, **OWN),
    _row(P.BOOTSTRAPPING, P.BOOTSTRAPPING, "nobody can be the first yet", winner=False, **OWN),
    # Another cluster's nodes, or a record older than they are.
    *(
        _row(phase, P.FENCING, "the nodes carry what this record cannot know, and enough of them agree", E.ADOPT,
             foreign=True, adoptable=True)
        for phase in Phase
        if phase not in {P.PAUSED, P.BLOCKED}
    ),
    *(
        _row(phase, P.BLOCKED, "the nodes carry what this record cannot know", E.BLOCK, foreign=True, adoptable=False)
        for phase in Phase
        if phase not in {P.PAUSED, P.BLOCKED}
    ),
    _row(P.BLOCKED, P.FENCING, "enough nodes agree on what they carry", E.ADOPT, foreign=True, adoptable=True),
    _row(P.BLOCKED, P.BLOCKED, "too few nodes agree on what they carry", E.BLOCK, foreign=True, adoptable=False),
)
# fmt: on


BY_PHASE: dict[Phase, tuple[Row, ...]] = {phase: tuple(row for row in ROWS if row.phase is phase) for phase in Phase}


def row_for(phase: Phase, situation: Situation) -> Row:
    """The one row; that there is exactly one is proven by tests/core/test_fsm.py."""
    return next(row for row in BY_PHASE[phase] if row.matches(situation))


def fields_of(phase: Phase) -> tuple[str, ...]:
    """The fields of the situation that matter in this phase, in the order of the type."""
    used = {name for row in BY_PHASE[phase] for name in row.when}
    return tuple(one.name for one in fields(Situation) if one.name in used)


def choices(name: str) -> tuple[Any, ...]:
    """Every value that a field of the situation can have."""
    kind = get_type_hints(Situation)[name]
    return (False, True) if kind is bool else tuple(kind)


def combinations(phase: Phase) -> Iterator[dict[str, Any]]:
    """Every combination of the fields that matter in this phase."""
    names = fields_of(phase)
    for values in product(*(choices(name) for name in names)):
        yield dict(zip(names, values, strict=True))
