"""What must be refused: records that cannot be used, older epochs, promises that cannot be kept."""

import asyncio
from dataclasses import replace

import pytest
from tests.control.cluster.stage import ORDERS, A, B, C, Stage, born, play, well

from understudy.control import keys
from understudy.control.cluster.node_state import FileDisk
from understudy.control.cluster.ports import NodeFacts, PromiseRequest
from understudy.core.codec import decode, encode
from understudy.core.errors import Fault
from understudy.core.lineage import Branch, Position
from understudy.core.record import ClusterRecord
from understudy.core.text import Name
from understudy.store.base import Put


def corrupt(data: bytes) -> bytes:
    return data[:-20]


def unknown_version(data: bytes) -> bytes:
    return data.replace(b'"format":1', b'"format":99', 1)


def another_name(data: bytes) -> bytes:
    return encode(replace(decode(ClusterRecord, data), cluster=Name("wages")))


def another_identity(data: bytes) -> bytes:
    record = decode(ClusterRecord, data)
    return encode(replace(record, identity="of-another-cluster", epoch=record.epoch + 5, serial=record.serial + 50))


@pytest.mark.parametrize("spoil", [corrupt, unknown_version, another_name, another_identity])
def test_unusable_record(spoil) -> None:
    """A record that cannot be used is left as it is to the byte, whatever happens; the primary goes on as it was."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        old, key = stage.primary(), keys.cluster_record(ORDERS)
        good = stage.store._items[key].value
        bad = spoil(good)
        await stage.store.transact([], [Put(key, bad)])
        for _ in range(200):
            await asyncio.sleep(0.1)
            assert stage.primary() is old
        stage.agents[old.node.host].die()
        stage.start(old.node.host)
        await asyncio.sleep(3)
        old.kill()
        await asyncio.sleep(20)
        assert stage.store._items[key].value == bad
        assert stage.primary() is None
        assert any(agent.loop.refused for agent in stage.agents.values())
        await stage.store.transact([], [Put(key, good)])
        await well(stage)
        assert not stage.lost()

    play(scene)


def test_older_epoch() -> None:
    """A record of an older epoch, out of an old backup, is not obeyed by a node that has seen a newer one."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        key = keys.cluster_record(ORDERS)
        old_record = stage.store._items[key].value
        first = stage.primary()
        first.kill()
        await stage.until(lambda: stage.primary() not in {None, first})
        await well(stage)
        second, epoch = stage.primary(), stage.record().epoch
        for agent in stage.agents.values():
            agent.die()
        await stage.store.transact([], [Put(key, old_record)])
        stage.start()
        for _ in range(100):
            await asyncio.sleep(0.1)
            assert not first.open or first.promoted_epoch > epoch
        await well(stage)
        assert stage.record().epoch >= epoch
        assert not stage.lost()
        assert stage.primary() is second or stage.primary().promoted_epoch > epoch

    play(scene)


def ask(stage: Stage, **words) -> PromiseRequest:
    identity = stage.disks[A].facts.identity
    return PromiseRequest(
        **{"cluster": ORDERS, "identity": identity, "epoch": 1, "primary": A, "duration_ms": 4000} | words
    )


def test_promises() -> None:
    """A node promises only what it can keep: nothing to another cluster, a past epoch, or for too long."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        primary = stage.primary().name
        node, other = (name for name in (A, B, C) if name != primary)
        loop = stage.agents[stage.service.node(node).host].loop
        assert await loop.promise(node, ask(stage, primary=primary))
        assert not await loop.promise(node, ask(stage, primary=primary, identity="another"))
        assert not await loop.promise(node, ask(stage, primary=primary, cluster=Name("wages")))
        assert not await loop.promise(node, ask(stage, primary=primary, epoch=0))
        assert not await loop.promise(node, ask(stage, primary=primary, duration_ms=60_000))
        assert not await loop.promise(other, ask(stage, primary=primary))

    play(scene)


def test_promise_outlives_the_agent() -> None:
    """A node that has promised freezes for nobody until that time has passed, also when its agent was started anew."""

    async def scene(stage: Stage) -> None:
        await born(stage)
        primary = stage.primary()
        bound = [name for name in (A, B, C) if name != primary.name]
        for name in bound:
            host = stage.service.node(name).host
            assert await stage.agents[host].loop.promise(name, ask(stage, primary=primary.name))
            stage.agents[host].die()
            stage.start(host)
        stage.agents[primary.node.host].die()
        stage.cut(primary.node.host, [stage.service.node(name).host for name in bound])
        took_s = await stage.until(lambda: stage.primary() not in {None, primary}, 20)
        assert took_s >= 3.9, "the lease of 4 s and a little, from the promise on"

    play(scene)


async def test_facts_on_disk(tmp_path) -> None:
    """What a node must remember is there after a restart; what cannot be read is a fault, never an empty node."""
    path = tmp_path / "node"
    assert await FileDisk(path).load() == NodeFacts()
    facts = NodeFacts("shop-1", 7, 90, reached=Position((Branch("1", 0),), 5))
    disk = FileDisk(path)
    await disk.save(replace(facts, epoch=6))
    await disk.save(facts)
    assert await FileDisk(path).load() == facts
    path.write_bytes(b"{")
    with pytest.raises(Exception, match="cannot be read"):
        await FileDisk(path).load()
    path.unlink()
    path.mkdir()
    with pytest.raises(Fault):
        await FileDisk(path).load()
