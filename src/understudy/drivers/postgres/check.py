"""What a node's data and settings must fulfil before understudy takes it on. Looks only; every fault at once.

A fault keeps the node out, and says what a person can do. What understudy sets by itself is no fault: it is listed, so
that nobody is surprised. What can be asked only of an engine that runs is upkeep.py's.
"""

import asyncio
import base64
import hashlib
import hmac
import os
import re
import stat
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from understudy.core.errors import Refused
from understudy.core.words import listed
from understudy.drivers.base import DriverFault
from understudy.drivers.postgres import binaries, control_file, copying
from understudy.drivers.postgres.control_file import ControlFile
from understudy.drivers.postgres.home import Home
from understudy.drivers.postgres.tools import Account

MODES = {0o700, 0o750}
"""PostgreSQL starts with no others."""
_ASK_S = 10.0
_OURS = {"hot_standby": "on", "full_page_writes": "on", "restart_after_crash": "off", "wal_log_hints": "on"}
"""What the included file sets, whatever the user's says."""
TAKEN = {
    "hba_file",
    "listen_addresses",
    "port",
    "primary_conninfo",
    "primary_slot_name",
    "synchronous_commit",
    "synchronous_standby_names",
    "unix_socket_directories",
    *_OURS,
}
"""What `ALTER SYSTEM` would take out of our hands: its file is read after all others."""
_TARGETS = (
    "recovery_target",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
)
_NEEDS = {"max_wal_senders": 2, "max_replication_slots": 0}
"""So many more than there are nodes: a copy takes two connections."""
_DEFAULTED = {"max_wal_senders"}
"""Where understudy has a default of its own, which `postgres -C` does not know."""
_COUNT, _MAPPING = struct.Struct("=i"), struct.Struct("=II")
_AUTHID, _NAME_BYTES = 1260, 64
_BEFORE_DIGEST, _LONGEST_DIGEST = 20, 180
_SCRAM = re.compile(rb"SCRAM-SHA-256\$(\d{1,9}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]{44}):[A-Za-z0-9+/=]{44}")
_DIGEST = re.compile(_SCRAM.pattern + rb"|md5[0-9a-f]{32}")
_SETTING = re.compile(r"\s*(\w+)\s*=")
OVERRIDES = """\
SELECT coalesce(r.rolname, ''), coalesce(d.datname, '')
FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase
WHERE EXISTS (SELECT FROM unnest(s.setconfig) one WHERE one ~ '^synchronous_commit=(off|local|remote_write)$')"""


@dataclass(frozen=True, slots=True)
class Expected:
    """What is known of the cluster that the node belongs to."""

    nodes: int
    """How many it has."""
    system_identifier: str = ""
    """Empty while nobody knows."""
    major: int | None = None
    """The version of the others."""
    known: bool = False
    """Whether understudy has run this node before: what is wrong with its data is then for the cluster to mend."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """The primary's, as its control file has them (ControlFile.settings): a standby must not have less."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a check found."""

    faults: tuple[str, ...] = ()
    """Each a sentence; any of them keeps the node out."""
    ours: tuple[str, ...] = ()
    """What understudy will set: `hot_standby = on, where it is off`."""


async def check_node(home: Home, expected: Expected) -> Found:
    """Everything that keeps a node out, before it is started or touched. The engine does not run (under us)."""
    faults = await asyncio.to_thread(lambda: [*_place_faults(home.data, home.tools.account)])
    if copying.is_empty(home.data) or any(fault.final for fault in faults):
        return Found(tuple(fault.text for fault in faults))
    texts = [fault.text for fault in faults]
    try:
        version = await asyncio.to_thread(partial(_version_fault, home, expected))
        if version:
            return Found((*texts, version))
        texts += await asyncio.to_thread(lambda: [*_process_faults(home.data)])
        if expected.known:
            return Found(tuple(texts))
        control = await control_file.read(home.tools, home.data)
        texts += _control_faults(home, control, expected)
        texts += await asyncio.to_thread(lambda: [*_file_faults(home)])
        settings = await _settings(home)
    except Refused as fault:  # where the way there is barred, that is why
        return Found(tuple(texts or [str(fault)]))
    texts += _setting_faults(home, settings, expected)
    texts += _lowered_faults(home, settings, control)
    return Found(tuple(texts), tuple(_changes(settings)))


def check_stored_password(data: Path, control: ControlFile, user: str, password: str) -> str:
    """Why the password that the spec names will not do, by the digests that stand in the data. Empty also in doubt.

    Only what was stopped in order has all of them on the disk. Old ones may be there too: one that fits is enough.
    """
    if not control.state.clean or not password.isascii():
        return ""
    try:
        digests = [*_digests(_roles(data).read_bytes(), user)]
    except (OSError, struct.error):
        return ""
    if not digests or any(fits(digest, user, password) for digest in digests):
        return ""
    return (
        f"the superuser {user} of {data} has another password than the spec names: write the right one where "
        "`superuser.password` says"
    )


