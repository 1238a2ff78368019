"""Where each field of each event goes in LangFuse, found by sending it; `-m tests.langfuse.fields` prints a table.

A field is sent with two values, or with one and not at all. What differs, in the span, in the attributes that are
sent and in the observation that LangFuse answers with, is where the field is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import httpx
import msgspec

from tests.langfuse.conftest import settings_of
from tracebridge import event as events
from tracebridge.assembler import Assembler, Place
from tracebridge.assembler.deadlines import LATEST_NS
from tracebridge.devserver import DevServer
from tracebridge.event import Json, event_from_json
from tracebridge.sink import Outcome, Query
from tracebridge.span import Span
from tracebridge.validation.comparison import compare
from tracebridge_langfuse import names
from tracebridge_langfuse.losses import LOSSES
from tracebridge_langfuse.mapping import to_wire
from tracebridge_langfuse.reader import LangfuseReader
from tracebridge_langfuse.sink import LangfuseSink

ERROR: Final = {"type": "RateLimitError", "message": "try again"}
CUSTOM: Final = "an unknown type"
ANY: Final = "any"

DATA: Final[Mapping[str, Mapping[str, Json]]] = {
    events.SESSION_START: {
        "metadata": {"plan": "gold"},
        "metadata.version": "1.4.2",
        "user_id": "u-1",
        "agent_name": "helper",
        "environment": "production",
        "release": "r-9",
        "tags": ["vip"],
    },
    events.SESSION_END: {"outcome": "solved", "total_turns": 3, "error": ERROR},
    events.TURN_START: {"user_input": "Hello!", "remote_parent": True},
    events.TURN_END: {"output": "Hi!", "error": ERROR},
    events.LLM_REQUEST: {
        "model": "acme-1",
        "messages": [{"role": "user", "content": "Hello!"}],
        "tools": [{"type": "function", "function": {"name": "search"}}],
        "model_parameters": {"temperature": 0.5},
        "prompt": {"name": "greeting", "version": 3},
        "provider": "openai",
    },
    events.LLM_RESPONSE: {
        "model": "acme-1-2026-02",
        "content": "Hi!",
        "tool_calls": [{"id": "call-1", "name": "search", "args": {}}],
        "tokens": {"prompt": 100, "completion": 20},
        "cost": 0.25,
        "thinking": "They greet me.",
        "finish_reason": "stop",
        "response_id": "resp-1",
        "time_to_first_token_ms": 250,
        "error": ERROR,
    },
    events.TOOL_CALL: {"tool_name": "search", "args": {"q": "weather"}, "call_id": "call-1"},
    events.TOOL_RESULT: {
        "tool_name": "book",
        "success": False,
        "result": {"celsius": 4},
        "error": ERROR,
        "call_id": "call-0",
    },
    events.THINKING: {"content": "They greet me.", "stage": "plan", "tokens": 12},
    CUSTOM: {ANY: 1},
}
"""By type of event: a value of each entry of its `data`."""

TOP_LEVEL: Final[Mapping[str, tuple[Json, Json]]] = {
    "timestamp": ("2026-02-06T22:10:01.123Z", "2026-02-06T22:10:01.623456Z"),
    "session_id": ("user-1", "user-2"),
    "run_id": ("run-1", "run-2"),
    "turn": (1, 2),
    "duration_ms": (None, 1500.0),
    "seq": (4, 5),
    "trace_id": ("5b8efff798038103d269b633813fc60c", "5b8efff798038103d269b633813fc60d"),
    "span_id": ("eee19b7ec3c1b174", "eee19b7ec3c1b175"),
    "parent_id": ("eee19b7ec3c1b172", "eee19b7ec3c1b173"),
    ANY: (None, "x"),
}
"""Two values of each other field of a line."""

_PAIR: Final = {
    events.SESSION_START: events.SESSION_END,
    events.TURN_START: events.TURN_END,
    events.LLM_REQUEST: events.LLM_RESPONSE,
    events.TOOL_CALL: events.TOOL_RESULT,
}
_OPENING: Final = {closing: opening for opening, closing in _PAIR.items()}
_USUAL: Final[Mapping[str, Mapping[str, Json]]] = {
    events.TOOL_CALL: {"tool_name": "book", "call_id": "call-0"},
    events.LLM_REQUEST: {"model": "acme-1"},  # a model that the server does not know: it counts no tokens for it
}
"""What an event has anyway, beside the field that is looked at."""

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
        for field, (one, other) in TOP_LEVEL.items():
            yield self._row("every event", field, _line({}, **{field: one}), _line({}, **{field: other}))
        for event_type, fields in DATA.items():
            usual = _USUAL.get(event_type, {})
            for field, value in fields.items():
                outer, _, inner = field.partition(".")
                given = {outer: {inner: value} if inner else value}
                without = {key: item for key, item in usual.items() if key != field or field == "tool_name"}
                yield self._row(event_type, field, _of(event_type, without), _of(event_type, {**usual, **given}))
        for event_type in DATA:
            if event_type != CUSTOM:
                usual = _USUAL.get(event_type, {})
                yield self._row(event_type, ANY, _of(event_type, usual), _of(event_type, {**usual, ANY: 1}))

    def _row(self, event: str, field: str, without: list[dict[str, Json]], given: list[dict[str, Json]]) -> Row:
        before, after = _span(without), _span(given)
        sent_before, sent_after = _sent(before), _sent(after)
        shown_before, _ = self._shown(before)
        shown_after, back = self._shown(after)
        attributes = _changed(sent_before, sent_after)
        if _REMAINDER in attributes and not _keeps_more(sent_before, sent_after) and len(attributes) > 1:
            attributes.remove(_REMAINDER)  # it only says that the value is elsewhere
        shown = _changed(shown_before, shown_after)
        if _REMAINDER not in attributes and f"metadata.{names.REMAINDER}" in shown:
            shown.remove(f"metadata.{names.REMAINDER}")
        return Row(
            event=event,
            field=field,
            span=tuple(_changed(msgspec.structs.asdict(before), msgspec.structs.asdict(after))),
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


def _line(data: Mapping[str, Json], event_type: str = CUSTOM, **fields: Json) -> list[dict[str, Json]]:
    line = {"event_type": event_type, "data": data}
    usual = {name: one for name, (one, _) in TOP_LEVEL.items() if name != ANY}
    return [{**usual, **line, **{name: value for name, value in fields.items() if name != ANY or value is not None}}]


def _of(event_type: str, data: Mapping[str, Json]) -> list[dict[str, Json]]:
    """A line with this data, and its counterpart."""
    if event_type in _PAIR:
        return [*_line(data, event_type), *_line({}, _PAIR[event_type])]
    if event_type in _OPENING:
        opening = _OPENING[event_type]
        return [*_line(_USUAL.get(opening, {}), opening), *_line(data, event_type)]
    return _line(data, event_type)


def _span(journal: list[dict[str, Json]]) -> Span:
    assembler = Assembler()
    made = [
        span for number, line in enumerate(journal) for span in assembler.feed(event_from_json(line), Place(0, number))
    ]
    (span,) = made + assembler.expire(LATEST_NS)
    return msgspec.structs.replace(span, fingerprint="f1")


def _sent(span: Span) -> dict[str, Json]:
    wire = to_wire(span)
    ids = {"traceId": wire.trace_id, "spanId": wire.span_id, "parentSpanId": wire.parent_id}
    times = {"startTimeUnixNano": wire.start_ns, "endTimeUnixNano": wire.end_ns}
    return {**ids, "name": wire.name, **times, **wire.attributes}


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return [name for name in {**before, **after} if before.get(name) != after.get(name)]


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
