"""What HAProxy's counters amount to: `show stat` read leanly, and counts that never fall. No I/O; a Tally keeps sums.

Each worker counts from zero, and a slot counts on when another endpoint takes it. So what is added up is the rise since
the last look, worker by worker, for the endpoint that was in the slot.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Self

from understudy.core.memo import Memo
from understudy.core.model import Kind
from understudy.core.pools import Admin, Counters, EndpointSeen, Oper, PoolSeen
from understudy.core.routes import Pool, Route, RouterState, Slot
from understudy.core.text import Name
from understudy.router.config import seen_weight
from understudy.router.names import backend_name, server_name
from understudy.router.servers import Key, Known

# The columns of `show stat` that we look at, by the numbers that HAProxy's manual fixes, and where they stand in a Row.
_PICKED = (0, 1, 2, 4, 7, 8, 9, 13, 14, 15, 17, 18, 22, 23, 29, 37, 38, 43, 48, 56, 57, 62, 65, 66, 73)
(PROXY, SERVER, QUEUED, SESSIONS, TOTAL, BYTES_IN, BYTES_OUT) = range(7)
(ERR_CONNECT, ERR_RESPONSE, RETRIES, STATUS, WEIGHT, DOWNS, SINCE) = range(7, 14)
(THROTTLE, CHECK_CODE, CHECK_MS, HTTP_5XX, REQUESTS) = range(14, 19)
(CHECK_INFO, AGENT_INFO, AGENT_STATUS, CHECK_TEXT, AGENT_TEXT, ADDRESS) = range(19, 25)
_DOWNS_SUM = 5
_server_counts = itemgetter(TOTAL, ERR_CONNECT, ERR_RESPONSE, HTTP_5XX, RETRIES, BYTES_IN, BYTES_OUT, DOWNS)
_request_counts = itemgetter(REQUESTS, HTTP_5XX)
_LAST = _PICKED[-1]
_pick = itemgetter(*_PICKED)

_UNANSWERED = ("SOCKERR", "L4TOUT", "L4CON", "L6TOUT", "L6RSP", "L7TOUT")
"""What HAProxy writes of an agent that it could not ask."""

Row = Sequence[str]
Counts = tuple[str, ...]
"""What a server had counted, as HAProxy writes it: where it is the same as before, no numbers need be made of it."""


def rows(lines: Iterable[str]) -> Iterator[Row]:
    """The rows of `show stat`, each cut down to what we look at."""
    for line in lines:
        if not line or line.startswith("#"):
            continue
        # Quotes are rare (a server's own words in a check's answer), and only then is the slow reader needed.
        row = next(csv.reader([line])) if '"' in line else line.split(",", _LAST + 1)
        if len(row) > _LAST:
            yield _pick(row)


@dataclass(slots=True)
class WorkerCounts:
    """One worker: which endpoint sits behind each of its servers, and what it had counted when we last looked."""

    pid: int
    endpoints: dict[Key, tuple[Name, Name]]
    """(service, endpoint) by (backend, server)."""
    unsure: set[Key] = field(default_factory=set)
    """Servers that came into use without our knowing what they had counted for an endpoint before."""
    state: RouterState | None = None
    routes: dict[Name, Route] = field(default_factory=dict)
    """What `endpoints` was made of, as a whole and by service."""
    last: dict[Key, Counts] = field(default_factory=dict)
    forgiven: set[Key] = field(default_factory=set)
    """Servers whose latest mark-downs are our orders' doing: HAProxy counts maintenance, and the return from it."""

    @classmethod
    def of(cls, pid: int, state: RouterState) -> Self:
        """A worker that does what `state` says, nothing counted yet."""
        worker = cls(pid, {})
        worker.now_does(state)
        worker.unsure.clear()
        return worker

    def now_does(self, state: RouterState) -> None:
        """Bring the map up to a state; what is the same route as before costs nothing."""
        if self.state is state:
            return
        self.state = state
        for route in state.routes:
            former = self.routes.get(route.service)
            if former is not route:
                before, now = occupants(former) if former else {}, occupants(route)
                for key in before:
                    self.endpoints.pop(key, None)
                self.endpoints.update(now)
                self.unsure.update(key for key in now if key not in before and key not in self.last)
                self.routes[route.service] = route


