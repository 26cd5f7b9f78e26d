"""PostgreSQL 13 to 17 as an engine: fulfils the port `Driver` for one node. Here each action meets those who do it.

What is decided about a node comes in as an action; what an action means in PostgreSQL is in promote.py (becoming and
being primary), follow.py (being a standby), copying.py and rejoin.py (data), process.py (the process itself).
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from understudy.core.actions import (
    Action,
    Bootstrap,
    Close,
    Follow,
    Freeze,
    Open,
    Promote,
    Rebuild,
    Rejoin,
    SetSync,
    Start,
    StopGracefully,
)
from understudy.core.cluster import Capabilities
from understudy.core.errors import Refused
from understudy.core.lineage import Position, contains, fits
from understudy.core.report import Running
from understudy.core.stateful import PostgresService
from understudy.core.text import Name
from understudy.drivers.base import DriverFault, EngineProcess, EngineState, NeedsRebuild, Observation
from understudy.drivers.postgres import beside, binaries, branches, check, control_file, copying, follow, promote
from understudy.drivers.postgres.beside import Beside
from understudy.drivers.postgres.branches import Unknown
from understudy.drivers.postgres.home import Home
from understudy.drivers.postgres.observe import Sight
from understudy.drivers.postgres.process import FILES_S, Engine, LogIsGone
from understudy.drivers.postgres.rejoin import Ladder, LossReport, give_up, tell, untold
from understudy.drivers.postgres.settings import Place
from understudy.drivers.postgres.sources import Sources
from understudy.drivers.postgres.tools import Account, Tools
from understudy.drivers.postgres.upkeep import Upkeep

CAPABILITIES = Capabilities(zero_loss_commit=True, revocation=True, rewind=True, graceful_handover=True)
_WATCH_S, _WATCH_EVERY_S = 10.0, 0.005
"""How long, and how often, it is looked for what comes soon after an action."""
_NOTED_S = 0.1
_AGAIN_S = 1.0
_MARGIN_S = 1.0
"""Of the time of what copies: to say how far it is."""


async def _nobody(_report: LossReport) -> None:
    """Who is told of losses where nobody cares."""


class PostgresDriver:
    """One node's PostgreSQL.

    data: its directory, absolute. password: the superuser's, itself. account: whom PostgreSQL runs as.
    discarded: is told what this node had that its source has not, once that is out of its data (saved beside it); when
    it returns, that is known for good, else it is told again.
    """

    def __init__(
        self,
        service: PostgresService,
        name: Name,
        *,
        data: Path,
        process: EngineProcess,
        account: Account,
        password: str,
        discarded: Callable[[LossReport], Awaitable[None]] = _nobody,
    ) -> None:
        self._place = _place(service, name, beside.of(data))
        self._account = account
        self._password = password
        self._discarded = discarded
        self._programs: Tools | None = None
        self._engine = Engine(self._place, process, self._tools, password)
        self._sources = Sources(self._place)
        self._sight = Sight(self._engine, self._sources, self._tools)
        self._upkeep = Upkeep(self._engine, self._sources)
        self._home: Home | None = None
        self._ladder: Ladder | None = None
        self._told: Callable[[], None] = lambda: None
        self._awaited: Callable[[], Awaitable[bool]] | None = None
        """What is looked out for."""
        self._watch: asyncio.Task[None] | None = None
        self._afterwards: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None
        self._confessing: asyncio.Task[None] | None = None
        """None until the first time."""
        self._untold = False
        self._heard: set[str] = set()
        """The reports that somebody was told of, though that may not be on the disk yet."""
        self._receiver: tuple[int, int] | None = None
        """The process that holds the link, and its pidfd."""

    @property
    def capabilities(self) -> Capabilities:
        """What PostgreSQL can do."""
        return CAPABILITIES

    async def check(self) -> tuple[str, ...]:
        """Every reason why this node must not be taken on, each a sentence. To be called before anything else."""
        if (await self._engine.state()).running:
            return ()
        data = self._place.data
        try:
            tools = self._tools()
        except Refused:  # the check says it among all others
            tools = Tools(binaries.programs(), self._account)
        known = await asyncio.to_thread(beside.of(data).root.exists)
        expected = check.Expected(nodes=1 + len(self._place.peers), known=known)
        home = Home(self._place.name, data, tools, configure=lambda _data: None)
        faults = (await check.check_node(home, expected)).faults
        if faults or known or copying.is_empty(data):
            return faults
        control = await control_file.read(tools, data)
        stored = partial(check.check_stored_password, data, control, self._place.superuser, self._password)
        wrong = await asyncio.to_thread(stored)
        return (wrong,) if wrong else ()

    async def database(self) -> str:
        """The system identifier of its data; empty without data, and where that cannot be read."""
        data = self._place.data
        if await asyncio.to_thread(copying.is_empty, data):
            return ""
        with suppress(Refused):
            return (await control_file.read(self._tools(), data)).system_identifier
        return ""

    def change(self, service: PostgresService) -> None:
        """The service is another now: nodes have come or gone. What runs is told of it, soon, and by itself."""
        place = _place(service, self._place.name, beside.of(self._place.data))
        if place == self._place:
            return
        self._place = self._engine.place = self._sources.place = place
        self._engine.changed = True
        self._tell_engine()

    def listen(self, told: Callable[[], None]) -> None:
        """News goes to the last who asked."""
        self._told = told
        self._engine.process.listen(told)

    async def observe(self) -> Observation:
        """Look."""
        seen = await self._sight.look()
        self._watch_receiver()
        if seen.link_age_ms is not None and self._confessing is None:
            self._tell_discarded()  # what the agent before this one did not come to
        if seen.running is not Running.UP:
            self._upkeep.end()
            return seen
        self._upkeep.tick()
        return replace(seen, warnings=self._upkeep.warnings)

    async def perform(self, action: Action) -> None:
        """Do it, to the end."""
        self._stop_watching()
        self._sight.data_change()
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.wait({self._telling})
        try:
            await self._perform(action)
        finally:
            self._sight.data_change()
            self._tell_engine()

    async def _perform(self, action: Action) -> None:  # noqa: C901  one line for each action
        engine, within_s = self._engine, action.deadline_ms / 1000
        match action:
            case Bootstrap():
                await self._bootstrap(within_s)
            case Start():
                await self._start(action.epoch)
            case Close():
                await self._close(action.epoch)
            case Freeze():
                await self._freeze(action.epoch)
            case Follow():
                await self._follow(action)
            case Promote():
                await promote.promote(engine, action.epoch, action.sync)
                self._upkeep.promoted()
                self._afterwards = asyncio.create_task(self._after_promotion())
                self._look_out(self._sight.is_covered)
            case Open():
                await self._open(action)
            case SetSync():
                await promote.set_rule(engine, action.sync)
            case StopGracefully():
                await promote.stop_gracefully(engine, action.epoch, within_s)
            case Rejoin():
                await self._rejoin(action, within_s)
            case Rebuild():
                await self._rebuild(action, within_s)

    async def close(self) -> None:
        """Let go of it; the engine goes on."""
        for task in (self._watch, self._afterwards, self._telling, self._confessing):
            if task is not None:
                task.cancel()
        self._forget_receiver()
        self._sight.close()
        self._upkeep.end()
        self._engine.drop()

    # ---- actions ----

    async def _bootstrap(self, within_s: float) -> None:
        home = await self._settled()
        self._programs = None
        await copying.bootstrap(
            home, self._place.superuser, self._password, patience_s=max(_MARGIN_S, within_s - _MARGIN_S)
        )
        await self._sight.look()  # which begins the list of timelines, for all copies

    async def _start(self, epoch: int) -> None:
        if not (await self._engine.state()).running:
            await self._make_startable()
        await self._engine.start(epoch)

    async def _close(self, epoch: int) -> None:
        await self._engine.kill(epoch)
        self._afterwards = asyncio.create_task(self._stay_standby())

    async def _freeze(self, epoch: int) -> None:
        if not self._sight.knows_its_end:
            with suppress(DriverFault):  # while a receiver is there, which says that all before it was replayed
                await self._sight.ask()
        await follow.freeze(self._engine, epoch)

    async def _follow(self, action: Follow) -> None:
        state = await self._engine.state()
        if not state.running:
            await self._make_startable()
        await self._must_fit(action, state)
        await follow.follow(self._engine, action.source, action.epoch)
        self._look_out(self._sight.hears)

    async def _must_fit(self, action: Follow, state: EngineState) -> None:
        """See to it that a standby that followed another so far has nothing of its own, once nobody adds to it."""
        now = await self._engine.in_force()
        if now.epoch or now.source == action.source:
            return
        if not state.running:
            ours = await self._sight.end()
        else:
            if now.source is not None:
                await follow.let_go(self._engine, state)
            ours = await self._sight.position(await self._sight.ask())
        if not fits(ours, action.start):
            if not state.running:
                await self._engine.start(action.epoch)  # it hears nobody, and can be seen to need more
            raise DriverFault(
                f"{self._place.name} has history up to {ours} that {action.source} took over without: it must rejoin."
            )

    async def _open(self, action: Open) -> None:
        said = await self._sight.ask()
        if said.in_recovery or said.epoch != action.epoch:
            raise DriverFault(f"{self._place.name} is no primary of epoch {action.epoch}, so no client is let in.")
        if not action.held and not self._sight.covered(said):
            raise DriverFault(f"{self._place.name} has history that too few standbys have: no client is let in yet.")
        await promote.let_in(self._engine)

    async def _rebuild(self, action: Rebuild, within_s: float) -> None:
        home = await self._settled()
        source = self._sources.of(action.source)
        await self._engine.write()  # the passwords, which nobody may have needed here before
        await self._sources.position(action.source)  # it has noted its own timeline, or we come again
        told = await self._sources.ids(action.source)
        tools = Tools(binaries.programs(await self._sources.major(action.source)), self._account)
        home = replace(home, tools=tools)
        await self._sources.reserve_slot(action.source)
        if action.consent:
            await self._end_all(home, action.epoch)
        patience_s = max(_MARGIN_S, within_s - _MARGIN_S)
        order = f"{action.identity}-{action.since}"
        await copying.copy(home, source, order, consent=action.consent, patience_s=patience_s)
        await self._end_all(home, action.epoch)
        with suppress(Refused):  # as far as it can be told: all of it is kept
            await self._list_before_copy(action)
        await copying.put_in_place(home)
        self._tell_discarded()
        self._programs = None
        await self._sight.learn(told, None)

    async def _end_all(self, home: Home, epoch: int) -> None:
        """See to it that nothing of ours works on the data in place: it would go on in what comes there."""
        await self._engine.kill(epoch)
        await give_up(home)

    async def _rejoin(self, action: Rejoin, within_s: float) -> None:
        home = await self._settled()
        if (await self._engine.state()).running:
            with suppress(DriverFault):
                said = await self._sight.ask()
                if said.in_recovery and said.source == action.source and said.receiver and said.heard:
                    ours = await self._sight.position(said)
                    if ours is None or contains(await self._sources.position(action.source), ours):
                        return
        await self._engine.kill(action.epoch)
        await self._engine.write()  # the passwords
        theirs = await self._sources.position(action.source)
        await self._sources.reserve_slot(action.source)  # it may write much until we are back
        await self._the_ladder(home).rejoin(
            self._sources.of(action.source),
            ours=self._own_history,
            theirs=theirs,
            epoch=action.epoch,
            patience_s=max(_MARGIN_S, within_s - _MARGIN_S),
        )
        self._tell_discarded()
        try:
            await follow.follow(self._engine, action.source, action.epoch)
        except LogIsGone as why:
            raise NeedsRebuild(f"{why} So {self._place.name} must be copied anew.") from why
        self._look_out(self._sight.hears)

    async def _own_history(self) -> Position:
        try:
            return await self._sight.history()
        except Unknown as why:
            raise NeedsRebuild(f"{why} So {self._place.name} must be copied anew.") from why

    async def _list_before_copy(self, action: Rebuild) -> None:
        home = await self._settled()
        if copying.is_empty(home.data):
            return
        theirs = await self._sources.position(action.source)
        ladder, source = self._the_ladder(home), self._sources.of(action.source)
        await ladder.list_before_copy(source, ours=self._own_history, theirs=theirs, epoch=action.epoch)

    def _tell_discarded(self) -> None:
        """Have everything told that is out of the data, and that nobody was told of yet."""
        self._untold = True
        if self._confessing is None or self._confessing.done():
            self._confessing = asyncio.create_task(self._until_all_is_told())

    async def _until_all_is_told(self) -> None:
        disk, data = self._engine.disk, self._place.data
        while self._untold:
            self._untold = False
            try:
                for report in await disk.do(partial(untold, data), FILES_S):
                    if report.path not in self._heard:
                        await self._discarded(report)
                        self._heard.add(report.path)
                    await disk.do(partial(tell, report), FILES_S)
            except Refused:  # the disk does not answer
                self._untold = True
                await asyncio.sleep(_AGAIN_S)

    # ---- what they need ----

    def _the_ladder(self, home: Home) -> Ladder:
        if self._ladder is None:
            self._ladder = Ladder(home)
        return self._ladder

    def _tools(self) -> Tools:
        if self._programs is None:
            self._programs = Tools(binaries.programs(binaries.major_of(self._place.data)), self._account)
        return self._programs

    async def _settled(self) -> Home:
        tools = await self._engine.disk.do(self._tools, FILES_S)
        if self._home is None:
            self._home = Home(self._place.name, self._place.data, tools, configure=lambda _data: None)
        home = self._home = replace(self._home, tools=tools)
        await copying.settle(home)
        return home

    async def _make_startable(self) -> None:
        """Raises Refused for data that must not be started; a standby finds all of its log afterwards."""
        home = await self._settled()
        data = self._place.data
        if await home.on_disk(partial(copying.is_empty, data)):
            raise Refused(f"{self._place.name} has no data to start with; rebuild it.")
        why = await home.on_disk(partial(copying.unusable, data))
        if why:
            raise Refused(f"The data of {self._place.name} must not be started: {why}")
        await give_up(home)  # a recovery: the engine does that, too
        control = await control_file.read(home.tools, data)
        if control.state.standby:
            place = (control.newest_timeline, control.at_least)
            await home.on_disk(partial(branches.drop_unborn, data, *place, self._account))

    # ---- another service ----

    def _tell_engine(self) -> None:
        """See to it that a running engine lets in, and keeps a slot for, the nodes that there are now."""
        if self._engine.changed and (self._telling is None or self._telling.done()):
            self._telling = asyncio.create_task(self._until_told())

    async def _until_told(self) -> None:
        while self._engine.changed:
            with suppress(Refused):
                if not (await self._engine.state()).running:
                    return  # the next start writes everything
                await self._engine.reload()
                await promote.ensure_slots(self._engine, anew=False)
                self._engine.changed = False
                return
            await asyncio.sleep(_AGAIN_S)

    # ---- what comes soon ----

    def _look_out(self, came: Callable[[], Awaitable[bool]]) -> None:
        """Tell when it has come; a regular look would see it much later."""
        self._awaited = came
        self._watch = asyncio.create_task(self._until(came))

    async def _until(self, came: Callable[[], Awaitable[bool]]) -> None:
        give_up_s = time.monotonic() + _WATCH_S
        with suppress(DriverFault):
            while time.monotonic() < give_up_s:
                await asyncio.sleep(_WATCH_EVERY_S)  # the look that follows every action sees what is there by now
                if self._awaited is not came:
                    return
                if await came():
                    break
        self._told()

    async def _stay_standby(self) -> None:
        """No start by another hand may be writable either. On a hung disk there is none."""
        with suppress(Refused):
            await self._engine.disk.do(self._engine.make_standby, FILES_S)

    async def _after_promotion(self) -> None:
        """What has to be on the disk soon, and holds up nobody: the order to be a standby, the new timeline's id.

        A look notes the id; there is one after every action, so that ours mostly has nothing left to do.
        """
        await self._stay_standby()
        await asyncio.sleep(_NOTED_S)
        with suppress(Refused):
            await self._sight.look()

    def _stop_watching(self) -> None:
        """Ask no more. A question under way is waited for by the next one: cut short, it would take the session."""
        self._awaited = None

    def _watch_receiver(self) -> None:
        """Tell when the process that holds the link to whom we follow ends: the link is broken."""
        pid = self._sight.receiver
        if pid == (self._receiver[0] if self._receiver else None):
            return
        self._forget_receiver()
        if pid is None:
            return
        with suppress(OSError):  # it has just ended: the next look sees it
            self._receiver = (pid, os.pidfd_open(pid))
            asyncio.get_running_loop().add_reader(self._receiver[1], self._receiver_ended)

    def _receiver_ended(self) -> None:
        self._forget_receiver()
        self._told()

    def _forget_receiver(self) -> None:
        if self._receiver is not None:
            asyncio.get_running_loop().remove_reader(self._receiver[1])
            os.close(self._receiver[1])
            self._receiver = None


def _place(service: PostgresService, name: Name, places: Beside) -> Place:
    """What the service says of this node."""
    addresses = {node.name: node.address for node in service.nodes}
    return Place(
        name=name,
        address=addresses.pop(name),
        peers=tuple(addresses.items()),
        data=places.data,
        ours=places.run,
        superuser=service.superuser.name,
        timers=service.cluster.timers,
    )
