"""Where each field of each event goes in LangFuse, found by sending it; `-m tests.langfuse.fields` prints a table.

What differs, in the span, in the attributes that are sent and in the observation that LangFuse answers with, is where
the field is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Final

import httpx
import msgspec

from tests.fields import ANY, CUSTOM, changed, pairs
from tests.langfuse.conftest import settings_of
from tracebridge.devserver import DevServer
from tracebridge.event import Json
from tracebridge.sink import Outcome, Query
from tracebridge.span import Span
from tracebridge.validation.comparison import compare
from tracebridge_langfuse import names
from tracebridge_langfuse.losses import LOSSES
from tracebridge_langfuse.mapping import to_wire
from tracebridge_langfuse.reader import LangfuseReader
from tracebridge_langfuse.sink import LangfuseSink

_DERIVED: Final = frozenset(
    {
        *("createdAt", "updatedAt", "latency", "timeToFirstToken", "internalModelId", "modelId"),
        *(
            "inputPrice",
            "outputPrice",
            "inputUsage",
            "outputUsage",
            "totalUsage",
            "inputCost",
            "outputCost",
            "totalCost",
        ),
        *("usagePricingTierId", "usagePricingTierName"),
    }
)
"""What LangFuse computes of the other fields."""

_REMAINDER: Final = names.METADATA + names.REMAINDER


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Where one field goes."""

    event: str
    field: str
    span: tuple[str, ...]
    """Fields of the span."""
    attributes: tuple[str, ...]
    shown: tuple[str, ...]
    """Fields of the observation as the public API names them."""
    back: str
    """`equal`, or the names of the losses up to which the span that is read back is equal."""


class Finder:
    """Sends fields to a development backend."""

    def __init__(self, backend: DevServer) -> None:
        self._backend = backend
        self._sink = LangfuseSink(settings_of(backend))
        self._reader = LangfuseReader(settings_of(backend))

    def close(self) -> None:
        self._sink.close()
        self._reader.close()

    def rows(self) -> Iterator[Row]:
        """Where every field goes."""
        for event, field, before, after in pairs():
            yield self._row(event, field, before, after)

    def _row(self, event: str, field: str, before: Span, after: Span) -> Row:
        sent_before, sent_after = _sent(before), _sent(after)
        shown_before, _ = self._shown(before)
        shown_after, back = self._shown(after)
        attributes = changed(sent_before, sent_after)
        if _REMAINDER in attributes and not _keeps_more(sent_before, sent_after) and len(attributes) > 1:
            attributes.remove(_REMAINDER)  # it only says that the value is elsewhere
        shown = changed(shown_before, shown_after)
        if _REMAINDER not in attributes and f"metadata.{names.REMAINDER}" in shown:
            shown.remove(f"metadata.{names.REMAINDER}")
        return Row(
            event=event,
            field=field,
            span=tuple(changed(msgspec.structs.asdict(before), msgspec.structs.asdict(after))),
            attributes=tuple(attributes),
            shown=tuple(shown),
            back=back,
        )

    def _shown(self, span: Span) -> tuple[dict[str, Json], str]:
        self._backend.clear()
        assert self._sink.deliver(self._sink.join([self._sink.encode(span)])).outcome is Outcome.ACCEPTED
        (found,) = self._reader.read(Query(trace_ids=(span.trace_id,)))
        comparison = compare([span], [found], LOSSES)
        assert comparison.findings == (), comparison.findings
        back = ", ".join(f"`{name}`" for name in comparison.losses) or "equal"
        groups = "core,basic,time,io,metadata,model,usage,prompt,metrics,trace_context"
        url = f"{self._backend.url}/api/public/v2/observations"
        keys = (self._backend.public_key, self._backend.secret_key)
        (row,) = httpx.get(url, params={"fields": groups}, auth=keys).json()["data"]
        metadata = {f"metadata.{key}": value for key, value in row.pop("metadata").items()}
        return {key: value for key, value in row.items() if key not in _DERIVED} | metadata, back


def _sent(span: Span) -> dict[str, Json]:
    wire = to_wire(span)
    ids = {"traceId": wire.trace_id, "spanId": wire.span_id, "parentSpanId": wire.parent_id}
    times = {"startTimeUnixNano": wire.start_ns, "endTimeUnixNano": wire.end_ns}
    return {**ids, "name": wire.name, **times, **wire.attributes}


def _keeps_more(before: Mapping[str, Json], after: Mapping[str, Json]) -> bool:
    """Whether the remainder has an exact copy that it did not have."""
    exact = [json.loads(json.loads(sent[_REMAINDER])).get("exact", {}) for sent in (before, after)]
    return bool(exact[1].keys() - exact[0].keys())


def table(rows: list[Row]) -> str:
    """The rows in Markdown."""
    lines = ["| event | field | attribute | shown as | reads back |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        field = "anything else" if row.field == ANY else f"`{row.field}`"
        event = row.event if row.event in ("every event", CUSTOM) else f"`{row.event}`"
        attributes, shown = (", ".join(f"`{name}`" for name in found) for found in (row.attributes, row.shown))
        lines.append(f"| {event} | {field} | {attributes} | {shown} | {row.back} |")
    return "\n".join(lines).replace(f"{names.METADATA}any", f"{names.METADATA}…").replace("metadata.any", "metadata.…")


def found() -> list[Row]:
    """Where every field goes, found with a development backend of its own."""
    with DevServer() as backend:
        finder = Finder(backend)
        try:
            return list(finder.rows())
        finally:
            finder.close()


if __name__ == "__main__":
    print(table(found()))
