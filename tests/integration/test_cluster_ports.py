"""Clients of a cluster through the real HAProxy: held, let in, moved, cut; over reloads, restarts and deaths."""

import asyncio
import contextlib
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.clusters import ORDERS, A, B, C, Client, Cluster, route, three_nodes
from tests.routing import end_proxy, eventually, is_alive, running

from understudy.core.routes import RouterState
from understudy.core.text import Name
from understudy.router import runtime
from understudy.router.base import RouterFault
from understudy.router.haproxy import HAProxyRouter
from understudy.router.layout import Layout
from understudy.router.names import HOLD_SERVER

STILL_S = 0.5
"""How long something must not happen."""


@pytest.fixture
async def cluster():
    async with three_nodes() as made:
        yield made


def other(cluster: Cluster, number: int) -> RouterState:
    """The same cluster, in a configuration that takes a reload to get to."""
    return replace(cluster.state, clusters=(replace(cluster.ports, hold_ms=cluster.ports.hold_ms + number),))


async def workers(directory: Path) -> runtime.Processes:
    return await runtime.processes(Layout(directory).master_socket)


async def tried_in_vain(directory: Path) -> int:
    """How many connections went to the server that refuses all."""
    shown = await runtime.ask(Layout(directory).admin_socket, "show stat orders.writer 4 -1")
    return next(int(line.split(",")[7]) for line in shown.splitlines() if HOLD_SERVER in line)


async def is_held(*waiting: asyncio.Task[Client]) -> bool:
    """Whether none of them gets through, nor an error."""
    done, _ = await asyncio.wait(waiting, timeout=STILL_S)
    return not done


async def test_new_connections_wait_for_a_writer_and_then_go_there(directory: Path, cluster: Cluster):
    """Without a route nobody gets an error and nobody gets through; with one, all are let in at once."""
    async with running(directory, cluster.state) as router:
        waiting = [asyncio.create_task(cluster.writer()) for _ in range(20)]
        assert await is_held(*waiting)
        assert await tried_in_vain(directory) == 0, "who waits to be let in does not come back every 100 ms"
        await router.follow(ORDERS, route(1, B, A, C))
        assert {client.node for client in await asyncio.gather(*waiting)} == {"b"}
        assert cluster.nodes[A].greeted == cluster.nodes[C].greeted == 0


async def test_nobody_waits_for_ever(directory: Path):
    """A connection that nobody takes in time is closed."""
    async with three_nodes(hold_ms=600) as cluster, running(directory, cluster.state):
        began = time.monotonic()
        assert (await cluster.writer()).node == ""
        assert (await cluster.reader()).node == ""
        assert time.monotonic() - began > 1.0


async def test_a_new_route_cuts_the_sessions_of_the_old_one_in_every_worker(directory: Path, cluster: Cluster):
    """Sessions from before two reloads end as those of the present worker do, and a connection that waits goes on."""
    async with running(directory, cluster.state) as router:
        await router.follow(ORDERS, route(1, A, B, C))
        clients = [await cluster.writer()]
        for number in (1, 2):
            assert (await router.apply(other(cluster, number))).reload
            clients.append(await cluster.writer())
        assert len((await workers(directory)).old) == 2
        assert [client.node for client in clients] == ["a"] * 3
        assert all([await client.works() for client in clients])
        pid = (await workers(directory)).worker

        await router.follow(ORDERS, route(2, None))
        assert all([await client.is_cut() for client in clients])
        waiting = asyncio.create_task(cluster.writer())
        assert await is_held(waiting)
        await router.follow(ORDERS, route(2, B, C))
        moved = await waiting
        assert moved.node == "b"
        assert (await workers(directory)).worker == pid, "no reload for a failover"
        await router.follow(ORDERS, route(2, B, C, A))
        assert await moved.works(), "who is right is left alone"


