"""Whether nodes can be taken care of as they are: asked before anything of theirs is touched, every fault at once."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from understudy.core.errors import Refused
from understudy.core.text import Name
from understudy.core.words import listed


class Claimed(Protocol):
    """A node's right to its data."""

    def fault(self) -> str:
        """Why the data are not to be had; empty when they are. Changes nothing."""
        ...

    def held(self) -> bool:
        """Whether an agent has taken it before."""
        ...

    def take(self) -> None:
        """Have it, until `close`. Raises Refused."""
        ...

    def close(self) -> None:
        """Let another agent have it, for the same node."""
        ...

    def give_up(self) -> None:
        """Let any node have it."""
        ...


class Checked(Protocol):
    """A driver that can look at its node's data while nothing runs on them."""

    async def check(self) -> tuple[str, ...]:
        """Why the node cannot be taken care of as it is, a sentence each; nothing is touched by it."""
        ...

    async def database(self) -> str:
        """Which database its data are of, as an id of the engine's; empty without data, or when it cannot be told."""
        ...


class Applicant(Protocol):
    """One node of this host."""

    @property
    def name(self) -> Name:
        """The node's."""
        ...

    @property
    def driver(self) -> Checked:
        """What can look."""
        ...

    @property
    def claim(self) -> Claimed:
        """Its right to its data."""
        ...


async def refuse_unfit(nodes: Sequence[Applicant], there: Sequence[Applicant] = ()) -> None:
    """Raise Refused, with a sentence for each fault, unless all these nodes of one cluster can be taken care of.

    `there` are nodes of the same cluster that this agent takes care of already.
    """
    claims = [claim for node in nodes if (claim := node.claim.fault())]
    if claims:
        raise Refused("\n".join(claims))  # what else is wrong there is another's business
    faults = [fault for node in nodes for fault in await node.driver.check()]
    if not faults and not all(node.claim.held() for node in nodes):  # what becomes of old ones, the cluster mends
        faults += _strange({node.name: await node.driver.database() for node in (*there, *nodes)})
    if faults:
        raise Refused("\n".join(faults))


def _strange(databases: Mapping[Name, str]) -> list[str]:
    """What does not fit between nodes that have data."""
    clusters: dict[str, list[str]] = {}
    for name, database in databases.items():
        if database:
            clusters.setdefault(database, []).append(name)
    if len(clusters) < 2:
        return []
    parts = "; ".join(f"{listed(names)}: {database}" for database, names in clusters.items())
    cure = "name other directories for those that are wrong, or empty them to have them copied"
    return [f"the nodes hold data of different clusters ({parts}): {cure}"]
