"""What an agent may have to do with its own node. Values only; drivers carry them out, core/obey.py chooses them.

RULES
1. Every action is idempotent: done again, after any crash in the middle, it ends the same.
2. Before an action is run, its `epoch` and `identity` are on the node's disk, flushed; from then on the agent refuses
   every record of a lower epoch, and promises nothing to one.
3. An action that has not ended, nor got on, for `deadline_ms` has failed; the agent reports it (`failed_epoch`,
   `failure`). A copy (Rejoin, Rebuild) of which nobody can say how far it is may take as long as it takes.
4. Whatever starts an engine starts it non-writable. Only `Promote` and then `Open` make it take writes.
"""

from dataclasses import dataclass

from understudy.core.lineage import Position
from understudy.core.record import SyncConfig
from understudy.core.text import Name


@dataclass(frozen=True, slots=True)
class Order:
    """What all actions have in common."""

    node: Name
    identity: str
    epoch: int
    deadline_ms: int


@dataclass(frozen=True, slots=True)
class Bootstrap(Order):
    """Make the very first data of a cluster on an empty disk. Never on one that has data."""


@dataclass(frozen=True, slots=True)
class Start(Order):
    """Start the engine non-writable, following nobody; the closed mark stays until the node is promoted or rejoins."""


@dataclass(frozen=True, slots=True)
class Close(Order):
    """Kill all, verify that nothing is left, mark the node closed under the epoch, durably: reboots too."""


@dataclass(frozen=True, slots=True)
class Freeze(Order):
    """Acknowledge nothing of a lower epoch any more, durably; only then read the position. A closed node stays dead."""


@dataclass(frozen=True, slots=True)
class Follow(Order):
    """Replicate from `source`, the engine started where needed (never writable); takes back a freeze of this epoch.

    Who has history that does not fit `start` is refused, before it hears the source: what it has of its own would look
    like an acknowledgement.
    """

    source: Name
    start: Position | None = None
    """Where the source stood when it was crowned."""


@dataclass(frozen=True, slots=True)
class Promote(Order):
    """Become primary with the commit rule in force from the first write; clients stay out until `Open`."""

    sync: SyncConfig


@dataclass(frozen=True, slots=True)
class Open(Order):
    """Let clients in, once enough voters have answered that they have all from before."""

    held: bool = False
    """That is known already."""


@dataclass(frozen=True, slots=True)
class SetSync(Order):
    """Put this commit rule in force on the primary."""

    sync: SyncConfig


@dataclass(frozen=True, slots=True)
class StopGracefully(Order):
    """Let clients out, stop so that the standbys get everything, and mark the node closed: nothing restarts it."""


@dataclass(frozen=True, slots=True)
class Rejoin(Order):
    """Bring a fenced or diverged node back as a standby of `source`, as it is or rewound (what is undone is saved).

    Where neither can be done the data stays as it is and the report says `needs_rebuild`.
    """

    source: Name


@dataclass(frozen=True, slots=True)
class Rebuild(Order):
    """Copy everything anew from `source`; the old data is kept. Without room for both it fails, unless `consent`."""

    source: Name
    since: int
    consent: bool


Action = Bootstrap | Start | Close | Freeze | Follow | Promote | Open | SetSync | StopGracefully | Rejoin | Rebuild
