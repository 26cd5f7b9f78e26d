"""The test hosts with a three-node PostgreSQL of the fault tests: one cluster for all faults of a file."""

from collections.abc import Iterator

import pytest
from tests import pg_hosts
from tests.pg_hosts import PgHosts

PATIENCE_S = 30.0


class _Kept:
    """The hosts, as long as each test leaves them in order; after one that does not, new ones."""

    def __init__(self) -> None:
        self._hosts: PgHosts | None = None

    def steady(self) -> PgHosts:
        if self._hosts is not None:
            try:
                self._hosts.wait_steady(PATIENCE_S)
            except TimeoutError:
                self.close()
        if self._hosts is None:
            self._hosts = PgHosts().__enter__()
        return self._hosts

    def close(self) -> None:
        hosts, self._hosts = self._hosts, None
        if hosts is not None:
            hosts.close()


@pytest.fixture(scope="module")
def kept_hosts() -> Iterator[_Kept]:
    """For `pg`."""
    if reason := pg_hosts.missing():
        pytest.skip(reason)
    kept = _Kept()
    yield kept
    kept.close()


@pytest.fixture
def pg(kept_hosts: _Kept) -> PgHosts:
    """Three nodes in zero_loss, steady at the beginning; each fault leaves them steady again (trial.py sees to it)."""
    return kept_hosts.steady()
