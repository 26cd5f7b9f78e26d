"""The whole desired state as HAProxy configuration: pure text. No file is written here and nothing is asked of HAProxy.

router/change.py decides whether the text or a few runtime commands bring the running proxy there.
"""

from dataclasses import dataclass
from pathlib import Path

from understudy.core.routes import Pool, RouterState, Slot
from understudy.router.layout import Layout


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What the configuration has to know of the host it is for."""

    version: tuple[int, int, int]
    """Of HAProxy, such as (2, 6, 12)."""
    user: str | None = None
    """Whom the workers become; None where they stay who started them (not root)."""
    group: str | None = None
    threads: int | None = None
    """Of a worker; None leaves it to HAProxy (one a core)."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """The text of haproxy.cfg, and of every file that it names: maps, and the wrappers of command checks (mode 0755)."""

    config: str
    files: tuple[tuple[Path, str], ...]


def render(state: RouterState, layout: Layout, facts: HostFacts) -> Rendered:
    """The configuration that does what `state` says."""
    raise NotImplementedError


def server_weight(pool: Pool, slot: Slot) -> int:
    """The weight that HAProxy is given for the slot (0 to 256)."""
    raise NotImplementedError


def seen_weight(pool: Pool, weight: int) -> int:
    """The weight in the spec's terms that HAProxy's `weight` stands for; the inverse of `server_weight`."""
    raise NotImplementedError
