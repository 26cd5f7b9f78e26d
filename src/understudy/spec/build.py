"""From a faultless shape to the core's frozen values: nothing but moving fields."""

from pathlib import Path

from understudy.core.cluster import ClusterService, Durability, Node, Timers
from understudy.core.model import (
    LOCAL,
    Affinity,
    AgentCheck,
    Check,
    CommandCheck,
    EjectionPolicy,
    Endpoint,
    EtcdStore,
    GrpcCheck,
    HealthPolicy,
    Host,
    HttpCheck,
    PoolFailover,
    PoolService,
    Spec,
    SqliteStore,
    TcpCheck,
    Timeouts,
    TlsFiles,
)
from understudy.core.stateful import EngineNode, PostgresService, Superuser
from understudy.core.text import Name
from understudy.spec.cluster_shape import ClusterFailoverShape, MaxLossShape, NodeShape, PostgresShape
from understudy.spec.pool_shape import EndpointShape, HealthShape, PoolShape
from understudy.spec.shape import SpecShape, StoreShape, TlsShape
from understudy.spec.units import SECOND_MS


def build(shape: SpecShape, text: str, directory: str) -> Spec:
    """The spec that the shape stands for."""
    return Spec(
        cluster=shape.cluster,
        services=tuple(_pool(Name(name), service) for name, service in shape.pools.items()),
        clusters=tuple(_cluster(Name(name), service) for name, service in shape.clusters.items()),
        hosts=tuple(Host(Name(name), address) for name, address in shape.hosts.items()),
        routers=tuple(shape.routers),
        store=_store(shape.store, directory),
        api=shape.api,
        agent_port=shape.agent_port,
        text=text,
        directory=directory,
    )


def _store(shape: str | StoreShape, directory: str) -> SqliteStore | EtcdStore:
    if not isinstance(shape, StoreShape):
        return SqliteStore()
    etcd = shape.etcd
    return EtcdStore(
        endpoints=tuple(etcd.endpoints),
        username=etcd.username,
        password=etcd.password,
        tls=_tls(etcd.tls, directory) if etcd.tls else None,
    )


def _tls(shape: TlsShape, directory: str) -> TlsFiles:
    def absolute(path: str) -> str:
        return str(Path(directory, path).absolute())

    return TlsFiles(
        ca=absolute(shape.ca),
        certificate=absolute(shape.cert) if shape.cert else None,
        key=absolute(shape.key) if shape.key else None,
    )


def _pool(name: Name, shape: PoolShape) -> PoolService:
    ejection, timeouts = shape.ejection, shape.timeouts
    return PoolService(
        name=name,
        kind=shape.kind,
        listen=shape.listen,
        endpoints=tuple(_endpoint(endpoint) for endpoint in shape.endpoints),
        balance=shape.balance,
        health=_health(shape.health),
        ejection=EjectionPolicy(
            budget_percent=ejection.budget,
            hold_ms=ejection.hold,
            hold_max_ms=ejection.hold_max,
            errors=ejection.errors,
            window_ms=ejection.window,
        ),
        failover=PoolFailover(mode=shape.failover.mode, over_ms=shape.failover.over),
        affinity=Affinity(shape.affinity.cookie) if shape.affinity else None,
        retry=shape.retry,
        timeouts=Timeouts(
            connect_ms=timeouts.connect,
            client_ms=timeouts.client,
            server_ms=timeouts.server,
            queue_ms=timeouts.queue,
        ),
        maxconn=shape.maxconn,
    )


def _endpoint(shape: EndpointShape) -> Endpoint:
    return Endpoint(
        name=shape.name,
        address=shape.address,
        weight=shape.weight,
        group=shape.group,
        maxconn=shape.maxconn,
        run=tuple(shape.run or ()),
        secrets=tuple(shape.secrets.items()),
    )


def _health(shape: HealthShape) -> HealthPolicy:
    return HealthPolicy(
        check=_check(shape),
        interval_ms=shape.interval,
        timeout_ms=shape.timeout,
        fall=shape.fall,
        rise=shape.rise,
        passive=shape.passive,
        slow_start_ms=shape.slow_start,
        agent=AgentCheck(shape.agent.port, shape.agent.interval) if shape.agent else None,
    )


def _check(shape: HealthShape) -> Check:
    if shape.http:
        http = shape.http
        return HttpCheck(path=http.path, method=http.method, host=http.host, expect=http.expect, body=http.body)
    if shape.grpc:
        return GrpcCheck(shape.grpc.service)
    if shape.command:
        return CommandCheck(tuple(shape.command))
    return TcpCheck()


def _cluster(name: Name, shape: PostgresShape) -> PostgresService:
    durability, failover = shape.durability, shape.failover
    nodes = tuple(EngineNode(_node(node), node.address, node.data) for node in shape.nodes)
    return PostgresService(
        cluster=ClusterService(
            name=name,
            nodes=tuple(node.node for node in nodes),
            durability=Durability(durability.max_loss if isinstance(durability, MaxLossShape) else None, shape.acks),
            mode=failover.mode,
            timers=timers(failover),
            preferred=failover.preferred,
            failback_every_s=failover.failback_every // SECOND_MS,
        ),
        write=shape.listen.write,
        read=shape.listen.read,
        nodes=nodes,
        superuser=Superuser(shape.superuser.name, shape.superuser.password or ""),
        max_lag_bytes=shape.max_lag,
    )


def _node(shape: NodeShape) -> Node:
    return Node(shape.name, shape.host or LOCAL, shape.priority)


def timers(shape: ClusterFailoverShape) -> Timers:
    """The lease's, but for what the file says otherwise."""
    said = {"renew_ms": shape.renew, "timeout_ms": shape.timeout, "margin_ms": shape.margin}
    kept = {name: value_ms for name, value_ms in said.items() if value_ms is not None}
    return Timers.for_lease(shape.lease, promote_ms=shape.promote, **kept)
