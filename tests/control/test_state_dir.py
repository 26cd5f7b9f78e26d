"""The state directory: its lock, its modes, and the sentence for each way in which it cannot be used."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from understudy.control import state_dir as module
from understudy.control.state_dir import StateDir
from understudy.core.errors import Refused


def test_a_second_agent_is_told_which_process_holds_the_directory(tmp_path: Path) -> None:
    """One agent a directory: the second hears the first one's pid, and may have it as soon as that one is killed."""
    hold = "import sys, pathlib, time; from understudy.control.state_dir import StateDir as D; "
    hold += "D(pathlib.Path(sys.argv[1])).open(); print('held', flush=True); time.sleep(1000)"
    with subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            with pytest.raises(Refused, match=rf"in use by process {holder.pid}: stop that one, or choose"):
                StateDir(tmp_path).open()
        finally:
            holder.kill()
    with StateDir(tmp_path):
        pass


def test_what_it_makes_is_ours_alone_and_what_was_there_keeps_its_mode(tmp_path: Path) -> None:
    """Others may not look into what we make; a directory that somebody else made is not changed."""
    with StateDir(tmp_path / "deep" / "state") as made:
        assert made.run.stat().st_mode & 0o777 == 0o700
        assert made.path.stat().st_mode & 0o066 == 0
        assert (made.path / "lock").stat().st_mode & 0o777 == 0o600
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    theirs.chmod(0o755)
    with StateDir(theirs):
        assert theirs.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(
    ("number", "cure"), [(28, "free some space"), (30, "its disk is read-only"), (13, "make it writable")]
)
def test_a_disk_that_will_not_do_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, cure: str
) -> None:
    """Full, read-only or forbidden: one sentence with what to do; no lock is left behind."""

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module, "_make", fail)
    with pytest.raises(Refused, match=cure) as refused:
        StateDir(tmp_path / "state").open()
    assert "\n" not in str(refused.value)
    monkeypatch.undo()
    with StateDir(tmp_path / "state"):
        pass


def test_a_file_in_its_place_is_one_sentence(tmp_path: Path) -> None:
    """A path that is a file is refused with a reason, not a traceback."""
    (tmp_path / "state").write_text("")
    with pytest.raises(Refused, match="cannot be used"):
        StateDir(tmp_path / "state").open()
