"""OTLP in at ``/v1/traces`` and Jaeger 2.20's v3 query API out.

Written from Jaeger's source: camelCase and the older snake_case parameters, ``{"result": ...}`` with hex ids,
the gateway's error form, microseconds. Clock skew is not corrected (Jaeger's default since 2.0) and
filter expressions, pagination and trace summaries are not served.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from google.protobuf.json_format import MessageToJson
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tracebridge.devserver import otlp
from tracebridge.devserver.store import Condition, OtlpSpan, Store
from tracebridge.testing.faults import Fault
from tracebridge.testing.faulty import copies_to_store, fault_of

_BEYOND_US = re.compile(r"\.\d{6}(\d{3})(?!\d)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DEFAULT_SEARCH_DEPTH = 100
_MAX_SEARCH_DEPTH = 2**31 - 1
_MAX_NS = 2**63 - 1
"""About 292 years: what Go counts times and durations up to."""
_KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
_DURATION_UNITS = {"ns": 1e-3, "us": 1, "µs": 1, "ms": 1e3, "s": 1e6, "m": 60e6, "h": 3600e6}
_DURATION = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|ms|s|m|h)")
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


class _ParameterError(Exception):
    """A request that Jaeger answers with 400."""


def routes(store: Store) -> list[Route]:
    """All routes of the OpenTelemetry side."""
    jaeger = _Jaeger(store)
    return [
        Route("/v1/traces", _Receiver(store).export, methods=["POST"]),
        Route("/api/v3/services", jaeger.services, methods=["GET"]),
        Route("/api/v3/operations", jaeger.operations, methods=["GET"]),
        Route("/api/v3/traces", jaeger.find, methods=["GET"]),
        Route("/api/v3/traces/{trace_id}", jaeger.trace, methods=["GET"]),
    ]


# OTLP in


def store_export(store: Store, request: ExportTraceServiceRequest, fault: Fault) -> ExportTraceServiceResponse:
    """Store an export as the fault says: not, in part, once or twice, readable now or later."""
    visible_ms = time.time_ns() // 1_000_000 + int(fault.visibility_lag_s * 1000)
    spans = list(otlp.otlp_spans(request))
    refused = min(fault.reject, len(spans))
    for _ in range(copies_to_store(fault)):
        store.add_spans(spans[refused:], visible_ms, in_order=fault.in_order)
    answer = ExportTraceServiceResponse()
    if refused:
        answer.partial_success.rejected_spans = refused
        answer.partial_success.error_message = fault.body or "refused by the fault plan"
    return answer


class _Receiver:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def export(self, request: Request) -> Response:
        body = await request.body()
        return await run_in_threadpool(self._export, body, dict(request.headers), fault_of(request.scope))

    def _export(self, body: bytes, headers: Mapping[str, str], fault: Fault) -> Response:
        kind = headers.get("content-type", "").split(";")[0].strip().lower()
        if kind not in ("application/json", "application/x-protobuf"):
            supported = "application/json, application/x-protobuf"
            return Response(f"415 unsupported media type, supported: [{supported}]", 415, media_type="text/plain")
        as_json = kind == "application/json"
        try:
            body = otlp.decompressed(body, headers.get("content-encoding", ""))
            request = otlp.request_from_json(otlp.parse_json(body)) if as_json else otlp.parse_protobuf(body)
        except otlp.UndecodableError as error:
            return Response(msgspec.json.encode({"code": 3, "message": str(error)}), 400, media_type=kind)
        answer = store_export(self._store, request, fault)
        return Response(MessageToJson(answer) if as_json else answer.SerializeToString(), media_type=kind)


# Jaeger out


class _Jaeger:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def services(self, request: Request) -> Response:
        return _answer({"services": await run_in_threadpool(self._store.services)})

    async def operations(self, request: Request) -> Response:
        wanted = _parameter(request.query_params, "spanKind")
        found = await run_in_threadpool(self._store.operations, request.query_params.get("service", ""))
        named = [{"name": name, "spanKind": _KINDS[kind] if kind else "internal"} for name, kind in found]
        return _answer({"operations": [item for item in named if wanted in ("", item["spanKind"])]})

    async def trace(self, request: Request) -> Response:
        return await run_in_threadpool(_guarded, self._trace, request)

    async def find(self, request: Request) -> Response:
        return await run_in_threadpool(_guarded, self._find, request)

    def _trace(self, request: Request) -> Response:
        text = request.path_params["trace_id"]
        if not re.fullmatch(r"[0-9a-fA-F]{1,32}", text):
            raise _ParameterError(f"malformed parameter trace_id: {text!r} is not a hexadecimal trace id")
        raw = _flag(request.query_params, "rawTraces")
        for name in ("startTime", "endTime"):
            _time_ns(request.query_params, name)
        return _traces_answer(self._store.spans(text.lower().rjust(32, "0")), raw)

    def _find(self, request: Request) -> Response:
        parameters = request.query_params
        where = _search_condition(parameters)
        raw = _flag(parameters, "query.rawTraces")
        depth = _search_depth(parameters)
        attributes = _wanted_attributes(parameters.get("query.attributes", ""))
        if attributes:
            matching = (
                span
                for span in self._store.matching_spans(_narrowed(where, attributes))
                if _has_attributes(span, attributes)
            )
            trace_ids = list(dict.fromkeys(span.trace_id for span in matching))[:depth]
        else:
            trace_ids = self._store.matching_traces(where, depth)
        return _traces_answer([span for trace_id in trace_ids for span in self._store.spans(trace_id)], raw)


def _guarded(handler: Callable[[Request], Response], request: Request) -> Response:
    try:
        return handler(request)
    except _ParameterError as error:
        return _error(400, str(error))


def _answer(body: Any) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json")


def _error(status: int, message: str) -> Response:
    body = msgspec.json.encode({"error": {"httpCode": status, "message": message}}) + b"\n"
    return Response(body, status, {"x-content-type-options": "nosniff"}, "text/plain")


def _traces_answer(spans: list[OtlpSpan], raw: bool) -> Response:
    if not spans:
        return _error(404, "No traces found")
    groups: dict[tuple[str, bytes, bytes], list[OtlpSpan]] = {}
    for span in spans:
        groups.setdefault((span.trace_id, span.resource, span.scope), []).append(span)
    resource_spans = [
        _resource_spans(resource, scope, group if raw else _adjusted(group))
        for (_, resource, scope), group in groups.items()
    ]
    return _answer({"result": {"resourceSpans": resource_spans}})


def _adjusted(spans: list[OtlpSpan]) -> list[OtlpSpan]:
    """Jaeger's default adjusters, as far as they change anything here: identical spans once, by time."""
    return sorted({span.body: span for span in spans}.values(), key=lambda span: (span.start_us, span.span_id))


