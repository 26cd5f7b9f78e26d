"""What every bench shares: tables as text, on the screen and in bench/results/ (which git ignores), and how it ends."""

import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

RESULTS = Path(__file__).parent / "results"


def end_with(main: Callable[[], int]) -> NoReturn:
    """Run a bench and leave with its exit code; Ctrl-C ends it in one line, after its hosts and files are gone."""
    try:
        code = main()
    except KeyboardInterrupt:
        print("interrupted; nothing was left behind", file=sys.stderr)
        code = 130
    sys.exit(code)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need; the first is text, the others are numbers and stand to the right."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = [
            cell.ljust(width) if number == 0 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return "\n".join([line(head), "  ".join("-" * width for width in widths), *(line(row) for row in rows)])


def publish(name: str, text: str) -> None:
    """Print the text and keep it as bench/results/NAME.txt, with where and when it was measured."""
    print(f"\n{text}\n", flush=True)
    RESULTS.mkdir(exist_ok=True)
    when = time.strftime("%Y-%m-%d %H:%M:%S %z")
    (RESULTS / f"{name}.txt").write_text(f"{when}, {machine()}\n\n{text}\n")


def machine() -> str:
    """What was measured on, and which proxies."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return f"{cores()} cores ({model}), Linux {platform.release()}, {_haproxy_version()}"


def cores() -> int:
    """How many processors this machine has."""
    return Path("/proc/cpuinfo").read_text().count("processor\t")


def _haproxy_version() -> str:
    try:
        done = subprocess.run(["haproxy", "-v"], capture_output=True, text=True, check=True)
    except OSError:
        return "no HAProxy"
    return " ".join(done.stdout.split()[:3])
