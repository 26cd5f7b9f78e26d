"""What the spec says, as frozen values. No parsing (spec/ does that), no state, no decisions."""

from dataclasses import dataclass, field
from enum import StrEnum

from understudy.core.failover_mode import FailoverMode
from understudy.core.stateful import PostgresService
from understudy.core.text import Address, CookieName, GrpcService, HostHeader, HttpMethod, HttpPath, Name

MAX_WEIGHT = 256
"""HAProxy's own limit for the weight of a server."""


class Kind(StrEnum):
    """What an application dials."""

    HTTP = "http"
    TCP = "tcp"


class Balance(StrEnum):
    """How the next endpoint is chosen."""

    ROUND_ROBIN = "round_robin"
    """In turn, in proportion to the weights."""
    LEAST_CONNECTIONS = "least_connections"
    """The one with the fewest connections; weights do not count."""
    WEIGHTED_LEAST_CONNECTIONS = "weighted_least_connections"
    """The one with the fewest connections for its weight."""
    SOURCE_HASH = "source_hash"
    """The same one for the same client address; losing one moves only its own clients (consistent hashing)."""
    RANDOM_TWO = "random_two"
    """The less loaded of two drawn at random."""
    FIRST = "first"
    """The first in the order of the file that has a free connection slot: active/standby without a lost request."""


class Group(StrEnum):
    """Which half of a pool an endpoint belongs to; the backup group serves when the primary group cannot."""

    PRIMARY = "primary"
    BACKUP = "backup"


class Retry(StrEnum):
    """Which requests HAProxy may send to a second endpoint after the first may have begun to execute them."""

    SAFE = "safe"
    """GET, HEAD and OPTIONS."""
    NEVER = "never"
    """None; a connection that could not be made is still tried elsewhere, since nothing was executed."""
    ALWAYS = "always"
    """Every method: only for services where each request may run twice."""


@dataclass(frozen=True, slots=True)
class TcpCheck:
    """Up when a connection can be made."""


@dataclass(frozen=True, slots=True)
class HttpCheck:
    """Up when the answer's status is within `expect` (pairs of first and last) and its body contains `body`."""

    path: HttpPath = HttpPath("/")
    method: HttpMethod = HttpMethod("GET")
    host: HostHeader | None = None
    expect: tuple[tuple[int, int], ...] = ((200, 399),)
    body: str | None = None
    """Any text without control characters; the router is bound to render it so that it cannot end the directive."""


@dataclass(frozen=True, slots=True)
class GrpcCheck:
    """Up when grpc.health.v1.Health/Check answers SERVING for `service`."""

    service: GrpcService = GrpcService("")


@dataclass(frozen=True, slots=True)
class CommandCheck:
    """Up when the command ends with 0; it is given the endpoint as environment ADDRESS and PORT."""

    argv: tuple[str, ...]


Check = TcpCheck | HttpCheck | GrpcCheck | CommandCheck


@dataclass(frozen=True, slots=True)
class AgentCheck:
    """A port on the endpoint's host that tells weight and state in HAProxy's agent-check words."""

    port: int
    interval_ms: int = 1000


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """How we come to believe that an endpoint is up or down. Defaults lose no request."""

    check: Check = TcpCheck()
    interval_ms: int = 150
    timeout_ms: int = 150
    fall: int = 2
    rise: int = 2
    passive: bool = True
    """Whether real traffic's errors call for a check at once, and our ejector watches."""
    slow_start_ms: int = 10_000
    """How long an endpoint's share rises after it came up."""
    agent: AgentCheck | None = None


@dataclass(frozen=True, slots=True)
class EjectionPolicy:
    """Bounds of the ejector: how much of a group it may hold out, and for how long."""

    budget_percent: int = 34
    """At most this share of a group's endpoints is held out at once (but one is always allowed where two remain)."""
    hold_ms: int = 5_000
    """The first hold; each further one doubles it."""
    hold_max_ms: int = 300_000
    errors: int = 5
    """Errors within `window_ms` that make an endpoint misbehave, provided they are half of its answers."""
    window_ms: int = 5_000


