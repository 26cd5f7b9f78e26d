"""What differs between two specs, a sentence each, for `plan` and `apply`. What it takes is the router's business."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from understudy.core.model import Endpoint, PoolService, Spec
from understudy.core.words import count

_LISTED_APART = frozenset({"name", "endpoints", "run", "secrets"})
"""Endpoints are compared one by one below; what happens to commands is told by their supervisor."""


def spec_changes(old: Spec, new: Spec) -> tuple[str, ...]:
    """Every difference that users or endpoints can notice."""
    return tuple(_changes(old, new))


def _changes(old: Spec, new: Spec) -> Iterator[str]:
    before = {service.name: service for service in old.services}
    after = {service.name: service for service in new.services}
    for name, service in after.items():
        former = before.get(name)
        if former is None:
            size = count(len(service.endpoints), "endpoint")
            yield f"{name}: is new, {service.kind} on {service.listen} with {size}"
        elif former is not service:
            yield from _settings(name, former, service)
            yield from _endpoints(former, service)
    for name in before.keys() - after.keys():
        yield f"{name}: is gone"


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
