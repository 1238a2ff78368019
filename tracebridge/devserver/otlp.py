"""OTLP as it comes over the wire: bytes to messages, and to the plain values that Langfuse makes of them."""

from __future__ import annotations

import base64
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

import msgspec
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tracebridge.devserver.errors import DevServerError
from tracebridge.devserver.store import OtlpSpan

_UNSAFE = 2**53
_INT64 = 2**63
_LAST_MS = 253_402_300_799_999  # the end of the year 9999: no later time can be written in an answer
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


class UndecodableError(DevServerError):
    """The body is not what its headers say: ``what`` is one of compression, json, protobuf."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"the request body is not valid {what}: {reason}")
        self.what = what


class UnstorableError(DevServerError):
    """Langfuse accepts such a request and then loses it as a whole."""


class Scope(msgspec.Struct, frozen=True):
    """An instrumentation scope with plain values."""

    name: str | None = None
    version: str | None = None
    attributes: dict[str, Any] = {}


class ReceivedSpan(msgspec.Struct, frozen=True, kw_only=True):
    """A span as Langfuse's worker sees it: ids as text, attributes as plain values."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    start_ms: int | None
    end_ms: int | None
    status_code: int
    status_message: str
    attributes: dict[str, Any]
    resource: dict[str, Any]
    scope: Scope


# Bytes


def decompressed(body: bytes, encoding: str) -> bytes:
    """The body without its gzip; other encodings are not undone."""
    if encoding.strip().lower() != "gzip":
        return body
    try:
        return gzip.decompress(body)
    except (OSError, EOFError, zlib.error) as error:
        raise UndecodableError("compression", str(error)) from error