@dataclass(frozen=True, slots=True)
class Affinity:
    """Clients stay with their endpoint by a cookie that HAProxy sets."""

    cookie: CookieName


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long HAProxy waits: to connect to an endpoint, for an idle client, for an answer, in the queue."""

    connect_ms: int = 200
    client_ms: int = 60_000
    server_ms: int = 60_000
    queue_ms: int = 5_000


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One of the interchangeable servers of a pool."""

    name: Name
    address: Address
    weight: int = 1
    group: Group = Group.PRIMARY
    maxconn: int = 0
    """Connections at once before requests queue; 0 means no limit."""
    run: tuple[str, ...] = ()
    """The command that the agent supervises; empty when the endpoint is started elsewhere."""
    secrets: tuple[tuple[str, str], ...] = ()
    """Environment variables of the command, each with where its value comes from (`env:NAME`, `file:PATH`)."""


@dataclass(frozen=True, slots=True)
class PoolFailover:
    """When and how the backup group takes over."""

    mode: FailoverMode = FailoverMode.FAST
    over_ms: int = 30_000
    """Length of a gradual failover's ramp."""


@dataclass(frozen=True, slots=True)
class PoolService:
    """A stateless service: a pool of endpoints behind one address."""

    name: Name
    kind: Kind
    listen: Address
    endpoints: tuple[Endpoint, ...]
    balance: Balance = Balance.ROUND_ROBIN
    health: HealthPolicy = HealthPolicy()
    ejection: EjectionPolicy = EjectionPolicy()
    failover: PoolFailover = PoolFailover()
    affinity: Affinity | None = None
    retry: Retry = Retry.SAFE
    timeouts: Timeouts = Timeouts()
    maxconn: int = 0
    """Connections at once before clients wait in the kernel; 0 means HAProxy's global limit."""

    def group(self, group: Group) -> tuple[Endpoint, ...]:
        """The endpoints of one group, in the order of the file."""
        return tuple(endpoint for endpoint in self.endpoints if endpoint.group is group)


@dataclass(frozen=True, slots=True)
class SqliteStore:
    """The store of one machine: a file in the state directory."""

    def __str__(self) -> str:
        """As it stands in the file."""
        return "sqlite"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Files in PEM, absolute paths: whom we trust, and what we show of ourselves (both or neither of the last two)."""

    ca: str
    certificate: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class EtcdStore:
    """The store of several machines. The password is a reference (`env:NAME`, `file:PATH`)."""

    endpoints: tuple[Address, ...]
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: TlsFiles | None = None

    def __str__(self) -> str:
        """`etcd at 10.0.0.1:2379, 10.0.0.2:2379`."""
        return f"etcd at {', '.join(map(str, self.endpoints))}"


@dataclass(frozen=True, slots=True)
class Host:
    """A machine with an agent. address: the IP literal at which the others reach it."""

    name: Name
    address: str


LOCAL = Name("local")
"""The one host of a spec that names none."""


@dataclass(frozen=True, slots=True)
class Spec:
    """One file, understood."""

    cluster: Name
    services: tuple[PoolService, ...]
    clusters: tuple[PostgresService, ...] = ()
    """The stateful services, in the order of the file."""
    hosts: tuple[Host, ...] = ()
    """Empty on one machine; then every node's host is LOCAL."""
    routers: tuple[Name, ...] = ()
    """The hosts that run a router; empty means every host."""
    store: SqliteStore | EtcdStore = SqliteStore()
    api: Address = Address("127.0.0.1", 8600)
    agent_port: int = 8601
    """Where the agents of clusters answer each other and the router, on each host's own address."""
    text: str = field(default="", compare=False, repr=False)
    """The file as it was written, kept for the version history; secrets are references in it."""
    directory: str = field(default=".", compare=False, repr=False)
    """Absolute path of the file's folder: commands (`run:`, command checks) start there."""

    def service(self, name: str) -> PoolService | None:
        """The stateless service of that name."""
        return next((service for service in self.services if service.name == name), None)

    def cluster_service(self, name: str) -> PostgresService | None:
        """The stateful service of that name."""
        return next((service for service in self.clusters if service.name == name), None)

    @property
    def host_names(self) -> tuple[Name, ...]:
        """Every host; LOCAL where none is named."""
        return tuple(host.name for host in self.hosts) or (LOCAL,)

    @property
    def router_hosts(self) -> tuple[Name, ...]:
        """The hosts that run a router."""
        return self.routers or self.host_names

    def host_of(self, address: Address) -> Name | None:
        """The host that has this address, and so runs the command of an endpoint there; None when none of them has."""
        if not self.hosts:
            return LOCAL
        return next((host.name for host in self.hosts if host.address == address.host), None)

    def host(self, name: str) -> Host | None:
        """The host of that name."""
        return next((host for host in self.hosts if host.name == name), None)
