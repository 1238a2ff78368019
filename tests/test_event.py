"""Reading one journal line as an event: times to the nanosecond, ids, and what is no event."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracebridge.event import NotAnEventError, event_from_json, is_span_id, is_trace_id, timestamp_ns

NOON_NS = 1_770_379_200 * 10**9  # 2026-02-06T12:00:00Z
TRACE, SPAN, PARENT = "0123456789abcdef" * 2, "0123456789abcdef", "fedcba9876543210"
ZONES = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


def line(**fields: Any) -> dict[str, Any]:
    return {"timestamp": "2026-02-06T12:00:00Z", "event_type": "thinking", "session_id": "s", **fields}


@pytest.mark.parametrize(
    ("text", "after_noon_ns"),
    [
        ("2026-02-06T12:00:00Z", 0),
        ("2026-02-06T12:00:00", 0),
        ("2026-02-06 12:00:00+00:00", 0),
        ("2026-02-06T13:30:00+01:30", 0),
        ("2026-02-06T04:00:00-08:00", 0),
        ("2026-02-06T12:00:00.5Z", 500_000_000),
        ("2026-02-06T12:00:00,5Z", 500_000_000),
        ("2026-02-06T12:00:00.123Z", 123_000_000),
        ("2026-02-06T12:00:00.123456+00:00", 123_456_000),
        ("2026-02-06T12:00:00.123456789Z", 123_456_789),
        ("2026-02-06T14:00:00.000000001+02:00", 1),
        ("2026-02-06T12:00:00.1234567899999Z", 123_456_789),
        ("2026-02-06T12:00:00.999999999", 999_999_999),
    ],
)
def test_a_timestamp_is_read_to_the_nanosecond_in_any_zone(text: str, after_noon_ns: int) -> None:
    assert timestamp_ns(text) == NOON_NS + after_noon_ns


def test_a_time_before_1970_is_negative() -> None:
    assert timestamp_ns("1969-12-31T23:59:59.999999999Z") == -1
    assert timestamp_ns("0001-01-01T00:00:00+14:00") < timestamp_ns("0001-01-01T00:00:00Z") < 0


@given(st.datetimes(timezones=ZONES), st.integers(0, 999))
def test_every_time_that_python_can_write_is_read_exactly(moment: datetime, nanoseconds: int) -> None:
    whole, zone = moment.replace(microsecond=0), moment.strftime("%z")
    text = f"{moment:%H:%M:%S}.{moment.microsecond:06d}{nanoseconds:03d}{zone[:3]}:{zone[3:5]}"
    since = whole - datetime(1970, 1, 1, tzinfo=UTC)
    expected = (since // timedelta(seconds=1)) * 10**9 + moment.microsecond * 1000 + nanoseconds
    assert timestamp_ns(f"{moment.year:04d}-{moment:%m-%d}T{text}") == expected


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-02-30T00:00:00Z", "2026-02-06T25:00:00Z", "12:00:00", "1770379200", ".5", "Z"]
)
def test_what_is_no_time_is_refused_and_quoted(text: str) -> None:
    with pytest.raises(NotAnEventError, match=r"timestamp: .* is not an ISO 8601 date and time") as refused:
        timestamp_ns(text)
    assert repr(text) in str(refused.value)


@given(st.text(max_size=40))
def test_no_text_makes_reading_a_time_fail_in_another_way(text: str) -> None:
    with suppress(NotAnEventError):
        assert isinstance(timestamp_ns(text), int)


def test_a_line_of_the_original_format_has_no_ids_and_keeps_all_its_fields() -> None:
    value = line(run_id="r", turn=3, duration_ms=1.5, data={"content": "x"}, host="h")
    event = event_from_json(value)
    assert (event.run_id, event.turn, event.duration_ms, event.data) == ("r", 3, 1.5, {"content": "x"})
    assert (event.trace_id, event.span_id, event.parent_id, event.has_ids) == ("", "", "", False)
    assert event.fields == value


def test_a_line_may_lack_everything_but_its_time_its_type_and_its_session() -> None:
    event = event_from_json(line())
    assert (event.run_id, event.turn, event.duration_ms, event.data) == ("", 0, None, {})


@pytest.mark.parametrize("name", ["run_id", "turn", "duration_ms", "data", "trace_id", "span_id", "parent_id"])
def test_null_is_as_good_as_absent(name: str) -> None:
    event, without = event_from_json(line(**{name: None})), event_from_json(line())
    assert (event.run_id, event.turn, event.data, event.has_ids) == (without.run_id, 0, {}, False)


def test_ids_are_taken_when_trace_and_span_are_valid() -> None:
    event = event_from_json(line(trace_id=TRACE, span_id=SPAN, parent_id=PARENT))
    assert (event.trace_id, event.span_id, event.parent_id, event.has_ids) == (TRACE, SPAN, PARENT, True)
    assert event_from_json(line(trace_id=TRACE, span_id=SPAN, parent_id="parent")).parent_id == ""


@pytest.mark.parametrize(
    "ids",
    [
        {"trace_id": TRACE},
        {"span_id": SPAN},
        {"trace_id": TRACE.upper(), "span_id": SPAN},
        {"trace_id": "0" * 32, "span_id": SPAN},
        {"trace_id": TRACE, "span_id": "0" * 16},
        {"trace_id": TRACE, "span_id": SPAN + "\n"},
        {"trace_id": TRACE, "span_id": 7},
        {"trace_id": SPAN, "span_id": SPAN},
    ],
)
def test_ids_that_w3c_does_not_allow_are_none(ids: dict[str, Any]) -> None:
    event = event_from_json(line(parent_id=PARENT, **ids))
    assert (event.trace_id, event.span_id, event.parent_id, event.has_ids) == ("", "", "", False)


@given(st.integers(1, 2**128 - 1))
def test_every_number_of_the_right_width_but_zero_is_an_id(number: int) -> None:
    assert is_trace_id(f"{number:032x}")
    assert is_span_id(f"{number % 2**64 or 1:016x}")
    assert not is_trace_id(f"{number:033x}")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([], "expected an object, found array"),
        (None, "expected an object, found null"),
        ({"event_type": "x", "session_id": "s"}, "timestamp: is missing"),
        (line(timestamp=7), "timestamp: expected str, found int"),
        (line(session_id=None), "session_id: expected str, found null"),
        (line(turn="1"), "turn: expected int, found string"),
        (line(turn=True), "turn: expected int, found bool"),
        (line(data=[]), "data: expected dict, found array"),
        (line(duration_ms="1"), "duration_ms: expected a number or null, found string"),
        (line(duration_ms=True), "duration_ms: expected a number or null, found bool"),
    ],
)
def test_what_is_no_event_is_refused_with_the_field_and_what_was_found(value: Any, said: str) -> None:
    with pytest.raises(NotAnEventError) as refused:
        event_from_json(value)
    assert str(refused.value) == said
