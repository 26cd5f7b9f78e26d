"""A stage for the shell's tests: spec, memory store, fake proxy and clock that outlive the agents played upon it."""

from collections.abc import Callable
from pathlib import Path

from understudy.control.agent import Agent
from understudy.control.clock import FakeClock
from understudy.control.journal import Journal
from understudy.control.loop import Loop
from understudy.control.records import Records
from understudy.control.rollout import Rollout
from understudy.control.supervisor import Supervisor
from understudy.control.versions import Versions
from understudy.core.events import Entry, EventKind
from understudy.core.model import Spec
from understudy.core.routes import compile_routes
from understudy.core.text import Name
from understudy.router.fake import FakeProxy, FakeRouter
from understudy.spec import read
from understudy.store.memory import MemoryStore

WEB, W1, W2, W3 = Name("web"), Name("w1"), Name("w2"), Name("w3")

TEXT = """
cluster: shop
services:
  web:
    kind: http
    listen: 127.0.0.1:18081
    endpoints:
      - {name: w1, address: "127.0.0.1:19101"}
      - {name: w2, address: "127.0.0.1:19102"}
      - {name: w3, address: "127.0.0.1:19103"}
"""


def spec(text: str = TEXT) -> Spec:
    return read(text, "/", {})


class Actor:
    """The parts of one agent without its tasks: what happens, happens because the test says so."""

    def __init__(self, store: object, router: object, clock: FakeClock, run_dir: Path) -> None:
        self.journal = Journal(store)
        self.records = Records(store, self.journal)
        self.loop = Loop(router, self.records, self.journal, clock)
        self.supervisor = Supervisor(run_dir, self.loop.happened)
        self.versions = Versions(store, self.journal)
        self.rollout = Rollout(self.loop, self.versions, router, self.supervisor, clock)

    async def begin(self, text: str = TEXT) -> bool:
        await self.loop.load()
        return await self.rollout.begin(spec(text))


class Stage:
    """What outlives an agent."""

    def __init__(self, run_dir: Path) -> None:
        self.store = MemoryStore()
        self.proxy = FakeProxy()
        self.clock = FakeClock()
        self.run_dir = run_dir
        self.actors: list[Actor] = []

    def actor(
        self,
        store: Callable[[MemoryStore], object] = lambda it: it,
        router: Callable[[FakeRouter], object] = lambda it: it,
    ) -> Actor:
        self.actors.append(Actor(store(self.store), router(FakeRouter(self.proxy)), self.clock, self.run_dir))
        return self.actors[-1]

    def agent(self, text: str = TEXT) -> Agent:
        return Agent(spec(text), self.run_dir, self.store, FakeRouter(self.proxy), self.clock)

    async def entries(self) -> tuple[Entry, ...]:
        return await Journal(self.store).tail(0, 10_000)

    async def count(self, kind: EventKind) -> int:
        return sum(entry.event.kind is kind for entry in await self.entries())

    async def stored_state(self, wanted: Spec) -> object:
        """What a router should be doing, by the store alone."""
        loaded = await Records(self.store, Journal(self.store)).load()
        return compile_routes(wanted, loaded.pools)
