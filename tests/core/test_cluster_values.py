"""What the spec says of clusters, as the core's own values: timers that hold together, words that are safe."""

import pytest

from understudy.core.cluster import Timers
from understudy.core.stateful import overlap
from understudy.core.text import DataPath, RoleName


def test_timers_follow_the_lease():
    """The default lease gives the defaults, and no length of lease gives impossible timers."""
    assert Timers.for_lease(4000) == Timers()
    assert all(Timers.for_lease(lease_ms).faults() == () for lease_ms in range(2000, 60_001, 7))
    assert Timers.for_lease(8000, renew_ms=500).renew_ms == 500


@pytest.mark.parametrize(
    ("word", "good", "bad"),
    [
        (
            DataPath,
            ["/srv/orders", "orders", "a/b.c/..d", "/var/lib/postgresql/15/main", "a" * 77],
            ["", "/", "a/", "//a", "a//b", "..", "a/../b", "./a", "a/.", "/..", "a b", "a'b", "a%b", "a\nb", "a" * 78],
        ),
        (RoleName, ["postgres", "_a9"], ["", "Postgres", "pg_a", "9a", "a-b", "a b", 'a"b', "a" * 64]),
    ],
)
def test_words_that_enter_an_engines_files(word, good, bad):
    """What is no plain path or name is refused when the value is made."""
    assert [str(word(text)) for text in good] == good
    for text in bad:
        with pytest.raises(ValueError, match="will not do"):
            word(text)


def test_directories_overlap():
    """The same, or one inside the other; names that only begin alike do not."""
    a, inside, alike = DataPath("/srv/a"), DataPath("/srv/a/b"), DataPath("/srv/ab")
    assert overlap(a, a)
    assert overlap(a, inside)
    assert overlap(inside, a)
    assert not overlap(a, alike)
    assert not overlap(alike, a)
