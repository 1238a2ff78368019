"""`Event`: one line of the journal, as the original Agent Trace format has it.

The seven fields of the original come first and in its order, so that grep and jq recipes keep working. `seq`,
`trace_id`, `span_id` and `parent_id` are what tracebridge adds to make delivery exact; files without them are
first-class input.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final, TypeGuard, TypeVar

import msgspec

Json = Any
"""A JSON value: None, bool, int, float, str, list of JSON values, or dict of str to JSON value."""

SESSION_START: Final = "session.start"
SESSION_END: Final = "session.end"
TURN_START: Final = "turn.start"
TURN_END: Final = "turn.end"
LLM_REQUEST: Final = "llm.request"
LLM_RESPONSE: Final = "llm.response"
TOOL_CALL: Final = "tool.call"
TOOL_RESULT: Final = "tool.result"
THINKING: Final = "thinking"

EVENT_TYPES: Final = (
    SESSION_START,
    SESSION_END,
    TURN_START,
    TURN_END,
    LLM_REQUEST,
    LLM_RESPONSE,
    TOOL_CALL,
    TOOL_RESULT,
    THINKING,
)

T = TypeVar("T")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TRACE_ID = re.compile(r"(?!0{32})[0-9a-f]{32}")
_SPAN_ID = re.compile(r"(?!0{16})[0-9a-f]{16}")
_FRACTION = re.compile(r"^([^.,]*)[.,](\d+)(.*)$")

_original_fields = itemgetter("timestamp", "event_type", "session_id", "run_id", "turn", "duration_ms", "data")
_USUAL_TYPES: Final = frozenset((str, str, str, str, int, duration, dict) for duration in (type(None), int, float))
"""The types of these fields in a line that needs no closer look."""


class NotAnEventError(ValueError):
    """A JSON value that is no event: says which field is missing or of the wrong type."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded event.

    `fields` is the whole JSON object of the line; the typed attributes are read from it, so that nothing that a
    line holds, known to us or not, is lost on the way.
    """

    timestamp: str
    """ISO 8601 text as written, e.g. `2026-02-06T22:10:00.123Z`."""
    time_ns: int
    """`timestamp` in nanoseconds since 1970-01-01T00:00:00Z; a text without a zone is read as UTC."""
    event_type: str
    session_id: str
    run_id: str
    """Empty when the line has none."""
    turn: int
    """0 when the line has none."""
    duration_ms: float | int | None
    data: dict[str, Json]
    """Empty when the line has none."""
    trace_id: str
    """32 lower-case hex digits, or empty in files of the original format."""
    span_id: str
    """16 lower-case hex digits, or empty in files of the original format."""
    parent_id: str
    """16 lower-case hex digits, or empty for a root and in files of the original format."""
    fields: dict[str, Json]

    @property
    def has_ids(self) -> bool:
        """Whether the event names its trace and span itself."""
        return bool(self.span_id)


def event_from_json(value: Json) -> Event:
    """Read one decoded journal line as an event.

    Raises:
        NotAnEventError: `value` is not an object with the fields of an event.
    """
    if type(value) is not dict:
        raise NotAnEventError(f"expected an object, found {_json_type(value)}")
    try:
        found = _original_fields(value)
    except KeyError:
        found = _checked(value)
    else:
        if tuple(map(type, found)) not in _USUAL_TYPES:
            found = _checked(value)
    timestamp, event_type, session_id, run_id, turn, duration_ms, data = found
    trace_id, span_id, parent_id = _ids(value)
    return Event(
        timestamp=timestamp,
        time_ns=timestamp_ns(timestamp),
        event_type=event_type,
        session_id=session_id,
        run_id=run_id,
        turn=turn,
        duration_ms=duration_ms,
        data=data,
        trace_id=trace_id,
        span_id=span_id,
        parent_id=parent_id,
        fields=value,
    )


def timestamp_ns(text: str) -> int:
    """Nanoseconds since the epoch of an ISO 8601 text; without a zone it is read as UTC.

    Raises:
        NotAnEventError: `text` is not an ISO 8601 date and time.
    """
    whole, _, fraction = text.partition(".")
    if fraction.endswith("Z") and fraction[:-1].isdecimal():
        # as tracebridge and most others write it
        return _whole_ns(f"{whole}Z", text) + _fraction_ns(fraction[:-1])
    split = _FRACTION.match(text)
    if split is None:
        return _whole_ns(text, text)
    # datetime keeps microseconds only, so the fraction is read apart from it
    return _whole_ns(split[1] + split[3], text) + _fraction_ns(split[2])


def is_trace_id(value: Json) -> TypeGuard[str]:
    """Whether `value` is a W3C trace id: 32 lower-case hex digits, not all zero."""
    return type(value) is str and _TRACE_ID.fullmatch(value) is not None


def is_span_id(value: Json) -> TypeGuard[str]:
    """Whether `value` is a W3C span id: 16 lower-case hex digits, not all zero."""
    return type(value) is str and _SPAN_ID.fullmatch(value) is not None


def _whole_ns(whole: str, text: str) -> int:
    try:
        return _whole_seconds(whole) * 1_000_000_000
    except ValueError:
        raise NotAnEventError(f"timestamp: {text[:40]!r} is not an ISO 8601 date and time") from None


@lru_cache(maxsize=256)
def _whole_seconds(whole: str) -> int:
    """Seconds since the epoch of a time without a fraction: many events of a session share one."""
    moment = datetime.fromisoformat(whole)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    elapsed = moment - _EPOCH
    return elapsed.days * 86_400 + elapsed.seconds


def _fraction_ns(digits: str) -> int:
    return int(digits[:9].ljust(9, "0"))


def _checked(value: dict[str, Json]) -> tuple[Any, ...]:
    """The original fields of an event, with defaults for those that may be missing."""
    duration_ms = value.get("duration_ms")
    if duration_ms is not None and type(duration_ms) not in (int, float):
        raise NotAnEventError(f"duration_ms: expected a number or null, found {_json_type(duration_ms)}")
    return (
        _field(value, "timestamp", str),
        _field(value, "event_type", str),
        _field(value, "session_id", str),
        _optional(value, "run_id", str) or "",
        _optional(value, "turn", int) or 0,
        duration_ms,
        _optional(value, "data", dict) or {},
    )


def _ids(value: dict[str, Json]) -> tuple[str, str, str]:
    trace_id, span_id, parent_id = value.get("trace_id"), value.get("span_id"), value.get("parent_id")
    if is_trace_id(trace_id) and is_span_id(span_id):
        return trace_id, span_id, parent_id if is_span_id(parent_id) else ""
    return "", "", ""


def _field(value: dict[str, Json], name: str, kind: type[T]) -> T:
    found = value.get(name)
    if type(found) is not kind:
        missing = "is missing" if name not in value else f"expected {kind.__name__}, found {_json_type(found)}"
        raise NotAnEventError(f"{name}: {missing}")
    return found


def _optional(value: dict[str, Json], name: str, kind: type[T]) -> T | None:
    return None if value.get(name) is None else _field(value, name, kind)


def _json_type(value: Json) -> str:
    return {type(None): "null", dict: "object", list: "array", str: "string"}.get(type(value), type(value).__name__)
