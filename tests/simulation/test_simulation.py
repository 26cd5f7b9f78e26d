"""A handful of seeds and planted bugs in CI; `make sim` and `make sim-bugs` run as many as one likes."""

import os
import subprocess
import sys

import pytest
from tests.simulation.planted.bugs import BUGS
from tests.simulation.run import prepare, run_seed

SEEDS = range(1, 25)
QUICKLY_CAUGHT = {
    "promote_before_fence": 15,
    "lease_without_waiting": 15,
    "marks_not_durable": 5,
    "one_standby_too_few": 40,
}
"""Planted bugs that a few seeds find, and how many they may take."""


@pytest.fixture(autouse=True)
def _quiet() -> None:
    prepare()


def test_no_rule_is_broken() -> None:
    """Nothing breaks a rule in any of these seeds."""
    broken = [f"{seed}: {result.violation}" for seed in SEEDS if (result := run_seed(seed)).violation]
    assert broken == []


@pytest.mark.parametrize("name", sorted(QUICKLY_CAUGHT))
def test_a_planted_bug_is_caught(name: str) -> None:
    """The checkers bite."""
    bug = next(bug for bug in BUGS if bug.name == name)
    with bug.planted():
        assert any(run_seed(seed).violation for seed in range(1, 1 + QUICKLY_CAUGHT[name]))


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
