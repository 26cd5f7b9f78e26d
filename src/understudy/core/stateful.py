"""What the spec says of a stateful service beyond its cluster: where it is dialled, where its nodes are, who enters.

Frozen values. What every engine has in common is core/cluster.py's; how PostgreSQL is told any of it is its driver's.
"""

from dataclasses import dataclass

from understudy.core.cluster import ClusterService, Node
from understudy.core.text import Address, DataPath, Name, RoleName

MEBIBYTE = 1024 * 1024


def overlap(one: DataPath, other: DataPath) -> bool:
    """Whether two directories of one host are the same, or one is inside the other."""
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


@dataclass(frozen=True, slots=True)
class EngineNode:
    """One engine process: the node of the cluster, where it listens, and where it keeps its data."""

    node: Node
    address: Address
    """Where it listens, on its own host."""
    data: DataPath
    """The directory of its data: absolute, or below the folder `data` of the state directory of its host's agent."""

    @property
    def name(self) -> Name:
        """The name of the node."""
        return self.node.name


@dataclass(frozen=True, slots=True)
class Superuser:
    """The engine's superuser. password: where it is (`env:NAME`, `file:PATH`); empty when understudy draws one."""

    name: RoleName = RoleName("postgres")
    password: str = ""


@dataclass(frozen=True, slots=True)
class PostgresService:
    """A PostgreSQL cluster: one node takes writes, its standbys may be read from."""

    cluster: ClusterService
    write: Address
    """Where the router takes clients who write."""
    read: Address | None
    """Where it takes clients who only read; None when there is no such port."""
    nodes: tuple[EngineNode, ...]
    """Those of `cluster`, in the same order."""
    superuser: Superuser = Superuser()
    max_lag_bytes: int = 16 * MEBIBYTE
    """A standby that is further behind than this is not read from."""

    @property
    def name(self) -> Name:
        """The name of the service."""
        return self.cluster.name

    def node(self, name: str) -> EngineNode | None:
        """The node of that name."""
        return next((node for node in self.nodes if node.name == name), None)
