"""Where each value of an event lives in a span: one table, read in both directions.

A value has a home when the table names one and the value has a form that the field holds exactly, so that it can be
rebuilt from it; every other value stays in the `Edge` of its event. Law 1 stands on each line of the table doing so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from tracebridge import event as events
from tracebridge.event import Event, Json
from tracebridge.span import Edge, Prompt, Span, SpanError, SpanKind

KIND_OF: dict[str, SpanKind] = {
    events.SESSION_START: "session",
    events.SESSION_END: "session",
    events.TURN_START: "turn",
    events.TURN_END: "turn",
    events.LLM_REQUEST: "llm",
    events.LLM_RESPONSE: "llm",
    events.TOOL_CALL: "tool",
    events.TOOL_RESULT: "tool",
    events.THINKING: "thinking",
}
OPENING_TYPE: dict[SpanKind, str] = {
    "session": events.SESSION_START,
    "turn": events.TURN_START,
    "llm": events.LLM_REQUEST,
    "tool": events.TOOL_CALL,
    "thinking": events.THINKING,
}
CLOSING_TYPE: dict[SpanKind, str] = {
    "session": events.SESSION_END,
    "turn": events.TURN_END,
    "llm": events.LLM_RESPONSE,
    "tool": events.TOOL_RESULT,
}


class Home(msgspec.Struct, frozen=True):
    """The entry `key` of an event's data lives in the span's `field`, if it `fits`."""

    key: str
    field: str
    fits: Callable[[Json], bool]
    to_field: Callable[[Json], Any] | None = None
    """None where the field holds the value as it is."""
    from_field: Callable[[Any], Json] | None = None
    unsaid: Json = None
    """What the field of such a span holds also if no event says so: an event that does is kept to say it."""


def _is_value(value: Json) -> bool:
    return value is not None


def _is_text(value: Json) -> bool:
    return type(value) is str and value != ""


def _is_object(value: Json) -> bool:
    return type(value) is dict and bool(value)


def _is_list(value: Json) -> bool:
    return type(value) is list and bool(value)


def _is_texts(value: Json) -> bool:
    return _is_list(value) and all(type(entry) is str for entry in value)


def _is_true(value: Json) -> bool:
    return value is True


def _is_bool(value: Json) -> bool:
    return type(value) is bool


def _is_number(value: Json) -> bool:
    return type(value) in (int, float)


def _is_cost(value: Json) -> bool:
    return _is_number(value) or (_is_object(value) and all(_is_number(part) for part in value.values()))


def _is_prompt(value: Json) -> bool:
    return (
        type(value) is dict
        and value.keys() == {"name", "version"}
        and _is_text(value["name"])
        and type(value["version"]) is int
    )


def _is_error(value: Json) -> bool:
    if type(value) is dict:
        return value.keys() == {"type", "message"} and all(type(part) is str for part in value.values())
    return type(value) is str


def _error_to_field(value: Json) -> SpanError:
    if type(value) is str:
        return SpanError(message=value)
    return SpanError(type=value["type"], message=value["message"])


def _error_from_field(error: SpanError) -> Json:
    return error.message if error.type is None else {"type": error.type, "message": error.message}


_ERROR = Home("error", "error", _is_error, _error_to_field, _error_from_field)

HOMES: dict[str, tuple[Home, ...]] = {
    events.SESSION_START: (
        Home("metadata", "metadata", _is_object),
        Home("user_id", "user_id", _is_text),
        Home("agent_name", "agent_name", _is_text),
        Home("environment", "environment", _is_text),
        Home("release", "release", _is_text),
        Home("tags", "tags", _is_texts, tuple, list),
    ),
    events.SESSION_END: (Home("outcome", "output", _is_value), _ERROR),
    events.TURN_START: (
        Home("user_input", "input", _is_value),
        Home("remote_parent", "remote_parent", _is_true),
    ),
    events.TURN_END: (Home("output", "output", _is_value), _ERROR),
    events.LLM_REQUEST: (
        Home("model", "model", _is_text),
        Home("messages", "input", _is_value),
        Home("tools", "tool_definitions", _is_list),
        Home("model_parameters", "model_parameters", _is_object),
        Home(
            "prompt",
            "prompt",
            _is_prompt,
            lambda value: Prompt(name=value["name"], version=value["version"]),
            lambda prompt: {"name": prompt.name, "version": prompt.version},
        ),
        Home("provider", "provider", _is_text),
    ),
    events.LLM_RESPONSE: (
        Home("model", "response_model", _is_text),
        Home("content", "output", _is_value),
        Home("tool_calls", "tool_calls", _is_list),
        Home("tokens", "usage", _is_object),
        Home("cost", "cost", _is_cost),
        Home("thinking", "thinking", _is_value),
        Home("finish_reason", "finish_reason", _is_text),
        Home("response_id", "response_id", _is_text),
        Home("time_to_first_token_ms", "time_to_first_token_ms", _is_number),
        _ERROR,
    ),
    events.TOOL_CALL: (
        Home("tool_name", "name", _is_text, unsaid="tool"),
        Home("args", "input", _is_value),
        Home("call_id", "tool_call_id", _is_text),
    ),
    events.TOOL_RESULT: (
        Home(
            "success",
            "status",
            _is_bool,
            lambda value: "ok" if value else "error",
            lambda status: status == "ok",
        ),
        Home("result", "output", _is_value),
        _ERROR,
    ),
    events.THINKING: (Home("content", "output", _is_value),),
}

REPEATS: dict[str, tuple[tuple[str, str], ...]] = {
    events.LLM_RESPONSE: (("model", "model"),),
    events.TOOL_RESULT: (("tool_name", "name"), ("call_id", "tool_call_id")),
}
"""Entries of a closing event that say again what a field of the span, set by the opening event, says."""

_HOME_OF = {event_type: {home.key: home for home in homes} for event_type, homes in HOMES.items()}
_BARE = Span(kind="tool", trace_id="", span_id="", name="tool", start_ns=0, end_ns=0, session_id="")
"""A span of which no event has filled a field: what equals its fields was not said by an event."""
_WAY_BACK = {
    event_type: tuple((home.key, home.field, getattr(_BARE, home.field), home.from_field) for home in homes)
    for event_type, homes in HOMES.items()
}
_NO_HOMES: dict[str, Home] = {}

Fields = Mapping[str, Any]
"""The fields of a span by name; one that no event has filled may be missing."""


def settle(
    event_type: str, data: dict[str, Json], fields: dict[str, Any], repeats: tuple[str, ...] = ()
) -> dict[str, Json]:
    """Put the values of an event's data into the span's fields that are their homes; return those that have none.

    `repeats` are keys that the fields tell already.
    """
    homes = _HOME_OF.get(event_type, _NO_HOMES)
    homeless: dict[str, Json] = {}
    for key, value in data.items():
        home = homes.get(key)
        if home is None:
            if key not in repeats:
                homeless[key] = value
        elif not home.fits(value):
            homeless[key] = value
        elif key not in repeats:
            fields[home.field] = value if home.to_field is None else home.to_field(value)
            if home.unsaid is not None and value == home.unsaid:
                homeless[key] = value
    return homeless


def repeated(event_type: str, data: dict[str, Json], fields: Fields) -> tuple[str, ...]:
    """The keys of a closing event's data whose value a field of the span, set by the opening event, says already."""
    repeats = REPEATS.get(event_type)
    if repeats is None:
        return ()
    found: tuple[str, ...] = ()
    for key, field in repeats:
        value = data.get(key)
        if type(value) is str and value and fields.get(field) == value:
            found += (key,)
    return found


