"""What every test starts with."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadFileScheduling

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
"""How long an example takes says how busy the machine is."""


@pytest.fixture(autouse=True)
def _fresh_log() -> Iterator[None]:
    """A test that sets up the log would leave it with a stream that is closed when the next one begins."""
    yield
    structlog.reset_defaults()


_CLUSTERS = Path("tests/integration/postgres")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The clusters on test hosts take half of the time, so they begin first."""
    items.sort(key=lambda item: not _is_cluster(item.nodeid))


class _Shares(LoadFileScheduling):
    """What each of the two workers takes at a time: a file; but all clusters, which would be in each other's way."""

    def _split_scope(self, nodeid: str) -> str:
        return str(_CLUSTERS) if _is_cluster(nodeid) else str(super()._split_scope(nodeid))


def _is_cluster(nodeid: str) -> bool:
    return Path(nodeid).is_relative_to(_CLUSTERS)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Shares:
    """Marks of groups do not reach the scheduler: pytest 9.2 makes its ids where xdist 3.8 does not write them."""
    return _Shares(config, log)
