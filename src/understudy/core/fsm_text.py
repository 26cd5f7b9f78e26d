"""The table as text: for a terminal, and as the page docs/fsm.md with its diagram. Pure; made from the rows alone."""

from understudy.core.fsm import BY_PHASE, ROWS, Row, choices
from understudy.core.record import Phase

_INTRODUCTION = (
    "Written from the rows of `core/fsm.py` by `understudy fsm --write docs/fsm.md`; do not edit. For every"
    " phase and every situation exactly one row matches; the test goes through all of them."
)
_EVERYWHERE = (
    "Not drawn: when what the nodes carry contradicts the record, every phase but `paused` leads to `fencing` (the"
    " record is made anew) if enough of them agree, else to `blocked`."
)
_HEAD = ("phase", "when", "then", "effects", "because")


def table_text() -> str:
    """Aligned columns, one row a line."""
    lines = [_HEAD, *(_cells(row) for row in ROWS)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(line[:-1], widths, strict=True)), line[-1]])
        for line in lines
    )


def as_data() -> list[dict[str, object]]:
    """The rows as plain values, for programs."""
    return [
        {
            "phase": str(row.phase),
            "when": {name: sorted(str(one) for one in wanted) for name, wanted in row.when.items()},
            "then": str(row.then),
            "effects": [effect.value for effect in row.effects],
            "sentence": row.sentence,
        }
        for row in ROWS
    ]


def diagram() -> str:
    """The phases and what leads from one to the other, as a mermaid state diagram; not what leads from everywhere."""
    lines = ["stateDiagram-v2", f"    [*] --> {Phase.BOOTSTRAPPING}"]
    for phase in Phase:
        nexts = dict.fromkeys(row.then for row in BY_PHASE[phase] if not _everywhere(row))
        lines.extend(f"    {phase} --> {then}" for then in nexts if then is not phase)
    return "\n".join(lines)


def page() -> str:
    """The whole of docs/fsm.md."""
    parts = [
        "# The machine of a cluster",
        _INTRODUCTION,
        "```mermaid\n" + diagram() + "\n```",
        _EVERYWHERE,
    ]
    for phase in Phase:
        rows = "\n".join("| " + " | ".join(_cells(row)[1:]) + " |" for row in BY_PHASE[phase])
        parts.append(f"## {phase}\n\n| {' | '.join(_HEAD[1:])} |\n| --- | --- | --- | --- |\n{rows}")
    return "\n\n".join(parts) + "\n"


def _everywhere(row: Row) -> bool:
    return row.phase is not Phase.BLOCKED and row.when.get("foreign") == frozenset({True})


def _cells(row: Row) -> tuple[str, ...]:
    conditions = (_condition(name, row) for name in row.when if name != "foreign" or True in row.when[name])
    effects = ", ".join(effect.value for effect in row.effects)
    then = "stay" if row.then is row.phase else str(row.then)
    return (str(row.phase), ", ".join(conditions), then, effects, row.sentence)


def _condition(name: str, row: Row) -> str:
    """`judged lost or dead`, `not late`, `asked not failover`."""
    wanted, every = row.when[name], choices(name)
    if every == (False, True):
        return name if True in wanted else f"not {name}"
    if len(wanted) == len(every) - 1 and len(wanted) > 1:
        return f"{name} not {next(str(one) for one in every if one not in wanted)}"
    return f"{name} {' or '.join(str(one) for one in every if one in wanted)}"
