"""`make bench-postgres`: what a lost primary and a switchover cost the clients, ours beside Patroni, in one run.

Both on the same test hosts: three with an engine and an etcd member each, one with HAProxy. Four writers insert, each
10 ms after its last acknowledgement, with 1 s for each statement, and reconnect at once. The outage is the longest time
between two acknowledgements after the fault, by all writers together; what was acknowledged and is not there afterwards
is lost. Then pgbench through our write port, in turn with an HAProxy written by hand before the same engine.
"""

import argparse
import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.pg_hosts import (
    ELECTION_MS,
    ENGINE_PORT,
    HEARTBEAT_MS,
    NODES,
    ROUTER,
    WRITE,
    Engines,
    PgHosts,
    missing,
    wait_until,
)

from bench import report
from bench.load import quantile
from bench.patroni import DEFAULT, SMALLEST, PatroniHosts

CALM_S = 1.0
"""Of writing before the fault."""
LEAST_S = 3.0
"""How long a fault is watched at least."""
MOST_S = 120.0
LEADER_S = 40.0
BY_HAND = 7500
PGBENCH_S, PGBENCH_ROUNDS, PGBENCH_SCALE = 4, 20, 5  # one round alone is off by a tenth
LOAD_KINDS = {"select": ("--select-only",), "update": ()}


@dataclass(frozen=True, slots=True)
class Setting:
    """Who is measured: a name, how to make it, and with what of ours it is to be compared (itself: ours)."""

    make: Callable[[bool], Engines]
    against: str

    def is_ours(self, name: str) -> bool:
        """Whether it is understudy."""
        return self.against == name


ZERO, BOUNDED = "understudy zero_loss", "understudy max_loss"
SETTINGS = {
    ZERO: Setting(lambda memory: PgHosts(memory=memory), ZERO),
    BOUNDED: Setting(lambda memory: PgHosts(durability="{max_loss: 1MiB}", memory=memory), BOUNDED),
    "patroni sync": Setting(lambda memory: PatroniHosts(timers=DEFAULT, synchronous=True, memory=memory), ZERO),
    "patroni async": Setting(lambda memory: PatroniHosts(timers=DEFAULT, memory=memory), BOUNDED),
    "patroni sync, smallest": Setting(
        lambda memory: PatroniHosts(timers=SMALLEST, synchronous=True, memory=memory), ZERO
    ),
    "patroni async, smallest": Setting(lambda memory: PatroniHosts(timers=SMALLEST, memory=memory), BOUNDED),
}

KILLED, CUT_OFF, SWITCHOVER = "killed", "cut-off", "switchover"
"""The engine's first process; its host's cable; an order."""
STRIKES: dict[str, Callable[[Engines, str], float]] = {
    KILLED: lambda engines, primary: engines.kill_postmaster(primary),
    CUT_OFF: lambda engines, primary: engines.link_down(NODES[primary]),
    SWITCHOVER: lambda engines, _: engines.switchover(engines.target()),
}

TARGETS_S = {
    (ZERO, KILLED): 0.3,
    (BOUNDED, KILLED): 0.3,
    (ZERO, CUT_OFF): 1.5,
    (BOUNDED, CUT_OFF): 6.0,
    (ZERO, SWITCHOVER): 0.2,
    (BOUNDED, SWITCHOVER): 0.2,
}
"""For our p95; with the default lease of 4 s."""
LEAST_THROUGHPUT = 0.97


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one fault cost."""

    outage_s: float
    acknowledged: int
    lost: int
    stall_s: float
    """The longest that a writer itself ran late: the machine's noise."""
    etcd_lost: bool
    """Whether etcd's leader was on the primary's host."""


Outcomes = dict[tuple[str, str], list[Outcome]]


