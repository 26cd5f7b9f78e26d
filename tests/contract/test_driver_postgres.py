"""What PostgreSQL's driver must do beyond the suite of the port: hanging engines, people's hands, secrets, agents."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.contract.postgres_bench import ANY_ONE, DEADLINE_MS, NODES, PASSWORD, A, B, C, PostgresBench

from understudy.core.actions import Action, Close, Follow, Freeze, Open, Promote, SetSync, Start
from understudy.core.record import SyncConfig
from understudy.core.report import Running
from understudy.drivers.base import DriverFault, Observation
from understudy.drivers.postgres import client, observe, settings, upkeep
from understudy.drivers.postgres.client import SqlFault
from understudy.drivers.postgres.prober import PostgresProber
from understudy.drivers.postgres.process import runs_unguarded

PATIENCE_S = 20.0
NOBODY = SyncConfig(frozenset(), 0)


class Cluster:
    """A leads b and c; orders as an agent gives them."""

    def __init__(self, bench: PostgresBench) -> None:
        self.bench = bench

    async def do(self, kind: type[Action], name: str, epoch: int = 1, **words) -> None:
        await self.bench.drivers[name].perform(kind(name, "born-1", epoch, DEADLINE_MS, **words))

    async def see(self, name: str) -> Observation:
        return await self.bench.drivers[name].observe()

    async def until(self, name: str, condition) -> Observation:
        async with asyncio.timeout(PATIENCE_S):
            while not condition(seen := await self.see(name)):  # noqa: ASYNC110  engines are looked at
                await asyncio.sleep(0.02)
        return seen

    async def ask(self, name: str, sql: str) -> list[client.Row]:
        """As the superuser, locally."""
        return await client.once(self.bench.drivers[name]._engine.conninfo("test"), sql)

    async def family(self, name: str) -> list[int]:
        """The postmaster first, and all that it has started."""
        pid = (await self.bench.processes[name].look()).pid
        return [pid, *map(int, _of_process(pid, f"task/{pid}/children").split())]


@pytest.fixture
async def cluster(stopped_cluster: Path) -> AsyncIterator[Cluster]:
    bench = PostgresBench(stopped_cluster)
    await bench.begin()
    try:
        await bench.cluster(ANY_ONE)
        yield Cluster(bench)
    finally:
        await bench.end()


async def test_stopped_postmaster(cluster: Cluster) -> None:
    """A stopped postmaster is seen by the write that fails, though old sessions answer; the prober hears nothing."""
    prober = PostgresProber(cluster.bench._service(A))
    node = cluster.bench._service(A).node(A).node
    async with asyncio.timeout(PATIENCE_S):
        while not await prober.answers(node):  # noqa: ASYNC110  it is asked
            await asyncio.sleep(0.02)
    await cluster.until(A, lambda seen: seen.writable and not seen.write_fails)
    postmaster = (await cluster.family(A))[0]
    os.kill(postmaster, signal.SIGSTOP)
    try:
        seen = await cluster.until(A, lambda seen: seen.write_fails)
        assert (seen.running, seen.promoted_epoch, seen.slow) == (Running.UP, 1, False)
        assert not await prober.answers(node)
    finally:
        os.kill(postmaster, signal.SIGCONT)
    await cluster.until(A, lambda seen: not seen.write_fails)


async def test_slow_but_alive(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that takes long on an engine that answers and runs is told from one that hangs."""
    await cluster.until(A, lambda seen: seen.writable)
    monkeypatch.setattr(observe, "_PROBE", "SELECT pg_sleep(3)")
    assert (await cluster.until(A, lambda seen: seen.write_fails)).slow


