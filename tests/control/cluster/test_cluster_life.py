"""The life of a cluster under the real loop: born, failed over, switched over, rejoined, paused, cut off from the store."""

import asyncio

import pytest
from tests.control.cluster.stage import H1, H2, H3, JumpingLoop, Stage

from understudy.core.record import DutyKind, Phase, RequestKind
from understudy.core.report import Running
from understudy.drivers.fake import MARIADB, POSTGRES, REDIS

FLAVOURS = pytest.mark.parametrize("flavour", [POSTGRES, REDIS, MARIADB], ids=lambda one: one.name)


def play(scene, *args, **words) -> None:
    """Run a scene in jumping time."""
    loop = JumpingLoop()

    async def run() -> None:
        stage = Stage(*args, **words)
        try:
            await scene(stage)
        finally:
            stage.end()
            await asyncio.sleep(0)

    try:
        loop.run_until_complete(run())
    finally:
        loop.close()


def all_stream(stage: Stage) -> bool:
    """Everybody but the primary hears it."""
    primary = stage.primary()
    links = [engine.link for engine in stage.engines if engine is not primary]
    return all(link is not None and link.alive and link.source is primary for link in links)


async def born(stage: Stage) -> None:
    stage.start()
    await stage.steady()
    await stage.until(lambda: all_stream(stage) and len(stage.acked) > 20)


@FLAVOURS
def test_born(flavour) -> None:
    """Three empty nodes become one primary, which takes writes, and two standbys that hear it."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        assert stage.record().epoch == 1
        assert len({disk.facts.identity for disk in stage.disks.values()} - {None}) == 1

    play(scene, flavour)


@FLAVOURS
def test_engine_killed(flavour) -> None:
    """When the primary's engine dies another takes over soon, nothing acknowledged is lost, and the old one rejoins."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        old = stage.primary()
        old.kill()
        took_s = await stage.until(lambda: stage.primary() not in {None, old}, 10)
        print("engine killed", flavour.name, took_s)
        await stage.steady()
        await stage.until(lambda: all_stream(stage))
        assert stage.record().epoch == 2
        if flavour.capabilities.zero_loss_commit:
            assert not stage.lost()

    play(scene, flavour)


def test_host_lost() -> None:
    """When the primary's host is gone without a word, another takes over, and nothing acknowledged is lost."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        old = stage.primary()
        stage.agents[old.node.host].die()
        stage.cut(old.node.host, {H1, H2, H3} - {old.node.host})
        took_s = await stage.until(lambda: stage.primary() not in {None, old}, 10)
        print("host lost", took_s)
        await asyncio.sleep(5)
        assert not stage.lost()
        assert old.running is Running.DEAD, "the guard has killed what nobody renewed"

    play(scene)


def test_switchover() -> None:
    """A switchover moves the primary where a person wants it; the old one follows it, and nothing is lost."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        old = stage.primary()
        target = next(engine for engine in stage.engines if engine is not old)
        await stage.order(1, RequestKind.SWITCHOVER, node=target.name)
        gap_s = await stage.until(lambda: stage.primary() is target, 10)
        print("switchover", gap_s)
        await stage.steady()
        await stage.until(lambda: all_stream(stage))
        assert not stage.lost()

    play(scene)


def test_paused() -> None:
    """A paused cluster does nothing when its primary dies; resumed, it fails over."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        await stage.order(1, RequestKind.PAUSE)
        await stage.until(lambda: stage.record().phase is Phase.PAUSED)
        old = stage.primary()
        old.kill()
        await asyncio.sleep(20)
        assert (stage.record().phase, stage.record().epoch, stage.primary()) == (Phase.PAUSED, 1, None)
        await stage.order(2, RequestKind.RESUME)
        await stage.until(lambda: stage.primary() is not None, 10)
        assert not stage.lost()

    play(scene)


def test_store_away() -> None:
    """The primary goes on for as long as the store is away, on the promises of a majority of the data nodes."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        old = stage.primary()
        stage.outage(away=True)
        for _ in range(600):
            await asyncio.sleep(0.1)
            assert stage.primary() is old
        stage.outage(away=False)
        await asyncio.sleep(10)
        assert stage.primary() is old
        assert (stage.record().phase, stage.record().epoch) == (Phase.STEADY, 1)

    play(scene)


def test_store_away_and_alone() -> None:
    """Without the store and without a majority's promises, the primary is closed before its deadline."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        old = stage.primary()
        stage.outage(away=True)
        stage.cut(old.node.host, {H1, H2, H3} - {old.node.host})
        lease_s = stage.service.timers.lease_ms / 1000
        await stage.until(lambda: old.running is Running.DEAD, lease_s, write=False)

    play(scene)


def test_agent_restarted() -> None:
    """An agent that dies and comes back takes up its engine as it is: no failover, no restart, no closed client."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        old = stage.primary()
        host, incarnation = old.node.host, old.incarnation
        stage.agents[host].die()
        await asyncio.sleep(1.5)
        stage.start(host)
        await asyncio.sleep(10)
        assert (stage.primary(), old.incarnation, stage.record().epoch) == (old, incarnation, 1)
        assert stage.record().phase is Phase.STEADY

    play(scene)


def test_agent_gone() -> None:
    """An agent that stays away is fenced by its guard, and only then is there another primary."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        old = stage.primary()
        stage.agents[old.node.host].die()
        took_s = await stage.until(lambda: stage.primary() not in {None, old}, 15)
        print("agent gone", took_s)
        assert old.running is Running.DEAD
        assert not stage.lost()

    play(scene)


def test_steward_elsewhere() -> None:
    """In steady times the steward sits on another host than the primary."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        await asyncio.sleep(10)
        holding = [host for host, agent in stage.agents.items() if agent.loop.steward.holding]
        assert len(holding) == 1
        assert holding != [stage.primary().node.host]

    play(scene)


def test_less_data() -> None:
    """A Redis that comes back with less than it had is not made primary as it is, nor followed."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        old = stage.primary()
        old.kill()
        old.lose(10)
        await stage.until(lambda: stage.primary() not in {None, old}, 10)
        await stage.steady()
        await stage.until(lambda: all_stream(stage))
        assert len(stage.lost()) <= 1
        assert stage.record().duty(old.name).kind is DutyKind.STANDBY

    play(scene, REDIS)


def test_quiet_is_cheap() -> None:
    """In steady times nothing is decided, encoded or decoded anew but what says "still so"."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        await asyncio.sleep(20)
        import time

        ticks, began_s = stage.ticks, time.perf_counter()
        await asyncio.sleep(1000)
        took_s = time.perf_counter() - began_s
        print(
            "ticks",
            stage.ticks - ticks,
            "us/tick",
            took_s / (stage.ticks - ticks) * 1e6,
            "hours/min",
            1000 / 3600 / took_s * 60,
        )

    play(scene)
