"""Every line that understudy writes into PostgreSQL's configuration. Pure text; files and processes are not known here.

RULES
1. What is the user's may be anything, and stays where it is: it is included, after defaults and before what is ours.
2. What the driver must know of a running engine stands in it as `understudy.…` settings: so the engine itself is asked
   what is in force, and no file of ours can say otherwise. The first line keeps the same for when it does not run.
3. No secret stands here: passwords are in files that are named here.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from understudy.core.cluster import Timers
from understudy.core.record import SyncConfig
from understudy.core.text import Address, Name

ROLE = "understudy"
"""The role that nodes use between themselves."""
SLOTS = "understudy_"
"""What the names of our replication slots begin with."""

NOBODY_YET = SyncConfig(frozenset({Name("understudy-nobody-yet")}), 1)
"""The commit rule of every engine that is no primary: nobody of that name is there, so nothing is ever acknowledged.
With it in force all along there is no moment at a promotion in which a write is not held back."""

_HEAD = "# understudy: "


_DEFAULTS = {
    "wal_level": "replica",
    "max_wal_senders": "20",
    "max_replication_slots": "20",
    "wal_keep_size": "128MB",
    "max_slot_wal_keep_size": "4GB",
    "password_encryption": "scram-sha-256",
}
"""Where the user may say otherwise."""


@dataclass(frozen=True, slots=True)
class InForce:
    """What changes in an engine's life."""

    serial: int = 0
    """+1 with every change: an engine that shows it has read that change."""
    epoch: int = 0
    """Under which it is, or is about to be, promoted; 0 for a standby."""
    source: Name | None = None
    """Whom it follows."""
    clients: bool = False
    """Whether anybody but ourselves is let in."""
    rule: SyncConfig = NOBODY_YET
    """What `synchronous_standby_names` asks."""
    proven: SyncConfig | None = None
    """The rule of which it is certain that every process of the engine goes by it."""


@dataclass(frozen=True, slots=True)
class Place:
    """What never changes while the agent lives."""

    name: Name
    address: Address
    peers: tuple[tuple[Name, Address], ...]
    """The other nodes."""
    data: Path
    ours: Path
    """Our directory beside the data."""
    superuser: str
    timers: Timers

    @property
    def configuration(self) -> Path:
        """The file that the engine is started with."""
        return self.ours / "postgresql.conf"

    @property
    def hba(self) -> Path:
        """Who is let in."""
        return self.ours / "pg_hba.conf"

    @property
    def ident(self) -> Path:
        """Who is whom on the socket."""
        return self.ours / "pg_ident.conf"

    @property
    def passwords(self) -> Path:
        """Of everybody whom we are."""
        return self.ours / "pgpass"

    @property
    def follow_password(self) -> Path:
        """Of the role that follows: there only while this node follows somebody."""
        return self.ours / "follow.pgpass"

    @property
    def log(self) -> Path:
        """What the engine prints: not among what is the engine's user's own, for it is the guard who opens it."""
        return self.ours.with_name("postgres.log")

    def peer(self, name: Name) -> Address | None:
        """Where that node listens."""
        return dict(self.peers).get(name)


def configuration(place: Place, now: InForce, major: int) -> str:
    """The main configuration file, for that major version."""
    lines = [_HEAD + json.dumps(_words(now)), "# Written by understudy; what you write here is lost."]
    lines += [f"{name} = {_quoted(value)}" for name, value in _DEFAULTS.items()]
    if major >= 14:
        lines.append("recovery_init_sync_method = 'syncfs'  # not each of thousands of files, before it even begins")
    lines.append(f"cluster_name = {_quoted(place.name)}")
    lines += ["# Yours:", f"include_if_exists = {_quoted(str(place.data / 'postgresql.conf'))}", "# Ours:"]
    lines += [f"{name} = {_quoted(value)}" for name, value in owned(place, now).items()]
    return "\n".join(lines) + "\n"


def read_back(text: str) -> InForce:
    """What a file that `configuration` wrote says; the default when it is none."""
    first = text.partition("\n")[0]
    if not first.startswith(_HEAD):
        return InForce()
    try:
        words = json.loads(first.removeprefix(_HEAD))
        return InForce(
            serial=words["serial"],
            epoch=words["epoch"],
            source=Name(words["source"]) if words["source"] else None,
            clients=words["clients"],
            rule=read_rule(words["rule"]) or NOBODY_YET,
            proven=read_rule(words["proven"]),
        )
    except (ValueError, KeyError, TypeError):
        return InForce()


def hba(place: Place, now: InForce, theirs: str) -> str:
    """Who is let in; `theirs` is the user's own file, which counts once clients are let in.

    The socket is in a directory that only the engine's user can enter.
    """
    lines = [
        "# Written by understudy; what you write here is lost: yours is the pg_hba.conf in the data directory.",
        f'local all "{place.superuser}" peer map=understudy',
    ]
    for host in dict.fromkeys(address.host for _, address in (*place.peers, (place.name, place.address))):
        whole = f"{host}/{128 if ':' in host else 32}"
        lines += [f'host all "{ROLE}" {whole} scram-sha-256', f'host replication "{ROLE}" {whole} scram-sha-256']
    lines.append(f'host all "{ROLE}" all reject')
    if now.clients:
        lines += ["# Yours:", theirs]
    return "\n".join(lines) + "\n"


