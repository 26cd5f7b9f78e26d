"""The view model as Prometheus metrics: one table says which figure comes from where. No I/O, no state of its own."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from understudy.control.view import ClusterStatus, EndpointStatus, NodeStatus, ServiceStatus, Status
from understudy.core.cluster_why import NodeHealth
from understudy.core.objectives import ServiceHealth
from understudy.core.pools import Oper

Subject = TypeVar("Subject", Status, ServiceStatus, EndpointStatus, ClusterStatus, NodeStatus)
Family = type[GaugeMetricFamily] | type[CounterMetricFamily]


@dataclass(frozen=True, slots=True)
class Figure(Generic[Subject]):
    """One metric family: its type, name and help text, and how to read its value; None leaves the sample out."""

    family: Family
    name: str
    help: str
    value: Callable[[Subject], float | None]


CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

GAUGE, COUNTER = GaugeMetricFamily, CounterMetricFamily

AGENT: tuple[Figure[Status], ...] = (
    Figure(GAUGE, "understudy_agent_start_time_seconds", "When the agent started, in seconds since the epoch.",
           lambda status: status.started_wall_s),
    Figure(GAUGE, "understudy_spec_version", "Number of the version of the spec that is in force.",
           lambda status: status.version),
    Figure(GAUGE, "understudy_router_up", "1 when the router on this host answers and does what is desired, else 0.",
           lambda status: status.router.healthy),
    Figure(GAUGE, "understudy_router_workers",
           "Worker processes of the router, those counted too that finish old connections after a reload.",
           lambda status: status.router.workers),
)  # fmt: skip

SERVICE: tuple[Figure[ServiceStatus], ...] = (
    Figure(GAUGE, "understudy_service_up", "1 when the service serves its clients, be it degraded, else 0.",
           lambda service: service.health in (ServiceHealth.UP, ServiceHealth.DEGRADED)),
    Figure(GAUGE, "understudy_service_backup_share_ratio",
           "Share of the traffic that goes to the backup group, 0 to 1.",
           lambda service: service.backup_share_percent / 100),
    Figure(GAUGE, "understudy_service_availability_ratio",
           "Share of the observed time in which the service served its clients, 0 to 1.",
           lambda service: service.objectives.availability_percent / 100),
    Figure(GAUGE, "understudy_service_observed_seconds", "Length of the time that the availability is about.",
           lambda service: service.objectives.observed_s),
    Figure(GAUGE, "understudy_service_mttr_seconds",
           "Mean time from a failure of the service to its recovery; absent until there was one.",
           lambda service: service.objectives.mttr_s),
    Figure(GAUGE, "understudy_service_mtbf_seconds",
           "Mean time from one failure of the service to the next; absent until there was one.",
           lambda service: service.objectives.mtbf_s),
    Figure(COUNTER, "understudy_service_failures_total", "How often the service stopped serving its clients.",
           lambda service: service.objectives.failures),
    Figure(COUNTER, "understudy_service_requests_total", "Requests (http) or connections (tcp) of clients.",
           lambda service: service.objectives.requests),
    Figure(COUNTER, "understudy_service_failed_requests_total",
           "Those of them that got no good answer after all retries.",
           lambda service: service.objectives.failed_requests),
)  # fmt: skip

ENDPOINT: tuple[Figure[EndpointStatus], ...] = (
    Figure(GAUGE, "understudy_endpoint_up", "1 when the endpoint takes new work, else 0.",
           lambda endpoint: endpoint.oper in (Oper.UP, Oper.STARTING)),
    Figure(GAUGE, "understudy_endpoint_ejected", "1 while the ejector holds the endpoint out for misbehaving, else 0.",
           lambda endpoint: endpoint.held_until_wall_s is not None),
    Figure(GAUGE, "understudy_endpoint_weight", "Weight of the endpoint as it stands in the router now.",
           lambda endpoint: endpoint.effective_weight),
    Figure(GAUGE, "understudy_endpoint_sessions", "Sessions open on the endpoint.",
           lambda endpoint: endpoint.sessions),
    Figure(GAUGE, "understudy_endpoint_queued", "Requests that wait for the endpoint.",
           lambda endpoint: endpoint.queued),
    Figure(COUNTER, "understudy_endpoint_requests_total", "Requests (http) or connections (tcp) sent to the endpoint.",
           lambda endpoint: endpoint.requests),
    Figure(COUNTER, "understudy_endpoint_errors_total",
           "Failed connections, broken answers and answers of class 5xx of the endpoint.",
           lambda endpoint: endpoint.errors),
)  # fmt: skip


CLUSTER: tuple[Figure[ClusterStatus], ...] = (
    Figure(GAUGE, "understudy_cluster_writable", "1 when the cluster's primary takes writes, else 0.",
           lambda cluster: cluster.health in (ServiceHealth.UP, ServiceHealth.DEGRADED)),
    Figure(GAUGE, "understudy_cluster_epoch", "Number of the cluster's epoch: +1 with each new primary.",
           lambda cluster: cluster.epoch),
    Figure(GAUGE, "understudy_cluster_blocked", "1 while a person must decide, else 0.",
           lambda cluster: cluster.unblock is not None),
    Figure(GAUGE, "understudy_cluster_failover_seconds", "How long the last failover or switchover took in all.",
           lambda cluster: cluster.last_failover.took_s if cluster.last_failover else None),
    Figure(GAUGE, "understudy_cluster_lost_bytes", "What the last failover lost; absent when that is not known.",
           lambda cluster: cluster.last_failover.lost_bytes if cluster.last_failover else None),
)  # fmt: skip

NODE: tuple[Figure[NodeStatus], ...] = (
    Figure(GAUGE, "understudy_node_up", "1 when the node is believed to be up, else 0.",
           lambda node: node.health is NodeHealth.UP),
    Figure(GAUGE, "understudy_node_primary", "1 for the primary, else 0.", lambda node: node.role == "primary"),
    Figure(GAUGE, "understudy_node_sync", "1 when commits count on the node, else 0.", lambda node: node.sync),
    Figure(GAUGE, "understudy_node_lag_bytes",
           "How much of the primary's history the node lacks; absent when that is not known.",
           lambda node: node.lag_bytes),
)  # fmt: skip


def families(status: Status, agent_version: str) -> Iterator[Metric]:
    """Every metric family of the status, one after the other, each complete with its help text."""
    agent = {"cluster": status.cluster, "version": agent_version}
    yield InfoMetricFamily("understudy_agent", "Which cluster and which release of understudy this is.", agent)
    for figure in AGENT:
        yield _family(figure, [], [([], status)])

    services = [([service.name], service) for service in status.services]
    yield _state(
        "understudy_service_health",
        "1 for the health that the service is in: up, degraded, down or unknown.",
        ["service", "health"],
        ([*labels, service.health] for labels, service in services),
    )
    for of_service in SERVICE:
        yield _family(of_service, ["service"], services)

    endpoints = [([service.name, each.name], each) for service in status.services for each in service.endpoints]
    yield _state(
        "understudy_endpoint_state",
        "1 for the state that the endpoint is in: up, starting, down, drain, maint or unknown.",
        ["service", "endpoint", "state"],
        ([*labels, endpoint.oper] for labels, endpoint in endpoints),
    )
    for of_endpoint in ENDPOINT:
        yield _family(of_endpoint, ["service", "endpoint"], endpoints)
    yield from _of_clusters(status)


def _of_clusters(status: Status) -> Iterator[Metric]:
    clusters = [([each.name], each) for each in status.clusters]
    yield _state(
        "understudy_cluster_phase",
        "1 for the phase in which the cluster's failover stands.",
        ["service", "phase"],
        ([*labels, cluster.phase] for labels, cluster in clusters),
    )
    for of_cluster in CLUSTER:
        yield _family(of_cluster, ["service"], clusters)
    nodes = [([cluster.name, each.name], each) for cluster in status.clusters for each in cluster.nodes]
    for of_node in NODE:
        yield _family(of_node, ["service", "node"], nodes)


def exposition(status: Status, agent_version: str) -> Iterator[bytes]:
    """The status in Prometheus' text format (CONTENT_TYPE), a family at a time, so that a large cluster stays small."""
    for family in families(status, agent_version):
        yield generate_latest(_Only(family))


@dataclass(frozen=True, slots=True)
class _Only(Collector):
    """One family, in the shape that the encoder takes."""

    family: Metric

    def collect(self) -> Iterator[Metric]:
        """That family."""
        yield self.family


def _family(figure: Figure[Subject], labels: list[str], subjects: Iterable[tuple[list[str], Subject]]) -> Metric:
    """The samples of one figure for all of its subjects."""
    family = figure.family(figure.name, figure.help, labels=labels)
    for label_values, subject in subjects:
        value = figure.value(subject)
        if value is not None:
            family.add_metric(label_values, float(value))
    return family


def _state(name: str, text: str, labels: list[str], states: Iterable[list[str]]) -> Metric:
    """A gauge that is 1 for the state that holds; the other states have no sample, which keeps large clusters small."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for label_values in states:
        family.add_metric(label_values, 1.0)
    return family