def event_object(span: Span, event_type: str, edge: Edge) -> dict[str, Json]:
    """The JSON object of the event that `edge` stands for, seven fields of the original format first."""
    fields = msgspec.structs.asdict(span)
    data = _data(fields, event_type, edge) | edge.fields
    rebuilt = _top_level(fields, event_type, edge, data) | edge.extra
    for name in edge.absent:
        if name.startswith("data."):
            data.pop(name[5:], None)
        else:
            rebuilt.pop(name, None)
    return rebuilt


def edge_of(
    event: Event,
    ordinal: int,
    homeless: dict[str, Json],
    repeats: tuple[str, ...] = (),
    absent: tuple[str, ...] = (),
) -> Edge:
    """The edge that `event` leaves at its span, if the span tells all of the line that is neither in it nor data.

    Args:
        event: the event.
        ordinal: its place.
        homeless: the values of its data that have no home in the span.
        repeats: the keys of its data that say again what the span says.
        absent: the keys that disassembling would add to its data.
    """
    return Edge(
        ordinal=ordinal,
        timestamp=event.timestamp,
        seq=event.seq,
        duration_ms=event.duration_ms,
        ids=bool(event.span_id),
        repeated=repeats,
        fields=homeless,
        absent=absent,
    )


def with_untold(edge: Edge, event: Event, span: Fields) -> Edge:
    """Add to the edge of an event what the span's fields do not tell of its line."""
    line = event.fields
    told = _top_level(span, event.event_type, edge, event.data)
    extra = {
        name: value
        for name, value in line.items()
        if name != "data" and not (name in told and _same(told[name], value))
    }
    absent = [*edge.absent, *(name for name in told if name != "data" and name not in line)]
    if "data" not in line:
        absent.append("data")
    elif line["data"] is None:
        extra["data"] = None
    return msgspec.structs.replace(edge, extra=extra, absent=tuple(absent)) if extra or absent else edge


def _top_level(fields: Fields, event_type: str, edge: Edge, data: dict[str, Json]) -> dict[str, Json]:
    """The entries of an event's line, as far as its span tells them."""
    told: dict[str, Json] = {
        "timestamp": edge.timestamp,
        "event_type": event_type,
        "session_id": fields["session_id"],
    }
    if fields["run_id"]:
        told["run_id"] = fields["run_id"]
    told["turn"] = fields["turn"]
    told["duration_ms"] = edge.duration_ms
    told["data"] = data
    if edge.seq is not None:
        told["seq"] = edge.seq
    if edge.ids:
        told["trace_id"] = fields["trace_id"]
        if fields["extent"] == "late":
            # a late event names the span that was given up without it, which is the late span's parent
            told["span_id"] = fields["parent_id"]
        else:
            told["span_id"] = fields["span_id"]
            if fields["parent_id"]:
                told["parent_id"] = fields["parent_id"]
    return told


def _data(fields: Fields, event_type: str, edge: Edge) -> dict[str, Json]:
    data: dict[str, Json] = {}
    for key, field, bare, from_field in _WAY_BACK.get(event_type, ()):
        if field in fields and (value := fields[field]) != bare:
            data[key] = value if from_field is None else from_field(value)
    for key, field in REPEATS.get(event_type, ()) if edge.repeated else ():
        if key in edge.repeated:
            data[key] = fields[field]
    return data


def _same(rebuilt: Json, value: Json) -> bool:
    """Whether a rebuilt value is the recorded one; equal numbers of different types are not the same."""
    return rebuilt is value or (type(rebuilt) is type(value) and rebuilt == value)
