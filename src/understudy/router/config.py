"""The whole desired state as HAProxy configuration: pure text. No file is written here and nothing is asked of HAProxy.

router/change.py decides whether the text or a few runtime commands bring the running proxy there. Why retries, checks
and cuts are tuned as they are: docs/decisions/0004-retries-and-cuts.md.
"""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from understudy.core.memo import Memo
from understudy.core.model import (
    Balance,
    CommandCheck,
    Group,
    GrpcCheck,
    HealthPolicy,
    HttpCheck,
    Kind,
    Retry,
)
from understudy.core.pools import Admin
from understudy.core.routes import Pool, Route, RouterState, Slot
from understudy.router.cluster_config import HOLD_SCRIPT, sections
from understudy.router.grpc_probe import SERVING, health_request
from understudy.router.layout import Layout
from understudy.router.names import EVENT_RING, SHARE_MAP, backend_name, frontend_name, server_name

MAX_WEIGHT = 256
HASH_POINTS = 16
"""Weight of one in the pools that place servers on a ring: HAProxy gives 16 points to each unit of weight, and with 256
points a server the shares differ by a few percent instead of by a third."""

ERROR_LIMIT = 3
"""Consecutive errors of real traffic that call for a check at once."""

RETRIES = 3
HARD_STOP_S = 300
MAX_RELOADS = 10
RING_BYTES = 1_048_576
COMMAND_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SPARE_ADDRESS = "127.0.0.1:1"

CUT_MARGIN_MS = 20

_BALANCE = {
    Balance.ROUND_ROBIN: ("balance roundrobin",),
    Balance.LEAST_CONNECTIONS: ("balance leastconn",),
    Balance.WEIGHTED_LEAST_CONNECTIONS: ("balance leastconn",),
    Balance.SOURCE_HASH: ("balance source", "hash-type consistent sdbm avalanche"),
    Balance.RANDOM_TWO: ("balance random(2)",),
    Balance.FIRST: ("balance first",),
}
_NOT_EXECUTED = "conn-failure"  # anything beyond makes HAProxy keep a copy of each request: 3 µs
_MAYBE_EXECUTED = "empty-response junk-response 500 502 503 504"


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What the configuration has to know of the host it is for."""

    version: tuple[int, int, int]
    """Of HAProxy, such as (2, 6, 12)."""
    user: str | None = None
    """Whom the workers become; None where they stay who started them (not root)."""
    group: str | None = None
    threads: int | None = None
    """Of a worker; None leaves it to HAProxy (one a core)."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """The text of haproxy.cfg, and of the files that it names: maps, and wrappers of command checks (mode 0755)."""

    config: str
    files: tuple[tuple[Path, str], ...]


_rendered = Memo()


def render(state: RouterState, layout: Layout, facts: HostFacts) -> Rendered:
    """The configuration that does what `state` says."""
    pools = [_rendered.get(f"{layout.directory}\0{route.service}", _Sections, route, layout) for route in state.routes]
    wrappers = tuple(
        (command_wrapper(layout, route.primary), _wrapper(check, state.directory))
        for route in state.routes
        if isinstance(check := route.primary.health.check, CommandCheck)
    )
    clusters = [_rendered.get(f"{layout.directory}\0{ports.cluster}", sections, ports) for ports in state.clusters]
    scripts = ((layout.hold_script, HOLD_SCRIPT),) if clusters else ()
    shares = "".join(f"{route.service} {route.backup_share_percent}\n" for route in state.routes if route.backup)
    return Rendered(
        config="\n".join(
            (
                _preamble(layout, facts, external_checks=bool(wrappers), scripts=bool(scripts)),
                *(each.text for each in pools),
                *clusters,
            )
        ),
        files=((layout.maps / SHARE_MAP, shares), *wrappers, *scripts),
    )


def server_weight(pool: Pool, slot: Slot) -> int:
    """The weight that HAProxy is given for the slot (0 to 256)."""
    if pool.balance is Balance.LEAST_CONNECTIONS:
        return min(slot.weight, 1)
    return min(MAX_WEIGHT, slot.weight * _scale(pool))


def seen_weight(pool: Pool, weight: int) -> int:
    """The weight in the spec's terms that HAProxy's `weight` stands for; the inverse of `server_weight`."""
    return -(-weight // _scale(pool))


def cut_after_ms(pool: Pool) -> int | None:
    """How long after a server went down the agent ends what is left on it; None where HAProxy does so itself.

    HAProxy's own way (on-marked-down shutdown-sessions) also ends requests that are just connecting, which it would
    otherwise send elsewhere. So the cut comes when the last of them has given up; those that wait for an answer are
    then retried elsewhere where that is safe. A TCP session must not hang for want of an agent: there HAProxy cuts.
    """
    return pool.timeouts.connect_ms + CUT_MARGIN_MS if pool.kind is Kind.HTTP else None


def command_wrapper(layout: Layout, pool: Pool) -> Path:
    """The script that HAProxy runs for a pool's command check."""
    return layout.checks / f"{pool.service}.sh"


