"""What Tempo's query API answers, to typed records: a trace as protobuf or JSON, and what a search has found."""

from __future__ import annotations

import re
from typing import Any, Final

import httpx
import msgspec
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from tracebridge_otlp.decoding import UndecodableError, decode_traces
from tracebridge_otlp.wire import WireSpan

PROTOBUF: Final = "application/protobuf"
JSON: Final = "application/json"

_TRACE: Final = 1
_STATUS: Final = 3
_MESSAGE: Final = 4
_COMPLETE: Final = ("COMPLETE", 0, None)
"""What stands for a whole trace; the default of its type may be left out."""
_TRACE_ID: Final = re.compile(r"[0-9a-fA-F]{1,32}")
_NS_PER_S: Final = 1_000_000_000


class TraceAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One trace, or a part of it."""

    spans: list[WireSpan]
    is_complete: bool
    message: str = ""
    """Why it is not complete, in Tempo's words."""


class FoundTrace(msgspec.Struct, frozen=True):
    """A trace that a search has found."""

    trace_id: str
    start_s: int
    """When it begins, in whole seconds."""


class _Found(msgspec.Struct):
    traceID: str
    startTimeUnixNano: str | int = 0


class _Search(msgspec.Struct):
    traces: list[_Found] | None = None
    metrics: dict[str, Any] | None = None


def trace_in(response: httpx.Response) -> TraceAnswer:
    """Read the answer to a question for one trace, in whichever of the two forms it comes.

    Raises:
        UndecodableError: it is in neither form, or holds no trace.
    """
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == PROTOBUF:
        return _from_protobuf(response.content)
    if media_type == JSON:
        return _from_json(response.content)
    raise UndecodableError(f"{media_type or 'no content type'}, which is no answer of Tempo's")


def traces_found(content: bytes) -> list[FoundTrace]:
    """Read the answer to a search.

    Raises:
        UndecodableError: it is none.
    """
    try:
        answer = msgspec.json.decode(content, type=_Search)
        # of a search that found nothing the list may be left out
        if answer.traces is None and answer.metrics is None:
            raise UndecodableError("neither `traces` nor `metrics`, which is no answer to a search")
        return [_found_trace(found) for found in answer.traces or ()]
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise UndecodableError(f"no answer to a search: {error}") from None


def _found_trace(found: _Found) -> FoundTrace:
    if not _TRACE_ID.fullmatch(found.traceID):
        raise UndecodableError(f"{found.traceID!r}, which is no trace id")
    # leading zeros are left out
    return FoundTrace(found.traceID.lower().rjust(32, "0"), int(found.startTimeUnixNano) // _NS_PER_S)


def _from_protobuf(content: bytes) -> TraceAnswer:
    """Read the message by the numbers of its fields: its classes are Tempo's own."""
    try:
        fields = UnknownFieldSet(Empty.FromString(content))
    except DecodeError as error:
        raise UndecodableError(f"protobuf that cannot be read: {error}") from None
    by_number: dict[int, list[Any]] = {}
    for place in range(len(fields)):
        by_number.setdefault(fields[place].field_number, []).append(fields[place].data)
    parts = [part for part in by_number.get(_TRACE, ()) if isinstance(part, bytes)]
    if not parts:
        raise UndecodableError("a message that holds no trace")
    status = by_number.get(_STATUS, [None])[-1]
    message = by_number.get(_MESSAGE, [b""])[-1]
    # a trace is the same message on the wire as OTLP's TracesData; parts of one message add up
    return TraceAnswer(
        spans=[received.span for received in decode_traces(b"".join(parts))],
        is_complete=status in _COMPLETE,
        message=message.decode(errors="replace") if isinstance(message, bytes) else "",
    )


def _from_json(content: bytes) -> TraceAnswer:
    try:
        answer = msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UndecodableError(f"JSON that cannot be read: {error}") from None
    match answer:
        case {"trace": dict(trace)}:
            return TraceAnswer(
                spans=[received.span for received in decode_traces(trace)],
                is_complete=answer.get("status") in _COMPLETE,
                message=str(answer.get("message") or ""),
            )
        case _:
            raise UndecodableError("JSON that holds no trace")
