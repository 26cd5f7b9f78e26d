"""The network between hosts (and to the store): cut one way or both, losing, doubling, delaying, reordering.

Two kinds of traffic: `datagram` (each message for itself: lost, doubled, overtaken) and `stream` (as TCP: in order,
none doubled, and a lost one breaks the connection, of which both ends hear sooner or later).
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.simulation.scheduler import Call, Scheduler


@dataclass(slots=True)
class Weather:
    """How the network is at the moment, everywhere."""

    delay_s: float = 0.0004
    jitter_s: float = 0.0006
    loss: float = 0.0
    twice: float = 0.0


class Network:
    """Who reaches whom."""

    def __init__(self, scheduler: Scheduler, random: Random) -> None:
        self._scheduler = scheduler
        self._random = random
        self.weather = Weather()
        self._cut: dict[tuple[str, str], float] = {}
        """Directed pairs that are cut, and since when."""
        self._order: dict[tuple[str, str], float] = {}
        """When the last stream message of a pair arrives."""
        self.changed: list[Callable[[], None]] = []
        """Told whenever a pair is cut or heals."""

    def cut(self, source: str, target: str) -> None:
        """Nothing gets from source to target any more."""
        self._cut.setdefault((source, target), self._scheduler.now_s)
        self._tell()

    def heal(self, source: str, target: str) -> None:
        """It does again."""
        self._cut.pop((source, target), None)
        self._tell()

    def heal_all(self) -> None:
        """No pair is cut, and the weather is fine."""
        self._cut.clear()
        self.weather = Weather()
        self._tell()

    def _tell(self) -> None:
        for told in self.changed:
            told()

    def silent_since(self, source: str, target: str) -> float | None:
        """Since when nothing gets from source to target; None when it does."""
        return self._cut.get((source, target)) if source != target else None

    def reaches(self, source: str, target: str) -> bool:
        """Whether what is sent now arrives."""
        return source == target or (source, target) not in self._cut

    def delay_s(self) -> float:
        """How long one message takes."""
        return self.weather.delay_s + self.weather.jitter_s * self._random.random()

    def datagram(self, source: str, target: str, call: Call, *args: Any) -> None:
        """Send one message, which may be lost, doubled and overtaken."""
        if not self.reaches(source, target) or self._random.random() < self.weather.loss:
            return
        for _ in range(2 if self._random.random() < self.weather.twice else 1):
            self._scheduler.later(self.delay_s(), self._arrive, source, target, call, args)

    def stream(self, source: str, target: str, lost: Callable[[], None], call: Call, *args: Any) -> None:
        """Send in order. When it is lost, now or on its way, the connection is broken: `lost` is called."""
        pair = (source, target)
        if (pair in self._cut and source != target) or self._random.random() < self.weather.loss:
            lost()
            return
        when_s = self._order[pair] = max(self._scheduler.now_s + self.delay_s(), self._order.get(pair, 0.0))
        self._scheduler.at(when_s, self._arrive_in_order, pair, lost, call, args)

    def _arrive(self, source: str, target: str, call: Call, args: tuple[Any, ...]) -> None:
        if self.reaches(source, target):
            call(*args)

    def _arrive_in_order(
        self, pair: tuple[str, str], lost: Callable[[], None], call: Call, args: tuple[Any, ...]
    ) -> None:
        if pair in self._cut:
            lost()
        else:
            call(*args)
