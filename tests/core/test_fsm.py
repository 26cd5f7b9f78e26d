"""The table is total, has no dead ends, and docs/fsm.md says what it says."""

import random
from pathlib import Path

import pytest

from understudy.core.fsm import BY_PHASE, ROWS, Effect, choices, combinations, fields_of, row_for
from understudy.core.fsm_text import page, table_text
from understudy.core.record import Phase
from understudy.core.situation import Situation

PAGE = Path(__file__).parents[2] / "docs" / "fsm.md"


@pytest.mark.parametrize("phase", Phase)
def test_exactly_one_row_matches_every_situation(phase):
    """For every combination of the fields that any row of the phase asks for there is one row: not two, not none."""
    for combination in combinations(phase):
        matching = [
            row.sentence
            for row in BY_PHASE[phase]
            if all(combination[name] in wanted for name, wanted in row.when.items())
        ]
        assert len(matching) == 1, (combination, matching)


@pytest.mark.parametrize("phase", Phase)
def test_fields_that_no_row_asks_for_cannot_matter(phase):
    """Changing every other field of a situation at random never changes the row."""
    draw = random.Random(7)
    asked = set(fields_of(phase))
    for combination in combinations(phase):
        rows = set()
        for _ in range(3):
            drawn = {name: draw.choice(choices(name)) for name in Situation.__dataclass_fields__ if name not in asked}
            rows.add(id(row_for(phase, Situation(**combination, **drawn))))
        assert len(rows) == 1, combination


def test_every_row_can_match():
    """No row is dead: each has at least one combination of its own."""
    matched = {
        id(row)
        for phase in Phase
        for combination in combinations(phase)
        for row in BY_PHASE[phase]
        if all(combination[name] in wanted for name, wanted in row.when.items())
    }
    assert matched == {id(row) for row in ROWS}


@pytest.mark.parametrize("phase", Phase)
def test_no_phase_is_a_trap_or_out_of_reach(phase):
    """Every phase can be left and reached from the first one, and `steady` can be reached from it."""
    assert any(row.then is not phase for row in BY_PHASE[phase])
    assert phase in reached_from(Phase.BOOTSTRAPPING)
    assert Phase.STEADY in reached_from(phase)


def test_every_effect_is_somebodys():
    """There is no effect that no row has, so none that is never carried out."""
    assert {effect for row in ROWS for effect in row.effects} == set(Effect)


def test_rows_of_a_phase_say_different_things():
    """A sentence tells which row of the phase it was, unless the effects are the same too."""
    for phase in Phase:
        said = [(row.sentence, row.then) for row in BY_PHASE[phase]]
        assert len(set(said)) == len(said)


def test_the_page_is_what_the_rows_say():
    """docs/fsm.md is written from the rows."""
    assert page() == PAGE.read_text(), "docs/fsm.md is stale: run `understudy fsm --write docs/fsm.md`"


def test_the_table_prints_every_row():
    """`understudy fsm` shows each row on a line of its own, with its sentence."""
    lines = table_text().splitlines()[1:]
    assert len(lines) == len(ROWS)
    assert all(line.endswith(row.sentence) for line, row in zip(lines, ROWS, strict=True))


def reached_from(phase: Phase) -> set[Phase]:
    """Every phase that rows lead to from this one."""
    reached, edge = {phase}, [phase]
    while edge:
        for row in BY_PHASE[edge.pop()]:
            if row.then not in reached:
                reached.add(row.then)
                edge.append(row.then)
    return reached
