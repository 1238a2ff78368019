"""Tempo 3's query API out: ``/api/v2/traces``, ``/api/search`` and ``/api/echo``, over what came in by OTLP.

Written from Tempo's public documentation and from what is said of it in public, never compared with a real Tempo. It
keeps nanoseconds, cuts long attributes, finds what was old when it came by its trace alone, and knows of TraceQL
``{ scope.name = "text" && ... }`` and no more. What is cut and what is old is its own business: Jaeger's shows all.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from tracebridge.devserver import otlp
from tracebridge.devserver.store import Condition, OtlpSpan, Store
from tracebridge.testing.faulty import fault_of

_LONGEST_SEARCH_S: Final = 168 * 3_600
_RECENT_S: Final = 3_600
"""How far back a search looks that names no time."""
_DEFAULT_LIMIT: Final = 20
_PARTIAL_MESSAGE: Final = "Trace exceeds maximum size of 5000000 bytes, a partial trace is returned"

_TEXT: Final = r'"((?:[^"\\\n\0]|\\[^\n])*)"'
_ONE: Final = rf"\s*(resource|span)\.([\w.]+)\s*=\s*{_TEXT}\s*"
_CONDITION: Final = re.compile(_ONE)
_QUERY: Final = re.compile(rf"\s*\{{({_ONE}(?:&&{_ONE})*)\}}\s*")
_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_ESCAPED: Final = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "a": "\a", "v": "\v", '"': '"', "\\": "\\"}


class Tempo(msgspec.Struct, frozen=True, kw_only=True):
    """How the Tempo side is configured; the defaults are Tempo's own."""

    max_attribute_bytes: int = 2_048
    """Longer keys and texts of attributes are cut; 0 cuts none."""
    searchable_s: float | None = 120.0
    """How old a span may be when it comes, to be found by a search; None for any age."""


class _Matcher(msgspec.Struct, frozen=True):
    scope: Literal["resource", "span"]
    name: str
    text: str


class _RefusedError(Exception):
    """A request that Tempo answers with 400."""


def routes(store: Store, tempo: Tempo) -> list[Route]:
    """All routes of Tempo's side; what is stored comes in by the routes of Jaeger's."""
    api = _Api(store, tempo)
    return [
        Route("/api/echo", api.echo, methods=["GET"]),
        Route("/api/v2/traces/{trace_id}", api.trace, methods=["GET"]),
        Route("/api/search", api.search, methods=["GET"]),
    ]


