"""No request makes the development backend fail: it answers as the real ones do, or refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.devserver.exports import END_NS, SPAN_ID, START_NS, TRACE_ID
from tracebridge.devserver import DevServer

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(
    [
        "langfuse.observation.usage_details",
        "langfuse.observation.cost_details",
        "langfuse.observation.model.parameters",
        "langfuse.observation.model.name",
        "langfuse.observation.metadata",
        "langfuse.observation.completion_start_time",
        "langfuse.observation.prompt.version",
        "langfuse.observation.type",
        "langfuse.environment",
        "langfuse.trace.tags",
        "gen_ai.usage.input_tokens",
        "gen_ai.operation.name",
        "user.id",
        "anything",
    ]
)
VALUES = st.one_of(
    JSON,
    st.builds(lambda value: {"stringValue": value}, st.text() | JSON.map(json.dumps)),
    st.builds(lambda value: {"intValue": value}, st.integers() | st.integers().map(str)),
    st.builds(lambda value: {"doubleValue": value}, st.floats(allow_nan=False, allow_infinity=False)),
    st.builds(lambda values: {"arrayValue": {"values": values}}, st.lists(JSON, max_size=2)),
)
SPANS = st.fixed_dictionaries(
    {
        "traceId": st.just(TRACE_ID) | JSON,
        "spanId": st.just(SPAN_ID) | JSON,
        "startTimeUnixNano": st.just(str(START_NS)) | st.integers() | JSON,
        "endTimeUnixNano": st.just(str(END_NS)) | JSON,
        "attributes": st.lists(st.fixed_dictionaries({"key": KEYS, "value": VALUES}), max_size=4) | JSON,
    },
    optional={"name": JSON, "status": JSON, "parentSpanId": JSON, "events": JSON, "kind": JSON},
)
EXPORTS = st.one_of(
    JSON,
    st.builds(lambda value: {"resourceSpans": value}, JSON),
    st.builds(
        lambda spans, scope: {"resourceSpans": [{"scopeSpans": [{"scope": scope, "spans": spans}]}]},
        st.lists(SPANS, min_size=1, max_size=2),
        st.just({"name": "importer"}) | JSON,
    ),
)


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with DevServer() as server:
        keys = (server.public_key, server.secret_key)
        with httpx.Client(base_url=server.url, auth=keys, timeout=10, verify=False) as client:
            yield client


@given(body=EXPORTS)
def test_any_export_is_accepted_or_refused_and_reading_goes_on(client: httpx.Client, body: Any) -> None:
    headers = {"content-type": "application/json"}
    for route in ("/api/public/otel/v1/traces", "/v1/traces"):
        assert client.post(route, content=json.dumps(body), headers=headers).status_code in (200, 400)
    groups = "core,basic,time,io,metadata,model,usage,prompt,metrics,trace_context"
    page = client.get("/api/public/v2/observations", params={"fields": groups, "limit": 1000})
    assert page.status_code == 200
    assert client.get(f"/api/v3/traces/{TRACE_ID}").status_code in (200, 404)
    assert client.get("/api/v3/services").status_code == 200


@given(filter=JSON | st.lists(st.dictionaries(st.sampled_from(["type", "column", "operator", "value"]), JSON)))
def test_any_filter_is_served_or_refused(client: httpx.Client, filter: Any) -> None:
    answer = client.get("/api/public/v2/observations", params={"filter": json.dumps(filter)})
    assert answer.status_code in (200, 400)


@given(name=st.sampled_from(["limit", "cursor", "fields", "fromStartTime", "level", "filter"]), value=st.text())
def test_any_parameter_is_served_or_refused(client: httpx.Client, name: str, value: str) -> None:
    assert client.get("/api/public/v2/observations", params={name: value}).status_code in (200, 400)


@given(name=st.sampled_from(["searchDepth", "durationMin", "startTimeMin", "attributes"]), value=st.text())
@example("searchDepth", "9223372036854775808")
@example("durationMin", "9" * 400 + "h")
@example("durationMax", "9223372036854775807h")
@example("durationMin", "1.2.3s")
@example("startTimeMax", "9999-12-31T23:59:59Z")
@example("startTimeMin", "0001-01-01T00:00:00Z")
def test_any_search_is_served_or_refused(client: httpx.Client, name: str, value: str) -> None:
    parameters = {
        "query.startTimeMin": "2025-01-01T00:00:00Z",
        "query.startTimeMax": "2026-01-01T00:00:00Z",
        f"query.{name}": value,
    }
    assert client.get("/api/v3/traces", params=parameters).status_code in (200, 400, 404)


@given(body=JSON)
def test_any_admin_request_is_served_or_refused(client: httpx.Client, body: Any) -> None:
    for path in (f"/dev/langfuse/{TRACE_ID}/{SPAN_ID}", f"/dev/otlp/{TRACE_ID}/{SPAN_ID}"):
        assert client.patch(path, json=body).status_code in (200, 400, 404)
    assert client.put("/dev/faults", json=body).status_code == (200 if body == {} else 400)
    assert client.post("/api/public/ingestion", json=body).status_code in (207, 400)
