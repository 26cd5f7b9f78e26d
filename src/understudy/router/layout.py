"""Where a router keeps its files: paths only."""

from dataclasses import dataclass
from pathlib import Path

SOCKET_PATH_BYTES = 100
"""A unix socket's path may have 107 bytes; HAProxy adds a suffix while it binds."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of one HAProxy below one directory."""

    directory: Path

    @property
    def config(self) -> Path:
        """The configuration in force."""
        return self.directory / "haproxy.cfg"

    @property
    def candidate(self) -> Path:
        """A configuration under test."""
        return self.directory / "haproxy.cfg.new"

    @property
    def output(self) -> Path:
        """The named pipe that HAProxy prints into."""
        return self.directory / "haproxy.out"

    @property
    def admin_socket(self) -> Path:
        """The runtime socket of the worker."""
        return self.directory / "admin.sock"

    @property
    def master_socket(self) -> Path:
        """The socket of the master process."""
        return self.directory / "master.sock"

    @property
    def server_state(self) -> Path:
        """The servers' state that a new worker begins with; written by us, never by HAProxy."""
        return self.directory / "servers.state"

    @property
    def maps(self) -> Path:
        """Folder of map files."""
        return self.directory / "maps"

    @property
    def checks(self) -> Path:
        """Folder of the wrappers for command checks."""
        return self.directory / "checks"

    @property
    def hold_script(self) -> Path:
        """What HAProxy runs where new connections to a cluster have to wait."""
        return self.directory / "hold.lua"

    @property
    def followed(self) -> Path:
        """Which route of each cluster was followed last."""
        return self.directory / "followed.json"
