"""Every kind of check, up and down, with real servers; what clients notice when a server dies, hangs or misbehaves."""

import asyncio
import contextlib
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tests.hosts import Hosts, missing
from tests.integration.proxy import (
    CHECK_PATH,
    Answer,
    Proxy,
    ServerProcess,
    ask,
    ask_many,
    server_processes,
    servers,
)
from tests.ports import free_port

from understudy.core.model import (
    AgentCheck,
    Check,
    CommandCheck,
    Endpoint,
    GrpcCheck,
    HealthPolicy,
    HttpCheck,
    Kind,
    PoolService,
    TcpCheck,
)
from understudy.core.text import Address, GrpcService, HttpPath, Name
from understudy.router.config import cut_after_ms


def quick(check: Check, **settings) -> HealthPolicy:
    """Checks that are often and patient: what is tested is what they see, not how fast this machine is."""
    return HealthPolicy(check=check, **({"interval_ms": 100, "timeout_ms": 2000, "slow_start_ms": 0} | settings))


def service_of(*endpoints: Endpoint, kind: Kind = Kind.HTTP, **settings) -> PoolService:
    return PoolService(Name("web"), kind, Address("127.0.0.1", free_port()), tuple(endpoints), **settings)


async def test_tcp_check_asks_for_a_connection():
    """Down when nobody listens, up when somebody does."""
    async with servers("a", "b") as (a, b):
        service = service_of(a.endpoint(), b.endpoint(), kind=Kind.TCP, health=quick(TcpCheck()))
        async with Proxy(service) as proxy:
            await proxy.until_status("web", "a", "UP")
            await a.stop()
            await proxy.until_status("web", "a", "DOWN")
            assert await ask_many(service, 10) == {"b": 10}
            await a.start()
            await proxy.until_status("web", "a", "UP")
            assert await ask_many(service, 10) == {"a": 5, "b": 5}
            assert a.checks == 0


async def test_http_check_asks_for_path_status_and_body():
    """Down on a status outside what is expected or a body without the text, up when both are right."""
    text = """it's "fine" \\ here # $HOME; now"""
    check = HttpCheck(HttpPath(CHECK_PATH), expect=((200, 200), (203, 204)), body=text)
    async with servers("a") as (a,):
        a.check_body = f"one\ntwo {text} three"
        async with Proxy(service_of(a.endpoint(), health=quick(check))) as proxy:
            await proxy.until_status("web", "a", "UP")
            for status, body, state in (
                (202, a.check_body, "DOWN"),
                (203, a.check_body, "UP"),
                (200, "all is well", "DOWN"),
                (200, a.check_body, "UP"),
            ):
                a.check_status, a.check_body = status, body
                await proxy.until_status("web", "a", state)
            assert a.hits == 0


async def test_grpc_check_follows_the_health_service():
    """Up while grpc.health.v1 says SERVING for the service, down when it says otherwise or does not know it."""
    with ThreadPoolExecutor(4) as threads:
        server = grpc.server(threads)
        servicer = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            for name in ("shop.Orders", ""):
                servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
                service = service_of(
                    Endpoint(Name("a"), Address("127.0.0.1", port)),
                    health=quick(GrpcCheck(GrpcService(name)), timeout_ms=500),
                )
                async with Proxy(service) as proxy:
                    await proxy.until_status("web", "a", "UP")
                    servicer.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
                    await proxy.until_status("web", "a", "DOWN", within_s=30)
                    servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
                    await proxy.until_status("web", "a", "UP", within_s=30)
                    if not name:
                        await asyncio.to_thread(_ask_health, service)
            unknown = service_of(
                Endpoint(Name("a"), Address("127.0.0.1", port)),
                health=quick(GrpcCheck(GrpcService("no.Such")), timeout_ms=500),
            )
            async with Proxy(unknown) as proxy:
                await proxy.until_status("web", "a", "DOWN", within_s=30)
        finally:
            server.stop(None).wait()