def quote(text: str) -> str:
    """One word of HAProxy's configuration, whatever the text; it must be free of control characters."""
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise ValueError(f"{text!r} has a control character, which no HAProxy configuration may hold")
    return "'" + text.replace("'", "'\\''") + "'"


class _Sections:
    """The text of one service's sections."""

    __slots__ = ("text",)

    def __init__(self, route: Route, layout: Layout) -> None:
        lines = [*_frontend(route, layout)]
        for pool in _pools(route):
            lines += _backend(pool, layout)
        self.text = "\n".join((*lines, ""))


def _pools(route: Route) -> tuple[Pool, ...]:
    return (route.primary, route.backup) if route.backup else (route.primary,)


def _scale(pool: Pool) -> int:
    if pool.balance not in (Balance.SOURCE_HASH, Balance.RANDOM_TWO):
        return 1
    largest = max((slot.weight for slot in pool.slots), default=1)
    return max(1, min(HASH_POINTS, MAX_WEIGHT // max(largest, 1)))


def _preamble(layout: Layout, facts: HostFacts, *, external_checks: bool, scripts: bool) -> str:
    lines = [
        "# Written by understudy; changes made here are lost.",
        "global",
        "  master-worker",
        f"  mworker-max-reloads {MAX_RELOADS}",
        f"  hard-stop-after {HARD_STOP_S}s",
        f"  stats socket {quote(str(layout.admin_socket))} mode 600 level admin expose-fd listeners",
        "  stats timeout 30s",
        "  stats maxconn 20",
        f"  server-state-file {quote(str(layout.server_state))}",
    ]
    lines += [f"  user {quote(facts.user)}"] if facts.user else []
    lines += [f"  group {quote(facts.group)}"] if facts.group else []
    lines += [f"  nbthread {facts.threads}"] if facts.threads else []
    lines += ["  external-check", "  insecure-fork-wanted"] if external_checks else []
    lines += [f"  lua-load-per-thread {quote(str(layout.hold_script))}"] if scripts else []
    return "\n".join(
        (
            *lines,
            "",
            f"ring {EVENT_RING}",
            "  format raw",
            "  maxlen 1200",
            f"  size {RING_BYTES}",
            "",
            "defaults",
            "  load-server-state-from-file global",
            "  option redispatch 1",
            "  option log-health-checks",
            f"  retries {RETRIES}",
            "",
        )
    )


def _frontend(route: Route, layout: Layout) -> Iterator[str]:
    primary = backend_name(route.service, Group.PRIMARY)
    yield f"frontend {frontend_name(route.service)}"
    yield f"  mode {route.kind}"
    yield f"  bind {route.listen}"
    yield f"  timeout client {route.primary.timeouts.client_ms}ms"
    if route.kind is Kind.HTTP:
        yield "  option idle-close-on-response"
    if route.maxconn:
        yield f"  maxconn {route.maxconn}"
    if route.backup:
        yield from _choice_of_group(route, primary, backend_name(route.service, Group.BACKUP), layout)
    yield f"  default_backend {primary}"


def _choice_of_group(route: Route, primary: str, backup: str, layout: Layout) -> Iterator[str]:
    """Which group a request goes to. Clients with a cookie stay in their group while it has any share."""
    rules = "http-request" if route.kind is Kind.HTTP else "tcp-request content"
    # quoted twice: the arguments of a converter are parsed again, with the same rules
    share = quote(f"str({route.service}),map_str_int({quote(str(layout.maps / SHARE_MAP))},0)")
    yield f"  {rules} set-var(txn.share) {share}"
    usable = f"{{ nbsrv({backup}) gt 0 }}"
    if route.automatic:
        yield f"  use_backend {backup} if {{ nbsrv({primary}) eq 0 }}"
    if route.primary.affinity and route.kind is Kind.HTTP:
        cookie = route.primary.affinity.cookie
        yield f"  use_backend {backup} if {{ req.cook({cookie}) -m beg b }} {{ var(txn.share) -m int gt 0 }} {usable}"
        yield (
            f"  use_backend {primary} if {{ req.cook({cookie}) -m beg p }} {{ var(txn.share) -m int lt 100 }}"
            f" {{ nbsrv({primary}) gt 0 }}"
        )
    yield f"  use_backend {backup} if {{ rand(100),sub(txn.share) -m int lt 0 }} {usable}"


def _backend(pool: Pool, layout: Layout) -> Iterator[str]:
    http = pool.kind is Kind.HTTP
    timeouts = pool.timeouts
    yield f"backend {backend_name(pool.service, pool.group)}"
    yield f"  mode {pool.kind}"
    yield f"  log ring@{EVENT_RING} format raw local0"
    yield from (f"  {line}" for line in _BALANCE[pool.balance])
    yield f"  timeout connect {timeouts.connect_ms}ms"
    yield f"  timeout server {timeouts.server_ms}ms"
    yield f"  timeout queue {timeouts.queue_ms}ms"
    yield f"  timeout check {pool.health.timeout_ms}ms"
    if http:
        yield from (f"  {line}" for line in _retries(pool.retry))
    if http and pool.affinity:
        yield f"  cookie {pool.affinity.cookie} insert indirect nocache httponly"
    yield from (f"  {line}" for line in _check(pool, layout))
    yield f"  default-server {_default_server(pool)}"
    for index, slot in enumerate(pool.slots):
        yield f"  server {server_name(index)} {_server(pool, index, slot)}"


def _retries(retry: Retry) -> Iterator[str]:
    if retry is Retry.NEVER:
        yield f"retry-on {_NOT_EXECUTED}"
        return
    yield f"retry-on {_NOT_EXECUTED} {_MAYBE_EXECUTED}"
    if retry is Retry.SAFE:
        yield "http-request disable-l7-retry unless { method GET HEAD OPTIONS }"


def _default_server(pool: Pool) -> str:
    health = pool.health
    words = [
        f"check inter {health.interval_ms}ms fastinter {fast_interval_ms(health)}ms downinter {health.interval_ms}ms",
        f"fall {health.fall} rise {health.rise}",
    ]
    if health.passive:
        # on-error mark-down would end the very request that met the error; a check at once is as good and loses none
        layer = "layer7" if pool.kind is Kind.HTTP else "layer4"
        words.append(f"observe {layer} error-limit {ERROR_LIMIT} on-error fastinter")
    if cut_after_ms(pool) is None:
        words.append("on-marked-down shutdown-sessions")
    if health.slow_start_ms:
        words.append(f"slowstart {health.slow_start_ms}ms")
    if health.agent:
        words.append(f"agent-check agent-port {health.agent.port} agent-inter {health.agent.interval_ms}ms")
    if isinstance(health.check, GrpcCheck) and pool.kind is Kind.HTTP:
        words.append("proto h2")
    return " ".join(words)


def fast_interval_ms(health: HealthPolicy) -> int:
    """How soon a check follows one whose outcome was new."""
    return max(health.interval_ms // 8, 10)


def _server(pool: Pool, index: int, slot: Slot) -> str:
    words = [str(slot.address or SPARE_ADDRESS), f"weight {server_weight(pool, slot)}"]
    if slot.maxconn:
        words.append(f"maxconn {slot.maxconn}")
    if pool.affinity and pool.kind is Kind.HTTP:
        words.append(f"cookie {pool.group[0]}{index + 1}")
    if slot.admin is Admin.MAINT:
        words.append("disabled")
    return " ".join(words)


def _check(pool: Pool, layout: Layout) -> Iterator[str]:
    check = pool.health.check
    if isinstance(check, HttpCheck):
        host = check.host or "localhost"
        yield "option httpchk"
        yield (
            f"http-check send meth {check.method} uri {quote(check.path)} ver HTTP/1.1"
            f" hdr Host {quote(host)} hdr User-Agent understudy hdr Connection close"
        )
        ranges = ",".join(str(first) if first == last else f"{first}-{last}" for first, last in check.expect)
        yield f"http-check expect status {ranges}"
        if check.body:
            yield f"http-check expect string {quote(check.body)}"
    elif isinstance(check, GrpcCheck):
        yield "option tcp-check"
        yield "tcp-check connect"
        yield f"tcp-check send-binary {health_request(check.service).hex()}"
        yield f"tcp-check expect binary {SERVING.hex()}"
    elif isinstance(check, CommandCheck):
        yield "option external-check"
        yield f"external-check command {quote(str(command_wrapper(layout, pool)))}"


def _wrapper(check: CommandCheck, directory: str) -> str:
    return (
        "#!/bin/sh\n"
        "# HAProxy's external check: $3 and $4 are the endpoint's address and port.\n"
        f"cd {shlex.quote(directory)} || exit 1\n"
        f'export PATH={COMMAND_PATH} ADDRESS="$3" PORT="$4"\n'
        f"exec {shlex.join(check.argv)}\n"
    )