def ident(place: Place, us: Sequence[str], theirs: str) -> str:
    """Which users of this host are the superuser on the socket: the engine's own, and the agent's."""
    lines = ["# Written by understudy; what you write here is lost: yours is the pg_ident.conf in the data directory."]
    lines += [f'understudy "{user}" "{place.superuser}"' for user in dict.fromkeys(us)]
    return "\n".join([*lines, theirs]) + "\n"


def passwords(place: Place, password: str) -> str:
    """A passfile for whoever acts for this node."""
    return _pass_line(place.superuser, password) + _pass_line(ROLE, role_password(password))


def follow_password(password: str) -> str:
    """A passfile for the engine itself."""
    return _pass_line(ROLE, role_password(password))


def role_password(password: str) -> str:
    """The role's password, which every node that knows the superuser's can tell."""
    return hmac.new(password.encode(), b"understudy role", hashlib.sha256).hexdigest()


def names_rule(rule: SyncConfig) -> str:
    """A commit rule as `synchronous_standby_names`."""
    if not rule.acks:
        return ""
    voters = rule.voters or NOBODY_YET.voters
    return f"ANY {rule.acks} ({', '.join(_identifier(name) for name in sorted(voters))})"


def rule_words(rule: SyncConfig | None) -> str:
    """A commit rule as `read_rule` reads it."""
    return "" if rule is None else f"{rule.serial} {rule.acks} {','.join(sorted(rule.voters))}"


def read_rule(words: str) -> SyncConfig | None:
    """The commit rule that is written there; None for none."""
    parts = words.split(" ")
    if len(parts) != 3:
        return None
    return SyncConfig(frozenset(map(Name, filter(None, parts[2].split(",")))), int(parts[1]), int(parts[0]))


def slot_name(node: Name) -> str:
    """The replication slot for that standby. Slots know small letters, digits and `_` only; names differ by more."""
    plain = re.sub("[^a-z0-9]", lambda found: f"_{ord(found[0]):02x}", node)
    return SLOTS + (plain if len(plain) <= 50 else hashlib.sha256(node.encode()).hexdigest()[:32])


def follow_conninfo(place: Place, address: Address) -> str:
    """How a standby reaches whom it follows."""
    words = {
        "host": address.host,
        "port": str(address.port),
        "user": ROLE,
        "dbname": "postgres",
        "passfile": str(place.follow_password),
        "application_name": place.name,
        "connect_timeout": "2",
        "gssencmode": "disable",
        "keepalives_idle": "2",
        "keepalives_interval": "1",
        "keepalives_count": "3",
        "tcp_user_timeout": str(_receiver_timeout_ms(place.timers) * 2),
    }
    return " ".join(f"{key}='{_backslashed(value)}'" for key, value in words.items())


def owned(place: Place, now: InForce) -> dict[str, str]:
    """The parameters that are ours alone."""
    source = place.peer(now.source) if now.source else None
    return {
        "listen_addresses": place.address.host,
        "port": str(place.address.port),
        "unix_socket_directories": str(place.ours),
        "hba_file": str(place.hba),
        "ident_file": str(place.ident),
        "hot_standby": "on",
        "full_page_writes": "on",
        "wal_log_hints": "on",
        "restart_after_crash": "off",
        "recovery_target_timeline": "latest",
        "wal_receiver_timeout": str(_receiver_timeout_ms(place.timers)),
        "wal_sender_timeout": str(_receiver_timeout_ms(place.timers) * 4 // 3),
        "wal_receiver_status_interval": "1",
        "wal_retrieve_retry_interval": "50",
        # A standby begins a new file when its primary changes: filling it first would hold up the first commit.
        "wal_init_zero": "on" if now.epoch else "off",
        "synchronous_commit": "on",
        "synchronous_standby_names": names_rule(now.rule),
        "primary_conninfo": follow_conninfo(place, source) if source else "",
        "primary_slot_name": slot_name(place.name) if source else "",
        "understudy.serial": str(now.serial),
        "understudy.epoch": str(now.epoch),
        "understudy.clients": "in" if now.clients else "out",
        "understudy.source": now.source or "",
        "understudy.sync": rule_words(now.proven),
    }


def _receiver_timeout_ms(timers: Timers) -> int:
    """A receiver that hears nothing asks after half of it: so a link that is well is never silent for long."""
    return timers.link_silent_ms * 3 // 2


def _words(now: InForce) -> dict[str, object]:
    return {
        "serial": now.serial,
        "epoch": now.epoch,
        "source": now.source,
        "clients": now.clients,
        "rule": rule_words(now.rule),
        "proven": rule_words(now.proven),
    }


def _pass_line(user: str, password: str) -> str:
    return ":".join(("*", "*", "*", _colons(user), _colons(password))) + "\n"


def _colons(word: str) -> str:
    return word.replace("\\", "\\\\").replace(":", "\\:")


def _identifier(word: str) -> str:
    return '"' + word.replace('"', '""') + '"'


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def _backslashed(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")
