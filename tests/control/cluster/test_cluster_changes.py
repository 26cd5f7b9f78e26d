"""A new spec while the loop runs: nodes come and go, durability changes, and agents hear of it at different times."""

import asyncio
from dataclasses import replace

import pytest
from tests.control.cluster.stage import (
    H1,
    H2,
    H3,
    H4,
    NODES,
    ORDERS,
    SPARE,
    A,
    B,
    D,
    Stage,
    all_stream,
    born,
    play,
    well,
)

from understudy.control.cluster.ports import PromiseRequest
from understudy.core.cluster import Durability, Node, Timers
from understudy.core.errors import Refused
from understudy.core.record import DutyKind, Phase
from understudy.core.report import Running
from understudy.core.text import Name


def settled(stage: Stage) -> bool:
    """Whether the record knows the nodes of the spec and no others, and all rules are of them."""
    record, names = stage.record(), {node.name for node in stage.service.nodes}
    known = {duty.node for duty in record.duties}
    counted = set().union(*(rule.voters for rule in record.sync), *record.electorates)
    return record.phase is Phase.STEADY and known == names and counted <= names and len(record.sync) == 1


def test_node_added() -> None:
    """A node that is added to a running cluster is copied, follows, acknowledges and promises; writes go on."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        stage.apply(nodes=(*NODES, *SPARE))
        await stage.until(lambda: settled(stage) and D in stage.record().sync[-1].voters)
        record = stage.record()
        assert record.epoch == 1
        assert D in record.electorates[-1]
        assert stage.disks[D].facts.identity == record.identity

    play(scene)


@pytest.mark.parametrize("late", [(), (H1,), (H2,), (H3,), (H1, H2)], ids=str)
def test_node_removed(late) -> None:
    """A standby that leaves is stopped and then let go, whoever hears of it last; nothing acknowledged is lost."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        leaver = next(engine for engine in stage.engines if engine is not stage.primary() and engine.name != D)
        nodes = tuple(node for node in NODES if node.name != leaver.name)
        stage.apply(*(host for host in (H1, H2, H3) if host not in late), nodes=nodes)
        await asyncio.sleep(5)
        for host in late:
            stage.agents[host].loop.change(stage.service)
        await stage.until(lambda: settled(stage) and leaver.name not in stage.kept[leaver.node.host])
        assert leaver.running is Running.DEAD
        assert not stage.lost()
        await well(stage)

    play(scene)


def test_primary_removed() -> None:
    """A primary that leaves the spec hands over first; it is stopped, and let go, afterwards."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        old = stage.primary()
        stage.apply(nodes=(*(node for node in NODES if node.name != old.name), *SPARE))
        await stage.until(lambda: settled(stage) and not stage.kept[old.node.host], 60)
        assert stage.primary() not in {None, old}
        assert old.running is Running.DEAD
        assert not stage.lost()
        await well(stage)

    play(scene)


def test_writes_go_on_while_a_voter_is_replaced() -> None:
    """The only standby leaves as another is added: it acknowledges until the new one does, so no write waits."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        primary = stage.primary()
        leaver, waits = (engine for engine in stage.engines if engine.name in {A, B} and engine is not primary), []
        leaver = next(leaver)
        stage.world.cuts |= {(H4, primary.node.host)}  # the copy has to wait
        stage.apply(nodes=(primary.node, *SPARE))
        for _ in range(100):
            before = len(stage.acked)
            stage.write()
            await asyncio.sleep(0.1)
            waits.append(len(stage.acked) == before)
        assert not any(waits)
        stage.heal()
        await stage.until(lambda: settled(stage) and leaver.running is Running.DEAD, 60)
        assert not stage.lost()

    play(scene, nodes=NODES)


