"""What `plan` tells of two specs: everything that changes, and nothing else."""

from dataclasses import replace

from understudy.core.model import Balance, Endpoint, HealthPolicy, HttpCheck, Kind, PoolService, Spec, TcpCheck
from understudy.core.spec_changes import spec_changes
from understudy.core.text import Address, HttpPath, Name

W1, W2 = (Endpoint(Name(f"w{number}"), Address("10.0.0.1", 9000 + number)) for number in (1, 2))
WEB = PoolService(Name("web"), Kind.HTTP, Address("127.0.0.1", 80), (W1, W2), health=HealthPolicy(check=HttpCheck()))
SPEC = Spec(Name("shop"), (WEB,))


def changed(**fields):
    return spec_changes(SPEC, replace(SPEC, services=(replace(WEB, **fields),)))


def test_nothing_is_said_of_what_is_the_same():
    """Equal services, be they the same object or not."""
    assert spec_changes(SPEC, SPEC) == changed() == ()


def test_services_come_and_go():
    """A new one is told with where it listens."""
    mail = replace(WEB, name=Name("mail"), kind=Kind.TCP, listen=Address("127.0.0.1", 25))
    assert spec_changes(SPEC, replace(SPEC, services=(mail,))) == (
        "mail: is new, tcp on 127.0.0.1:25 with 2 endpoints",
        "web: is gone",
    )


def test_settings_are_told_with_both_values():
    """The innermost field that differs is named, with its unit in its name."""
    assert changed(balance=Balance.FIRST) == ("web: balance round_robin becomes first",)
    assert changed(listen=Address("127.0.0.1", 81)) == ("web: listen 127.0.0.1:80 becomes 127.0.0.1:81",)
    slower = replace(WEB.health, interval_ms=900, check=HttpCheck(HttpPath("/up")))
    assert changed(health=slower) == (
        "web: health.check.path / becomes /up",
        f"web: health.interval_ms {WEB.health.interval_ms} becomes 900",
    )
    assert len(changed(health=replace(WEB.health, check=TcpCheck()))) == 1


def test_endpoints_join_leave_and_change():
    """Each by its name; an endpoint that only stands elsewhere in the file is an order that changes."""
    w3 = Endpoint(Name("w3"), Address("10.0.0.1", 9003))
    assert changed(endpoints=(replace(W1, weight=3), w3)) == (
        "web/w1: weight 1 becomes 3",
        "web/w3: joins at 10.0.0.1:9003",
        "web/w2: leaves, which was at 10.0.0.1:9002",
    )
    assert changed(endpoints=(W2, W1)) == ("web: the order of its endpoints changes",)
