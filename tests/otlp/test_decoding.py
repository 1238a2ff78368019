from __future__ import annotations

import math
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from tests.otlp.test_encoding import SPANS
from tracebridge_otlp.decoding import UndecodableError, decode_traces
from tracebridge_otlp.encoding import encode_span, join
from tracebridge_otlp.wire import WireKind, WireScope, WireSpan, WireStatus

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def traces(span: dict[str, Any]) -> dict[str, Any]:
    span = {"traceId": TRACE_ID, "spanId": SPAN_ID, **span}
    return {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}


def decoded(span: dict[str, Any]) -> WireSpan:
    (received,) = decode_traces(traces(span))
    return received.span


@given(SPANS)
def test_json_and_protobuf_of_the_same_spans_read_the_same(span: WireSpan) -> None:
    body = join([encode_span(span)], {"service.name": "s"}, WireScope(name="n"))
    as_json = MessageToDict(TracesData.FromString(body))
    assert list(decode_traces(as_json)) == list(decode_traces(body))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"stringValue": ""}, ""),
        ({"intValue": "9223372036854775807"}, 2**63 - 1),
        ({"intValue": 3}, 3),
        ({"doubleValue": 1}, 1.0),
        ({"doubleValue": "Infinity"}, math.inf),
        ({"boolValue": False}, False),
        ({"bytesValue": "AQI="}, b"\x01\x02"),
        ({"arrayValue": {}}, []),
        ({"arrayValue": {"values": [{"intValue": "1"}, {}]}}, [1, None]),
        ({"kvlistValue": {"values": [{"key": "k", "value": {"stringValue": "v"}}]}}, {"k": "v"}),
        ({}, None),
    ],
)
def test_every_kind_of_attribute_value_is_read_with_its_type(value: dict[str, Any], expected: object) -> None:
    found = decoded({"attributes": [{"key": "k", "value": value}]}).attributes["k"]
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("kind", [3, "SPAN_KIND_CLIENT"])
def test_an_enum_is_read_by_number_and_by_name(kind: int | str) -> None:
    assert decoded({"kind": kind}).kind is WireKind.CLIENT


def test_an_unknown_enum_value_is_its_default() -> None:
    span = decoded({"kind": 99, "status": {"code": "STATUS_CODE_FUTURE"}})
    assert (span.kind, span.status) == (WireKind.UNSPECIFIED, WireStatus.UNSET)


def test_ids_are_read_in_hex_and_in_base64() -> None:
    span = decoded({"traceId": "CvdlGRbNQ92ESOshHIAxnA==", "spanId": "t61rcWkgMzE=", "parentSpanId": SPAN_ID.upper()})
    assert (span.trace_id, span.span_id, span.parent_id) == (TRACE_ID, SPAN_ID, SPAN_ID)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff",
        {"resourceSpans": [7]},
        {"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": TRACE_ID}]}]}]},
        traces({"startTimeUnixNano": "soon"}),
        traces({"traceId": "not an id"}),
    ],
)
def test_what_is_no_trace_data_is_refused_by_one_error(data: Any) -> None:
    with pytest.raises(UndecodableError, match="not OTLP trace data"):
        list(decode_traces(data))
