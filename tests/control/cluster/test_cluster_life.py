"""The life of a cluster under the real loop: born, failed over, handed over, paused, cut off from the store."""

import asyncio
from dataclasses import replace
from math import inf

import pytest
from tests.control.cluster.stage import H1, H2, H3, NODES, ORDERS, Stage, born, play, well

from understudy.control.cluster import observer, steward
from understudy.control.cluster.ports import NodeFacts, PromiseRequest
from understudy.control.keys import cluster_record
from understudy.core.codec import encode
from understudy.core.record import Duty, DutyKind, Phase, RequestKind
from understudy.core.report import Decision, Promise, Running
from understudy.core.text import Name
from understudy.drivers.fake import MARIADB, POSTGRES, REDIS
from understudy.store.base import Put

FLAVOURS = pytest.mark.parametrize("flavour", [POSTGRES, REDIS, MARIADB], ids=lambda one: one.name)


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
        await stage.until(lambda: stage.primary() not in {None, old}, 10)
        await well(stage)
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
        await stage.until(lambda: stage.primary() not in {None, old}, 10)
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
        await stage.until(lambda: stage.primary() is target, 10)
        await well(stage)
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


def test_paused_while_its_disk_is_slow() -> None:
    """What a node has only made ready for when the cluster is paused, it does not begin."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        standby = next(engine for engine in stage.engines if engine.link is not None)
        disk = stage.disks[standby.name]
        at_once, begun = disk.save, []

        async def save(facts: NodeFacts) -> None:
            await asyncio.sleep(3)
            await at_once(facts)

        async def touch(host: Name, what: str) -> None:
            if host == standby.node.host and "Rebuild" in what:
                begun.append((what, stage.record().phase))

        disk.save, stage.doom.touch = save, touch
        await stage.order(1, RequestKind.REBUILD, node=standby.name)
        await stage.until(lambda: stage.record().duty(standby.name).kind is DutyKind.REBUILD)
        await asyncio.sleep(0.5)
        await stage.order(2, RequestKind.PAUSE)
        await stage.until(lambda: stage.record().phase is Phase.PAUSED)
        await asyncio.sleep(10)
        assert begun == []
        await stage.order(3, RequestKind.RESUME)
        await stage.until(lambda: bool(begun), 20)

    play(scene)


def test_store_away() -> None:
    """The primary goes on for as long as the store is away, on the promises of a majority of the data nodes.

    Every agent says since when the store is silent, and what it knows of who goes on.
    """

    async def scene(stage: Stage) -> None:
        await born(stage)
        old = stage.primary()
        assert not any(agent.loop.without_store() for agent in stage.agents.values())
        stage.outage(away=True)
        for _ in range(600):
            await asyncio.sleep(0.1)
            assert stage.primary() is old
        for host, agent in stage.agents.items():
            said = agent.loop.without_store()
            assert said.startswith(f"The store has not answered for 60 s: {old.name} ")
            assert ("goes on, as most nodes promise" if host == old.node.host else "promised not to take") in said
        stage.outage(away=False)
        await asyncio.sleep(10)
        assert stage.primary() is old
        assert not any(agent.loop.without_store() for agent in stage.agents.values())
        assert (stage.record().phase, stage.record().epoch) == (Phase.STEADY, 1)

    play(scene)


def test_a_promise_to_a_dead_primary_is_moot() -> None:
    """Both others have just promised; the primary is verified dead all the same, and nobody waits for the promises."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        old = stage.primary()
        request = PromiseRequest(ORDERS, stage.record().identity, 1, old.node.name, 4000)
        for node in NODES:
            if node.name != old.node.name:
                assert await stage.agents[node.host].loop.promise(node.name, request)
        old.kill()
        took_s = await stage.until(lambda: stage.primary() not in (None, old))
        assert took_s < 2.0
        assert stage.record().primary != old.node.name
        assert not stage.lost()

    play(scene)


def test_a_promise_to_a_primary_long_gone_is_moot() -> None:
    """The one promised to has been followed by another, which is verified dead: nobody waits for that promise."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        old = stage.primary()
        for agent in stage.agents.values():
            agent.loop._keepers[0].state.promise = Promise(1, inf)
        duties = (Duty(n.name, DutyKind.CLOSED if n.name == old.name else DutyKind.FROZEN) for n in NODES)
        record = replace(stage.record(), epoch=3, serial=99, phase=Phase.FENCING, primary=None, previous=old.name)
        record = replace(record, duties=tuple(duties))
        await stage.store.transact([], [Put(cluster_record(ORDERS), encode(record))])
        await stage.until(lambda: stage.primary() not in (None, old), 2.0)

    play(scene)


def test_a_steward_probes_whatever_it_saw_when_it_was_steward_before() -> None:
    """Who decided last while nobody had the part, and decides again as the primary is lost, asks its engine anew."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        old = stage.primary()
        others = [agent for agent in stage.agents.values() if agent.host != old.node.host]
        await stage.until(lambda: any(agent.loop.steward.holding for agent in others))
        holder, next_one = sorted(others, key=lambda agent: not agent.loop.steward.holding)
        next_one.loop.steward._probe_s = inf
        holder.die()
        stage.agents[old.node.host].die()
        old.kill()
        await stage.until(lambda: next_one.loop.steward.holding, 10, write=False)
        stage.start(holder.host)
        await stage.until(lambda: stage.primary() not in (None, old), 30)

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
        assert f"{old.name} takes no writes" in stage.agents[old.node.host].loop.without_store()

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
        await stage.until(lambda: stage.primary() not in {None, old}, 15)
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
        await well(stage)
        assert len(stage.lost()) <= 1
        assert stage.record().duty(old.name).kind is DutyKind.STANDBY

    play(scene, REDIS)


def test_quiet_is_cheap(monkeypatch) -> None:
    """In steady times nothing is decided and nothing encoded anew; few ticks do for three hosts."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        await asyncio.sleep(20)
        decided, encoded = [], []
        monkeypatch.setattr(steward, "decide_on", lambda view, now: decided.append(now) or Decision(view.record))
        monkeypatch.setattr(observer, "encode", lambda value: encoded.append(value) or encode(value))
        ticks = stage.ticks
        await asyncio.sleep(100)
        assert stage.ticks - ticks <= 900
        assert len(decided) <= 100 / (stage.service.timers.drop_ms / 1000) + 1
        assert not encoded

    play(scene)
