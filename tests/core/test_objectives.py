"""The ledger of availability: what its sums must add up to, whatever happens."""

from hypothesis import given
from hypothesis import strategies as st

from understudy.core.clock import Now
from understudy.core.objectives import Ledger, ServiceHealth, objectives, step

UP, DEGRADED, DOWN, UNKNOWN = ServiceHealth.UP, ServiceHealth.DEGRADED, ServiceHealth.DOWN, ServiceHealth.UNKNOWN

healths = st.sampled_from(list(ServiceHealth))
steps = st.lists(st.tuples(healths, st.floats(0, 1e6), st.floats(-1e9, 1e9)), max_size=40)


def lead(*steps: tuple[ServiceHealth, float]) -> Ledger:
    """A ledger led through (state seen, seconds since the last look)."""
    ledger, wall_s = Ledger(since_wall_s=0.0), 0.0
    for health, elapsed_s in steps:
        wall_s += elapsed_s
        ledger = step(ledger, health, elapsed_s, Now(wall_s, wall_s))
    return ledger


def test_a_day_reads_as_it_was():
    """Two failures of one and three minutes within a day give the figures a person would work out by hand."""
    ledger = lead((UP, 5), (DOWN, 3600), (UP, 60), (DEGRADED, 1000), (DOWN, 40_000), (DEGRADED, 180), (UP, 41_560))
    figures = objectives(ledger)
    assert (ledger.up_s, ledger.down_s, figures.failures) == (86_160, 240, 2)
    assert figures.availability_percent == 100 * 86_160 / 86_400
    assert (figures.mtbf_s, figures.mttr_s) == (43_200, 120)


def test_starting_up_is_no_failure_but_never_serving_is():
    """Measurement begins with the first serving; a service that never comes up was available for 0 % of the time."""
    never = lead((DOWN, 0), (DOWN, 30))
    assert objectives(never).availability_percent == 0.0
    started = step(never, UP, 5, Now(35, 35))
    assert (started.failures, started.down_s, started.since_wall_s) == (0, 0, 35)
    assert objectives(started).availability_percent == 100.0


def test_a_look_away_is_in_neither_sum_and_counts_no_failure_twice():
    """An outage during which the agent was restarted is one failure, without the time in which nobody looked."""
    ledger = lead((UP, 0), (DOWN, 10), (UNKNOWN, 5), (DOWN, 1000), (UP, 5), (UP, 10))
    assert (ledger.up_s, ledger.down_s, ledger.failures) == (20, 10, 1)


def test_requests_are_summed():
    """Requests and failed requests of each step add up, also those from before the first serving."""
    ledger = step(Ledger(0.0), DOWN, 0, Now(0, 0), requests=5, failed_requests=5)
    ledger = step(ledger, UP, 1, Now(1, 1), requests=100, failed_requests=1)
    figures = objectives(ledger)
    assert (figures.requests, figures.failed_requests) == (105, 6)


@given(steps)
def test_the_sums_are_what_was_seen(steps):
    """Each second is in the sum of the state it was spent in; failures are the entries into DOWN."""
    ledger = step(Ledger(0.0), UP, 0, Now(0, 0))
    spent = dict.fromkeys(ServiceHealth, 0.0)
    before, known_before, failures = UP, UP, 0
    for health, elapsed_s, wall_s in steps:
        spent[before] += elapsed_s
        ledger = step(ledger, health, elapsed_s, Now(0, wall_s))
        failures += health is DOWN and known_before is not DOWN
        before = health
        known_before = known_before if health is UNKNOWN else health
        if ledger.up_s == 0.0 and health in (UP, DEGRADED):
            return  # it has served for no time at all, and is measured anew
    assert ledger.up_s == spent[UP] + spent[DEGRADED] or abs(ledger.up_s - spent[UP] - spent[DEGRADED]) < 1e-3
    assert ledger.down_s == spent[DOWN] or abs(ledger.down_s - spent[DOWN]) < 1e-3
    assert ledger.failures == failures


@given(st.lists(st.tuples(healths, st.floats(-1e6, 1e6), st.floats(-1e9, 1e9)), max_size=40))
def test_figures_stay_in_their_bounds_whatever_the_clocks_do(steps):
    """No clock step makes a time negative or an availability outside 0..100, and MTBF is MTTF plus MTTR."""
    ledger = Ledger(since_wall_s=0.0)
    for health, elapsed_s, wall_s in steps:
        ledger = step(ledger, health, elapsed_s, Now(0, wall_s))
        figures = objectives(ledger)
        assert ledger.up_s >= 0
        assert ledger.down_s >= 0
        assert 0 <= figures.availability_percent <= 100
        assert (figures.mtbf_s is None) == (figures.mttr_s is None) == (figures.failures == 0)
        if figures.mtbf_s is not None:
            mttf_s = ledger.up_s / figures.failures
            assert abs(figures.mtbf_s - mttf_s - figures.mttr_s) <= 1e-6 * max(1.0, figures.mtbf_s)
