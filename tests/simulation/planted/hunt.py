"""`python -m tests.simulation.planted [MOST_SEEDS [NAME…]]`: how many seeds each planted bug takes to be caught."""

import multiprocessing
from collections.abc import Iterable

from tests.simulation.planted.bugs import BUGS
from tests.simulation.planted.patching import Bug
from tests.simulation.run import prepare, run_seed


def caught(bug: Bug, seeds: Iterable[int]) -> tuple[int, int, str]:
    """How many seeds it took, the last of them, and what it broke; 0 when none caught it.

    Only seeds that are well without the bug count. LookupError when what was planted was never called in any of them.
    """
    calls: dict[str, int] = {}
    for number, seed in enumerate(seeds, 1):
        with bug.planted() as spade:
            violation = run_seed(seed).violation
        if violation and not run_seed(seed).violation:
            return number, seed, violation
        calls = {name: calls.get(name, 0) + count for name, count in spade.calls.items()}
    never = [name for name, count in calls.items() if not count]
    if never:
        raise LookupError(f"{bug.name}: {', '.join(never)} was never called: it is planted where nothing grows.")
    return 0, 0, ""


def _hunt(job: tuple[int, int]) -> tuple[int, str]:
    number, most_seeds = job
    try:
        seeds, _, violation = caught(BUGS[number], range(1, most_seeds + 1))
    except LookupError as fault:
        return 0, str(fault)
    return seeds, violation


def main(arguments: list[str]) -> int:
    """Hunt every bug, or those that are named."""
    most = int(arguments[0]) if arguments else 1000
    chosen = [n for n, bug in enumerate(BUGS) if not arguments[1:] or bug.name in arguments[1:]]
    missed = 0
    with multiprocessing.get_context("fork").Pool(initializer=prepare) as pool:
        for number, (seeds, said) in zip(chosen, pool.imap(_hunt, [(n, most) for n in chosen]), strict=True):
            missed += not seeds
            words = f"{seeds:5} seeds: {said}" if seeds else f"NOT CAUGHT in {most} seeds {said}"
            print(f"{BUGS[number].name:36} {words}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} planted bugs were caught")
    return 1 if missed else 0
