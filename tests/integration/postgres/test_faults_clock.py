"""What happens to a wall clock: one host's is set by an hour, forward or back, for its agent and its engine alike.

The kernel has one wall clock for all; so on that host libfaketime tells agent, guard and PostgreSQL another time.
"""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import pg_hosts
from tests.integration.postgres.trial import LEASE_S, Trial
from tests.ledger import ask
from tests.pg_hosts import NODES, PgHosts, wait_until

from understudy.drivers.postgres import binaries

HOUR_S = 3600
NODE = "a"
LIBRARIES = tuple(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
_POSTGRES = '#!/bin/sh\nexport {environment}\nexec {program} "$@"\n'
_AGENT = 'mount --bind "$1" "$2"; shift 2; export {environment}; exec "$@"'


class Clock:
    """The wall clock of one node's host."""

    def __init__(self, folder: Path) -> None:
        self._offset = folder / "offset"
        self._wrapper, self._program = folder / "wrapper", folder / "postgres"
        self._in_place = binaries.programs() / "postgres"
        shutil.copy(self._in_place, self._program)
        self._wrapper.write_text(_POSTGRES.format(environment=self._environment, program=self._program))
        self._wrapper.chmod(0o755)
        self.set(0)

    def set(self, offset_s: int) -> None:
        """Tell the host a time that is so many seconds off."""
        new = self._offset.with_name("new")
        new.write_text(f"{offset_s:+d}")
        new.chmod(0o644)
        new.replace(self._offset)

    def command(self, host: str, words: list[str]) -> list[str]:
        """How that host's agent is started; a program that is mounted over another is so on this host alone."""
        if host != NODES[NODE]:
            return words
        script = _AGENT.format(environment=self._environment)
        return ["sh", "-c", script, "sh", str(self._wrapper), str(self._in_place), *words]

    @property
    def _environment(self) -> str:
        words = {"LD_PRELOAD": LIBRARIES[0], "FAKETIME_TIMESTAMP_FILE": self._offset, "FAKETIME_CACHE_DURATION": 1}
        words |= {"FAKETIME_DONT_FAKE_MONOTONIC": 1, "DONT_FAKE_MONOTONIC": 1, "FAKETIME_DISABLE_SHM": 1}
        return " ".join(f"{name}={value}" for name, value in words.items())


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Clock:
    """Of the host of NODE."""
    if not LIBRARIES:
        pytest.skip("needs libfaketime: apt-get install faketime")
    folder = tmp_path_factory.mktemp("clock")
    for place in (folder, *folder.parents[:3]):
        place.chmod(0o755)
    return Clock(folder)


@pytest.fixture(scope="module")
def pg(clock: Clock) -> Iterator[PgHosts]:
    """Three nodes in zero_loss, one of them with a clock of its own."""
    if reason := pg_hosts.missing():
        pytest.skip(reason)
    with PgHosts(command=clock.command) as hosts:
        yield hosts


@pytest.mark.parametrize("leads", [True, False])
def test_a_wall_clock_that_is_set_matters_to_nobody(pg: PgHosts, clock: Clock, leads: bool) -> None:
    """An hour forward, back, and back again, on the primary's host or on a standby's: no write fails, none moves."""
    if (pg.primary() == NODE) != leads:
        pg.switchover(NODE if leads else "b")
    with Trial(pg) as trial:
        for offset_s in (HOUR_S, 0, -HOUR_S):
            clock.set(offset_s)
            wait_until(lambda offset_s=offset_s: _off_s(pg, offset_s) < 60, "the host has the other time", 30)
            trial.hold(1.5 * LEASE_S)
        assert (pg.primary(), trial.now()["epoch"]) == (trial.primary, trial.epoch)
    with Trial(pg) as trial:
        pg.kill_postmaster(trial.primary)
        trial.wait_failover()  # to whoever is sooner: the killed one may be up again before a standby is frozen
        clock.set(0)


def _off_s(pg: PgHosts, offset_s: int) -> float:
    """How far agent and engine of the node are from the time that they are told."""
    [[engine]] = ask(pg.conninfo_of(NODE), "SELECT extract(epoch FROM clock_timestamp())")
    agent = pg.ask("status", of=NODES[NODE])["now_wall_s"]
    return max(abs(time.time() + offset_s - float(one)) for one in (engine, agent))