def parse_json(body: bytes) -> Any:
    """JSON as JavaScript reads it: no NaN, lone surrogates allowed."""
    try:
        return json.loads(body.decode("utf-8", "replace"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UndecodableError("json", str(error)) from error


def parse_protobuf(body: bytes) -> ExportTraceServiceRequest:
    """The export request in protobuf's own encoding."""
    try:
        return ExportTraceServiceRequest.FromString(body)
    except DecodeError as error:
        raise UndecodableError("protobuf", str(error)) from error


def request_from_json(tree: Any) -> ExportTraceServiceRequest:
    """OTLP/JSON to the message: ids in hex, unlike protobuf's own JSON."""
    try:
        return ParseDict(_with_base64_ids(tree), ExportTraceServiceRequest(), ignore_unknown_fields=True)
    except (ParseError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UndecodableError("json", str(error)) from error


def has_lone_surrogate(body: bytes, tree: Any) -> bool:
    """Whether any string of the JSON holds half a surrogate pair."""
    if not _SURROGATE_ESCAPE.search(body):
        return False
    try:
        json.dumps(tree, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _with_base64_ids(tree: Any) -> Any:
    if isinstance(tree, list):
        return [_with_base64_ids(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    return {
        key: base64.b64encode(bytes.fromhex(value)).decode()
        if key in ("traceId", "spanId", "parentSpanId") and isinstance(value, str)
        else _with_base64_ids(value)
        for key, value in tree.items()
    }


# Spans for Jaeger


def otlp_spans(request: ExportTraceServiceRequest) -> Iterator[OtlpSpan]:
    """The spans to store for Jaeger, which keeps microseconds of start and duration, each cut on its own."""
    for resource_spans in request.resource_spans:
        resource = resource_spans.resource.SerializeToString()
        service = service_name(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            scope = scope_spans.scope.SerializeToString()
            for span in scope_spans.spans:
                yield otlp_span(span, service, resource, scope)


def otlp_span(span: Span, service: str, resource: bytes, scope: bytes) -> OtlpSpan:
    """One span to store."""
    owners = (Resource.FromString(resource), InstrumentationScope.FromString(scope), span)
    marks = {mark(attribute.key, attribute_text(attribute.value)) for owner in owners for attribute in owner.attributes}
    return OtlpSpan(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        service=service,
        name=span.name,
        kind=span.kind,
        start_us=span.start_time_unix_nano // 1000,
        duration_us=max(0, span.end_time_unix_nano - span.start_time_unix_nano) // 1000,
        marks="".join(sorted(marks)),
        resource=resource,
        scope=scope,
        body=span.SerializeToString(),
    )


def mark(name: str, text: str) -> str:
    """A short mark of an attribute; others may have the same one."""
    return f"{zlib.crc32(f'{name}={text}'.encode()):08x} "


def attribute_text(value: AnyValue) -> str:
    """An attribute's value as the text that Jaeger compares it by."""
    kind = value.WhichOneof("value")
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    plain = plain_value(any_value_json(value)) if kind else ""
    return plain if isinstance(plain, str) else json_text(plain)


def service_name(attributes: Any) -> str:
    """The resource's service.name, or what Jaeger shows without one."""
    for attribute in attributes:
        if attribute.key == "service.name" and attribute.value.string_value:
            return str(attribute.value.string_value)
    return "unknown_service"


# Spans for Langfuse


def rejection(tree: Any) -> str | None:
    """Why Langfuse refuses the whole JSON export with a 400, or None."""
    total = 0
    refused = 0
    reasons: dict[str, None] = {}
    scopes: dict[str, None] = {}
    for resource_spans in _dicts(tree.get("resourceSpans")):
        for scope_spans in _dicts(resource_spans.get("scopeSpans")):
            for span in _dicts(scope_spans.get("spans")):
                total += 1
                found = _span_problems(span)
                if found:
                    refused += 1
                    reasons.update(dict.fromkeys(found))
                    scopes[_scope_name(scope_spans)] = None
    if not refused:
        return None
    rules = [text for key, text in _RULES.items() if any((":not_an_array" in r) == key for r in reasons)]
    return (
        f"Invalid OTLP trace export: {refused} of {total} span(s) cannot be processed "
        f"({', '.join(reasons)}). {' '.join(rules)} The entire export was rejected and no spans were "
        f"ingested. Instrumentation scopes: {', '.join(scopes)}. "
        "This endpoint accepts OpenTelemetry traces only \u2014 "
        "if you are exporting OpenTelemetry logs, point your log exporter elsewhere."
    )


_RULES = {
    False: "traceId and spanId are required on every span, and each must be a string or a byte array.",
    True: (
        "scopeSpans, spans, attributes and events must all be arrays \u2014 OTLP attributes are a list of "
        "{key, value} entries, not a JSON object."
    ),
}


def _span_problems(span: dict[str, Any]) -> list[str]:
    problems = []
    for key in ("traceId", "spanId"):
        if span.get(key) is None:
            problems.append(f"{key}:absent")
        elif not isinstance(span[key], str | list):
            problems.append(f"{key}:not_an_id")
    for key in ("attributes", "events"):
        if span.get(key) is not None and not isinstance(span[key], list):
            problems.append(f"{key}:not_an_array")
    return problems


def _scope_name(scope_spans: dict[str, Any]) -> str:
    scope = scope_spans.get("scope")
    name = scope.get("name") if isinstance(scope, dict) else None
    return str(name) if name else "unknown"


def _dicts(items: Any) -> list[dict[str, Any]]:
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def received_from_json(tree: Any) -> Iterator[ReceivedSpan]:
    """The spans of an OTLP/JSON export; raises `UnstorableError` for what Langfuse loses."""
    for resource_spans in _dicts(tree.get("resourceSpans")):
        resource = _plain_attributes(resource_spans.get("resource"))
        for scope_spans in _dicts(resource_spans.get("scopeSpans")):
            raw_scope = scope_spans.get("scope") or {}
            scope = Scope(raw_scope.get("name"), raw_scope.get("version"), _plain_attributes(raw_scope))
            for span in _dicts(scope_spans.get("spans")):
                status = span.get("status") or {}
                yield ReceivedSpan(
                    trace_id=_id_text(span["traceId"]),
                    span_id=_id_text(span["spanId"]),
                    parent_id=_id_text(span["parentSpanId"]) if span.get("parentSpanId") else None,
                    name=str(span.get("name") or ""),
                    start_ms=_milliseconds(span.get("startTimeUnixNano")),
                    end_ms=_milliseconds(span.get("endTimeUnixNano")),
                    status_code=2 if status.get("code") in (2, "STATUS_CODE_ERROR") else 0,
                    status_message=status.get("message") or "",
                    attributes=_plain_attributes(span),
                    resource=resource,
                    scope=scope,
                )


def received_from_message(request: ExportTraceServiceRequest) -> Iterator[ReceivedSpan]:
    """The spans of a protobuf export; raises `UnstorableError` for what Langfuse loses."""
    for resource_spans in request.resource_spans:
        resource = _message_attributes(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            raw_scope = scope_spans.scope
            scope = Scope(raw_scope.name or None, raw_scope.version or None, _message_attributes(raw_scope.attributes))
            for span in scope_spans.spans:
                yield ReceivedSpan(
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex() or None,
                    name=span.name,
                    start_ms=span.start_time_unix_nano // 1_000_000 or None,
                    end_ms=span.end_time_unix_nano // 1_000_000 or None,
                    status_code=span.status.code,
                    status_message=span.status.message,
                    attributes=_message_attributes(span.attributes),
                    resource=resource,
                    scope=scope,
                )


def message_rejection(request: ExportTraceServiceRequest) -> str | None:
    """Why Langfuse refuses the whole protobuf export with a 400, or None."""
    spans = [
        {"traceId": span.trace_id.hex() or None, "spanId": span.span_id.hex() or None}
        for resource_spans in request.resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    ]
    if all(span["traceId"] and span["spanId"] for span in spans):
        return None
    return rejection({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]})


def _id_text(value: Any) -> str:
    return value if isinstance(value, str) else bytes(value).hex()


def _milliseconds(nanoseconds: Any) -> int | None:
    """Cut to milliseconds; what is no number counts as missing, as in Langfuse."""
    try:
        return max(0, min(_LAST_MS, int(nanoseconds) // 1_000_000))
    except (TypeError, ValueError, OverflowError):
        return None


def _plain_attributes(owner: Any) -> dict[str, Any]:
    attributes = (owner or {}).get("attributes") or []
    return {attribute["key"]: plain_value(attribute.get("value")) for attribute in attributes}


def plain_value(value: Any) -> Any:
    """One OTLP/JSON value as Langfuse turns it into JavaScript."""
    if not isinstance(value, dict):
        raise UnstorableError("an attribute has no value")
    for kind in ("stringValue", "doubleValue", "boolValue"):
        if kind in value:
            return value[kind]
    if isinstance(value.get("arrayValue"), dict) and "values" in value["arrayValue"]:
        return [plain_value(item) for item in value["arrayValue"]["values"]]
    if value.get("intValue") is not None:
        return js_number(int(value["intValue"]))
    return json_text(value)


def _message_attributes(attributes: Any) -> dict[str, Any]:
    return {attribute.key: _message_value(attribute) for attribute in attributes}


def _message_value(attribute: KeyValue) -> Any:
    if not attribute.HasField("value"):
        raise UnstorableError(f"the attribute {attribute.key} has no value")
    kind = attribute.value.WhichOneof("value")
    if kind == "string_value":
        return attribute.value.string_value
    return plain_value(any_value_json(attribute.value))


def any_value_json(value: AnyValue) -> dict[str, Any]:
    """One protobuf value in OTLP/JSON form."""
    kind = value.WhichOneof("value")
    return {} if kind is None else _JSON_VALUES[kind](value)


def attributes_json(attributes: Any) -> list[dict[str, Any]]:
    """Attributes in OTLP/JSON form."""
    return [{"key": attribute.key, "value": any_value_json(attribute.value)} for attribute in attributes]


def key_value(key: str, value: Any) -> KeyValue:
    """An attribute from a plain Python value; what OTLP has no scalar for becomes JSON text."""
    if isinstance(value, bool):
        return KeyValue(key=key, value=AnyValue(bool_value=value))
    if isinstance(value, int):
        return KeyValue(key=key, value=AnyValue(int_value=value))
    if isinstance(value, float):
        return KeyValue(key=key, value=AnyValue(double_value=value))
    if isinstance(value, list):
        items = [key_value("", item).value for item in value]
        return KeyValue(key=key, value=AnyValue(array_value=ArrayValue(values=items)))
    return KeyValue(key=key, value=AnyValue(string_value=value if isinstance(value, str) else json_text(value)))


def _double_json(number: float) -> float | str:
    if number != number:
        return "NaN"
    if number in (float("inf"), float("-inf")):
        return "Infinity" if number > 0 else "-Infinity"
    return number


_JSON_VALUES: Mapping[str, Any] = {
    "string_value": lambda value: {"stringValue": value.string_value},
    "bool_value": lambda value: {"boolValue": value.bool_value},
    "int_value": lambda value: {"intValue": str(value.int_value)},
    "double_value": lambda value: {"doubleValue": _double_json(value.double_value)},
    "bytes_value": lambda value: {"bytesValue": base64.b64encode(value.bytes_value).decode()},
    "array_value": lambda value: {
        "arrayValue": {"values": [any_value_json(item) for item in value.array_value.values]}
        if value.array_value.values
        else {}
    },
    "kvlist_value": lambda value: {
        "kvlistValue": {"values": attributes_json(value.kvlist_value.values)} if value.kvlist_value.values else {}
    },
}


# JavaScript's view of numbers and JSON text


def js_number(number: float) -> float:
    """A number after JavaScript had it: doubles only, whole ones without a fraction."""
    if isinstance(number, int) and abs(number) <= _UNSAFE:
        return number
    double = float(number)
    if double.is_integer() and abs(double) < _INT64:
        return int(Decimal(repr(double)))  # JavaScript prints the shortest digits and fills up with zeros
    return double


def json_text(value: Any) -> str:
    """What JSON.stringify makes of a value."""
    return json.dumps(_js_value(value), ensure_ascii=False, separators=(",", ":"))


def _js_value(value: Any) -> Any:
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float):
        finite = value == value and abs(value) != float("inf")
        return js_number(value) if finite else None
    if isinstance(value, list):
        return [_js_value(item) for item in value]
    return {key: _js_value(item) for key, item in value.items()}
