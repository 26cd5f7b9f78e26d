"""What has to happen to get a running HAProxy from one state to another: runtime commands, or one reload. Pure.

Commands are lines for the runtime socket together with the answers that mean success; sending them is
router/runtime.py's work.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from understudy.core.model import Balance, CommandCheck
from understudy.core.pools import Admin
from understudy.core.routes import Pool, Route, RouterState, Slot
from understudy.core.text import Name
from understudy.router.config import server_weight
from understudy.router.layout import Layout
from understudy.router.names import SHARE_MAP, backend_name, server_name


@dataclass(frozen=True, slots=True)
class Command:
    """One line for the runtime socket. `answer` is what success looks like (the whole answer, stripped)."""

    line: str
    answer: re.Pattern[str]
    sentence: str
    """What it does, for people; several commands of one change carry the same sentence."""

    def accepted(self, answer: str) -> bool:
        """Whether HAProxy's answer means that it was done."""
        return self.answer.fullmatch(answer.strip()) is not None


@dataclass(frozen=True, slots=True)
class Diff:
    """The way from one state to another. When `reload` names a reason, the new configuration holds everything."""

    commands: tuple[Command, ...] = ()
    """In this order; empty when a reload is needed."""
    reload: tuple[str, ...] = ()
    """Why runtime commands cannot do it, a sentence each."""

    @property
    def sentences(self) -> tuple[str, ...]:
        """What the commands do, each said once."""
        return tuple(dict.fromkeys(command.sentence for command in self.commands))


_DONE = re.compile(r"")
_ADDRESS_SET = re.compile(r"(IP changed|port changed|no need to change).*", re.DOTALL)
_POOL_SETTINGS = ("kind", "balance", "health", "affinity", "retry", "timeouts")
_PORTS_SETTINGS = {
    "write": "port for writing",
    "read": "port for reading",
    "seats": "list of nodes",
    "hold_ms": "time for which clients are held",
}


def diff(old: RouterState, new: RouterState, layout: Layout) -> Diff:
    """The smallest change that makes a proxy that is in `old` do what `new` says."""
    before = {route.service: route for route in old.routes}
    after = {route.service: route for route in new.routes}
    pairs = [(before[name], route) for name, route in after.items() if name in before and before[name] is not route]
    reload = [f"service {name} is new" for name in after if name not in before]
    reload += [f"service {name} is gone" for name in before if name not in after]
    reload += [reason for pair in pairs for reason in _reload_reasons(*pair)]
    reload += _cluster_reasons(old, new)
    if old.directory != new.directory and any(isinstance(r.primary.health.check, CommandCheck) for r in new.routes):
        reload.append(f"command checks run in {new.directory} instead of {old.directory}")
    if reload:
        return Diff(reload=tuple(reload))
    return Diff(commands=tuple(command for pair in pairs for command in _route_commands(*pair, layout)))


def silent(line: str, sentence: str) -> Command:
    """An order that HAProxy carries out without a word."""
    return Command(line, _DONE, sentence)


def _cluster_reasons(old: RouterState, new: RouterState) -> Iterator[str]:
    """What changes of the clusters' ports and seats; where their clients go is never a matter of configuration."""
    for ports in new.clusters:
        before = old.ports(ports.cluster)
        if before is None:
            yield f"cluster {ports.cluster} is new"
        elif before is not ports:
            for setting, word in _PORTS_SETTINGS.items():
                if getattr(before, setting) != getattr(ports, setting):
                    yield f"cluster {ports.cluster}: its {word} changes"
    yield from (f"cluster {ports.cluster} is gone" for ports in old.clusters if new.ports(ports.cluster) is None)


def _reload_reasons(old: Route, new: Route) -> Iterator[str]:
    """What of a service's change HAProxy cannot do while it runs."""
    name = new.service
    for setting in ("kind", "listen", "maxconn", "automatic"):
        if getattr(old, setting) != getattr(new, setting):
            yield f"service {name}: its {setting} changes"
    if (old.backup is None) != (new.backup is None):
        yield f"service {name}: its backup group is {'new' if new.backup else 'gone'}"
    for was, now in _pool_pairs(old, new):
        for setting in _POOL_SETTINGS:
            if getattr(was, setting) != getattr(now, setting):
                yield f"service {name}: the {setting} of its {now.group} group changes"
        if len(was.slots) != len(now.slots):
            yield f"service {name}: its {now.group} group has {len(now.slots)} places instead of {len(was.slots)}"
        elif now.balance is Balance.FIRST and _tenants(was) != _tenants(now):
            yield f"service {name}: the order in which its {now.group} group is used changes"
        else:
            yield from _moves(name, was, now)


