"""The loop on a memory store and a fake proxy: what is stored before what, and what survives which failure."""

import asyncio
from functools import partial

import pytest
from tests.control.stage import TEXT, W1, W2, WEB, Actor, Stage

from understudy.control import logs
from understudy.control import loop as module
from understudy.control.loop import LEDGERS_EVERY_S
from understudy.core import verbs
from understudy.core.errors import Refused
from understudy.core.events import Event, EventKind
from understudy.core.objectives import ServiceHealth
from understudy.core.pools import Admin, PoolRecord
from understudy.core.routes import Slot
from understudy.router.base import RouterFault
from understudy.store.base import StoreFault
from understudy.store.memory import Trouble


class Death(BaseException):
    """The agent is killed here."""


class Fate:
    """Counts the effects of an agent and kills it before or after the one that is due."""

    def __init__(self, due: int, *, after: bool) -> None:
        self.due, self.after, self.count = due, after, 0
        self.struck = False

    def wrap(self, port: object) -> object:
        fate = self

        class Fated:
            def __getattr__(self, name: str) -> object:
                return (
                    partial(fate.effect, getattr(port, name)) if name in ("transact", "apply") else getattr(port, name)
                )

        return Fated()

    async def effect(self, call, *args):
        self.count += 1
        if self.count == self.due and not self.after:
            self.struck = True
            raise Death
        result = await call(*args)
        if self.count == self.due:
            self.struck = True
            raise Death
        return result


def order_maint(actor: Actor, endpoint: str = W2):
    return actor.loop.order(
        WEB, lambda service, record, seen, _: verbs.set_admin(service, record, seen, endpoint, Admin.MAINT)
    )


def slot(stage: Stage, endpoint: str) -> Slot:
    assert stage.proxy.state is not None
    return next(each for each in stage.proxy.state.routes[0].primary.slots if each.endpoint == endpoint)


async def misbehave(stage: Stage, actor: Actor) -> None:
    """Let w1 answer with errors alone, until the ejector has had enough."""
    for _ in range(3):
        stage.proxy.serve(WEB, W1, 20, errors=20)
        stage.proxy.serve(WEB, W2, 20)
        await stage.clock.advance(1)
        await actor.loop.tick()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_death_at_any_effect_loses_nothing(tmp_path, after: bool) -> None:
    """Wherever an agent dies, the router is not ahead of the store; the next does all that is stored, told once."""
    deaths = 0
    for due in range(1, 100):
        play = Stage(tmp_path)
        fate = Fate(due, after=after)
        actor = play.actor(fate.wrap, fate.wrap)
        try:
            await actor.begin()
            await actor.loop.tick()
            await order_maint(actor)
            await misbehave(play, actor)
        except Death:
            deaths += 1
        stored = (await play.actor().records.load()).pools.get(WEB, PoolRecord(WEB))
        if play.proxy.state is not None:
            assert slot(play, W2).admin is Admin.READY or (W2, Admin.MAINT) in stored.admin
            assert slot(play, W1).admin is Admin.READY or stored.holds
        await actor.supervisor.detach()

        heir = play.actor()
        await heir.begin()
        assert play.proxy.state == await play.stored_state(heir.loop.spec)
        await heir.loop.tick()
        await heir.journal.flush()
        assert await play.count(EventKind.ENDPOINT_ADMIN) == len(stored.admin)
        assert await play.count(EventKind.ENDPOINT_EJECTED) == len(stored.holds)
        assert await play.count(EventKind.SPEC_APPLIED) == 1
        for each in play.actors:
            await each.supervisor.detach()
        if not fate.struck:
            break
    assert deaths >= 6
    assert len(stored.admin) == len(stored.holds) == 1


async def test_an_idle_tick_writes_nothing_but_ledgers_now_and_then(stage: Stage) -> None:
    """With nothing new, ticks leave the store alone, and every half minute the ledgers are written."""
    actor = stage.actor()
    await actor.begin()
    await actor.loop.tick()
    await actor.journal.flush()
    before = (await stage.store.list("")).revision
    for _ in range(10):
        await stage.clock.advance(1)
        await actor.loop.tick()
        await actor.journal.flush()
    assert (await stage.store.list("")).revision == before
    await stage.clock.advance(LEDGERS_EVERY_S)
    await actor.loop.tick()
    changed = {item.key for item in (await stage.store.list("")).items if item.revision > before}
    assert changed == {"ledger/web"}


@pytest.mark.parametrize("trouble", [Trouble.AWAY, Trouble.ANSWER_LOST])
async def test_while_the_store_is_away_nothing_is_ordered_and_all_is_made_up_for(
    stage: Stage, trouble: Trouble
) -> None:
    """What cannot be stored is not done; when the store is back the same is decided, done and journaled once."""
    actor = stage.actor()
    await actor.begin()
    await actor.loop.tick()
    stage.store.set_trouble(trouble)
    with pytest.raises(StoreFault):
        await misbehave(stage, actor)
    assert slot(stage, W1).admin is Admin.READY
    with pytest.raises(StoreFault):
        await order_maint(actor)
    assert slot(stage, W2).admin is Admin.READY
    stage.store.set_trouble(Trouble.NONE)
    await misbehave(stage, actor)
    assert slot(stage, W1).admin is Admin.MAINT
    await actor.journal.flush()
    assert await stage.count(EventKind.ENDPOINT_EJECTED) == 1


