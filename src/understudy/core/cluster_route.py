"""Where a cluster's clients belong: a pure function of its record, the same on every router. No HAProxy words."""

from dataclasses import dataclass

from understudy.core.record import ClusterRecord, DutyKind, Origin, Phase
from understudy.core.text import Name

_SERVED = frozenset({Phase.STEADY, Phase.SUSPECT, Phase.CONFIRMED, Phase.ROUTING, Phase.REJOINING, Phase.PAUSED})


@dataclass(frozen=True, slots=True)
class Route:
    """Write to `write` (None: hold new sessions in the queue), read from `reads`. A router refuses a lower epoch."""

    epoch: int
    write: Name | None
    reads: tuple[Name, ...]


def route_of(record: ClusterRecord) -> Route:
    """The route of a record. Nobody takes writes between the first fence and the end of the promotion."""
    confirmed = record.blocked is not None and record.blocked.origin is Origin.CONFIRMED
    served = record.phase in _SERVED or (record.phase is Phase.BLOCKED and confirmed)
    reads = tuple(duty.node for duty in record.duties if duty.kind is DutyKind.STANDBY)
    return Route(record.epoch, record.primary if served else None, reads)