def _resource_spans(resource_body: bytes, scope_body: bytes, spans: Iterable[OtlpSpan]) -> dict[str, Any]:
    resource = Resource.FromString(resource_body)
    scope = InstrumentationScope.FromString(scope_body)
    scope_json = {
        "name": scope.name,
        "version": scope.version,
        "attributes": otlp.attributes_json(scope.attributes),
    }
    return {
        "resource": _present({"attributes": otlp.attributes_json(resource.attributes)}),
        "scopeSpans": [{"scope": _present(scope_json), "spans": [_span_json(span) for span in spans]}],
    }


def _span_json(stored: OtlpSpan) -> dict[str, Any]:
    span = Span.FromString(stored.body)
    start_ns = stored.start_us * 1000
    fields = {
        "traceId": span.trace_id.hex(),
        "spanId": span.span_id.hex(),
        "traceState": span.trace_state,
        "parentSpanId": span.parent_span_id.hex(),
        "flags": span.flags,
        "name": span.name,
        "kind": span.kind,
        "startTimeUnixNano": str(start_ns),
        "endTimeUnixNano": str(start_ns + stored.duration_us * 1000),
        "attributes": otlp.attributes_json(span.attributes),
        "events": [_event_json(event) for event in span.events],
        "links": [_link_json(link) for link in span.links],
    }
    status = _present({"message": span.status.message, "code": span.status.code})
    return _present(fields) | {"status": status}


def _event_json(event: Span.Event) -> dict[str, Any]:
    nanoseconds = event.time_unix_nano // 1000 * 1000
    attributes = otlp.attributes_json(event.attributes)
    return _present({"timeUnixNano": str(nanoseconds), "name": event.name, "attributes": attributes})


def _link_json(link: Span.Link) -> dict[str, Any]:
    return _present(
        {
            "traceId": link.trace_id.hex(),
            "spanId": link.span_id.hex(),
            "traceState": link.trace_state,
            "attributes": otlp.attributes_json(link.attributes),
            "flags": link.flags,
        }
    )


def _present(fields: dict[str, Any]) -> dict[str, Any]:
    """Without what protobuf's JSON leaves out: empty text, empty lists and zeros."""
    return {name: value for name, value in fields.items() if value}


