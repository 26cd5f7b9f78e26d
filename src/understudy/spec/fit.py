"""Fits plain values to the shape: every misfit becomes a fault in a person's words.

A misfit must not hide what else is wrong, so each one is replaced by a stand-in and settled in the report; the shape
that comes out is whole, and crosscheck.py can look at the rest of it.
"""

import copy
import difflib
import json
from collections.abc import Iterable
from types import NoneType
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from understudy.spec.faults import MAX_FAULTS, Path, Report, shown
from understudy.spec.shape import EXAMPLES, LATER_KINDS, Shape, SpecShape

_LATER_FIELDS = {
    "hosts": "several hosts come in a later version; today one machine runs everything: remove `hosts`",
    "routers": "several routers come in a later version; today this machine's is the only one: remove `routers`",
}

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
        report.add(_sentence(detail), _path(detail))
    if len(found) > MAX_FAULTS:
        raise report.all(more=len(found) - MAX_FAULTS)
    for detail in found:
        for path in _blamed(detail):
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
            report.add(f"services of kind {kind} come in a later version; today: http and tcp", (*path, "kind"))
            report.settle(path)
            _stand_in(value, path)


def _path(detail: ErrorDetails) -> Path:
    loc = detail["loc"]
    return loc[:-1] if loc[-1] == "[key]" else loc


def _blamed(detail: ErrorDetails) -> Iterable[Path]:
    """The place of a misfit, and the field that was probably meant by an unknown one."""
    path = _path(detail)
    yield path
    if detail["type"] == "extra_forbidden":
        for name in _alike(str(path[-1]), _fields(path[:-1])):
            yield (*path[:-1], name)


def _sentence(detail: ErrorDetails) -> str:
    path, kind, value = _path(detail), detail["type"], detail["input"]
    if kind == "extra_forbidden":
        return _unknown(str(path[-1]), path[:-1])
    if kind == "missing":
        return f"it is missing: add it, such as `{path[-1]}: {_flow(EXAMPLES[str(path[-1])])}`"
    if kind == "enum":
        choices = [str(choice) for choice in _annotation(path)]
        return f"{shown(value)} will not do{_did_you_mean(str(value), choices)}: choose one of {', '.join(choices)}"
    if kind in _PLAIN_FAULTS:
        return _PLAIN_FAULTS[kind].format(**{**detail.get("ctx", {}), "input": shown(value)})
    if kind == "value_error":
        return str(detail["ctx"]["error"])
    return f"{shown(value)} will not do: {detail['msg']}"


def _unknown(name: str, above: Path) -> str:
    if not above and name in _LATER_FIELDS:
        return _LATER_FIELDS[name]
    fields = _fields(above)
    known = f"known here: {', '.join(fields)}" if fields else "none is known here: write {}"
    return f"there is no field {shown(name)}{_did_you_mean(name, fields)}; {known}"


def _did_you_mean(text: str, choices: Iterable[str]) -> str:
    alike = _alike(text, choices)
    return f" (did you mean {alike[0]}?)" if alike else ""


def _alike(text: str, choices: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(text[:64].lower().replace("-", "_"), list(choices), n=1)


def _flow(value: Any) -> str:
    return json.dumps(value).replace('"', "")


def _fields(path: Path) -> list[str]:
    return list(_annotation(path).model_fields)


def _annotation(path: Path) -> Any:
    """The type at a place of the shape."""
    here: Any = SpecShape
    for step in path:
        entries = get_args(here)[-1:]  # of list[...] or dict[str, ...]
        here = entries[0] if entries else here.model_fields[str(step)].annotation
        here = next(filter(_is_shape, get_args(here)), here) if NoneType in get_args(here) else here
    return here


def _is_shape(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Shape)


def _stand_in(value: Any, path: Path) -> None:
    """Put something right in a place: an example where the field must be there, else nothing."""
    *above, last = path
    container, holder = value, _annotation(tuple(above))
    for step in above:
        container = container[step]
    field = holder.model_fields.get(last) if _is_shape(holder) else None
    if above == ["services"]:
        container[last] = copy.deepcopy(EXAMPLES["services"]["web"])
    elif isinstance(last, int):
        container[last] = copy.deepcopy(EXAMPLES["endpoints"][0]) if above[-1] == "endpoints" else "x"
    elif field and field.is_required():
        container[last] = copy.deepcopy(EXAMPLES[last])
    else:
        container.pop(last, None)
