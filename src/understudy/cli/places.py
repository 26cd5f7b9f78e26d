"""Where things are kept when nobody says otherwise, and the details of errors that nobody foresaw."""

import os
import tempfile
import time
import traceback
from pathlib import Path
from typing import TextIO

KEEP_BYTES = 1024 * 1024


def state_home() -> Path:
    """The folder of all state directories of this user."""
    if os.geteuid() == 0:
        return Path("/var/lib/understudy")
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "understudy"


def keep_details(failure: Exception) -> str:
    """Write the traceback to a file; the answer says where, or that it could not be kept."""
    details = "".join(traceback.format_exception(failure))
    for open_log in (_own_log, _temporary_log):
        try:
            with open_log() as log:
                log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')}\n{details}\n")
        except OSError:
            continue
        return f"the details are in {log.name}"
    return "the details could not be written anywhere"


def _own_log() -> TextIO:
    path = state_home() / "errors.log"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = not path.exists() or path.stat().st_size > KEEP_BYTES
    return path.open("w" if fresh else "a", encoding="utf-8", errors="replace")


def _temporary_log() -> TextIO:
    path = Path(tempfile.mkdtemp(prefix="understudy-")) / "errors.log"  # a folder that is ours alone
    return path.open("w", encoding="utf-8", errors="replace")
