"""What is looked after now and then beside a running engine: its log's size, passwords, settings that undo promises.

PASSWORDS: that of the nodes' role follows from the superuser's, or from the cluster's key; either may be another one
than when the role was made. The primary's agent gives the role the one that follows now; every agent goes by its own.

Nothing here is an order, and no look waits for it. What it finds is told as warnings, a sentence each.
"""

import asyncio
import os
from pathlib import Path

from understudy.core.errors import Refused
from understudy.core.words import listed
from understudy.drivers.postgres import check
from understudy.drivers.postgres.aside import Aside
from understudy.drivers.postgres.process import Engine
from understudy.drivers.postgres.settings import NOBODY_YET, ROLE
from understudy.drivers.postgres.sources import Sources
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
_ROLE = "SELECT pg_is_in_recovery(), rolpassword FROM pg_authid WHERE rolname = $1"
_STREAMS = "SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming'"


class Upkeep:
    """Of one engine."""

    def __init__(self, engine: Engine, sources: Sources) -> None:
        self._engine = engine
        self._sources = sources
        self._disk = Aside(f"{engine.place.name}'s log")
        self._trial = Trial(self._do, EVERY_S, EVERY_S)
        self.warnings: tuple[str, ...] = ()
        """As of the last time."""
        self._fitting: str | None = None
        """What the server keeps of the role's password, when that was last found to be of ours."""
        self._misfit = False

    def tick(self) -> None:
        """Look after it, when it is time to."""
        self._trial.fails()

    def end(self) -> None:
        """Give up what is outstanding, and forget what was found: it was of another life."""
        self._trial.end()
        self.warnings = ()

    def promoted(self) -> None:
        """It may do more now than before: soon, if something waits for that."""
        if self._misfit:
            self._trial.end()

    async def _do(self) -> None:
        try:
            await self._disk.do(lambda: make_room(self._engine.place.log), _WITHIN_S)
            await self._engine.keep_passwords()
            await self._keep_role()
            self.warnings = (*await self._overruled(), *await self._hasty(), *await self._barred())
        except (Refused, OSError):
            pass  # the engine or its disk does not answer, which others tell

    async def _keep_role(self) -> None:
        """Give the role its password, where it has another one; a standby's comes from its primary."""
        for in_recovery, digest in await self._engine.ask(_ROLE, ROLE, within_s=_ANSWER_S):
            if digest is not None and digest == self._fitting:
                continue
            self._misfit = digest is None or not await asyncio.to_thread(self._engine.fits_role, digest)
            if not self._misfit:
                self._fitting = digest
            elif in_recovery == "f":
                verifier = self._engine.role_verifier()
                await self._engine.ask(f"ALTER ROLE {ROLE} PASSWORD '{verifier}'", within_s=_ANSWER_S)
                self._fitting, self._misfit = verifier, False

    async def _barred(self) -> list[str]:
        """Whom it is to follow, and is not let in by."""
        source = (await self._engine.in_force()).source
        if source is None or await self._engine.ask(_STREAMS, within_s=_ANSWER_S):
            return []
        return [why] if (why := await self._sources.barred(source)) else []

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