async def test_a_refused_connection_waits_too(directory: Path, cluster: Cluster):
    """Between the death of the engine and the decision, clients that come back get no error but the next primary."""
    async with running(directory, cluster.state) as router:
        await router.follow(ORDERS, route(1, A, B, C))
        assert (await cluster.writer()).node == "a"
        cluster.nodes[A].stop()
        waiting = [asyncio.create_task(cluster.writer()) for _ in range(3)]
        assert await is_held(*waiting)
        await router.follow(ORDERS, route(2, None))
        assert await is_held(*waiting)
        await router.follow(ORDERS, route(2, B, C))
        assert [client.node for client in await asyncio.gather(*waiting)] == ["b"] * 3


async def test_an_outdated_route_is_refused_by_this_agent_and_by_the_next(directory: Path, cluster: Cluster):
    """Whatever was restarted meanwhile, an epoch below one that was followed leads nobody anywhere."""
    layout = Layout(directory)
    router = HAProxyRouter(layout, threads=1)
    try:
        await router.start(cluster.state)
        await router.follow(ORDERS, route(5, B, A, C))
        with pytest.raises(RouterFault, match="epoch 5"):
            await router.follow(ORDERS, route(4, A))
        client = await cluster.writer()
        await router.detach()

        router = HAProxyRouter(layout, threads=1)
        assert await router.start(cluster.state) is True
        assert await client.works(), "an agent that comes back disturbs nobody"
        assert (await cluster.writer()).node == "b"
        with pytest.raises(RouterFault, match="epoch 5"):
            await router.follow(ORDERS, route(4, A))
        await router.stop()

        router = HAProxyRouter(layout, threads=1)
        assert await router.start(cluster.state) is False
        waiting = asyncio.create_task(cluster.writer())
        assert await is_held(waiting), "a router that was started anew knows no writer"
        with pytest.raises(RouterFault, match="epoch 5"):
            await router.follow(ORDERS, route(4, A))
        assert await is_held(waiting)
        await router.follow(ORDERS, route(6, C))
        assert (await waiting).node == "c"
    finally:
        await end_proxy(directory, router)


async def test_the_next_agent_closes_what_its_predecessor_did_not_get_to_close(directory: Path, cluster: Cluster):
    """An agent that died between writing a route down and following it leaves the old writer open: not for long."""
    async with running(directory, cluster.state) as first:
        await first.follow(ORDERS, route(1, A, B, C))
        client = await cluster.writer()
        await first.detach()
        followed = Layout(directory).followed
        followed.write_text(followed.read_text().replace('"epoch": 1', '"epoch": 2').replace('"a"', '"c"', 1))
        async with running(directory, cluster.state):
            assert await client.is_cut()
            assert (await cluster.writer()).node == "c"


async def test_an_agent_with_another_configuration_takes_over_without_cutting_anybody(
    directory: Path, cluster: Cluster
):
    """After an upgrade the next agent reloads what it adopts; the writer is open again by itself."""
    async with running(directory, cluster.state) as first:
        await first.follow(ORDERS, route(3, B, A, C))
        client = await cluster.writer()
        pid = (await workers(directory)).worker
        await first.detach()
        async with running(directory, other(cluster, 1)) as second:
            assert (await workers(directory)).worker != pid
            assert (await cluster.writer()).node == "b"
            await second.follow(ORDERS, route(3, B, A, C))
            assert await client.works()
            assert (await second.observe()).workers == 2


async def test_a_full_disk_holds_up_no_failover(directory: Path, cluster: Cluster):
    """A route that cannot be written down is followed all the same; it is said, and written as soon as it can be."""
    async with running(directory, cluster.state) as router:
        await router.follow(ORDERS, route(1, A, B, C))
        blocked = Layout(directory).followed.with_name("followed.json.tmp")
        blocked.mkdir()
        said = router.events()
        await router.follow(ORDERS, route(2, B, C))
        assert (await cluster.writer()).node == "b"
        async with asyncio.timeout(20):
            while "would not know" not in (await anext(said)).text:
                pass
        blocked.rmdir()

        async def is_written() -> bool:
            return '"epoch": 2' in Layout(directory).followed.read_text()

        await eventually(is_written)


