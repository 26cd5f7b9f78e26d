"""`make bench-cpu`: CPU time of each proxy per request, in rounds that take turns, so that noise meets all alike.

One thread on one core for the proxy, the other cores for the load (wrk, 64 keep-alive connections) and the servers
(nginx, 100-byte answers). What counts is user and system time of the proxy's worker as the kernel books it, health
checks included. Ratios are taken within each round: to a plain configuration by hand, and to one by hand that retries
as ours does, since HAProxy copies each request that it may have to send again.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.hosts import Host, Hosts, missing

from bench import proxies, report
from bench.report import cores

BENCHED = ("understudy", "haproxy-by-hand", "haproxy-tuned", "nginx-by-hand", "envoy")
BASES = ("haproxy-by-hand", "haproxy-tuned")
CONNECTIONS = 64
SERVER_PORTS = (9001, 9002, 9003)
PROXY_CORE = "0"


def main() -> int:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.cpu", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=int, default=3, help="length of one measurement")
    parser.add_argument("--peer", action="append", choices=sorted(proxies.PEERS), help="only this proxy (repeatable)")
    asked = parser.parse_args()
    peers = asked.peer or BENCHED
    absent = "wrk missing: run ./setup-host bench" if shutil.which("wrk") is None else None
    if reason := missing() or absent or proxies.lacking(peers):
        print(f"bench-cpu: {reason}", file=sys.stderr)
        return 1
    costs = measure(peers, asked.rounds, asked.seconds)
    report.publish("cpu", _text(costs, asked.seconds))
    return 0


def measure(peers: Sequence[str], rounds: int, seconds: int) -> dict[str, list[float]]:
    """Microseconds of CPU per request, by proxy, one figure a round. All run side by side; one at a time is loaded."""
    costs: dict[str, list[float]] = {peer: [] for peer in peers}
    places = [f"lb{number}" for number in range(len(peers))]
    with tempfile.TemporaryDirectory(prefix="us-bench-") as name, Hosts("server", *places) as hosts:
        folder = Path(name)
        folder.chmod(0o755)
        _servers(hosts["server"], folder)
        addresses = [f"{hosts['server'].address}:{port}" for port in SERVER_PORTS]
        running = {
            peer: proxies.start(peer, hosts[place], addresses, folder / peer, prefix=("taskset", "-c", PROXY_CORE))
            for peer, place in zip(peers, places, strict=True)
        }
        for peer, proxy in running.items():  # warm up, and let slow starts end
            _load(proxy, 2)
            print(f"{peer}: workers {proxy.workers()}", flush=True)
        for number in range(rounds):
            for peer in [*peers[number % len(peers) :], *peers[: number % len(peers)]]:
                costs[peer].append(_cost_us(running[peer], seconds))
            print(f"round {number + 1}: {', '.join(f'{p} {costs[p][-1]:.1f} µs' for p in peers)}", flush=True)
    return costs


def _servers(host: Host, folder: Path) -> None:
    """Start nginx as three servers, answering from memory."""
    listens = " ".join(f"listen {port};" for port in SERVER_PORTS)
    config = folder / "servers.conf"
    config.write_text(
        f"daemon off; user www-data; pid {folder}/servers.pid; error_log stderr crit; worker_processes 1;\n"
        "events { worker_connections 2048; }\n"
        f"http {{ access_log off; keepalive_requests 1000000; client_body_temp_path {folder}/b; server {{ {listens} "
        f'location / {{ default_type text/plain; return 200 "{"x" * 100}"; }} }} }}\n'
    )
    argv = [*_load_cores(), "nginx", "-e", "stderr", "-c", str(config)]
    with (folder / "servers.log").open("wb") as log:
        host.start(argv, stdout=log, stderr=log)
    time.sleep(0.5)


def _load_cores() -> list[str]:
    return ["taskset", "-c", f"1-{cores() - 1}"] if cores() > 1 else []


def _cost_us(proxy: proxies.Proxy, seconds: int) -> float:
    before_s = _cpu_s(proxy)
    requests = _load(proxy, seconds)
    return (_cpu_s(proxy) - before_s) / requests * 1e6


def _load(proxy: proxies.Proxy, seconds: int) -> int:
    """Load the proxy and tell how many good answers came."""
    url = f"http://{proxy.host.address}:{proxies.PORT}/"
    argv = [*_load_cores(), "wrk", "-t", "1", "-c", str(CONNECTIONS), "-d", f"{seconds}s", url]
    output = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    done = re.search(r"(\d+) requests in", output)
    if done is None or "Non-2xx" in output or "Socket errors" in output:
        raise RuntimeError(f"the load did not go well: {output}")
    return int(done[1])


def _cpu_s(proxy: proxies.Proxy) -> float:
    """User and system time of all of the proxy's processes so far."""
    ticks = 0
    for pid in proxy.workers():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _text(costs: dict[str, list[float]], seconds: int) -> str:
    bases = [base for base in BASES if base in costs]
    head = ["proxy", "median µs", "spread µs"]
    for base in bases:
        head += [f"x {base}", "spread"]
    rows = []
    for peer, figures in costs.items():
        row = [peer, f"{statistics.median(figures):.1f}", f"{min(figures):.1f}-{max(figures):.1f}"]
        for base in bases:
            ratios = [figure / other for figure, other in zip(figures, costs[base], strict=True)]
            row += [f"{statistics.median(ratios):.3f}", f"{min(ratios):.2f}-{max(ratios):.2f}"]
        rows.append(row)
    rounds = len(next(iter(costs.values())))
    return (
        f"CPU time (user + system) per proxied request; {rounds} rounds of {seconds} s, {CONNECTIONS} keep-alive "
        "connections, 100-byte answers, one core.\n\n" + report.table(head, rows)
    )


if __name__ == "__main__":
    report.end_with(main)
