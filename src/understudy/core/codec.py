"""Frozen values to bytes and back, for whatever is stored. Knows types, never keys, stores or what the values mean.

The bytes are canonical JSON (sorted names, no spaces, ASCII), `{"format": 1, "type": "PoolRecord", "value": {...}}`:
equal values give equal bytes, and a person can read them. What a type needs is worked out once, from its annotations.
"""

import json
import math
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from understudy.core.errors import Refused
from understudy.core.text import Word

FORMAT = 1
"""Of the envelope and of how types are written. A type grows by fields with defaults, without a new format: who is
older leaves them aside, and stores what it decides without them. What nobody may overlook, or lose, needs a new format:
that is refused by who is older."""

T = TypeVar("T")


class Undecodable(Refused):
    """The bytes are no value of the wanted type; the text says where and why. They must be left as they are."""


def encode(value: object) -> bytes:
    """The canonical bytes of a frozen dataclass; ValueError when it holds a number that is not finite."""
    kind = type(value)
    return _dumps({"format": FORMAT, "type": kind.__name__, "value": _plan(kind).write(value)}).encode("ascii")


def decode(kind: type[T], data: bytes) -> T:
    """The value of that type. Raises Undecodable for anything but what `encode` wrote for it.

    That may have been an older `encode`, of fewer fields, or a newer one, of more.
    """
    try:
        envelope = _loads(data.decode())
        return cast("T", _plan(kind).read(_unwrap(envelope, kind.__name__)))
    except (ValueError, OverflowError, RecursionError) as fault:
        raise Undecodable(f"A stored {kind.__name__} cannot be read and was left as it is: {fault}") from None


def _unwrap(envelope: Any, name: str) -> Any:
    if type(envelope) is not dict or envelope.keys() != {"format", "type", "value"}:
        raise ValueError("it has no format, type and value")
    if envelope["format"] != FORMAT:
        raise ValueError(
            f"it has format {envelope['format']!r} and this understudy knows {FORMAT}; use the understudy that wrote it"
        )
    if envelope["type"] != name:
        raise ValueError(f"it is a {envelope['type']!r}")
    return envelope["value"]


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no number")


_dumps = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_loads = json.JSONDecoder(parse_constant=_refuse_constant).decode


@dataclass(frozen=True, slots=True)
class _Plan:
    """How values of one type become JSON values and come back; `read` raises ValueError saying where and why."""

    write: Callable[[Any], Any]
    read: Callable[[Any], Any]


def _same(value: Any) -> Any:
    return value


def _make_plan(kind: Any) -> _Plan:  # noqa: PLR0911  # one return a kind of type
    """The plan of a type; TypeError when the codec has none, which is a mistake in the type."""
    origin = get_origin(kind)
    if origin is tuple:
        return _tuple_plan(get_args(kind))
    if origin is frozenset:
        return _frozenset_plan(get_args(kind)[0])
    if origin in (Union, UnionType):
        return _union_plan(get_args(kind))
    if kind in _SCALARS:
        return _Plan(_same if kind is not float else float, _SCALARS[kind])
    if isinstance(kind, type):
        if issubclass(kind, Enum):
            return _enum_plan(kind)
        if issubclass(kind, Word):
            return _Plan(_same, lambda raw: kind(_read_str(raw)))
        if is_dataclass(kind):
            return _dataclass_plan(kind)
    raise TypeError(f"the codec has no plan for {kind!r}: add one, or use a type that it knows")


_plan: Callable[[Any], _Plan] = cache(_make_plan)


def _read_str(raw: Any) -> str:
    if type(raw) is not str:
        raise ValueError(f"{_show(raw)} is no text")
    return raw


def _read_int(raw: Any) -> int:
    if type(raw) is not int:
        raise ValueError(f"{_show(raw)} is no whole number")
    return raw


def _read_float(raw: Any) -> float:
    if type(raw) not in (int, float) or not math.isfinite(raw):
        raise ValueError(f"{_show(raw)} is no finite number")
    return float(raw)


def _read_bool(raw: Any) -> bool:
    if type(raw) is not bool:
        raise ValueError(f"{_show(raw)} is neither true nor false")
    return raw


_SCALARS: dict[type, Callable[[Any], Any]] = {str: _read_str, int: _read_int, float: _read_float, bool: _read_bool}