def test_removed_node_comes_back() -> None:
    """A node that was forgotten while its host was away, and is added again, rejoins before it is one of us."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        old = stage.primary()
        stage.agents[old.node.host].die()
        old.kill()
        await stage.until(lambda: stage.primary() not in {None, old})
        stage.apply(
            *(node.host for node in NODES if node.name != old.name),
            nodes=tuple(node for node in NODES if node.name != old.name),
        )
        await stage.until(lambda: settled(stage), 120)
        await stage.until(lambda: len(stage.acked) > 200)
        stage.service = replace(stage.service, version=2, nodes=NODES)
        for host in (H1, H2, H3):
            if host == old.node.host:
                stage.start(host)
            else:
                stage.agents[host].loop.change(stage.service)
        seen = []

        def back() -> bool:
            duty = stage.record().duty(old.name)
            seen.append(duty.kind if duty else None)
            return settled(stage) and all_stream(stage)

        await stage.until(back, 60)
        kinds = [kind for kind in seen if kind is not None]
        assert kinds[0] in {DutyKind.REJOIN, DutyKind.REBUILD}
        assert not stage.lost()

    play(scene)


def test_durability_changed() -> None:
    """Loosened under load and tightened again; what was acknowledged as never to be lost is in every later primary."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        steward = next(host for host, agent in stage.agents.items() if agent.loop.steward.holding)
        stage.apply(steward, durability=Durability(1_000_000))  # the others hear of it much later
        await stage.until(lambda: stage.record().sync[-1].acks == 0 and len(stage.record().sync) == 1)
        promised = [write.id for _, write in stage.acked][:20]
        old = stage.primary()
        old.kill()
        await stage.until(lambda: stage.primary() not in {None, old})
        assert not [one for one in stage.lost() if one in promised]
        stage.apply(durability=Durability(None, 2))
        await well(stage)
        await stage.until(lambda: settled(stage) and stage.record().sync[-1].acks == 2, 60)
        stage.acked.clear()
        second = stage.primary()
        await stage.until(lambda: len(stage.acked) > 50)
        second.kill()
        await stage.until(lambda: stage.primary() not in {None, second})
        assert not stage.lost()

    play(scene)


def test_older_spec_decides_nothing() -> None:
    """Who has an older spec than the record gives up the right to decide, and takes it again with the newer one."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        steward = next(host for host, agent in stage.agents.items() if agent.loop.steward.holding)
        others = [host for host in (H1, H2, H3) if host != steward]
        stage.apply(*others, durability=Durability(None, 2))
        await asyncio.sleep(1)
        assert stage.record().spec == 0, "whoever decides has not heard of it"
        stage.agents[steward].die()
        await stage.until(lambda: stage.record().spec == 1)
        stage.service = replace(stage.service, version=0, durability=Durability(None, 1))
        stage.start(steward)
        for host in others:
            stage.agents[host].die()
        await asyncio.sleep(20)
        assert "version 1" in stage.agents[steward].loop.refused
        assert stage.record().sync[-1].acks == 2
        stage.agents[steward].loop.change(replace(stage.service, version=1, durability=Durability(None, 2)))
        await stage.until(lambda: stage.agents[steward].loop.steward.holding)
        assert not stage.agents[steward].loop.refused

    play(scene)


def test_refused() -> None:
    """Timers that cannot be kept or would change, a node that moves and an older spec are refused; all goes on."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        loop, service = stage.agents[H1].loop, replace(stage.service, version=1)
        moved = (Node(A, Name("h9")), *NODES[1:])
        for wrong, said in (
            (replace(service, timers=Timers(lease_ms=3000)), "must not exceed the lease of 3000 ms"),
            (replace(service, timers=Timers(lease_ms=9000)), "cannot change while its agent runs"),
            (replace(service, nodes=moved), "a of orders cannot move from h1 to h9"),
            (replace(service, version=0, durability=Durability(None, 2)), "came after version 0"),
        ):
            with pytest.raises(Refused, match=said):
                loop.change(wrong)
            assert loop.version == 0
        loop.change(stage.service)
        await stage.until(lambda: len(stage.acked) > 100)

    play(scene)


def test_impossible_timers() -> None:
    """An agent does not begin with timers that cannot be kept."""

    async def scene(stage: Stage) -> None:
        with pytest.raises(Refused, match="renew \\+ 2 x timeout \\+ margin is 4000 ms"):
            stage.start(H1)

    play(scene, timers=Timers(lease_ms=3999))


def test_longer_promise_outlives_a_shorter_lease() -> None:
    """An agent that is started anew with a shorter lease keeps what it promised under the longer one, to the end."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        primary = stage.primary()
        bound = next(node for node in NODES if node.name != primary.name)
        identity = stage.disks[bound.name].facts.identity
        request = PromiseRequest(ORDERS, identity, 1, primary.name, 4000)
        assert await stage.agents[bound.host].loop.promise(bound.name, request)
        stage.agents[bound.host].die()
        stage.service = replace(stage.service, timers=Timers(1000, 200, 200, 200))
        stage.start(bound.host)
        state = stage.agents[bound.host].loop._keepers[0].state
        await stage.until(lambda: state.loaded)
        assert state.promise.until_s - asyncio.get_running_loop().time() > 3.9

    play(scene)