def main() -> int:
    """Run what was asked for and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.postgres", description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="of each fault with ours")
    parser.add_argument("--peer-runs", type=int, default=5, help="of each fault with the peer")
    parser.add_argument("--who", action="append", choices=list(SETTINGS), help="only this one (repeatable)")
    parser.add_argument("--fault", action="append", choices=list(STRIKES), help="only this fault (repeatable)")
    parser.add_argument("--disk", action="store_true", help="files on this machine's disk, not in memory")
    parser.add_argument("--no-pgbench", action="store_true", help="leave the throughput out")
    asked = parser.parse_args()
    if reason := missing():
        print(f"bench-postgres: {reason}", file=sys.stderr)
        return 1
    outcomes: Outcomes = {}
    for who in asked.who or SETTINGS:
        runs = asked.runs if SETTINGS[who].is_ours(who) else asked.peer_runs
        if runs:
            _measure(who, asked.fault or list(STRIKES), runs, memory=not asked.disk, outcomes=outcomes)
    text = _text(outcomes, memory=not asked.disk)
    if not asked.no_pgbench:
        text += "\n\n" + _throughput(memory=not asked.disk)
    report.publish("postgres", text)
    return 0


# --- outages ----------------------------------------------------------------------------------------------------------


def _measure(who: str, faults: Sequence[str], runs: int, *, memory: bool, outcomes: Outcomes) -> None:
    """All faults of one setting, one after the other on the same engines. What fails is told and ends the setting."""
    print(f"{who}: starting …", flush=True)
    try:
        with SETTINGS[who].make(memory) as engines:
            for fault, run in itertools.product(faults, range(1, runs + 1)):
                outcome = _strike(engines, fault)
                outcomes.setdefault((who, fault), []).append(outcome)
                leader = ", etcd's leader too" if fault == CUT_OFF and outcome.etcd_lost else ""
                print(
                    f"  {fault}, run {run} of {runs}: {outcome.outage_s:.3f} s{leader}, "
                    f"lost {outcome.lost} of {outcome.acknowledged}",
                    flush=True,
                )
    except (TimeoutError, OSError, RuntimeError) as failed:
        print(f"  {who} was given up: {failed}", flush=True)


def _strike(engines: Engines, fault: str) -> Outcome:
    """One fault under load, and everything in order again."""
    if fault == CUT_OFF and isinstance(engines, PgHosts):
        _await_leader_moved(engines)
    with engines.ledger() as ledger:
        ledger.wait_writing()
        time.sleep(CALM_S)
        primary = engines.primary()
        etcd_lost = engines.etcd_leader() == NODES[primary]
        struck_s = STRIKES[fault](engines, primary)
        ledger.wait_over(struck_s, least_s=LEAST_S, patience_s=MOST_S)
        outage_s = ledger.outage_s(struck_s)
    if fault == CUT_OFF:
        engines.link_up(NODES[primary])
    engines.wait_steady()
    audit = ledger.audit(patience_s=MOST_S)  # once more is everybody there: also what came back may have undone nothing
    return Outcome(outage_s, audit.acknowledged, len(audit.lost), ledger.stall_s, etcd_lost)


def _await_leader_moved(engines: PgHosts) -> None:
    """Give our agents the time to move etcd's leader off the primary's host: our faults come sooner than in life."""
    with contextlib.suppress(TimeoutError):
        wait_until(lambda: engines.etcd_leader() != NODES[engines.primary()], "etcd's leader is elsewhere", LEADER_S)


def _text(outcomes: Outcomes, *, memory: bool) -> str:
    head = [
        "who, what",
        "runs",
        "p50",
        "p95",
        "max",
        "target p95",
        "times ours",
        "lost",
        "acknowledged",
        "etcd too",
        "client late",
    ]
    rows = [
        _row(who, fault, outcomes[who, fault], outcomes.get((SETTINGS[who].against, fault)))
        for fault in STRIKES
        for who in SETTINGS
        if (who, fault) in outcomes
    ]
    return (
        f"PostgreSQL, three nodes, four writers; files {'in memory' if memory else 'on one disk'}; etcd: heartbeat "
        f"{HEARTBEAT_MS} ms, election {ELECTION_MS} ms; load of the machine {os.getloadavg()[0]:.1f}\n"
        "Outage: longest time between two acknowledgements after the fault, in s. times ours: p50 by that of ours.\n"
        "etcd too: in how many runs etcd's leader was on the host that was cut off.\n\n" + report.table(head, rows)
    )


def _row(who: str, fault: str, got: Sequence[Outcome], ours: Sequence[Outcome] | None) -> list[str]:
    outages = [one.outage_s for one in got]
    p95 = quantile(outages, 0.95)
    target = TARGETS_S.get((who, fault))
    peer = ours is not None and ours is not got
    times = f"{quantile(outages, 0.5) / quantile([one.outage_s for one in ours], 0.5):.1f}" if peer else ""
    return [
        f"{fault}, {who}",
        str(len(got)),
        f"{quantile(outages, 0.5):.3f}",
        f"{p95:.3f}",
        f"{max(outages):.3f}",
        "" if target is None else f"{target:.1f} {'met' if p95 <= target else 'MISSED'}",
        times,
        str(sum(one.lost for one in got)),
        str(sum(one.acknowledged for one in got)),
        str(sum(one.etcd_lost for one in got)) if fault == CUT_OFF else "",
        f"{max(one.stall_s for one in got) * 1000:.0f} ms",
    ]


# --- throughput -------------------------------------------------------------------------------------------------------


def _throughput(*, memory: bool) -> str:
    """The transactions of pgbench through our write port and through an HAProxy by hand, in turn."""
    print("throughput: starting …", flush=True)
    rates: dict[tuple[str, int], list[float]] = {}
    with PgHosts(memory=memory) as engines, tempfile.TemporaryDirectory(prefix="us-bench-") as folder:
        _by_hand(engines, Path(folder))
        _pgbench(engines, WRITE, "--initialize", f"--scale={PGBENCH_SCALE}", "--quiet")
        # One kind after the other, and in turn who goes first: what updates leave to be done slows what comes next.
        for kind, number, second in itertools.product(LOAD_KINDS, range(PGBENCH_ROUNDS), (False, True)):
            port = (WRITE, BY_HAND)[(number + second) % 2]
            load = ("--client=8", "--jobs=2", f"--time={PGBENCH_S}", "--no-vacuum", *LOAD_KINDS[kind])
            rate = _rate(_pgbench(engines, port, *load))
            rates.setdefault((kind, port), []).append(rate)
            print(f"  {kind}, {'ours' if port == WRITE else 'by hand'}: {rate:.0f} a second", flush=True)
    rows = []
    for kind in LOAD_KINDS:
        ours, by_hand = rates[kind, WRITE], rates[kind, BY_HAND]
        share = statistics.median(a / b for a, b in zip(ours, by_hand, strict=True))
        verdict = f"{LEAST_THROUGHPUT} {'met' if share >= LEAST_THROUGHPUT else 'MISSED'}"
        medians = [f"{statistics.median(each):.0f}" for each in (ours, by_hand)]
        rows.append([f"pgbench {kind}", str(len(ours)), *medians, f"{share:.3f}", verdict])
    head = ["transactions a second", "rounds", "ours", "HAProxy by hand", "ours / by hand", "target"]
    return "8 clients; medians; the share is the median of the rounds' shares\n\n" + report.table(head, rows)


def _by_hand(engines: PgHosts, folder: Path) -> None:
    """An HAProxy on the router's host that knows one server: the primary."""
    config = folder / "haproxy.cfg"
    primary = engines.host_of(engines.primary()).address
    config.write_text(
        "defaults\n    mode tcp\n    timeout connect 4s\n    timeout client 30m\n    timeout server 30m\n"
        f"listen primary\n    bind *:{BY_HAND}\n    server primary {primary}:{ENGINE_PORT} check\n"
    )
    engines.hosts[ROUTER].start(["haproxy", "-W", "-db", "-f", str(config)], stdout=subprocess.DEVNULL)


def _pgbench(engines: PgHosts, port: int, *options: str) -> str:
    """Run it here, through that port of the router's host; what it printed."""
    argv = ["pgbench", f"--host={engines.hosts[ROUTER].address}", f"--port={port}", "--username=postgres"]
    environment = os.environ | {"PGPASSFILE": str(engines.passfile)}
    done = subprocess.run(
        [*argv, *options, "postgres"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"pgbench failed: {done.stderr.strip()[-500:]}")
    return done.stdout


def _rate(output: str) -> float:
    line = next(line for line in output.splitlines() if line.startswith("tps"))
    return float(line.split("=")[1].split()[0])


if __name__ == "__main__":
    report.end_with(main)
