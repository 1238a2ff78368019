"""`narrow_event` and `narrow_span`: what a policy leaves of an event, and of a span that was made already."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from tracebridge import event as events
from tracebridge.assembler.assemble import Assembler
from tracebridge.assembler.deadlines import LATEST_NS
from tracebridge.assembler.disassemble import disassemble
from tracebridge.assembler.homes import HOMES, Home
from tracebridge.assembler.opening import Place
from tracebridge.event import Event, Json, event_from_json
from tracebridge.span import Edge, Span

Narrowing = Callable[[str, dict[str, Json]], dict[str, Json]]
"""What a policy leaves of an event's data: takes the event's type and data, returns data."""

_OF_THE_JOURNAL: Final = (
    *("kind", "trace_id", "span_id", "parent_id", "remote_parent", "start_ns", "end_ns", "extent"),
    *("session_id", "run_id", "turn", "links"),
)
"""What a span has of its events' places and times, which no policy changes."""


def narrower(narrowing: Narrowing, untouched_size: int) -> Callable[[Event], Event]:
    """`narrow_event` under a policy that is known to leave lines of at most `untouched_size` bytes as they are."""

    def narrow(event: Event) -> Event:
        return event if event.size <= untouched_size else narrow_event(narrowing, event)

    return narrow


def narrow_event(narrowing: Narrowing, event: Event) -> Event:
    """Return what a policy leaves of an event; the same object when that is all of it."""
    data = narrowing(event.event_type, event.data)
    return event if data is event.data else event.with_data(data)


def narrow_span(narrowing: Narrowing, span: Span) -> Span:
    """Return the span that the assembler would have made had the policy narrowed its events.

    `span` was made by the assembler under a policy that the other one includes.
    """
    assembler = Assembler(lambda event: narrow_event(narrowing, event))
    made: list[Span] = []
    for ordinal, line in enumerate([*_session_before(span), *_answer_before(span), *disassemble([span])]):
        # all at one time: how long to wait for an end was decided when the span was made
        event = msgspec.structs.replace(event_from_json(line), time_ns=0)
        made += assembler.feed(event, Place(0, ordinal))
    made += assembler.expire(LATEST_NS)
    (narrowed,) = [one for one in made if (one.kind, one.extent) == (span.kind, span.extent)]
    kept = {name: getattr(span, name) for name in _OF_THE_JOURNAL}
    return msgspec.structs.replace(
        narrowed,
        opened=_in_place(narrowed.opened, span.opened),
        closed=_in_place(narrowed.closed, span.closed),
        fingerprint=span.fingerprint,
        **kept,
    )


def _session_before(span: Span) -> list[dict[str, Json]]:
    """The start of the span's session, as far as the span tells of it; nothing for the span that tells it itself."""
    edge = span.opened or span.closed
    if edge is None or (span.kind == "session" and span.extent != "late"):
        return []
    homes = HOMES[events.SESSION_START]
    said = {home.key: _from_field(home, getattr(span, home.field)) for home in homes}
    start = {"timestamp": edge.timestamp, "event_type": events.SESSION_START, "session_id": span.session_id}
    # an id that is not the span's: a late end must not meet its like
    own_id = {"trace_id": "f" * 32, "span_id": ("e" if span.parent_id == "f" * 16 else "f") * 16}
    return [start | own_id | {"run_id": span.run_id, "data": {key: value for key, value in said.items() if value}}]


def _answer_before(span: Span) -> list[dict[str, Json]]:
    """A call with the answer that the span's event repeats; nothing for a span that does not stand for a repeat."""
    if span.kind != "event" or span.name != events.LLM_RESPONSE:
        return []
    (again,) = disassemble([span])
    own_id = {"trace_id": "d" * 32, "span_id": "d" * 16}
    return [again | own_id | {"event_type": events.LLM_REQUEST, "data": {}}, again | own_id]


def _from_field(home: Home, value: Any) -> Json:
    return value if home.from_field is None else home.from_field(value)


def _in_place(edge: Edge | None, original: Edge | None) -> Edge | None:
    if edge is None or original is None:
        return None
    return msgspec.structs.replace(edge, ordinal=original.ordinal)
