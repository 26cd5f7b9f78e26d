"""Which route of each cluster was followed last, as it is kept on disk: text in, values out. No files are touched."""

import json
from collections.abc import Mapping

from understudy.core.cluster_route import Route
from understudy.core.text import Name


def to_text(routes: Mapping[Name, Route]) -> str:
    """The routes as they are kept."""
    kept = {
        name: {"epoch": route.epoch, "write": route.write, "reads": list(route.reads)}
        for name, route in sorted(routes.items())
    }
    return json.dumps(kept, indent=1) + "\n"


def from_text(text: str) -> dict[Name, Route]:
    """The routes that were kept; none in an empty text. ValueError when it is not what `to_text` makes."""
    try:
        kept = json.loads(text or "{}")
        return {
            Name(name): Route(
                epoch=int(route["epoch"]),
                write=None if route["write"] is None else Name(route["write"]),
                reads=tuple(Name(node) for node in route["reads"]),
            )
            for name, route in kept.items()
        }
    except (KeyError, TypeError, AttributeError) as fault:
        raise ValueError(f"no list of routes ({fault!r})") from None