@dataclass(slots=True)
class Tally:
    """Sums over all workers there have been."""

    endpoints: dict[tuple[Name, Name], list[int]] = field(default_factory=dict)
    """requests, errors, retries, bytes in, bytes out, downs."""
    services: dict[str, list[int]] = field(default_factory=dict)
    """requests, failed requests."""
    _counters: dict[tuple[Name, Name], Counters] = field(default_factory=dict)
    """The sums of endpoints as they were last asked for; those that have risen since are left out."""

    def count(self, worker: WorkerCounts, row: Row, kinds: Mapping[str, Kind]) -> None:
        """Add what a row has risen by since the last look at that worker."""
        proxy, server = row[PROXY], row[SERVER]
        if server == "FRONTEND":
            kind = kinds.get(proxy)
            if kind is Kind.HTTP:
                _rise(worker, (proxy, server), _request_counts(row), self._service(proxy))
            elif kind is Kind.TCP:
                _rise(worker, (proxy, server), (row[TOTAL], ""), self._service(proxy))
        elif server == "BACKEND":
            service = proxy.partition(".")[0]
            if kinds.get(service) is Kind.TCP:
                _rise(worker, (proxy, server), ("", row[ERR_CONNECT]), self._service(service))
        elif (endpoint := worker.endpoints.get((proxy, server))) is not None:
            self._count_server(worker, row, endpoint)

    def _count_server(self, worker: WorkerCounts, row: Row, endpoint: tuple[Name, Name]) -> None:
        key, counts = (row[PROXY], row[SERVER]), _server_counts(row)
        last = worker.last.get(key)
        if counts == last:
            return
        if key in worker.unsure:
            worker.unsure.discard(key)
            worker.last[key] = counts
            return
        sums = self.endpoints.setdefault(endpoint, [0] * 6)
        downs = sums[_DOWNS_SUM]
        _rise(worker, key, counts, sums, _server_sums)
        if last is None or key in worker.forgiven:
            sums[_DOWNS_SUM] = downs
        self._counters.pop(endpoint, None)

    def counters(self, endpoint: tuple[Name, Name]) -> Counters:
        """The sums of one endpoint; the same object for as long as they are the same."""
        found = self._counters.get(endpoint)
        if found is None:
            found = self._counters[endpoint] = Counters(*self.endpoints.get(endpoint, ()))
        return found

    def _service(self, service: str) -> list[int]:
        return self.services.setdefault(service, [0, 0])

    def keep(self, state: RouterState) -> None:
        """Forget endpoints and services that are no more."""
        wanted = {occupant for route in state.routes for occupant in occupants(route).values()}
        services = {str(route.service) for route in state.routes}
        self.endpoints = {key: sums for key, sums in self.endpoints.items() if key in wanted}
        self._counters = {}
        _occupants_of.forget_others(services)
        self.services = {key: sums for key, sums in self.services.items() if key in services}


def _rise(
    worker: WorkerCounts,
    key: Key,
    counts: Counts,
    sums: list[int],
    amounts: Callable[[Counts], tuple[int, ...]] = lambda counts: tuple(map(_int, counts)),
) -> None:
    """Add to the sums what the counts have risen by since the worker was last looked at."""
    last = worker.last.get(key)
    if counts == last:
        return
    worker.last[key] = counts
    now = amounts(counts)
    for index, (value, before) in enumerate(zip(now, amounts(last) if last else [0] * len(now), strict=True)):
        sums[index] += value - before if value >= before else value  # lower: a person cleared the counters


def _server_sums(counts: Counts) -> tuple[int, ...]:
    """What a Tally sums up of a server."""
    total, err_connect, err_response, http_5xx, retries, bytes_in, bytes_out, downs = map(_int, counts)
    # an attempt that was retried elsewhere is counted as a retry of this server and as nothing else
    return total, err_connect + err_response + http_5xx + retries, retries, bytes_in, bytes_out, downs


