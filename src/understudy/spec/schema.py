"""The JSON Schema of a spec file, for editors: the shape's, tidied."""

from typing import Any

from understudy.spec.shape import SpecShape

_NULL = {"type": "null"}


def schema() -> dict[str, Any]:
    """The schema, in the dialect of 2020-12. What several fields must be together it can tell only in part."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "understudy spec",
        **_tidy(SpecShape.model_json_schema()),
    }


def _tidy(node: Any) -> Any:
    """Without pydantic's made-up titles, and without null, which a file may not have."""
    if isinstance(node, list):
        return [_tidy(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    kept = {key: value for key, value in node.items() if not (key == "default" and value is None)}
    if isinstance(kept.get("title"), str):
        del kept["title"]
    if _NULL in kept.get("anyOf", ()):
        kept |= next(entry for entry in kept.pop("anyOf") if entry != _NULL)
    return {key: _tidy(value) for key, value in kept.items()}
