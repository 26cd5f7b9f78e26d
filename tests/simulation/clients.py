"""Those who write: through the routers, and straight at any node, as a client with an old address does."""

from functools import partial
from typing import TYPE_CHECKING

from tests.simulation.agents import Router, Site

if TYPE_CHECKING:
    from tests.simulation.world import World

DIRECT_SHARE = 0.3
RESTS_S = 40.0
BURST_EVERY_S = 0.05
MOST_IN_BURST = 200


class Clients:
    """Write for ever, each write numbered. Clients reach every host: they may sit on either side of a cut."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._random = world.random
        self._number = 0
        self._left = 50
        """How many writes are left in this burst."""
        self.routed_s = dict.fromkeys(world.routers, 0.0)
        """When a write through each router was last acknowledged."""
        self._next()

    def burst(self, for_s: float, site: Site | None = None) -> None:
        """Write much for a while; straight at one node, if it is named."""
        for number in range(min(MOST_IN_BURST, int(for_s / BURST_EVERY_S))):
            self._world.scheduler.later(number * BURST_EVERY_S, self._one, site)

    def _next(self) -> None:
        """Writes come in bursts, with rests between them in which nothing changes."""
        self._left -= 1
        if self._left > 0:
            wait_s = self._world.plan.write_every_s * (0.5 + self._random.random())
        else:
            self._left = self._random.randint(5, 30)
            wait_s = RESTS_S * self._random.random()
        self._world.scheduler.later(wait_s, self._write)

    def _write(self) -> None:
        self._one()
        self._next()

    def _one(self, site: Site | None = None) -> None:
        self._number += 1
        if site is not None:
            self._direct(site, self._number)
        elif self._random.random() < DIRECT_SHARE:
            self._direct(self._random.choice(list(self._world.sites.values())), self._number)
        else:
            routers = list(self._world.routers.values())
            self._routed(self._random.choice(routers), self._number)

    def _direct(self, site: Site, number: int) -> None:
        engine = site.engine
        if engine.process is not None:
            engine.process.do(engine.write, number, None)

    def _routed(self, router: Router, number: int) -> None:
        if router.alive:
            router.do(self._forward, router, number)

    def _forward(self, router: Router, number: int) -> None:
        """The router sends it where its route says, or keeps it waiting; it is not tried again."""
        world, route = self._world, router.route
        if route is None or route.write is None:
            return
        world.checker.routed(router.name, route.epoch, router.known_epoch)
        site = world.sites[route.write]
        world.network.datagram(router.host.name, site.node.host, self._arrive, router, site, number)

    def _arrive(self, router: Router, site: Site, number: int) -> None:
        engine = site.engine
        if engine.process is not None:
            engine.process.do(engine.write, number, partial(self._acknowledged, router.host.name))

    def _acknowledged(self, host: str) -> None:
        self.routed_s[host] = self._world.scheduler.now_s
