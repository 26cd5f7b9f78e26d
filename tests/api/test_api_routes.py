"""The HTTP API over a fake operator: what goes out, what gets in, and what is refused how."""

import json

import pytest
from fastapi.testclient import TestClient
from tests.api.fake_operator import FakeOperator

from understudy.api.app import create_app
from understudy.api.gate import BODY_MAX_BYTES
from understudy.core.errors import Fault, Refused
from understudy.core.events import EventKind
from understudy.core.pools import Admin

BASE = "http://127.0.0.1:8600"
V1 = "/api/v1"


@pytest.fixture
def operator():
    return FakeOperator()


@pytest.fixture
def client(operator):
    return TestClient(create_app(operator), base_url=BASE, raise_server_exceptions=False)


def test_status_is_the_view_model(client):
    """The status goes out field by field as the view model has it."""
    status = client.get(f"{V1}/status").json()
    assert (status["cluster"], status["version"], status["router"]["pid"]) == ("shop", 3, 4711)
    web = status["services"][0]
    assert (web["health"], web["kind"], web["objectives"]["mttr_s"]) == ("up", "http", 1.8)
    assert web["endpoints"][1]["name"] == "w2"
    assert web["endpoints"][1]["oper"] == "up"


def test_events_are_paged_and_flat(client, operator):
    """Entries come oldest first, after a number or the newest ones, with their data by key."""
    for number in range(5):
        operator.note(EventKind.ENDPOINT_DOWN, f"fact {number}", "web" if number % 2 else None, wait_ms=number)
    newest = client.get(f"{V1}/events", params={"limit": 2}).json()
    assert [entry["number"] for entry in newest] == [4, 5]
    assert newest[0] == {
        "number": 4,
        "wall_s": newest[0]["wall_s"],
        "kind": "endpoint.down",
        "service": "web",
        "subject": None,
        "reason": "fact 3",
        "data": {"wait_ms": 3},
    }
    assert [e["number"] for e in client.get(f"{V1}/events", params={"after": 1, "limit": 2}).json()] == [2, 3]
    assert [e["number"] for e in client.get(f"{V1}/events", params={"service": "web"}).json()] == [2, 4]


def test_stream_resumes_filters_and_ends(client, operator):
    """The stream begins above Last-Event-ID, keeps to the service, and ends with the journal."""
    for number in range(1, 6):
        operator.note(EventKind.SERVICE_UP, f"fact {number}", "web" if number != 4 else "api")
    operator.news.put_nowait(None)
    answer = client.get(f"{V1}/events/stream", params={"service": "web"}, headers={"Last-Event-ID": "2"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    frames = [dict(line.split(": ", 1) for line in frame.splitlines()) for frame in answer.text.split("\n\n")[:-1]]
    assert [frame["id"] for frame in frames] == ["3", "5"]
    assert json.loads(frames[0]["data"])["reason"] == "fact 3"


@pytest.mark.parametrize(
    ("path", "body", "asked"),
    [
        ("services/web/endpoints/w1/admin", {"admin": "drain"}, ("admin", "web", "w1", Admin.DRAIN)),
        ("services/web/endpoints/w1/weight", {"weight": 0}, ("weight", "web", "w1", 0)),
        ("services/web/failover", {}, ("failover", "web")),
        ("services/web/failback", {}, ("failback", "web")),
        ("plan", {"text": "cluster: shop"}, ("plan", "web", "cluster: shop")),
        ("apply", {"text": "cluster: shop"}, ("apply", "web", "cluster: shop")),
        ("rollback", {"to_version": 2}, ("rollback", "web", 2)),
        ("rollback", {}, ("rollback", "web", None)),
    ],
)
def test_verbs_reach_the_operator(client, operator, path, body, asked):
    """Each verb hands exactly its arguments on, answers 200, and refuses a field that it does not know."""
    answer = client.post(f"{V1}/{path}", json=body)
    assert answer.status_code == 200, answer.text
    assert operator.asked == [asked]
    refused = client.post(f"{V1}/{path}", json=body | {"force": True})
    assert refused.status_code == 422
    assert "force" in refused.json()["reason"]
    assert operator.asked == [asked]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("services/web/endpoints/w1/weight", {"weight": 257}),
        ("services/web/endpoints/w1/weight", {"weight": "3"}),
        ("services/web/endpoints/w1/weight", {"weight": True}),
        ("services/web/endpoints/w1/admin", {"admin": "off"}),
        ("apply", {}),
        ("apply", {"text": None}),
        ("rollback", {"to_version": 0}),
        ("services/web/failover", []),
    ],
)
def test_wrong_values_do_not_reach_the_operator(client, operator, path, body):
    """A value of the wrong type or range gets 422 with a reason."""
    answer = client.post(f"{V1}/{path}", json=body)
    assert answer.status_code == 422
    assert answer.json()["reason"].startswith("the request does not say what is needed")
    assert operator.asked == []