async def test_a_file_that_cannot_be_understood_is_not_taken_for_none(directory: Path, cluster: Cluster):
    """The router does not start as if it had never followed anything; the sentence names the file."""
    layout = Layout(directory)
    layout.followed.write_text('{"orders": {"epoch"')
    with pytest.raises(RouterFault, match=r"followed\.json"):
        await HAProxyRouter(layout, threads=1).start(cluster.state)


async def test_a_haproxy_that_died_comes_back_with_the_present_route(directory: Path, cluster: Cluster):
    """The agent starts it again and opens what was followed last, without being told again."""
    async with running(directory, cluster.state) as router:
        await router.follow(ORDERS, route(1, A))
        await router.follow(ORDERS, route(2, B, A, C))
        os.kill(runtime.listener_pid(Layout(directory).master_socket), signal.SIGKILL)

        async def is_back() -> bool:
            with contextlib.suppress(OSError):
                return (await cluster.writer()).node == "b"
            return False

        await eventually(is_back)
        assert cluster.nodes[A].greeted == 0


async def test_a_route_that_comes_in_the_middle_of_a_reload_is_in_force_everywhere(directory: Path, cluster: Cluster):
    """Whichever worker is there at the moment, when `follow` is done no session is left on the old writer."""
    async with running(directory, cluster.state) as router:
        for round_ in range(1, 9):
            old, new = (A, B) if round_ % 2 else (B, A)
            await router.follow(ORDERS, route(2 * round_, old))
            clients = [await cluster.writer() for _ in range(3)]
            assert {client.node for client in clients} == {old}
            reloading = asyncio.create_task(router.apply(other(cluster, round_)))
            await asyncio.sleep(0.02 * round_)
            late = [asyncio.create_task(cluster.writer()) for _ in range(3)]
            await router.follow(ORDERS, route(2 * round_ + 1, new))
            assert (await cluster.writer()).node == new
            assert all([await client.is_cut() for client in clients])
            for client in await asyncio.gather(*late):
                assert client.node != old or await client.is_cut()
            assert (await reloading).reload
            assert (await cluster.writer()).node == new


async def test_a_route_waits_for_no_reload_but_is_not_called_done_before_it(directory: Path, cluster: Cluster):
    """While a worker is being replaced a route is in force at once; done is only what the next worker does too."""
    async with running(directory, cluster.state) as router:
        await router.follow(ORDERS, route(1, A))
        with router._steering.new_worker():
            following = asyncio.create_task(router.follow(ORDERS, route(2, B)))
            await eventually(lambda: _goes_to(cluster, B))
            assert not following.done()
            await runtime.ask(Layout(directory).admin_socket, "set server orders.writer/b state maint")  # a new worker
        await following
        assert await _goes_to(cluster, B)


async def test_an_old_worker_that_hangs_is_ended(directory: Path, cluster: Cluster):
    """Sessions that it will not end must not go on when it wakes."""
    async with running(directory, cluster.state) as router:
        await router.follow(ORDERS, route(1, A))
        client = await cluster.writer()
        await router.apply(other(cluster, 1))
        (old,) = (await workers(directory)).old
        os.kill(old, signal.SIGSTOP)
        await router.follow(ORDERS, route(2, B))
        assert not is_alive(old)
        assert await client.is_cut()
        assert (await cluster.writer()).node == "b"


async def test_the_agents_word_takes_a_writer_away_and_its_silence_does_not(directory: Path, cluster: Cluster):
    """`down` ends the sessions and holds new ones, `up` gives it back, a dead agent changes nothing."""
    async with running(directory, cluster.state) as router:
        await router.follow(ORDERS, route(1, A, B, C))
        client = await cluster.writer()
        cluster.roles.stop()
        await asyncio.sleep(1.0)
        assert await client.works()
        assert (await cluster.writer()).node == "a"

        await cluster.roles.start()
        cluster.roles.answers["a primary"] = "down #lease over"
        assert await client.is_cut()
        waiting = asyncio.create_task(cluster.writer())
        assert await is_held(waiting)
        cluster.roles.answers["a primary"] = "up"
        assert (await waiting).node == "a"


