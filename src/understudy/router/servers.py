"""The servers' state: as HAProxy shows it, and as a new worker is to begin with. Pure text in, values and text out.

HAProxy's own state file would bring back ports, weights and states that are no longer wanted; ours is rendered from the
desired state, and takes from the past only whether an unchanged server was up.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from understudy.core.pools import Admin
from understudy.core.routes import Pool, Route, RouterState, Slot
from understudy.core.text import Address, Name
from understudy.router.config import seen_weight, server_weight
from understudy.router.names import backend_name, server_name

Key = tuple[str, str]
"""A backend's and a server's name."""

_MAINT_FLAGS = 0x23
_DRAIN_FLAGS = 0x18
_ADMIN_FLAGS = {Admin.READY: 0, Admin.MAINT: 1, Admin.DRAIN: 8}

_HEADER = (
    "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight"
    " srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state"
    " bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr"
    " srv_agent_addr srv_agent_port\n"
)
_UNCHECKED, _STOPPED, _RUNNING, _FAILED, _PASSED, _CHECKED = 1, 0, 2, 2, 3, 6


class Shown(NamedTuple):
    """A server as `show servers state` shows it."""

    host: str
    port: int
    admin: Admin
    weight: int
    up: bool = True
    since_s: int = 0

    @property
    def known(self) -> "Known":
        """What of this a new worker may begin with."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return Known(f"{host}:{self.port}", self.up, self.since_s)


class Known(NamedTuple):
    """What was last known of a server's health: for which address, whether it was up, and for how many seconds."""

    address: str
    up: bool
    since_s: int


def parse_servers(text: str) -> dict[Key, Shown]:
    """The answer to `show servers state`."""
    shown: dict[Key, Shown] = {}
    for line in text.splitlines():
        fields = line.split(" ", 19)
        if len(fields) < 19 or line.startswith("#"):
            continue
        flags = int(fields[6])
        admin = Admin.MAINT if flags & _MAINT_FLAGS else Admin.DRAIN if flags & _DRAIN_FLAGS else Admin.READY
        shown[fields[1], fields[3]] = Shown(
            fields[4], int(fields[18]), admin, int(fields[7]), fields[5] != "0", max(0, int(fields[9]))
        )
    return shown


def parse_map(text: str) -> dict[str, str]:
    """The answer to `show map FILE`."""
    entries = (line.split(" ") for line in text.splitlines() if line.startswith("0x"))
    return {entry[1]: entry[2] for entry in entries if len(entry) > 2}


def running(desired: RouterState, shown: Mapping[Key, Shown], shares: Mapping[str, str]) -> RouterState:
    """The state of a proxy that has the desired one's structure: what it is to become, with what it is put in."""
    return replace(desired, routes=tuple(_running_route(route, shown, shares) for route in desired.routes))


def _running_route(route: Route, shown: Mapping[Key, Shown], shares: Mapping[str, str]) -> Route:
    share = shares.get(route.service, "")
    percent = int(share) if share.isdecimal() else route.backup_share_percent
    primary = _running_pool(route.primary, shown)
    backup = route.backup and _running_pool(route.backup, shown)
    if primary is route.primary and backup is route.backup and percent == route.backup_share_percent:
        return route
    return replace(route, primary=primary, backup=backup, backup_share_percent=percent)


def _running_pool(pool: Pool, shown: Mapping[Key, Shown]) -> Pool:
    backend = backend_name(pool.service, pool.group)
    slots = tuple(
        _running_slot(pool, slot, shown.get((backend, server_name(index)))) for index, slot in enumerate(pool.slots)
    )
    return pool if slots == pool.slots else replace(pool, slots=slots)


def _running_slot(pool: Pool, slot: Slot, shown: Shown | None) -> Slot:
    if shown is None:
        return slot
    if slot.endpoint is None or slot.address is None:
        if shown.admin is Admin.MAINT:
            return slot
        return Slot(Name("unknown"), Address(shown.host, shown.port), 1, 0, shown.admin)
    same_address = not shown.port or (shown.host, shown.port) == (slot.address.host, slot.address.port)
    same_weight = shown.weight == server_weight(pool, slot)
    if same_address and same_weight and shown.admin is slot.admin:
        return slot
    return replace(
        slot,
        address=slot.address if same_address else Address(shown.host, shown.port),
        weight=slot.weight if same_weight else seen_weight(pool, shown.weight),
        admin=shown.admin,
    )


def state_file(desired: RouterState, before: RouterState | None, known: Mapping[Key, Known]) -> str:
    """The state that a new worker begins with.

    A server that keeps slot, endpoint and address keeps its health. One that joins a pool which is already known begins
    as down and earns its place by checks. Servers of a wholly new pool begin as HAProxy would have them, except that
    drained ones are drained from the first moment.
    """
    former = {(pool.service, pool.group): pool for pool in _pools(before)}
    lines = [_HEADER]
    for pool in _pools(desired):
        lines.extend(_pool_lines(pool, former.get((pool.service, pool.group)), known))
    return "".join(lines)


def _pools(state: RouterState | None) -> Iterator[Pool]:
    for route in state.routes if state else ():
        yield route.primary
        if route.backup is not None:
            yield route.backup


def _pool_lines(pool: Pool, before: Pool | None, known: Mapping[Key, Known]) -> list[str]:
    backend = backend_name(pool.service, pool.group)
    names = [server_name(index) for index in range(len(pool.slots))]
    is_known = any((backend, name) in known for name in names)
    lines = []
    for index, (slot, name) in enumerate(zip(pool.slots, names, strict=True)):
        if slot.endpoint is None or slot.address is None:
            continue
        past = known.get((backend, name))
        kept = before is None or (index < len(before.slots) and before.slots[index].endpoint == slot.endpoint)
        if past is not None and kept and past.address == str(slot.address):
            lines.append(_line(pool, backend, index, slot, past))
        elif is_known or slot.admin is Admin.DRAIN:
            lines.append(_line(pool, backend, index, slot, Known(str(slot.address), up=not is_known, since_s=0)))
    return lines


def _line(pool: Pool, backend: str, index: int, slot: Slot, past: Known) -> str:
    assert slot.address is not None  # noqa: S101 - the caller leaves spares out
    up, result, health = (
        (_RUNNING, _PASSED, pool.health.rise + pool.health.fall - 1) if past.up else (_STOPPED, _FAILED, 0)
    )
    weight = server_weight(pool, slot)
    return (
        f"1 {backend} {index + 1} {server_name(index)} {slot.address.host} {up} {_ADMIN_FLAGS[slot.admin]}"
        f" {weight} {weight} {past.since_s} {_UNCHECKED} {result} {health} {_CHECKED} 0"
        f" 0 1 - {slot.address.port} - 0 0 - - 0\n"
    )
