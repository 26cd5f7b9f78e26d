"""What keeps a node out: each fault named, with what to do, all at once, and nothing touched. On real data."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.drivers.postgres.real import PASSWORD, Engine, copy_tree

from understudy.drivers.postgres import beside, check, control_file
from understudy.drivers.postgres.check import Expected, Found
from understudy.drivers.postgres.home import Home

THREE = Expected(nodes=3)


@pytest.fixture
def stopped(root: Path, template: Path) -> Engine:
    """A primary's data, that nobody runs on."""
    copy_tree(template / "a", root / "a")
    (root / "a" / "standby.signal").unlink(missing_ok=True)
    set_to("max_prepared_transactions", "10")(root / "a")
    return Engine("a", root)


def set_to(name: str, value: str) -> Callable[[Path], None]:
    def change(data: Path) -> None:
        with (data / "postgresql.conf").open("a") as file:
            file.write(f"{name} = {value}\n")

    return change


def alter_system(data: Path) -> None:
    with (data / "postgresql.auto.conf").open("a") as file:
        file.write("primary_conninfo = 'host=old'\nwork_mem = '8MB'\nPort=5433\n")


def foreign_files(data: Path) -> None:
    (data / "PG_VERSION").unlink()


def owned_by_others(data: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to give a directory away")
    os.chown(data, 1, 1)


FAULTS = {
    "version": (lambda data: (data / "PG_VERSION").write_text("12\n"), "is of PostgreSQL 12"),
    "mode": (lambda data: data.chmod(0o755), r"open to others \(mode 755\): chmod it to 700"),
    "owner": (owned_by_others, "belongs to user 1, and PostgreSQL runs as"),
    "way": (lambda data: data.parent.chmod(0o700), "may not pass through"),
    "foreign": (foreign_files, "not PostgreSQL's"),
    "damaged": (lambda data: (data / "global" / "pg_control").write_bytes(b"x" * 8192), "control file"),
    "minimal": (set_to("wal_level", "minimal"), "wal_level is minimal"),
    "fsync": (set_to("fsync", "off"), "fsync is off"),
    "senders": (set_to("max_wal_senders", "4"), "max_wal_senders is 4 .* at least 5"),
    "slots": (set_to("max_replication_slots", "2"), "max_replication_slots is 2"),
    "lowered": (set_to("max_connections", "50"), "max_connections is 50 .* was 100 when it last ran"),
    "target": (set_to("recovery_target_name", "'there'"), "recovery_target_name is set"),
    "nonsense": (set_to("max_connections", "many"), "does not take the settings"),
    "settings elsewhere": (lambda data: (data / "postgresql.conf").unlink(), "no postgresql.conf"),
    "alter system": (alter_system, "ALTER SYSTEM RESET port and ALTER SYSTEM RESET primary_conninfo"),
    "recovery": (lambda data: (data / "recovery.signal").touch(), "recovery.signal"),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_each_fault(stopped: Engine, name: str) -> None:
    """A fault is named, alone, with what to do about it."""
    spoil, says = FAULTS[name]
    if name == "way" and os.geteuid() != 0:
        pytest.skip("needs root: the directory is our own")
    spoil(stopped.data)
    found = await check.check_node(stopped.home, THREE)
    assert len(found.faults) == 1, found.faults
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(found.faults[0])


async def test_nothing_wrong(stopped: Engine) -> None:
    """Data that fits has no fault; an empty directory, or none, has none either; what understudy sets is told."""
    control = await control_file.read(stopped.tools, stopped.data)
    expected = replace(THREE, system_identifier=control.system_identifier, major=15, settings=control.settings)
    found = await check.check_node(stopped.home, expected)
    assert found.faults == ()
    assert "restart_after_crash = off, where it is on" in found.ours
    assert not any("hot_standby" in one for one in found.ours)
    shutil.rmtree(stopped.data)
    assert await check.check_node(stopped.home, expected) == Found()


async def test_all_at_once(stopped: Engine) -> None:
    """Every fault is told in one go, and nothing is changed."""
    for name in ("mode", "fsync", "slots", "alter system"):
        FAULTS[name][0](stopped.data)
    before = {path: path.stat().st_mtime_ns for path in stopped.data.rglob("*")}
    others = replace(THREE, system_identifier="42", settings={"max_connections": "500"})
    found = await check.check_node(stopped.home, others)
    assert len(found.faults) == 6, found.faults
    assert any("another cluster" in fault for fault in found.faults)
    assert any(
        "max_connections is 100 .* and 500" in fault or "and 500 on the primary" in fault for fault in found.faults
    )
    assert {path: path.stat().st_mtime_ns for path in stopped.data.rglob("*")} == before
    assert not beside.of(stopped.data).root.exists()


async def test_other_major_than_the_others(stopped: Engine) -> None:
    """Nodes of one cluster are of one major version."""
    found = await check.check_node(stopped.home, replace(THREE, major=16))
    assert "pg_upgrade" in found.faults[0]


async def test_neither_checksums_nor_hints(stopped: Engine) -> None:
    """Data that could never be rewound is refused, with the command that cures it."""
    stopped.start()
    stopped.stop()
    ran = await stopped.tools.run("pg_checksums", "--disable", "-D", str(stopped.data), deadline_s=60)
    assert ran.code == 0, ran.err
    assert (await check.check_node(stopped.home, THREE)).faults == (), "it was last run with wal_log_hints"
    stopped.start(settings=("wal_log_hints=off",))
    stopped.stop()
    found = await check.check_node(stopped.home, THREE)
    assert len(found.faults) == 1
    assert "pg_checksums --enable" in found.faults[0]


async def test_somebody_runs_it(a: Engine) -> None:
    """Data that PostgreSQL runs on, not below us, is not taken from under it; a left-over pid file is no process."""
    found = await check.check_node(a.home, THREE)
    assert [fault for fault in found.faults if f"process {a.process.pid}" in fault]
    a.crash()
    (a.data / "postmaster.pid").write_text(f"{os.getpid()}\n")
    set_to("max_prepared_transactions", "10")(a.data)
    assert (await check.check_node(a.home, THREE)).faults == ()


async def test_mount_point_and_marked(stopped: Engine) -> None:
    """A mount point is refused before anything else; so is data that a rewind has left half done."""
    home = Home(stopped.name, Path("/proc"), stopped.tools, stopped.configured.append)
    assert "mount point" in (await check.check_node(home, THREE)).faults[0]
    beside.prepare(stopped.home.places, stopped.tools.account)
    beside.write(stopped.home.places.unusable, "a rewind was begun")
    assert "must not be started (a rewind was begun)" in (await check.check_node(stopped.home, THREE)).faults[0]


@pytest.mark.parametrize("kind", ["scram-sha-256", "md5"])
async def test_stored_password(a: Engine, kind: str) -> None:
    """A wrong password is told of data that nobody runs on, also when the table was rewritten, and the password."""
    a.rows(f"SET password_encryption = '{kind}'", "CREATE ROLE chief SUPERUSER LOGIN PASSWORD 'old one'")
    a.rows("VACUUM FULL pg_authid", f"SET password_encryption = '{kind}'", "ALTER ROLE chief PASSWORD 'new one'")
    a.stop()
    control = await control_file.read(a.tools, a.data)
    wrong = check.check_stored_password(a.data, control, "chief", "nonsense")
    assert "another password" in wrong
    assert "nonsense" not in wrong
    assert not check.check_stored_password(a.data, control, "chief", "new one")
    assert not check.check_stored_password(a.data, control, "nobody", "nonsense"), "of whom nothing can be told"
    assert not check.check_stored_password(a.data, control, "boss", PASSWORD)


async def test_known_node(stopped: Engine) -> None:
    """What is wrong with the data of a node that was ours is for the cluster to mend: the agent starts."""
    FAULTS["damaged"][0](stopped.data)
    assert (await check.check_node(stopped.home, replace(THREE, known=True))).faults == ()
    FAULTS["mode"][0](stopped.data)
    assert len((await check.check_node(stopped.home, replace(THREE, known=True))).faults) == 1
