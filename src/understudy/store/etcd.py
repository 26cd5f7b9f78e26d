"""The store of several machines: etcd (3.4 or newer), over its JSON gateway. Nothing here knows what the facts mean.

Its parts: etcd_messages (what is said, pure), etcd_faults (what errors mean, pure), etcd_endpoints (which member, and
whether it is still the same store, pure), etcd_wire (one request to one member), etcd_copies (of one transaction),
etcd_client (one transaction with the cluster), etcd_feed (what changes), etcd_leader (who leads etcd). Why it is so:
docs/decisions/0012-etcd.md.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Self

from understudy.store import etcd_messages as messages
from understudy.store.base import Change, Delete, Expect, Item, Listing, Outcome, Put, StoreFault, check_transaction
from understudy.store.etcd_client import Client
from understudy.store.etcd_copies import ends_its_conditions
from understudy.store.etcd_endpoints import Endpoints
from understudy.store.etcd_feed import Feed
from understudy.store.etcd_leader import lead_away_from
from understudy.store.etcd_messages import Layout
from understudy.store.etcd_wire import Login, Tls, Wire

TIMEOUT_S = 1.0
"""By default, for a whole call, failover to another member included."""


@dataclass(frozen=True, slots=True)
class EtcdSettings:
    """Where the etcd cluster is and how to get in. endpoints: `host:port` of its members, at least one."""

    endpoints: tuple[str, ...]
    cluster: str
    """The understudy cluster; each has its own part of etcd's keys."""
    tls: Tls | None = None
    login: Login | None = None
    timeout_s: float = TIMEOUT_S


class EtcdStore:
    """Fulfils the port `Store`. Made by `open`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._feed = Feed(client)
        self._closed = False
        client.on_failed = self._leave

    @classmethod
    async def open(cls, settings: EtcdSettings) -> Self:
        """Needs no etcd yet: the first call does. StoreFault when the TLS files are of no use."""
        scheme = "https" if settings.tls else "http"
        endpoints = Endpoints(tuple(f"{scheme}://{endpoint}" for endpoint in settings.endpoints))
        wire = Wire(settings.tls, settings.login)
        return cls(Client(wire, endpoints, Layout(settings.cluster), settings.timeout_s))

    @property
    def incarnation(self) -> str:
        """The cluster id: another one when a snapshot is restored, unless that is given the same token and members."""
        return self._client.cluster_id

    async def get(self, key: str) -> Item | None:
        """The newest value of the key."""
        self._refuse_closed()
        layout = self._client.layout
        answer = await self._client.read([messages.read_one(layout.fact(key))])
        (found,) = answer.reads
        return messages.item(layout, found[0]) if found else None

    async def list(self, prefix: str) -> Listing:
        """All keys that begin with the prefix."""
        self._refuse_closed()
        layout = self._client.layout
        answer = await self._client.read([messages.read_prefix(layout.fact(prefix))])
        (found,) = answer.reads
        return Listing(tuple(messages.item(layout, entry) for entry in found), answer.header.revision)

    async def transact(self, expects: Sequence[Expect], changes: Sequence[Put | Delete]) -> Outcome:
        """All changes if all conditions hold, else none. OutcomeUnknown when the answer is lost."""
        check_transaction(expects, changes)
        self._refuse_closed()
        operations = [messages.change(self._client.layout, change) for change in changes]
        answer = await self._client.write(expects, operations, again=ends_its_conditions(expects, changes))
        return Outcome(committed=answer.succeeded, revision=answer.header.revision)

    async def watch(self, prefix: str, after_revision: int) -> AsyncGenerator[Change, None]:
        """Every change of the prefix after that revision, in order, each once, until the store is closed."""
        if self._closed:
            return
        if self._feed.fault:
            self._feed = Feed(self._client)
        async with aclosing(self._feed.changes(prefix, after_revision)) as changes:
            async for change in changes:
                yield change

    async def lead_away_from(self, addresses: frozenset[str]) -> str:
        """Fulfils `base.Relocatable`."""
        self._refuse_closed()
        return await lead_away_from(self._client, addresses)

    async def close(self) -> None:
        """End those who watch; whatever is asked afterwards is refused."""
        if self._closed:
            return
        self._closed = True
        self._feed.close()
        self._client.close()
        await self._client.wire.close()

    def _leave(self, url: str) -> None:
        self._feed.leave(url)

    def _refuse_closed(self) -> None:
        if self._closed:
            raise StoreFault("The store is closed; open it again.")
