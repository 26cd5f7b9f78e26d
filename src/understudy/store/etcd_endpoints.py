"""Which etcd member to ask, and whether what answers is still the store we know: pure bookkeeping."""

from dataclasses import dataclass, replace

from understudy.store.etcd_messages import Header


class Endpoints:
    """Sticky: the same member is asked until it fails, then the next one; `prefer` goes back to the first."""

    def __init__(self, urls: tuple[str, ...]) -> None:
        self._urls = urls
        self._current = 0

    @property
    def current(self) -> str:
        """The member in use."""
        return self._urls[self._current]

    @property
    def preferred(self) -> str:
        """The first one: the nearest."""
        return self._urls[0]

    def in_turn(self) -> tuple[str, ...]:
        """Every member once, the one in use first."""
        return self._urls[self._current :] + self._urls[: self._current]

    def after(self, url: str) -> str:
        """The member that comes after that one."""
        return self._urls[(self._urls.index(url) + 1) % len(self._urls)]

    def failed(self, url: str) -> None:
        """Use the next member, if that one is in use."""
        if url == self.current:
            self._current = (self._current + 1) % len(self._urls)

    def prefer(self) -> None:
        """Use the first one again."""
        self._current = 0


@dataclass(frozen=True, slots=True)
class Sighting:
    """What is known of the store: etcd's cluster id, the identity that we gave it, and how far it had got."""

    cluster_id: str
    identity: bytes
    revision: int

    def contradiction(self, header: Header, identity: bytes | None) -> str | None:
        """How an answer shows that this is another store or an older state of it; None when it does not.

        `self` is what was known when the request was sent, since answers may overtake each other. `identity` is what
        the store has of it (None: nothing).
        """
        if header.cluster_id != self.cluster_id:
            return f"its cluster id was {self.cluster_id} and is {header.cluster_id}"
        if header.revision < self.revision:
            return f"it had revision {self.revision} and has {header.revision}"
        if identity != self.identity:
            return "the mark that we left there is gone" if identity is None else "it carries another mark"
        return None

    def seen(self, revision: int) -> "Sighting":
        """Known to have got that far."""
        return replace(self, revision=max(self.revision, revision))
