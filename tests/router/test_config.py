"""The rendered text: valid for the real HAProxy, complete, and closed to whatever a spec's strings hold."""

import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.model import (
    Affinity,
    AgentCheck,
    Balance,
    Check,
    CommandCheck,
    Endpoint,
    FailoverMode,
    Group,
    GrpcCheck,
    HealthPolicy,
    HttpCheck,
    Kind,
    PoolFailover,
    PoolService,
    Retry,
    Spec,
    TcpCheck,
)
from understudy.core.pools import Admin, PoolRecord
from understudy.core.routes import ClusterPorts, RouterState, Seat, compile_route, compile_routes
from understudy.core.text import Address, CookieName, GrpcService, HostHeader, HttpPath, Name
from understudy.router.config import HostFacts, Rendered, quote, render, seen_weight, server_weight
from understudy.router.layout import Layout
from understudy.router.names import backend_name, parse_backend, parse_server, server_name

FACTS = HostFacts(version=(2, 6, 12))
TEXT = st.text(st.characters(blacklist_categories=("Cc", "Cs")), min_size=1, max_size=200)
HOSTILE = st.text("'\"\\#$ {}()%!;,aé\u2028\u0085", min_size=1)


@pytest.fixture(scope="module")
def layout() -> Iterator[Layout]:
    with tempfile.TemporaryDirectory(prefix="us- it's ") as directory:
        yield Layout(Path(directory))


def endpoint(name: str, **fields) -> Endpoint:
    return Endpoint(Name(name), Address("10.0.0.1", 80), **fields)


def service(name: str = "web", *endpoints: Endpoint, **fields) -> PoolService:
    pool = endpoints or (endpoint("a", weight=2), endpoint("b", group=Group.BACKUP))
    return PoolService(Name(name), fields.pop("kind", Kind.HTTP), Address("127.0.0.1", 80), pool, **fields)


def state(*services: PoolService, **records: PoolRecord) -> RouterState:
    return compile_routes(
        Spec(Name("c"), services, directory="/"), {Name(key): record for key, record in records.items()}
    )


def faults(rendered: Rendered, layout: Layout) -> str:
    """What `haproxy -c` has against it: warnings too."""
    layout.config.write_text(rendered.config)
    layout.server_state.write_text("1\n")
    for path, text in rendered.files:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    done = subprocess.run(["haproxy", "-c", "-f", str(layout.config)], capture_output=True, text=True, check=False)
    complaints = [line for line in done.stderr.splitlines() if "[NOTICE]" not in line]
    return "\n".join(complaints) or ("" if done.returncode == 0 else f"exit code {done.returncode}")


def test_haproxy_accepts_every_kind_of_service_without_a_warning(layout: Layout) -> None:
    """Each balance, check, retry, failover mode, group, with and without affinity, agent and limits; odd paths too."""
    checks: list[Check] = [
        TcpCheck(),
        HttpCheck(HttpPath("/a?b=$c&d=(%20)*!"), host=HostHeader("[::1]:80"), expect=((200, 200),), body="x"),
        GrpcCheck(GrpcService("a.b/C")),
        CommandCheck(("sh", "-c", "true")),
    ]
    services = []
    for kind in Kind:
        for balance in Balance:
            for check in checks:
                for retry, mode in zip(Retry, FailoverMode, strict=True):
                    number = len(services)
                    services.append(
                        replace(
                            service(f"s{number}", kind=kind),
                            listen=Address("::1" if number % 2 else "127.0.0.1", 1000 + number),
                            balance=balance,
                            retry=retry,
                            failover=PoolFailover(mode),
                            health=HealthPolicy(
                                check,
                                passive=bool(number % 2),
                                slow_start_ms=number % 3 * 1000,
                                agent=AgentCheck(9) if number % 5 == 0 else None,
                            ),
                            affinity=Affinity(CookieName("SEAT")) if number % 4 == 0 and kind is Kind.HTTP else None,
                            maxconn=number % 2 * 100,
                        )
                    )
    rendered = render(state(*services), layout, replace(FACTS, user="haproxy", group="haproxy", threads=2))
    assert faults(rendered, layout) == ""


def test_haproxy_accepts_a_clusters_ports_without_a_warning(layout: Layout) -> None:
    """With and without a port for reading, IPv6 too; and whatever is in force, the text lets nobody in."""
    seats = tuple(
        Seat(Name(name), Address(host, 5432), Address(host, 8601))
        for name, host in (("hold", "10.0.0.1"), ("b-2", "::1"))
    )
    clusters = (
        ClusterPorts(Name("orders"), Address("127.0.0.1", 6432), Address("::1", 6433), seats, 10_000),
        ClusterPorts(Name("hold"), Address("::", 6434), None, seats[:1], 3_000),
    )
    rendered = render(replace(state(service()), clusters=clusters), layout, FACTS)
    assert faults(rendered, layout) == ""
    nodes = [line for line in rendered.config.splitlines() if ":5432 " in line]
    assert len(nodes) == 7
    assert all(" disabled " in line for line in nodes)


