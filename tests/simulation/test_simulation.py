"""A handful of seeds and planted bugs in CI; `make sim` and `make sim-bugs` run as many as one likes."""

import os
import subprocess
import sys
from itertools import count, islice

import pytest
from tests.simulation.faults import theme_of
from tests.simulation.planted.bugs import BUGS
from tests.simulation.planted.hunt import caught
from tests.simulation.planted.patching import Bug
from tests.simulation.run import quiet, run_seed

from understudy.core import election

SEEDS = range(1, 25)
MANY_SEEDS = {"absent_key_misjudged"}
"""Planted bugs that take too long for CI; `make sim-bugs` hunts them."""
HUNTED = [bug for bug in BUGS if bug.name not in MANY_SEEDS]
MOST_HUNTS = 12


@pytest.fixture(autouse=True)
def _quiet() -> None:
    quiet()


def test_no_rule_is_broken() -> None:
    """Nothing breaks a rule in any of these seeds."""
    broken = [f"{seed}: {result.violation}" for seed in SEEDS if (result := run_seed(seed)).violation]
    assert broken == []


@pytest.mark.parametrize("bug", HUNTED, ids=[bug.name for bug in HUNTED])
def test_a_planted_bug_is_caught(bug: Bug) -> None:
    """The checkers bite: one of the first seeds about it breaks a rule with the bug, and none without it."""
    about_it = (seed for seed in count(1) if theme_of(seed) == bug.theme)
    _, seed, _ = caught(bug, islice(about_it, MOST_HUNTS))
    assert seed


def test_a_bug_that_is_never_called_is_no_test() -> None:
    """A patch of something that the product no longer calls is told of, instead of being missed for ever."""
    idle = Bug("idle", lambda spade: spade.plant(election, "elect", lambda real: real), "")
    with pytest.raises(LookupError, match="never called"):
        caught(idle, [2])


def test_a_seed_is_replayed_byte_for_byte() -> None:
    """Two processes with different hash seeds write the same transcript."""
    command = [sys.executable, "-m", "tests.simulation", "1", "8"]
    runs = []
    for hash_seed in ("1", "2"):
        environment = {
            **os.environ,
            "PYTHONHASHSEED": hash_seed,
            "VERBOSE": "1",
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120).stdout
        runs.append(said.rsplit("\n", 2)[0])  # the last line tells how long it took
    assert runs[0] == runs[1]
    assert len(runs[0].splitlines()) > 100
