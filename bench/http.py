# ruff: noqa: A005  the command is `python -m bench.http`; nothing in the house imports it by a bare name
"""`make bench-http`: what a server's death, silence or lost link costs the clients, ours beside its peers, in one run.

Three servers, 200 GETs a second and a POST after every tenth, 16 s each, the fault after 3 s, client deadline 3 s. The
servers write down every POST that they run, so one that ran twice shows; they are counted after the stopped server goes
on and the link is back, when what lay in a buffer has been run too.
"""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.hosts import Host, Hosts, missing

from bench import proxies, report
from bench.load import Client, Load, Plan, Sent, quantile
from bench.server import Servers, serving

SLOW_S = 0.25
FAULT_AT_S = 3.0
LENGTH_S = 16.0
PLAN = Plan(rate=200, length_s=LENGTH_S, gets_per_post=10)
SETTLE_S = 30.0
BENCHED = ("understudy", "haproxy", "nginx", "envoy")


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with the first server, and how it is put right afterwards."""

    strike: Callable[[Servers], None]
    mend: Callable[[Servers], None]


FAULTS = {
    "killed": Fault(lambda s: os.kill(s.processes[0].pid, signal.SIGKILL), lambda _: None),
    "hung": Fault(
        lambda s: os.kill(s.processes[0].pid, signal.SIGSTOP), lambda s: os.kill(s.processes[0].pid, signal.SIGCONT)
    ),
    "cut off": Fault(lambda s: s.hosts[0].link_down(), lambda s: s.hosts[0].link_up()),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one proxy's clients saw of one fault. Times in seconds."""

    gets: int
    failed_gets: int
    failed_posts: int
    posts_twice: int
    slow_until_s: float
    """After the fault, when the last request was sent that failed or took longer than SLOW_S; 0 when none did."""
    p50_s: float
    p99_s: float
    max_s: float
    stall_s: float
    faults: Counter[str]


def main() -> int:
    """Run what was asked for and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.http", description=__doc__)
    parser.add_argument("--runs", type=int, default=1, help="how often to repeat the whole")
    parser.add_argument("--peer", action="append", choices=sorted(proxies.PEERS), help="only this proxy (repeatable)")
    parser.add_argument("--fault", action="append", choices=sorted(FAULTS), help="only this fault (repeatable)")
    asked = parser.parse_args()
    peers = asked.peer or BENCHED
    if reason := missing() or proxies.lacking(peers):
        print(f"bench-http: {reason}", file=sys.stderr)
        return 1
    outcomes: dict[tuple[str, str], list[Outcome]] = {}
    for run in range(1, asked.runs + 1):
        for fault in asked.fault or FAULTS:
            for peer in peers:
                print(f"run {run} of {asked.runs}: {peer}, one server {fault} …", flush=True)
                outcome = measure(peer, FAULTS[fault])
                outcomes.setdefault((peer, fault), []).append(outcome)
                print(f"  {dict(outcome.faults) or 'no request failed'}", flush=True)
    report.publish("http", _text(outcomes, asked.runs))
    return 0


def measure(peer: str, fault: Fault) -> Outcome:
    """One proxy, one fault, everything fresh."""
    with tempfile.TemporaryDirectory(prefix="us-bench-") as name, Hosts("lb", "s1", "s2", "s3") as hosts:
        folder = Path(name)
        folder.chmod(0o755)
        servers = serving([hosts["s1"], hosts["s2"], hosts["s3"]], folder)
        proxies.start(peer, hosts["lb"], servers.addresses, folder / peer)
        load = asyncio.run(_strike(Client(hosts["lb"].address, proxies.PORT), fault, servers))
        fault.mend(servers)
        _settle(hosts["lb"], servers.hosts[0].address)
        return _outcome(load, servers.posts())


async def _strike(client: Client, fault: Fault, servers: Servers) -> Load:
    start_s = time.monotonic() + 0.1
    running = asyncio.create_task(client.run(PLAN, start_s))
    await asyncio.sleep(start_s + FAULT_AT_S - time.monotonic())
    await asyncio.to_thread(fault.strike, servers)
    return await running


def _settle(lb: Host, server: str) -> None:
    """Wait until nothing is under way to the server any more: sent before the fault, it may be run after it."""
    time.sleep(1.0)
    give_up_s = time.monotonic() + SETTLE_S
    while time.monotonic() < give_up_s:
        lines = lb.run(["ss", "-Htn", "dst", server]).splitlines()
        if not any(int(line.split()[2]) for line in lines):  # the third column: bytes not yet acknowledged
            break
        time.sleep(0.2)
    time.sleep(0.5)


def _outcome(load: Load, posts: Counter[str]) -> Outcome:
    gets = [sent for sent in load.sent if not sent.post]
    took = [sent.took_s for sent in load.sent]
    return Outcome(
        gets=len(gets),
        failed_gets=sum(sent.fault is not None for sent in gets),
        failed_posts=sum(sent.fault is not None for sent in load.sent if sent.post),
        posts_twice=sum(times > 1 for times in posts.values()),
        slow_until_s=max((sent.due_s - FAULT_AT_S for sent in load.sent if _bad(sent)), default=0.0),
        p50_s=quantile(took, 0.5),
        p99_s=quantile(took, 0.99),
        max_s=max(took),
        stall_s=load.stall_s,
        faults=Counter(f"{'POST' if sent.post else 'GET'} {sent.fault}" for sent in load.sent if sent.fault),
    )


def _bad(sent: Sent) -> bool:
    return sent.fault is not None or sent.took_s > SLOW_S


def _text(outcomes: dict[tuple[str, str], list[Outcome]], runs: int) -> str:
    head = [
        "proxy, one server …",
        "failed GETs",
        "failed POSTs",
        "POSTs run twice",
        "bad until",
        "p50",
        "p99",
        "max",
        "client late",
    ]
    rows = [_row(f"{peer}, {fault}", got) for (peer, fault), got in outcomes.items()]
    gets = next(iter(outcomes.values()))[0].gets
    return (
        f"{gets} GETs at {PLAN.rate:.0f}/s and a POST after every tenth; one server of three struck after "
        f"{FAULT_AT_S:.0f} s; runs: {runs}\n"
        f"bad until: seconds after the fault when the last request was due that failed or took over {SLOW_S} s. "
        "Times in ms.\nOver several runs: worst of all, for p50 the median.\n\n" + report.table(head, rows)
    )


def _row(label: str, got: Sequence[Outcome]) -> list[str]:
    return [
        label,
        str(max(one.failed_gets for one in got)),
        str(max(one.failed_posts for one in got)),
        str(max(one.posts_twice for one in got)),
        f"{max(one.slow_until_s for one in got):.2f} s",
        f"{quantile([one.p50_s for one in got], 0.5) * 1000:.1f}",
        f"{max(one.p99_s for one in got) * 1000:.0f}",
        f"{max(one.max_s for one in got) * 1000:.0f}",
        f"{max(one.stall_s for one in got) * 1000:.0f}",
    ]


if __name__ == "__main__":
    report.end_with(main)
