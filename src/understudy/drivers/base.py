"""The port to an engine: what is seen of one node, and what can be done to it. Adapters beside it; policy in control/.

RULES
1. A driver speaks for one node on its own host. It keeps no epoch, identity or mark: those are on the node's disk, and
   the control layer's (control/cluster/node_state.py), the same for every engine.
2. Any call may be cancelled at any moment and be made again; whatever it left behind, the next one ends it properly.
3. `observe` changes nothing. It bounds its own probes; whoever calls it gives it up after its deadline all the same.
4. Engine words (LSN, replication id, GTID) end here: what leaves is a `Position`.
What every driver must do alike is in tests/contract/test_driver.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from understudy.core.actions import Action
from understudy.core.cluster import Capabilities, Node
from understudy.core.errors import Fault, Refused
from understudy.core.lineage import Position
from understudy.core.record import SyncConfig
from understudy.core.report import Running
from understudy.core.text import Name


class DriverFault(Fault):
    """The action was not done, or not to its end; doing it again is right."""


class NeedsRebuild(Refused):
    """`Rejoin` cannot bring this node back: it has what its source has not, and that cannot be undone in place."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One look at the engine. The fields that core/report.py has too mean the same there."""

    running: Running
    empty: bool
    """There is no data: nothing was ever put here, or not to its end (a copy under way counts when it is whole)."""
    position: Position | None
    """Flushed, never merely received, and read after everything else; None when it cannot be known."""
    promoted_epoch: int = 0
    writable: bool = False
    covered: bool = True
    replay_lag_bytes: int = 0
    streaming_from: Name | None = None
    """Whom it follows, once it has heard of it; it stays when the link breaks, and `link_age_ms` rises."""
    link_age_ms: int | None = None
    clean_stop: bool = False
    sync: SyncConfig | None = None
    write_fails: bool = False
    """A write on a fresh connection could not be executed, on a primary that should take writes."""
    slow: bool = False
    starved: bool = False
    """Writes are executed, and not acknowledged by enough voters."""
    disk_fails: bool = False
    """The disk below the data did not answer in time."""
    hangs: bool = False
    """Its processes are there, and it did not answer this look."""
    warnings: tuple[str, ...] = ()
    progress: int | None = None
    """How far what is under way (a copy, a recovery, a promotion) has got, in whatever unit: it must rise as long as
    that gets on. None when nothing is, or when it cannot be told."""


class Driver(Protocol):
    """One node's engine."""

    @property
    def capabilities(self) -> Capabilities:
        """What this engine can do."""
        ...

    def listen(self, told: Callable[[], None]) -> None:
        """Call `told` whenever a look is worth it before its time: the process ended, a link broke or came."""
        ...

    async def observe(self) -> Observation:
        """Look. Raises DriverFault when nothing can be said."""
        ...

    async def perform(self, action: Action) -> None:
        """Do it, to the end. Idempotent. Raises Refused (never, as things are), DriverFault (not now), NeedsRebuild."""
        ...


class Prober(Protocol):
    """How a steward asks another host's engine itself."""

    async def answers(self, node: Node) -> bool:
        """Whether the engine answers in its own protocol (an accepted connection is no answer). Bounds itself."""
        ...


@dataclass(frozen=True, slots=True)
class OsUser:
    """Whom an engine runs as, in the operating system's numbers."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineState:
    """What is known of the engine's process."""

    running: bool
    """False only when it is certain that nobody of its family is left."""
    pid: int | None = None
    """Its first process."""
    life: str = ""
    """Names this run of the engine among all that ever were on this host; empty when it does not run."""


class EngineProcess(Protocol):
    """How a driver runs its engine: below the node's guard, which drivers do not know.

    Everything here raises DriverFault when the guard does not answer or says no. An order carries its epoch, and one
    that is lower than an earlier one is refused.
    """

    async def look(self) -> EngineState:
        """Whether it runs. It may have been started by an earlier agent."""
        ...

    async def start(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str],
        directory: Path,
        log: Path,
        user: OsUser | None,
        epoch: int,
    ) -> EngineState:
        """Start it, in `directory`, in the foreground, its output appended to `log`; as ourselves when `user` is None.

        Done when its program runs, which is long before it serves. Must not be asked while it runs.
        """
        ...

    async def signal(self, number: int) -> None:
        """Send a signal to its first process."""
        ...

    async def stop(self, number: int, *, within_s: float, epoch: int) -> None:
        """Ask it to end by this signal, and kill what is left after `within_s`. Done when nobody is left."""
        ...

    async def kill(self, *, epoch: int) -> None:
        """Kill it with all its family. Done when nobody is left, also of an earlier guard's."""
        ...

    def listen(self, told: Callable[[], None]) -> None:
        """Call `told` when it has ended, and when it is verified that nobody is left."""
        ...