async def test_what_the_router_would_not_do_is_done_at_the_next_tick(stage: Stage, monkeypatch) -> None:
    """An order that is stored while the router fails is told as such, and carried out as soon as the router can."""
    actor = stage.actor()
    await actor.begin()
    await actor.loop.tick()
    with monkeypatch.context() as broken:

        async def fail(_: object) -> None:
            raise RouterFault("the socket is gone")

        broken.setattr(actor.loop._router, "apply", fail)
        with pytest.raises(RouterFault):
            await order_maint(actor)
        with pytest.raises(RouterFault):
            await actor.loop.tick()
        assert slot(stage, W2).admin is Admin.READY
    await actor.loop.tick()
    assert slot(stage, W2).admin is Admin.MAINT
    assert await stage.count(EventKind.ENDPOINT_ADMIN) == 1


async def test_a_record_that_somebody_else_wrote_is_read_before_deciding_again(stage: Stage) -> None:
    """Of two who write the same record the second is refused, reads, and goes on from there: no order is lost."""
    actor, other = stage.actor(), stage.actor()
    await actor.begin()
    await other.begin()
    await order_maint(other, W2)
    with pytest.raises(Refused, match="another agent"):
        await order_maint(actor, W1)
    await order_maint(actor, W1)
    stored = (await stage.actor().records.load()).pools[WEB]
    assert dict(stored.admin) == {W1: Admin.MAINT, W2: Admin.MAINT}
    assert slot(stage, W1).admin is slot(stage, W2).admin is Admin.MAINT


async def test_a_record_that_cannot_be_read_stays_as_it_is_and_harms_nobody_else(stage: Stage) -> None:
    """A garbled record is never written over; its service runs by its spec, and the other services as ever."""
    from understudy.store.base import Expect, Put

    await stage.store.transact([Expect("pools/web", 0)], [Put("pools/web", b"garbage")])
    two = TEXT + "  api: {kind: tcp, listen: '127.0.0.1:18082', endpoints: [{name: a1, address: '127.0.0.1:19201'}]}\n"
    actor = stage.actor()
    await actor.begin(two)
    await actor.loop.tick()
    with pytest.raises(Refused, match="pools/web"):
        await order_maint(actor)
    await actor.loop.order("api", lambda s, r, seen, _: verbs.set_admin(s, r, seen, "a1", Admin.DRAIN))
    item = await stage.store.get("pools/web")
    assert item is not None
    assert item.value == b"garbage"


async def test_time_in_which_the_router_is_away_counts_as_down_and_unwatched_time_as_nothing(
    stage: Stage, monkeypatch
) -> None:
    """The ledger's sums: up while it serves, down while the router cannot be asked, nothing while nobody looked."""
    actor = stage.actor()
    await actor.begin()
    for _ in range(11):
        await actor.loop.tick()
        await stage.clock.advance(1)
    with monkeypatch.context() as broken:

        async def fail() -> None:
            raise RouterFault("gone")

        broken.setattr(actor.loop._router, "observe", fail)
        for _ in range(5):
            with pytest.raises(RouterFault):
                await actor.loop.tick()
            await stage.clock.advance(1)
    await actor.loop.tick()
    await stage.clock.advance(3600)
    await actor.loop.tick()
    ledger = actor.loop.ledgers[WEB]
    assert (ledger.up_s, ledger.down_s, ledger.failures) == (11.0, 5.0, 1)
    assert ledger.health is ServiceHealth.UP


async def test_run_outlives_faults_and_wakes_at_once(stage: Stage, monkeypatch) -> None:
    """Neither a fault outside nor one of our own ends the loop, and news makes it look before its time is up."""
    actor = stage.actor()
    await actor.begin()
    looks: list[float] = []
    observe = actor.loop._router.observe

    async def counted():
        looks.append(stage.clock.now().boot_s)
        if len(looks) == 2:
            raise RouterFault("gone")
        if len(looks) == 3:
            raise ZeroDivisionError
        return await observe()

    monkeypatch.setattr(actor.loop._router, "observe", counted)
    monkeypatch.setattr(module.time, "process_time", lambda: 0.0)  # looking costs nothing here, however slow the host
    running = asyncio.create_task(actor.loop.run(0.0))
    try:
        await stage.clock.advance(5)
        assert 4 <= len(looks) <= 6
        assert not running.done()
        assert actor.loop.fault is None
        before = len(looks)
        actor.loop.wake()
        await stage.clock.advance(0.2)
        assert len(looks) == before + 1
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_the_log_says_the_journals_sentence(capsys) -> None:
    """A line of the log is the event's sentence with its values beside it, as JSON where nobody watches."""
    import json

    logs.configure()
    logs.tell(Event(EventKind.ENDPOINT_DOWN, "w1 is down.", WEB, W1, (("event", "a name that clashes"),)))
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["level"], line["service"]) == ("w1 is down.", "warning", "web")
    assert line["data"] == {"event": "a name that clashes"}
