"""What a person does while clients write: pause and resume, a failover by order, a rebuild."""

import time

import pytest
from tests.integration.postgres.trial import LEASE_S, Trial, eventually, last, told
from tests.pg_hosts import PgHosts

from understudy.core.events import EventKind
from understudy.drivers.postgres import beside


def test_paused_means_that_nothing_is_done(pg: PgHosts) -> None:
    """Clients write on while paused. A primary that dies then is not replaced before a person resumes."""
    with Trial(pg, outage_s=40) as trial:
        pg.wish("pause")
        trial.hold(1.5 * LEASE_S)
        assert trial.now()["phase"] == "paused"
        pg.kill_postmaster(trial.primary)
        time.sleep(1.5 * LEASE_S)
        seen = trial.now()
        assert (seen["phase"], seen["epoch"], seen["health"]) == ("paused", trial.epoch, "down")
        pg.wish("resume")
        trial.wait_failover()  # maybe to the same node: its engine may be up again before a standby is frozen


def test_a_failover_by_order_loses_nothing(pg: PgHosts) -> None:
    """A person orders it though the primary is well: another has the part, and the old one follows it."""
    with Trial(pg) as trial:
        pg.wish("failover")
        assert trial.wait_failover() != trial.primary


def test_a_rebuild_under_load(pg: PgHosts) -> None:
    """A standby is copied anew, its old data kept; no client notices, and it may be primary afterwards."""
    with Trial(pg) as trial:
        node, since = trial.standbys()[0], last(pg)
        kept = beside.of(pg.data(node)).kept
        before = set(kept.iterdir())
        pg.wish("rebuild", node)
        eventually(lambda: bool(set(kept.iterdir()) - before), "the old data is kept")
        eventually(pg.is_steady, "everybody follows")
        assert [event.subject for event in told(pg, EventKind.REQUEST_TAKEN, since)] == [node]
        assert not trial.ledger.failures()
        pg.switchover(node)
        trial.wait_writing()


def test_a_primary_is_not_rebuilt(pg: PgHosts) -> None:
    """Nobody has more than it: refused, with the reason, and nothing happens."""
    with Trial(pg) as trial:
        with pytest.raises(OSError, match="primary"):
            pg.wish("rebuild", trial.primary)
        trial.hold(1)
