"""`make bench-scale`: the agent with 1 000 services of 10 endpoints each.

How long an apply takes that needs a reload (read, compile, check, reload, until the new worker answers), how soon one
endpoint's new weight is live (HAProxy's own runtime socket shows it), and what the agent costs when nothing happens.
Checks are every 10 s: at the default interval, 10 000 endpoints would be 50 000 checks a second.
"""

import argparse
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.hosts import Host, Hosts, missing

from bench import proxies, report
from bench.load import quantile
from understudy.cli.client import Client as Api
from understudy.core.errors import Refused
from understudy.core.model import Group
from understudy.core.text import Name
from understudy.router.layout import Layout
from understudy.router.names import backend_name, server_name

APPLIES = 5
WEIGHTS = 200
IDLE_S = 30.0
START_S = 120.0
LIVE_S = 5.0
SEED = 1
FIRST_PORT = 10_000


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is, and at which address it listens."""

    address: str
    services: int
    endpoints: int

    def spec(self, server_timeout_s: int) -> str:
        """All alike but for the first service's timeout. Endpoints are different loopback addresses of one nginx."""
        lines = ["cluster: scale", "services:"]
        for service in range(self.services):
            timeout_s = server_timeout_s if service == 0 else 60
            lines += [
                f"  s{service}:",
                "    kind: http",
                f"    listen: {self.address}:{FIRST_PORT + service}",
                "    health: {http: {path: /}, interval: 10s, timeout: 1s, slow_start: 0s}",
                f"    timeouts: {{server: {timeout_s}s}}",
                "    endpoints:",
            ]
            for endpoint in range(self.endpoints):
                host = f"127.{endpoint + 1}.{service // 250}.{service % 250 + 1}"
                lines.append(f"      - {{name: e{endpoint}, address: '{host}:9000', weight: 10}}")
        return "\n".join(lines) + "\n"


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--endpoints", type=int, default=10, help="of each service")
    asked = parser.parse_args()
    if reason := missing() or proxies.lacking(["haproxy", "nginx"]):
        print(f"bench-scale: {reason}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="us-bench-") as name, Hosts("lb") as hosts:
        size = Size(hosts["lb"].address, asked.services, asked.endpoints)
        measured = measure(hosts["lb"], Path(name), size)
    title = f"{asked.services} services of {asked.endpoints} endpoints, on {report.cores()} cores\n\n"
    report.publish("scale", title + report.table(["what", "measured", "target"], measured))
    return 0


def measure(host: Host, folder: Path, size: Size) -> list[list[str]]:
    """One row for each figure: what, measured, target."""
    folder.chmod(0o755)
    _server(host, folder)
    spec = folder / "spec.yaml"
    spec.write_text(size.spec(60))
    log = folder / "log"
    start_s = time.monotonic()
    with log.open("wb") as output:
        agent = host.start(proxies.understudy_up(spec, folder), stdout=output, stderr=output)
    return host.inside(_figures, agent, start_s, folder, size)


def _figures(agent: subprocess.Popen[bytes], start_s: float, folder: Path, size: Size) -> list[list[str]]:
    """Runs on the agent's host: the API answers to nobody else."""
    api = Api(proxies.API)
    _wait_up(api, agent, folder / "log", size.services)
    ready_s = time.monotonic() - start_s
    print(f"up after {ready_s:.1f} s", flush=True)
    time.sleep(3)
    idle_cpu, rss_mb = _idle(agent.pid)
    print(f"idle: {idle_cpu:.1f} % of a core, {rss_mb:.0f} MB", flush=True)
    weights_s = _weights(api, Layout(folder / "state" / "router").admin_socket, size)
    print(f"weights: p50 {quantile(weights_s, 0.5) * 1000:.0f} ms", flush=True)
    applies_s = [_apply_s(api, size.spec(61 + n % 2)) for n in range(APPLIES)]
    print(f"applies: {', '.join(f'{took_s:.2f} s' for took_s in applies_s)}", flush=True)
    return [
        ["start until every service is up", f"{ready_s:.1f} s", ""],
        [f"apply with a reload, median of {APPLIES}", f"{quantile(applies_s, 0.5):.2f} s", "< 1.5 s"],
        [f"apply with a reload, longest of {APPLIES}", f"{max(applies_s):.2f} s", "< 1.5 s"],
        [f"one weight live, p50 of {WEIGHTS}", f"{quantile(weights_s, 0.5) * 1000:.0f} ms", ""],
        [f"one weight live, p99 of {WEIGHTS}", f"{quantile(weights_s, 0.99) * 1000:.0f} ms", "<= 50 ms"],
        ["agent's memory, idle", f"{rss_mb:.0f} MB", "< 120 MB"],
        [f"agent's CPU over {IDLE_S:.0f} s, idle", f"{idle_cpu:.1f} %", "< 3 %"],
        ["agent's memory at the end", f"{_rss_mb(agent.pid):.0f} MB", ""],
    ]


def _server(host: Host, folder: Path) -> None:
    config = folder / "server.conf"
    config.write_text(
        f"daemon off; user www-data; pid {folder}/server.pid; error_log stderr crit;\n"
        "events { worker_connections 4096; }\n"
        f"http {{ access_log off; client_body_temp_path {folder}/body; server {{ listen 9000; "
        'location / { return 200 "up"; } } }\n'
    )
    with (folder / "server.log").open("wb") as log:
        host.start(["nginx", "-e", "stderr", "-c", str(config)], stdout=log, stderr=log)


def _wait_up(api: Api, agent: subprocess.Popen[bytes], log: Path, services: int) -> None:
    give_up_s = time.monotonic() + START_S
    while True:
        try:
            up = sum(service["health"] == "up" for service in api.get("status")["services"])
        except Refused:
            up = 0
        if up == services:
            return
        if agent.poll() is not None or time.monotonic() > give_up_s:
            raise RuntimeError(f"{up} of {services} services are up: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.5)


def _idle(pid: int) -> tuple[float, float]:
    """Percent of a core, and resident megabytes."""
    before = _cpu_s(pid)
    time.sleep(IDLE_S)
    return (_cpu_s(pid) - before) / IDLE_S * 100, _rss_mb(pid)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _weights(api: Api, admin: Path, size: Size) -> list[float]:
    """Seconds from the order until HAProxy shows the weight, for endpoints drawn at random."""
    draw = random.Random(SEED)
    took_s = []
    for number in range(WEIGHTS):
        service, endpoint, weight = draw.randrange(size.services), draw.randrange(size.endpoints), 20 + number
        place = f"{backend_name(Name(f's{service}'), Group.PRIMARY)}/{server_name(endpoint)}"
        start_s = time.monotonic()
        api.post("services", f"s{service}", "endpoints", f"e{endpoint}", "weight", weight=weight)
        while not _ask(admin, f"get weight {place}").startswith(f"{weight} "):
            if time.monotonic() - start_s > LIVE_S:
                raise RuntimeError(f"the weight {weight} of {place} is not live after {LIVE_S} s")
            time.sleep(0.001)
        took_s.append(time.monotonic() - start_s)
        time.sleep(0.02)
    return took_s


def _ask(admin: Path, command: str) -> str:
    with socket.socket(socket.AF_UNIX) as runtime:
        runtime.settimeout(LIVE_S)
        runtime.connect(str(admin))
        runtime.sendall(f"{command}\n".encode())
        answer = b""
        while received := runtime.recv(65536):
            answer += received
    return answer.decode()


def _apply_s(api: Api, text: str) -> float:
    start_s = time.monotonic()
    change = api.post("apply", text=text)
    took_s = time.monotonic() - start_s
    if not change["reload"]:
        raise RuntimeError(f"this apply did not reload: {change}")
    time.sleep(2)
    return took_s


if __name__ == "__main__":
    report.end_with(main)
