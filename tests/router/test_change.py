"""What is done live and what needs a reload; that the commands do what they say is proven in tests/integration."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from understudy.core.model import (
    Affinity,
    Balance,
    CommandCheck,
    Endpoint,
    FailoverMode,
    Group,
    HealthPolicy,
    Kind,
    PoolFailover,
    PoolService,
    Retry,
    Spec,
    Timeouts,
)
from understudy.core.pools import Admin, Hold, PoolRecord
from understudy.core.routes import RouterState, allocate, compile_routes
from understudy.core.text import Address, CookieName, Name
from understudy.router.change import Command, diff
from understudy.router.layout import Layout

LAYOUT = Layout(Path("/tmp/a b"))


def endpoint(name: str, port: int = 80, **fields) -> Endpoint:
    return Endpoint(Name(name), Address("10.0.0.1", port), **fields)


WEB = PoolService(
    Name("web"),
    Kind.HTTP,
    Address("127.0.0.1", 80),
    (endpoint("a"), endpoint("b"), endpoint("x", group=Group.BACKUP)),
)
RECORD = allocate(WEB, PoolRecord(WEB.name))


def state(service: PoolService = WEB, record: PoolRecord = RECORD, directory: str = "/") -> RouterState:
    return compile_routes(Spec(Name("c"), (service,), directory=directory), {service.name: allocate(service, record)})


def lines(old: RouterState, new: RouterState) -> list[str]:
    change = diff(old, new, LAYOUT)
    assert not change.reload
    assert all(command.sentence for command in change.commands)
    return [command.line for command in change.commands]


def test_nothing_changed_means_nothing_to_do() -> None:
    """Equal states need nothing, the same object or not."""
    other = RouterState(state().cluster, (replace(state().routes[0]),), "/")
    assert diff(state(), state(), LAYOUT).commands == diff(state(), other, LAYOUT).commands == ()
    assert diff(state(), other, LAYOUT).reload == ()


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (replace(RECORD, weights=((Name("b"), 5),)), ["set server web.primary/s2 weight 5"]),
        (replace(RECORD, admin=((Name("a"), Admin.DRAIN),)), ["set server web.primary/s1 state drain"]),
        (replace(RECORD, holds=(Hold(Name("x"), 0, 1, "why"),)), ["set server web.backup/s1 state maint"]),
        (replace(RECORD, backup_share_percent=30), ["set map /tmp/a\\ b/maps/backup_share.map web 30"]),
    ],
)
def test_what_a_record_decides_is_done_live(record: PoolRecord, expected: list[str]) -> None:
    """Weight, state, ejection and share: one line each."""
    assert lines(state(), state(record=record)) == expected


def test_out_of_maintenance_a_server_earns_up_by_checks_and_out_of_drain_it_is_up() -> None:
    """Leaving maintenance is one line with `health down`; leaving drain, where checks went on, is not."""
    maint, drain = (replace(RECORD, admin=((Name("a"), admin),)) for admin in (Admin.MAINT, Admin.DRAIN))
    assert lines(state(record=maint), state()) == [
        "set server web.primary/s1 state ready; set server web.primary/s1 health down"
    ]
    assert lines(state(record=drain), state()) == ["set server web.primary/s1 state ready"]


def test_endpoints_come_and_go_live() -> None:
    """A new endpoint takes a spare in maintenance, address first, ready last; one that goes leaves its slot."""
    more = replace(WEB, endpoints=(*WEB.endpoints, endpoint("c", 81, weight=3, maxconn=9)))
    assert lines(state(), state(more)) == [
        "set server web.primary/s3 state maint",
        "shutdown sessions server web.primary/s3",
        "set server web.primary/s3 addr 10.0.0.1 port 81",
        "set server web.primary/s3 weight 3",
        "set maxconn server web.primary/s3 9",
        "set server web.primary/s3 state ready; set server web.primary/s3 health down",
    ]
    assert len(diff(state(), state(more), LAYOUT).sentences) == 1
    assert lines(state(more), state()) == ["set server web.primary/s3 state maint"]
    limited = replace(WEB, endpoints=(endpoint("a", maxconn=7), *WEB.endpoints[1:]))
    assert lines(state(), state(limited)) == ["set maxconn server web.primary/s1 7"]


@pytest.mark.parametrize(
    ("change", "about"),
    [
        (lambda web: replace(web, kind=Kind.TCP), "kind"),
        (lambda web: replace(web, listen=Address("127.0.0.1", 81)), "listen"),
        (lambda web: replace(web, maxconn=5), "maxconn"),
        (lambda web: replace(web, balance=Balance.RANDOM_TWO), "balance"),
        (lambda web: replace(web, health=HealthPolicy(fall=3)), "health"),
        (lambda web: replace(web, affinity=Affinity(CookieName("C"))), "affinity"),
        (lambda web: replace(web, retry=Retry.NEVER), "retry"),
        (lambda web: replace(web, timeouts=Timeouts(queue_ms=1)), "timeouts"),
        (lambda web: replace(web, failover=PoolFailover(FailoverMode.MANUAL)), "automatic"),
        (lambda web: replace(web, endpoints=web.endpoints[:2]), "backup group is gone"),
        (lambda web: replace(web, endpoints=(endpoint("a", 81), *web.endpoints[1:])), "moves to 10.0.0.1:81"),
        (lambda web: replace(web, endpoints=(*map(endpoint, "abcde"), web.endpoints[2])), "places"),
        (lambda web: replace(web, endpoints=(*map(endpoint, "pqrs"), web.endpoints[2])), "makes room"),
        (lambda web: replace(web, name=Name("other")), "other is new"),
    ],
)
def test_everything_else_is_one_reload_that_says_why(change: Callable[[PoolService], PoolService], about: str) -> None:
    """Each setting that HAProxy reads only at start gives a reason that names it, and no command."""
    found = diff(state(), state(change(WEB)), LAYOUT)
    assert found.commands == ()
    assert any(about in reason for reason in found.reload), found.reload


def test_the_folder_matters_to_command_checks_alone() -> None:
    """A spec that moved needs a reload only where commands run in its folder."""
    commands = replace(WEB, health=HealthPolicy(CommandCheck(("true",))))
    assert diff(state(), state(directory="/new"), LAYOUT).reload == ()
    assert diff(state(commands), state(commands, directory="/new"), LAYOUT).reload != ()


def test_answers_are_told_apart() -> None:
    """Silence is success, except for an address, where HAProxy says what it did; anything else is a failure."""
    weight: Command = diff(state(), state(record=replace(RECORD, weights=((Name("a"), 2),))), LAYOUT).commands[0]
    assert weight.accepted("\n\n")
    assert not weight.accepted("No such server.\n")
    more = replace(WEB, endpoints=(*WEB.endpoints, endpoint("c")))
    address = diff(state(), state(more), LAYOUT).commands[2]
    assert address.accepted("IP changed from '127.0.0.1' to '10.0.0.1', port changed from '1' to '80' by 'x'\n")
    assert address.accepted("no need to change the addr, port changed from '1' to '80' by 'x'\n")
    assert not address.accepted("Invalid addr family.\n")


def test_one_change_among_ten_thousand_endpoints_is_found_at_once() -> None:
    """Comparing costs next to nothing where nothing changed."""
    services = [
        replace(WEB, name=Name(f"s{number}"), endpoints=tuple(endpoint(f"e{each}") for each in range(10)))
        for number in range(1000)
    ]
    old = compile_routes(Spec(Name("c"), tuple(services)), {})
    services[7] = replace(services[7], endpoints=(endpoint("e0", weight=2), *services[7].endpoints[1:]))
    new = compile_routes(Spec(Name("c"), tuple(services)), {})
    took_s = []
    for _ in range(3):
        began_s = time.process_time()
        found = diff(old, new, LAYOUT)
        took_s.append(time.process_time() - began_s)
    assert min(took_s) < 0.02
    assert [command.line for command in found.commands] == ["set server s7.primary/s1 weight 2"]
