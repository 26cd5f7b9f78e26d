"""From a faultless shape to the core's frozen values: nothing but moving fields."""

from understudy.core.model import (
    Affinity,
    AgentCheck,
    Check,
    CommandCheck,
    EjectionPolicy,
    Endpoint,
    GrpcCheck,
    HealthPolicy,
    HttpCheck,
    PoolFailover,
    PoolService,
    Spec,
    TcpCheck,
    Timeouts,
)
from understudy.core.text import Name
from understudy.spec.shape import EndpointShape, HealthShape, ServiceShape, SpecShape


def build(shape: SpecShape, text: str, directory: str) -> Spec:
    """The spec that the shape stands for."""
    return Spec(
        cluster=shape.cluster,
        services=tuple(_service(Name(name), service) for name, service in shape.services.items()),
        api=shape.api,
        text=text,
        directory=directory,
    )


def _service(name: Name, shape: ServiceShape) -> PoolService:
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
