"""A fault under writers, and the judgement afterwards: what every test of faults holds a PostgreSQL cluster to."""

import sys
import time
from collections.abc import Callable
from typing import Any, Self, TypeVar

from tests.ledger import Failed, Ledger, ask
from tests.pg_hosts import NODES, SERVICE, PgHosts, wait_until

from understudy.core.events import Entry, Event, EventKind
from understudy.core.invariants import check_journal
from understudy.core.text import Name

T = TypeVar("T")

OUTAGE_S = 20.0
"""How long nobody may be able to write, at most: a generous bound, several leases long. The benches say what it is."""
LEASE_S = 4.0
"""Of the cluster of these tests."""
PAGE = 1000


class Trial:
    """Writers, and what the cluster was before the fault. A context manager.

    At its end the cluster must have come back by itself: every node in its part, clients writing. Then nothing that
    was acknowledged may be missing on any node, one node alone may be writable, and the journal must be in order.
    """

    def __init__(self, pg: PgHosts, outage_s: float = OUTAGE_S) -> None:
        self._pg = pg
        self._outage_s = outage_s
        self.primary = ""
        self.epoch = 0
        self.began_s = 0.0
        """When all was well and clients wrote, by the monotonic clock."""
        self.ledger: Ledger

    def __enter__(self) -> Self:
        self._pg.wait_steady()
        before = self._pg.cluster()
        self.primary, self.epoch = before["primary"], before["epoch"]
        self.ledger = self._pg.ledger().__enter__()
        self.ledger.wait_writing()
        self.began_s = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        well = False
        try:
            if kind is None:
                self._judge()
                well = True
        finally:
            self.ledger.end()
            if not well:
                sys.stdout.write(f"{self._history()}\n")  # pytest shows it with what failed

    def lasts(self, lasting_s: float) -> None:
        """So long nobody may be able to write because of what is done to them, on top of what it takes afterwards."""
        self._outage_s += lasting_s

    def standbys(self) -> list[str]:
        """The nodes that were not primary when it began."""
        return [node for node in NODES if node != self.primary]

    def wait_writing(self) -> None:
        """Wait until all writers are acknowledged again."""
        self.ledger.wait_writing(self._outage_s + 10)

    def wait_failover(self) -> str:
        """Wait until another node has the part and takes writes; who it is."""
        wait_until(lambda: (now := self.now())["epoch"] > self.epoch and now["phase"] in _OVER, "a failover", 60)
        self.wait_writing()
        return str(self.now()["primary"])

    def replace_primary(self) -> str:
        """Kill the primary's postmaster, and wait until another node has the part; who it is.

        Again if need be: on a busy machine the killed one may be up before a standby is frozen, and goes on itself.
        """
        for _ in range(4):
            self._pg.kill_postmaster(self.primary)
            if (now := self.wait_failover()) != self.primary:
                return now
            self._pg.wait_steady()
            self.epoch = self.now()["epoch"]
        raise AssertionError(f"{self.primary} itself went on each time")

    def hold(self, hold_s: float) -> None:
        """Let it be so for that long; nobody is refused anything meanwhile, and the primary keeps its part."""
        began_s = time.monotonic()
        time.sleep(hold_s)
        self.wait_writing()
        assert not self.ledger.failures(began_s)

    def now(self) -> dict[str, Any]:
        """The cluster's status, by whichever agent answers."""
        for host in ("h4", "h1", "h2", "h3"):
            try:
                return self._pg.cluster(host)
            except OSError:
                continue
        return {"epoch": 0, "phase": "", "primary": ""}

    def outage_s(self) -> float:
        """The longest time in which nobody was acknowledged anything."""
        return self.ledger.outage_s(self.began_s)

    def _history(self) -> str:
        """What happened, for whoever wonders why it failed."""
        try:
            entries = journal(self._pg)
        except OSError as why:
            return str(why)
        return "\n".join(f"{one.wall_s:.3f} {one.event.kind} {one.event.reason}" for one in entries[-60:])

    def _judge(self) -> None:
        self.wait_writing()
        self._pg.wait_steady()
        self.wait_writing()
        outage_s = self.outage_s()
        self.ledger.end()
        assert outage_s < self._outage_s + self.ledger.stall_s
        audit = self.ledger.audit()
        assert audit.acknowledged
        assert not audit.lost
        wait_until(lambda: _leads_alone(self._pg), "the primary takes writes", 60)
        for node in NODES:
            _everything_arrives(self._pg, self.ledger, node)
        assert check_journal(patiently(lambda: journal(self._pg))) == ()


_OVER = ("rejoining", "steady")


def patiently(question: Callable[[], T]) -> T:
    """Its answer, asked again for a while.

    The store may have no leader, since a member that was cut off makes the others elect anew; and a node that was down
    for a second only may not have been missed yet, nor be up again.
    """
    give_up_s = time.monotonic() + 60
    while True:
        try:
            return question()
        except (OSError, Failed):
            if time.monotonic() > give_up_s:
                raise
            time.sleep(0.1)


def _leads_alone(pg: PgHosts) -> bool:
    """Whether just the primary takes writes; two that do are never right."""
    writable = patiently(lambda: _writable(pg))
    assert len(writable) < 2, f"{writable} take writes"
    return writable == [patiently(pg.primary)]


def _writable(pg: PgHosts) -> list[str]:
    return [node for node in NODES if ask(pg.conninfo_of(node), "SELECT pg_is_in_recovery()") == [("f",)]]


def _everything_arrives(pg: PgHosts, ledger: Ledger, node: str) -> None:
    """Every node, asked by itself, has all that was acknowledged (what it has flushed it may yet have to replay)."""

    def arrived() -> bool:
        try:
            return not ledger.audit(pg.conninfo_of(node), 5).lost
        except Failed:
            return False

    wait_until(arrived, f"{node} has all that was acknowledged", 60)


def journal(pg: PgHosts, since: int = 0) -> list[Entry]:
    """All entries of the cluster's journal above that number."""
    entries: list[Entry] = []
    while True:
        after = entries[-1].number if entries else since
        page = pg.ask(f"events?after={after}&limit={PAGE}&service={SERVICE}")
        entries += [_entry(one) for one in page]
        if len(page) < PAGE:
            return entries


def told(pg: PgHosts, kind: EventKind, since: int = 0) -> list[Event]:
    """The events of that kind in the journal, above that number."""
    return [entry.event for entry in journal(pg, since) if entry.event.kind is kind]


def last(pg: PgHosts) -> int:
    """The number of the journal's last entry."""
    return max((entry.number for entry in journal(pg)), default=0)


def _entry(said: dict[str, Any]) -> Entry:
    service, subject = said["service"], said["subject"]
    event = Event(
        EventKind(said["kind"]),
        said["reason"],
        Name(service) if service else None,
        Name(subject) if subject else None,
        tuple(said["data"].items()),
    )
    return Entry(said["number"], said["wall_s"], event)


def streams(pg: PgHosts, node: str) -> bool:
    """Whether the primary sends its log there."""
    sql = f"SELECT count(*) FROM pg_stat_replication WHERE application_name = '{node}' AND state = 'streaming'"
    return patiently(lambda: ask(pg.conninfo, sql)) == [("1",)]


def eventually(true: Callable[[], bool], what: str, patience_s: float = 60.0) -> None:
    """Wait for it; TimeoutError that says for what."""
    wait_until(true, what, patience_s)