# --- where it is ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Fault:
    text: str
    final: bool = False
    """Whether there is no use in looking further."""


def _place_faults(data: Path, account: Account) -> Iterator[_Fault]:
    real = Path(os.path.realpath(data))
    if os.path.ismount(real):
        yield _Fault(
            f"{data} is a mount point, and so could never be replaced by a copy: "
            f"let the data be in a directory below it, such as {data}/data"
        )
    yield from map(_Fault, _way_faults(real, account))
    try:
        here = real.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        yield _Fault(f"{data} cannot be looked at ({error.strerror}): see to its disk", final=True)
        return
    if not stat.S_ISDIR(here.st_mode):
        yield _Fault(f"{data} is no directory: name one", final=True)
        return
    if here.st_uid != account.uid:
        yield _Fault(
            f"{data} belongs to user {here.st_uid}, and PostgreSQL runs as {account.name}: chown -R it to them"
        )
    if stat.S_IMODE(here.st_mode) not in MODES and not copying.is_empty(data):
        yield _Fault(f"{data} is open to others (mode {stat.S_IMODE(here.st_mode):o}): chmod it to 700")
    if not copying.is_empty(data) and not (real / "PG_VERSION").is_file():
        yield _Fault(f"{data} holds files that are not PostgreSQL's: empty it, or name another directory", final=True)


def _way_faults(real: Path, account: Account) -> Iterator[str]:
    """Whether the engine's user can get there, and we can put a directory beside it."""
    there = [parent for parent in real.parents if parent.is_dir()]
    for parent in there:
        mode = parent.stat()
        own, group = mode.st_uid == account.uid, mode.st_gid in {account.gid, *account.groups}
        bit = stat.S_IXUSR if own else stat.S_IXGRP if group else stat.S_IXOTH
        if not mode.st_mode & bit:
            yield f"{account.name} may not pass through {parent}, on the way to {real}: chmod it to let them"
    if there and not os.access(there[0], os.W_OK | os.X_OK):
        yield f"{there[0]} cannot be written, and copies are made beside {real}: make it writable for us"


def _version_fault(home: Home, expected: Expected) -> str:
    major = binaries.major_of(home.data)
    if expected.major is not None and major != expected.major:
        return (
            f"{home.data} is of PostgreSQL {major}, and the other nodes are of {expected.major}: "
            "upgrade it with pg_upgrade, or empty the directory to have it copied from them"
        )
    try:
        binaries.programs(major)
    except Refused as fault:
        return f"{home.data} is of PostgreSQL {major}: {fault}"
    return ""


# --- what it is -------------------------------------------------------------------------------------------------------


def _control_faults(home: Home, control: ControlFile, expected: Expected) -> Iterator[str]:
    if expected.system_identifier and str(control.system_identifier) != expected.system_identifier:
        yield (
            f"{home.data} holds data of another cluster ({control.system_identifier}, "
            f"not {expected.system_identifier}): move it away, or name another directory for {home.node}"
        )
    if not control.rewindable:
        yield (
            f"{home.data} has neither checksums nor wal_log_hints, so it could not be rewound after a failover: "
            "run pg_checksums --enable on it while it is stopped, or set wal_log_hints = on and start and stop it once"
        )


def _file_faults(home: Home) -> Iterator[str]:
    data = home.data
    broken = copying.unusable(data)
    if broken:
        yield f"{data} must not be started ({broken}): have it copied with `understudy rebuild SERVICE {home.node}`"
    if home.config_file is None and not (data / "postgresql.conf").is_file():
        yield f"there is no postgresql.conf in {data}, and settings elsewhere are not read: copy yours there"
    if (data / "recovery.signal").exists():
        yield f"{data} is set to recover to a target (recovery.signal): let it end its recovery, or remove that file"
    taken = sorted(_set_by_alter_system(data) & TAKEN)
    if taken:
        yield f"{data}/postgresql.auto.conf sets what is understudy's: {resets(taken)}, or remove these lines from it"


def _process_faults(data: Path) -> Iterator[str]:
    pid = _alive(data)
    if pid:
        yield f"PostgreSQL runs on {data} (process {pid}): stop it, and disable what starts it (systemctl disable)"


