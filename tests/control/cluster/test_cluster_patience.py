"""What takes long, as long as it gets on, is not given up by the clock; what nobody wants any more is, at once."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.control.cluster.stage import Stage, born, play, well

from understudy.core.actions import Action, Open
from understudy.core.record import DutyKind, RequestKind
from understudy.drivers.base import DriverFault
from understudy.drivers.fake import POSTGRES, FakeDriver, FakeEngine


def at_pace(engine: FakeEngine, **pace: float) -> None:
    """From now on these take this engine so long."""
    engine._pace = replace(engine._pace, **pace)


def getting_on(engine: FakeEngine) -> None:
    """From now on its driver says how far it is, and that rises."""
    observe = engine.observe
    engine.observe = lambda: replace(observe(), progress=int(asyncio.get_running_loop().time()))


def standby(stage: Stage) -> FakeEngine:
    """The last that is not the primary."""
    return others(stage)[-1]


def others(stage: Stage) -> list[FakeEngine]:
    """All but the primary."""
    return [one for one in stage.engines if stage.service.node(one.name) and one is not stage.primary()]


def alone(stage: Stage) -> FakeEngine:
    """The primary, when the hosts of all others are gone."""
    for engine in others(stage):
        stage.agents[engine.node.host].die()
        engine.kill()
    return stage.primary()


async def rebuilt(stage: Stage, engine: FakeEngine, within_s: int) -> int:
    """Until it is a standby again; how many seconds that took."""
    await stage.until(lambda: stage.record().duty(engine.name).kind is DutyKind.REBUILD)
    return await seconds(lambda: stage.record().duty(engine.name).kind is DutyKind.STANDBY, within_s)


async def seconds(condition: Callable[[], bool], within_s: int) -> int:
    """Until it holds, with a look every second; how many that were."""
    for waited_s in range(within_s):
        if condition():
            return waited_s
        await asyncio.sleep(1)
    raise AssertionError(f"not within {within_s} s")


def test_a_copy_may_take_as_long_as_it_takes() -> None:
    """A copy of many minutes, of which nobody knows how far it is, is made once and to its end."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        engine = standby(stage)
        at_pace(engine, copy_s=900)
        await stage.order(1, RequestKind.REBUILD, node=engine.name)
        assert await rebuilt(stage, engine, 1500) < 950

    play(scene, POSTGRES)


def test_a_copy_that_hangs_is_begun_anew_by_order() -> None:
    """A copy that would never end is given up when a person asks for another one."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        engine = standby(stage)
        at_pace(engine, copy_s=1e9)
        await stage.order(1, RequestKind.REBUILD, node=engine.name)
        await asyncio.sleep(60)
        at_pace(engine, copy_s=1)
        await stage.order(2, RequestKind.REBUILD, node=engine.name)
        assert await rebuilt(stage, engine, 60) < 20

    play(scene, POSTGRES)


def test_a_copy_that_stands_still_is_begun_anew() -> None:
    """A driver that says how far it is, and gets no further, is told to begin again after `stall_ms`."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        engine = standby(stage)
        at_pace(engine, copy_s=1e9)
        observe = engine.observe
        engine.observe = lambda: replace(observe(), progress=7)
        await stage.order(1, RequestKind.REBUILD, node=engine.name)
        await asyncio.sleep(60)
        at_pace(engine, copy_s=1)
        assert 400 < await rebuilt(stage, engine, 1000) < 700

    play(scene, POSTGRES)


def test_a_long_recovery_is_not_killed_when_nobody_else_could_take_over() -> None:
    """Minutes of crash recovery of the only node left end in the same epoch in which it was crowned."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        engine = alone(stage)
        await asyncio.sleep(5)
        at_pace(engine, start_s=300)
        engine.kill()
        await stage.until(lambda: stage.record().primary is None, 60, write=False)
        epoch = stage.record().epoch
        await seconds(lambda: engine.promoted_epoch > 0, 900)
        assert engine.promoted_epoch == epoch

    play(scene, POSTGRES)


def test_a_recovery_that_gets_on_may_take_hours() -> None:
    """With its driver saying that it gets on, a recovery takes longer than `stall_ms`, and ends well."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        engine = standby(stage)
        at_pace(engine, start_s=700)
        getting_on(engine)
        engine.kill()
        await stage.order(1, RequestKind.REBUILD, node=engine.name)
        assert 700 < await rebuilt(stage, engine, 3000) < 2000
        await well(stage)

    play(scene, POSTGRES)


def test_what_came_about_all_the_same_has_not_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An order that was done although it was said to have failed is no failure any more once all is as it should be."""
    failed: list[Action] = []
    perform = FakeDriver.perform

    async def fail(driver: FakeDriver, action: Action) -> None:
        await perform(driver, action)
        if isinstance(action, Open):
            failed.append(action)
            raise DriverFault("It did not answer.")

    monkeypatch.setattr(FakeDriver, "perform", fail)

    async def scene(stage: Stage) -> None:
        await born(stage)
        await stage.until(lambda: stage.decoded(failed[0].node).failed_epoch == 0)
        assert len(failed) == 1

    play(scene, POSTGRES)
