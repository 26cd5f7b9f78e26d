"""What is looked after now and then beside a running engine: its log's size, and settings that undo what we promise.

Nothing here is an order, and no look waits for it. What it finds is told as warnings, a sentence each.
"""

import os
from pathlib import Path

from understudy.core.errors import Refused
from understudy.core.words import listed
from understudy.drivers.postgres import check
from understudy.drivers.postgres.aside import Aside
from understudy.drivers.postgres.process import Engine
from understudy.drivers.postgres.settings import NOBODY_YET
from understudy.drivers.postgres.trial import Trial

EVERY_S = 10.0
_WITHIN_S = 5.0
_ANSWER_S = 1.0
LOG_BYTES = 16 * 1024 * 1024
"""A log that has grown beyond this makes room: one older part is kept beside it."""
_CHUNK_BYTES = 1024 * 1024
_OVERRULED = """
SELECT name FROM pg_settings WHERE name = ANY ($1) AND sourcefile LIKE '%/postgresql.auto.conf' ORDER BY name
"""


class Upkeep:
    """Of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._disk = Aside(f"{engine.place.name}'s log")
        self._trial = Trial(self._do, EVERY_S, EVERY_S)
        self.warnings: tuple[str, ...] = ()
        """As of the last time."""

    def tick(self) -> None:
        """Look after it, when it is time to."""
        self._trial.fails()

    def end(self) -> None:
        """Give up what is outstanding, and forget what was found: it was of another life."""
        self._trial.end()
        self.warnings = ()

    async def _do(self) -> None:
        try:
            await self._disk.do(lambda: make_room(self._engine.place.log), _WITHIN_S)
            self.warnings = (*await self._overruled(), *await self._hasty())
        except (Refused, OSError):
            pass  # the engine or its disk does not answer, which others tell

    async def _overruled(self) -> list[str]:
        """`ALTER SYSTEM` is read after everything of ours."""
        rows = await self._engine.ask(_OVERRULED, "{" + ",".join(sorted(check.TAKEN)) + "}", within_s=_ANSWER_S)
        names = [str(name) for (name,) in rows]
        if not names:
            return []
        said = f"ALTER SYSTEM on {self._engine.place.name} has set what is understudy's ({listed(names, most=9)})"
        return [f"{said}, so it is not as it should be: {check.resets(names)}"]

    async def _hasty(self) -> list[str]:
        """Who commits without waiting, where everybody is promised that nothing is lost."""
        rule = (await self._engine.in_force()).rule
        if not rule.acks or rule == NOBODY_YET:
            return []
        rows = await self._engine.ask(check.OVERRIDES, within_s=_ANSWER_S)
        return [check.override(self._engine.place.name, str(role), str(database)) for role, database in rows]


def make_room(log: Path) -> None:
    """Keep what a large log holds as its older part, and begin it anew. Who writes to it appends. Raises OSError."""
    try:
        full = log.stat().st_size > LOG_BYTES
    except FileNotFoundError:
        return
    if not full:
        return
    older, new = log.with_name(f"{log.name}.1"), log.with_name(f"{log.name}.new")
    with log.open("r+b") as file:
        with new.open("wb") as kept:
            os.fchmod(kept.fileno(), 0o600)
            while chunk := file.read(_CHUNK_BYTES):
                kept.write(chunk)
        new.replace(older)
        file.truncate(0)
