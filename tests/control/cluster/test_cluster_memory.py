"""What a node still knows of itself when its agent is a new one."""

import asyncio
from dataclasses import replace

from tests.control.cluster.stage import NODES, Stage, born, play, well

from understudy.control.cluster.ports import NodeFacts
from understudy.core.lineage import Branch, Position, contains, promoted_from
from understudy.core.record import Duty, DutyKind
from understudy.core.report import Running
from understudy.core.text import Name
from understudy.drivers.fake import POSTGRES, REDIS, FakeEngine


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


def test_agent_restarted_without_store() -> None:
    """A primary whose agent is started anew while the store is away goes on by promises; without them it does not."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        primary = stage.primary()
        stage.outage(away=True)
        await asyncio.sleep(3)
        stage.agents[primary.node.host].die()
        stage.start(primary.node.host)
        for _ in range(60):
            await asyncio.sleep(1)
            assert primary.open
        others = [node.host for node in stage.service.nodes if node.name != primary.name]
        stage.cut(primary.node.host, others)
        await stage.until(lambda: not primary.open, 10, write=False)
        stage.heal()
        stage.outage(away=False)
        await well(stage)
        assert not stage.lost()

    play(scene, POSTGRES)


def test_promises_are_asked_of_those_that_count_now() -> None:
    """What a new agent would have to know is on the disk before the old one says that it has read it."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        primary, facts = stage.primary(), stage.disks[stage.primary().name]
        assert facts.facts.electorates == stage.record().electorates
        gone = next(node for node in stage.service.nodes if node.name != primary.name)
        stage.agents[gone.host].die()
        stage.engines[gone.name].kill()

        def changed() -> bool:
            record, told = stage.record(), stage.decoded(primary.name).record_serial
            assert told < record.electorate_serial or record.electorates[-1] in facts.facts.electorates
            return len(record.electorates) == 1 and gone.name not in record.electorates[-1]

        await stage.until(changed, 60)
        await asyncio.sleep(2)
        assert facts.facts.electorates == stage.record().electorates

    play(scene, POSTGRES)


def test_less_data_after_a_promotion_that_was_cut_short() -> None:
    """A candidate whose machine dies as its promotion begins, and whose disk comes back with less, does not win."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        await asyncio.sleep(1)  # everybody has told how far it is
        stage.primary().kill()
        lives = stage.doom.touch

        async def touch(host: Name, what: str) -> None:
            if what == "before Promote" and not struck:
                struck.append(next(engine for engine in stage.engines if engine.node.host == host))
                stage.agents[host].die()
                struck[0].kill()
                struck[0].lose(10)
                stage.start(host)
                await asyncio.sleep(3600)  # the cancellation of a dead agent's work comes here
            await lives(host, what)

        struck: list[FakeEngine] = []
        stage.doom.touch = touch
        await stage.until(lambda: bool(struck) and stage.disks[struck[0].name].facts.less_data, 20)
        await well(stage)
        assert not stage.lost()

    play(scene, POSTGRES)


def test_less_data_after_a_promotion_that_nobody_was_told_of() -> None:
    """What a node had before its promotion is asked of it afterwards, though the store has not heard of it since."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        await asyncio.sleep(1)
        only = stage.primary()
        only.kill()
        await stage.until(lambda: only.promoted_epoch > 1, 30, write=False)
        stage.outage(away=True)
        stage.agents[only.node.host].die()
        only.kill()
        only.lose(20)
        stage.outage(away=False)
        told = stage.store._items
        for key in [key for key in told if key.endswith(f"/reports/{only.name}")]:
            del told[key]
        stage.start(only.node.host)
        await stage.until(lambda: stage.disks[only.name].facts.less_data, 60, write=False)

    play(scene, REDIS, nodes=NODES[:1])


def test_less_data_after_an_engine_that_hung_was_told_to_follow() -> None:
    """To follow its own primary again loses nothing, also where an engine that hangs cannot say how far it is."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        await asyncio.sleep(1)
        primary = stage.primary()
        standby = next(engine for engine in stage.engines if engine.link and engine.link.source is primary)
        facts = stage.disks[standby.name]
        reached = stage.decoded(standby.name).position
        stage.outage(away=True)
        primary.kill()
        standby.kill()  # it is started anew, hears nobody, and is told to follow again and again
        await stage.until(lambda: standby.running is Running.UP, 10, write=False)
        await asyncio.sleep(1)
        standby.stop()
        await asyncio.sleep(10)
        assert facts.facts.moves == stage.decoded(standby.name).moves
        assert contains(facts.facts.reached, reached)
        stage.agents[standby.node.host].die()
        standby.kill()
        standby.lose(20)
        stage.outage(away=False)
        stage.start(standby.node.host)
        await stage.until(lambda: facts.facts.less_data, 60, write=False)

    play(scene, POSTGRES)


def test_a_promotion_that_ends_before_a_torn_record_is_not_less_data() -> None:
    """What was received of a record that never came as a whole is no history: whoever was promoted has not lost it."""
    received = Position((Branch("1", 0),), 1800)
    assert promoted_from(Position((Branch("1", 0), Branch("2", 1795)), 1900), received)
    assert not promoted_from(Position((Branch("1", 0),), 1795), received)
    assert not promoted_from(Position((Branch("1", 10), Branch("2", 1795)), 1900), received)


def test_company_is_that_of_the_newest_record() -> None:
    """A record of a store that was put back does not bring back those who had a duty once: nobody waits for them."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        old = replace(stage.record(), duties=(*stage.record().duties, Duty(Name("gone"), DutyKind.ABSENT)))
        keeper = stage.agents[stage.primary().node.host].loop._keepers[0]
        knew = keeper.state.company
        keeper.heard(replace(old, serial=old.serial - 1))
        assert keeper.state.company == knew
        keeper.heard(replace(old, serial=old.serial + 1))
        assert "gone" in keeper.state.company

    play(scene, POSTGRES)


def test_what_an_emptied_primary_had_is_its_last_word() -> None:
    """A loss is bounded by what a primary told last, though its disk, and what its agent kept there, is new."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        await asyncio.sleep(1)
        old, had = stage.primary(), stage.decoded(stage.primary().name).position
        for agent in stage.agents.values():
            agent.die()
        old.wipe()
        stage.disks[old.name].facts = NodeFacts()
        for start in (lambda: stage.start(old.node.host), stage.start):  # and by a second agent, too
            start()
            await stage.until(lambda: stage.decoded(old.name).empty, 60)
            assert stage.decoded(old.name).had == had
        await stage.until(lambda: stage.record().epoch > 1, 60)
        assert stage.record().known == had
        await well(stage)

    play(scene, REDIS)


def test_what_a_disk_lost_is_the_last_word_too() -> None:
    """A disk that lacks even what was remembered on it, noticed before the store was heard: its last word counts."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        await asyncio.sleep(1)  # everybody has told how far it is
        old = stage.primary()
        disk, reached = stage.disks[old.name], stage.decoded(old.name).position
        await stage.until(lambda: stage.decoded(old.name).position != reached)
        had = stage.decoded(old.name).position
        for agent in stage.agents.values():
            agent.die()
        old.kill()
        old.lose(1_000_000)
        old.data.clean = True  # so that it can be told how far it goes before it runs
        disk.facts = replace(disk.facts, reached=reached)
        stage.outage(away=True)
        stage.start(old.node.host)
        await stage.until(lambda: disk.facts.less_data, 60, write=False)
        stage.outage(away=False)
        await stage.until(lambda: stage.decoded(old.name).less_data, 60, write=False)
        assert stage.decoded(old.name).had == had

    play(scene, POSTGRES)
