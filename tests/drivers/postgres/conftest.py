"""A primary and its standby, made once and copied for each test."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contract.conftest import stopped_cluster
from tests.drivers.postgres.real import PASSWORD, PATIENCE_S, PROGRAMS, Engine, copy_tree

from understudy.drivers.postgres import branches, copying

if not PROGRAMS.is_dir():
    pytest.skip(f"needs PostgreSQL 15 in {PROGRAMS}", allow_module_level=True)

__all__ = ["stopped_cluster"]
"""A fixture of the driver's suite."""

MEMORY = Path("/dev/shm")
"""A disk that takes no time to flush, where there is one."""


def _place() -> Path:
    root = Path(tempfile.mkdtemp(prefix="us-", dir=MEMORY if os.access(MEMORY, os.W_OK) else "/tmp"))
    root.chmod(0o755)
    passfile = root / "passfile"
    passfile.write_text(f"*:*:*:boss:{PASSWORD}\n")
    passfile.chmod(0o600)
    Engine("x", root).tools.account.give(passfile)
    return root


@pytest.fixture(scope="session")
def template() -> Iterator[Path]:
    """Stopped: a, a primary, and b, its standby."""
    root = _place()
    a, b = Engine("a", root), Engine("b", root)
    try:
        asyncio.run(copying.bootstrap(a.home, "boss", PASSWORD, patience_s=PATIENCE_S))
        branches.position(branches.Log.of(a.data), 1, 1 << 60, a.tools.account, first=True)
        with (a.data / "pg_hba.conf").open("a") as hba:
            hba.write("host replication boss all scram-sha-256\n")
        a.start()
        a.rows("CREATE TABLE t (n int PRIMARY KEY)")
        asyncio.run(copying.rebuild(b.home, a.source, "first", consent=False, patience_s=PATIENCE_S))
        b.start(a)
        b.caught_up(a)
        a.stop()
        b.stop()
        yield root
    finally:
        a.crash()
        b.crash()
        shutil.rmtree(root)


@pytest.fixture
def root() -> Iterator[Path]:
    """An empty place."""
    root = _place()
    yield root
    shutil.rmtree(root)


@pytest.fixture
def a(root: Path, template: Path) -> Iterator[Engine]:
    """A primary, running."""
    yield from _engine("a", root, template, None)


@pytest.fixture
def b(root: Path, template: Path, a: Engine) -> Iterator[Engine]:
    """A standby of a, running."""
    yield from _engine("b", root, template, a)


def _engine(name: str, root: Path, template: Path, follow: Engine | None) -> Iterator[Engine]:
    copy_tree(template / name, root / name)
    engine = Engine(name, root)
    engine.start(follow)
    yield engine
    engine.crash()
