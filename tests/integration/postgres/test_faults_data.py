"""What happens to data: standbys lost, emptied, put back to before; prepared transactions; a backlog; a told loss."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import pg_hosts
from tests.drivers.postgres.real import PROGRAMS
from tests.integration.postgres.trial import LEASE_S, Trial, eventually, last, streams, told
from tests.ledger import Failed, ask
from tests.pg_hosts import ENGINE_PORT, ENGINES, NODES, ROUTER, PgHosts, forget_memory, wait_until

from understudy.core.events import EventKind
from understudy.drivers.postgres.branches import KEPT
from understudy.drivers.postgres.rejoin import reports
from understudy.drivers.postgres.tools import Account

DROP_S = 5.0
"""After that time without a standby the commit rule does without it."""
MAX_LOSS_MIB = 1
WRITERS = 4
BACKLOG_MIB = int(os.environ.get("BACKLOG_MIB", "128"))
"""A smaller one here; `make backlog` has the 1 GiB."""


def test_standbys_lost_in_zero_loss(pg: PgHosts) -> None:
    """One lost: nobody notices. Both lost: nothing is acknowledged, and status says why. One back: writes go on."""
    with Trial(pg, outage_s=40) as trial:
        first, second = trial.standbys()
        pg.kill_node(first)
        trial.hold(DROP_S + 2)
        struck_s = pg.kill_node(second)
        time.sleep(4)
        silent_s = time.monotonic()
        time.sleep(2)
        assert trial.ledger.last_s() < silent_s, "a write was acknowledged that no standby has"
        eventually(lambda: trial.now()["health"] == "down", "status says it")
        seen = trial.now()
        assert (seen["health"], seen["primary"], seen["epoch"]) == ("down", trial.primary, trial.epoch)
        assert "too few standbys have acknowledged" in seen["reason"]
        assert f"{first} has not been heard" in seen["reason"]
        pg.start_agent(NODES[first])
        trial.ledger.wait_over(struck_s, least_s=1, patience_s=30)
        pg.start_agent(NODES[second])


@pytest.mark.parametrize("left", ["its memory", "nothing"])
def test_a_standby_that_comes_back_empty_is_copied_anew(pg: PgHosts, left: str) -> None:
    """The data of a standby is gone, or all its machine's disk: it is copied anew, and no client notices."""
    with Trial(pg) as trial:
        node, since = trial.standbys()[0], last(pg)
        pg.power_off(NODES[node])
        forget_memory(pg.data(node))
        shutil.rmtree(pg.data(node) if left == "its memory" else pg.state(NODES[node]))
        pg.power_on(NODES[node])
        eventually(lambda: bool(told(pg, EventKind.NODE_REBUILDING, since)), "it is to be copied anew")
        eventually(pg.is_steady, "everybody follows")
        assert not trial.ledger.failures()


def test_a_standby_with_older_data_is_never_promoted_as_it_is(pg: PgHosts) -> None:
    """A standby's data is put back to before, and it alone is left: it does not take over what it has not."""
    with Trial(pg, outage_s=90) as trial:
        node, other = trial.standbys()
        host, older = NODES[node], pg.folder / "older"
        pg.power_off(host)
        shutil.copytree(pg.data(node), older, symlinks=True)
        _give(older, like=pg.data(node))
        eventually(lambda: not streams(pg, node), "it is gone")
        pg.power_on(host)
        eventually(lambda: streams(pg, node), "it streams again")
        trial.wait_writing()
        time.sleep(LEASE_S / 2)  # it says how far it is with each renewal
        pg.power_off(host)
        forget_memory(pg.data(node))
        shutil.rmtree(pg.data(node))
        older.rename(pg.data(node))
        for each in (other, trial.primary):
            pg.kill_node(each)
        pg.power_on(host)
        eventually(lambda: "came back with less data than it had" in _said_of(pg, node), "it is found out", 60)
        time.sleep(2 * LEASE_S)
        assert node != pg.primary()
        for each in (other, trial.primary):
            pg.start_agent(NODES[each])
        assert trial.wait_failover() != node