def _ask_health(service: PoolService) -> None:
    """A real gRPC call goes through the balancer to the server."""
    with grpc.insecure_channel(str(service.listen)) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_command_check_runs_in_the_spec_folder_with_the_endpoint_in_its_environment():
    """The exit code decides; ADDRESS and PORT are the endpoint's, also of one that took its slot while HAProxy ran."""
    script = 'echo "$ADDRESS $PORT $1" >> seen; test ! -e down && grep -qx "$PORT" ports'
    command = CommandCheck(("sh", "-c", script, "sh", 'it\'s ; "one" word'))
    async with servers("a", "b") as (a, b):
        service = service_of(a.endpoint(), health=quick(command))
        proxy = Proxy(service)
        (proxy.directory / "ports").write_text(f"{a.port}\n")
        async with proxy:
            await proxy.until_status("web", "a", "UP")
            (proxy.directory / "down").touch()
            await proxy.until_status("web", "a", "DOWN")
            (proxy.directory / "down").unlink()
            await proxy.until_status("web", "a", "UP")
            proxy.apply(replace(service, endpoints=(a.endpoint(), b.endpoint())))
            await asyncio.sleep(0.5)
            assert proxy.row("web", "b")["status"].startswith("DOWN")
            (proxy.directory / "ports").write_text(f"{a.port}\n{b.port}\n")
            await proxy.until_status("web", "b", "UP")
            seen = set((proxy.directory / "seen").read_text().splitlines())
            assert seen == {f'127.0.0.1 {server.port} it\'s ; "one" word' for server in (a, b)}


