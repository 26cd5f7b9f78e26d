"""The situation: everything that the transition table looks at, as a few small words. Values only.

RULES: a row of the table may ask for these fields and nothing else; so the table can be proven total by going through
every combination of them. How a view becomes a situation stands in core/classify.py.
"""

from dataclasses import dataclass
from enum import StrEnum

from understudy.core.record import Origin


class Judged(StrEnum):
    """What we believe of the primary, time and witnesses already weighed (core/health.py)."""

    WELL = "well"
    MUTE = "mute"
    """Its agent is silent, but a standby or a probe hears the engine: a dead agent, not a dead primary."""
    DOUBTFUL = "doubtful"
    LOST = "lost"
    """Enough witnesses, for long enough."""
    DEAD = "dead"
    """Its own agent says that the process is gone."""


class Asked(StrEnum):
    """The person's wish at the head of the queue, if it can be met at all."""

    NOTHING = "nothing"
    SWITCHOVER = "switchover"
    FAILOVER = "failover"
    PAUSE = "pause"
    RESUME = "resume"


class Promotion(StrEnum):
    """How the candidate's promotion stands."""

    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"
    UNMADE = "unmade"
    """The very first data could not be made; nobody was let in, and another node could be asked."""


class Handover(StrEnum):
    """How a switchover stands."""

    WAITING = "waiting"
    READY = "ready"
    """The old primary stopped cleanly and the target has all of it."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Situation:
    """One combination. See core/classify.py for the exact meaning of each field."""

    judged: Judged
    asked: Asked
    promotion: Promotion
    handover: Handover
    origin: Origin
    manual: bool
    """Failover waits for a person."""
    hope: bool
    """Somebody who could take over, or the old primary's own agent, is heard."""
    ground: bool
    """A promotion is proven safe."""
    votes: bool
    """Enough is known to lose nothing that must not be lost."""
    winner: bool
    """An eligible candidate exists."""
    routed: bool
    """Every live router has followed; at a birth, clients have been let in too."""
    converged: bool
    """Every node does its duty."""
    late: bool
    """The phase has taken longer than it should."""
    foreign: bool
    """What nodes carry contradicts the record: a higher epoch or serial, or most of them another identity."""
    adoptable: bool
    """It does, and enough nodes agree on what they carry that the record can be made anew above it."""
