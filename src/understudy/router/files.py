"""The router's files on disk: written whole or not at all. What they say is decided elsewhere.

While the candidate lies beside the configuration, a reload is under way; one that is found at a start was not finished.
"""

import contextlib
import os
import re
from pathlib import Path

from understudy.router.base import RouterFault
from understudy.router.config import Rendered
from understudy.router.layout import SOCKET_PATH_BYTES, Layout

_SAFE = re.compile(r"[\w ./+@:=-]+")
"""What a path may consist of that goes into runtime commands and arguments, where ';' and ',' have a meaning."""


class Files:
    """The files of one HAProxy, and what we last put into them."""

    def __init__(self, layout: Layout) -> None:
        """Make the folders; RouterFault when that cannot be."""
        self._layout = layout
        if not _SAFE.fullmatch(str(layout.directory)):
            raise RouterFault(
                f"HAProxy cannot be told of the folder {str(layout.directory)!r}: choose a --state-dir of letters,"
                " digits, spaces and ._/+@:=-"
            )
        longest = max(len(os.fsencode(path)) for path in (layout.admin_socket, layout.master_socket))
        if longest > SOCKET_PATH_BYTES:
            raise RouterFault(
                f"'{layout.directory}' is too long a path for unix sockets ({longest} bytes instead of"
                f" {SOCKET_PATH_BYTES}): choose a shorter --state-dir"
            )
        for folder in (layout.directory, layout.maps, layout.checks):
            try:
                # Others may enter, not look: HAProxy's workers run command checks as a user of their own.
                folder.mkdir(mode=0o711, parents=True, exist_ok=True)
            except OSError as fault:
                raise _cannot("make", folder, fault) from None

    def config(self) -> str:
        """The configuration in force; empty when there is none."""
        try:
            return self._layout.config.read_text()
        except FileNotFoundError:
            return ""
        except OSError as fault:
            raise _cannot("read", self._layout.config, fault) from None

    def in_force(self, rendered: Rendered) -> bool:
        """Whether HAProxy was last started or reloaded with exactly this, and to the end."""
        if self._layout.candidate.exists() or self.config() != rendered.config:
            return False
        with contextlib.suppress(OSError):
            return all(path.read_text() == text for path, text in rendered.files)
        return False

    def propose(self, rendered: Rendered) -> None:
        """Write the candidate and the files that it names."""
        self._write_named(rendered)
        self._write(self._layout.candidate, rendered.config)

    def withdraw(self) -> None:
        """Drop the candidate: it is not on its way. Should that fail, the next start reloads once more."""
        with contextlib.suppress(OSError):
            self._layout.candidate.unlink(missing_ok=True)

    def install(self, server_state: str) -> None:
        """Make the candidate the configuration, keeping the former one by its side; needs next to no space."""
        layout = self._layout
        self._write(layout.server_state, server_state)
        try:
            self._former.unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                os.link(layout.config, self._former)
            linked = layout.config.with_suffix(".tmp")
            linked.unlink(missing_ok=True)
            os.link(layout.candidate, linked)
            linked.replace(layout.config)
            self._sync_folder(layout.directory)
        except OSError as fault:
            raise _cannot("install", layout.config, fault) from None

    def restore(self, former: Rendered | None) -> None:
        """Put the former configuration back; the present one did not work."""
        with contextlib.suppress(OSError):
            self._former.replace(self._layout.config)
        if former is not None:
            with contextlib.suppress(RouterFault):  # a full disk: these are written again before the next reload
                self._write_named(former)
        self.withdraw()

    def settle(self, rendered: Rendered) -> None:
        """The candidate works: drop the former configuration and wrappers that nothing names any more."""
        self.withdraw()
        named = {path for path, _ in rendered.files}
        with contextlib.suppress(OSError):  # litter, nothing worse
            self._former.unlink(missing_ok=True)
            for path in self._layout.checks.iterdir():
                if path not in named:
                    path.unlink()

    def save(self, rendered: Rendered) -> None:
        """Keep the files what the running proxy is, after live changes."""
        self._write_named(rendered)
        self._write(self._layout.config, rendered.config)

    def followed(self) -> str:
        """Which routes were followed last; empty when none ever was."""
        try:
            return self._layout.followed.read_text()
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as fault:
            raise RouterFault(
                f"cannot read {self._layout.followed} ({fault}): make it readable, then try again"
            ) from None

    def remember(self, followed: str) -> None:
        """Keep which routes are followed."""
        self._write(self._layout.followed, followed)

    @property
    def _former(self) -> Path:
        return self._layout.config.with_suffix(".old")

    def _write_named(self, rendered: Rendered) -> None:
        for path, text in rendered.files:
            with contextlib.suppress(OSError):
                if path.read_text() == text:
                    continue
            self._write(path, text, 0o755 if path.parent == self._layout.checks else 0o600)

    def _write(self, path: Path, text: str, mode: int = 0o600) -> None:
        """Write the whole file beside the old one, make sure that it is on the disk, then take its name."""
        fresh = path.with_name(path.name + ".tmp")
        try:
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
            with os.fdopen(fd, "w") as file:
                file.write(text)
                file.flush()
                os.fchmod(fd, mode)
                os.fsync(fd)
            fresh.replace(path)
            self._sync_folder(path.parent)
        except OSError as fault:
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)
            raise _cannot("write", path, fault) from None

    @staticmethod
    def _sync_folder(folder: Path) -> None:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _cannot(what: str, path: Path, fault: OSError) -> RouterFault:
    return RouterFault(
        f"cannot {what} {path} ({fault.strerror}): free space there or make it writable, then try again;"
        " HAProxy goes on with the configuration it has"
    )
