"""What happens on one host: the engine, its processes, or the agent die or stop. Three real nodes under writers."""

import os
import signal
import time

from tests.integration.postgres.trial import LEASE_S, Trial, eventually
from tests.ledger import ask
from tests.pg_hosts import NODES, PgHosts


def test_a_killed_postmaster_is_replaced(pg: PgHosts) -> None:
    """The postmaster dies and leaves backends that might still commit: another takes over, nothing is lost."""
    with Trial(pg) as trial:
        trial.replace_primary()


def test_a_killed_backend_costs_no_acknowledged_write(pg: PgHosts) -> None:
    """One backend dies by SIGKILL, and PostgreSQL ends itself with it: it is not started again behind our back."""
    with Trial(pg) as trial:
        sql = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'INSERT%' AND pid <> pg_backend_pid() LIMIT 1"
        [[pid]] = ask(pg.conninfo_of(trial.primary), sql)
        os.kill(int(pid), signal.SIGKILL)
        trial.wait_failover()


def test_postmaster_and_agent_die_together(pg: PgHosts) -> None:
    """Nobody on its host can say that the engine is dead: the others find out and prove it."""
    with Trial(pg) as trial:
        host = NODES[trial.primary]
        pg.kill_agent(host)
        pg.kill_postmaster(trial.primary)
        assert trial.wait_failover() != trial.primary
        pg.start_agent(host)


def test_a_stopped_postmaster_is_replaced(pg: PgHosts) -> None:
    """Old connections still answer, new ones hang: that is no primary to keep."""
    with Trial(pg) as trial:
        pg.freeze_postmaster(trial.primary)
        assert trial.wait_failover() != trial.primary


def test_an_engine_stopped_as_a_whole_is_replaced(pg: PgHosts) -> None:
    """Every process of PostgreSQL hangs; its agent lives."""
    with Trial(pg) as trial:
        pg.freeze_engine(trial.primary)
        assert trial.wait_failover() != trial.primary


def test_a_stopped_agent_loses_at_most_the_part(pg: PgHosts) -> None:
    """The primary's agent hangs, the engine is well: the guard fences at the lease's end, and another goes on."""
    with Trial(pg) as trial:
        host = NODES[trial.primary]
        pg.freeze_agent(host)
        assert trial.wait_failover() != trial.primary
        pg.thaw(host)


def test_a_host_that_is_paused_as_a_whole_is_replaced(pg: PgHosts) -> None:
    """Like a frozen virtual machine, guard and all, for longer than its lease: another goes on, and keeps the part."""
    with Trial(pg) as trial:
        host = NODES[trial.primary]
        pg.freeze_host(host)
        assert trial.wait_failover() != trial.primary
        trial.hold(LEASE_S)
        pg.thaw(host)


def test_a_killed_agent_that_comes_back_in_time_costs_nothing(pg: PgHosts) -> None:
    """The primary's agent dies and is started again within the lease: it re-attaches, and no client notices."""
    assert any(_comes_back_unnoticed(pg) for _ in range(4)), "each time it was noticed"


def _comes_back_unnoticed(pg: PgHosts) -> bool:
    """Whether nobody noticed it; who does though the new agent was there within half a lease, is right to.

    A busy machine may take longer to start a program.
    """
    with Trial(pg) as trial:
        host = NODES[trial.primary]
        postmaster = pg.postmaster(trial.primary)
        struck_s = pg.kill_agent(host)
        pg.start_agent(host)
        eventually(lambda: pg.is_steady(of=host), "the new agent sees all well")
        took_s = time.monotonic() - struck_s
        time.sleep(LEASE_S)  # by then, who had not been renewed would be fenced
        trial.wait_writing()
        pg.wait_steady()
        is_same = (pg.primary(), pg.postmaster(trial.primary)) == (trial.primary, postmaster)
        unnoticed = is_same and not trial.ledger.failures()
        assert unnoticed or took_s > LEASE_S / 2, trial.ledger.failures()
    return unnoticed


def test_a_second_failure_right_after_the_first(pg: PgHosts) -> None:
    """The next primary dies as soon as it takes writes: a second real failure is never held back."""
    with Trial(pg) as trial:
        pg.kill_postmaster(trial.primary)
        second = trial.wait_failover()
        trial.epoch = trial.now()["epoch"]
        pg.kill_postmaster(second)
        trial.wait_failover()
