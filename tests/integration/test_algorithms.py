"""Every way of balancing, with real traffic through the real HAProxy: the distribution that its definition asks for."""

import asyncio
import time
from collections import Counter
from dataclasses import replace

import pytest
from tests.integration.proxy import CHECK_PATH, Proxy, Server, ask, ask_many, ask_on, servers
from tests.ports import free_port

from understudy.core.model import (
    Affinity,
    Balance,
    FailoverMode,
    Group,
    HealthPolicy,
    HttpCheck,
    Kind,
    PoolFailover,
    PoolService,
    Timeouts,
)
from understudy.core.pools import Admin, PoolRecord
from understudy.core.text import Address, CookieName, HttpPath, Name

HEALTH = HealthPolicy(check=HttpCheck(HttpPath(CHECK_PATH)), interval_ms=100, timeout_ms=2000, slow_start_ms=0)
SOURCES = [f"127.{i % 7 + 1}.{i * 13 % 251}.{i % 240 + 5}" for i in range(400)]


def web(*endpoints, balance=Balance.ROUND_ROBIN, **settings) -> PoolService:
    return PoolService(
        Name("web"),
        Kind.HTTP,
        Address("127.0.0.1", free_port()),
        tuple(endpoints),
        balance=balance,
        **({"health": HEALTH} | settings),
    )


async def hold(service: PoolService, pool: list[Server], count: int) -> list[asyncio.Task]:
    """`count` requests, one after the other, each of which stays in flight until the gates open."""
    for server in pool:
        server.gate.clear()
    tasks = []
    for number in range(1, count + 1):
        tasks.append(asyncio.create_task(ask(service)))
        async with asyncio.timeout(10):
            while sum(server.active for server in pool) < number:  # noqa: ASYNC110 - the servers raise no event
                await asyncio.sleep(0.001)
    return tasks


async def release(pool: list[Server], tasks: list[asyncio.Task]) -> None:
    for server in pool:
        server.gate.set()
    assert {answer.status for answer in await asyncio.gather(*tasks)} == {200}


async def test_round_robin_follows_the_weights_whatever_the_speed():
    """Requests are shared 1:2:3, exactly, also when one server is slow and clients come at once."""
    async with servers("a", "b", "c") as (a, b, c):
        service = web(a.endpoint(), b.endpoint(weight=2), c.endpoint(weight=3))
        async with Proxy(service):
            assert await ask_many(service, 120) == {"a": 20, "b": 40, "c": 60}
            c.delay_s = 0.02
            shares = await ask_many(service, 240, at_once=8)
            assert all(abs(shares[name] - due) <= 4 for name, due in {"a": 40, "b": 80, "c": 120}.items()), shares


@pytest.mark.parametrize(
    ("balance", "due"),
    [
        (Balance.LEAST_CONNECTIONS, {"a": 4, "b": 4, "c": 4}),
        (Balance.WEIGHTED_LEAST_CONNECTIONS, {"a": 2, "b": 4, "c": 6}),
    ],
)
async def test_least_connections_levels_what_is_in_flight(balance, due):
    """Requests in flight are level: by number without weights, by weight with them; a slow server so gets fewer."""
    async with servers("a", "b", "c") as pool:
        a, b, c = pool
        service = web(a.endpoint(), b.endpoint(weight=2), c.endpoint(weight=3), balance=balance)
        async with Proxy(service):
            tasks = await hold(service, pool, 12)
            assert {server.name: server.active for server in pool} == due
            await release(pool, tasks)
            for server in pool:
                server.delay_s = 0.005
            c.delay_s = 1.0
            shares = await ask_many(service, 300, at_once=12)
            assert shares["c"] < 60, shares


async def test_source_hash_moves_only_the_clients_of_the_lost_server():
    """A client address keeps its server; when a server goes, only its clients move, and they come back with it."""
    async with servers("a", "b", "c") as (a, b, c):
        service = web(a.endpoint(), b.endpoint(), c.endpoint(weight=2), balance=Balance.SOURCE_HASH)
        async with Proxy(service) as proxy:

            async def homes() -> dict[str, str]:
                answers = [await ask(service, source=source) for source in SOURCES]
                assert {answer.status for answer in answers} == {200}
                return dict(zip(SOURCES, (answer.server for answer in answers), strict=True))

            before = await homes()
            shares = Counter(before.values())
            assert all(due * 0.7 < shares[name] < due * 1.3 for name, due in {"a": 100, "b": 100, "c": 200}.items())
            await b.stop()
            await proxy.until_status("web", "b", "DOWN")
            without = await homes()
            assert {source for source in SOURCES if before[source] != without[source]} == {
                source for source in SOURCES if before[source] == "b"
            }
            moved = Counter(without[source] for source in SOURCES if before[source] == "b")
            assert min(moved["a"], moved["c"]) > 0, "all of the lost server's clients went to one neighbour"
            await b.start()
            await proxy.until_status("web", "b", "UP")
            assert await homes() == before


