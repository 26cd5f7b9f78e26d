"""A crown that was not seen to come may be from a state of the store that has long passed."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

from tests.control.cluster.mortal import MortalStore
from tests.control.cluster.stage import LOSSY, Stage, born, play, well

from understudy.core.record import Phase
from understudy.core.text import Name
from understudy.drivers.fake import POSTGRES, FakeEngine
from understudy.store.base import Change


def promotions_take(stage: Stage, promote_s: float) -> None:
    """From now on, everywhere."""
    for engine in stage.engines:
        engine._pace = replace(engine._pace, promote_s=promote_s)


async def crowned(stage: Stage) -> FakeEngine:
    """The winner of a failover, in the middle of its promotion."""
    promotions_take(stage, 2)
    old = stage.primary()
    stage.agents[old.node.host].die()
    old.kill()
    await stage.until(lambda: stage.record().phase is Phase.PROMOTING, 60, write=False)
    return stage.engines[stage.record().primary]


def test_a_store_put_back_crowns_nobody() -> None:
    """Who finds its crown in a store that was put back waits, and hears from the others that another reign followed."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        winner = await crowned(stage)
        epoch, backup = stage.record().epoch, (dict(stage.store._items), stage.store._revision)
        stage.agents[winner.node.host].die()
        winner.kill()
        promotions_take(stage, 0.03)
        await stage.until(lambda: stage.primary() not in {None, winner}, 120, write=False)
        for agent in stage.agents.values():
            agent.die()
        await asyncio.sleep(10)
        stage.store._items, stage.store._revision = backup
        stage.store._history.clear()
        stage.start(winner.node.host)
        await asyncio.sleep(1)
        stage.start(*(node.host for node in stage.service.nodes if node.name != winner.name))
        promoted = {winner.promoted_epoch}
        for _ in range(600):
            await asyncio.sleep(0.05)
            promoted.add(winner.promoted_epoch)
        assert epoch not in promoted
        await well(stage, 200)
        assert stage.record().epoch > epoch + 1

    play(scene, POSTGRES, durability=LOSSY)


def test_nothing_is_decided_about_a_store_put_back_before_others_have_spoken() -> None:
    """Whoever is steward of a record from before its contact lets everybody say of which epoch he is."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        winner = await crowned(stage)
        old, backup = stage.record(), (dict(stage.store._items), stage.store._revision)
        stage.agents[winner.node.host].die()
        winner.kill()
        promotions_take(stage, 0.03)
        await stage.until(lambda: stage.primary() not in {None, winner}, 120, write=False)
        epoch = stage.record().epoch
        for agent in stage.agents.values():
            agent.die()
        await asyncio.sleep(10)
        stage.store._items, stage.store._revision = backup
        stage.store._history.clear()
        stage.service = replace(stage.service, version=stage.service.version + 1)  # who decides would say so
        stage.start(winner.node.host)  # the steward of that time
        await asyncio.sleep(1)
        assert stage.record() == old
        stage.start(*(node.host for node in stage.service.nodes if node.name != winner.name))
        await stage.until(lambda: stage.record() != old, 60, write=False)
        assert stage.record().epoch > epoch
        await well(stage, 200)

    play(scene, POSTGRES, durability=LOSSY)


def test_an_agent_that_dies_in_a_promotion_goes_on_with_it() -> None:
    """The store is as it was: the next agent waits a lease, and then the promotion ends as it was ordered."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        winner = await crowned(stage)
        epoch = stage.record().epoch
        stage.agents[winner.node.host].die()
        stage.start(winner.node.host)
        await stage.until(lambda: winner.open, 20, write=False)
        assert winner.promoted_epoch == epoch

    play(scene, POSTGRES)


def test_a_crown_is_not_obeyed_on_what_was_not_heard() -> None:
    """The store falls silent before its lease of contact is over: nobody knows who is spoken of there, so it waits."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        winner = await crowned(stage)
        epoch, lease_s = stage.record().epoch, stage.service.timers.lease_ms / 1000
        stage.agents[winner.node.host].die()
        promotions_take(stage, 0.03)
        stage.start(winner.node.host)
        await asyncio.sleep(0.6 * lease_s)
        stage.outage(away=True)
        for _ in range(int(0.9 * lease_s / 0.05)):
            await asyncio.sleep(0.05)
            assert winner.promoted_epoch < epoch
        stage.outage(away=False)
        await stage.until(lambda: winner.open, 20, write=False)
        assert winner.promoted_epoch == epoch

    play(scene, POSTGRES)


def test_a_crown_is_not_obeyed_by_an_old_record() -> None:
    """Whose watch is late does not promote by what has been decided on since: its engine died after it was promoted."""

    async def scene(stage: Stage) -> None:
        late, behind, heard = set(), [], asyncio.Event()
        store_of, touch = stage.store_of, stage.doom.touch

        def late_store_of(host: Name) -> MortalStore:
            store = store_of(host)
            watch = store.watch

            async def watch_late(prefix: str, after_revision: int) -> AsyncIterator[Change]:
                async for change in watch(prefix, after_revision):
                    if host in late:
                        await heard.wait()
                    yield change

            store.watch = watch_late
            return store

        async def compare(host: Name, what: str) -> None:
            if what == "before Promote" and stage.agents[host].loop.record.serial < stage.record().serial:
                behind.append(host)
            await touch(host, what)

        stage.store_of, stage.doom.touch = late_store_of, compare
        await born(stage)
        steward = stage.agents[stage.primary().node.host].loop.steward_host  # which always has the newest record
        stage.apply(nodes=tuple(replace(node, priority=int(node.host != steward)) for node in stage.service.nodes))
        await well(stage)
        winner = await crowned(stage)
        assert steward not in {None, winner.node.host, stage.engines[stage.record().previous].node.host}
        late.add(winner.node.host)
        await stage.until(lambda: stage.record().phase is not Phase.PROMOTING, 20, write=False)
        for host in [one for one in stage.agents if one not in late]:
            stage.agents[host].die()
        winner.kill()
        await asyncio.sleep(1)
        assert not behind
        late.clear()
        heard.set()
        stage.start(*(host for host, agent in stage.agents.items() if not agent.alive))
        await well(stage)

    play(scene, POSTGRES)
