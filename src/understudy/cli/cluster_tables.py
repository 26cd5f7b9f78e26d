"""A cluster in the status: who is what, how far, what the last failover took. From the view model to rich's values."""

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from understudy.cli.styles import STYLES
from understudy.cli.words import duration, number, plain
from understudy.control.view import ClusterStatus, LastFailover, NodeStatus
from understudy.core.cluster_why import NodeHealth
from understudy.core.objectives import ServiceHealth

WIDE = 100
"""The narrowest terminal that shows addresses and positions."""


def cluster_view(cluster: ClusterStatus, width: int) -> Iterator[Text | Table]:
    """The cluster for a terminal of that many columns."""
    read = f", reads on {cluster.read}" if cluster.read else ""
    title = Text.assemble((cluster.name, "bold"), f"  {cluster.kind}, writes on {cluster.write}{read}  ")
    yield title.append(cluster.health.upper(), STYLES[cluster.health])
    steward = f", steward {cluster.steward}" if cluster.steward else ""
    yield Text(f"  {cluster.phase}, epoch {cluster.epoch}, {cluster.durability}{steward}", "dim")
    if cluster.health is not ServiceHealth.UP:
        yield Text(f"  {plain(cluster.reason)}", "yellow")
    yield _nodes(cluster.nodes, width)
    for node in cluster.nodes:
        if node.health is not NodeHealth.UP:
            yield Text(f"  {plain(node.reason)}", "yellow")
    for warning in cluster.warnings:
        yield Text(f"  {plain(warning)}.", "yellow")
    if cluster.last_failover is not None:
        yield Text(f"  {last_failover_line(cluster.last_failover)}", "dim")


def last_failover_line(last: LastFailover) -> str:
    """What the last change of primary took, by its steps, and lost."""
    steps = {
        "detect": last.detect_s,
        "confirm": last.confirm_s,
        "fence": last.fence_s,
        "promote": last.promote_s,
        "route": last.route_s,
    }
    split = ", ".join(f"{name} {duration(took_s)}" for name, took_s in steps.items())
    lost = "not known" if last.lost_bytes is None else f"{number(last.lost_bytes)} bytes"
    return f"epoch {last.epoch} began after {duration(last.took_s)} ({split}); lost: {lost} ({plain(last.loss)})"


def _nodes(nodes: tuple[NodeStatus, ...], width: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    wide = width >= WIDE
    for title, right in _columns(wide=wide):
        table.add_column(title, justify="right" if right else "left", no_wrap=True)
    for node in nodes:
        lag = "?" if node.lag_bytes is None else number(node.lag_bytes)
        sync = "sync" if node.sync else ""
        health = Text(node.health, STYLES[node.health])
        more = (node.host, node.address, node.position) if wide else ()
        table.add_row(f"  {node.name}", node.role, health, lag, sync, node.timeline, *more)
    return table


def _columns(*, wide: bool) -> Iterator[tuple[str, bool]]:
    yield from (("  node", False), ("role", False), ("health", False), ("lag_bytes", True), ("", False))
    yield ("timeline", False)
    if wide:
        yield from (("host", False), ("address", False), ("position", False))
