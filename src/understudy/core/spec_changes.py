"""What differs between two specs, a sentence each, for `plan` and `apply`. What it takes is the business of others.

What cannot be done at all is fixed_changes.py's.
"""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from understudy.core.model import Endpoint, PoolService, Spec
from understudy.core.stateful import PostgresService
from understudy.core.text import Name
from understudy.core.words import count

Service = PoolService | PostgresService

_LISTED_APART = frozenset({"name", "endpoints", "run", "secrets", "nodes", "cluster", "node", "timers"})
"""Endpoints, nodes and timers are compared below; what happens to commands is told by their supervisor."""


def spec_changes(old: Spec, new: Spec) -> tuple[str, ...]:
    """Every difference that users, endpoints or nodes can notice."""
    return tuple(_changes(old, new))


def _changes(old: Spec, new: Spec) -> Iterator[str]:
    before, after = _by_name(old), _by_name(new)
    for name, service in after.items():
        former = before.get(name)
        if former is None:
            yield f"{name}: is new, {_introduced(service)}"
        elif former is service:
            continue
        elif isinstance(service, PoolService) and isinstance(former, PoolService):
            yield from _settings(name, former, service)
            yield from _endpoints(former, service)
        elif isinstance(service, PostgresService) and isinstance(former, PostgresService):
            yield from _settings(name, former, service)
            yield from _settings(name, former.cluster, service.cluster)
            yield from _nodes(former, service)
            if former.cluster.timers != service.cluster.timers:
                yield f"{name}: other timers, which each agent takes when it is started anew: one after the other"
    for name, service in before.items():
        if name not in after:
            yield f"{name}: is gone" + ("; the data of its nodes stays" if isinstance(service, PostgresService) else "")


def _by_name(spec: Spec) -> dict[Name, Service]:
    services: tuple[Service, ...] = (*spec.services, *spec.clusters)
    return {service.name: service for service in services}


def _introduced(service: Service) -> str:
    if isinstance(service, PoolService):
        return f"{service.kind} on {service.listen} with {count(len(service.endpoints), 'endpoint')}"
    reads = f", reads on {service.read}" if service.read else ""
    size = count(len(service.nodes), "node")
    return f"postgres with {size}, writes on {service.write}{reads}, {service.cluster.durability}"


def _endpoints(old: PoolService, new: PoolService) -> Iterator[str]:
    before: dict[str, Endpoint] = {endpoint.name: endpoint for endpoint in old.endpoints}
    after: dict[str, Endpoint] = {endpoint.name: endpoint for endpoint in new.endpoints}
    for name, endpoint in after.items():
        former = before.get(name)
        if former is None:
            yield f"{new.name}/{name}: joins at {endpoint.address}"
        else:
            yield from _settings(f"{new.name}/{name}", former, endpoint)
    for name, endpoint in before.items():
        if name not in after:
            yield f"{new.name}/{name}: leaves, which was at {endpoint.address}"
    if [name for name in before if name in after] != [name for name in after if name in before]:
        yield f"{new.name}: the order of its endpoints changes"


def _nodes(old: PostgresService, new: PostgresService) -> Iterator[str]:
    for node in new.nodes:
        former = old.node(node.name)
        if former is None:
            yield f"{new.name}/{node.name}: joins on {node.node.host} at {node.address}, its data in {node.data}"
        else:
            yield from _settings(f"{new.name}/{node.name}", former, node)
            yield from _settings(f"{new.name}/{node.name}", former.node, node.node)
    for node in old.nodes:
        if new.node(node.name) is None:
            yield f"{new.name}/{node.name}: leaves, which was at {node.address}; its data stays in {node.data}"


def _settings(whose: str, old: Any, new: Any, prefix: str = "") -> Iterator[str]:
    """The fields that differ; where both sides are of the same kind, their own fields are told instead."""
    for field in fields(old):
        was, now = getattr(old, field.name), getattr(new, field.name)
        if was == now or field.name in _LISTED_APART:
            continue
        if is_dataclass(was) and type(was) is type(now) and type(was).__str__ is object.__str__:
            yield from _settings(whose, was, now, f"{prefix}{field.name}.")
        else:
            yield f"{whose}: {prefix}{field.name} {_shown(was)} becomes {_shown(now)}"


def _shown(value: object) -> str:
    return "none" if value is None else str(value)
