"""Where each value of an event lives in a span: one table, read in both directions.

A value has a home when the table names one and the value has the form that the field can hold; every other value
stays in the `Edge` of its event. What the table cannot rebuild exactly is found by rebuilding and comparing, so
that law 1 holds by construction, whatever an event holds.
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

    @property
    def bare(self) -> Any:
        """The field's value in a span of which no event has filled it."""
        return getattr(_BARE, self.field)


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
        Home("tool_name", "name", _is_text),
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

_BARE = Span(kind="tool", trace_id="", span_id="", name="tool", start_ns=0, end_ns=0, session_id="")
"""A span of which no event has filled a field: what equals its fields was not said by an event."""

_WAY_BACK = {
    event_type: tuple((home.key, home.field, home.bare, home.from_field) for home in homes)
    for event_type, homes in HOMES.items()
}

Fields = Mapping[str, Any]
"""The fields of a span by name; one that no event has filled may be missing."""


def settled(event_type: str, data: dict[str, Json]) -> dict[str, Any]:
    """The span fields that an event's data fills."""
    fields: dict[str, Any] = {}
    for home in HOMES.get(event_type, ()):
        value = data.get(home.key)
        if value is not None and home.fits(value):
            fields[home.field] = value if home.to_field is None else home.to_field(value)
    return fields


def repeated(event_type: str, data: dict[str, Json], fields: Fields) -> tuple[str, ...]:
    """The keys of a closing event's data whose value a field of the span, set by the opening event, says already."""
    repeats = REPEATS.get(event_type)
    if repeats is None:
        return ()
    return tuple(
        key
        for key, field in repeats
        if type(data.get(key)) is str and data[key] != "" and fields.get(field) == data[key]
    )


def event_object(span: Span, event_type: str, edge: Edge) -> dict[str, Json]:
    """The JSON object of the event that `edge` stands for, seven fields of the original format first."""
    rebuilt = _top_level(msgspec.structs.asdict(span), event_type, edge)
    data = rebuilt["data"]
    data.update(edge.fields)
    rebuilt.update(edge.extra)
    for name in edge.absent:
        if name.startswith("data."):
            data.pop(name[5:], None)
        else:
            rebuilt.pop(name, None)
    return rebuilt


def edge_of(event: Event, fields: Fields, ordinal: int, repeats: tuple[str, ...]) -> Edge:
    """The edge that `event` leaves at the span of `fields`: whatever these do not tell of it."""
    seq = event.fields.get("seq")
    edge = Edge(
        ordinal=ordinal,
        timestamp=event.timestamp,
        seq=seq if type(seq) is int else None,
        duration_ms=event.duration_ms,
        ids=event.has_ids,
        repeated=repeats,
    )
    rebuilt = _top_level(fields, event.event_type, edge)
    data, rebuilt["data"] = rebuilt["data"], event.data
    rest = {key: value for key, value in event.data.items() if not (key in data and _same(data[key], value))}
    absent = [f"data.{key}" for key in data if key not in event.data]
    extra: dict[str, Json] = {}
    # as a rule the top level is told whole; it holds no two numbers that are equal and not the same
    if rebuilt != event.fields:
        del rebuilt["data"]
        extra = {
            name: value
            for name, value in event.fields.items()
            if name != "data" and not (name in rebuilt and _same(rebuilt[name], value))
        }
        absent += [name for name in rebuilt if name not in event.fields]
        if "data" not in event.fields:
            absent.append("data")
        elif event.fields["data"] is None:
            extra["data"] = None
    if not (rest or extra or absent):
        return edge
    return msgspec.structs.replace(edge, fields=rest, extra=extra, absent=tuple(absent))


def _top_level(fields: Fields, event_type: str, edge: Edge) -> dict[str, Json]:
    rebuilt: dict[str, Json] = {
        "timestamp": edge.timestamp,
        "event_type": event_type,
        "session_id": fields["session_id"],
    }
    if fields["run_id"]:
        rebuilt["run_id"] = fields["run_id"]
    rebuilt["turn"] = fields["turn"]
    rebuilt["duration_ms"] = edge.duration_ms
    rebuilt["data"] = _data(fields, event_type, edge)
    if edge.seq is not None:
        rebuilt["seq"] = edge.seq
    if edge.ids:
        rebuilt["trace_id"] = fields["trace_id"]
        if fields["extent"] == "late":
            # a late event names the span that was given up without it, which is the late span's parent
            rebuilt["span_id"] = fields["parent_id"]
        else:
            rebuilt["span_id"] = fields["span_id"]
            if fields["parent_id"]:
                rebuilt["parent_id"] = fields["parent_id"]
    return rebuilt


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
