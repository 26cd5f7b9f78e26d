"""What a bad surrounding gets: one sentence that says what to do, and the running HAProxy goes on."""

import os
import resource
from dataclasses import replace
from pathlib import Path

import pytest
from tests.routing import CHECKS, HOST, Backend, desired, eventually, free_ports, get, running, service, short_directory

from understudy.core.model import CommandCheck, HttpCheck
from understudy.core.pools import Oper
from understudy.core.text import Name
from understudy.router.base import RouterFault
from understudy.router.haproxy import HAProxyRouter
from understudy.router.layout import Layout

WEB = Name("web")


@pytest.fixture
async def backend():
    started = Backend("w1", free_ports(1)[0])
    await started.start()
    yield started
    await started.stop()


@pytest.fixture
def directory():
    with short_directory() as path:
        yield path


def enter(directory: Path, mode: int) -> None:
    """Let others in, or keep them out."""
    directory.chmod(mode)


def sentence(fault: pytest.ExceptionInfo[RouterFault]) -> str:
    """The text, which must be one line."""
    text = str(fault.value)
    assert "\n" not in text
    return text


async def refused(layout: Layout, backend: Backend, program: str = "haproxy") -> str:
    """The sentence with which a start ends."""
    router = HAProxyRouter(layout, program, threads=1)
    try:
        with pytest.raises(RouterFault) as fault:
            await router.start(desired(service("web", free_ports(1)[0], [backend])))
    finally:
        await router.stop()
    return sentence(fault)


async def test_a_missing_haproxy_is_told_with_its_cure(directory: Path, backend: Backend):
    """The sentence names the command that installs it."""
    assert "make setup" in await refused(Layout(directory), backend, "no-such-haproxy")


async def test_an_old_haproxy_and_something_else_are_told_apart(directory: Path, backend: Backend):
    """2.4 is too old; a program that tells no version is no HAProxy."""
    program = directory / "haproxy"
    for says, expected in (("HAProxy version 2.4.22-0+deb 2023/02/14", "2.4 is too old"), ("hello", "does not tell")):
        program.write_text(f"#!/bin/sh\necho '{says}'\n")
        program.chmod(0o755)
        assert expected in await refused(Layout(directory), backend, str(program))


async def test_impossible_directories_are_refused(directory: Path, backend: Backend):
    """Too long for a socket, not to be made, and one that would smuggle a command into HAProxy's socket."""
    assert "too long" in await refused(Layout(directory / ("x" * 90)), backend)
    assert "cannot make" in await refused(Layout(Path("/proc/understudy")), backend)
    assert "letters" in await refused(Layout(directory / "a;shutdown frontend web"), backend)
    assert not (directory / "a;shutdown frontend web").exists()


async def test_a_directory_with_a_space_works(directory: Path, backend: Backend):
    """Spaces are harmless, in arguments, in the configuration and in commands on the map's path."""
    port, backup = free_ports(2)
    web = service("web", port, [backend], backup=(Backend("b1", backup),))
    async with running(directory / "my router", desired(web)) as router:
        assert await get(port) == "w1"
        change = await router.apply(desired(web, share=40))
        assert change.live
        assert not change.reload
        pid = (await router.observe()).pid
        await router.detach()
        assert (directory / "my router" / "maps" / "backup_share.map").read_text() == "web 40\n"
        async with running(directory / "my router", desired(web, share=40)) as second:
            assert (await second.observe()).pid == pid


async def test_a_port_in_use_at_start_names_service_and_cure(directory: Path, backend: Backend):
    """The first start with a taken port leaves nothing running and nothing half-written."""
    router = HAProxyRouter(Layout(directory), threads=1)
    with pytest.raises(RouterFault) as fault:
        await router.start(desired(service("web", backend.port, [backend])))
    text = sentence(fault)
    assert f"'web' cannot listen on {HOST}:{backend.port}" in text
    assert "choose another port" in text
    assert not Layout(directory).config.exists()


async def test_an_address_that_is_not_ours_is_told(directory: Path, backend: Backend):
    """Listening on another host's address is refused in words."""
    from understudy.core.text import Address

    web = replace(service("web", 1, [backend]), listen=Address("192.0.2.1", free_ports(1)[0]))
    router = HAProxyRouter(Layout(directory), threads=1)
    with pytest.raises(RouterFault, match="no such address"):
        await router.start(desired(web))


async def test_a_disk_that_takes_no_more_stops_a_reload_and_not_a_live_change(
    directory: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch
):
    """The reload is refused, the old goes on; the live change is made, told, and written once there is room again."""
    port, other = free_ports(2)
    web, more = service("web", port, [backend]), service("more", other, [backend])
    records: dict = {}
    layout = Layout(directory)
    monkeypatch.setattr("understudy.router.haproxy.SAVE_AFTER_S", 0.05)
    monkeypatch.setattr("understudy.router.haproxy.SAVE_AGAIN_S", 0.05)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with running(directory, desired(web, records=records)) as router:
        config = layout.config.read_text()
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (256, limits[1]))  # files end there, as on a full disk
            with pytest.raises(RouterFault) as fault:
                await router.apply(desired(web, more, records=records))
            assert (await router.apply(desired(web, weights={"w1": 5}, records=records))).live
            async for event in router.events():
                if "the change is live, but cannot write" in event.text:
                    break
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert "cannot write" in sentence(fault)
        assert layout.config.read_text() == config or "weight 5" in layout.config.read_text()
        assert not layout.candidate.exists()
        assert await get(port) == "w1"
        assert (await router.observe()).pools[WEB].endpoints[0].weight == 5

        async def is_written() -> bool:
            return "weight 5" in layout.config.read_text()

        await eventually(is_written)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts HAProxy's workers as another user: run as root")
async def test_command_checks_that_could_not_run_are_refused(directory: Path, backend: Backend):
    """A folder that HAProxy's user may not enter would make every command check fail; with its cure, the check runs."""
    web = service("web", free_ports(1)[0], [backend])
    web = replace(
        web, health=replace(CHECKS, check=CommandCheck(("/bin/sh", "-c", 'test "$PORT" -gt 0')), timeout_ms=5000)
    )
    enter(directory, 0o700)
    router = HAProxyRouter(Layout(directory), threads=1)
    with pytest.raises(RouterFault, match=f"may not enter {directory}"):
        await router.start(replace(desired(web), directory="/"))
    enter(directory, 0o711)
    async with running(directory, replace(desired(web), directory="/")) as router:

        async def is_checked() -> bool:
            one = (await router.observe()).pools[WEB].endpoints[0]
            return one.oper is Oper.UP and "External check passed" in one.check

        await eventually(is_checked)


async def test_a_body_that_looks_like_configuration_is_only_text(directory: Path, backend: Backend):
    """Quotes, comments, variables and keywords in a check's body end nothing: a server that answers just that is up."""
    body = "' # \"$HOME\" \\ ; %[env(HOME)]' server evil 127.0.0.1:9"
    backend.name = body
    web = service("web", free_ports(1)[0], [replace(backend, name="w1")])
    web = replace(web, health=replace(CHECKS, check=HttpCheck(body=body)))
    other = replace(web, name=Name("other"), listen=replace(web.listen, port=free_ports(1)[0]))
    other = replace(other, health=replace(CHECKS, check=HttpCheck(body=body + "!")))
    async with running(directory, desired(web, other)) as router:

        async def is_told_apart() -> bool:
            pools = (await router.observe()).pools
            return [str(pools[each].endpoints[0].oper) for each in pools] == ["up", "down"]

        await eventually(is_told_apart)
        assert len((await router.observe()).pools[WEB].endpoints) == 1
