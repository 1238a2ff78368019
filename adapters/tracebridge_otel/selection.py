"""Of the spans that a backend shows, those that a query asks for; and windows of time that hold too many of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tracebridge.sink import Query
from tracebridge.span import Span
from tracebridge_otel import names
from tracebridge_otel.limit import is_cut
from tracebridge_otel.mapping import from_wire
from tracebridge_otel.remainder import text_in
from tracebridge_otlp.wire import WireSpan

Window = tuple[int, int]
"""The first and the last moment, in units of the backend's own."""


def selected(found: Iterable[WireSpan], query: Query, precision_ns: int = 1) -> Iterator[Span]:
    """Yield the spans that `query` asks for, of a backend that keeps times in steps of `precision_ns` at the least.

    Of a session these are its own spans, and those of other senders in the same traces.
    """
    for wire in found:
        if not _is_in_window(wire, query, precision_ns):
            continue
        if query.session_id is not None and not _concerns(wire, query.session_id):
            continue
        yield _ids_of(wire) if query.ids_only else from_wire(wire)


def halves(window: Window, starts: Sequence[int]) -> tuple[Window, Window] | None:
    """Split a window where half of what was found in it begins, so that few searches reach the end.

    None if it is one moment already.
    """
    first, last = window
    if first >= last:
        return None
    inside = sorted(start for start in starts if first <= start <= last)
    middle = min(inside[len(inside) // 2] if inside else (first + last) // 2, last - 1)
    return (first, middle), (middle + 1, last)


def _is_in_window(wire: WireSpan, query: Query, precision_ns: int) -> bool:
    # the backend may have cut the time, so the bounds are cut too
    start = wire.start_ns // precision_ns
    after_start = query.start_ns is None or start >= query.start_ns // precision_ns
    before_end = query.end_ns is None or start < -(-query.end_ns // precision_ns)
    return after_start and before_end


def _concerns(wire: WireSpan, session_id: str) -> bool:
    """Whether a span of a trace that the session takes part in is the session's own, or nobody's of ours."""
    return session_of(wire) == session_id or names.FINGERPRINT not in wire.attributes


def session_of(wire: WireSpan) -> str:
    """The session that a span names, whole."""
    text = text_in(wire.attributes, names.SESSION_ID)
    return from_wire(wire).session_id if is_cut(text) else text


def _ids_of(wire: WireSpan) -> Span:
    return Span(
        kind="event",
        trace_id=wire.trace_id,
        span_id=wire.span_id,
        name=wire.name,
        start_ns=wire.start_ns,
        end_ns=wire.end_ns,
        session_id=session_of(wire),
        fingerprint=text_in(wire.attributes, names.FINGERPRINT),
    )