async def test_random_two_takes_the_less_loaded_of_two_draws():
    """Idle servers share by weight; a busy one gets a request only when both draws are it, one time in nine."""
    async with servers("a", "b", "c") as (a, b, c):
        service = web(a.endpoint(), b.endpoint(), c.endpoint(), balance=Balance.RANDOM_TWO)
        async with Proxy(service) as proxy:
            shares = await ask_many(service, 450)
            assert all(90 < shares[name] < 210 for name in "abc"), shares
            proxy.apply(replace(service, endpoints=(a.endpoint(weight=4), *service.endpoints[1:])))
            shares = await ask_many(service, 450)
            assert shares["a"] > 230, shares
            proxy.apply(service)
            b.hits = 0
            b.gate.clear()
            stuck = []
            for _ in range(450):
                task, before = asyncio.create_task(ask(service)), b.active
                while not task.done() and b.active == before:  # noqa: ASYNC110 - the server raises no event
                    await asyncio.sleep(0.0005)
                if not task.done():
                    stuck.append(task)
            assert 20 < b.hits < 90, b.hits
            await release([b], stuck)


async def test_first_fills_one_server_after_the_other():
    """The first in the file serves until it is full, then the next; when it dies the next one serves, nothing lost."""
    async with servers("a", "b", "c") as pool:
        service = web(*(server.endpoint(maxconn=3) for server in pool), balance=Balance.FIRST)
        async with Proxy(service):
            assert await ask_many(service, 30) == {"a": 30}
            tasks = await hold(service, pool, 5)
            assert [server.active for server in pool] == [3, 2, 0]
            await release(pool, tasks)
            await pool[0].stop()
            assert await ask_many(service, 30) == {"b": 30}


async def test_a_cookie_keeps_a_client_on_its_server():
    """A client with its cookie stays, one without is balanced, a dead server's gets another server and its cookie."""
    async with servers("a", "b", "c") as pool:
        service = web(*(server.endpoint() for server in pool), affinity=Affinity(CookieName("SEAT")))
        async with Proxy(service):
            first = [await ask(service) for _ in range(6)]
            assert Counter(answer.server for answer in first) == {"a": 2, "b": 2, "c": 2}
            for answer in first[:3]:
                assert answer.cookie.startswith("SEAT=")
                again = [await ask(service, cookie=answer.cookie) for _ in range(10)]
                assert {each.server for each in again} == {answer.server}
            lost = next(answer for answer in first if answer.server == "a")
            await pool[0].stop()
            moved = await ask(service, cookie=lost.cookie)
            assert (moved.status, moved.server in "bc") == (200, True)
            assert moved.cookie not in ("", lost.cookie)
            assert {(await ask(service, cookie=moved.cookie)).server for _ in range(5)} == {moved.server}


async def test_maxconn_queues_what_a_server_cannot_take():
    """No server ever gets more than its maxconn; the rest waits, is served in turn, and gives up after its deadline."""
    async with servers("a") as pool:
        (a,) = pool
        service = web(a.endpoint(maxconn=2), timeouts=Timeouts(queue_ms=1500))
        async with Proxy(service) as proxy:
            a.delay_s = 0.02
            assert await ask_many(service, 40, at_once=10) == {"a": 40}
            assert a.peak == 2
            a.gate.clear()
            waiting = [asyncio.create_task(ask(service)) for _ in range(6)]
            await proxy.until(lambda: proxy.rows()["web.primary", "BACKEND"]["qcur"] == "4", "four requests queue")
            await proxy.until(lambda: sum(task.done() for task in waiting) == 4, "four of them give up")
            held = [task for task in waiting if not task.done()]
            assert Counter(task.result().status for task in waiting if task.done()) == {503: 4}
            a.gate.set()
            assert [answer.status for answer in await asyncio.gather(*held)] == [200, 200]
            assert a.peak == 2


async def test_slow_start_raises_the_share_of_a_server_that_came_back():
    """A server that came up gets a small share at first, more then, and its full share at the end."""
    async with servers("a", "b") as (a, b):
        service = web(a.endpoint(weight=10), b.endpoint(weight=10), health=replace(HEALTH, slow_start_ms=4000))
        async with Proxy(service) as proxy:
            for _ in range(5):
                await b.stop()
                await proxy.until_status("web", "b", "DOWN")
                await b.start()
                await proxy.until_status("web", "b", "UP")
                began_s = time.monotonic()
                shares = [(await ask_many(service, 100))["b"]]
                if time.monotonic() - began_s < 1:  # a busy machine may be late to look
                    break
            for _ in range(2):
                await asyncio.sleep(1.2)
                shares.append((await ask_many(service, 100))["b"])
            await proxy.until(lambda: proxy.row("web", "b")["weight"] == "10", "the whole weight is back")
            shares.append((await ask_many(service, 100))["b"])
            assert shares[0] < 30, shares
            assert shares == sorted(shares), shares
            assert shares[-1] == 50, shares


