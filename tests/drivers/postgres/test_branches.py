"""A log as PostgreSQL writes it, compared with what its own reader says of it."""

import asyncio
import re
from bisect import bisect_right

import pytest
from tests.drivers.postgres.real import PATIENCE_S, Engine

from understudy.drivers.base import DriverFault
from understudy.drivers.postgres import branches, lsn


def test_where_the_last_whole_record_ends(a: Engine) -> None:
    """For any place in the log it is known which record is the last that is there as a whole up to it."""
    start = flushed(a)
    a.rows("CREATE TABLE bulk AS SELECT repeat('x', n % 500) FROM generate_series(1, 5000) n")
    a.rows("SELECT pg_logical_emit_message(true, 'long', repeat('x', 50000))")
    a.rows("INSERT INTO bulk SELECT repeat('x', n % 500) FROM generate_series(1, 5000) n")
    log, end = branches.Log.of(a.data), flushed(a)
    words = (f"--path={log.directory}", f"--start={lsn.text(start)}", f"--end={lsn.text(end)}")
    dump = asyncio.run(a.tools.run("pg_waldump", *words, deadline_s=PATIENCE_S)).out
    ends = [log.record_end(1, lsn.parse(found)) for found in re.findall(r"lsn: ([0-9A-F/]+),", dump)]
    assert len(ends) > 500
    pages = range(-(-ends[0] // log.page_bytes) * log.page_bytes, ends[-1], log.page_bytes)
    for place in sorted({near + more for near in (*ends, *pages) for more in (-8, 0, 8)}):
        if ends[0] <= place <= ends[-1]:
            assert log.whole(1, place) == ends[bisect_right(ends, place) - 1], lsn.text(place)
    a.rows("SELECT pg_switch_wal()", "INSERT INTO bulk VALUES ('more')", "SELECT pg_switch_wal()")
    assert log.whole(1, flushed(a)) == flushed(a), "behind a switch"
    with pytest.raises(DriverFault):
        log.whole(1, start + (1 << 40))


def flushed(engine: Engine) -> int:
    return lsn.parse(engine.value("SELECT pg_current_wal_flush_lsn()"))