async def test_the_agents_word_opens_nobody_and_a_route_waits_for_no_word(directory: Path, cluster: Cluster):
    """Who calls himself primary gets nothing without a route; with one, not even a stale `down` delays it."""
    async with running(directory, cluster.state) as router:
        cluster.roles.answers["b primary"] = "down"
        asked = cluster.roles.asked
        await eventually(lambda: _is(cluster.roles.asked > asked + 12))
        waiting = asyncio.create_task(cluster.writer())
        assert await is_held(waiting)
        cluster.roles.answers["b primary"] = "up"
        await router.follow(ORDERS, route(1, B, A))
        assert (await asyncio.wait_for(waiting, 20)).node == "b"


async def test_reading_goes_to_standbys_and_to_the_primary_as_the_last_resort(directory: Path, cluster: Cluster):
    """Spread over those that do not lag; without any, the primary; and no session stays there when it is deposed."""
    async with running(directory, cluster.state) as router:
        await router.follow(ORDERS, route(1, A, B, C))
        assert {(await cluster.reader()).node for _ in range(6)} == {"b", "c"}
        on_b = await _reader_on(cluster, B)
        cluster.roles.answers["b standby"] = "down #lag"
        await eventually(lambda: _only_on(cluster, C))
        assert await on_b.works(), "a lagging standby keeps what it has"
        cluster.roles.answers["c standby"] = "down #lag"
        await eventually(lambda: _only_on(cluster, A))
        on_a = await _reader_on(cluster, A)
        cluster.roles.answers["b standby"] = cluster.roles.answers["c standby"] = "up"
        await eventually(lambda: _only_on(cluster, B, C))

        await router.follow(ORDERS, route(2, B, C))
        assert await on_a.is_cut(), "through the port for reading it could still have written to a"
        assert await on_b.is_cut()
        assert {(await cluster.reader()).node for _ in range(4)} == {"c"}


async def test_nodes_come_and_go_without_a_session_being_lost(directory: Path, cluster: Cluster):
    """Another list of nodes is a reload that the sessions of the present writer survive, and new ones get there."""
    fewer = replace(cluster.state, clusters=(replace(cluster.ports, seats=cluster.ports.seats[:2]),))
    async with running(directory, fewer) as router:
        await router.follow(ORDERS, route(1, A, B))
        client = await cluster.writer()
        assert (await router.apply(cluster.state)).reload == ("cluster orders: its list of nodes changes",)
        await router.follow(ORDERS, route(1, A, B, C))
        assert await client.works()
        assert (await cluster.writer()).node == "a"
        assert (await router.apply(fewer)).reload
        with pytest.raises(RouterFault, match="no node c"):
            await router.follow(ORDERS, route(2, C, A))
        assert await client.is_cut(), "the old writer is out in any case"


async def test_a_cluster_that_the_router_does_not_hold_is_refused(directory: Path, cluster: Cluster):
    """And one that left the spec may come back as another, which counts its epochs anew."""
    none = replace(cluster.state, clusters=())
    async with running(directory, cluster.state) as router:
        with pytest.raises(RouterFault, match="elsewhere"):
            await router.follow(Name("elsewhere"), route(1, A))
        await router.follow(ORDERS, route(7, A))
        await router.apply(none)
        await router.apply(cluster.state)
        await router.follow(ORDERS, route(1, B))
        assert (await cluster.writer()).node == "b"


async def _is(fact: bool) -> bool:
    return fact


async def _reader_on(cluster: Cluster, node: Name) -> Client:
    while (client := await cluster.reader()).node != node:
        client.leave()
    return client


async def _only_on(cluster: Cluster, *nodes: Name) -> bool:
    """Whether those who read now are spread over exactly these nodes."""
    clients = [await cluster.reader() for _ in range(4)]
    for client in clients:
        client.leave()
    return {client.node for client in clients} == set(nodes)


async def _goes_to(cluster: Cluster, node: Name) -> bool:
    client = await cluster.writer()
    client.leave()
    return client.node == node
