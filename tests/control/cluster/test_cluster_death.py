"""I8: any agent may die before or after any effect, and the others, or the next in its place, go on from there."""

import asyncio
import itertools

import pytest
from tests.control.cluster.stage import Stage, born, play, well

from understudy.core.record import RequestKind
from understudy.drivers.fake import MARIADB, POSTGRES

PARTS = 4


async def no_accident(stage: Stage) -> None:
    stage.doom.armed = True
    stage.start()


async def engine_killed(stage: Stage) -> None:
    await born(stage)
    stage.doom.armed = True
    stage.primary().kill()
    await asyncio.sleep(0.01)


async def handed_over(stage: Stage) -> None:
    await born(stage)
    stage.doom.armed = True
    target = next(engine for engine in stage.engines if engine is not stage.primary())
    await stage.order(1, RequestKind.SWITCHOVER, node=target.name)
    await asyncio.sleep(0.01)


def run(story, flavour, at: int) -> str:
    """Play the story with a death at that moment; who died of it."""
    struck = []

    async def scene(stage: Stage) -> None:
        stage.doom.at = at
        await story(stage)
        await well(stage)
        stage.doom.armed = False
        await asyncio.sleep(1)
        await well(stage)
        assert not stage.lost(), stage.doom.struck
        struck.append(stage.doom.struck)

    try:
        play(scene, flavour)
    except AssertionError as error:
        raise AssertionError(f"death at {at}: {error}") from error
    return struck[0]


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("flavour", [POSTGRES, MARIADB], ids=lambda flavour: flavour.name)
@pytest.mark.parametrize("story", [no_accident, engine_killed, handed_over], ids=lambda story: story.__name__)
def test_death_at_any_effect(story, flavour, part) -> None:
    """Whenever an agent dies, the cluster becomes steady again with everybody streaming, and nothing is lost."""
    for at in itertools.count(part + 1, PARTS):
        if not run(story, flavour, at):
            assert at > 10, "the story has effects"
            return  # the story was over before
