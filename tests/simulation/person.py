"""A person: gives orders at bad moments while there are faults; then does what a blocked cluster tells him to do."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from understudy.control.keys import cluster_command
from understudy.core.codec import encode
from understudy.core.record import Phase, Request, RequestKind
from understudy.core.text import Name
from understudy.core.words import listed
from understudy.store.base import Put

if TYPE_CHECKING:
    from tests.simulation.world import World

LOOKS_EVERY_S = 5.0


class Person:
    """Writes wishes straight into the store, as the API does."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._number = 0
        self.swears = True
        """Whether he goes and turns a machine off when he is asked to."""

    def asks(
        self, kind: RequestKind, node: Name | None, *, accept_loss: bool = False, sworn: Sequence[Name] = ()
    ) -> None:
        """Order something."""
        self._number += 1
        request = Request(self._number, kind, node, accept_loss, frozenset(sworn), by="a person")
        world = self._world
        world.note(
            "person",
            "asks",
            f"{kind} {node or ''}{' accepting loss' if accept_loss else ''}{f' {listed(sworn)} off' if sworn else ''}",
        )
        key = cluster_command(world.plan.service.name, self._number)
        world.store.transact([], [Put(key, encode(request))])

    def begins_to_care(self) -> None:
        """From now on he looks at the cluster now and then."""
        self._world.scheduler.later(LOOKS_EVERY_S, self._look)

    def _look(self) -> None:
        world, record = self._world, self._world.stored
        if record is not None and record.phase is Phase.PAUSED:
            self.asks(RequestKind.RESUME, None)
        elif record is not None and record.phase is Phase.BLOCKED and record.blocked is not None:
            words = record.blocked.command.split()
            sworn = [dead for flag, dead in pairwise(words) if flag == "--sworn-dead"]
            if not sworn or self.swears:
                self._does(words, sworn)
        world.scheduler.later(LOOKS_EVERY_S, self._look)

    def _does(self, words: list[str], sworn: list[str]) -> None:
        """What the blocked cluster's command says."""
        world = self._world
        dead = [name for name in map(Name, sworn) if name in world.sites]
        for name in dead:
            world.power_cycle(world.sites[name].node.host)
        self.asks(
            RequestKind.FAILOVER,
            None,
            accept_loss="--accept-loss" in words,
            sworn=dead,
        )
