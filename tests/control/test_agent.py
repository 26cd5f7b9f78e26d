"""The agent on a memory store and a fake proxy: starting, changing the spec, draining, ending."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.control.stage import TEXT, W1, W2, WEB, Stage

from understudy.control.processes import Process, members
from understudy.control.view import Operator
from understudy.core.errors import Fault, Refused
from understudy.core.events import EventKind
from understudy.core.objectives import ServiceHealth
from understudy.core.pools import Admin, Oper
from understudy.spec.faults import SpecFaults

LESS = TEXT.replace('      - {name: w3, address: "127.0.0.1:19103"}\n', "")
MOVED = TEXT.replace("127.0.0.1:18081", "127.0.0.1:18082")


async def eventually(true: Callable[[], object]) -> None:
    for _ in range(1000):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not within 10 s")


async def seen(stage: Stage, operator: Operator) -> None:
    """Let the agent look for the first time."""
    await stage.clock.advance(1)
    for _ in range(10_000):
        if (await operator.status()).services[0].health is not ServiceHealth.UNKNOWN:
            return
        await asyncio.sleep(0.001)
    raise AssertionError("the agent never looked")


async def test_starts_shows_and_ends_everything(stage: Stage) -> None:
    """An agent that is left has ended the router; what happened is in the journal, in order."""
    async with stage.agent() as agent:
        await seen(stage, agent)
        status = await agent.status()
        assert (status.cluster, status.version, status.router.healthy) == ("shop", 1, True)
        assert [each.oper for each in status.services[0].endpoints] == [Oper.UP] * 3
        assert (await agent.why("web"))[0].startswith("web is up")
        with pytest.raises(Refused, match="There is no service 'shop'"):
            await agent.why("shop")
    assert stage.proxy.state is None
    kinds = [entry.event.kind for entry in await stage.entries()]
    assert kinds[:3] == [EventKind.AGENT_STARTED, EventKind.SPEC_APPLIED, EventKind.ROUTER_STARTED]
    assert kinds[-1] is EventKind.AGENT_STOPPED


async def test_the_next_agent_adopts_and_what_was_ordered_holds(stage: Stage) -> None:
    """An agent that lets go leaves the router alone; the next adopts it with every order, and makes no new version."""
    first = stage.agent()
    await first.start()
    await first.set_admin("web", "w2", Admin.MAINT)
    await first.set_weight("web", "w1", 7)
    await first.detach()
    pid = stage.proxy.pid
    async with stage.agent() as second:
        await seen(stage, second)
        assert stage.proxy.pid == pid
        endpoints = {each.name: each for each in (await second.status()).services[0].endpoints}
        assert (endpoints["w2"].admin, endpoints["w1"].weight) == (Admin.MAINT, 7)
        assert [version.number for version in await second.versions()] == [1]
    assert await stage.count(EventKind.ROUTER_ADOPTED) == 1


async def test_a_changed_file_is_a_new_version_at_the_next_start(stage: Stage) -> None:
    """The file that the agent is started with is what holds, and what held before can be gone back to."""
    async with stage.agent():
        pass
    async with stage.agent(LESS) as agent:
        assert [version.number for version in await agent.versions()] == [2, 1]
        assert len((await agent.status()).services[0].endpoints) == 2
        change = await agent.rollback(None)
        assert (change.from_version, change.to_version) == (2, 1)
        assert len((await agent.status()).services[0].endpoints) == 3
    assert await stage.count(EventKind.SPEC_ROLLED_BACK) == 1


async def test_plan_changes_nothing_and_says_what_apply_then_does(stage: Stage) -> None:
    """Plan and apply tell the same changes; an order for an endpoint that stays is kept, the rest dropped."""
    async with stage.agent() as agent:
        await agent.set_admin("web", "w2", Admin.DRAIN)
        await agent.set_admin("web", "w3", Admin.MAINT)
        before = stage.proxy.state
        plan = await agent.plan(MOVED.replace("19101", "19109").replace(LESS[-1:], "\n"))
        assert stage.proxy.state is before
        assert (plan.from_version, plan.to_version) == (1, None)
        assert plan.reload
        assert (await agent.plan(TEXT)).changes == ()
        plan = await agent.plan(LESS)
        change = await agent.apply(LESS)
        assert (change.changes, change.reload) == (plan.changes, plan.reload)
        assert change.to_version == (await agent.status()).version == 2
        endpoints = {each.name: each.admin for each in (await agent.status()).services[0].endpoints}
        assert endpoints == {"w1": Admin.READY, "w2": Admin.DRAIN}
        assert (await agent.apply(LESS)).to_version == 2


async def test_a_spec_that_the_router_refuses_does_not_come_into_force(stage: Stage) -> None:
    """The old spec stays in force, in the store too; the journal says why, and a better one is applied afterwards."""
    async with stage.agent() as agent:
        before = stage.proxy.state
        stage.proxy.refusal = "service 'web' cannot listen on 127.0.0.1:18082: another program does"
        with pytest.raises(Fault, match="another program does"):
            await agent.apply(MOVED)
        assert stage.proxy.state == before
        assert (await agent.status()).version == 1
        assert (await agent.status()).services[0].listen == "127.0.0.1:18081"
        stage.proxy.refusal = None
        assert (await agent.apply(LESS)).to_version == 3
        change = await agent.rollback(None)
        assert change.to_version == 1, "back to what was in force, not to what was refused"
        with pytest.raises(Refused, match="no version before 1"):
            await agent.rollback(None)
        with pytest.raises(Refused, match="no version 9"):
            await agent.rollback(9)
    assert await stage.count(EventKind.ROUTER_REFUSED) == 1
    async with stage.agent() as agent:
        assert (await agent.status()).version == 1


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (TEXT.replace("cluster: shop", "cluster: other"), "cluster's name"),
        (TEXT + "api: 127.0.0.1:18601\n", "API's address"),
    ],
)
async def test_what_cannot_change_while_the_agent_runs_is_refused(stage: Stage, text: str, what: str) -> None:
    """Cluster and API address stay for as long as the agent runs; nothing is stored of such a spec."""
    async with stage.agent() as agent:
        for verb in (agent.plan, agent.apply):
            with pytest.raises(Refused, match=what):
                await verb(text)
        assert len(await agent.versions()) == 1


async def test_a_faulty_spec_is_refused_with_all_its_faults(stage: Stage) -> None:
    """What cannot be read is told fault by fault, and leaves everything as it was."""
    async with stage.agent() as agent:
        with pytest.raises(SpecFaults) as faults:
            await agent.apply(TEXT.replace("kind: http", "kind: htttp").replace("w2,", "w1,"))
        assert len(faults.value.faults) == 2
        assert len(await agent.versions()) == 1


async def test_drain_says_when_it_is_safe_to_stop(stage: Stage) -> None:
    """Not while it gets new work, not while anything is in flight, and then it is."""
    async with stage.agent() as agent:
        stage.proxy.sessions[WEB, W1] = 2
        assert not (await agent.progress("web", "w2")).safe_to_stop
        await agent.set_admin("web", "w1", Admin.DRAIN)
        progress = await agent.progress("web", "w1")
        assert (progress.sessions, progress.safe_to_stop) == (2, False)
        assert progress.reason == "2 connections are still in flight on w1 of web."
        stage.proxy.sessions.clear()
        assert (await agent.progress("web", "w1")).safe_to_stop
        with pytest.raises(Refused, match="no endpoint 'w9'"):
            await agent.progress("web", "w9")


async def test_news_from_the_router_is_seen_at_once(stage: Stage) -> None:
    """The router's news makes the agent look before its next look is due (the clock moves but 0.1 s)."""
    async with stage.agent() as agent:
        await seen(stage, agent)
        await stage.clock.advance(0.2)
        stage.proxy.fail(WEB, W2)
        await stage.clock.advance(0.1)
        assert (await agent.status()).services[0].endpoints[1].oper is Oper.DOWN


