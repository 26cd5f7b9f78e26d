"""Random faults on test hosts, one or two at a time, for as long as wished: `make soak`, with a ledger over each round.

After each round all must be mended by itself: clients write, every node follows, nothing acknowledged is missing on any
node, the journal keeps the invariants (trial.py judges it). What the seed draws is the same each time; when things
happen inside the cluster is not.
"""

import argparse
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from tests.integration.postgres.trial import Trial, patiently
from tests.ledger import Failed, ask
from tests.pg_hosts import ENGINE_PORT, ENGINES, ETCD, ETCD_PEERS, NODES, ROUTER, PgHosts, wait_until

DISK_MIB = 1024
HOLD_S = (0.5, 7.0)
"""How long a fault lasts, at least and at most."""
TWO = 0.4
"""How often there are two at a time."""

Mend = Callable[[], object]


def _nothing() -> None:
    """It mends itself."""


@dataclass(frozen=True, slots=True)
class Blows:
    """The faults, by name; each strikes a node or its host, and answers what takes it back."""

    pg: PgHosts

    def postmaster_killed(self, node: str) -> Mend:
        self.pg.kill_postmaster(node)
        return _nothing

    def backend_killed(self, node: str) -> Mend:
        os.kill(random.choice(self.pg.backends(node)), signal.SIGKILL)
        return _nothing

    def agent_killed(self, node: str) -> Mend:
        self.pg.kill_agent(NODES[node])
        return lambda: self.pg.start_agent(NODES[node])

    def agent_restarted(self, node: str) -> Mend:
        self.pg.end_agent(NODES[node])
        self.pg.start_agent(NODES[node])
        return _nothing

    def router_agent_restarted(self, _node: str) -> Mend:
        self.pg.kill_agent(ROUTER)
        self.pg.start_agent(ROUTER)
        return _nothing

    def node_killed(self, node: str) -> Mend:
        self.pg.kill_node(node)
        return lambda: self.pg.start_agent(NODES[node])

    def host_powered_off(self, node: str) -> Mend:
        self.pg.power_off(NODES[node])
        return lambda: self.pg.power_on(NODES[node])

    def postmaster_stopped(self, node: str) -> Mend:
        self.pg.freeze_postmaster(node)
        return lambda: self.pg.thaw(NODES[node])

    def engine_stopped(self, node: str) -> Mend:
        self.pg.freeze_engine(node)
        return lambda: self.pg.thaw(NODES[node])

    def agent_stopped(self, node: str) -> Mend:
        self.pg.freeze_agent(NODES[node])
        return lambda: self.pg.thaw(NODES[node])

    def host_paused(self, node: str) -> Mend:
        self.pg.freeze_host(NODES[node])
        return lambda: self.pg.thaw(NODES[node])

    def cable_pulled(self, node: str) -> Mend:
        self.pg.link_down(NODES[node])
        return lambda: self.pg.link_up(NODES[node])

    def host_does_not_send(self, node: str) -> Mend:
        self.pg.cut(NODES[node], self.pg.others(NODES[node]))
        return self.pg.mend

    def host_does_not_hear(self, node: str) -> Mend:
        for other in self.pg.others(NODES[node]):
            self.pg.cut(other, [NODES[node]])
        return self.pg.mend

    def engines_parted(self, node: str) -> Mend:
        self.pg.part(NODES[node], _others(node))
        return self.pg.mend

    def replication_parted(self, node: str) -> Mend:
        self.pg.part(NODES[node], _others(node), [ENGINE_PORT])
        return self.pg.mend

    def store_parted(self, node: str) -> Mend:
        self.pg.part(NODES[node], _others(node), [ETCD, ETCD_PEERS])
        return self.pg.mend

    def packets_lost(self, node: str) -> Mend:
        self.pg.lose(NODES[node], 30)
        return self.pg.mend

    def etcd_member_killed(self, node: str) -> Mend:
        self.pg.kill_etcd(NODES[node])
        return lambda: self.pg.start_member(NODES[node])

    def etcd_killed(self, _node: str) -> Mend:
        self.pg.kill_etcd()
        return lambda: [self.pg.start_member(host) for host in ENGINES]

    def disk_full(self, node: str) -> Mend:
        self.pg.fill_disk(NODES[node])
        return lambda: self.pg.empty_disk(NODES[node])

    def disk_hung(self, node: str) -> Mend:
        self.pg.hang_disk(NODES[node])
        return lambda: self.pg.unhang_disk(NODES[node])

    def switchover(self, node: str) -> Mend:
        self.pg.switchover(node)
        return _nothing

    def rebuild(self, node: str) -> Mend:
        self.pg.wish("rebuild", node)
        return _nothing


KINDS = tuple(name for name in vars(Blows) if not name.startswith("_") and name != "pg")
_OF_STORE = frozenset({"etcd_member_killed", "etcd_killed", "host_powered_off"})
"""A member of etcd must not be started twice."""