@settings(max_examples=60, deadline=None)
@given(bodies=st.lists(st.one_of(TEXT, HOSTILE), min_size=25, max_size=25))
def test_a_body_can_never_end_its_directive(layout: Layout, bodies: list[str]) -> None:
    """Whatever text a check expects, HAProxy reads it as one word; there are no more lines than with a plain one."""
    services = [
        replace(
            service(f"s{number}"), health=HealthPolicy(HttpCheck(body=body)), listen=Address("127.0.0.1", 2000 + number)
        )
        for number, body in enumerate(bodies)
    ]
    rendered = render(state(*services), layout, FACTS)
    plain = [replace(each, health=HealthPolicy(HttpCheck(body="x"))) for each in services]
    assert rendered.config.count("\n") == render(state(*plain), layout, FACTS).config.count("\n")
    assert faults(rendered, layout) == ""


@given(text=TEXT, control=st.characters(whitelist_categories=("Cc",), max_codepoint=127))
def test_control_characters_are_refused(text: str, control: str) -> None:
    """No newline, and nothing like it, gets into a configuration even where a type upstream let it through."""
    with pytest.raises(ValueError, match="control character"):
        quote(text + control)


def test_the_text_holds_what_was_decided(layout: Layout) -> None:
    """Weights, states and shares of the records stand in the files, so that a reload loses none of them."""
    record = PoolRecord(
        Name("web"), admin=((Name("b"), Admin.MAINT),), weights=((Name("a"), 7),), backup_share_percent=30
    )
    rendered = render(state(service(), web=record), layout, FACTS)
    primary, backup = rendered.config.split("\nbackend web.primary\n")[1].split("\nbackend web.backup\n")
    assert "\n  server s1 10.0.0.1:80 weight 7\n" in primary
    assert "\n  server s1 10.0.0.1:80 weight 1 disabled\n" in backup
    assert "\n  server s2 127.0.0.1:1 weight 1 disabled\n" in backup
    assert (layout.maps / "backup_share.map", "web 30\n") in rendered.files


@given(
    weights=st.lists(st.integers(0, 256), min_size=1, max_size=8),
    balance=st.sampled_from([balance for balance in Balance if balance is not Balance.LEAST_CONNECTIONS]),
)
def test_weights_keep_their_proportion_and_read_back(weights: list[int], balance: Balance) -> None:
    """HAProxy gets weights within its limit, in the spec's proportion; what it reports reads back as the spec's."""
    endpoints = [endpoint(f"e{number}", weight=weight) for number, weight in enumerate(weights)]
    pool = compile_route(service("web", *endpoints, balance=balance), PoolRecord(Name("web"))).primary
    given_weights = [server_weight(pool, slot) for slot in pool.slots[: len(weights)]]
    assert max(given_weights) <= 256
    assert [seen_weight(pool, weight) for weight in given_weights] == weights
    assert all(one * weights[0] == given_weights[0] * other for one, other in zip(given_weights, weights, strict=True))


def test_names_read_back() -> None:
    """Backends and servers are found again by their names; others are nobody's."""
    for group in Group:
        assert parse_backend(backend_name(Name("a-b_c"), group)) == ("a-b_c", group)
    assert parse_server(server_name(0)) == 0
    assert server_name(0) == "s1"
    assert [parse_backend(text) for text in ("web", "web.", "a.b.primary", "web.primary\n")] == [None] * 4
    assert [parse_server(text) for text in ("s0", "1", "s", "s1 ", "FRONTEND")] == [None] * 5


def test_a_thousand_services_take_little_time_and_one_change_next_to_none(layout: Layout) -> None:
    """1 000 services of 10 endpoints: compiled and rendered well under half a second, again far faster."""
    services = [
        replace(service(f"s{number}", *(endpoint(f"e{each}") for each in range(10))), listen=Address("::", number + 1))
        for number in range(1000)
    ]
    began = time.process_time()
    first = render(state(*services), layout, FACTS)
    whole_s = time.process_time() - began
    services[500] = replace(services[500], endpoints=(endpoint("e0", weight=5), *services[500].endpoints[1:]))
    began = time.process_time()
    second = render(state(*services), layout, FACTS)
    assert whole_s < 1.0
    assert time.process_time() - began < whole_s / 2
    assert first.config != second.config
