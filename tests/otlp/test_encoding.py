from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tests.otlp.test_attributes import official
from tracebridge.testing.strategies import hex_ids, texts
from tracebridge_otlp.decoding import decode_traces
from tracebridge_otlp.encoding import encode_span, join
from tracebridge_otlp.wire import (
    ReceivedSpan,
    WireEvent,
    WireKind,
    WireLink,
    WireScope,
    WireSpan,
    WireStatus,
)

IDS: dict[str, Any] = {"trace_id": "0af7651916cd43dd8448eb211c80319c", "span_id": "b7ad6b7169203331"}
TIMES = st.integers(0, 2**64 - 1)
SCALARS = texts() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
ATTRIBUTES = st.dictionaries(texts(), SCALARS | st.lists(texts(), max_size=3), max_size=4)
SPANS = st.builds(
    WireSpan,
    trace_id=hex_ids(32),
    span_id=hex_ids(16),
    parent_id=st.just("") | hex_ids(16),
    name=texts(),
    kind=st.sampled_from(WireKind),
    start_ns=TIMES,
    end_ns=TIMES,
    attributes=ATTRIBUTES,
    status=st.sampled_from(WireStatus),
    status_message=texts(),
    links=st.lists(
        st.builds(WireLink, trace_id=hex_ids(32), span_id=hex_ids(16), attributes=ATTRIBUTES), max_size=2
    ).map(tuple),
    events=st.lists(st.builds(WireEvent, name=texts(), time_ns=TIMES, attributes=ATTRIBUTES), max_size=2).map(tuple),
)
SCOPES = st.builds(WireScope, name=texts(), version=texts(), attributes=ATTRIBUTES)


def message_of(span: WireSpan) -> SpanMessage:
    request = ExportTraceServiceRequest.FromString(join([encode_span(span)], {}, WireScope()))
    return request.resource_spans[0].scope_spans[0].spans[0]


@given(st.lists(SPANS, max_size=4), ATTRIBUTES, SCOPES)
def test_a_joined_request_is_read_back_as_it_was(
    spans: list[WireSpan], resource: dict[str, object], scope: WireScope
) -> None:
    request = join([encode_span(span) for span in spans], resource, scope)
    expected = [ReceivedSpan(span=span, resource=resource, scope=scope) for span in spans]
    assert list(decode_traces(request)) == expected


def official_span(span: WireSpan) -> SpanMessage:
    """What protobuf's own classes make of a span."""
    return SpanMessage(
        trace_id=bytes.fromhex(span.trace_id),
        span_id=bytes.fromhex(span.span_id),
        parent_span_id=bytes.fromhex(span.parent_id),
        name=span.name,
        kind=SpanMessage.SpanKind.ValueType(span.kind),
        start_time_unix_nano=span.start_ns,
        end_time_unix_nano=span.end_ns,
        attributes=official(span.attributes).attributes,
        status=Status(code=Status.StatusCode.ValueType(span.status), message=span.status_message)
        if span.status or span.status_message
        else None,
        links=[
            SpanMessage.Link(
                trace_id=bytes.fromhex(link.trace_id),
                span_id=bytes.fromhex(link.span_id),
                attributes=official(link.attributes).attributes,
            )
            for link in span.links
        ],
        events=[
            SpanMessage.Event(
                name=event.name,
                time_unix_nano=event.time_ns,
                attributes=official(event.attributes).attributes,
            )
            for event in span.events
        ],
    )


@given(SPANS)
def test_a_span_is_what_the_official_classes_make_of_it(span: WireSpan) -> None:
    assert message_of(span) == official_span(span)


def test_the_official_classes_read_a_joined_request_to_the_byte() -> None:
    # one part longer than any of protobuf's shorter length prefixes can tell
    spans = [WireSpan(name="x" * size, start_ns=1, end_ns=2, **IDS) for size in (0, 100, 200, 70_000, 3_000_000)]
    body = join([encode_span(span) for span in spans], {"service.name": "s"}, WireScope(name="n", version="1"))
    request = ExportTraceServiceRequest.FromString(body)
    assert request.SerializeToString() == body
    assert [span.name for span in request.resource_spans[0].scope_spans[0].spans] == [s.name for s in spans]


def test_an_integer_of_more_than_64_bits_becomes_its_decimal_text() -> None:
    attributes = {"least": -(2**63), "most": 2**63 - 1, "more": 2**63}
    message = message_of(WireSpan(name="n", start_ns=0, end_ns=0, attributes=attributes, **IDS))
    least, most, more = (attribute.value for attribute in message.attributes)
    assert (least.int_value, most.int_value) == (-(2**63), 2**63 - 1)
    assert more.string_value == "9223372036854775808"


@pytest.mark.parametrize("surrogate", [0xD800, 0xDBFF, 0xDC00, 0xDFFF], ids=hex)
def test_a_lone_surrogate_becomes_the_replacement_character_wherever_it_stands(surrogate: int) -> None:
    text = f"a{chr(surrogate)}b"
    span = WireSpan(name=text, start_ns=0, end_ns=0, attributes={text: [text]}, status_message=text, **IDS)
    message = message_of(span)
    (attribute,) = message.attributes
    found = {message.name, message.status.message, attribute.key}
    assert found == {"a\ufffdb"}
    assert attribute.value.array_value.values[0].string_value == "a\ufffdb"


def test_an_attribute_without_a_value_is_left_out_and_an_empty_list_is_kept() -> None:
    attributes = {"nothing": None, "empty": [], "some": ["a", None]}
    message = message_of(WireSpan(name="n", start_ns=0, end_ns=0, attributes=attributes, **IDS))
    empty, some = message.attributes
    assert (empty.key, empty.value.WhichOneof("value")) == ("empty", "array_value")
    assert [value.string_value for value in some.value.array_value.values] == ["a"]


def test_times_beyond_64_bits_become_the_nearest_that_fit() -> None:
    message = message_of(WireSpan(name="n", start_ns=-1, end_ns=2**64, **IDS))
    assert (message.start_time_unix_nano, message.end_time_unix_nano) == (0, 2**64 - 1)


def test_a_boolean_stays_a_boolean() -> None:
    message = message_of(WireSpan(name="n", start_ns=0, end_ns=0, attributes={"yes": True}, **IDS))
    assert message.attributes[0].value.WhichOneof("value") == "bool_value"
