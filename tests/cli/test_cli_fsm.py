"""`understudy fsm`: the table as text, as data and as the page of the docs."""

import json
from pathlib import Path

from typer.testing import CliRunner

from understudy.cli.app import app
from understudy.core.fsm import ROWS
from understudy.core.fsm_text import page


def test_the_table_is_printed_whole():
    """A line for each row, below a heading; with --json the same rows as values."""
    printed = CliRunner().invoke(app, ["fsm"])
    assert printed.exit_code == 0
    assert len(printed.output.splitlines()) == len(ROWS) + 1
    data = json.loads(CliRunner().invoke(app, ["fsm", "--json"]).output)
    assert [row["sentence"] for row in data] == [row.sentence for row in ROWS]


def test_the_page_is_written(tmp_path: Path):
    """The file holds what the rows make, and a folder that is not there is said to be so."""
    assert CliRunner().invoke(app, ["fsm", "--write", str(tmp_path / "fsm.md")]).exit_code == 0
    assert (tmp_path / "fsm.md").read_text() == page()
    refused = CliRunner().invoke(app, ["fsm", "--write", str(tmp_path / "no" / "fsm.md")])
    assert "cannot be written (No such file or directory)" in str(refused.exception)
