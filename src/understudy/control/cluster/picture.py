"""From what an agent sees of a cluster to the view model. Pure arithmetic over values; no effects."""

from understudy.control.view import ClusterStatus, LastFailover, NodeStatus
from understudy.core.cluster_why import cluster_health, cluster_reason, lag_bytes, node_health, node_reason, warnings
from understudy.core.health import fresh
from understudy.core.record import ClusterRecord, Ground, wanted_sync
from understudy.core.report import ClusterView, Running
from understudy.core.stateful import EngineNode, PostgresService


def cluster_status(
    service: PostgresService, view: ClusterView, steward: str | None, without_store: str
) -> ClusterStatus:
    """One cluster, as this agent sees it.

    steward: the host that decides at the moment. without_store: what is so while the store is silent; empty otherwise.
    """
    record = view.record
    return ClusterStatus(
        name=service.name,
        kind="postgres",
        write=str(service.write),
        read=str(service.read) if service.read else None,
        health=cluster_health(view),
        phase=record.phase if record else "unborn",
        epoch=record.epoch if record else 0,
        primary=record.primary if record else None,
        durability=_durability(view),
        steward=steward,
        nodes=tuple(_node_status(node, view) for node in service.nodes),
        last_failover=_last_failover(record) if record else None,
        unblock=record.blocked.command if record and record.blocked else None,
        reason=without_store or cluster_reason(view),
        warnings=warnings(view),
    )


def _durability(view: ClusterView) -> str:
    durability = view.service.durability
    if durability.zero_loss:
        return f"zero_loss, {durability.acks} of the standbys"
    return f"max_loss {durability.max_loss_bytes} bytes"


def _node_status(node: EngineNode, view: ClusterView) -> NodeStatus:
    record, report = view.record, view.report(node.name)
    duty = record.duty(node.name) if record else None
    position = report.position if report else None
    return NodeStatus(
        name=node.name,
        host=node.node.host,
        address=str(node.address),
        role=duty.kind if duty else "none",
        health=node_health(view, node.name),
        running=report.running if report and fresh(view, node.name) else Running.UNKNOWN,
        timeline=position.branches[-1].id if position else "",
        position=str(position) if position else "",
        lag_bytes=lag_bytes(view, node.name),
        sync=record is not None and node.name in wanted_sync(record).voters,
        follows=report.streaming_from if report else None,
        reason=node_reason(view, node.name),
    )


def _last_failover(record: ClusterRecord) -> LastFailover | None:
    took = record.timings
    born = record.ground in {None, Ground.FIRST}
    if record.primary is None or record.loss is None or born:
        return None
    return LastFailover(
        epoch=record.epoch,
        detect_s=took.detect_ms / 1000,
        confirm_s=took.confirm_ms / 1000,
        fence_s=took.fence_ms / 1000,
        promote_s=took.promote_ms / 1000,
        route_s=took.route_ms / 1000,
        lost_bytes=record.loss.bytes,
        loss=record.loss.reason,
    )