_occupants_of = Memo()


def occupants(route: Route) -> Mapping[Key, tuple[Name, Name]]:
    """(service, endpoint) by (backend, server)."""
    return _occupants_of.get(route.service, _occupants, route)


def _occupants(route: Route) -> Mapping[Key, tuple[Name, Name]]:
    return {
        (backend_name(pool.service, pool.group), server_name(index)): (pool.service, slot.endpoint)
        for pool in pools(route)
        for index, slot in enumerate(pool.slots)
        if slot.endpoint is not None
    }


def pools(route: Route) -> Iterator[Pool]:
    """The pools of a service, primary first."""
    yield route.primary
    if route.backup is not None:
        yield route.backup


def known(row: Row) -> Known:
    """What a row says of a server's health."""
    return Known(row[ADDRESS], not row[STATUS].startswith(("DOWN", "MAINT")), max(0, _int(row[SINCE])))


def pool_seen(
    route: Route,
    servers: Mapping[Key, Row],
    frontend: Row | None,
    tally: Tally,
    elsewhere: Mapping[tuple[Name, Name], int],
) -> PoolSeen:
    """What is reported of one service; `elsewhere` counts sessions in old workers."""
    endpoints = []
    for pool in pools(route):
        backend = backend_name(pool.service, pool.group)
        for index, slot in enumerate(pool.slots):
            if slot.endpoint is not None:
                row = servers.get((backend, server_name(index)))
                key = (route.service, slot.endpoint)
                counters, here = tally.counters(key), elsewhere.get(key, 0)
                endpoints.append(_endpoint_seen(pool, slot, slot.endpoint, row, counters=counters, elsewhere=here))
    requests, failed = tally.services.get(route.service, (0, 0))
    sessions = (_int(frontend[SESSIONS]) if frontend else 0) + sum(
        count for (service, _), count in elsewhere.items() if service == route.service
    )
    return PoolSeen(tuple(endpoints), sessions, requests, failed)


def _endpoint_seen(
    pool: Pool, slot: Slot, endpoint: Name, row: Row | None, *, counters: Counters, elsewhere: int
) -> EndpointSeen:
    if row is None:
        oper = Oper.MAINT if slot.admin is Admin.MAINT else Oper.UNKNOWN
        return EndpointSeen(endpoint, pool.group, oper, 0, elsewhere, 0, "", 0.0, counters)
    return EndpointSeen(
        endpoint=endpoint,
        group=pool.group,
        oper=_oper(row),
        weight=seen_weight(pool, _int(row[WEIGHT])),
        sessions=_int(row[SESSIONS]) + elsewhere,
        queued=_int(row[QUEUED]),
        check=_outcome(row[CHECK_TEXT], row[CHECK_CODE], row[CHECK_INFO], row[CHECK_MS]),
        since_s=float(max(0, _int(row[SINCE]))),
        counters=counters,
        agent=_outcome(row[AGENT_TEXT], "", row[AGENT_INFO], "") if pool.health.agent else None,
        agent_lost=pool.health.agent is not None and row[AGENT_STATUS].removeprefix("* ") in _UNANSWERED,
    )


def _oper(row: Row) -> Oper:
    status = row[STATUS].partition(" ")[0]
    if status in ("UP", "no"):
        return Oper.STARTING if row[THROTTLE] not in ("", "100") else Oper.UP
    return {"DOWN": Oper.DOWN, "MAINT": Oper.MAINT, "DRAIN": Oper.DRAIN, "NOLB": Oper.DRAIN}.get(status, Oper.UNKNOWN)


def _outcome(text: str, code: str, info: str, took_ms: str) -> str:
    said = " ".join(part for part in (text, f"({code})" if code else "") if part)
    return ", ".join(part for part in (said, info, f"{took_ms} ms" if took_ms else "") if part)


def _int(text: str) -> int:
    return int(text) if text else 0