def test_refusals_by_cause(client, operator):
    """404 for what is not there, 409 for a refusal, 503 for a fault outside, each with the operator's sentence."""
    drain = {"admin": "drain"}
    for path in ("services/api/endpoints/w1/admin", "services/web/endpoints/w9/admin"):
        answer = client.post(f"{V1}/{path}", json=drain)
        assert answer.status_code == 404, path
    assert "no endpoint 'w9'" in answer.json()["reason"]
    assert client.get(f"{V1}/services/api/why").status_code == 404
    for fault, status in ((Refused("web has no backup group"), 409), (Fault("the disk is full"), 503)):
        operator.fault = fault
        answer = client.post(f"{V1}/services/web/failover", json={})
        assert (answer.status_code, answer.json()) == (status, {"reason": str(fault)})


def test_an_unforeseen_error_tells_no_details(client, operator):
    """An error of ours is a 500 with one sentence; what it was stays in the log."""
    operator.fault = RuntimeError("secret detail")
    answer = client.get(f"{V1}/status")
    assert answer.status_code == 500
    assert "log" in answer.json()["reason"]
    assert "secret" not in answer.text


def test_unknown_paths_and_methods_get_a_reason(client):
    """What is not part of the API gets 404 or 405, and is told where the API is described."""
    assert client.get("/nothing").status_code == 404
    answer = client.delete(f"{V1}/status", headers={"Content-Type": "application/json", "Content-Length": "0"})
    assert answer.status_code == 405
    assert "openapi.json" in answer.json()["reason"]


@pytest.mark.parametrize("host", ["evil.example:8600", "127.0.0.1.evil.example", "localhost.evil", "", "[::1", "a:b:c"])
def test_foreign_host_names_are_refused(client, host):
    """A page that made its own name resolve to this host reads nothing (DNS rebinding)."""
    for path in (f"{V1}/status", "/metrics", f"{V1}/openapi.json"):
        assert client.get(path, headers={"Host": host}).status_code == 403


@pytest.mark.parametrize("host", ["127.0.0.1:8600", "localhost", "LOCALHOST:8600", "[::1]:8600", "10.0.0.7"])
def test_addresses_of_this_host_are_served(client, host):
    """Addresses and localhost are nobody's domain."""
    assert client.get(f"{V1}/status", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; b=x"])
def test_a_form_cannot_order_anything(client, operator, kind):
    """A body that a browser would post across sites without asking is refused (CSRF)."""
    headers = {"Content-Type": kind} if kind else {}
    answer = client.post(f"{V1}/services/web/failover", content=b"{}", headers=headers)
    assert answer.status_code == 415
    assert operator.asked == []


def test_bodies_are_bounded(client, operator):
    """A body that is too long, or of unknown length, is refused before it is read."""
    json_kind = {"Content-Type": "application/json"}
    large = client.post(f"{V1}/apply", content=b" " * (BODY_MAX_BYTES + 1), headers=json_kind)
    assert large.status_code == 413
    chunked = client.post(f"{V1}/apply", content=iter([b"{}"]), headers=json_kind)
    assert chunked.status_code == 411
    assert operator.asked == []


def test_openapi_describes_what_there_is(client):
    """Every route is described with its error answers, and no page that loads foreign scripts is served."""
    document = client.get(f"{V1}/openapi.json").json()
    assert document["info"]["title"] == "understudy"
    routes = {(method, path) for path, methods in document["paths"].items() for method in methods}
    assert ("post", f"{V1}/services/{{service}}/endpoints/{{endpoint}}/admin") in routes
    assert ("get", "/metrics") in routes
    weight = document["paths"][f"{V1}/services/{{service}}/endpoints/{{endpoint}}/weight"]["post"]
    assert {"200", "404", "409", "422", "503"} <= set(weight["responses"])
    assert document["components"]["schemas"]["WeightOrder"]["properties"]["weight"]["maximum"] == 256
    assert all(operation.get("description") for path in document["paths"].values() for operation in path.values())
    assert client.get("/docs").status_code == 404
