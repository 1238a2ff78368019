from __future__ import annotations

import socket

import httpx
import pytest

from tests.otel.test_jaeger_reader import START, turn
from tests.otel.test_law import deliver, settings_for
from tests.otlp.scripted_server import http_answer, scripted_server
from tracebridge.devserver import DevServer
from tracebridge.secret import Secret
from tracebridge.sink import Outcome
from tracebridge.testing import Fault
from tracebridge_otel.configuration import OtelSettings, Protocol
from tracebridge_otel.factory import sink_type
from tracebridge_otel.mapping import from_wire
from tracebridge_otel.sink import resource_of
from tracebridge_otlp.decoding import decode_traces

GRPC_EXPORT = "GRPC /opentelemetry.proto.collector.trace.v1.TraceService/Export"


def test_the_same_spans_make_the_same_bytes() -> None:
    requests = set()
    for _ in range(2):
        sink = sink_type.open_sink(OtelSettings())
        requests.add(sink.join([sink.encode(turn(number)) for number in range(3)]))
        sink.close()
    assert len(requests) == 1


def test_resource_and_scope_say_who_sends() -> None:
    settings = OtelSettings(service_name="airline", service_version="2.1", resource={"team": "a"})
    sink = sink_type.open_sink(settings)
    (received,) = decode_traces(sink.join([sink.encode(turn(1))]))
    sink.close()
    assert received.resource == {
        "service.name": "airline",
        "service.version": "2.1",
        "team": "a",
        "telemetry.sdk.name": "tracebridge",
        "telemetry.sdk.language": "python",
        "telemetry.sdk.version": received.scope.version or "unknown",
    }
    assert received.resource == resource_of(settings)
    assert received.scope.name == "tracebridge"


def test_a_delivered_turn_stands_in_jaeger_under_its_service(devserver: DevServer) -> None:
    deliver(settings_for(devserver, "http/protobuf"), [turn(1)])
    assert httpx.get(f"{devserver.url}/api/v3/services").json() == {"services": ["agent"]}


@pytest.mark.parametrize(
    ("protocol", "fault", "outcome"),
    [
        (
            "http/protobuf",
            Fault(route="POST /v1/traces", status=503, headers={"Retry-After": "3"}),
            Outcome.RETRY,
        ),
        ("http/protobuf", Fault(route="POST /v1/traces", status=401), Outcome.UNAUTHORIZED),
        ("http/protobuf", Fault(route="POST /v1/traces", status=413), Outcome.TOO_LARGE),
        ("http/protobuf", Fault(route="POST /v1/traces", reset="after"), Outcome.UNKNOWN),
        ("http/protobuf", Fault(route="POST /v1/traces", hang=True), Outcome.UNKNOWN),
        ("grpc", Fault(route=GRPC_EXPORT, hang=True), Outcome.UNKNOWN),
    ],
)
def test_trouble_is_told_in_the_receipt(
    devserver: DevServer, protocol: Protocol, fault: Fault, outcome: Outcome
) -> None:
    devserver.faults.add(fault)
    endpoint = f"http://{devserver.grpc_endpoint}" if protocol == "grpc" else devserver.url
    sink = sink_type.open_sink(OtelSettings(protocol=protocol, endpoint=endpoint, timeout=0.3))
    try:
        receipt = sink.deliver(sink.join([sink.encode(turn(1, start_ns=START))]))
    finally:
        devserver.faults.release()
        sink.close()
    assert receipt.outcome is outcome


def test_headers_reach_the_backend() -> None:
    requests: list[bytes] = []

    def script(connection: socket.socket, request: bytes) -> None:
        requests.append(request)
        connection.sendall(http_answer(200, "application/x-protobuf"))

    with scripted_server(script) as url:
        sink = sink_type.open_sink(OtelSettings(endpoint=url, headers={"api-key": Secret("s3cr3t")}))
        assert sink.deliver(sink.join([])).outcome is Outcome.ACCEPTED
        sink.close()
    assert b"api-key: s3cr3t" in requests[0]


OWN: dict[str, str | bool | int | float] = {"team": "orders", "shard": 7, "beta": True, "weight": 0.5}


def test_the_users_own_attributes_are_on_every_span_and_change_nothing_that_reads_back() -> None:
    sinks = [sink_type.open_sink(OtelSettings(endpoint="http://127.0.0.1:9", attributes=own)) for own in (OWN, {})]
    (with_own,), (without,) = (decode_traces(sink.join([sink.encode(turn(1))])) for sink in sinks)
    for sink in sinks:
        sink.close()
    assert with_own.span.attributes == without.span.attributes | OWN
    assert from_wire(with_own.span) == from_wire(without.span) == turn(1)


@pytest.mark.parametrize("name", ["", "gen_ai.system", "session.id", "tracebridge.x", "error.type", "service.version"])
def test_an_attribute_of_a_name_that_spans_have_anyway_is_a_mistake(name: str) -> None:
    with pytest.raises(ValueError, match=r"attributes: .* choose another"):
        OtelSettings(attributes={name: "x"})
