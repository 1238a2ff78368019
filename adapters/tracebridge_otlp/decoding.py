"""OTLP trace data, protobuf or JSON, to `ReceivedSpan`s."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from tracebridge.errors import TracebridgeError
from tracebridge_otlp.wire import (
    Attributes,
    ReceivedSpan,
    WireEvent,
    WireKind,
    WireLink,
    WireScope,
    WireSpan,
    WireStatus,
)

Json = Any
E = TypeVar("E", WireKind, WireStatus)


class UndecodableError(TracebridgeError):
    """What a backend answered is no OTLP trace data: says what stood in the way."""


def decode_traces(data: bytes | dict[str, Json]) -> Iterator[ReceivedSpan]:
    """Yield the spans of OTLP trace data: protobuf as bytes, or a decoded JSON object with `resourceSpans`.

    The JSON form is read as lenient as its writers are: ids in hex or base64, enums by name or number, 64-bit
    integers as text or number, and whatever is at its default left out.

    Raises:
        UndecodableError: `data` is something else.
    """
    return _from_json(data) if isinstance(data, dict) else _from_protobuf(data)


def _from_protobuf(data: bytes) -> Iterator[ReceivedSpan]:
    try:
        # an ExportTraceServiceRequest and a TracesData are the same message on the wire
        traces = TracesData.FromString(data)
    except DecodeError as error:
        raise UndecodableError(f"not OTLP trace data in protobuf: {error}") from None
    for resource_spans in traces.resource_spans:
        resource = _attributes_of(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            scope = WireScope(
                name=scope_spans.scope.name,
                version=scope_spans.scope.version,
                attributes=_attributes_of(scope_spans.scope.attributes),
            )
            for span in scope_spans.spans:
                yield ReceivedSpan(span=_span_of(span), resource=resource, scope=scope)


def _span_of(span: SpanMessage) -> WireSpan:
    return WireSpan(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        name=span.name,
        kind=_member(WireKind, span.kind, WireKind.UNSPECIFIED),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=_attributes_of(span.attributes),
        status=_member(WireStatus, span.status.code, WireStatus.UNSET),
        status_message=span.status.message,
        links=tuple(
            WireLink(
                trace_id=link.trace_id.hex(),
                span_id=link.span_id.hex(),
                attributes=_attributes_of(link.attributes),
            )
            for link in span.links
        ),
        events=tuple(
            WireEvent(name=event.name, time_ns=event.time_unix_nano, attributes=_attributes_of(event.attributes))
            for event in span.events
        ),
    )


def _attributes_of(key_values: Iterable[KeyValue]) -> Attributes:
    return {entry.key: _value_of(entry.value) for entry in key_values}


def _value_of(value: AnyValue) -> Any:
    match value.WhichOneof("value"):
        case None:
            return None
        case "array_value":
            return [_value_of(item) for item in value.array_value.values]
        case "kvlist_value":
            return _attributes_of(value.kvlist_value.values)
        case scalar:
            return getattr(value, scalar)


def _from_json(data: dict[str, Json]) -> Iterator[ReceivedSpan]:
    try:
        for resource_spans in data.get("resourceSpans") or ():
            resource = _attributes_in((resource_spans.get("resource") or {}).get("attributes"))
            for scope_spans in resource_spans.get("scopeSpans") or ():
                scope_json = scope_spans.get("scope") or {}
                scope = WireScope(
                    name=scope_json.get("name", ""),
                    version=scope_json.get("version", ""),
                    attributes=_attributes_in(scope_json.get("attributes")),
                )
                for span in scope_spans.get("spans") or ():
                    yield ReceivedSpan(span=_span_in(span), resource=resource, scope=scope)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UndecodableError(f"not OTLP trace data in JSON: {type(error).__name__}: {error}") from None


def _span_in(span: dict[str, Json]) -> WireSpan:
    status = span.get("status") or {}
    return WireSpan(
        trace_id=_id_in(span["traceId"], 16),
        span_id=_id_in(span["spanId"], 8),
        parent_id=_id_in(span.get("parentSpanId") or "", 8),
        name=span.get("name", ""),
        kind=_enum_in(WireKind, span.get("kind", 0), "SPAN_KIND_"),
        start_ns=int(span.get("startTimeUnixNano", 0)),
        end_ns=int(span.get("endTimeUnixNano", 0)),
        attributes=_attributes_in(span.get("attributes")),
        status=_enum_in(WireStatus, status.get("code", 0), "STATUS_CODE_"),
        status_message=status.get("message", ""),
        links=tuple(
            WireLink(
                trace_id=_id_in(link["traceId"], 16),
                span_id=_id_in(link["spanId"], 8),
                attributes=_attributes_in(link.get("attributes")),
            )
            for link in span.get("links") or ()
        ),
        events=tuple(
            WireEvent(
                name=event.get("name", ""),
                time_ns=int(event.get("timeUnixNano", 0)),
                attributes=_attributes_in(event.get("attributes")),
            )
            for event in span.get("events") or ()
        ),
    )


def _attributes_in(key_values: Json) -> Attributes:
    return {entry.get("key", ""): _value_in(entry.get("value") or {}) for entry in key_values or ()}


def _value_in(value: dict[str, Json]) -> Any:
    for form, content in value.items():
        match form:
            case "stringValue" | "boolValue":
                return content
            case "intValue":
                return int(content)
            case "doubleValue":
                return float(content)
            case "bytesValue":
                return base64.b64decode(content)
            case "arrayValue":
                return [_value_in(item) for item in content.get("values") or ()]
            case "kvlistValue":
                return _attributes_in(content.get("values"))
    return None


def _id_in(text: str, size: int) -> str:
    if not text or len(text) == 2 * size:
        return text.lower()
    return base64.b64decode(text, validate=True).hex()


def _enum_in(kind: type[E], value: Json, prefix: str) -> E:
    default = kind(0)
    if isinstance(value, str):
        return kind.__members__.get(value.removeprefix(prefix), default)
    return _member(kind, value, default)


def _member(kind: type[E], number: int, default: E) -> E:
    return kind(number) if number in kind.__members__.values() else default
