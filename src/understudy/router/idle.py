"""The router of a host that runs none: fulfils the port `Router` by doing nothing. No HAProxy here."""

import asyncio
from collections.abc import AsyncIterator

from understudy.core.cluster_route import Route
from understudy.core.routes import RouterState
from understudy.core.text import Name
from understudy.router.base import Change, RouterEvent, RouterSeen

NOTHING = Change((), ())


class IdleRouter:
    """Nothing is sent anywhere from this host."""

    async def start(self, desired: RouterState) -> bool:
        """There is nothing to adopt or start."""
        del desired
        return False

    def plan(self, desired: RouterState) -> Change:
        """Nothing would be done."""
        del desired
        return NOTHING

    async def apply(self, desired: RouterState) -> Change:
        """Nothing is done."""
        del desired
        return NOTHING

    async def observe(self) -> RouterSeen:
        """Nothing is seen."""
        return RouterSeen({}, 0, 0)

    async def events(self) -> AsyncIterator[RouterEvent]:
        """Nothing ever happens."""
        await asyncio.get_running_loop().create_future()
        yield RouterEvent(None, None, "")

    async def cut(self, service: Name, endpoint: Name) -> int:
        """There are no sessions."""
        del service, endpoint
        return 0

    async def sessions(self, service: Name, endpoint: Name) -> int:
        """There are none."""
        del service, endpoint
        return 0

    async def follow(self, cluster: Name, route: Route) -> None:
        """Nothing leads anywhere from here."""

    async def stop(self) -> None:
        """There is nothing to end."""

    async def detach(self) -> None:
        """There is nothing to let go of."""
