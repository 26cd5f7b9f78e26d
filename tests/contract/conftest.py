"""What makes a PostgreSQL cluster for several of these suites."""

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contract import postgres_bench


@pytest.fixture(scope="session")
def stopped_cluster() -> Iterator[Path]:
    """The data of a PostgreSQL cluster that was stopped in order: making one takes longer than a test."""
    if why := postgres_bench.missing():
        pytest.skip(why)
    directory = Path(tempfile.mkdtemp(prefix="us-", dir="/tmp"))
    try:
        asyncio.run(postgres_bench.make_template(directory))
        yield directory
    finally:
        shutil.rmtree(directory)