async def test_agent_check_sets_weight_and_drain():
    """What the endpoint's own agent says is followed: a share of the weight, drain, and back."""
    said = ["100%"]

    async def tell(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{said[-1]}\n".encode())
        await writer.drain()
        writer.close()

    async with servers("a", "b") as (a, b), await asyncio.start_server(tell, "127.0.0.1", 0) as agent:
        port = agent.sockets[0].getsockname()[1]
        policy = quick(TcpCheck(), agent=AgentCheck(port, interval_ms=100))
        service = service_of(a.endpoint(weight=100), b.endpoint(weight=100), health=policy)
        async with Proxy(service) as proxy:
            for words, status, weight in (("30%", "UP", "30"), ("drain", "DRAIN", ""), ("ready 100%", "UP", "100")):
                said.append(words)
                for name in "ab":
                    await proxy.until_status("web", name, status)
                    await proxy.until(
                        lambda name=name, weight=weight: not weight or proxy.row("web", name)["weight"] == weight,
                        f"{name} weighs {weight}",
                    )


async def test_errors_of_real_traffic_call_for_a_check_at_once():
    """With checks 20 s apart a dead server is out after a few requests, none of which fails; without, it stays."""
    for passive in (True, False):
        async with servers("a", "b") as (a, b):
            policy = quick(HttpCheck(HttpPath(CHECK_PATH)), interval_ms=20_000, passive=passive)
            service = service_of(a.endpoint(), b.endpoint(), health=policy)
            async with Proxy(service) as proxy:
                await ask_many(service, 4)
                await a.stop()
                began = time.monotonic()
                while passive and not proxy.row("web", "a")["status"].startswith("DOWN"):
                    assert await ask_many(service, 4) == {"b": 4}
                    assert time.monotonic() - began < 15
                assert await ask_many(service, 20) == {"b": 20}
                assert proxy.row("web", "a")["status"].startswith("DOWN") is passive


async def test_a_server_that_answers_with_errors_costs_safe_requests_nothing():
    """GETs that a server answers with 500 are answered by another; a POST is not run twice and gets the 500."""
    async with servers("a", "b") as (a, b):
        service = service_of(a.endpoint(), b.endpoint(), health=quick(HttpCheck(HttpPath(CHECK_PATH))))
        async with Proxy(service) as proxy:
            a.status = 500
            assert await ask_many(service, 40) == {"b": 40}
            assert a.hits >= 10
            posts = [await ask(service, f"/{number}", method="POST") for number in range(20)]
            assert Counter(answer.status for answer in posts) == {200: 10, 500: 10}
            assert max((a.posts + b.posts).values()) == 1
            assert int(proxy.row("web", "a")["wretr"]) >= 10, "retries are how the ejector learns of it"


async def load(service: PoolService, seconds: float, begun: asyncio.Event) -> list[Answer]:
    """200 requests a second; every fifth a POST. Sets `begun` after a second."""
    tasks: list[asyncio.Task[Answer]] = []
    began = time.monotonic()
    while (now := time.monotonic()) - began < seconds:
        while began + len(tasks) * 0.005 <= now:
            number = len(tasks)
            method = "POST" if number % 5 == 0 else "GET"
            tasks.append(asyncio.create_task(ask(service, f"/{method}/{number}", method=method)))
        if now - began > 1:
            begun.set()
        await asyncio.sleep(0.002)
    return await asyncio.gather(*tasks)


async def cut_when_down(proxy: Proxy, endpoint: str) -> None:
    """What the agent does: some moments after a server went down, end what is left on it."""
    await proxy.until_status("web", endpoint, "DOWN")
    after_ms = cut_after_ms(proxy.state.routes[0].primary)
    if after_ms is not None:
        await asyncio.sleep(after_ms / 1000)
        proxy.command("shutdown sessions server web.primary/s1")


@contextlib.contextmanager
def pool_with_fault(fault: str) -> Iterator[tuple[list[ServerProcess], Callable[[], None]]]:
    """Three servers, and what makes the first one die, hang or lose its link."""
    if fault != "link":
        with server_processes("a", "b", "c", delay_s=0.02) as pool:
            number = {"dies": signal.SIGKILL, "hangs": signal.SIGSTOP}[fault]
            yield pool, lambda: pool[0].signal(number)
        return
    if reason := missing():
        pytest.skip(reason)
    with Hosts("far") as hosts, server_processes("a", "b", "c", delay_s=0.02, first_on=hosts["far"]) as pool:
        yield pool, hosts["far"].link_down


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("fault", ["dies", "hangs", "link"])
async def test_no_get_fails_when_a_server_is_lost(kind, fault):
    """200 requests a second with the defaults: no GET fails, none waits for the 60 s timeout, no POST runs twice.

    Over tcp nobody can retry what a session had begun, so there only those in flight at the time may fail.
    """
    with pool_with_fault(fault) as (pool, break_it):
        policy = HealthPolicy(check=HttpCheck(HttpPath(CHECK_PATH)))
        service = service_of(*(server.endpoint() for server in pool), kind=kind, health=policy)
        async with Proxy(service) as proxy:
            for server in pool:
                await proxy.until_status("web", server.name, "UP")
            begun = asyncio.Event()
            running = asyncio.create_task(load(service, 3, begun))
            await begun.wait()
            break_it()
            await cut_when_down(proxy, "a")
            answers = await running
        gets = Counter(answer.status for index, answer in enumerate(answers) if index % 5)
        posts = Counter(answer.status for index, answer in enumerate(answers) if index % 5 == 0)
        may_fail = 0 if kind is Kind.HTTP else 80
        assert gets.total() - gets[200] <= may_fail, gets
        assert posts.total() - posts[200] <= 20, posts
        assert max(answer.seconds for answer in answers) < 15
        if fault == "hangs":
            pool[0].signal(signal.SIGCONT)  # what waited in its sockets runs now
            await asyncio.sleep(0.5)
        executed = sum((server.posts() for server in pool), Counter())
        assert max(executed.values()) == 1
        assert len(executed) >= posts[200]


async def test_tcp_sessions_of_a_hung_server_end_when_it_is_down():
    """A session ends soon after its server hangs, by HAProxy alone; new ones never reach it, and none of them fails."""
    with server_processes("a", "b") as pool:
        policy = quick(HttpCheck(HttpPath(CHECK_PATH)), timeout_ms=500)
        service = service_of(*(server.endpoint() for server in pool), kind=Kind.TCP, health=policy)
        async with Proxy(service) as proxy:
            for server in pool:
                await proxy.until_status("web", server.name, "UP")
            sessions = [await asyncio.open_connection(service.listen.host, service.listen.port) for _ in range(4)]
            for _, writer in sessions:
                writer.write(b"GET / HTTP/1.1\r\n\r\n")
            homes = [(await reader.readuntil(b"ok")).decode() for reader, _ in sessions]
            pool[0].signal(signal.SIGSTOP)
            await proxy.until_status("web", "a", "DOWN")
            for (reader, writer), home in zip(sessions, homes, strict=True):
                if "X-Server: a" in home:
                    async with asyncio.timeout(10):
                        with contextlib.suppress(ConnectionError):
                            assert await reader.read() == b""
                writer.close()
            assert sum("X-Server: a" in home for home in homes) == 2
            assert await ask_many(service, 20) == {"b": 20}