async def test_backup_group_takes_over_by_itself_and_shares_by_order():
    """Fast: the backup group serves when the primary group is gone, without us. Its share of live traffic is as set."""
    async with servers("a", "b", "x", "y") as (a, b, x, y):
        service = web(
            a.endpoint(), b.endpoint(), x.endpoint(group=Group.BACKUP), y.endpoint(group=Group.BACKUP, weight=3)
        )
        async with Proxy(service) as proxy:
            assert await ask_many(service, 40) == {"a": 20, "b": 20}
            proxy.apply(service, records={service.name: PoolRecord(service.name, backup_share_percent=30)})
            shares = await ask_many(service, 500)
            assert 100 < shares["x"] + shares["y"] < 200, shares
            assert abs(shares["a"] - shares["b"]) <= 2
            assert shares["y"] > 2 * shares["x"]
            proxy.apply(service, records={service.name: PoolRecord(service.name, backup_share_percent=100)})
            assert set(await ask_many(service, 40)) == {"x", "y"}
            proxy.apply(service)
            await a.stop()
            await b.stop()
            await proxy.until_status("web", "a", "DOWN")
            await proxy.until_status("web", "b", "DOWN")
            assert set(await ask_many(service, 40)) == {"x", "y"}


async def test_manual_failover_waits_for_a_person_and_affinity_keeps_the_group():
    """Manual: no switch by itself. With shares, a client with a cookie stays in its group until all traffic moves."""
    async with servers("a", "x") as (a, x):
        service = web(
            a.endpoint(),
            x.endpoint(group=Group.BACKUP),
            affinity=Affinity(CookieName("SEAT")),
            failover=PoolFailover(FailoverMode.MANUAL),
        )
        half, whole = (PoolRecord(service.name, backup_share_percent=share) for share in (50, 100))
        async with Proxy(service) as proxy:
            proxy.apply(service, records={service.name: half})
            first = [await ask(service) for _ in range(40)]
            assert {answer.server for answer in first} == {"a", "x"}
            for answer in first:
                assert (await ask(service, cookie=answer.cookie)).server == answer.server
            proxy.apply(service, records={service.name: whole})
            assert {(await ask(service, cookie=answer.cookie)).server for answer in first} == {"x"}
            proxy.apply(service)
            await a.stop()
            await proxy.until_status("web", "a", "DOWN")
            assert (await ask(service)).status == 503
            proxy.apply(service, records={service.name: whole})
            assert await ask_many(service, 10) == {"x": 10}


async def test_endpoints_come_go_drain_and_move_without_a_reload():
    """Live changes: a new endpoint gets nothing before its checks pass; maint and drain stop new requests at once."""
    async with servers("a", "b", "c") as (a, b, c):
        service = web(a.endpoint(), b.endpoint())
        async with Proxy(service) as proxy:
            await c.stop()
            grown = replace(service, endpoints=(*service.endpoints, c.endpoint(weight=2)))
            proxy.apply(grown)
            assert await ask_many(service, 60, at_once=4) == {"a": 30, "b": 30}
            assert proxy.row("web", "c")["status"] == "DOWN"
            await c.start()
            await proxy.until_status("web", "c", "UP")
            assert await ask_many(service, 40) == {"a": 10, "b": 10, "c": 20}
            for admin in (Admin.DRAIN, Admin.MAINT):
                proxy.apply(grown, records={service.name: PoolRecord(service.name, admin=((Name("c"), admin),))})
                assert await ask_many(service, 20) == {"a": 10, "b": 10}
            proxy.apply(grown)
            await proxy.until_status("web", "c", "UP")


async def test_a_slot_taken_over_leads_nobody_to_its_former_tenant():
    """What is still in flight to an endpoint that left does not lead others there when its slot has a new tenant."""
    async with servers("a", "b", "c") as (a, b, c):
        service = web(a.endpoint(), b.endpoint())
        async with Proxy(service) as proxy:
            clients = [await asyncio.open_connection(service.listen.host, service.listen.port) for _ in range(8)]
            for client in clients:
                await ask_on(*client)
            b.gate.clear()
            in_flight = [asyncio.create_task(ask_on(*client)) for client in clients[:4]]
            await proxy.until(lambda: b.active == 2, "two requests are in flight to b")
            proxy.apply(replace(service, endpoints=(a.endpoint(),)))
            proxy.apply(replace(service, endpoints=(a.endpoint(), c.endpoint())))
            assert proxy.row("web", "c")["svname"] == "s2"
            await proxy.until_status("web", "c", "UP")
            b.gate.set()
            await asyncio.gather(*in_flight)
            hits = b.hits
            for _ in range(4):
                await asyncio.gather(*(ask_on(*client) for client in clients))
            assert b.hits == hits
            for _, writer in clients:
                writer.close()
