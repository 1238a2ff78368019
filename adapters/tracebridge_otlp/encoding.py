"""`WireSpan` to OTLP protobuf, one span at a time.

A long call holds the interpreter for its whole length and so stalls the agent's threads. Spans are therefore
encoded one by one, and a request is put together from the encoded spans by framing alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from struct import Struct
from typing import Final

from tracebridge_otlp.attributes import encode_attributes
from tracebridge_otlp.protobuf import fixed64, head, sized, sized_unless_empty, utf8, varint
from tracebridge_otlp.wire import Attributes, WireEvent, WireLink, WireScope, WireSpan

_FIXED64_MAX: Final = 2**64 - 1
_times: Final = Struct("<cQcQ").pack
"""Two fields of eight bytes, each after its tag."""

_EXPORT_RESOURCE_SPANS: Final = b"\x0a"
_RESOURCE_SPANS_RESOURCE: Final = b"\x0a"
_RESOURCE_SPANS_SCOPE_SPANS: Final = b"\x12"
_RESOURCE_ATTRIBUTE: Final = b"\x0a"
_SCOPE_SPANS_SCOPE: Final = b"\x0a"
_SCOPE_SPANS_SPAN: Final = b"\x12"
_SCOPE_NAME: Final = b"\x0a"
_SCOPE_VERSION: Final = b"\x12"
_SCOPE_ATTRIBUTE: Final = b"\x1a"
_SPAN_TRACE_ID: Final = b"\x0a"
_SPAN_SPAN_ID: Final = b"\x12"
_SPAN_PARENT_ID: Final = b"\x22"
_SPAN_NAME: Final = b"\x2a"
_SPAN_KIND: Final = b"\x30"
_SPAN_START: Final = b"\x39"
_SPAN_END: Final = b"\x41"
_SPAN_ATTRIBUTE: Final = b"\x4a"
_SPAN_EVENT: Final = b"\x5a"
_SPAN_LINK: Final = b"\x6a"
_SPAN_STATUS: Final = b"\x7a"
_EVENT_TIME: Final = b"\x09"
_EVENT_NAME: Final = b"\x12"
_EVENT_ATTRIBUTE: Final = b"\x1a"
_LINK_TRACE_ID: Final = b"\x0a"
_LINK_SPAN_ID: Final = b"\x12"
_LINK_ATTRIBUTE: Final = b"\x22"
_STATUS_MESSAGE: Final = b"\x12"
_STATUS_CODE: Final = b"\x18"


def encode_span(span: WireSpan) -> bytes:
    """Encode one span as a part for `join`.

    It never raises on content. What OTLP cannot hold is replaced: a lone surrogate by U+FFFD, an integer of
    more than 64 bits by its decimal text, a time outside of 64 bits by the nearest that fits; an attribute
    without a value is left out. A mapping that must not lose such a value keeps it elsewhere. The ids MUST be
    hex.
    """
    start_ns, end_ns = span.start_ns, span.end_ns
    pieces = [
        _id(_SPAN_TRACE_ID, span.trace_id),
        sized(_SPAN_SPAN_ID, bytes.fromhex(span.span_id)),
        _id(_SPAN_PARENT_ID, span.parent_id) if span.parent_id else b"",
        _name_and_kind(span.name, int(span.kind)),
        _times(
            _SPAN_START,
            start_ns if 0 <= start_ns <= _FIXED64_MAX else _nearest(start_ns),
            _SPAN_END,
            end_ns if 0 <= end_ns <= _FIXED64_MAX else _nearest(end_ns),
        ),
    ]
    pieces += encode_attributes(_SPAN_ATTRIBUTE, span.attributes)
    if span.events:
        pieces += map(_event, span.events)
    if span.links:
        pieces += map(_link, span.links)
    if span.status or span.status_message:
        message = sized_unless_empty(_STATUS_MESSAGE, utf8(span.status_message))
        pieces.append(sized(_SPAN_STATUS, message + _STATUS_CODE + varint(span.status)))
    return sized(_SCOPE_SPANS_SPAN, b"".join(pieces))


@lru_cache(maxsize=256)
def _id(tag: bytes, digits: str) -> bytes:
    """An id as a field; the spans of a turn share their trace and their parent."""
    return sized(tag, bytes.fromhex(digits))


@lru_cache(maxsize=256)
def _name_and_kind(name: str, kind: int) -> bytes:
    return sized_unless_empty(_SPAN_NAME, utf8(name)) + _SPAN_KIND + varint(kind)


def join(parts: Sequence[bytes], resource: Attributes, scope: WireScope) -> bytes:
    """Make one `ExportTraceServiceRequest` of parts from `encode_span`, all under one resource and scope."""
    # a request has megabytes: its pieces are copied once, at the end, where Python lets other threads run
    pieces = [_scope(scope), *parts]
    pieces.insert(0, head(_RESOURCE_SPANS_SCOPE_SPANS, pieces))
    resource_attributes = b"".join(encode_attributes(_RESOURCE_ATTRIBUTE, resource))
    pieces.insert(0, sized(_RESOURCE_SPANS_RESOURCE, resource_attributes))
    pieces.insert(0, head(_EXPORT_RESOURCE_SPANS, pieces))
    return b"".join(pieces)


def _scope(scope: WireScope) -> bytes:
    pieces = (
        sized_unless_empty(_SCOPE_NAME, utf8(scope.name)),
        sized_unless_empty(_SCOPE_VERSION, utf8(scope.version)),
        *encode_attributes(_SCOPE_ATTRIBUTE, scope.attributes),
    )
    return sized(_SCOPE_SPANS_SCOPE, b"".join(pieces))


def _event(event: WireEvent) -> bytes:
    pieces = (
        _EVENT_TIME,
        _time(event.time_ns),
        sized_unless_empty(_EVENT_NAME, utf8(event.name)),
        *encode_attributes(_EVENT_ATTRIBUTE, event.attributes),
    )
    return sized(_SPAN_EVENT, b"".join(pieces))


def _link(link: WireLink) -> bytes:
    pieces = (
        sized_unless_empty(_LINK_TRACE_ID, bytes.fromhex(link.trace_id)),
        sized_unless_empty(_LINK_SPAN_ID, bytes.fromhex(link.span_id)),
        *encode_attributes(_LINK_ATTRIBUTE, link.attributes),
    )
    return sized(_SPAN_LINK, b"".join(pieces))


def _time(time_ns: int) -> bytes:
    return fixed64(_nearest(time_ns))


def _nearest(time_ns: int) -> int:
    return min(max(time_ns, 0), _FIXED64_MAX)