async def test_what_a_person_should_change(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of ours that ALTER SYSTEM has set are warned of until undone, and roles that wait for no standby."""
    monkeypatch.setattr(cluster.bench.drivers[A]._upkeep._trial, "_every_s", 0.1)
    ask = cluster.bench.drivers[A]._engine.ask
    await ask("CREATE ROLE hasty; ALTER ROLE hasty SET synchronous_commit = local")
    await ask("ALTER SYSTEM SET full_page_writes = off")
    await ask("SELECT pg_reload_conf()")
    system, role = (await cluster.until(A, lambda seen: len(seen.warnings) == 2)).warnings
    assert "ALTER SYSTEM RESET full_page_writes" in system
    assert "role hasty on a" in role
    await ask("ALTER ROLE hasty RESET synchronous_commit")
    await ask("ALTER SYSTEM RESET full_page_writes")
    await ask("SELECT pg_reload_conf()")
    await cluster.until(A, lambda seen: not seen.warnings)


async def test_the_log_makes_room(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large log becomes the older part, and PostgreSQL goes on writing to the new one."""
    driver = cluster.bench.drivers[A]
    monkeypatch.setattr(driver._upkeep._trial, "_every_s", 0.1)
    log = driver._place.log
    with log.open("ab") as file:
        file.truncate(upkeep.LOG_BYTES + 1)
    older = log.with_name("postgres.log.1")
    await cluster.until(A, lambda _seen: older.exists() and log.stat().st_size < upkeep.LOG_BYTES)
    assert older.stat().st_size >= upkeep.LOG_BYTES
    with pytest.raises(SqlFault):
        await driver._engine.ask("SELECT nonsense")
    await cluster.until(A, lambda _seen: b"nonsense" in log.read_bytes())


async def test_everything_stopped(cluster: Cluster) -> None:
    """An engine that is stopped as a whole holds up no look, is closed all the same; a standby is frozen by death."""
    await cluster.see(A)
    await cluster.see(B)
    for name in (A, B):
        for pid in await cluster.family(name):
            os.kill(pid, signal.SIGSTOP)
    async with asyncio.timeout(2 * PATIENCE_S):
        seen = await cluster.until(A, lambda seen: seen.write_fails)
        assert (seen.position, seen.slow, seen.hangs) == (None, False, True)
        assert (await cluster.until(B, lambda seen: seen.hangs)).position is None
        await cluster.do(Freeze, B, 2)
        await cluster.do(Close, A, 2)
    assert [(await cluster.see(name)).running for name in (A, B)] == [Running.DEAD, Running.DEAD]


async def test_agent_returns(cluster: Cluster) -> None:
    """A new agent sees of a running engine all that the last one knew, and neither guard nor engine notices."""
    await cluster.until(B, lambda seen: seen.position is not None)
    before = [await cluster.see(name) for name in (A, B)]
    pids = [(await cluster.family(name))[0] for name in (A, B)]
    for name in (A, B):
        await cluster.bench.renew(name)
    primary = await cluster.until(A, lambda seen: seen.writable and seen.position is not None)
    assert (primary.promoted_epoch, primary.writable, primary.sync) == (1, True, ANY_ONE)
    assert primary.position.branches == before[0].position.branches
    standby = await cluster.until(B, lambda seen: seen.streaming_from is not None)
    assert standby.streaming_from == A
    assert [(await cluster.family(name))[0] for name in (A, B)] == pids
    await cluster.do(Freeze, B, 2)
    assert (await cluster.see(B)).streaming_from is None


async def test_old_sessions_do_not_get_in(cluster: Cluster) -> None:
    """Whoever was in a standby before it was promoted is out, and nobody else comes in before it is opened."""
    address = cluster.bench.addresses[B]
    reader = await client.Session.open(
        client.conninfo(host=address.host, port=address.port, user="postgres", dbname="postgres", password=PASSWORD)
    )
    assert await reader.ask("SELECT pg_is_in_recovery()") == [("t",)]
    for name in (B, C):
        await cluster.do(Freeze, name, 2)
    await cluster.do(Close, A, 2)
    await cluster.do(Promote, B, 2, sync=NOBODY)
    with pytest.raises(client.SqlFault):
        await reader.ask("INSERT INTO history (word) VALUES ('early')")
    assert not await cluster.bench.write(B, "early, too", in_vain=True)
    await cluster.do(Open, B, 2)
    assert await cluster.bench.write(B, "in time")
    assert await cluster.bench.history(B) == ("in time",)


async def test_rule_out_of_nothing(cluster: Cluster) -> None:
    """From the moment in which a rule is reported, no commit is acknowledged without it, also where there was none."""
    await cluster.do(SetSync, A, sync=NOBODY)
    for name in (B, C):
        await cluster.do(Close, name, 2)
    assert await cluster.bench.write(A, "nobody is asked")
    await cluster.do(SetSync, A, sync=ANY_ONE)
    assert (await cluster.see(A)).sync == ANY_ONE
    assert not await cluster.bench.write(A, "somebody is asked", in_vain=True)
    assert (await cluster.until(A, lambda seen: seen.starved)).writable


async def test_overruled(cluster: Cluster) -> None:
    """A rule that somebody overrules by ALTER SYSTEM is told, and never reported as in force."""
    await cluster.ask(A, "ALTER SYSTEM SET synchronous_standby_names TO ''")
    with pytest.raises(DriverFault, match="ALTER SYSTEM RESET synchronous_standby_names"):
        await cluster.do(SetSync, A, sync=SyncConfig(frozenset({B}), 1, 5))
    assert (await cluster.see(A)).sync is None


async def test_started_by_hand(cluster: Cluster) -> None:
    """Data that a person starts by hand takes no writes; it is not started twice; and closing ends it too."""
    bench = cluster.bench
    await cluster.do(Close, A, 2)
    tools = bench.drivers[A]._tools()
    command = [tools.path("postgres"), "-D", str(bench.data(A)), "-c", f"config_file={bench.data(A)}/postgresql.conf"]
    own = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={bench.data(A).with_name('data.understudy')}/run"]
    own += ["-c", "max_wal_senders=20"]  # with fewer than understudy's it would end at once
    by_hand = await asyncio.create_subprocess_exec(
        *command,
        *own,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        **tools.account.spawning(),
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            while runs_unguarded(bench.data(A)) is None:  # noqa: ASYNC110  it tells nobody
                await asyncio.sleep(0.02)
        with pytest.raises(DriverFault, match="by our hand"):
            await cluster.see(A)
        with pytest.raises(DriverFault, match="by our hand"):
            await cluster.do(Start, A, 2)
        assert by_hand.returncode is None
        await cluster.do(Close, A, 2)
        assert await asyncio.wait_for(by_hand.wait(), PATIENCE_S) == -signal.SIGKILL
    finally:
        if by_hand.returncode is None:
            by_hand.kill()
            await by_hand.wait()
    assert (await cluster.see(A)).running is Running.DEAD


async def test_nodes_come_and_go(cluster: Cluster) -> None:
    """A running primary keeps a place for just the nodes that there are, without being started anew."""

    async def slots() -> set[str]:
        return {str(name) for (name,) in await cluster.ask(A, "SELECT slot_name FROM pg_replication_slots")}

    async def until_slots(wanted: set[str]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while await slots() != wanted:  # noqa: ASYNC110  it tells nobody
                await asyncio.sleep(0.02)

    postmaster = (await cluster.family(A))[0]
    whole = cluster.bench._service(A)
    await cluster.do(Close, C, 2)
    await until_slots({"understudy_b", "understudy_c"})
    left = tuple(node for node in whole.nodes if node.name != C)
    fewer = replace(whole, nodes=left, cluster=replace(whole.cluster, nodes=tuple(one.node for one in left)))
    cluster.bench.drivers[A].change(fewer)
    await until_slots({"understudy_b"})
    cluster.bench.drivers[A].change(whole)
    await until_slots({"understudy_b", "understudy_c"})
    assert (await cluster.family(A))[0] == postmaster
    assert await cluster.bench.write(A, "all along")


async def test_no_secret_in_sight(cluster: Cluster) -> None:
    """No password, and nothing made of one, is in a process's arguments or environment, a log, or a file for others."""
    secrets = (PASSWORD, settings.role_password(PASSWORD))
    await cluster.do(Freeze, B, 2)
    await cluster.do(Follow, B, 2, source=A)
    seen = []
    for name in NODES:
        for pid in await cluster.family(name):
            seen += [_of_process(pid, part) for part in ("cmdline", "environ")]
        seen += _files(cluster.bench.drivers[name]._place)
    assert not [text for text in seen if any(secret in text for secret in secrets)]


def _files(place: settings.Place) -> list[str]:
    """What others may see of our files."""
    assert place.ours.stat().st_mode & 0o077 == 0
    return [path.read_text() for path in (place.log, place.configuration, place.hba)]


def _of_process(pid: int, part: str) -> str:
    try:
        return Path(f"/proc/{pid}/{part}").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):  # sessions come and go
        return ""
