"""What happens to the store: members of etcd lost, all of them, wiped, put back to an older state; agents restarted."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.integration.postgres.trial import LEASE_S, Trial, eventually
from tests.ledger import Failed, ask
from tests.pg_hosts import ENGINES, NODES, READ, ROUTER, SERVICE, WRITE, PgHosts


def test_rolling_restart_of_all_agents_is_not_noticed(pg: PgHosts) -> None:
    """Every agent, the router's too, ends and starts again in turn: no write or read fails, no engine restarts.

    So are other timers brought in: by a spec that is applied first, and that each agent then starts with.
    """
    assert any(_roll(pg, margin_ms) for margin_ms in (900, 850, 800, 750)), "each time it was noticed"


def _roll(pg: PgHosts, margin_ms: int) -> bool:
    """Whether nobody noticed it; who does though the primary's new agent was there within half a lease, is right to.

    A busy machine may take longer to start one.
    """
    with Trial(pg) as trial, _reading(pg) as refused:
        before = {node: pg.postmaster(node) for node in NODES}
        text = re.sub(r"lease: 4s[^}]*", f"lease: 4s, margin: {margin_ms}ms", pg.spec.read_text())
        assert text != pg.spec.read_text()
        assert "other timers" in str(pg.ask("apply", {"text": text}))
        pg.spec.write_text(text)
        took_s = 0.0
        for host in (*ENGINES, ROUTER):
            struck_s = time.monotonic()
            pg.end_agent(host)
            pg.start_agent(host)
            eventually(lambda host=host: pg.is_steady(of=host), f"the agent of {host} sees all well")
            if host == NODES[trial.primary]:
                took_s = time.monotonic() - struck_s
        time.sleep(LEASE_S)
        trial.wait_writing()
        pg.wait_steady()
        after = {node: pg.postmaster(node) for node in NODES}
        noticed = [
            *trial.ledger.failures(),
            *refused,
            *(f"{node} is new" for node in NODES if after[node] != before[node]),
        ]
        assert not noticed or took_s > LEASE_S / 2, noticed
        assert noticed or (pg.primary(), trial.now()["epoch"]) == (trial.primary, trial.epoch)
    return not noticed


def test_a_lost_etcd_leader_is_not_noticed(pg: PgHosts) -> None:
    """One member dies, the one that leads: nobody loses the part."""
    with Trial(pg) as trial:
        eventually(lambda: pg.etcd_leader() is not None, "etcd has a leader")
        leader = pg.etcd_leader() or ENGINES[0]
        pg.kill_etcd(leader)
        trial.hold(1.5 * LEASE_S)
        pg.start_etcd(leader)
        assert trial.now()["epoch"] == trial.epoch


def test_etcd_is_led_from_elsewhere_than_the_primary(pg: PgHosts) -> None:
    """Losing the primary's host must not cost an election too; moving etcd's leader is not noticed by clients."""
    with Trial(pg) as trial:
        pg.move_etcd_leader(NODES[trial.primary])
        eventually(lambda: pg.etcd_leader() not in {None, NODES[trial.primary]}, "etcd is led from another host")
        assert not trial.ledger.failures()
        assert trial.now()["epoch"] == trial.epoch


def test_without_a_majority_of_etcd_the_primary_goes_on(pg: PgHosts) -> None:
    """Two of three members die: the primary goes on by promises; when they are back, failover works again."""
    with Trial(pg) as trial:
        pg.kill_etcd(*ENGINES[:2])
        trial.hold(2 * LEASE_S)
        pg.start_etcd(*ENGINES[:2])
        trial.hold(1.5 * LEASE_S)  # by then nobody is bound by a promise any more
        pg.wait_steady()
        assert trial.now()["epoch"] == trial.epoch
        trial.replace_primary()


def test_without_etcd_the_primary_goes_on(pg: PgHosts) -> None:
    """All members die; with them nobody can be promoted, and nobody is demoted; afterwards failover works again.

    Meanwhile everybody says what is the matter, without the store.
    """
    with Trial(pg) as trial:
        pg.kill_etcd()
        trial.hold(2 * LEASE_S)
        for host in (*ENGINES, ROUTER):
            [why] = pg.ask(f"services/{SERVICE}/why", of=host)["reasons"]
            assert why.startswith("The store has not answered for ")
            assert ("goes on, as most nodes promise" in why) == (host == NODES[trial.primary])
            assert pg.cluster(of=host)["reason"].startswith("The store has not answered for ")
        pg.start_etcd()
        pg.wait_steady()
        assert trial.now()["epoch"] == trial.epoch
        pg.kill_postmaster(trial.primary)
        trial.wait_failover()  # maybe to the same node: the others may still be bound by their promises to it


def test_a_wiped_etcd_costs_no_data(pg: PgHosts) -> None:
    """All that etcd knew is gone: the nodes' own word makes the record anew, in an epoch above all before."""
    with Trial(pg, outage_s=60) as trial:
        pg.wipe_etcd()
        pg.start_etcd()
        eventually(lambda: trial.now()["epoch"] > trial.epoch, "a higher epoch")


def test_an_etcd_from_an_old_snapshot_costs_no_data(pg: PgHosts) -> None:
    """The store is put back to before two failovers: the nodes have seen higher epochs, and that is what counts."""
    pg.kill_etcd()
    pg.save_etcd()
    pg.start_etcd()
    for _ in range(2):
        with Trial(pg) as trial:
            pg.kill_postmaster(trial.primary)
            trial.wait_failover()
    with Trial(pg, outage_s=60) as trial:
        pg.kill_etcd()
        pg.restore_etcd()
        pg.start_etcd()
        eventually(lambda: trial.now()["epoch"] > trial.epoch, "a higher epoch")


def test_an_etcd_from_a_snapshot_of_now(pg: PgHosts) -> None:
    """While everybody is heard it costs nothing; who is silent may know of more than it, and then all begin anew."""
    with Trial(pg) as trial:
        pg.renew_etcd("second")
        trial.hold(2 * LEASE_S)
        pg.wait_steady()
        assert trial.now()["epoch"] == trial.epoch
    with Trial(pg, outage_s=60) as trial:
        silent = NODES[trial.standbys()[0]]
        pg.kill_agent(silent)
        time.sleep(LEASE_S)
        pg.renew_etcd("third")
        eventually(lambda: trial.now()["epoch"] > trial.epoch + 900, "an epoch far above")
        pg.start_agent(silent)


@contextmanager
def _reading(pg: PgHosts) -> Iterator[list[str]]:
    """Clients of the read port, each with a connection of its own, one after the other; what they were refused."""
    refused: list[str] = []
    over = threading.Event()

    def read() -> None:
        while not over.wait(0.02):
            try:
                ask(pg.conninfo.replace(f"port={WRITE}", f"port={READ}"), "SELECT count(*) FROM ledger", 5.0)
            except Failed as why:
                refused.append(str(why))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield refused
    finally:
        over.set()
        reader.join(10)
