"""A switchover under load, and one that is struck at each of its steps. Three real nodes under writers."""

import contextlib
import threading
import time
from collections.abc import Callable

import pytest
from tests.integration.postgres.trial import OUTAGE_S, Trial, last, told
from tests.pg_hosts import NODES, PgHosts, wait_until

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
    with Trial(pg, outage_s=ABORT_S if struck == "target" else OUTAGE_S) as trial:
        target = trial.standbys()[0]
        steward = trial.now()["steward"]
        blows: dict[str, Callable[[], float]] = {
            "old": lambda: pg.kill_postmaster(trial.primary),
            "target": lambda: pg.kill_postmaster(target),
            "steward": lambda: pg.kill_agent(steward),
        }
        strike = threading.Thread(target=_at, args=(pg, step, blows[struck]), daemon=True)
        strike.start()
        time.sleep(0.2)  # until it listens
        with contextlib.suppress(OSError):  # it may come to its end all the same, or be given up
            pg.switchover(target)
        strike.join(30)
        assert not strike.is_alive()
        if struck == "steward":
            pg.start_agent(steward)


def _at(pg: PgHosts, step: EventKind, blow: Callable[[], float]) -> None:
    """Strike when the journal tells that step."""
    since = last(pg)
    wait_until(lambda: bool(told(pg, step, since)), f"{step}", 20, every_s=0.002)
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has already ended
        blow()
