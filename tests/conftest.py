"""What every test starts with."""

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def _fresh_log() -> Iterator[None]:
    """A test that sets up the log would leave it with a stream that is closed when the next one begins."""
    yield
    structlog.reset_defaults()