def test_prepared_transactions_outlive_failovers(pg: PgHosts) -> None:
    """A transaction that was prepared is still there after two failovers, and can be committed."""
    _allow_prepared(pg)
    ask(pg.conninfo, "DROP TABLE IF EXISTS promised; CREATE TABLE promised (id int)")
    ask(pg.conninfo, "BEGIN; INSERT INTO promised VALUES (7); PREPARE TRANSACTION 'seven'")
    for _ in range(2):
        with Trial(pg) as trial:
            pg.kill_postmaster(trial.primary)
            trial.wait_failover()
    assert ask(pg.conninfo, "SELECT gid FROM pg_prepared_xacts") == [("seven",)]
    assert ask(pg.conninfo, "SELECT count(*) FROM promised") == [("0",)]
    ask(pg.conninfo, "COMMIT PREPARED 'seven'")
    assert ask(pg.conninfo, "SELECT id FROM promised") == [("7",)]


def test_a_backlog_of_replay_is_caught_up_before_clients_come_in(pg: PgHosts) -> None:
    """Standbys have all the log and have replayed none of it for BACKLOG_MIB: the next primary shows everything."""
    with Trial(pg, outage_s=20 + BACKLOG_MIB / 10) as trial:
        for node in trial.standbys():
            ask(pg.conninfo_of(node), "SELECT pg_wal_replay_pause()")
        ask(pg.conninfo, "CREATE TABLE IF NOT EXISTS bulk (data text)")
        for _ in range(max(1, BACKLOG_MIB // 32)):
            ask(pg.conninfo, _MIB_32, deadline_s=60)
        trial.wait_writing()
        pg.kill_node(trial.primary)  # the engine alone might be up again before a standby is frozen
        assert trial.wait_failover() != trial.primary
        pg.start_agent(NODES[trial.primary])
    assert ask(pg.conninfo, "SELECT count(*) FROM bulk", 30) == [(str(max(1, BACKLOG_MIB // 32) * 32 * 128),)]
    ask(pg.conninfo, "DROP TABLE bulk")


_MIB_32 = """
INSERT INTO bulk SELECT string_agg(md5(random()::text), '')
FROM generate_series(1, 4096 * 256) AS one GROUP BY one % 4096"""


@pytest.fixture(scope="module")
def bounded() -> Iterator[PgHosts]:
    """Three nodes that may lose a little."""
    if reason := pg_hosts.missing():
        pytest.skip(reason)
    with PgHosts(durability=f"{{max_loss: {MAX_LOSS_MIB}MiB}}") as hosts:
        yield hosts


def test_what_a_bounded_loss_lost_is_listed_row_for_row(bounded: PgHosts) -> None:
    """The primary's host is cut off with writes that nobody else has: when it is back, its report lists each."""
    pg = bounded
    since, old = last(pg), pg.primary()
    host = NODES[old]
    with pg.ledger(writers=WRITERS) as ledger:
        ledger.wait_writing()
        pg.part(host, [other for other in ENGINES if other != host], [ENGINE_PORT])
        parted_s = time.monotonic()
        wait_until(lambda: sum(at_s > parted_s + 0.1 for at_s, _ in ledger.acknowledgements()) > WRITERS, "losses", 20)
        struck_s = pg.link_down(host)
        wait_until(lambda: pg.primary() not in {"", old}, "another is primary")
        assert ledger.wait_over(struck_s, least_s=1)
        ledger.end()
    lost = set(ledger.audit().lost)
    assert lost, "nothing was lost, so this shows nothing"
    pg.mend()
    pg.link_up(host)
    pg.wait_steady()

    [report] = reports(pg.data(old))
    transactions = ledger.transactions()
    acknowledged = {transactions[number] for number in lost}
    listed = {one.xid for one in report.transactions if one.fate == "committed"}
    assert acknowledged <= listed
    assert len(listed - acknowledged) <= WRITERS, "beyond what was acknowledged only what was under way can be there"
    assert report.complete
    assert report.bytes <= MAX_LOSS_MIB << 20

    eventually(lambda: bool(told(pg, EventKind.NODE_DISCARDED, since)), "the journal has the loss")
    [event] = told(pg, EventKind.NODE_DISCARDED, since)
    assert event.reason == f"{report.summary}."
    assert dict(event.data)["lost_bytes"] == report.bytes
    [done] = told(pg, EventKind.FAILOVER_DONE, since)
    assert dict(done.data)["lost_bytes"] <= report.bytes


def _allow_prepared(pg: PgHosts) -> None:
    """The user's own setting, in the user's own file; standbys must have it before the primary has."""
    for node in NODES:
        with (pg.data(node) / "postgresql.conf").open("a") as file:
            file.write("max_prepared_transactions = 10\n")
    with Trial(pg) as trial:
        for node in trial.standbys():
            old = pg.postmaster(node)
            pg.kill_postmaster(node)
            eventually(lambda node=node, old=old: _started_anew(pg, node, old), f"{node} is started again")
            eventually(lambda node=node: streams(pg, node), f"{node} streams again")
        pg.kill_postmaster(trial.primary)
        trial.wait_failover()
    if ask(pg.conninfo, "SHOW max_prepared_transactions") != [("10",)]:
        raise Failed("the setting is not in force")


def _started_anew(pg: PgHosts, node: str, old: int) -> bool:
    try:
        return pg.postmaster(node) != old
    except (OSError, IndexError):
        return False


def _said_of(pg: PgHosts, node: str) -> str:
    return next(str(one["reason"]) for one in pg.cluster()["nodes"] if one["name"] == node)


def _give(tree: Path, like: Path) -> None:
    owner = like.stat()
    for path in (tree, *tree.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def test_data_of_different_databases_on_two_hosts() -> None:
    """No cluster is made of them, and neither is changed; with one put away, the other one is taken on."""
    if reason := pg_hosts.missing():
        pytest.skip(reason)
    hosts = PgHosts(service='    superuser: {name: postgres, password: "file:word"}\n')
    try:
        (hosts.folder / "word").write_text("word\n")
        hosts.start_etcd()
        for node in ("a", "b"):
            make_data(hosts.data(node), hosts.folder / "word")
        before = {node: files(hosts.data(node)) for node in ("a", "b")}
        for host in NODES.values():
            hosts.start_agent(host)
        says = "orders does not exist yet: no node has all the data that there are (a at "
        eventually(lambda: _reason(hosts).startswith(says), "it says that the data do not belong together")
        assert {node: files(hosts.data(node)) for node in ("a", "b")} == before
        hosts.data("b").rename(hosts.folder / "elsewhere")
        hosts.start_agent(ROUTER)
        eventually(hosts.is_steady, "one database for all")
        assert hosts.primary() == "a"
        assert files(hosts.folder / "elsewhere") == before["b"]
    finally:
        hosts.close()


def _reason(hosts: PgHosts) -> str:
    try:
        return str(hosts.cluster(of=NODES["c"])["reason"])
    except OSError:
        return ""


def make_data(data: Path, word: Path) -> None:
    """A database of its own, made by hand."""
    data.parent.mkdir(parents=True)
    data.mkdir(mode=0o700)
    account = Account.named("postgres")
    account.give(data)
    argv = [PROGRAMS / "initdb", "--no-sync", "--auth=scram-sha-256", f"--pwfile={word}", "--data-checksums", data]
    subprocess.run(argv, check=True, capture_output=True, cwd="/", **account.spawning())


def files(root: Path) -> dict[str, tuple[int, bytes]]:
    """All that is there, to the last byte, but for the ids of timelines, which are ours."""
    found = (path for path in root.rglob("*") if path.is_file() and path.name != KEPT)
    return {str(path.relative_to(root)): (path.stat().st_mtime_ns, path.read_bytes()) for path in found}