def _alive(data: Path) -> int:
    """The process that runs on this data; 0 when none does."""
    try:
        pid = int((data / "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0])
        there = Path(os.path.realpath(f"/proc/{pid}/cwd")) == Path(os.path.realpath(data))
    except (FileNotFoundError, ValueError):
        return 0
    return pid if there else 0


def _set_by_alter_system(data: Path) -> set[str]:
    try:
        lines = (data / "postgresql.auto.conf").read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return set()
    return {found[1].lower() for line in lines if (found := _SETTING.match(line))}


# --- whose it is ------------------------------------------------------------------------------------------------------


def _roles(data: Path) -> Path:
    """The file of the table of roles: its number stands in a map, once the table was ever rewritten."""
    table = (data / "global" / "pg_filenode.map").read_bytes()
    (number,) = _COUNT.unpack_from(table, 4)
    files = dict(_MAPPING.unpack_from(table, 8 + 8 * place) for place in range(number))
    return data / "global" / str(files.get(_AUTHID, _AUTHID))


def _digests(table: bytes, user: str) -> Iterator[bytes]:
    """Each stored password of that role: it stands right after the name, seven flags and a number."""
    name = user.encode()
    for found in re.finditer(re.escape(name.ljust(_NAME_BYTES, b"\0")), table):
        digest = _DIGEST.search(table, found.end(), found.end() + _LONGEST_DIGEST)
        if digest and digest.start() - found.end() <= _BEFORE_DIGEST:
            yield digest[0]


def fits(digest: bytes, user: str, password: str) -> bool:
    """Whether that is what a server keeps of this password."""
    scram = _SCRAM.fullmatch(digest)
    if scram is None:
        plain = hashlib.md5((password + user).encode(), usedforsecurity=False).hexdigest()  # as old servers stored it
        return digest == b"md5" + plain.encode()
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(scram[2]), int(scram[1]))
    key = hmac.new(salted, b"Client Key", hashlib.sha256).digest()
    return base64.b64encode(hashlib.sha256(key).digest()) == scram[3]


# --- how it is set ----------------------------------------------------------------------------------------------------


async def _settings(home: Home) -> dict[str, str]:
    """The user's settings as PostgreSQL understands them. Raises DriverFault when it does not."""
    settings: dict[str, str] = {}
    for name in ("wal_level", "fsync", *_NEEDS, *_OURS, *_TARGETS, *control_file.STANDBY_SETTINGS):
        ran = await home.tools.run("postgres", "-D", str(home.data), "-C", name, deadline_s=_ASK_S)
        if ran.code:
            raise DriverFault(f"PostgreSQL does not take the settings of {home.node}: {ran.last_words}")
        settings[name] = ran.out.strip()
    return settings


def _setting_faults(home: Home, settings: Mapping[str, str], expected: Expected) -> Iterator[str]:
    place = f"{home.data}/postgresql.conf"
    if settings["wal_level"] == "minimal":
        yield f"wal_level is minimal in {place}, so nothing can be replicated: set it to replica"
    if settings["fsync"] != "on":
        yield f"fsync is off in {place}, so an acknowledged write may not be on the disk: set it to on"
    for name, more in _NEEDS.items():
        least = expected.nodes + more
        if int(settings[name]) < least:
            yield f"{name} is {settings[name]} in {place}, too few for {expected.nodes} nodes: at least {least}"
    for name in _TARGETS:
        if settings[name]:
            yield f"{name} is set in {place}, so a standby would stop there: remove it"
    for name, theirs in expected.settings.items():
        if name not in _DEFAULTED and int(settings.get(name, theirs)) < int(theirs):
            yield f"{name} is {settings[name]} in {place} and {theirs} on the primary: a standby needs as much"


def _lowered_faults(home: Home, settings: Mapping[str, str], control: ControlFile) -> Iterator[str]:
    """Every node of ours is started as a standby first, and then needs what its log was written with."""
    for name, before in control.settings.items():
        if name not in _DEFAULTED and int(settings[name]) < int(before):
            yield (
                f"{name} is {settings[name]} in {home.data}/postgresql.conf and was {before} when it last ran: "
                f"set it to {before} at least, for it cannot recover with less"
            )


def _changes(settings: Mapping[str, str]) -> Iterator[str]:
    for name, value in _OURS.items():
        if settings.get(name, value) != value:
            yield f"{name} = {value}, where it is {settings[name]}"


def resets(names: Sequence[str]) -> str:
    """The commands that take back what `ALTER SYSTEM` has set."""
    return listed([f"ALTER SYSTEM RESET {name}" for name in names], most=len(names))


def override(node: str, role: str, database: str) -> str:
    """What is wrong with a role, or a database, that has its own idea of when a commit is done."""
    who = " and ".join(([f"role {role}"] if role else []) + ([f"database {database}"] if database else []))
    return (
        f"{who or 'everybody'} on {node} may commit without waiting for a standby (a synchronous_commit of its own), "
        "and zero_loss promises the opposite: ALTER ROLE or ALTER DATABASE … RESET synchronous_commit"
    )
