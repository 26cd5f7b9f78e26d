"""Every scenario's transcript is what the core answers; REGENERATE=1 writes them anew, to be read as a diff."""

import os
from pathlib import Path

import pytest
from tests.scenarios.stage import Stage

SCENARIOS = sorted(Path(__file__).parent.glob("[0-9]*.txt"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_transcript(path):
    """The answers of the core to this script are those that were reviewed."""
    old = path.read_text()
    new = performed(old)
    if os.environ.get("REGENERATE"):
        path.write_text(new)
        return
    assert new == old, "if the change is meant, run REGENERATE=1 pytest tests/scenarios and review the diff"


def test_there_is_one_for_each_incident():
    """The folder is not empty by mistake."""
    assert len(SCENARIOS) >= 25


def performed(text: str) -> str:
    """The file with every block's answer as it is now. Blocks: commands, `----`, the answer, an empty line."""
    stage, blocks = Stage(), []
    for block in text.rstrip("\n").split("\n\n"):
        script, bar, _ = block.partition("\n----")
        blocks.append(f"{script}\n----\n{stage.perform(script)}" if bar else f"{block}\n")
    return "\n".join(blocks)
