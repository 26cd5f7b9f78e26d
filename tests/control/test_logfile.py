"""The agent's log file: bounded, JSON, and harmless when it cannot be written."""

import json
import logging
import os

import pytest
import structlog

from understudy.control.logfile import LogFile, log_to


@pytest.fixture(autouse=True)
def _as_before():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def test_lines_of_ours_and_of_libraries_are_json(tmp_path):
    """Each line is one JSON object, with the traceback of an error where there is one."""
    with log_to(tmp_path / "agent.log"):
        structlog.get_logger().warning("web is down", service="web")
        logging.getLogger("uvicorn.error").error("it broke", exc_info=ZeroDivisionError("boo"))
        logging.getLogger("uvicorn.error").info("not worth a line")
    ours, theirs = map(json.loads, (tmp_path / "agent.log").read_text().splitlines())
    assert (ours["event"], ours["service"], ours["level"]) == ("web is down", "web", "warning")
    assert theirs["library"] == "uvicorn.error"
    assert "ZeroDivisionError: boo" in theirs["exception"]


def test_it_is_bounded_and_never_raises(tmp_path):
    """It begins anew at its limit and keeps one earlier file; a disk that is full costs lines and nothing else."""
    with LogFile(tmp_path / "agent.log", limit_bytes=1000) as log:
        for number in range(500):
            print(f"line {number:05}", file=log, flush=True)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["agent.log", "agent.log.1"]
    assert all(file.stat().st_size < 1100 for file in files)
    assert "line 00499" in files[0].read_text() + files[1].read_text()
    with LogFile(tmp_path / "full") as log:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, log._descriptor)
        os.close(full)
        print("lost", file=log, flush=True)
