"""Counters and states read from `show stat`: what is counted once, what is not counted, and odd text."""

from tests.routing import Backend, desired, service

from understudy.core.model import Kind
from understudy.core.pools import Oper
from understudy.core.text import Name
from understudy.router import seen

WEB, W1 = Name("web"), Name("w1")
SERVICE = service("web", 80, [Backend("w1", 9001), Backend("w2", 9002)])
KINDS = {"web": Kind.HTTP}


def line(server: str = "s1", **fields: str) -> str:
    """A row of `show stat` with these columns set."""
    columns = {"proxy": 0, "server": 1, "total": 7, "econ": 13, "status": 17, "downs": 22, "since": 23, "info": 56}
    values = [""] * 100
    for name, value in ({"proxy": "web.primary", "server": server, "status": "UP", "since": "3"} | fields).items():
        values[columns[name]] = value
    return ",".join(values)


def look(tally: seen.Tally, worker: seen.WorkerCounts, *lines: str) -> list[int]:
    """The sums of web/w1 after one look."""
    for row in seen.rows(["# pxname,svname", "", *lines]):
        tally.count(worker, row, KINDS)
    return tally.endpoints.get((WEB, W1), [])


def test_sums_rise_over_workers_and_never_fall():
    """A new worker that counts from zero, an old one that counts on, and counters cleared by hand all only add."""
    tally, state = seen.Tally(), desired(SERVICE)
    old, new = seen.WorkerCounts.of(1, state), seen.WorkerCounts.of(2, state)
    assert look(tally, old, line(total="10", econ="1"))[:2] == [10, 1]
    assert look(tally, new, line(total="4"))[:2] == [14, 1]
    assert look(tally, old, line(total="12", econ="1"))[:2] == [16, 1]
    assert look(tally, new, line(total="4"))[:2] == [16, 1]
    assert look(tally, new, line(total="1"))[:2] == [17, 1]


def test_an_endpoint_is_not_charged_with_its_predecessors_counts():
    """A slot counts on when its tenant changes; the new tenant begins where it found it."""
    tally, records = seen.Tally(), {}
    worker = seen.WorkerCounts.of(1, desired(SERVICE, records=records))
    more = service("web", 80, [Backend("w1", 9001), Backend("w2", 9002), Backend("w3", 9003)])
    worker.now_does(desired(more, records=records))
    look(tally, worker, line("s3", total="100", econ="50"))
    look(tally, worker, line("s3", total="103", econ="50"))
    assert tally.endpoints[WEB, Name("w3")][:2] == [3, 0]


def test_mark_downs_by_our_own_orders_are_not_counted():
    """What a new worker or an order of ours marked down is left out, a later one counts."""
    tally, worker = seen.Tally(), seen.WorkerCounts.of(1, desired(SERVICE))
    assert look(tally, worker, line(downs="1"))[5] == 0
    worker.forgiven.add(("web.primary", "s1"))
    assert look(tally, worker, line(downs="3"))[5] == 0
    worker.forgiven.clear()
    assert look(tally, worker, line(downs="4"))[5] == 1


def test_a_servers_own_words_cannot_shift_the_columns():
    """Commas and quotes in a check's answer stay in their column; spares and strangers are passed over."""
    state = desired(SERVICE)
    odd = line("s1", info='"no, I ""cannot"", 5"', status="DOWN 1/2")
    rows = {(row[seen.PROXY], row[seen.SERVER]): row for row in seen.rows([odd, line("s2"), line("s9"), "short,row"])}
    pool = seen.pool_seen(state.routes[0], rows, None, seen.Tally(), {})
    assert [(one.endpoint, one.oper) for one in pool.endpoints] == [("w1", Oper.DOWN), ("w2", Oper.UP)]
    assert pool.endpoints[0].check == 'no, I "cannot", 5'