@dataclass(slots=True)
class Tally:
    """What came of it all."""

    seed: int
    rounds: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    failovers: int = 0
    acknowledged: int = 0
    longest_outage_s: float = 0.0
    failure: str = ""

    def __str__(self) -> str:
        """One line for people."""
        kinds = ", ".join(f"{name} {number}" for name, number in sorted(self.faults.items()))
        verdict = f"FAILED: {self.failure}" if self.failure else "nothing lost"
        return (
            f"soak, seed {self.seed}: {self.rounds} rounds, {self.faults.total()} faults ({kinds}); "
            f"{self.failovers} changes of primary, {self.acknowledged} writes acknowledged, "
            f"longest outage {self.longest_outage_s:.2f} s; {verdict}"
        )


def soak(pg: PgHosts, minutes: float, seed: int, say: Callable[[str], object]) -> Tally:
    """Strike until the time is over or something is wrong; each round is told."""
    draw, tally = random.Random(seed), Tally(seed)
    over_s = time.monotonic() + 60 * minutes
    ask(pg.conninfo, "DROP TABLE IF EXISTS rounds; CREATE TABLE rounds (number int PRIMARY KEY)")
    while time.monotonic() < over_s and not tally.failure:
        _round(pg, draw, tally, say)
    return tally


def _round(pg: PgHosts, draw: random.Random, tally: Tally, say: Callable[[str], object]) -> None:
    faults = _drawn(draw)
    words = " and ".join(f"{kind} {node} {hold_s:.1f} s" for kind, node, hold_s in faults)
    trial = Trial(pg)
    try:
        with trial:
            struck_s = time.monotonic()
            _strike(pg, faults)
            trial.lasts(time.monotonic() - struck_s)
        _remembers_all_rounds(pg, tally.rounds)
        _make_room(pg)
    except (AssertionError, OSError, Failed, RuntimeError, subprocess.SubprocessError) as wrong:
        tally.failure = f"round {tally.rounds} ({words}): {wrong}"
    if not trial.began_s:
        return
    tally.rounds += 1
    tally.faults.update(kind for kind, _, _ in faults)
    tally.failovers += max(0, trial.now()["epoch"] - trial.epoch)
    tally.acknowledged += len(trial.ledger.acknowledgements())
    outage_s = trial.outage_s()
    tally.longest_outage_s = max(tally.longest_outage_s, outage_s)
    say(f"{tally.rounds:4} {words}: outage {outage_s:.2f} s, {trial.primary} -> {trial.now()['primary']}")


def _drawn(draw: random.Random) -> list[tuple[str, str, float]]:
    """One or two faults on different nodes: the kind, whom it strikes, how long it lasts."""
    nodes = draw.sample(sorted(NODES), 2)
    kinds = [draw.choice(KINDS)]
    if draw.random() < TWO:
        kinds += [draw.choice([kind for kind in KINDS if not (kind in _OF_STORE and kinds[0] in _OF_STORE)])]
    return [(kind, node, draw.uniform(*HOLD_S)) for kind, node in zip(kinds, nodes, strict=False)]


def _strike(pg: PgHosts, faults: list[tuple[str, str, float]]) -> None:
    blows, mends = Blows(pg), []
    for kind, node, hold_s in faults:
        with suppress(FileNotFoundError, ProcessLookupError, IndexError):  # it is down already
            mends.append((kind, _struck(blows, kind, node)))
        time.sleep(hold_s)
    for _, mend in reversed(mends):
        mend()


def _struck(blows: Blows, kind: str, node: str) -> Mend:
    try:
        return getattr(blows, kind)(node)
    except OSError as why:
        if kind not in {"switchover", "rebuild"} or isinstance(why, FileNotFoundError | ProcessLookupError):
            raise
        return _nothing  # a person's wish may be refused, or not be met in time


def _remembers_all_rounds(pg: PgHosts, number: int) -> None:
    """What was acknowledged in earlier rounds is still there, on every node."""
    patiently(lambda: ask(pg.conninfo, f"INSERT INTO rounds VALUES ({number}) ON CONFLICT DO NOTHING"))
    for node in NODES:
        wanted = [(str(number + 1),)]
        wait_until(lambda node=node, wanted=wanted: _count(pg, node) == wanted, f"all rounds are on {node}", 60)


def _make_room(pg: PgHosts) -> None:
    """What a person would do now and then: understudy removes neither replaced data nor log that was given up."""
    for node in NODES:
        beside = pg.data(node).with_name(f"{node}.understudy")
        for old in [*beside.glob("kept/*"), *beside.glob("lost/*")]:
            shutil.rmtree(old, ignore_errors=True)  # the agent may be at it


def _count(pg: PgHosts, node: str) -> list[tuple[str, ...]]:
    return patiently(lambda: ask(pg.conninfo_of(node), "SELECT count(*) FROM rounds"))


def _others(node: str) -> list[str]:
    return [host for host in ENGINES if host != NODES[node]]


def main() -> int:
    """For how long, and from which seed, stands in the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    given = parser.parse_args()
    sys.stdout.write(f"seed {given.seed}\n")
    with PgHosts(disk_mib=DISK_MIB) as pg:
        tally = soak(pg, given.minutes, given.seed, lambda line: (sys.stdout.write(f"{line}\n"), sys.stdout.flush()))
        if tally.failure:
            sys.stdout.write(f"{pg.said()}\n")
    sys.stdout.write(f"{tally}\n")
    return 1 if tally.failure else 0


if __name__ == "__main__":
    sys.exit(main())
