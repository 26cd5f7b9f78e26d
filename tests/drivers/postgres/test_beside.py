"""What is kept beside the data, and small files in it: cut short anywhere, whoever comes next makes it right."""

import errno
import os
from pathlib import Path

import pytest
from tests.drivers.postgres.real import PATIENCE_S, Engine, account

from understudy.core.errors import Refused
from understudy.drivers.postgres import beside, copying, process
from understudy.drivers.postgres.claim import Claim


def _stumble(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left")


def test_a_claim_on_a_full_disk(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that could not write its claim has none: once there is room it can, and so can another."""
    first, second = (Claim(root / "a", "node a of shop/orders", account()) for _ in range(2))
    monkeypatch.setattr(os, "write", _stumble)
    with pytest.raises(Refused, match="cannot be written"):
        first.take()
    monkeypatch.undo()
    second.take()
    with pytest.raises(Refused, match="another agent"):
        first.take()
    second.close()


def test_places_half_made(root: Path) -> None:
    """A directory whose maker was killed before it was the engine's user's becomes theirs all the same."""
    places = beside.of(root / "a")
    places.run.mkdir(parents=True)
    places.root.chmod(0o700)
    beside.prepare(places, account())
    assert places.run.stat().st_uid == account().uid
    assert places.root.stat().st_mode & 0o777 == 0o711


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: others make no files for anybody else")
async def test_the_order_to_be_a_standby_half_made(a: Engine, b: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that its owner cannot read would keep a node from ever being copied."""
    b.stop()
    (a.data / "standby.signal").unlink(missing_ok=True)
    monkeypatch.setattr(os, "fchown", _stumble)
    with pytest.raises(OSError, match="No space left"):
        process.make_standby(a.data, a.tools)
    monkeypatch.undo()
    process.make_standby(a.data, a.tools)
    await copying.rebuild(b.home, a.source, "1", consent=False, patience_s=PATIENCE_S)
