"""The journal as server-sent events (the text format that a browser's EventSource reads). Nothing else."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress

from pydantic import TypeAdapter

from understudy.control.view import JournalEntry, Operator
from understudy.core.errors import Refused
from understudy.core.events import Entry

HEARTBEAT_S = 15.0
"""How often a quiet stream says that it is alive; a client that has gone is noticed by it."""

_ENTRY = TypeAdapter(JournalEntry)


async def journal_stream(
    operator: Operator, after: int, service: str | None, closing: asyncio.Event
) -> AsyncIterator[str]:
    """Entries numbered above `after` as they come, until the journal ends or `closing` is set."""
    entries = operator.follow(after)
    closed = asyncio.create_task(closing.wait())
    upcoming = asyncio.create_task(_next(entries))
    try:
        while True:
            await asyncio.wait({upcoming, closed}, timeout=HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED)
            if closed.done():
                return
            if not upcoming.done():
                yield ": nothing new\n\n"
                continue
            entry = upcoming.result()
            if entry is None:
                return
            if service is None or entry.event.service == service:
                yield f"id: {entry.number}\ndata: {_ENTRY.dump_json(JournalEntry.of(entry)).decode()}\n\n"
            upcoming = asyncio.create_task(_next(entries))
    except Refused as refusal:
        yield f"event: refused\ndata: {json.dumps({'reason': str(refusal)})}\n\n"
    finally:
        for task in (closed, upcoming):
            task.cancel()
            with suppress(asyncio.CancelledError, Refused):
                await task


async def _next(entries: AsyncIterator[Entry]) -> Entry | None:
    """The next entry; None when there will be none."""
    return await anext(entries, None)
