"""What to tell HAProxy so that a cluster's clients go where a route says. Pure: lines, and which sessions must go.

Every order is given whatever the server does at the moment, so a route may be brought into force again and again. No
word on the order of things: router/steering.py.
"""

import re
from collections.abc import Iterator

from understudy.core.cluster_route import Route
from understudy.core.routes import ClusterPorts
from understudy.core.text import Name
from understudy.router.change import Command, silent
from understudy.router.names import last_resort, read_backend, read_frontend, write_backend, write_frontend

_SESSION = re.compile(r"^(0x[0-9a-f]+): .* fe=(\S+) be=\S+ srv=(\S+) ", re.MULTILINE)
_NOWHERE = "<none>"


def leaving(ports: ClusterPorts, node: Name) -> Iterator[Command]:
    """Nothing new for who took writes until now. What is just connecting there is refused, and waits; or it is cut."""
    server = f"{write_backend(ports.cluster)}/{node}"
    yield silent(f"set server {server} state drain", f"{ports.cluster}: {node} gets no new sessions")


def closing(ports: ClusterPorts, route: Route) -> Iterator[Command]:
    """Whoever may not take writes gets nothing new, and its sessions end; who is not read from gets nothing new."""
    for seat in ports.seats:
        node = seat.node
        if node != route.write:
            yield from _close(f"{write_backend(ports.cluster)}/{node}", f"{ports.cluster}: {node} takes no writes")
        if ports.read is None:
            continue
        backend = read_backend(ports.cluster)
        if node != route.write:
            yield from _close(f"{backend}/{last_resort(node)}", f"{ports.cluster}: {node} is no last resort")
        if node not in route.reads:
            yield silent(f"set server {backend}/{node} state maint", f"{ports.cluster}: {node} is not read from")
        if node == route.write:
            # sessions of its time as a standby: when it is the primary no more, nobody would know them for writers
            yield silent(f"shutdown sessions server {backend}/{node}", f"{ports.cluster}: {node} is no standby")


def opening(ports: ClusterPorts, route: Route) -> Iterator[Command]:
    """Whoever is to write and to be read from is let in, at once, whatever checks said before."""
    if route.write is not None and ports.has(route.write):
        yield from _open(
            f"{write_backend(ports.cluster)}/{route.write}", f"{ports.cluster}: {route.write} takes writes"
        )
    if ports.read is None:
        return
    backend = read_backend(ports.cluster)
    if route.write is not None and ports.has(route.write):
        yield from _open(f"{backend}/{last_resort(route.write)}", f"{ports.cluster}: {route.write} is the last resort")
    for node in route.reads:
        if ports.has(node) and node != route.write:
            # a standby that lags is known as such by its agent's word, which stands
            yield silent(f"set server {backend}/{node} state ready", f"{ports.cluster}: {node} is read from")


def stale_sessions(ports: ClusterPorts, route: Route, shown: str) -> list[str]:
    """The sessions of an old worker (its `show sess`) that the route does not allow, or that would wait for ever.

    An old worker takes no orders for its servers, so what it has not connected yet goes too.
    """
    write, read = write_frontend(ports.cluster), read_frontend(ports.cluster)
    return [
        name
        for name, frontend, server in _SESSION.findall(shown)
        if (frontend == write and server != route.write)
        or (frontend == read and (server in (_NOWHERE, route.write) or _is_former_last_resort(server, route)))
    ]


def _is_former_last_resort(server: str, route: Route) -> bool:
    node, _, last = server.partition(".")
    return bool(last) and node != route.write


def _close(server: str, sentence: str) -> Iterator[Command]:
    yield silent(f"set server {server} state maint", sentence)
    yield silent(f"shutdown sessions server {server}", sentence)


def _open(server: str, sentence: str) -> Iterator[Command]:
    yield silent(f"set server {server} state ready", sentence)
    yield silent(f"set server {server} health up", sentence)
