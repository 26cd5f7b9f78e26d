"""Fits plain values to the shape: every misfit becomes a fault in a person's words.

A misfit must not hide what else is wrong, so each one is replaced by a stand-in and settled in the report; the shape
that comes out is whole, and crosscheck.py can look at the rest of it.
"""

import copy
import difflib
import json
from collections.abc import Iterable
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from understudy.core.words import listed
from understudy.spec.faults import MAX_FAULTS, Path, Report, shown
from understudy.spec.fields import Shape
from understudy.spec.shape import KINDS, LATER_KINDS, SERVICE_SHAPES, SpecShape, shape_of_service

_PLAIN_FAULTS = {
    "int_type": "{input} is no whole number: write one, without quotes and without a unit",
    "bool_type": "{input} will not do: write true or false",
    "list_type": "{input} is no list: write entries that begin with '- ', or [a, b]",
    "model_type": "{input} is no mapping: write `field: value` lines below it, or {{}}",
    "dict_type": "{input} is no mapping: write `name: ...` lines below it",
    "greater_than_equal": "{input} is too small: at least {ge} will do",
    "less_than_equal": "{input} is too large: at most {le} will do",
    "too_short": "it is empty: write at least {min_length} entry",
    "too_long": "it has too many entries: at most {max_length} will do",
}
"""By pydantic's names for what can go wrong in a field."""


def fit(value: Any, report: Report) -> SpecShape:
    """The shape of the file, with stand-ins where the report has faults; SpecFaults when nothing of it is left."""
    if not isinstance(value, dict):
        raise report.stop("this is no mapping of fields: begin with `cluster:` and `services:`", 1)
    _set_aside_later_kinds(value, report)
    try:
        return SpecShape.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False)
    for detail in found[:MAX_FAULTS]:
        report.add(_sentence(detail, value), _path(detail))
    if len(found) > MAX_FAULTS:
        raise report.all(more=len(found) - MAX_FAULTS)
    for path in [path for detail in found for path in _blamed(detail, value)]:
        report.settle(path)
        _stand_in(value, path)
    try:
        return SpecShape.model_validate(value)
    except ValidationError:  # a stand-in that is no cure: what was found so far is told
        raise report.all() from None


def _set_aside_later_kinds(value: dict[str, Any], report: Report) -> None:
    services = value.get("services")
    for name, service in services.items() if isinstance(services, dict) else ():
        kind = service.get("kind") if isinstance(service, dict) else None
        if kind in LATER_KINDS:
            path = ("services", name)
            report.add(f"services of kind {kind} come in a later version; today: {listed(KINDS)}", (*path, "kind"))
            report.settle(path)
            _stand_in(value, path)


def _path(detail: ErrorDetails) -> Path:
    """Where in the file it is: pydantic also names which of several shapes a place has, and that it is about a key."""
    steps = iter(detail["loc"])
    path: Path = ()
    for step in steps:
        path = (*path, step)
        if _has_several_shapes(path):
            next(steps, None)
    of_key = detail["type"] == "value_error" and path[-3:-2] == ("secrets",) and path[-1] == "[key]"
    return path[:-1] if of_key else path


def _has_several_shapes(path: Path) -> bool:
    in_service = path[2:] in {(), ("durability",)} and len(path) > 1
    return path == ("store",) or (path[0] == "services" and in_service)


def _blamed(detail: ErrorDetails, value: Any) -> Iterable[Path]:
    """The place of a misfit, and the field that was probably meant by an unknown one."""
    path = _path(detail)
    yield path
    if detail["type"] == "extra_forbidden":
        for name in _alike(str(path[-1]), _fields(value, path[:-1])):
            yield (*path[:-1], name)


def _sentence(detail: ErrorDetails, whole: Any) -> str:
    path, kind, value = _path(detail), detail["type"], detail["input"]
    if kind == "extra_forbidden":
        return _unknown(str(path[-1]), _fields(whole, path[:-1]))
    if kind == "missing":
        return f"it is missing: add it, such as `{path[-1]}: {_flow(_example(whole, path))}`"
    if kind in {"enum", "literal_error"}:
        choices = KINDS if path[-1] == "kind" else [str(choice) for choice in _annotation(whole, path)]
        return f"{shown(value)} will not do{_did_you_mean(str(value), choices)}: choose one of {', '.join(choices)}"
    if kind in _PLAIN_FAULTS:
        return _PLAIN_FAULTS[kind].format(**{**detail.get("ctx", {}), "input": shown(value)})
    if kind == "value_error":
        return str(detail["ctx"]["error"])
    return f"{shown(value)} will not do: {detail['msg']}"


def _unknown(name: str, fields: list[str]) -> str:
    known = f"known here: {', '.join(fields)}" if fields else "none is known here: write {}"
    return f"there is no field {shown(name)}{_did_you_mean(name, fields)}; {known}"


def _did_you_mean(text: str, choices: Iterable[str]) -> str:
    alike = _alike(text, choices)
    return f" (did you mean {alike[0]}?)" if alike else ""


def _alike(text: str, choices: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(text[:64].lower().replace("-", "_"), list(choices), n=1)


def _flow(value: Any) -> str:
    return json.dumps(value).replace('"', "")


def _fields(value: Any, path: Path) -> list[str]:
    return list(_annotation(value, path).model_fields)


def _annotation(value: Any, path: Path) -> Any:
    """The type at a place of the shape; `value` tells which of several shapes a service has."""
    here: Any = SpecShape
    for step in path:
        value = _below(value, step)
        entries = get_args(here)[-1:]  # of list[...] or dict[str, ...]
        here = _plain(entries[0] if entries else here.model_fields[str(step)].annotation, value)
    return here


def _below(value: Any, step: str | int) -> Any:
    """What stands there; None when nothing does."""
    try:
        return value[step]
    except (LookupError, TypeError):
        return None


def _plain(kind: Any, value: Any) -> Any:
    """Without Annotated and None; of several kinds of service the one that the value is, of other kinds the mapping."""
    if get_origin(kind) is Annotated:
        return _plain(get_args(kind)[0], value)
    if get_origin(kind) not in {UnionType, Union}:
        return kind
    kinds = [_plain(each, value) for each in get_args(kind) if each is not NoneType]
    shapes = [each for each in kinds if _is_shape(each)]
    if len(shapes) > 1:
        return SERVICE_SHAPES[shape_of_service(value)]
    return (shapes or kinds)[0]


def _is_shape(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Shape)


def _example(value: Any, path: Path) -> Any:
    """A right value for a place; None where the shape has none."""
    *above, last = path
    holder = _annotation(value, tuple(above))
    if _is_shape(holder):
        field = holder.model_fields.get(last)
        return field.examples[0] if field and field.examples else None
    entries = _example(value, tuple(above))  # of the list or mapping that it is in
    if isinstance(entries, dict):
        return next(iter(entries.values()))
    return entries[0] if entries else "x" if isinstance(last, int) else None


def _stand_in(value: Any, path: Path) -> None:
    """Put something right in a place: an example where something must be there, else nothing."""
    *above, last = path
    holder = _annotation(value, tuple(above))
    field = holder.model_fields.get(last) if _is_shape(holder) else None
    optional = _is_shape(holder) and not (field and field.is_required())
    example = None if optional else copy.deepcopy(_example(value, path))
    container = value
    for step in above:
        container = container[step]
    if example is None:
        container.pop(last, None)
    else:
        container[last] = example
