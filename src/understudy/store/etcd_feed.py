"""One watch of etcd for all who watch: every change of our facts, remembered for a while, each reader at its own pace.

The stream is made again, on another member, when it breaks, when its member fails anybody, and when it stays silent
although the store went on. It starts from the last revision that was heard, so that nothing is lost; what was heard
already is dropped, so that nothing is told twice. When no member can be had, all readers are told and the feed ends.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

from understudy.store import etcd_messages as messages
from understudy.store.base import Change, Compacted, Replaced, StoreFault, newer
from understudy.store.etcd_client import Client
from understudy.store.etcd_faults import LEADERLESS, Kind, Trouble, away
from understudy.store.etcd_messages import Heard
from understudy.store.etcd_wire import Lines

HISTORY_CHANGES = 10_000
HISTORY_BYTES = 64 * 1024 * 1024
"""How much a reader may be behind: the smaller of both."""

QUIET_S = 1.0
"""After that long without a word the store is asked whether it went on without us."""

GRACE_S = 0.3
"""What the store has told others already must come within that time."""

PATIENCE_S = 3.0
"""For so long readers are not told that there is no store: the members may be electing a leader."""

PAUSE_S = 0.05
"""Between two streams, so that one that breaks again and again costs little."""


class Feed:
    """Lives while somebody reads; begins at the oldest revision that anybody asked for."""

    def __init__(self, client: Client) -> None:
        self.fault: StoreFault | None = None
        self._client = client
        self._history: deque[Change] = deque()
        self._bytes = 0
        self._floor = 0
        self._heard = 0
        """The history holds everything after `_floor` up to `_heard`."""
        self._bells: set[asyncio.Event] = set()
        self._running: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._url = ""
        self._closed = False

    async def changes(self, prefix: str, after: int) -> AsyncGenerator[Change, None]:
        """Every change of the prefix after that revision, in order, each once, until the feed is closed."""
        bell = asyncio.Event()
        self._bells.add(bell)
        try:
            self._reach_back(after)
            seen = after
            while not self._closed:
                bell.clear()
                if self.fault:
                    raise type(self.fault)(str(self.fault)) from self.fault
                if seen < self._floor:
                    raise Compacted(f"The store has no history after revision {seen} any more; list again.")
                fresh = newer(self._history, seen)
                seen = max(seen, self._heard)
                for change in fresh:
                    if change.key.startswith(prefix):
                        yield change
                await bell.wait()
        finally:
            self._bells.discard(bell)
            if not self._bells:
                self._stop()

    def leave(self, url: str) -> None:
        """That member failed somebody: do not wait until its silence is noticed here too."""
        if self._reading and url == self._url:
            self._reading.cancel()

    def close(self) -> None:
        """End those who read, without an error."""
        self._closed = True
        self._ring()
        self._stop()

    def _reach_back(self, after: int) -> None:
        """See to it that the history begins no later than there."""
        if self._running is None:
            self._forget_up_to(after)
            self._running = asyncio.create_task(self._run())
        elif after < self._floor:
            self._forget_up_to(after)
            if self._reading:
                self._reading.cancel()

    def _forget_up_to(self, revision: int) -> None:
        self._history.clear()
        self._bytes = 0
        self._floor = self._heard = revision

    def _stop(self) -> None:
        if self._running:
            self._running.cancel()
            self._running = None

    async def _run(self) -> None:
        """Keep a stream going until that cannot be done."""
        troubles: list[Trouble] = []
        try:
            while len(troubles) < 2 * len(self._client.endpoints.in_turn()):
                await self._await_store()
                trouble = await self._stream(troubles)
                if trouble:
                    troubles.append(trouble)
                    await asyncio.sleep(PAUSE_S)
            self.fault = StoreFault(away(troubles))
        except StoreFault as fault:
            self.fault = fault
        except Exception as error:
            self.fault = StoreFault(f"The store's changes could not be followed any more ({error!r}); tell us of it.")
            raise
        finally:
            self._ring()

    async def _await_store(self) -> None:
        """Until there is a member that works, and the store is the one we know; StoreFault when that takes too long."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + PATIENCE_S
        while True:
            try:
                await self._client.read(())
            except Replaced:
                raise
            except StoreFault:
                if loop.time() >= deadline_s:
                    raise
                await asyncio.sleep(PAUSE_S)
            else:
                return

    async def _stream(self, troubles: list[Trouble]) -> Trouble | None:
        """One stream from beginning to end, and why it ended; None when it was told to."""
        self._url = self._next_url(troubles)
        self._reading = reading = asyncio.create_task(self._follow(self._url, troubles))
        try:
            await asyncio.wait({reading})
        finally:
            reading.cancel()
        if reading.cancelled():
            return None
        try:
            reading.result()
        except Trouble as trouble:
            if trouble.kind not in {Kind.TOKEN, *LEADERLESS} and not isinstance(trouble, Silent):
                self._client.failed(self._url)
            return trouble
        except Replaced:
            raise
        except StoreFault:
            return None  # there is no store at the moment: wait for it
        return None

    def _next_url(self, troubles: list[Trouble]) -> str:
        """The member in use; after a silence another one than before."""
        if troubles and isinstance(troubles[-1], Silent):
            return self._client.endpoints.after(self._url)
        return self._client.endpoints.current

    async def _follow(self, url: str, troubles: list[Trouble]) -> None:
        """Read one stream until it breaks, always with a Trouble."""
        layout = self._client.layout
        body = messages.watch(layout, max(self._heard, 1))
        async with self._client.wire.watch(url, layout, body, self._client.timeout_s) as lines:
            while True:
                heard = await _read_for(QUIET_S, lines) or await self._ask_why_quiet(url, lines)
                if heard:
                    self._take(url, heard)
                    troubles.clear()

    async def _ask_why_quiet(self, url: str, lines: Lines) -> Heard | None:
        """None when nothing has happened; a line that was under way; else raises Silent."""
        answer = await self._client.read(())
        if answer.header.revision <= self._heard:
            return None
        heard = await _read_for(GRACE_S, lines)
        if heard is None:
            raise Silent(Kind.LOST, f"etcd at {url} tells no changes, though there may be some")
        return heard

    def _take(self, url: str, heard: Heard) -> None:
        if heard.compacted is not None:
            self._forget_up_to(heard.compacted)
        elif heard.refusal is not None:
            raise Trouble(Kind.LOST, f"etcd at {url} ended the watch: {heard.refusal}")
        elif heard.cluster_id != self._client.cluster_id:
            raise Trouble(Kind.LOST, f"etcd at {url} belongs to another cluster")
        else:
            for change in heard.changes:
                if change.revision > self._heard:
                    self._history.append(change)
                    self._bytes += _size_bytes(change)
            self._heard = max(self._heard, heard.revision or 0)
            self._trim()
        self._ring()
        if heard.compacted is not None:
            raise Silent(Kind.LOST, f"etcd at {url} has forgotten what came before revision {heard.compacted}")

    def _trim(self) -> None:
        """Forget the oldest revisions, each as a whole, but never the newest one."""
        history = self._history
        while (len(history) > HISTORY_CHANGES or self._bytes > HISTORY_BYTES) and history[0].revision < self._heard:
            self._floor = history[0].revision
            while history[0].revision == self._floor:
                self._bytes -= _size_bytes(history.popleft())

    def _ring(self) -> None:
        for bell in self._bells:
            bell.set()


class Silent(Trouble):
    """The stream is of no more use, though its member may be well."""


async def _read_for(duration_s: float, lines: Lines) -> Heard | None:
    """The next line, if one comes in that time."""
    try:
        async with asyncio.timeout(duration_s):
            return await lines.read()
    except TimeoutError:
        return None


def _size_bytes(change: Change) -> int:
    return len(change.key) + len(change.value or b"")
