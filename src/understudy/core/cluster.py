"""What the spec says of a stateful cluster, and what its engine can do. Frozen values; nothing decides here."""

from collections.abc import Iterable
from dataclasses import dataclass

from understudy.core.failover_mode import FailoverMode
from understudy.core.text import Name
from understudy.core.words import count


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a driver declares its engine can do. The table asks for these, never for an engine's name."""

    zero_loss_commit: bool
    """A write is acknowledged only after the asked number of standbys has it (sync quorum)."""
    revocation: bool
    """A standby can be made to stop acknowledging, durably, so that freezing enough of them silences the primary."""
    rewind: bool
    """Divergence can be undone in place; otherwise rejoining means rebuilding."""
    graceful_handover: bool
    """A primary can stop so that its standby provably has everything."""


@dataclass(frozen=True, slots=True)
class Node:
    """One engine process of the cluster. priority: higher is preferred among equals; 0 is never promoted."""

    name: Name
    host: Name
    priority: int = 1


@dataclass(frozen=True, slots=True)
class Durability:
    """What may be lost. max_loss_bytes None means nothing (zero_loss); acks is how many standbys must have a write."""

    max_loss_bytes: int | None = None
    acks: int = 1

    @property
    def zero_loss(self) -> bool:
        """Whether nothing that was acknowledged may be lost."""
        return self.max_loss_bytes is None

    def __str__(self) -> str:
        """As it stands in a sentence."""
        if self.max_loss_bytes is None:
            return f"zero_loss ({count(self.acks, 'standby')} must have a write)"
        return f"max_loss of {count(self.max_loss_bytes, 'byte')}"


@dataclass(frozen=True, slots=True)
class Timers:
    """The cluster's clocks, in milliseconds. The spec reader refuses what breaks `faults`."""

    lease_ms: int = 4000
    renew_ms: int = 1000
    timeout_ms: int = 1000
    margin_ms: int = 1000
    confirm_ms: int = 400
    """How long the witnesses must agree that the primary is lost; its own agent's word needs none."""
    hang_ms: int = 2000
    """How long a write probe may fail before the engine counts as hung."""
    report_ms: int = 400
    """How often the agent of the record's primary says that it lives; the others say so every `renew_ms`."""
    link_silent_ms: int = 1000
    """After how long without a message a replication link counts as silent."""
    drop_ms: int = 5000
    """How long a standby may be away before the commit rule does without it."""
    elector_drop_ms: int = 30_000
    """How long a node may be away before it no longer counts among those who promise."""
    elect_ms: int = 500
    """How long an election that allows loss waits for everybody who is heard."""
    promote_ms: int = 30_000
    """How long a promotion, crash recovery included, may take before another is tried, where there is one."""
    stall_ms: int = 600_000
    """How long an engine that starts, recovers or is promoted, or a copy that says how far it is, may show no progress
    before it is begun anew."""
    route_ms: int = 2000
    """How long the routers may take before we go on without them; they refuse lower epochs by themselves."""
    rejoin_ms: int = 60_000
    """How long `rejoining` waits for everybody before the cluster counts as steady."""
    handover_ms: int = 10_000
    """How long a switchover may hold clients before it is given up."""
    failback_ms: int = 60_000
    """How long all must have been well before a failback begins."""

    @classmethod
    def for_lease(cls, lease_ms: int, **others_ms: int) -> "Timers":
        """All that follow a lease of that length in the proportions that are simulated; others_ms: those that do not.

        What depends on an amount of work (a promotion, a rejoin, a switchover, a failback) keeps its default.
        """
        followers = {
            "renew_ms": lease_ms // 4,
            "timeout_ms": lease_ms // 4,
            "margin_ms": lease_ms // 4,
            "confirm_ms": lease_ms // 10,
            "hang_ms": lease_ms // 2,
            "report_ms": lease_ms // 10,
            "link_silent_ms": lease_ms // 4,
            "drop_ms": lease_ms * 5 // 4,
            "elector_drop_ms": lease_ms * 15 // 2,
            "elect_ms": lease_ms // 8,
            "route_ms": lease_ms // 2,
        }
        return cls(lease_ms=lease_ms, **{**followers, **others_ms})

    @property
    def slow_ms(self) -> int:
        """How long a write probe may fail on an engine that is alive by all other signs."""
        return 3 * self.hang_ms

    @property
    def stale_ms(self) -> int:
        """From which age the primary's report says nothing any more."""
        return 2 * self.report_ms

    @property
    def stale_other_ms(self) -> int:
        """From which age the report of another node says nothing any more."""
        return 2 * self.renew_ms + self.report_ms

    @property
    def lease_over_ms(self) -> int:
        """How long a contender must have seen the same counter: the lease and 0.1 % for clocks that drift apart."""
        return self.lease_ms + self.lease_ms // 1000 + 1

    @property
    def fence_ms(self) -> int:
        """How long proof and positions may take: a lease, promises of its length, and the reports of both."""
        return 2 * self.lease_over_ms + 2 * self.stale_other_ms

    def faults(self) -> tuple[str, ...]:
        """Every inequality that does not hold (docs/decisions/0010), each as a sentence."""
        faults = []
        needed = self.renew_ms + 2 * self.timeout_ms + self.margin_ms
        if needed > self.lease_ms:
            faults.append(
                f"renew + 2 x timeout + margin is {needed} ms and must not exceed the lease of {self.lease_ms} ms",
            )
        if min(self.lease_ms, self.renew_ms, self.timeout_ms, self.margin_ms, self.confirm_ms, self.hang_ms) <= 0:
            faults.append("every timer must be above zero")
        return tuple(faults)


@dataclass(frozen=True, slots=True)
class ClusterService:
    """A stateful service: nodes of which exactly one takes writes."""

    name: Name
    nodes: tuple[Node, ...]
    durability: Durability = Durability()
    mode: FailoverMode = FailoverMode.FAST
    timers: Timers = Timers()
    preferred: Name | None = None
    """Where the primary should be when all is well; None (the default) means wherever it is: no failback."""
    failback_every_s: int = 3600
    version: int = 0
    """Of the spec that says so; rises with every change, so that nobody takes an older one for the newer."""

    def node(self, name: str) -> Node | None:
        """The node of that name."""
        for node in self.nodes:
            if node.name == name:
                return node
        return None


def refusal(now: ClusterService, before: ClusterService | None, known: Iterable[Node] = ()) -> str:
    """Why an agent that has run `before` must not go on with `now`, as one sentence; empty when it may.

    `known` are the nodes that have left the spec and are not forgotten yet. Timers stay, since an agent rests on them
    for deadlines that are running; a node's name means one place for as long as anybody counts on it.
    """
    name = now.name
    if faults := now.timers.faults():
        return f"The timers of {name} cannot be kept: {'; '.join(faults)}; change them in the spec."
    if before is None or now == before:
        return ""
    if now.version <= before.version:
        return f"Version {now.version} of {name} came after version {before.version}; it is left aside."
    if now.timers != before.timers:
        return (
            f"The timers of {name} cannot change while its agent runs; restart the agents with the new spec, one after "
            "the other: the engines run on."
        )
    for node in (*before.nodes, *known):
        if (moved := now.node(node.name)) is not None and moved.host != node.host:
            return (
                f"{node.name} of {name} cannot move from {node.host} to {moved.host}; give the new node another name, "
                f"or wait until {node.name} has left the cluster."
            )
    return ""