async def test_a_death_of_the_proxy_is_in_the_journal(stage: Stage) -> None:
    """What the router says of itself is kept, under its kind."""
    async with stage.agent() as agent:
        await seen(stage, agent)
        stage.proxy.kill()
        await stage.clock.advance(0.1)
    assert await stage.count(EventKind.ROUTER_DIED) == 1


RUN = TEXT.replace('19102"}', '19102", run: [sleep, "1012"]}')


def running(run_dir: Path) -> tuple[int, ...]:
    process = Process.find(run_dir / "web.w2.state")
    return members(process.identity) if process else ()


async def test_the_end_takes_commands_along_also_when_the_router_will_not_end(stage: Stage) -> None:
    """One part that cannot be ended keeps none of the others from it, and the fault is told."""
    agent = stage.agent(RUN)
    await agent.start()
    assert running(stage.run_dir)

    async def fail() -> None:
        raise Fault("the router does not end")

    agent._router.stop = fail
    with pytest.raises(Fault, match="does not end"):
        await agent.stop()
    assert not running(stage.run_dir)
    assert await stage.count(EventKind.AGENT_STOPPED) == 1


async def test_an_interrupted_end_is_still_an_end(stage: Stage) -> None:
    """Whoever cancels the agent, twice even, gets everything ended that it started."""

    async def live() -> None:
        async with stage.agent(RUN):
            await asyncio.sleep(1000)

    life = asyncio.create_task(live())
    await eventually(lambda: running(stage.run_dir))
    for _ in range(3):
        life.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await life
    assert not running(stage.run_dir)
    assert stage.proxy.state is None


async def test_a_start_that_fails_leaves_nothing_behind(stage: Stage) -> None:
    """When the router cannot start, no command runs; when it was adopted, it goes on as it was."""
    stage.proxy.refusal = "there is no HAProxy"
    with pytest.raises(Fault, match="no HAProxy"):
        await stage.agent(RUN).start()
    assert not running(stage.run_dir)
    stage.proxy.refusal = None
    first = stage.agent(RUN)
    await first.start()
    await first.detach()
    stage.proxy.refusal = "bad configuration"
    with pytest.raises(Fault, match="bad configuration"):
        await stage.agent(MOVED).start()
    assert stage.proxy.state is not None
    assert running(stage.run_dir)
    stage.proxy.refusal = None
    async with stage.agent(RUN):
        pass
    assert not running(stage.run_dir)


async def test_a_command_ends_only_when_nothing_is_in_flight_on_its_endpoint(stage: Stage) -> None:
    """A changed command is restarted after its endpoint was drained; it lives while work is in flight there."""
    async with stage.agent(RUN) as agent:
        [before] = running(stage.run_dir)
        stage.proxy.sessions[WEB, W2] = 1
        applying = asyncio.create_task(agent.apply(RUN.replace("1012", "1013")))
        for _ in range(20):
            await stage.clock.advance(0.05)
        assert running(stage.run_dir) == (before,)
        assert slot_admin(stage) is Admin.DRAIN
        stage.proxy.sessions.clear()
        while not applying.done():
            await stage.clock.advance(0.05)
        await applying
        [after] = running(stage.run_dir)
        assert after != before
        assert slot_admin(stage) is Admin.READY


def slot_admin(stage: Stage) -> Admin:
    assert stage.proxy.state is not None
    return next(slot.admin for slot in stage.proxy.state.routes[0].primary.slots if slot.endpoint == W2)
