"""What happens between hosts: cables pulled, ways cut one way or in part, packets lost. Real nodes under writers."""

import time
from collections.abc import Iterator

import pytest
from tests.integration.postgres.trial import LEASE_S, Trial
from tests.pg_hosts import ENGINE_PORT, ENGINES, ETCD, ETCD_PEERS, NODES, PgHosts


@pytest.fixture(autouse=True)
def _mended(pg: PgHosts) -> Iterator[None]:
    """No test leaves a cut to the next one."""
    yield
    pg.mend()
    for host in ENGINES:
        pg.link_up(host)


def test_a_host_that_is_cut_off_is_replaced(pg: PgHosts) -> None:
    """The cable of the primary's host is pulled: another takes over, and the old one comes back as a standby."""
    with Trial(pg) as trial:
        host = NODES[trial.primary]
        pg.link_down(host)
        assert trial.wait_failover() != trial.primary
        pg.link_up(host)


@pytest.mark.parametrize("way", ["sends", "hears"])
def test_a_way_that_is_cut_in_one_direction(pg: PgHosts, way: str) -> None:
    """What the primary's host sends to anybody is lost, or what anybody sends to it: another takes over."""
    with Trial(pg) as trial:
        host = NODES[trial.primary]
        if way == "sends":
            pg.cut(host, pg.others(host))
        else:
            for other in pg.others(host):
                pg.cut(other, [host])
        assert trial.wait_failover() != trial.primary
        pg.mend()


def test_two_sides_that_clients_reach_both(pg: PgHosts) -> None:
    """The primary's host is parted from the other engines' hosts alone; router and clients still reach it."""
    with Trial(pg) as trial:
        host = NODES[trial.primary]
        pg.part(host, [other for other in ENGINES if other != host])
        assert trial.wait_failover() != trial.primary
        pg.mend()


def test_a_primary_that_hears_no_standby_gives_way(pg: PgHosts) -> None:
    """Replication alone is cut: no write can be acknowledged there, and both standbys can go on without it."""
    with Trial(pg) as trial:
        host = NODES[trial.primary]
        pg.part(host, [other for other in ENGINES if other != host], [ENGINE_PORT])
        assert trial.wait_failover() != trial.primary
        pg.mend()


def test_a_primary_that_is_cut_from_the_store_goes_on(pg: PgHosts) -> None:
    """The store is lost to the primary's host alone: the other nodes promise, no client notices for several leases."""
    with Trial(pg) as trial:
        host = NODES[trial.primary]
        pg.part(host, [other for other in ENGINES if other != host], [ETCD, ETCD_PEERS])
        trial.hold(2 * LEASE_S)
        pg.mend()
        pg.wait_steady()
        assert (pg.primary(), trial.now()["epoch"]) == (trial.primary, trial.epoch)


def test_a_third_of_all_packets_lost(pg: PgHosts) -> None:
    """The primary's host loses 30 % of what comes and goes: whoever has the part in the end, nothing is lost."""
    with Trial(pg, outage_s=40) as trial:
        pg.lose(NODES[trial.primary], 30)
        time.sleep(3 * LEASE_S)
        trial.wait_writing()
        pg.mend()
