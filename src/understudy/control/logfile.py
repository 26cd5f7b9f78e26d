"""The log as a file that cannot grow without bound, and that never stops the agent: a full disk loses lines, no more.

What is logged, and in which form, is logs.py's.
"""

import io
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import TextIO, cast

import structlog

from understudy.control import logs
from understudy.core.errors import Fault

LIMIT_BYTES = 8 * 1024 * 1024
"""One earlier file of this size is kept, as `NAME.1`."""


class LogFile(io.TextIOBase):
    """A stream that appends to a file. Raises OSError when it cannot be opened at all, and never afterwards."""

    def __init__(self, path: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        self._path = path
        self._limit_bytes = limit_bytes
        self._descriptor = self._open()

    def write(self, text: str) -> int:
        """Append the text; what cannot be written, or comes after the end, is lost."""
        with suppress(OSError):
            if self.closed:
                return len(text)
            os.write(self._descriptor, text.encode(errors="replace"))
            if os.fstat(self._descriptor).st_size > self._limit_bytes:
                self._begin_anew()
        return len(text)

    def close(self) -> None:
        """Let the file go."""
        if not self.closed:
            os.close(self._descriptor)
        super().close()

    def _begin_anew(self) -> None:
        self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        fresh = self._open()
        os.close(self._descriptor)
        self._descriptor = fresh

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


class _ToLog(logging.Handler):
    """Hands on what libraries say by the standard library's logging."""

    def emit(self, record: logging.LogRecord) -> None:
        """The same line in our log."""
        said = structlog.get_logger().bind(library=record.name)
        said.log(record.levelno, record.getMessage(), exc_info=record.exc_info or None)


def log_to(path: Path) -> LogFile:
    """Send the log of this process, and the warnings of its libraries, to that file; Fault when it cannot be had."""
    try:
        file = LogFile(path)
    except OSError as failure:
        raise Fault(f"the log {path} cannot be opened ({failure.strerror}): make room or make it writable") from failure
    logs.configure(stream=cast(TextIO, file))
    logging.basicConfig(handlers=[_ToLog()], level=logging.WARNING, force=True)
    return file
