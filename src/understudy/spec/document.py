"""From YAML text to plain values (dict, list, str, int, bool), with the line of each place in the report.

A careful subset of YAML: what is ambiguous or dangerous (aliases, tags, duplicate keys, depth, `yes` as a boolean) is a
fault or plain text here, whatever the spec says about fields. Nothing here knows a field of the spec.
"""

import re
from collections.abc import Callable
from typing import Any

import yaml

from understudy.spec.faults import Path, Report, shown

MAX_BYTES = 8 * 1024 * 1024
MAX_DEPTH = 12

_WHOLE_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,17}")
_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}


def parse(text: str, report: Report) -> Any:
    """The file's value. Raises SpecFaults when it cannot be read to its end; all other faults go to the report.

    A place whose value is of no use holds None, and is settled in the report.
    """
    try:
        size_bytes = len(text.encode())
    except UnicodeEncodeError as fault:
        line = text.count("\n", 0, fault.start) + 1
        raise report.stop("here is a character that is no Unicode text: save the file as UTF-8", line) from None
    if size_bytes > MAX_BYTES:
        raise report.stop(f"the file has {size_bytes} bytes: at most {MAX_BYTES} will do", 1)
    try:
        return _Parser(text, report).document()
    except yaml.reader.ReaderError as fault:
        line = text.encode()[: fault.position].count(b"\n") + 1
        raise report.stop(f"{fault.reason}: remove what is not printable", line) from None
    except yaml.MarkedYAMLError as fault:
        raise report.stop(_syntax(fault), fault.problem_mark.line + 1 if fault.problem_mark else 1) from None


def _syntax(fault: yaml.MarkedYAMLError) -> str:
    where = f", {fault.context}" if fault.context else ""
    return (
        f"this is no valid YAML ({fault.problem}{where}): look at the indentation (spaces, no tabs), "
        "the brackets and the quotes from here upwards"
    )


class _Parser:
    """Reads libyaml's events; recursion is bounded by MAX_DEPTH. Lean, since a large spec has a hundred thousand."""

    def __init__(self, text: str, report: Report) -> None:
        self._events = yaml.CSafeLoader(text)
        self._next: Callable[[], Any] = self._events.get_event
        self._report = report
        self._lines = report.lines

    def document(self) -> Any:
        """The value of the only document."""
        self._next()  # the start of the stream
        if self._events.check_event(yaml.StreamEndEvent):
            raise self._report.stop("the file is empty: begin with `cluster:` and `services:`", 1)
        self._next()  # the start of the document
        value = self._node(self._next(), ())
        self._next()  # the end of the document
        after = self._next()
        if not isinstance(after, yaml.StreamEndEvent):
            raise self._report.stop("a second document begins here: one file holds one spec", _line(after))
        return value

    def _node(self, event: Any, path: Path) -> Any:
        self._bound(len(path), event)
        if path not in self._lines:  # a field's line is its name's
            self._lines[path] = _line(event)
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, path)
        if isinstance(event, yaml.AliasEvent):
            self._useless(path, f"*{event.anchor} is an alias, which a spec may not have: write the value out")
            return None
        self._unadorned(event, path)
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(path)
        return self._list(path)

    def _unadorned(self, event: Any, path: Path) -> None:
        if event.anchor is not None:
            self._report.add(f"&{event.anchor} is an anchor, which a spec may not have: remove it", path)
        if event.tag is not None:
            self._report.add(f"{shown(event.tag)} is a tag, which a spec may not have: remove it", path)

    def _mapping(self, path: Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                self._report.add("this is no name of a field: a name is one word", path, line=_line(event))
                self._skip(event)
                self._skip(self._next())
                continue
            key = str(event.value)
            here = (*path, key)
            if key in values:
                first = self._lines[here]
                fault = f"{shown(key)} stands here again (first in line {first}): keep one of them"
                self._report.add(fault, here, line=_line(event))
                self._skip(self._next())
                continue
            self._lines[here] = _line(event)
            self._unadorned(event, here)
            if not isinstance(_resolve(event), str):
                self._useless(here, f"{shown(key)} is no name of a field: put it in quotes if it is meant so")
            values[key] = self._node(self._next(), here)
        return values

    def _skip(self, event: Any) -> None:
        """Read past a value, whatever is in it."""
        depth = 0
        while True:
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth == 0:
                return
            self._bound(depth, event)
            event = self._next()

    def _bound(self, depth: int, event: Any) -> None:
        if depth > MAX_DEPTH:
            raise self._report.stop(f"this is nested more than {MAX_DEPTH} deep: a spec never is", _line(event))

    def _list(self, path: Path) -> list[Any]:
        values: list[Any] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            values.append(self._node(event, (*path, len(values))))
        return values

    def _scalar(self, event: Any, path: Path) -> Any:
        self._unadorned(event, path)
        value = _resolve(event)
        if value is None:
            self._useless(path, "nothing is written here: write a value, or remove it ({} is an empty mapping)")
        return value

    def _useless(self, path: Path, fault: str) -> None:
        self._report.add(fault, path)
        self._report.settle(path)


def _resolve(event: Any) -> str | int | bool | None:
    """The value of a scalar: only `true`, `false`, `null`, `~`, nothing and whole numbers are other than text."""
    text = str(event.value)
    if event.style or event.tag is not None:
        return text
    if text in _WORDS:
        return _WORDS[text]
    return int(text) if text[0] in "-0123456789" and _WHOLE_NUMBER.fullmatch(text) else text


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1
