"""Where each field of each event goes in OTLP, found by mapping it; `-m tests.otel.fields` prints a table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import msgspec

from tests.fields import ANY, CUSTOM, changed, pairs
from tracebridge.event import Json
from tracebridge.span import Span
from tracebridge_otel import names
from tracebridge_otel.mapping import to_wire


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Where one field goes."""

    event: str
    field: str
    span: tuple[str, ...]
    """Fields of the span."""
    places: tuple[str, ...]
    """Fields of OTLP's span, and attributes."""


def rows() -> Iterator[Row]:
    """Where every field goes."""
    for event, field, before, after in pairs():
        sent_before, sent_after = _sent(before), _sent(after)
        places = changed(sent_before, sent_after)
        if names.REMAINDER in places and len(places) > 1 and not _keeps_more(sent_before, sent_after):
            places.remove(names.REMAINDER)  # it only says that the value is elsewhere
        fields = changed(msgspec.structs.asdict(before), msgspec.structs.asdict(after))
        yield Row(event=event, field=field, span=tuple(fields), places=tuple(places))


def _sent(span: Span) -> dict[str, Json]:
    wire = to_wire(span)
    ids = {"traceId": wire.trace_id, "spanId": wire.span_id, "parentSpanId": wire.parent_id}
    times = {"startTimeUnixNano": wire.start_ns, "endTimeUnixNano": wire.end_ns}
    status = {"status.code": wire.status.name, "status.message": wire.status_message}
    return {**ids, "name": wire.name, **times, **status, **wire.attributes}


def _keeps_more(before: Mapping[str, Json], after: Mapping[str, Json]) -> bool:
    """Whether the remainder has a value that it did not have."""
    values = [json.loads(sent.get(names.REMAINDER, "{}")).get("values", {}) for sent in (before, after)]
    return bool(values[1].keys() - values[0].keys())


def table(found: Iterator[Row]) -> str:
    """The rows in Markdown."""
    lines = ["| event | field | where it is |", "| --- | --- | --- |"]
    for row in found:
        field = "anything else" if row.field == ANY else f"`{row.field}`"
        event = row.event if row.event in ("every event", CUSTOM) else f"`{row.event}`"
        lines.append(f"| {event} | {field} | {', '.join(f'`{name}`' for name in row.places)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(rows()))
