from __future__ import annotations

import base64

import httpx
import msgspec
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, TracesData

from tracebridge_otel.tempo_answer import TraceAnswer, trace_in, traces_found
from tracebridge_otlp.decoding import UndecodableError

SPAN = Span(trace_id=b"\x0a" * 16, span_id=b"\x0b" * 8, name="turn", start_time_unix_nano=7)
TRACES = TracesData(resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=[SPAN])])]).SerializeToString()
MESSAGE = b"\x0a" + bytes([len(TRACES)]) + TRACES


def answer(content: bytes, kind: str = "application/protobuf") -> TraceAnswer:
    return trace_in(httpx.Response(200, content=content, headers={"content-type": kind}))


def as_json(**fields: object) -> bytes:
    ids = {"traceId": base64.b64encode(b"\x0a" * 16).decode(), "spanId": base64.b64encode(b"\x0b" * 8).decode()}
    span = {**ids, "name": "turn", "startTimeUnixNano": "7"}
    return msgspec.json.encode({"trace": {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}, **fields})


@pytest.mark.parametrize(
    ("found", "is_complete", "message"),
    [
        (answer(MESSAGE), True, ""),
        (answer(MESSAGE + b"\x12\x00\x18\x00"), True, ""),
        (answer(MESSAGE + b"\x18\x01\x22\x03big"), False, "big"),
        (answer(MESSAGE + b"\x18\x07"), False, ""),
        (answer(as_json(), "application/json"), True, ""),
        (answer(as_json(status="COMPLETE", metrics={}), "application/json; charset=utf-8"), True, ""),
        (answer(as_json(status="PARTIAL", message="big"), "application/json"), False, "big"),
        (answer(as_json(status=1), "application/json"), False, ""),
        (answer(as_json(status="WHATEVER"), "application/json"), False, ""),
    ],
)
def test_a_trace_is_read_from_both_forms_and_nothing_but_complete_counts_as_whole(
    found: TraceAnswer, is_complete: bool, message: str
) -> None:
    assert [(span.trace_id, span.span_id, span.name, span.start_ns) for span in found.spans] == [
        ("0a" * 16, "0b" * 8, "turn", 7)
    ]
    assert (found.is_complete, found.message) == (is_complete, message)


def test_the_parts_of_a_trace_add_up() -> None:
    assert len(answer(MESSAGE + MESSAGE).spans) == 2


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "application/protobuf"),
        (b"<html>", "application/protobuf"),
        (b"\x18\x00", "application/protobuf"),
        (b"\x0a\x02\xff\xff", "application/protobuf"),
        (b"\x08\x01", "application/protobuf"),
        (b"{}", "application/json"),
        (b"[]", "application/json"),
        (b'{"trace": {"resourceSpans": 7}}', "application/json"),
        (b'{"trace": null, "status": "COMPLETE"}', "application/json"),
        (b"[" * 100_000, "application/json"),
        (b"<html>Please log in</html>", "text/html"),
        (MESSAGE, ""),
    ],
)
def test_what_holds_no_trace_is_no_trace_without_spans(content: bytes, kind: str) -> None:
    with pytest.raises(UndecodableError):
        answer(content, kind)


def test_a_search_tells_ids_whole_and_times_in_seconds() -> None:
    body = b'{"traces": [{"traceID": "AB1", "startTimeUnixNano": "7999999999"}, {"traceID": "2"}], "metrics": {}}'
    assert [(found.trace_id, found.start_s) for found in traces_found(body)] == [
        ("ab1".rjust(32, "0"), 7),
        ("2".rjust(32, "0"), 0),
    ]


@pytest.mark.parametrize("body", [b'{"metrics": {}}', b'{"traces": []}', b'{"traces": null, "metrics": {}}'])
def test_a_search_may_find_nothing(body: bytes) -> None:
    assert traces_found(body) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"error": "no"}',
        b'{"traces": [{}]}',
        b'{"traces": [{"traceID": "../../api/status"}]}',
        b'{"traces": [{"traceID": "1", "startTimeUnixNano": "soon"}]}',
        b'{"traces": [{"traceID": "' + b"1" * 33 + b'"}]}',
    ],
)
def test_what_is_no_answer_to_a_search_is_an_error_and_not_nothing(body: bytes) -> None:
    with pytest.raises(UndecodableError):
        traces_found(body)
