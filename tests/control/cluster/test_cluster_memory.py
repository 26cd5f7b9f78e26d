"""What a node still knows of itself when its agent is a new one."""

import asyncio

from tests.control.cluster.stage import Stage, born, play, well

from understudy.core.record import DutyKind
from understudy.drivers.fake import POSTGRES, REDIS


def host_crash(stage: Stage) -> None:
    """The primary's agent and engine end together; nobody is left to see how far it had come."""
    old = stage.primary()
    stage.agents[old.node.host].die()
    old.kill()


def test_less_data_after_host_crash() -> None:
    """A disk that comes back with less, agent and engine having died together, is no primary, whoever else is heard."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        await asyncio.sleep(1)  # what was written within the last report's time is in no report
        old = stage.primary()
        for agent in stage.agents.values():
            agent.die()
        host_crash(stage)
        old.lose(10)
        stage.start(old.node.host)
        await stage.until(lambda: stage.decoded(old.name).less_data, 60)
        await asyncio.sleep(30)
        assert stage.primary() is None
        stage.start(*(node.host for node in stage.service.nodes if node.name != old.name))
        await well(stage)
        assert not stage.lost()

    play(scene, POSTGRES)


def test_all_data_after_host_crash() -> None:
    """One that comes back with everything is taken as it is: what it had told is no reason to copy it anew."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        old = stage.primary()
        rebuilt = stage.disks[old.name].facts.rebuilt
        host_crash(stage)
        stage.start(old.node.host)
        await stage.until(lambda: stage.record().epoch > 1, 20)
        await well(stage)
        assert stage.disks[old.name].facts.rebuilt == rebuilt
        assert not stage.disks[old.name].facts.less_data

    play(scene, POSTGRES)


def test_moved_data_is_not_less_data() -> None:
    """What a rebuild was seen to do to a node in its midst is not held against it afterwards, by a new agent either."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        old = stage.primary()
        old.kill()
        old.lose(10)
        await stage.until(lambda: stage.primary() not in {None, old}, 20)
        await well(stage)
        stage.agents[old.node.host].die()
        stage.start(old.node.host)
        await asyncio.sleep(5)
        await well(stage)
        assert stage.record().duty(old.name).kind is DutyKind.STANDBY
        assert not stage.disks[old.name].facts.less_data

    play(scene, REDIS)
