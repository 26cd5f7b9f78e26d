"""The lines that understudy writes for PostgreSQL: pure text."""

from pathlib import Path

from understudy.core.cluster import Timers
from understudy.core.record import SyncConfig
from understudy.core.text import Address, Name
from understudy.drivers.postgres import settings
from understudy.drivers.postgres.settings import InForce, Place

A, B, C = Name("a"), Name("B-2"), Name("b_2")
PLACE = Place(
    name=A,
    address=Address("10.0.0.1", 5432),
    peers=((B, Address("10.0.0.2", 5432)), (C, Address("fd00::3", 5433))),
    data=Path("/srv/o'data"),
    ours=Path("/srv/o'data.understudy/run"),
    superuser="boss",
    timers=Timers(),
)
LEADING = InForce(7, 3, None, True, SyncConfig(frozenset({B, C}), 1, 12), SyncConfig(frozenset({B}), 1, 9))


def test_read_back() -> None:
    """What was written is read again as it was; anything else is read as nothing."""
    for now in (InForce(), LEADING, InForce(8, 0, B)):
        assert settings.read_back(settings.configuration(PLACE, now, 15)) == now
    for text in ("", "port = 5432\n", "# understudy: {}\n", '# understudy: {"serial": "x"}\n'):
        assert settings.read_back(text) == InForce()


def test_rules() -> None:
    """A rule asks for names in quotes; one that asks nobody is empty; who is no primary has one that blocks."""
    assert settings.names_rule(LEADING.rule) == 'ANY 1 ("B-2", "b_2")'
    assert settings.names_rule(SyncConfig(frozenset(), 0, 5)) == ""
    assert settings.names_rule(InForce().rule) not in ("", settings.names_rule(LEADING.rule))
    assert settings.read_rule(settings.rule_words(LEADING.rule)) == LEADING.rule
    assert settings.read_rule("") is None


def test_text_cannot_escape() -> None:
    """A quote in a path stays in its string; slots of names that look alike differ; colons in passwords are kept."""
    text = settings.configuration(PLACE, InForce(source=B), 15)
    assert "include_if_exists = '/srv/o''data/postgresql.conf'" in text
    assert "recovery_init_sync_method" not in settings.configuration(PLACE, InForce(), 13)
    assert len({settings.slot_name(name) for name in (A, B, C, Name("b-2"), Name("B_2"))}) == 5
    assert settings.passwords(PLACE, "a:b\\c").splitlines()[0] == "*:*:*:boss:a\\:b\\\\c"


def test_who_is_let_in() -> None:
    """Closed, nobody but the nodes themselves; open, the user's own lines, behind ours."""
    theirs = "host all all all scram-sha-256"
    closed, opened = (settings.hba(PLACE, InForce(clients=clients), theirs) for clients in (False, True))
    assert theirs not in closed
    assert opened.startswith(closed)
    assert opened.rstrip().endswith(theirs)
    assert {line.split()[3] for line in closed.splitlines() if line.startswith("host all") and "scram" in line} == {
        "10.0.0.1/32",
        "10.0.0.2/32",
        "fd00::3/128",
    }
