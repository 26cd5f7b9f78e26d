"""An agent that ends in order leaves its primary a longer lease, and that is as safe as any other."""

import asyncio

from tests.control.cluster.stage import H1, H2, H3, Stage, born, play, well

from understudy.control.cluster.tenure import LEAVE_LEASES
from understudy.core.report import Running
from understudy.drivers.fake import REDIS


async def _leave(stage: Stage) -> None:
    """The primary's agent ends in order."""
    agent = stage.agents[stage.primary().node.host]
    agent.die()
    agent.loop.stop()
    await agent.loop.leave()


async def _cut_off(stage: Stage) -> float:
    """Its host is lost; how long it takes until another has the part. The old engine is dead by then."""
    old = stage.primary()
    stage.agents[old.node.host].die()
    stage.cut(old.node.host, {H1, H2, H3} - {old.node.host})

    def taken() -> bool:
        others = [engine for engine in stage.engines if engine is not old and engine.promoted_epoch]
        assert not others or old.running is Running.DEAD
        return any(engine.open for engine in others)

    return await stage.until(taken, 60)


def test_a_slow_restart_costs_nothing() -> None:
    """The next agent begins after two leases: the engine runs on, in the same epoch, and takes writes all the time."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        old, lease_s = stage.primary(), stage.service.timers.lease_ms / 1000
        await _leave(stage)
        for _ in range(int(2 * lease_s * 10)):
            await asyncio.sleep(0.1)
            assert old.open
            assert stage.write()
        stage.start(old.node.host)
        for _ in range(int(4 * lease_s * 10)):
            await asyncio.sleep(0.1)
            assert old.open
        await well(stage)
        assert (stage.primary(), stage.record().epoch) == (old, 1)

    play(scene)


def test_lost_while_its_agent_is_away() -> None:
    """Without revocation nobody takes over before the longer lease has run out, and the guard has killed the engine."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        await _leave(stage)
        took_s = await _cut_off(stage)
        assert took_s > (LEAVE_LEASES - 1) * stage.service.timers.lease_ms / 1000

    play(scene, REDIS)


def test_lost_after_the_next_agent_began() -> None:
    """The guard's deadline from the leave cannot be moved back: whoever takes over waits for it, however it renewed."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        host = stage.primary().node.host
        await _leave(stage)
        stage.start(host)
        await asyncio.sleep(2)
        await _cut_off(stage)

    play(scene, REDIS)
