"""Fixtures of the shell's tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.control.stage import Stage


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    for actor in stage.actors:
        await actor.supervisor.detach()
