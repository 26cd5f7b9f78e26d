"""References to secrets: `env:NAME` and `file:PATH`. The only place where a secret's value is read.

A value goes to whoever starts the command and nowhere else: never into the spec, a log, a message or the store.
"""

import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from understudy.core.errors import Refused

REFERENCE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]{0,127}|file:[^\x00-\x1f\x7f]{1,1024}")
MAX_BYTES = 64 * 1024


def resolve_all(secrets: Iterable[tuple[str, str]], directory: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that an endpoint's `secrets` stand for; raises Refused as `resolve` does."""
    return {variable: resolve(reference, directory, environment) for variable, reference in secrets}


def resolve(reference: str, directory: str, environment: Mapping[str, str]) -> str:
    """The secret itself; a file's last newline is not part of it. Raises Refused with a sentence that never shows it.

    directory: where relative paths begin, the folder of the spec file.
    """
    where, _, name = reference.partition(":")
    if where == "file":
        return _from_file(Path(directory, name))
    if not environment.get(name):
        raise Refused(f"the environment variable {name} is not set or empty: set it before you start understudy")
    return environment[name]


def _from_file(path: Path) -> str:
    try:
        content = _read(path)
    except OSError as fault:
        raise Refused(f"the file {path} cannot be read ({fault.strerror}): put the secret there") from None
    text = content.decode(errors="replace").removesuffix("\n").removesuffix("\r")
    if not text or len(content) > MAX_BYTES or not text.isprintable():
        raise Refused(f"the file {path} must hold one line of text, not empty and at most {MAX_BYTES} bytes long")
    return text


def _read(path: Path) -> bytes:
    """What a regular file holds; a pipe or a device would keep us waiting."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(0, "it is no regular file")
        return file.read(MAX_BYTES + 1)
