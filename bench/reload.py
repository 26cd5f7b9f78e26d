"""`make bench-reload`: what 20 reloads cost the clients, at 500 requests a second over 50 keep-alive connections.

Ours is reloaded by `apply` of a spec that needs a reload, the peers by the signal that their manuals name.
"""

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.hosts import Hosts, missing

from bench import proxies, report
from bench.load import Client, Load, Plan, quantile
from bench.server import serving
from understudy.cli.client import Client as Api

RELOADS = 20
EVERY_S = 1.0
PLAN = Plan(rate=500, length_s=RELOADS * EVERY_S + 3, connections=50)
FIRST_AT_S = 1.0

Reload = Callable[[proxies.Proxy, list[str], int], None]


def _apply(proxy: proxies.Proxy, servers: list[str], number: int) -> None:
    text = proxies.our_spec(proxy.host.address, servers, f"    timeouts: {{server: {61 + number % 2}s}}\n")
    change = proxy.host.inside(lambda: Api(proxies.API).post("apply", text=text))
    if not change["reload"]:
        raise RuntimeError(f"this apply did not reload: {change}")


def _signal(number: signal.Signals) -> Reload:
    return lambda proxy, _servers, _number: proxy.process.send_signal(number)


RELOAD: dict[str, Reload] = {
    "understudy": _apply,
    "haproxy-by-hand": _signal(signal.SIGUSR2),
    "nginx-by-hand": _signal(signal.SIGHUP),
}


def main() -> int:
    """Reload each proxy and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.reload", description=__doc__)
    parser.add_argument("--peer", action="append", choices=sorted(RELOAD), help="only this proxy (repeatable)")
    peers = parser.parse_args().peer or list(RELOAD)
    if reason := missing() or proxies.lacking(peers):
        print(f"bench-reload: {reason}", file=sys.stderr)
        return 1
    rows = []
    for peer in peers:
        print(f"{peer}: {RELOADS} reloads …", flush=True)
        load, took_s, left = measure(peer)
        faults = Counter(sent.fault for sent in load.sent if sent.fault)
        print(f"  {dict(faults) or 'no request failed'}", flush=True)
        waits = [sent.took_s for sent in load.sent]
        rows.append(
            [
                peer,
                str(faults.total()),
                f"{quantile(waits, 0.99) * 1000:.0f}",
                f"{max(waits) * 1000:.0f}",
                f"{quantile(took_s, 0.5) * 1000:.0f}",
                f"{max(took_s) * 1000:.0f}",
                str(left),
                f"{load.stall_s * 1000:.0f}",
            ]
        )
    head = ["proxy", "failed", "p99", "max", "reload p50", "reload max", "processes left", "client late"]
    report.publish(
        "reload",
        f"{round(PLAN.rate * PLAN.length_s)} requests at {PLAN.rate:.0f}/s over {PLAN.connections} keep-alive "
        f"connections, {RELOADS} reloads, one every {EVERY_S:.0f} s. Times in ms; a peer's reload is only a signal.\n\n"
        + report.table(head, rows),
    )
    return 0


def measure(peer: str) -> tuple[Load, list[float], int]:
    """The load, how long each reload took to be ordered or done (seconds), and the proxy's processes at the end."""
    with tempfile.TemporaryDirectory(prefix="us-bench-") as name, Hosts("lb", "s1", "s2", "s3") as hosts:
        folder = Path(name)
        folder.chmod(0o755)
        servers = serving([hosts["s1"], hosts["s2"], hosts["s3"]], folder)
        proxy = proxies.start(peer, hosts["lb"], servers.addresses, folder / peer)
        load, took_s = asyncio.run(_reload_under_load(peer, proxy, servers.addresses))
        return load, took_s, len(proxy.workers())


async def _reload_under_load(peer: str, proxy: proxies.Proxy, servers: list[str]) -> tuple[Load, list[float]]:
    start_s = time.monotonic() + 0.5
    running = asyncio.create_task(Client(proxy.host.address, proxies.PORT).run(PLAN, start_s))
    took_s = []
    for number in range(RELOADS):
        await asyncio.sleep(start_s + FIRST_AT_S + number * EVERY_S - time.monotonic())
        before_s = time.monotonic()
        await asyncio.to_thread(RELOAD[peer], proxy, servers, number)
        took_s.append(time.monotonic() - before_s)
    return await running, took_s


if __name__ == "__main__":
    report.end_with(main)
