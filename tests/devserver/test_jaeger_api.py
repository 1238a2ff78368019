"""OTLP in and Jaeger's v3 query API out."""

from __future__ import annotations

import gzip
import json
from typing import Any

import httpx
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind

from tests.devserver.exports import END_NS, SPAN_ID, START_NS, TRACE_ID, export, span
from tracebridge.devserver import DevServer
from tracebridge.devserver.otlp import request_from_json

RANGE = {"query.startTimeMin": "2025-01-01T00:00:00Z", "query.startTimeMax": "2026-01-01T00:00:00Z"}


def send(client: httpx.Client, *spans: Any, **names: str) -> None:
    client.post("/v1/traces", json=export(*spans, **names)).raise_for_status()


def spans_of(answer: httpx.Response) -> list[dict[str, Any]]:
    answer.raise_for_status()
    return [
        span
        for resource in answer.json()["result"]["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]


def trace_id(number: int) -> str:
    return f"{number:032x}"


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("protobuf", [False, True], ids=["json", "protobuf"])
def test_exports_come_in_every_form_and_are_answered_in_theirs(
    anonymous: httpx.Client, protobuf: bool, compress: bool
) -> None:
    tree = export(span())
    body = request_from_json(tree).SerializeToString() if protobuf else json.dumps(tree).encode()
    headers = {"content-type": "application/x-protobuf" if protobuf else "application/json"}
    if compress:
        body = gzip.compress(body)
        headers["content-encoding"] = "gzip"
    answer = anonymous.post("/v1/traces", content=body, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == headers["content-type"]
    if protobuf:
        assert ExportTraceServiceResponse.FromString(answer.content) == ExportTraceServiceResponse()
    else:
        assert answer.json() == {}
    assert [span["spanId"] for span in spans_of(anonymous.get(f"/api/v3/traces/{TRACE_ID}"))] == [SPAN_ID]


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b'{"resourceSpans": 5}', "application/json", 400),
        (b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "xyz"}]}]}]}', "application/json", 400),
        (b"\xff", "application/x-protobuf", 400),
        (b"{}", "text/plain", 415),
    ],
)
def test_what_cannot_be_read_is_refused(anonymous: httpx.Client, body: bytes, kind: str, status: int) -> None:
    answer = anonymous.post("/v1/traces", content=body, headers={"content-type": kind})
    assert answer.status_code == status


def test_a_trace_comes_back_as_otlp_json_with_hex_ids(anonymous: httpx.Client) -> None:
    attributes = {"text": "x", "n": 5, "f": 0.5, "b": True, "list": ["a", 1], "bytes": {"bytesValue": "aGk="}}
    sent = span(
        attributes,
        parentSpanId="00f067aa0ba902b7",
        status={"code": 2, "message": "no"},
        events=[{"timeUnixNano": str(START_NS), "name": "exception"}],
        links=[{"traceId": trace_id(9), "spanId": "00f067aa0ba902b8"}],
        startTimeUnixNano="1760000000123456000",
        endTimeUnixNano="1760000001123456000",
    )
    send(anonymous, sent, scope="tracer", service="agent")
    answer = anonymous.get(f"/api/v3/traces/{TRACE_ID}", params={"rawTraces": "true"})
    (resource_spans,) = answer.json()["result"]["resourceSpans"]
    (service,) = resource_spans["resource"]["attributes"]
    assert service == {"key": "service.name", "value": {"stringValue": "agent"}}
    (scope_spans,) = resource_spans["scopeSpans"]
    assert scope_spans["scope"] == {"name": "tracer"}
    (received,) = scope_spans["spans"]
    assert received == sent | {"events": [{"timeUnixNano": "1760000000123456000", "name": "exception"}]}


def test_start_and_duration_are_cut_to_microseconds_each_on_its_own(anonymous: httpx.Client) -> None:
    send(anonymous, span(startTimeUnixNano="1760000000000001999", endTimeUnixNano="1760000000000004001"))
    (received,) = spans_of(anonymous.get(f"/api/v3/traces/{TRACE_ID}"))
    assert received["startTimeUnixNano"] == "1760000000000001000"
    assert received["endTimeUnixNano"] == "1760000000000003000"


def test_a_repeated_span_is_shown_once_unless_the_raw_trace_is_asked_for(anonymous: httpx.Client) -> None:
    send(anonymous, span())
    send(anonymous, span())
    send(anonymous, span(name="changed"))
    adjusted = spans_of(anonymous.get(f"/api/v3/traces/{TRACE_ID}"))
    raw = spans_of(anonymous.get(f"/api/v3/traces/{TRACE_ID}", params={"rawTraces": "true"}))
    assert sorted(span["name"] for span in adjusted) == ["answer", "changed"]
    assert sorted(span["name"] for span in raw) == ["answer", "answer", "changed"]


def test_a_short_trace_id_is_filled_with_zeros(anonymous: httpx.Client) -> None:
    send(anonymous, span(traceId=trace_id(0xAB)))
    assert spans_of(anonymous.get("/api/v3/traces/AB"))[0]["traceId"] == trace_id(0xAB)


def test_an_unknown_trace_and_an_empty_search_are_404(anonymous: httpx.Client) -> None:
    for answer in (
        anonymous.get(f"/api/v3/traces/{TRACE_ID}"),
        anonymous.get("/api/v3/traces", params=RANGE),
    ):
        assert answer.status_code == 404
        assert answer.json() == {"error": {"httpCode": 404, "message": "No traces found"}}


