"""What an agent has in sight of the store, when the store goes back to a backup behind its back."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from understudy.control.cluster.mirror import Mirror
from understudy.control.cluster.ports import Ports
from understudy.core.clock import Now
from understudy.core.cluster import ClusterService
from understudy.core.text import Name
from understudy.store.base import Item, Listing, Put

KEY = "clusters/shop/reports/a"


class Lists:
    """A store of which only the next listing is known, and what happens while that is on its way."""

    def __init__(self) -> None:
        self.listing = Listing((), 0)
        self.incarnation = ""
        self.meanwhile: Callable[[], None] = lambda: None

    async def list(self, prefix: str) -> Listing:
        """That listing."""
        assert KEY.startswith(prefix)
        self.meanwhile()
        return self.listing


def mirror_of(store: Lists) -> Mirror:
    """A mirror of that store which is told when to read."""

    def nothing(*_: Any) -> None:
        return None

    clock = SimpleNamespace(now=lambda: Now(1.0, 1.0))
    service = ClusterService(Name("shop"), ())
    ports = SimpleNamespace(service=service, store=store, clock=clock, wake=nothing, spawn=nothing)
    return Mirror(cast("Ports", ports), "clusters/shop/", nothing)


async def test_an_older_entry_of_a_newer_listing_is_taken() -> None:
    """A backup that was put in place and has gone beyond what we knew: its entries count, though they are older."""
    store = Lists()
    mirror = mirror_of(store)
    mirror.note(Put(KEY, b"lost with the old store"), 125)
    store.listing = Listing((Item(KEY, b"of the backup", 117),), 174)
    await mirror.refresh()
    assert (mirror.get(KEY).value, mirror.get(KEY).revision) == (b"of the backup", 117)


async def test_an_entry_from_after_the_listing_stays() -> None:
    """An answer that was held up on its way does not put what was written since out of sight."""
    store = Lists()
    mirror = mirror_of(store)
    store.listing = Listing((Item(KEY, b"old", 117),), 120)
    store.meanwhile = lambda: mirror.note(Put(KEY, b"new"), 125)
    await mirror.refresh()
    assert mirror.get(KEY).value == b"new"


async def test_what_comes_after_a_listing_is_new() -> None:
    """Also when something else was heard from the store before, which might have been a backlog's beginning."""
    store = Lists()
    mirror = mirror_of(store)
    mirror.note(Put(KEY, b"the first that was answered"), 125)
    assert mirror.contact_s > 1.0
    store.listing = Listing((Item(KEY, b"the first that was answered", 125),), 125)
    await mirror.refresh()
    assert mirror.contact_s == 1.0