class _Api:
    def __init__(self, store: Store, tempo: Tempo) -> None:
        self._store = store
        self._tempo = tempo

    async def echo(self, request: Request) -> Response:
        return PlainTextResponse("echo")

    async def trace(self, request: Request) -> Response:
        return await run_in_threadpool(self._trace, request)

    async def search(self, request: Request) -> Response:
        return await run_in_threadpool(self._search, request)

    def _trace(self, request: Request) -> Response:
        text = request.path_params["trace_id"]
        if not re.fullmatch(r"[0-9a-fA-F]{1,32}", text):
            return PlainTextResponse(f"invalid trace id {text}", 400)
        spans = self._store.spans(text.lower().rjust(32, "0"))
        if not spans:
            return Response(status_code=404)
        is_partial = fault_of(request.scope).partial
        shown = spans[: len(spans) // 2] if is_partial else spans
        traces = _traces_data(shown, self._tempo.max_attribute_bytes)
        if "application/protobuf" in request.headers.get("accept", ""):
            return Response(_trace_by_id_message(traces, is_partial=is_partial), media_type="application/protobuf")
        answer: dict[str, Any] = {"trace": MessageToDict(traces), "metrics": {}, "status": "COMPLETE"}
        if is_partial:
            answer |= {"status": "PARTIAL", "message": _PARTIAL_MESSAGE}
        return _json(answer)

    def _search(self, request: Request) -> Response:
        try:
            return self._found(request.query_params)
        except _RefusedError as error:
            return PlainTextResponse(str(error), 400)

    def _found(self, parameters: Mapping[str, str]) -> Response:
        matchers = _matchers(parameters.get("q", ""))
        limit = _number(parameters, "limit") or _DEFAULT_LIMIT
        spans = self._store.matching_spans(self._condition(parameters, matchers))
        limit_bytes = self._tempo.max_attribute_bytes
        matching = {span.trace_id for span in spans if _matches(span, matchers, limit_bytes)}
        # in an order that is nobody's: who wants all must not stop at the first so many
        chosen = sorted(matching, key=lambda trace_id: hashlib.sha256(trace_id.encode()).digest())[:limit]
        traces = [_summary(trace_id, self._store.spans(trace_id)) for trace_id in chosen]
        return _json({"traces": traces, "metrics": {"inspectedTraces": len(matching)}})

    def _condition(self, parameters: Mapping[str, str], matchers: Iterable[_Matcher]) -> Condition:
        now_s = int(time.time())
        start_s, end_s = _number(parameters, "start"), _number(parameters, "end")
        if start_s is None or end_s is None:
            start_s, end_s = now_s - _RECENT_S, now_s + 1
        if end_s <= start_s:
            raise _RefusedError("http parameter start must be before end")
        if end_s - start_s > _LONGEST_SEARCH_S:
            raise _RefusedError(f"range specified by start and end exceeds {_LONGEST_SEARCH_S // 3_600}h0m0s")
        parts = ["start_us >= ?", "start_us < ?"]
        values: list[Any] = [start_s * 1_000_000, end_s * 1_000_000]
        if self._tempo.searchable_s is not None:
            parts.append("visible_ms - start_us / 1000 <= ?")
            values.append(int(self._tempo.searchable_s * 1_000))
        for matcher in matchers:
            # a text that may have been cut has no mark of its own
            if not self._tempo.max_attribute_bytes or len(matcher.text.encode()) < self._tempo.max_attribute_bytes - 3:
                parts.append("instr(marks, ?)")
                values.append(otlp.mark(matcher.name, matcher.text))
        return Condition(" AND ".join(parts), tuple(values))


def _json(body: Any) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json")


def _traces_data(spans: Sequence[OtlpSpan], limit: int) -> TracesData:
    traces = TracesData()
    groups: dict[tuple[bytes, bytes], list[OtlpSpan]] = {}
    for span in spans:
        groups.setdefault((span.resource, span.scope), []).append(span)
    for (resource, scope), group in groups.items():
        resource_spans = traces.resource_spans.add(resource=Resource.FromString(resource))
        _cut(resource_spans.resource.attributes, limit)
        scope_spans = resource_spans.scope_spans.add(scope=InstrumentationScope.FromString(scope))
        _cut(scope_spans.scope.attributes, limit)
        for stored in group:
            sent = scope_spans.spans.add()
            sent.MergeFromString(stored.body)
            _cut(sent.attributes, limit)
            for event in sent.events:
                _cut(event.attributes, limit)
            for link in sent.links:
                _cut(link.attributes, limit)
    return traces


def _cut(attributes: Iterable[KeyValue], limit: int) -> None:
    for attribute in attributes if limit else ():
        attribute.key = _cut_text(attribute.key, limit)
        if attribute.value.HasField("string_value"):
            attribute.value.string_value = _cut_text(attribute.value.string_value, limit)


def _cut_text(text: str, limit: int) -> str:
    return text.encode()[:limit].decode(errors="ignore")


def _trace_by_id_message(traces: TracesData, *, is_partial: bool) -> bytes:
    """The answer in protobuf: the trace is its field 1, the status 3 and the message 4."""
    message = _sized(1, traces.SerializeToString())
    if is_partial:
        message += b"\x18\x01" + _sized(4, _PARTIAL_MESSAGE.encode())
    return message


def _sized(field: int, content: bytes) -> bytes:
    size, head = len(content), bytearray([field << 3 | 2])
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head) + content


def _matchers(text: str) -> list[_Matcher]:
    query = _QUERY.fullmatch(text)
    if query is None:
        raise _RefusedError(f"invalid TraceQL query: parse error in {text!r}")
    return [
        _Matcher("resource" if scope == "resource" else "span", name, _unquoted(quoted))
        for scope, name, quoted in _CONDITION.findall(query[1])
    ]


def _unquoted(text: str) -> str:
    def character(escape: re.Match[str]) -> str:
        code = escape[1] or escape[2] or escape[3]
        if code is not None:
            return chr(int(code, 16))
        if escape[4] not in _ESCAPED:
            raise _RefusedError(f"invalid TraceQL query: invalid char escape {escape[0]!r}")
        return _ESCAPED[escape[4]]

    return _ESCAPE.sub(character, text)


def _matches(span: OtlpSpan, matchers: Iterable[_Matcher], limit: int) -> bool:
    attributes = {
        "resource": Resource.FromString(span.resource).attributes,
        "span": Span.FromString(span.body).attributes,
    }
    for of_owner in attributes.values():
        _cut(of_owner, limit)
    return all(
        any(one.key == matcher.name and one.value.string_value == matcher.text for one in attributes[matcher.scope])
        for matcher in matchers
    )


def _summary(trace_id: str, spans: Sequence[OtlpSpan]) -> dict[str, Any]:
    first = min(spans, key=lambda span: span.start_us)
    end_us = max(span.start_us + span.duration_us for span in spans)
    return {
        "traceID": trace_id.lstrip("0"),
        "rootServiceName": first.service,
        "rootTraceName": first.name,
        "startTimeUnixNano": str(Span.FromString(first.body).start_time_unix_nano),
        "durationMs": (end_us - first.start_us) // 1_000,
    }


def _number(parameters: Mapping[str, str], name: str) -> int | None:
    text = parameters.get(name, "")
    if not text:
        return None
    if not text.isdecimal():
        raise _RefusedError(f"invalid {name}: strconv.ParseInt: parsing {text!r}: invalid syntax")
    return int(text)