@pytest.mark.parametrize(
    ("parameters", "what"),
    [
        ({}, "required"),
        ({"query.startTimeMin": "2025-01-01T00:00:00Z"}, "required"),
        (RANGE | {"query.startTimeMax": "tomorrow"}, "query.startTimeMax"),
        (RANGE | {"query.startTimeMax": RANGE["query.startTimeMin"]}, "before"),
        (RANGE | {"query.searchDepth": "all"}, "query.searchDepth"),
        (RANGE | {"query.durationMin": "long"}, "query.durationMin"),
        (RANGE | {"query.attributes": "x"}, "query.attributes"),
        (RANGE | {"query.rawTraces": "perhaps"}, "query.rawTraces"),
    ],
)
def test_a_wrong_search_is_400_and_names_the_parameter(
    anonymous: httpx.Client, parameters: dict[str, str], what: str
) -> None:
    answer = anonymous.get("/api/v3/traces", params=parameters)
    assert answer.status_code == 400
    assert answer.json()["error"]["httpCode"] == 400
    assert what in answer.json()["error"]["message"]


def test_a_wrong_trace_id_is_400(anonymous: httpx.Client) -> None:
    assert anonymous.get("/api/v3/traces/nonsense").status_code == 400


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, {1, 2, 3}),
        ({"query.serviceName": "agent"}, {1, 3}),
        ({"query.service_name": "other"}, {2}),
        ({"query.operationName": "search"}, {3}),
        ({"query.serviceName": "agent", "query.operationName": "answer"}, {1}),
        ({"query.durationMax": "3s"}, {1, 2}),
        ({"query.durationMax": "1m1.5s", "query.durationMin": "1m"}, {3}),
        ({"query.attributes": '{"k": "5"}'}, {2}),
        ({"query.attributes": '{"k": "5", "service.name": "agent"}'}, set()),
        ({"query.searchDepth": "1"}, {3}),
        ({"query.num_traces": "2"}, {2, 3}),
        ({"query.startTimeMin": "2025-10-09T08:53:21.200Z"}, {2, 3}),
    ],
)
def test_traces_are_found(anonymous: httpx.Client, parameters: dict[str, str], expected: set[int]) -> None:
    send(anonymous, span(traceId=trace_id(1)), service="agent")
    later: dict[str, Any] = {
        "startTimeUnixNano": str(START_NS + 10**9 + 10**8),
        "endTimeUnixNano": str(END_NS + 10**9 + 10**8),
    }
    send(anonymous, span({"k": 5}, traceId=trace_id(2), **later), service="other")
    last: dict[str, Any] = {
        "startTimeUnixNano": str(START_NS + 2 * 10**9),
        "endTimeUnixNano": str(START_NS + 62 * 10**9),
    }
    send(anonymous, span(traceId=trace_id(3), name="search", **last), service="agent")
    answer = anonymous.get("/api/v3/traces", params=RANGE | parameters)
    found = set() if answer.status_code == 404 else {span["traceId"] for span in spans_of(answer)}
    assert found == {trace_id(number) for number in expected}


def test_a_found_trace_is_whole_across_services(anonymous: httpx.Client) -> None:
    send(anonymous, span(), service="agent")
    send(anonymous, span(spanId="00000000000000aa", name="query"), service="database")
    answer = anonymous.get("/api/v3/traces", params=RANGE | {"query.serviceName": "agent"})
    assert {span["name"] for span in spans_of(answer)} == {"answer", "query"}


def test_services_and_operations_are_listed(anonymous: httpx.Client) -> None:
    assert anonymous.get("/api/v3/services").json() == {"services": []}
    send(anonymous, span(), span(spanId="00000000000000aa", name="call", kind=3), service="agent")
    send(anonymous, span(), service="other")
    assert anonymous.get("/api/v3/services").json() == {"services": ["agent", "other"]}
    found = anonymous.get("/api/v3/operations", params={"service": "agent"}).json()["operations"]
    assert found == [{"name": "answer", "spanKind": "internal"}, {"name": "call", "spanKind": "client"}]
    only = anonymous.get("/api/v3/operations", params={"service": "agent", "span_kind": "client"}).json()
    assert [operation["name"] for operation in only["operations"]] == ["call"]


def record_with(exporter: SpanExporter) -> None:
    provider = TracerProvider(resource=Resource.create({"service.name": "stock"}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("stock-tracer", "1.0")
    with (
        tracer.start_as_current_span("parent"),
        tracer.start_as_current_span("child", kind=SpanKind.CLIENT) as child,
    ):
        child.set_attribute("gen_ai.operation.name", "chat")
        child.record_exception(ValueError("no"))
    provider.shutdown()


@pytest.mark.parametrize("transport", ["http", "http-gzip", "grpc"])
def test_the_stock_exporters_deliver(devserver: DevServer, anonymous: httpx.Client, transport: str) -> None:
    if transport == "grpc":
        record_with(GrpcExporter(endpoint=devserver.grpc_endpoint, insecure=True))
    else:
        compression = Compression.Gzip if transport == "http-gzip" else Compression.NoCompression
        record_with(HttpExporter(endpoint=f"{devserver.url}/v1/traces", compression=compression))
    answer = anonymous.get(
        "/api/v3/traces",
        params={
            "query.serviceName": "stock",
            "query.startTimeMin": "2020-01-01T00:00:00Z",
            "query.startTimeMax": "2100-01-01T00:00:00Z",
        },
    )
    by_name = {span["name"]: span for span in spans_of(answer)}
    assert by_name["child"]["parentSpanId"] == by_name["parent"]["spanId"]
    assert by_name["child"]["kind"] == 3
    assert by_name["child"]["events"][0]["name"] == "exception"
