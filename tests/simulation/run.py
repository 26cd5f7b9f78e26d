"""Runs seeds: `python -m tests.simulation SEEDS FIRST_SEED`, or `make sim SEEDS=1000 FIRST_SEED=1`.

VERBOSE=1 prints each transcript. Exit code 1 when a rule was broken. The last line sums up; each broken seed has a line
that replays it.
"""

import gc
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import structlog
from tests.simulation import world
from tests.simulation.draw import draw
from tests.simulation.thaw import thaw_values
from tests.simulation.world import World

from understudy.control.cluster import reading
from understudy.core.codec import decode

AT_ONCE = 20
"""How many seeds a process takes at a time."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a seed."""

    seed: int
    violation: str
    """Empty when no rule was broken."""
    simulated_s: float
    cpu_s: float
    acks: int
    promotions: int
    transcript: str = ""


def run_seed(seed: int, *, keep_transcript: bool = False) -> Result:
    """Run one seed to its end, or to the first broken rule."""
    began_s = time.process_time()
    plan = draw(seed)
    run = World(plan, keep_transcript=keep_transcript)
    run.note("seed", str(seed), str(plan))
    run.run()
    checker = run.checker
    return Result(
        seed,
        str(checker.violation or ""),
        run.scheduler.now_s,
        time.process_time() - began_s,
        checker.acks,
        checker.promotions,
        str(run.transcript),
    )


def main(arguments: list[str]) -> int:
    """Run as many seeds as asked for."""
    seeds = int(arguments[0]) if arguments else 100
    first = int(arguments[1]) if len(arguments) > 1 else 1
    verbose = os.environ.get("VERBOSE", "") not in ("", "0")
    began_s = time.monotonic()
    broken = acks = promotions = 0
    hours = cpu_s = 0.0
    for result in _results(range(first, first + seeds), verbose=verbose):
        hours += result.simulated_s / 3600
        cpu_s += result.cpu_s
        acks += result.acks
        promotions += result.promotions
        if verbose:
            sys.stdout.write(result.transcript)
        if result.violation:
            broken += 1
            print(
                f"seed {result.seed}: {result.violation} | replay: make sim SEEDS=1 FIRST_SEED={result.seed} VERBOSE=1",
                flush=True,
            )
    took_s = time.monotonic() - began_s
    rate = hours / (cpu_s / 60)
    print(
        f"{seeds} seeds from {first}, {hours:.1f} simulated hours, {promotions} promotions, "
        f"{acks} acknowledged writes: {broken} violations; {took_s:.1f} s, {seeds / took_s:.1f} seeds/s, "
        f"{rate:.1f} cluster-hours a minute of one core"
    )
    return 1 if broken else 0


def _cores(seeds: int) -> int:
    return min(os.cpu_count() or 1, max(1, seeds // AT_ONCE))


def _results(seeds: range, *, verbose: bool) -> Iterator[Result]:
    cores = _cores(len(seeds))
    if cores == 1 or verbose:
        prepare()
        for seed in seeds:
            yield run_seed(seed, keep_transcript=verbose)
        return
    with multiprocessing.get_context("fork").Pool(cores, prepare) as pool:
        yield from pool.imap(run_seed, seeds, chunksize=AT_ONCE)


def quiet() -> None:
    """No log; and no warning of tasks that never began, since processes die at any moment."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)


def prepare() -> None:
    """All that makes a process of simulations and nothing else fast."""
    quiet()
    _share_values()
    thaw_values()
    gc.freeze()


def _share_values() -> None:
    """Values are frozen: what one agent has decoded, the others of the run take as it is."""
    reading.decode = world.decode = lru_cache(maxsize=64)(decode)  # type: ignore[assignment]  # it does the same
