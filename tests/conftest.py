"""What every test starts with."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog


@pytest.fixture(autouse=True)
def _fresh_log() -> Iterator[None]:
    """A test that sets up the log would leave it with a stream that is closed when the next one begins."""
    yield
    structlog.reset_defaults()


_CLUSTERS = Path(__file__).parent / "integration" / "postgres"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is shared out between the two workers: all clusters on test hosts, one after the other, and other files.

    They take half of the time, so they begin first; two of them at once would be in each other's way.
    """
    items.sort(key=lambda item: _CLUSTERS not in item.path.parents)
    for item in items:
        group = "clusters" if _CLUSTERS in item.path.parents else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
