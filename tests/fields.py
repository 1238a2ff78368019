"""Every field that an event may have, with a value of it, and the span that an event with it gives.

A field is sent with two values, or with one and not at all. What differs afterwards, in the span or in what an adapter
makes of it, is where the field is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from tracebridge import event as events
from tracebridge.assembler import Assembler, Place
from tracebridge.assembler.deadlines import LATEST_NS
from tracebridge.event import Json, event_from_json
from tracebridge.span import Span

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


def pairs() -> Iterator[tuple[str, str, Span, Span]]:
    """Of each field: the type of event, its name, and two spans: without it or with one value, and with the other."""
    for field, (one, other) in TOP_LEVEL.items():
        yield "every event", field, _span(_line({}, **{field: one})), _span(_line({}, **{field: other}))
    for event_type, fields in DATA.items():
        usual = _USUAL.get(event_type, {})
        for field, value in fields.items():
            outer, _, inner = field.partition(".")
            given = {outer: {inner: value} if inner else value}
            without = {key: item for key, item in usual.items() if key != field or field == "tool_name"}
            yield event_type, field, _span(_of(event_type, without)), _span(_of(event_type, {**usual, **given}))
    for event_type in DATA:
        if event_type != CUSTOM:
            usual = _USUAL.get(event_type, {})
            yield event_type, ANY, _span(_of(event_type, usual)), _span(_of(event_type, {**usual, ANY: 1}))


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


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return [name for name in {**before, **after} if before.get(name) != after.get(name)]
