"""The test hosts with a three-node PostgreSQL of the fault tests: one cluster for all faults of a file."""

from collections.abc import Iterator

import pytest
from tests import pg_hosts
from tests.pg_hosts import PgHosts


@pytest.fixture(scope="module")
def pg() -> Iterator[PgHosts]:
    """Three nodes in zero_loss, steady at the beginning; each fault leaves them steady again (trial.py sees to it)."""
    if reason := pg_hosts.missing():
        pytest.skip(reason)
    with PgHosts() as hosts:
        yield hosts
