"""The configuration of a cluster's ports: pure text. It never says who takes writes; the runtime socket alone does.

So whatever starts or reloads HAProxy, it comes up with every node closed. Why it is done so, and what was measured:
docs/decisions/0015-cluster-ports.md.
"""

from collections.abc import Iterator

from understudy.core.routes import ClusterPorts, Seat
from understudy.core.text import Address, Name
from understudy.router.names import (
    EVENT_RING,
    HOLD_SERVER,
    last_resort,
    read_backend,
    read_frontend,
    write_backend,
    write_frontend,
)

TRIES = 250
"""How often a connection is tried in the time that it may be held. The time of one try, 40 ms with the default lease,
is how long a node may take to accept, and how soon a refused connection is tried again."""

ROLE_INTERVAL_MS = 300
ROLE_TIMEOUT_MS = 200
SESSION = "7d"
"""How long a session may be idle; keep-alives find out about dead peers long before."""
FIN_S = 30
KEEPALIVE = {"idle": "10s", "intvl": "5s", "cnt": "3"}
UNACKNOWLEDGED = "tcp-ut 30s"
HOLD_PLACES = 1_000_000
REFUSING_ADDRESS = "127.0.0.1:1"

HOLD_SCRIPT = """\
-- Written by understudy. A new connection waits here until the backend has a server to use, or its time is over.
core.register_action("hold", {"tcp-req"}, function(txn, backend)
  local waited = 0
  while txn.f:be_conn_free(backend) >= 0 do
    local pause = math.min(20, 2 + waited // 50)
    core.msleep(pause)
    waited = waited + pause
  end
end, 1)
"""


def sections(ports: ClusterPorts) -> str:
    """The frontends and backends of one cluster."""
    writer, readers = write_backend(ports.cluster), read_backend(ports.cluster)
    lines = [*_frontend(write_frontend(ports.cluster), ports.write, writer, ports)]
    lines += _backend(writer, "roundrobin", ports)
    lines += [_writer(ports.cluster, seat) for seat in ports.seats]
    lines += [_hold()]
    if ports.read:
        lines += _frontend(read_frontend(ports.cluster), ports.read, readers, ports)
        lines += _backend(readers, "leastconn", ports)
        lines += [_reader(ports.cluster, seat) for seat in ports.seats]
        lines += [_last_resort(ports.cluster, seat) for seat in ports.seats]
        lines += [_hold()]
    return "\n".join((*lines, ""))


def _frontend(name: str, listen: Address, backend: str, ports: ClusterPorts) -> Iterator[str]:
    yield f"frontend {name}"
    yield "  mode tcp"
    yield f"  bind {listen} {UNACKNOWLEDGED}"
    yield f"  timeout client {SESSION}"
    yield f"  timeout client-fin {FIN_S}s"
    yield from _keepalive("cli")
    # With no usable server HAProxy would close the connection at once, whatever `timeout queue` says. The number of
    # free places is negative where a node, which has no limit, can be used; the one that refuses has a limit.
    yield f"  tcp-request inspect-delay {ports.hold_ms}ms"
    yield f"  tcp-request content lua.hold {backend} if {{ be_conn_free({backend}) ge 0 }}"
    yield f"  default_backend {backend}"


def _backend(name: str, balance: str, ports: ClusterPorts) -> Iterator[str]:
    yield f"backend {name}"
    yield "  mode tcp"
    yield f"  log ring@{EVENT_RING} format raw local0"
    yield f"  balance {balance}"
    yield f"  timeout connect {max(1, ports.hold_ms // TRIES)}ms"
    yield f"  timeout server {SESSION}"
    yield f"  timeout server-fin {FIN_S}s"
    yield f"  timeout check {ROLE_TIMEOUT_MS}ms"
    yield f"  retries {TRIES}"
    yield from _keepalive("srv")


def _keepalive(side: str) -> Iterator[str]:
    yield f"  option {side}tcpka"
    yield from (f"  {side}tcpka-{what} {value}" for what, value in KEEPALIVE.items())


def _writer(cluster: Name, seat: Seat) -> str:
    return f"  server {seat.node} {_server(cluster, seat, 'primary')} on-marked-down shutdown-sessions"


def _reader(cluster: Name, seat: Seat) -> str:
    return f"  server {seat.node} {_server(cluster, seat, 'standby')}"


def _last_resort(cluster: Name, seat: Seat) -> str:
    role = _server(cluster, seat, "primary")
    return f"  server {last_resort(seat.node)} {role} backup on-marked-down shutdown-sessions"


def _server(cluster: Name, seat: Seat, role: str) -> str:
    """A closed server whose role is asked for. An agent that gives no answer changes nothing."""
    return (
        f"{seat.address} disabled {UNACKNOWLEDGED} agent-check agent-addr {seat.agent.host}"
        f" agent-port {seat.agent.port} agent-inter {ROLE_INTERVAL_MS}ms"
        f' agent-send "role {cluster} {seat.node} {role}\\n"'
    )


def _hold() -> str:
    """Where a refused connection goes as long as no node is open: refused again, it comes back for the next try."""
    return f"  server {HOLD_SERVER} {REFUSING_ADDRESS} backup maxconn {HOLD_PLACES}"
