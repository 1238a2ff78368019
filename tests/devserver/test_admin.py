"""The development routes: faults over HTTP, request counts, planted defects."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.devserver.exports import SPAN_ID, TRACE_ID, export, span

OBSERVATION = f"/dev/langfuse/{TRACE_ID}/{SPAN_ID}"
SPAN = f"/dev/otlp/{TRACE_ID}/{SPAN_ID}"
GROUPS = "core,basic,time,io,metadata,model,usage,prompt,metrics,trace_context"


@pytest.fixture
def stored(client: httpx.Client) -> httpx.Client:
    """A client of a backend that holds one span on both sides."""
    attributes = {
        "langfuse.observation.output": "right",
        "langfuse.observation.metadata.k": "v",
        "langfuse.observation.metadata.other": "o",
    }
    for route in ("/api/public/otel/v1/traces", "/v1/traces"):
        client.post(route, json=export(span(attributes))).raise_for_status()
    return client


def observation(client: httpx.Client) -> dict[str, Any]:
    (row,) = client.get("/api/public/v2/observations", params={"fields": GROUPS}).json()["data"]
    return dict(row)


def otlp_span(client: httpx.Client) -> dict[str, Any]:
    (resource,) = client.get(f"/api/v3/traces/{TRACE_ID}").json()["result"]["resourceSpans"]
    return dict(resource["scopeSpans"][0]["spans"][0])


def test_faults_are_set_read_and_cleared_over_http(client: httpx.Client) -> None:
    plan = {"faults": [{"route": "GET /api/public/*", "status": 503, "times": 1}]}
    assert client.put("/dev/faults", json=plan).json()["faults"] == plan["faults"]
    assert client.get("/api/public/health").status_code == 503
    assert client.get("/dev/faults").json() == plan | {"struck": [1], "held": 0}
    assert client.delete("/dev/faults").json()["faults"] == []


def test_a_wrong_plan_is_refused_and_changes_nothing(client: httpx.Client) -> None:
    answer = client.put("/dev/faults", json={"faults": [{"status": 200}]})
    assert answer.status_code == 400
    assert "status is 200" in answer.json()["message"]
    assert client.get("/dev/faults").json()["faults"] == []


def test_request_counts_are_read_and_reset(client: httpx.Client) -> None:
    client.get("/api/public/health")
    assert client.get("/dev/requests").json() == {"GET /api/public/health": 1}
    client.delete("/dev/requests")
    assert client.get("/dev/requests").json() == {}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("output", "wrong"),
        ("name", "wrong"),
        ("type", "TOOL"),
        ("startTime", "2020-01-01T00:00:00.000Z"),
        ("parentObservationId", "00000000000000aa"),
        ("usageDetails", {"input": 1, "total": 1}),
        ("tags", ["wrong"]),
        ("userId", "wrong"),
    ],
)
def test_a_field_of_an_observation_can_be_changed(stored: httpx.Client, field: str, value: Any) -> None:
    before = observation(stored)
    assert stored.patch(OBSERVATION, json={field: value}).json() == {"changed": 1}
    after = observation(stored)
    assert after[field] == value
    derived = {"latency", "inputUsage", "outputUsage", "totalUsage"}
    assert {key for key in after if after[key] != before[key]} - derived == {field}


def test_metadata_is_changed_key_by_key(stored: httpx.Client) -> None:
    stored.patch(OBSERVATION, json={"metadata": {"k": {"new": 1}, "other": None, "more": "m"}})
    metadata = observation(stored)["metadata"]
    assert (metadata["k"], metadata["more"], "other" in metadata) == ({"new": 1}, "m", False)


@pytest.mark.parametrize("change", [{"nonsense": 1}, {"startTime": "yesterday"}, {"id": "x"}])
def test_what_cannot_be_changed_is_refused(stored: httpx.Client, change: dict[str, Any]) -> None:
    assert stored.patch(OBSERVATION, json=change).status_code == 400


def test_a_span_can_be_changed(stored: httpx.Client) -> None:
    change = {
        "name": "wrong",
        "attributes": {"langfuse.observation.output": 5, "langfuse.observation.metadata.k": None},
        "status": {"code": 2, "message": "no"},
        "startTimeUnixNano": 1_760_000_000_000_000_000,
    }
    assert stored.patch(SPAN, json=change).json() == {"changed": 1}
    changed = otlp_span(stored)
    attributes = {item["key"]: item["value"] for item in changed["attributes"]}
    assert attributes["langfuse.observation.output"] == {"intValue": "5"}
    assert "langfuse.observation.metadata.k" not in attributes
    assert (changed["name"], changed["status"]) == ("wrong", {"message": "no", "code": 2})
    assert changed["startTimeUnixNano"] == "1760000000000000000"


def test_a_changed_attribute_is_found_by_its_new_value_only(stored: httpx.Client) -> None:
    def found(value: str) -> bool:
        window = {"query.startTimeMin": "2000-01-01T00:00:00Z", "query.startTimeMax": "2100-01-01T00:00:00Z"}
        wanted = {"query.attributes": json.dumps({"langfuse.observation.output": value})}
        return stored.get("/api/v3/traces", params=window | wanted).status_code == 200

    assert (found("right"), found("[5]")) == (True, False)
    stored.patch(SPAN, json={"attributes": {"langfuse.observation.output": [5]}})
    assert (found("right"), found("[5]")) == (False, True)


@pytest.mark.parametrize("change", [{"nonsense": 1}, {"parentSpanId": "xyz"}, {"status": {"code": 9}}, {"kind": "x"}])
def test_a_senseless_change_of_a_span_is_refused(stored: httpx.Client, change: dict[str, Any]) -> None:
    assert stored.patch(SPAN, json=change).status_code == 400


def test_one_side_can_be_removed_without_the_other(stored: httpx.Client) -> None:
    assert stored.delete(OBSERVATION).json() == {"changed": 1}
    assert stored.get("/api/public/v2/observations").json()["data"] == []
    assert otlp_span(stored)["spanId"] == SPAN_ID
    assert stored.delete(SPAN).json() == {"changed": 1}
    assert stored.get(f"/api/v3/traces/{TRACE_ID}").status_code == 404


@pytest.mark.parametrize("path", [OBSERVATION, SPAN])
@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_what_is_not_stored_is_404(client: httpx.Client, path: str, method: str) -> None:
    assert client.request(method, path, json={"name": "x"}).status_code == 404
