"""The only module that names concrete adapters; it puts the parts together and hands them to the command line."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from understudy.cli.app import main as command_line
from understudy.control.view import Operator
from understudy.core.model import Spec


def main() -> None:
    """Entry point of `understudy`."""
    command_line(open_agent)


@asynccontextmanager
async def open_agent(spec: Spec, state_dir: Path) -> AsyncIterator[Operator]:
    """An agent with its API, running for as long as the block lasts; what it started ends with it."""
    raise NotImplementedError
    yield
