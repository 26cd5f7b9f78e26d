"""A short run of random faults; `make soak` runs it for an hour."""

import os
import secrets
import sys

import pytest
from tests import pg_hosts
from tests.integration.postgres.soak import DISK_MIB, soak
from tests.pg_hosts import PgHosts

MINUTES = float(os.environ.get("SOAK_MINUTES", "3"))


def test_random_faults_lose_nothing() -> None:
    """Whatever strikes, one or two at a time: clients write again, and nothing acknowledged is missing."""
    if reason := pg_hosts.missing():
        pytest.skip(reason)
    with PgHosts(disk_mib=DISK_MIB) as pg:
        tally = soak(pg, MINUTES, secrets.randbelow(10**6), lambda line: sys.stdout.write(f"{line}\n"))
        assert not tally.failure, f"{tally}\n{pg.said()}"
    sys.stdout.write(f"{tally}\n")
