"""`disassemble`: the way back, from spans to the events they were made of."""

from __future__ import annotations

from collections.abc import Iterable

from tracebridge.assembler.homes import CLOSING_TYPE, OPENING_TYPE, event_object
from tracebridge.event import Json
from tracebridge.span import Span


def disassemble(spans: Iterable[Span]) -> list[dict[str, Json]]:
    """The events of one session's spans, as the JSON objects of its journal's lines, in file order.

    `spans` may come in any order; each span once. Spans that tracebridge did not make have no edges and give nothing.
    """
    placed: list[tuple[int, dict[str, Json]]] = []
    for span in spans:
        if span.opened is not None:
            opening_type = span.name if span.kind == "event" else OPENING_TYPE[span.kind]
            placed.append((span.opened.ordinal, event_object(span, opening_type, span.opened)))
        if span.closed is not None:
            placed.append((span.closed.ordinal, event_object(span, CLOSING_TYPE[span.kind], span.closed)))
    placed.sort(key=lambda entry: entry[0])
    return [event for _, event in placed]
