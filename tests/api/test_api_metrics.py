"""What Prometheus reads of a status."""

from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families as parse
from tests.api.fake_operator import FakeOperator, cluster, endpoint, service

from understudy.api.app import create_app
from understudy.core.objectives import Objectives, ServiceHealth
from understudy.core.pools import Oper

ILL = service(
    "orders",
    ServiceHealth.DEGRADED,
    (endpoint("a"), endpoint("b", Oper.DOWN, effective_weight=0, held_until_wall_s=1.0, sessions=0)),
    objectives=Objectives(0.0, 10.0, 100.0, 0, None, None, 7, 0),
    backup_share_percent=25,
)


def scrape():
    operator = FakeOperator(services=(service(), ILL), clusters=(cluster("ledger"),))
    client = TestClient(create_app(operator), base_url="http://127.0.0.1")
    return client.get("/metrics")


def test_every_figure_of_the_view_model_is_there():
    """Each figure has its value under its labels; what is not known yet has no sample."""
    families = {family.name: family for family in parse(scrape().text)}
    value = {(s.name, *s.labels.values()): s.value for family in families.values() for s in family.samples}
    assert value["understudy_service_health", "degraded", "orders"] == 1
    assert ("understudy_service_health", "up", "orders") not in value
    assert value["understudy_service_availability_ratio", "web"] == 0.9995
    assert value["understudy_service_mttr_seconds", "web"] == 1.8
    assert value["understudy_service_mtbf_seconds", "web"] == 3600
    assert ("understudy_service_mttr_seconds", "orders") not in value
    assert value["understudy_service_failures_total", "web"] == 2
    assert value["understudy_service_failed_requests_total", "web"] == 1
    assert value["understudy_service_backup_share_ratio", "orders"] == 0.25
    assert value["understudy_endpoint_up", "b", "orders"] == 0
    assert value["understudy_endpoint_state", "b", "orders", "down"] == 1
    assert value["understudy_endpoint_ejected", "b", "orders"] == 1
    assert value["understudy_endpoint_sessions", "w1", "web"] == 3
    assert value["understudy_endpoint_requests_total", "w1", "web"] == 1200
    assert value["understudy_cluster_phase", "steady", "ledger"] == 1
    assert value["understudy_cluster_writable", "ledger"] == 1
    assert round(value["understudy_cluster_failover_seconds", "ledger"], 3) == 0.15
    assert value["understudy_node_primary", "a", "ledger"] == 1
    assert value["understudy_node_lag_bytes", "c", "ledger"] == 120
    assert value["understudy_router_workers",] == 1
    (agent,) = families["understudy_agent_info"].samples
    assert agent.labels["cluster"] == "shop"


def test_types_and_help_follow_the_conventions():
    """What only rises is a counter, each family has a help text, and the content type names the format."""
    answer = scrape()
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = list(parse(answer.text))
    assert all(family.documentation for family in families)
    assert {f.name for f in families if f.type == "counter"} == {
        "understudy_service_failures",
        "understudy_service_requests",
        "understudy_service_failed_requests",
        "understudy_endpoint_requests",
        "understudy_endpoint_errors",
    }