def _show(raw: Any) -> str:
    """A JSON value, short enough for a sentence."""
    text = repr(raw)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _dataclass_plan(kind: type) -> _Plan:
    hints = get_type_hints(kind)
    members = fields(kind)
    names = tuple(sorted(member.name for member in members))
    plans = {name: _plan(hints[name]) for name in names}
    writes = tuple((name, plan.write) for name, plan in plans.items() if plan.write is not _same)
    reads = tuple((name, plan.read) for name, plan in plans.items())
    needed = {member.name for member in members if member.default is MISSING and member.default_factory is MISSING}

    def write(value: Any) -> dict[str, Any]:
        raw = {name: getattr(value, name) for name in names}
        for name, write_part in writes:
            raw[name] = write_part(raw[name])
        return raw

    def read(raw: Any) -> Any:
        if type(raw) is not dict:
            raise ValueError(f"{_show(raw)} is no {kind.__name__}")
        if not needed <= raw.keys():
            raise ValueError(f"{kind.__name__} lacks {', '.join(sorted(needed - raw.keys()))}")
        values = {}
        for name, read_part in reads:
            if name in raw:
                try:
                    values[name] = read_part(raw[name])
                except ValueError as fault:
                    raise ValueError(f"{name}: {fault}") from None
        return kind(**values)

    return _Plan(write, read)


def _enum_plan(kind: type[Enum]) -> _Plan:
    members = {member.value: member for member in kind}

    def read(raw: Any) -> Enum:
        text = _read_str(raw)
        return members[text] if text in members else kind(text)  # which says what is wrong with it

    return _Plan(_same if issubclass(kind, str) else lambda value: value.value, read)


def _tuple_plan(members: tuple[Any, ...]) -> _Plan:
    if len(members) == 2 and members[1] is Ellipsis:
        item = _plan(members[0])
        return _Plan(
            lambda value: [item.write(each) for each in value],
            lambda raw: tuple([item.read(each) for each in _read_list(raw)]),
        )
    items = tuple(_plan(member) for member in members)

    def write(value: Any) -> list[Any]:
        return [plan.write(each) for plan, each in zip(items, value, strict=True)]

    def read(raw: Any) -> tuple[Any, ...]:
        if len(_read_list(raw)) != len(items):
            raise ValueError(f"{_show(raw)} has not {len(items)} items")
        return tuple([plan.read(each) for plan, each in zip(items, raw, strict=True)])

    return _Plan(write, read)


def _frozenset_plan(member: Any) -> _Plan:
    """A set, as its sorted members, so that equal sets give equal bytes."""
    item = _plan(member)
    return _Plan(
        lambda value: sorted(item.write(each) for each in value),
        lambda raw: frozenset(item.read(each) for each in _read_list(raw)),
    )


def _read_list(raw: Any) -> list[Any]:
    if type(raw) is not list:
        raise ValueError(f"{_show(raw)} is no list")
    return raw


def _union_plan(members: tuple[Any, ...]) -> _Plan:
    present = tuple(member for member in members if member is not NoneType)
    if len(present) == 1:
        inner = _plan(present[0])
    elif all(member in _SCALARS for member in present):
        inner = _scalars_plan(present)
    elif all(is_dataclass(member) for member in present):
        inner = _tagged_plan(present)
    else:
        raise TypeError(f"the codec cannot tell the members of {members!r} apart")
    if len(present) == len(members):
        return inner
    write, read = inner.write, inner.read
    return _Plan(
        _same if write is _same else lambda value: None if value is None else write(value),
        lambda raw: None if raw is None else read(raw),
    )


def _scalars_plan(members: tuple[type, ...]) -> _Plan:
    """Text, numbers and truth values, told apart by what JSON says they are; 1 and 1.0 stay different."""

    def read(raw: Any) -> Any:
        if type(raw) not in members:
            raise ValueError(f"{_show(raw)} is none of {', '.join(member.__name__ for member in members)}")
        return _SCALARS[type(raw)](raw)

    return _Plan(_same, read)


def _tagged_plan(members: tuple[type, ...]) -> _Plan:
    """One of several dataclasses, as `{"TcpCheck": {...}}`."""
    plans = {member.__name__: _plan(member) for member in members}

    def write(value: Any) -> dict[str, Any]:
        name = type(value).__name__
        return {name: plans[name].write(value)}

    def read(raw: Any) -> Any:
        if type(raw) is not dict or len(raw) != 1 or not raw.keys() <= plans.keys():
            raise ValueError(f"{_show(raw)} is none of {', '.join(plans)}")
        ((name, body),) = raw.items()
        return plans[name].read(body)

    return _Plan(write, read)
