"""Becoming primary, the commit rule, letting clients in, stopping in order. Orders to an engine that runs.

WHY A NEW PRIMARY ACKNOWLEDGES NOTHING BY MISTAKE: every engine that is no primary has a commit rule that nobody can
fulfil (settings.NOBODY_YET). PostgreSQL looks at two things when a transaction commits: a flag, whether there is any
rule, which its checkpointer sets when it gets to it; and the rule, which each process that sends WAL reads for itself.
The flag is set since the engine was started; so between the two rules a write waits, and is never waved through.
"""

import asyncio
import signal

from understudy.core.errors import Refused
from understudy.core.record import SyncConfig
from understudy.drivers.base import DriverFault
from understudy.drivers.postgres import control_file, settings
from understudy.drivers.postgres.client import Session
from understudy.drivers.postgres.process import FILES_S, POLL_S, Engine, until

_SENDERS_S = 1.0
"""How long a process that sends WAL may take to show that it goes by a new rule; then it is ended, and begins anew."""
_MARGIN_S = 0.5
"""Of an action's time: for what comes after its longest step."""

_ROLE_AND_EPOCH = "SELECT pg_is_in_recovery(), current_setting('understudy.epoch', true)"
_READY = """,
       EXISTS (SELECT FROM pg_roles WHERE rolname = $1 AND rolsuper AND rolreplication AND rolcanlogin),
       (SELECT count(*) FROM pg_replication_slots WHERE slot_name = ANY ($2))
"""
"""Whether nothing will have to be made once it is a primary; asked with the above."""
_STRANGERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE backend_type = 'client backend' AND client_addr IS NOT NULL AND usename <> $1
"""
_SLOTS = """
SELECT slot_name, active, restart_lsn IS NOT NULL FROM pg_replication_slots
 WHERE slot_type = 'physical' AND starts_with(slot_name, $1)
