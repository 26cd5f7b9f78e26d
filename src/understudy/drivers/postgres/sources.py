"""The other nodes as they are reached from here: to copy from, to compare with. A connection for each question."""

import asyncio
import json

from understudy.core.errors import Refused
from understudy.core.lineage import Branch, Position
from understudy.core.text import Name
from understudy.drivers.base import DriverFault
from understudy.drivers.postgres import branches, lsn, settings
from understudy.drivers.postgres.client import Barred, Row, conninfo, once
from understudy.drivers.postgres.home import Source
from understudy.drivers.postgres.settings import Place

_ANSWER_S = 5.0
_OFF = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 4, "tcp_user_timeout": 30_000}
"""After half a minute a host of which nothing is heard counts as off, for copies and rewinds too (s, s, times, ms). One
that pauses for less is waited for: a rewind that is cut short has the node copied anew."""
_NOTING_S, _NOTED_AFTER = 0.1, 20
"""How often, and how many times, a new primary is asked whether it has noted which timeline it has begun."""
_WHERE = f"""
SELECT pg_is_in_recovery(), CASE WHEN NOT pg_is_in_recovery() THEN pg_walfile_name(pg_current_wal_flush_lsn()) END,
       CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_flush_lsn() END, pg_read_file('{branches.KEPT}')
"""


class Sources:
    """Every other node of the cluster."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def of(self, name: Name) -> Source:
        """That node. Raises Refused when it is none of the cluster."""
        return Source(name, self._conninfo(name), lambda sql: self._ask(name, sql))

    async def major(self, name: Name) -> int:
        """Its major version."""
        [[number]] = await self._ask(name, "SHOW server_version_num")
        return int(number or 0) // 10000

    async def barred(self, name: Name) -> str:
        """Why it does not let us in with our password, without the full stop; empty when it does, and when in doubt."""
        try:
            await self._ask(name, "SELECT 1")
        except Refused as fault:
            return str(fault).removesuffix(".") if isinstance(fault.__cause__, Barred) else ""
        return ""

    async def reserve_slot(self, name: Name) -> None:
        """A place there for us that keeps the log from now on. One that has lost its log is made anew."""
        slot = settings.slot_name(self.place.name)
        there = await self._ask(
            name, "SELECT active, restart_lsn, wal_status FROM pg_replication_slots WHERE slot_name = $1", slot
        )
        if there and (there[0][0] == "t" or (there[0][1] is not None and there[0][2] != "lost")):
            return
        if there:
            await self._ask(name, "SELECT pg_drop_replication_slot($1)", slot)
        await self._ask(name, "SELECT pg_create_physical_replication_slot($1, true)", slot)

    async def ids(self, name: Name) -> str:
        """What it keeps of the ids of timelines."""
        [[kept]] = await self._ask(name, f"SELECT pg_read_file('{branches.KEPT}')")
        return kept or "{}"

    async def position(self, name: Name) -> Position:
        """Where it stands. Raises DriverFault while it is no primary, or has not noted its own timeline."""
        for _ in range(_NOTED_AFTER):
            there = await self._position(name)
            if there is not None:
                return there
            await asyncio.sleep(_NOTING_S)
        raise DriverFault(f"{name} has become primary just now, and has not looked at itself since.")

    async def _position(self, name: Name) -> Position | None:
        [[in_recovery, file, flushed, kept]] = await self._ask(name, _WHERE)
        if in_recovery == "t" or file is None or flushed is None:
            raise DriverFault(f"{name} is no primary yet.")
        timeline, ids = int(file[:8], 16), json.loads(kept or "{}")
        history: list[tuple[int, int]] = []
        if timeline > 1:
            [[text]] = await self._ask(name, f"SELECT pg_read_file('pg_wal/{timeline:08X}.history')")
            history = branches.parse_history(text or "")
        if str(timeline) not in ids:
            return None
        starts = [0, *(end for _, end in history)]
        numbers = [*(number for number, _ in history), timeline]
        found = tuple(
            Branch(ids.get(str(number), str(number)), start) for number, start in zip(numbers, starts, strict=True)
        )
        return Position(found, lsn.parse(flushed))

    async def _ask(self, name: Name, sql: str, *values: str) -> list[Row]:
        try:
            async with asyncio.timeout(_ANSWER_S):
                return await once(self._conninfo(name), sql, *values)
        except TimeoutError:
            raise DriverFault(f"{name} does not answer within {_ANSWER_S:.0f} s.") from None
        except Barred as fault:
            raise DriverFault(
                f"{str(fault).removesuffix('.')}, so the agents of {name} and {self.place.name} do not go by the same "
                "password: see that superuser.password is the same text on every host, or, where the spec has none, "
                "that every host has the same cluster.key, and start the agents again."
            ) from fault

    def _conninfo(self, name: Name) -> str:
        address = self.place.peer(name)
        if address is None:
            raise Refused(f"{name} is no other node of this cluster than {self.place.name}.")
        return conninfo(
            host=address.host,
            port=address.port,
            user=settings.ROLE,
            dbname="postgres",
            passfile=str(self.place.passwords),
            application_name=f"understudy {self.place.name}",
            gssencmode="disable",
            connect_timeout=2,
            **_OFF,
        )
