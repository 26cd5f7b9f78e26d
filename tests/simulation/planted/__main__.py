"""`python -m tests.simulation.planted [MOST_SEEDS [NAME…]]`: how many seeds each planted bug takes to be caught."""

import multiprocessing
import sys

from tests.simulation.planted.bugs import BUGS
from tests.simulation.planted.patching import Bug
from tests.simulation.run import prepare, run_seed


def caught_after(bug: Bug, most_seeds: int) -> tuple[int, str]:
    """How many seeds it took, and what was broken; 0 when nothing was. Only seeds that are well without it count."""
    for seed in range(1, most_seeds + 1):
        with bug.planted():
            violation = run_seed(seed).violation
        if violation and not run_seed(seed).violation:
            return seed, violation
    return 0, ""


def _hunt(job: tuple[int, int]) -> tuple[int, str]:
    number, most_seeds = job
    return caught_after(BUGS[number], most_seeds)


def main(arguments: list[str]) -> int:
    """Hunt every bug, or those that are named."""
    most = int(arguments[0]) if arguments else 1000
    chosen = [n for n, bug in enumerate(BUGS) if not arguments[1:] or bug.name in arguments[1:]]
    missed = 0
    with multiprocessing.get_context("fork").Pool(initializer=prepare) as pool:
        for number, (seeds, violation) in zip(chosen, pool.imap(_hunt, [(n, most) for n in chosen]), strict=True):
            missed += not seeds
            said = f"{seeds:5} seeds: {violation}" if seeds else f"NOT CAUGHT in {most} seeds"
            print(f"{BUGS[number].name:36} {said}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} planted bugs were caught")
    return 1 if missed else 0


sys.exit(main(sys.argv[1:]))
