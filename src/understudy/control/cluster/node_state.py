"""What an agent knows of a node of its own: the durable facts, the newest report, the lease and the promise it holds.

RULES: facts are changed through `remember` alone, which returns when they are on the disk. A mark is set after the deed
that it attests, and taken away before the deed that ends it. `generation` tells looks that were overtaken by a deed.
"""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from understudy.control.cluster.ports import NodeFacts, OwnNode
from understudy.core.codec import decode, encode
from understudy.core.errors import Fault
from understudy.core.report import NodeReport, OwnLease, Promise
from understudy.core.text import Name
from understudy.store.lease import DRIFT

SETTLES_S = 0.05
"""How long a deed is left alone: most are over by then. A look at it, and the report of that, would only hold up the
deed and the report of its end."""


class NodeState:
    """One own node."""

    def __init__(self, own: OwnNode) -> None:
        self.own = own
        self.name = own.node.name
        self.loaded = False
        """Whether the facts are known: nothing is reported, obeyed or promised before."""
        self.recalled = False
        """Whether the last report of an earlier agent has been looked at: nothing is reported or obeyed before."""
        self.facts = NodeFacts()
        """What is on the disk for certain."""
        self.wanted = NodeFacts()
        """What will be when all that is being saved is saved: what a promise must look at."""
        self.report: NodeReport | None = None
        """The newest word about it; the counter is the reporter's work. The same object as long as nothing changes."""
        self.generation = 0
        """+1 when a deed begins and when it ends: a look across either says nothing."""
        self.settles_s = 0.0
        """Until when no look is worth its time: a deed that does not take long is about to end."""
        self.looked = -1
        """The generation that the report is of."""
        self.moving = False
        """Whether something is under way by which the node may rightly have less."""
        self.progress: int | None = None
        """How far what is under way has got, by the driver's word."""
        self.serial = 0
        """Of the newest record read, as far as it may be told; never falls."""
        self.company: tuple[Name, ...] = ()
        """Who had a duty in it."""
        self.company_identity: str | None = None
        """Of which cluster it was."""
        self.failed_epoch = 0
        self.failure = ""
        self.lease = OwnLease()
        self.promise = Promise()

    async def load(self, now_s: float, lease_s: float) -> None:
        """Read the facts. A promise of an earlier agent counts as one for all of its time from now. Raises Fault."""
        facts = await self.own.disk.load()
        if self.loaded:
            return
        self.facts = self.wanted = facts
        self.serial = max(self.serial, facts.serial)
        self.company, self.company_identity = facts.company, facts.company_identity
        if facts.promised_epoch:
            promised_s = facts.promised_ms / 1000 * (1 + DRIFT)
            self.promise = Promise(facts.promised_epoch, now_s + max(lease_s, promised_s))
        self.loaded = True

    async def remember(self, **changes: Any) -> None:
        """Put facts on the disk; nothing is written when they stand there. Raises Fault."""
        wanted = self.wanted = replace(self.wanted, **changes)
        if wanted != self.facts:
            await self.own.disk.save(wanted)
            self.facts = wanted


class MemoryDisk:
    """Fulfils the port `NodeDisk` in memory: for tests and simulation."""

    def __init__(self) -> None:
        self.facts = NodeFacts()

    async def load(self) -> NodeFacts:
        """What was saved last."""
        return self.facts

    async def save(self, facts: NodeFacts) -> None:
        """Keep it."""
        self.facts = facts


class FileDisk:
    """Fulfils the port `NodeDisk` with one file, replaced as a whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, "node-facts")
        """One, so that saves happen in order; a disk that hangs holds up nothing else."""

    async def load(self) -> NodeFacts:
        """What was saved last; Fault when it is there and cannot be read."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._load)

    async def save(self, facts: NodeFacts) -> None:
        """Replace the file, flushed."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._save, encode(facts))

    def _load(self) -> NodeFacts:
        try:
            return decode(NodeFacts, self._path.read_bytes())
        except FileNotFoundError:
            return NodeFacts()
        except OSError as error:
            raise Fault(
                f"What this node must remember cannot be read ({error}); make {self._path} readable."
            ) from error

    def _save(self, data: bytes) -> None:
        new = self._path.with_name(self._path.name + ".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with new.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
            place = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(place)
            finally:
                os.close(place)
        except OSError as error:
            raise Fault(
                f"What this node must remember cannot be saved ({error}); see to {self._path.parent}."
            ) from error