"""
_MARK = "SELECT pg_logical_emit_message(true, 'understudy', 'rule')"
_WAITS = "SELECT FROM pg_stat_activity WHERE pid = $1::int AND wait_event = 'SyncRep'"
_BEHIND = "SELECT pid FROM pg_stat_replication WHERE state = 'streaming' AND sent_lsn < $1::pg_lsn"


async def promote(engine: Engine, epoch: int, rule: SyncConfig) -> None:
    """Become primary with this rule from the first write, clients out. Raises Refused, DriverFault."""
    name = engine.place.name
    if not (await engine.state()).running:
        raise DriverFault(f"{name} is not running, so it cannot be promoted.")
    slots = [settings.slot_name(peer) for peer, _ in engine.place.peers]
    [[in_recovery, promoted, role, there]] = await engine.ask(
        _ROLE_AND_EPOCH + _READY, settings.ROLE, "{" + ",".join(slots) + "}"
    )
    if in_recovery != "t":
        if int(promoted or 0) != epoch:
            raise Refused(f"{name} is a primary of epoch {promoted or 0}; close it first.")
        await set_rule(engine, rule)
    else:
        ready = role == "t" and int(there or 0) == len(slots)
        now = await engine.write(epoch=epoch, source=None, clients=False, rule=rule, proven=rule)
        await engine.process.signal(signal.SIGHUP)
        certain = asyncio.create_task(engine.has_read_for_certain(now))
        try:
            await engine.ask("SELECT pg_promote(false)")
            await until(lambda: _recovered(engine))
            await certain
        finally:
            certain.cancel()
        if ready and await _strangers_gone(engine):
            return
    if not (await engine.in_force()).clients:
        await until(lambda: _strangers_gone(engine))
    await _ensure_role(engine)
    await ensure_slots(engine, anew=False)


async def let_in(engine: Engine) -> None:
    """Let clients in."""
    if not (await engine.in_force()).clients:
        await engine.reload(clients=True)


async def set_rule(engine: Engine, rule: SyncConfig) -> None:
    """Put this commit rule in force: when it returns, no process of the engine goes by another."""
    in_recovery, _ = await _role_and_epoch(engine)
    if in_recovery:
        raise DriverFault(f"{engine.place.name} is no primary, so it has no commit rule.")
    now = await engine.in_force()
    if now.proven == rule and now.rule == rule:
        return
    if not (now.proven is not None and now.rule == now.proven and now.rule.same_rule(rule)):
        if rule.acks and not now.rule.acks:
            await _raise_flag(engine)
        await engine.reload(rule=rule, proven=None)
        await _senders_go_by_it(engine)
    await engine.reload(rule=rule, proven=rule)


async def stop_gracefully(engine: Engine, epoch: int, deadline_s: float) -> None:
    """Stop so that every standby that is connected has everything. Raises DriverFault when it had to be killed."""
    if not (await engine.state()).running:
        return
    engine.drop()
    await engine.process.stop(signal.SIGINT, within_s=max(_MARGIN_S, deadline_s - _MARGIN_S), epoch=epoch)
    if await engine.disk.do(lambda: control_file.ended_in_order(engine.place.data), FILES_S) is None:
        raise DriverFault(
            f"{engine.place.name} did not stop in order within {deadline_s:.0f} s and was killed: "
            "a standby did not take what was left, or a session did not end."
        )


async def ensure_slots(engine: Engine, *, anew: bool) -> None:
    """A slot for each peer, so that whoever follows this node finds one; none for nodes that are no more.

    anew: those of earlier followers are made anew, so that they hold back nothing that nobody will ask for.
    """
    wanted = {settings.slot_name(peer) for peer, _ in engine.place.peers}
    there = set()
    for name, active, holds in await engine.ask(_SLOTS, settings.SLOTS):
        if active == "f" and (name not in wanted or (anew and holds == "t")):
            await engine.ask("SELECT pg_drop_replication_slot($1)", name)
        else:
            there.add(name)
    for name in sorted(wanted - there):
        await engine.ask("SELECT pg_create_physical_replication_slot($1)", name)


async def _recovered(engine: Engine) -> bool:
    return (await engine.ask("SELECT pg_is_in_recovery()"))[0][0] == "f"


async def _strangers_gone(engine: Engine) -> bool:
    """Whether nobody is in who has come by TCP and is not one of our nodes; they are told to go."""
    return not await engine.ask(_STRANGERS, settings.ROLE)


async def _ensure_role(engine: Engine) -> None:
    """The role that nodes use between themselves, with the password that all of them know."""
    [[_, _, there, _]] = await engine.ask(_ROLE_AND_EPOCH + _READY, settings.ROLE, "{}")
    if there == "t":
        return
    await engine.ask(
        f"DO $$BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{settings.ROLE}') THEN "
        f"CREATE ROLE {settings.ROLE}; END IF; END$$; "
        f"ALTER ROLE {settings.ROLE} LOGIN SUPERUSER REPLICATION PASSWORD '{engine.role_verifier()}'"
    )


async def _role_and_epoch(engine: Engine) -> tuple[bool, int]:
    """Whether it is in recovery, and the epoch that stands in its configuration."""
    [[in_recovery, epoch]] = await engine.ask(_ROLE_AND_EPOCH)
    return in_recovery == "t", int(epoch or 0)


async def _raise_flag(engine: Engine) -> None:
    """See to it that commits wait at all: with a rule that nobody fulfils, a commit of ours is seen to wait."""
    await engine.reload(rule=settings.NOBODY_YET, proven=None)
    await until(lambda: _a_commit_waits(engine))


async def _a_commit_waits(engine: Engine) -> bool:
    session = await Session.open(engine.conninfo("understudy rule"))
    commit = asyncio.create_task(session.ask(f"SET synchronous_commit TO on; {_MARK}"))
    try:
        while not commit.done():
            if await engine.ask(_WAITS, str(session.pid)):
                return True
            await asyncio.sleep(POLL_S)
        return False
    finally:
        commit.cancel()
        await asyncio.gather(commit, return_exceptions=True)


async def _senders_go_by_it(engine: Engine) -> None:
    """Wait until every process that sends WAL has read the configuration before it hears another answer.

    Each has been told to by now, and reads it before it takes answers in its next round. Whoever has sent what was
    written since is in such a round.
    """
    await engine.ask(_MARK)
    [[mark]] = await engine.ask("SELECT pg_current_wal_flush_lsn()")
    rounds = 0.0
    while behind := await engine.ask(_BEHIND, mark):
        rounds += POLL_S
        if rounds > _SENDERS_S:
            for (pid,) in behind:
                await engine.ask("SELECT pg_terminate_backend($1::int)", pid)
        await asyncio.sleep(POLL_S)
