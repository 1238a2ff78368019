"""`Event`: one line of the journal, as the original Agent Trace format has it.

The seven fields of the original come first and in its order, so that grep and jq recipes keep working. `seq`,
`trace_id`, `span_id` and `parent_id` are what tracebridge adds to make delivery exact; files without them are
first-class input.
"""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, TypeGuard, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

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
# all events of a turn name one trace and one parent, and a call's end names its begin
_match_trace_id = lru_cache(maxsize=1024)(re.compile(r"(?!0{32})[0-9a-f]{32}").fullmatch)
_match_span_id = lru_cache(maxsize=1024)(re.compile(r"(?!0{16})[0-9a-f]{16}").fullmatch)
_FRACTION = re.compile(r"^([^.,]*)[.,](\d+)(.*)$")

_DOT: Final = len("2026-02-06T22:10:00")
_LONGEST_USUAL: Final = len("2026-02-06T22:10:00.123456Z")

LARGEST_SIZE: Final = sys.maxsize

_original_fields = itemgetter("timestamp", "event_type", "session_id", "run_id", "turn", "duration_ms", "data")
_USUAL_TYPES: Final = frozenset((str, str, str, str, int, duration, dict) for duration in (type(None), int, float))
"""The types of these fields in a line that needs no closer look."""


class NotAnEventError(ValueError):
    """A JSON value that is no event: says which field is missing or of the wrong type."""


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One recorded event.

    Nothing that a line holds, known to us or not, is lost on the way: what the typed attributes do not tell is in
    `line`, and `fields` is the whole of it.
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
    seq: int | None
    """The writer's running number; None when the line has none."""
    size: int = LARGEST_SIZE
    """Bytes of the line, if they are known: none of its texts has more characters."""
    line: dict[str, Json] | None = None
    """The JSON object of a line that the attributes before it do not tell whole; None as a rule."""

    @property
    def has_ids(self) -> bool:
        """Whether the event names its trace and span itself."""
        return bool(self.span_id)

    @property
    def fields(self) -> dict[str, Json]:
        """The whole JSON object of the line. It MUST NOT be changed."""
        if self.line is not None:
            return self.line
        fields: dict[str, Json] = {
            "timestamp": self.timestamp,
            "event_type": self.event_type,
            "session_id": self.session_id,
        }
        if self.run_id:
            fields["run_id"] = self.run_id
        fields |= {"turn": self.turn, "duration_ms": self.duration_ms, "data": self.data}
        if self.seq is not None:
            fields["seq"] = self.seq
        if self.span_id:
            fields["trace_id"], fields["span_id"] = self.trace_id, self.span_id
        if self.parent_id:
            fields["parent_id"] = self.parent_id
        return fields

    def with_data(self, data: dict[str, Json]) -> Event:
        """The same event with other data."""
        line = self.line
        if line is not None:
            line = {name: data if name == "data" else value for name, value in line.items()}
        return msgspec.structs.replace(self, data=data, line=line)


def _nested(depth: int) -> Any:
    """The type of JSON values with at most so many containers inside one another."""
    scalar = str | int | float | bool | None
    value: Any = scalar
    for _ in range(depth):
        value = scalar | list[value] | dict[str, value]
    return value


if TYPE_CHECKING:
    _Shallow = Json
else:
    _Shallow = _nested(7)


class UsualLine(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A line as every tracebridge and most writers of the original format write it, for a decoder to check.

    Of one that is nested deeper, `jsonvalue.decode` looks whether it is too deep.
    """

    timestamp: str
    event_type: str
    session_id: str
    run_id: str
    turn: int
    duration_ms: float | int | None
    data: dict[str, _Shallow]
    seq: int | UnsetType = UNSET
    trace_id: str | UnsetType = UNSET
    span_id: str | UnsetType = UNSET
    parent_id: str | UnsetType = UNSET


def event_from_usual(line: UsualLine, size: int) -> Event | None:
    """Read a line of `size` bytes as an event; None if it is not quite usual, and `event_from_json` must read it.

    Raises:
        NotAnEventError: the timestamp is none.
    """
    seq, trace_id, span_id, parent_id = line.seq, line.trace_id, line.span_id, line.parent_id
    if trace_id is UNSET or span_id is UNSET:
        if not (trace_id is UNSET and span_id is UNSET and parent_id is UNSET):
            return None
        trace_id = span_id = parent_id = ""
    elif not (_match_trace_id(trace_id) and _match_span_id(span_id)):
        return None
    elif parent_id is UNSET:
        parent_id = ""
    elif not _match_span_id(parent_id):
        return None
    if not line.run_id:
        return None
    return Event(
        timestamp=line.timestamp,
        time_ns=timestamp_ns(line.timestamp),
        event_type=line.event_type,
        session_id=line.session_id,
        run_id=line.run_id,
        turn=line.turn,
        duration_ms=line.duration_ms,
        data=line.data,
        trace_id=trace_id,
        span_id=span_id,
        parent_id=parent_id,
        seq=None if seq is UNSET else seq,
        size=size,
    )


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
    seq = value.get("seq")
    event = Event(
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
        seq=seq if type(seq) is int else None,
    )
    # no two of its numbers are equal and not the same, so this tells whether anything else is in the line
    return event if event.fields == value else msgspec.structs.replace(event, line=value)


def timestamp_ns(text: str) -> int:
    """Nanoseconds since the epoch of an ISO 8601 text; without a zone it is read as UTC.

    Raises:
        NotAnEventError: `text` is not an ISO 8601 date and time.
    """
    if text.find(".") == _DOT and len(text) <= _LONGEST_USUAL and text[-1] == "Z":
        # as tracebridge and most others write it
        try:
            elapsed = datetime.fromisoformat(text) - _EPOCH
        except ValueError:
            pass
        else:
            return (elapsed.days * 86_400 + elapsed.seconds) * 1_000_000_000 + elapsed.microseconds * 1_000
    split = _FRACTION.match(text)
    if split is None:
        return _whole_ns(text, text)
    # datetime keeps microseconds only, so the fraction is read apart from it
    return _whole_ns(split[1] + split[3], text) + _fraction_ns(split[2])


def is_trace_id(value: Json) -> TypeGuard[str]:
    """Whether `value` is a W3C trace id: 32 lower-case hex digits, not all zero."""
    return type(value) is str and _match_trace_id(value) is not None


def is_span_id(value: Json) -> TypeGuard[str]:
    """Whether `value` is a W3C span id: 16 lower-case hex digits, not all zero."""
    return type(value) is str and _match_span_id(value) is not None


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
