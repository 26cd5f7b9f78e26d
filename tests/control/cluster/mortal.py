"""Death at any effect: wraps what an agent acts through, counts, and kills the agent before or after the one chosen."""

import asyncio
from collections.abc import Sequence

from understudy.control.cluster.ports import NodeFacts
from understudy.core.actions import Action
from understudy.core.text import Name
from understudy.drivers.base import Driver, Observation
from understudy.store.base import Delete, Expect, Outcome, Put


class Doom:
    """Counts the moments before and after each effect; at the chosen one the agent that acts dies."""

    def __init__(self, stage, at: int) -> None:
        self.stage = stage
        self.at = at
        self.counted = 0
        self.armed = False
        self.struck = ""

    async def touch(self, host: Name, what: str) -> None:
        if not self.armed or not self.stage.agents[host].alive:
            return
        self.counted += 1
        if self.counted != self.at:
            return
        self.struck = f"{host} {what}"
        self.stage.agents[host].die()
        asyncio.get_running_loop().call_later(0.3, self.stage.start, host)
        await asyncio.sleep(3600)  # the cancellation of a dead agent's work comes here


class MortalStore:
    """The store, as one agent reaches it."""

    def __init__(self, doom: Doom, host: Name) -> None:
        self._doom = doom
        self._host = host
        self._store = doom.stage.store
        self.get = self._store.get
        self.list = self._store.list
        self.watch = self._store.watch
        self.close = self._store.close

    @property
    def incarnation(self) -> str:
        """The store's own."""
        return self._store.incarnation

    async def transact(self, expects: Sequence[Expect], changes: Sequence[Put | Delete]) -> Outcome:
        what = ", ".join(change.key for change in changes)
        await self._doom.touch(self._host, f"before storing {what}")
        outcome = await self._store.transact(expects, changes)
        await self._doom.touch(self._host, f"after storing {what}")
        return outcome


class MortalDisk:
    """A node's disk, as its agent reaches it."""

    def __init__(self, doom: Doom, host: Name, disk) -> None:
        self._doom = doom
        self._host = host
        self._disk = disk
        self.load = disk.load

    async def save(self, facts: NodeFacts) -> None:
        await self._doom.touch(self._host, "before saving facts")
        await self._disk.save(facts)
        await self._doom.touch(self._host, "after saving facts")


class MortalDriver:
    """A node's driver, as its agent reaches it."""

    def __init__(self, doom: Doom, host: Name, driver: Driver) -> None:
        self._doom = doom
        self._host = host
        self._driver = driver
        self.capabilities = driver.capabilities
        self.listen = driver.listen

    async def observe(self) -> Observation:
        return await self._driver.observe()

    async def perform(self, action: Action) -> None:
        await self._doom.touch(self._host, f"before {type(action).__name__}")
        await self._driver.perform(action)
        await self._doom.touch(self._host, f"after {type(action).__name__}")


class MortalFence:
    """A node's guard, as its agent reaches it."""

    def __init__(self, doom: Doom, host: Name, fence) -> None:
        self._doom = doom
        self._host = host
        self._fence = fence

    async def renew(self, deadline_boot_s: float, *, margin_s: float, epoch: int) -> object:
        await self._doom.touch(self._host, "before arming the guard")
        done = await self._fence.renew(deadline_boot_s, margin_s=margin_s, epoch=epoch)
        await self._doom.touch(self._host, "after arming the guard")
        return done
