"""What the documentation names must be there: links, files, commands with their options, make targets."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from understudy.cli.app import app
from understudy.spec import read

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
COMMANDS = typer.main.get_command(app).commands


def anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    """Every relative link of a page is to a file that is there, and to a heading that it has."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, heading = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        if heading:
            assert heading in {anchor(line) for line in re.findall(r"^#+ (.+)$", there.read_text(), re.MULTILINE)}, (
                target
            )


def test_every_decision_is_in_the_index():
    """Whoever looks for a decision finds it in one list."""
    folder = ROOT / "docs/decisions"
    listed = set(re.findall(r"\]\((\d[^)]+)\)", (folder / "README.md").read_text()))
    assert listed == {page.name for page in folder.glob("[0-9]*.md")}


def calls(text: str) -> Iterator[list[str]]:
    """The words of each call of `understudy` that stands as code in the text, after the program's name."""
    code = [
        *re.findall(r"`([^`\n]+)`", text),
        *(line for block in re.findall(r"```.*?\n(.*?)```", text, re.DOTALL) for line in block.splitlines()),
    ]
    for line in code:
        for call in re.findall(r"(?:^|[\s/])understudy ([a-z][a-z-]*(?: [^|;&#(]*)?)", line):
            yield call.split()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_targets_exist(page):
    """Every `understudy VERB --option` and `make TARGET` that a page names can be typed."""
    text = page.read_text()
    for verb, *words in calls(text):
        assert verb in COMMANDS, verb
        known = {name for parameter in COMMANDS[verb].params for name in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, (verb, words)
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z][a-z-]*)", text)) <= targets


def test_whole_specs_are_good():
    """A spec that a page shows from its first line on can be copied as it is."""
    blocks = [
        block for page in PAGES for block in re.findall(r"```yaml\n(cluster:.*?)```", page.read_text(), re.DOTALL)
    ]
    assert blocks
    for block in blocks:
        read(block, str(ROOT), {})


def test_the_scan_sees_what_it_is_for():
    """A verb or an option that is not there is found, in text and in blocks."""
    text = "`understudy nonsense` and\n```\n$ .venv/bin/understudy status --nowhere x\nunderstudy why a\n```\n"
    assert [*calls(text)] == [["nonsense"], ["status", "--nowhere", "x"], ["why", "a"]]
