"""Listening to the router: what it says wakes the loop, and what it says of itself goes into the journal."""

import asyncio
from collections.abc import Callable

import structlog

from understudy.core.errors import Fault
from understudy.core.events import Event
from understudy.router.base import Router

AGAIN_S = 1.0


async def follow_router(router: Router, wake: Callable[[], None], publish: Callable[[Event], None]) -> None:
    """For ever. News of a server only wakes: looking tells more than the news does."""
    while True:
        try:
            async for event in router.events():
                if event.service is None:
                    publish(Event(event.kind, event.text))
                wake()
        except Fault as fault:
            structlog.get_logger().warning(str(fault))
        await asyncio.sleep(AGAIN_S)
