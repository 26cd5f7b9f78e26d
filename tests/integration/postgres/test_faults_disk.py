"""What happens to disks: one is full, one hangs. Each node's host has a disk of its own, for data and agent alike."""

import time
from collections.abc import Iterator

import pytest
from tests import pg_hosts
from tests.integration.postgres.trial import LEASE_S, Trial, eventually, streams
from tests.ledger import ask
from tests.pg_hosts import ENGINES, NODES, PgHosts

DISK_MIB = 1024


@pytest.fixture(scope="module")
def pg() -> Iterator[PgHosts]:
    """Three nodes in zero_loss, with disks."""
    if reason := pg_hosts.missing():
        pytest.skip(reason)
    with PgHosts(disk_mib=DISK_MIB) as hosts:
        yield hosts


@pytest.fixture(autouse=True)
def _mended(pg: PgHosts) -> Iterator[None]:
    """No test leaves a broken disk to the next one."""
    yield
    for host in ENGINES:
        pg.unhang_disk(host)
        pg.empty_disk(host)


def test_a_primary_whose_disk_is_full_is_replaced(pg: PgHosts) -> None:
    """Neither PostgreSQL nor the agent can write there: another takes over; with room, it comes back as a standby."""
    with Trial(pg, outage_s=40) as trial:
        pg.fill_disk(NODES[trial.primary])
        assert trial.wait_failover() != trial.primary
        pg.empty_disk(NODES[trial.primary])


def test_a_standby_whose_disk_is_full_holds_up_nobody(pg: PgHosts) -> None:
    """The other standby acknowledges alone; with room, it follows again."""
    with Trial(pg) as trial:
        node = trial.standbys()[0]
        pg.fill_disk(NODES[node])
        ask(pg.conninfo, "SELECT pg_switch_wal()")  # the file of the log that is there would have room
        eventually(lambda: not streams(pg, node), "it cannot write what it is sent")
        trial.hold(3 * LEASE_S)
        pg.empty_disk(NODES[node])
        assert trial.now()["epoch"] == trial.epoch


def test_a_primary_whose_disk_hangs_is_replaced(pg: PgHosts) -> None:
    """Its processes cannot even be killed: the standbys' silence is the proof; when the disk goes on, it rejoins."""
    with Trial(pg, outage_s=40) as trial:
        host = NODES[trial.primary]
        pg.hang_disk(host)
        assert trial.wait_failover() != trial.primary
        trial.hold(LEASE_S)
        pg.unhang_disk(host)


def test_a_standby_whose_disk_hangs_holds_up_nobody(pg: PgHosts) -> None:
    """The other standby acknowledges alone; a failover goes to that one."""
    with Trial(pg) as trial:
        hung, other = trial.standbys()
        pg.hang_disk(NODES[hung])
        trial.hold(2 * LEASE_S)
        pg.kill_postmaster(trial.primary)
        assert trial.wait_failover() in {other, trial.primary}
        pg.unhang_disk(NODES[hung])
        eventually(pg.is_steady, "everybody follows")
        time.sleep(1)
