"""How an agent joins the others of its cluster: one spec, one key for all; both kept for when the store is away.

The first agent to come seeds the store with its spec; every other one checks that its own is the same. The key, by
which agents know each other, is drawn by the first one and lies in the store; each agent keeps a copy (mode 0600).
"""

import secrets
from pathlib import Path

import structlog

from understudy.control import keys
from understudy.control.clock import Clock
from understudy.control.state_dir import replace_private
from understudy.control.versions import Versions
from understudy.core.errors import Refused
from understudy.core.model import Spec
from understudy.store.base import Expect, Put, Store, StoreFault

KEY_BYTES = 32
AGAIN_S = 1.0


async def cluster_key(store: Store, kept: Path, clock: Clock) -> bytes:
    """The cluster's key; waits for the store only when none was ever kept here."""
    text = _kept(kept)
    own = bytes.fromhex(text) if text else None
    told = False
    while True:
        try:
            key = await _stored_key(store, own)
        except StoreFault as fault:
            if own is not None:
                return own
            if not told:
                structlog.get_logger().warning(f"Nothing is started before the store answers: {fault}")
            told = True
            await clock.sleep(AGAIN_S)
        else:
            if key != own:
                replace_private(kept, key.hex())
            return key


async def agree(spec: Spec, versions: Versions, kept: Path, clock: Clock) -> None:
    """Seed the store with this spec, or see that it is the one in force. Refused when it is another.

    While the store is away, the text that was agreed on last must do.
    """
    try:
        in_force = await versions.seed(spec.text, clock.now().wall_s)
    except StoreFault:
        if _kept(kept) != spec.text:
            raise
        return
    if in_force.text != spec.text:
        raise Refused(
            f"this file is not the spec that is in force (version {in_force.version.number}): start with a copy of the "
            "file that the other agents were started with, or apply this one first (`understudy apply`) on one of them"
        )
    replace_private(kept, spec.text)


async def _stored_key(store: Store, own: bytes | None) -> bytes:
    """What the store has; what we have, or draw now, where it has none."""
    while (item := await store.get(keys.CLUSTER_KEY)) is None:
        mine = own or secrets.token_bytes(KEY_BYTES)
        await store.transact([Expect(keys.CLUSTER_KEY, 0)], [Put(keys.CLUSTER_KEY, mine)])
    return item.value


def _kept(path: Path) -> str:
    """What was kept; nothing when there is none."""
    return path.read_text(encoding="utf-8") if path.exists() else ""
