"""Sessions with a real engine: nobody waits for an answer that will not come."""

import asyncio

import pytest
from tests.drivers.postgres.real import PATIENCE_S, Engine

from understudy.drivers.postgres.client import Session, SqlFault


async def test_who_waits_is_told_of_the_end(a: Engine) -> None:
    """A session that is ended while an answer is awaited (an engine is stopped, a look goes on) ends the wait."""
    session = await Session.open(a.conninfo)
    waiting = asyncio.create_task(session.ask("SELECT pg_sleep(1000)"))
    await asyncio.sleep(0.1)
    session.close()
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(SqlFault, match="was ended"):
            await waiting
    other = await Session.open(a.conninfo)
    assert await other.ask("SELECT 1") == [("1",)], "its successor may have the same descriptor"
    other.close()