def _moves(service: Name, was: Pool, now: Pool) -> Iterator[str]:
    """Servers that would get another address under the requests that they are serving.

    When such a request ends, HAProxy keeps its connection to the old address and sends others through it.
    """
    for old, new in zip(was.slots, now.slots, strict=True):
        if old.endpoint and new.endpoint and (old.endpoint, old.address) != (new.endpoint, new.address):
            what = f"moves to {new.address}" if old.endpoint == new.endpoint else f"makes room for {new.endpoint}"
            yield f"{service}/{old.endpoint} {what}, and its connections must not be used on"


def _pool_pairs(old: Route, new: Route) -> Iterator[tuple[Pool, Pool]]:
    yield old.primary, new.primary
    if old.backup and new.backup:
        yield old.backup, new.backup


def _tenants(pool: Pool) -> list[Name]:
    return [slot.endpoint for slot in pool.slots if slot.endpoint]


def _route_commands(old: Route, new: Route, layout: Layout) -> Iterator[Command]:
    if old.backup_share_percent != new.backup_share_percent:
        path = str(layout.maps / SHARE_MAP).replace("\\", "\\\\").replace(" ", "\\ ")
        yield Command(
            f"set map {path} {new.service} {new.backup_share_percent}",
            _DONE,
            f"{new.service}: the backup group's share goes from {old.backup_share_percent} %"
            f" to {new.backup_share_percent} %",
        )
    for was, now in _pool_pairs(old, new):
        if was is now:
            continue
        for index, slot in enumerate(now.slots):
            yield from _slot_commands(was, now, index, was.slots[index], slot)


def _slot_commands(old_pool: Pool, pool: Pool, index: int, old: Slot, new: Slot) -> Iterator[Command]:
    """What one slot needs; nothing when it is as it was."""
    server = f"{backend_name(pool.service, pool.group)}/{server_name(index)}"
    who = f"{pool.service}/{new.endpoint or old.endpoint}"
    weight, old_weight = server_weight(pool, new), server_weight(old_pool, old)
    if new.endpoint is None or new.address is None:
        if old.endpoint is not None:
            yield Command(f"set server {server} state maint", _DONE, f"{who} leaves {server}")
    elif old.endpoint is None:
        sentence = f"{who} at {new.address} takes {server}"
        yield Command(f"set server {server} state maint", _DONE, sentence)
        # what the former tenant left in flight would keep its connection in use, and lead requests to it
        yield Command(f"shutdown sessions server {server}", _DONE, sentence)
        yield Command(f"set server {server} addr {new.address.host} port {new.address.port}", _ADDRESS_SET, sentence)
        yield Command(f"set server {server} weight {weight}", _DONE, sentence)
        yield Command(f"set maxconn server {server} {new.maxconn}", _DONE, sentence)
        if new.admin is not Admin.MAINT:
            yield Command(_admin_line(server, Admin.MAINT, new.admin), _DONE, sentence)
    else:
        if weight != old_weight:
            sentence = (
                f"{who}: weight {old.weight} becomes {new.weight}"
                if old.weight != new.weight
                else f"{who}: weight {new.weight} now weighs {weight} in HAProxy, since another's changed"
            )
            yield Command(f"set server {server} weight {weight}", _DONE, sentence)
        if old.maxconn != new.maxconn:
            sentence = f"{who}: at most {new.maxconn or 'any number of'} connections"
            yield Command(f"set maxconn server {server} {new.maxconn}", _DONE, sentence)
        if old.admin is not new.admin:
            sentence = f"{who}: {old.admin} becomes {new.admin}"
            yield Command(_admin_line(server, old.admin, new.admin), _DONE, sentence)


def _admin_line(server: str, old: Admin, new: Admin) -> str:
    """The line that sets the state. Out of maintenance a server is down until its checks say otherwise.

    HAProxy would count it up at once and send it traffic before the first check.
    """
    if old is Admin.MAINT and new is Admin.READY:
        return f"set server {server} state ready; set server {server} health down"
    return f"set server {server} state {new}"
