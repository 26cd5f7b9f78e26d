"""The state that a new worker begins with, and the state read from a running one."""

from dataclasses import replace

from tests.routing import HOST, Backend, desired, service

from understudy.core.pools import Admin
from understudy.core.text import Address
from understudy.router.servers import Known, Shown, parse_servers, running, state_file

W1, W2 = Backend("w1", 9001), Backend("w2", 9002)
SERVICE = service("web", 80, [W1, W2])
DOWN_1 = {("web.primary", "s1"): Known(f"{HOST}:9001", up=False, since_s=60)}


def begins(text: str) -> dict[str, tuple[str, str]]:
    """Operational and administrative state by server."""
    rows = [line.split(" ") for line in text.splitlines()[2:]]
    assert all(len(row) == 25 for row in rows)
    return {row[3]: (row[5], row[6]) for row in rows}


def test_only_a_server_that_is_unchanged_keeps_its_health():
    """Same slot, endpoint and address: still down. Another port, or another endpoint: the past says nothing."""
    before = desired(SERVICE)
    known = DOWN_1 | {("web.primary", "s2"): Known(f"{HOST}:9002", up=True, since_s=5)}
    assert begins(state_file(before, before, known)) == {"s1": ("0", "0"), "s2": ("2", "0")}

    moved = service("web", 80, [W1, Backend("w2", 9009)])
    assert begins(state_file(desired(moved), before, known))["s2"] == ("0", "0"), "it earns its place by checks"

    renamed = service("web", 80, [W1, Backend("other", 9002)])
    assert begins(state_file(desired(renamed), before, known))["s2"] == ("0", "0")


def test_admin_states_come_from_what_is_wanted():
    """Drained from the first moment, also where nothing is known; a wholly new pool is left to HAProxy."""
    drained = desired(SERVICE, admin={"w2": Admin.DRAIN})
    assert begins(state_file(drained, None, {})) == {"s2": ("2", "8")}
    assert begins(state_file(drained, drained, DOWN_1))["s2"] == ("0", "8")
    assert begins(state_file(desired(SERVICE, admin={"w1": Admin.MAINT}), None, DOWN_1))["s1"] == ("0", "1")
    assert begins(state_file(desired(SERVICE), None, {})) == {}


def test_what_runs_is_read_as_a_state_that_can_be_compared():
    """Equal to the desired one when all is well; every deviation shows: weight, admin, address, share, a used spare."""
    state = desired(SERVICE)
    fine = {("web.primary", f"s{n}"): Shown(HOST, 9000 + n, Admin.READY, 1) for n in (1, 2)}
    assert running(state, fine, {}) == state

    changed = fine | {
        ("web.primary", "s1"): Shown(HOST, 9005, Admin.DRAIN, 7),
        ("web.primary", "s3"): Shown("10.0.0.1", 80, Admin.READY, 1),
    }
    slots = running(state, changed, {}).routes[0].primary.slots
    wanted = state.routes[0].primary.slots
    assert slots[0] == replace(wanted[0], address=Address(HOST, 9005), admin=Admin.DRAIN, weight=7)
    assert slots[1] == wanted[1]
    assert slots[2].endpoint is not None
    assert slots[2].admin is Admin.READY


def test_haproxys_own_table_is_read():
    """Flags of configuration and of orders amount to ready, drain or maint."""
    text = "1\n# be_id be_name …\n" + "".join(
        f"3 web.primary {n} s{n} 127.0.0.1 2 {flags} 5 1 6 6 3 3 6 0 0 1 - 900{n} - 0 0 - - 0\n"
        for n, flags in ((1, 4), (2, 8), (3, 5))
    )
    assert [each.admin for each in parse_servers(text).values()] == [Admin.READY, Admin.DRAIN, Admin.MAINT]
    assert parse_servers(text)["web.primary", "s2"] == Shown("127.0.0.1", 9002, Admin.DRAIN, 5, up=True, since_s=6)
