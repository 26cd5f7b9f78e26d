"""A switchover under load, and one that is struck at each of its steps. Three real nodes under writers."""

import contextlib
import threading
from collections.abc import Callable

import pytest
from tests.integration.postgres.trial import OUTAGE_S, Trial, last, patiently, told
from tests.pg_hosts import NODES, PgHosts

from understudy.core.events import EventKind

ABORT_S = 8.0
"""How long nobody may write when a switchover is given up: less than the 10 s it may take at most."""
STEPS = (EventKind.SWITCHOVER_STARTED, EventKind.CLUSTER_CROWNED)
"""The old primary is told to stop; the target is told to take over."""


def test_a_switchover_under_load_loses_nothing(pg: PgHosts) -> None:
    """To each other node in turn, and back: the wished one has the part, one epoch higher each time."""
    with Trial(pg) as trial:
        for target in (*trial.standbys(), trial.primary):
            before = pg.cluster()
            pg.switchover(target)
            trial.wait_writing()
            pg.wait_steady()
            assert (pg.primary(), pg.cluster()["epoch"]) == (target, before["epoch"] + 1)


def test_a_target_that_hangs_ends_the_switchover(pg: PgHosts) -> None:
    """The target's engine stops answering as the old primary hands over: that one takes its part again."""
    with Trial(pg, outage_s=ABORT_S) as trial:
        since, target = last(pg), trial.standbys()[0]
        pg.freeze_engine(target)
        with pytest.raises(OSError):
            pg.switchover(target)
        assert pg.primary() == trial.primary
        pg.thaw(NODES[target])
        assert told(pg, EventKind.SWITCHOVER_ABORTED, since) or told(pg, EventKind.REQUEST_REFUSED, since)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("struck", ["old", "target", "steward"])
def test_a_switchover_struck_at_a_step(pg: PgHosts, struck: str, step: EventKind) -> None:
    """Old primary, target, or the agent that decides is killed at that step: somebody has the part, nothing is lost."""
    assert any(_struck(pg, struck, step) for _ in range(3)), "no switchover came as far as that"


def _struck(pg: PgHosts, struck: str, step: EventKind) -> bool:
    """Whether the switchover came to that step; it may be refused, or given up before, on a busy machine."""
    with Trial(pg, outage_s=ABORT_S if struck == "target" else OUTAGE_S) as trial:
        target = trial.standbys()[0]
        steward = trial.now()["steward"]
        blows: dict[str, Callable[[], float]] = {
            "old": lambda: pg.kill_postmaster(trial.primary),
            "target": lambda: pg.kill_postmaster(target),
            "steward": lambda: pg.kill_agent(steward),
        }
        since, came, over = last(pg), threading.Event(), threading.Event()

        def step_is_told() -> bool:
            return bool(patiently(lambda: told(pg, step, since)))

        strike = threading.Thread(target=_at, args=(step_is_told, blows[struck], came, over), daemon=True)
        strike.start()
        with contextlib.suppress(OSError):  # it may come to its end all the same, or be given up
            pg.switchover(target)
        over.set()
        strike.join(90)
        assert not strike.is_alive()
        if struck == "steward" and came.is_set():
            pg.start_agent(steward)
    return came.is_set()


def _at(
    step_is_told: Callable[[], bool], blow: Callable[[], float], came: threading.Event, over: threading.Event
) -> None:
    """Strike when the journal tells that step, unless the switchover is over without it."""
    is_over = False
    while not (is_over or came.is_set()):
        is_over = over.wait(0.002)
        if step_is_told():
            came.set()
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has already ended
                blow()
