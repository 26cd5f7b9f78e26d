"""The terminal: consoles, JSON, and what to do when nobody reads any more."""

import json
import os
import sys
from typing import Any

from rich.console import Console

PIPE_WIDTH = 160
"""Columns where the output is no terminal and COLUMNS is not set, so that nothing is folded."""


def console(*, stderr: bool = False) -> Console:
    """A console on standard output, or on standard error."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def print_json(value: Any) -> None:
    """A value as indented JSON on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False))  # noqa: T201 - this is what the verb answers