# Parameters


def _search_condition(parameters: Mapping[str, str]) -> Condition:
    earliest, latest = _time_ns(parameters, "query.startTimeMin"), _time_ns(parameters, "query.startTimeMax")
    if earliest is None or latest is None:
        raise _ParameterError("query.startTimeMin and query.startTimeMax are required")
    if earliest >= latest:
        raise _ParameterError("query.startTimeMin must be before query.startTimeMax")
    conditions = ["start_us >= ?", "start_us <= ?"]
    values: list[Any] = [-(-earliest // 1000), latest // 1000]
    for name, column in (("query.serviceName", "service"), ("query.operationName", "name")):
        if value := _parameter(parameters, name):
            conditions.append(f"{column} = ?")
            values.append(value)
    for name, comparison in (("query.durationMin", ">="), ("query.durationMax", "<=")):
        if value := _parameter(parameters, name):
            conditions.append(f"duration_us {comparison} ?")
            values.append(_duration(name, value))
    return Condition(" AND ".join(conditions), tuple(values))


def _parameter(parameters: Mapping[str, str], name: str) -> str:
    """A parameter by its name or by the older snake_case one."""
    return parameters.get(name) or parameters.get(re.sub("[A-Z]", lambda m: "_" + m[0].lower(), name), "")


def _time_ns(parameters: Mapping[str, str], name: str) -> int | None:
    text = _parameter(parameters, name)
    if not text:
        return None
    beyond_us = _BEYOND_US.search(text)
    try:
        # what is beyond microseconds is ignored by it
        moment = datetime.fromisoformat(text)
        time_ns = (moment - _EPOCH) // timedelta(microseconds=1) * 1000 + (int(beyond_us[1]) if beyond_us else 0)
        return max(-_MAX_NS, min(time_ns, _MAX_NS))
    except (ValueError, TypeError):
        raise _ParameterError(f"malformed parameter {name}: {text!r} is not an RFC 3339 time") from None


def _duration(name: str, text: str) -> int:
    parts = _DURATION.findall(text)
    if "".join(number + unit for number, unit in parts) != text or not parts:
        raise _ParameterError(f"malformed parameter {name}: {text!r} is not a duration such as 1.5s")
    duration = sum(float(number) * _DURATION_UNITS[unit] for number, unit in parts)
    if duration > _MAX_NS // 1000:
        raise _ParameterError(f"malformed parameter {name}: {text!r} is too long")
    return int(duration)


def _search_depth(parameters: Mapping[str, str]) -> int:
    text = _parameter(parameters, "query.searchDepth") or parameters.get("query.num_traces", "")
    if not text:
        return _DEFAULT_SEARCH_DEPTH
    if not text.isdecimal():
        raise _ParameterError(f"malformed parameter query.searchDepth: {text!r} is not a number")
    if int(text) > _MAX_SEARCH_DEPTH:
        raise _ParameterError(f"malformed parameter query.searchDepth: {text!r} is out of range")
    return int(text) or _DEFAULT_SEARCH_DEPTH


def _flag(parameters: Mapping[str, str], name: str) -> bool:
    text = _parameter(parameters, name)
    if text and text not in _TRUE | _FALSE:
        raise _ParameterError(f"malformed parameter {name}: {text!r} is not a boolean")
    return text in _TRUE


def _wanted_attributes(text: str) -> dict[str, str]:
    try:
        return msgspec.json.decode(text, type=dict[str, str]) if text else {}
    except msgspec.DecodeError as error:
        raise _ParameterError(f"malformed parameter query.attributes: {error}") from None


def _narrowed(where: Condition, wanted: Mapping[str, str]) -> Condition:
    """The condition, and that the span has the attributes' marks."""
    marks = [otlp.mark(name, text) for name, text in wanted.items()]
    return Condition(" AND ".join([where.sql, *["instr(marks, ?)"] * len(marks)]), (*where.params, *marks))


def _has_attributes(span: OtlpSpan, wanted: Mapping[str, str]) -> bool:
    """Whether span, scope and resource together have all of these attributes, compared as text."""
    owners = (
        Resource.FromString(span.resource),
        InstrumentationScope.FromString(span.scope),
        Span.FromString(span.body),
    )
    found = {attribute.key: otlp.attribute_text(attribute.value) for owner in owners for attribute in owner.attributes}
    return all(found.get(name) == value for name, value in wanted.items())
