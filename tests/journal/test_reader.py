"""Reading a journal gives every whole event, and an account of what is broken."""

from __future__ import annotations

import gc
import io
import json
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.assembler.journals import any_event
from tracebridge import jsonvalue
from tracebridge.event import event_from_json
from tracebridge.journal.reader import JournalLine, read_journal


def line(number: int, **data: Any) -> bytes:
    event = {"timestamp": "2026-02-06T22:10:00.123Z", "event_type": "thinking", "session_id": "s", "turn": number}
    return json.dumps(event | {"data": data}).encode()


def read(content: bytes, offset: int = 0) -> list[JournalLine]:
    return list(read_journal(io.BytesIO(content), offset))


def calls_of(work: Callable[[], object]) -> int:
    """How many functions are called, those of C too."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event.endswith("call")

    gc.disable()  # what a collection calls depends on when it comes
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
        gc.enable()
    return calls


def turns(lines: list[JournalLine]) -> list[int]:
    return [entry.event.turn for entry in lines if entry.event is not None]


@given(st.lists(st.text(max_size=20), max_size=8), st.integers(0, 7))
def test_reading_from_any_lines_end_gives_the_lines_after_it(texts: list[str], start: int) -> None:
    content = b"".join(line(number, text=text) + b"\n" for number, text in enumerate(texts))
    whole = read(content)
    assert turns(whole) == list(range(len(texts)))
    if start < len(texts):
        assert turns(read(content, whole[start].end)) == list(range(start + 1, len(texts)))


def test_lines_longer_than_a_read_come_whole() -> None:
    text = "x" * 1_000_000
    (entry,) = read(line(1, text=text) + b"\n")
    assert entry.event is not None
    assert entry.event.data == {"text": text}


def test_blank_lines_are_passed_over() -> None:
    content = b"\n" + line(1) + b"\n\n  \n" + line(2) + b"\n"
    assert turns(read(content)) == [1, 2]
    assert {entry.problem for entry in read(content)} == {""}
    assert read(content + b"\n")[-1].end == len(content) + 1, "else one at the end would be unread for ever"


def test_an_event_that_is_still_being_written_is_left_for_later() -> None:
    assert turns(read(line(1) + b"\n" + line(2)[:-5])) == [1]


def test_a_last_event_without_a_newline_is_read_when_it_is_whole() -> None:
    content = line(1) + b"\n" + line(2)
    assert turns(read(content)) == [1, 2]
    assert read(content)[-1].end == len(content)


def test_an_event_written_behind_a_neighbours_half_line_is_not_lost() -> None:
    (entry,) = read(line(1)[:40] + line(2) + b"\n")
    assert entry.event is not None
    assert entry.event.turn == 2
    assert "40 bytes" in entry.problem


TEXTS = st.text(max_size=20) | st.just('{"timestamp":"2026-02-06T22:10:00Z","event_type":"x","session_id":"s"}')
DATA = st.fixed_dictionaries({"text": TEXTS, "inner": st.none() | st.just(json.loads(line(99)))})


@example({"text": "", "inner": json.loads(line(99))}, len(line(1000, text="", inner=json.loads(line(99)))) - 2, [{}])
@given(DATA, st.integers(0, 400), st.lists(DATA, min_size=1, max_size=4))
def test_a_half_line_before_whole_ones_costs_none_of_them(torn: Any, length: int, whole: list[Any]) -> None:
    """Also when only the newline of it is missing: then all of it is there."""
    first = line(1000, **torn)
    half = first[:length]
    content = half + b"".join(line(number, **data) + b"\n" for number, data in enumerate(whole))
    expected = list(range(len(whole)))
    assert turns(read(content)) == ([1000, *expected] if half == first else expected)


def test_events_on_one_line_are_read_each_from_its_own_offset() -> None:
    content = line(1)[:40] + line(2) + line(3) + line(4) + b"\n"
    lines = read(content)
    assert turns(lines) == [2, 3, 4]
    assert [entry.problem for entry in lines[1:]] == ["", ""]
    for entry, turn in zip(lines, (2, 3, 4), strict=True):
        assert turns(read(content, entry.offset))[0] == turn
    assert turns(read(content, lines[0].end)) == [3, 4]
    assert turns(read(content, lines[1].end)) == [4]
    assert lines[2].end == len(content)


def test_a_half_line_full_of_what_looks_like_an_event_is_not_tried_at_each_of_them() -> None:
    def half_line(messages: int) -> bytes:
        inner = [{"timestamp": "2026-02-06T22:10:00Z", "role": "user", "n": number} for number in range(messages)]
        return line(1, messages=inner)[:-5]

    assert turns(read(half_line(60_000) + line(2) + b"\n")) == [2]
    assert turns(read(half_line(60_000) + b"\n")) == []
    for rest in (line(2) + b"\n", b"\n"):
        assert calls_of(lambda: read(half_line(60_000) + rest)) == calls_of(lambda: read(half_line(10) + rest))  # noqa: B023


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'{"timestamp": "2026', "not JSON"),
        (b"[1, 2]", "expected an object"),
        (b'{"timestamp": "2026-02-06T22:10:00Z"}', "event_type: is missing"),
        (b'{"timestamp": "yesterday", "event_type": "x", "session_id": "s"}', "ISO 8601"),
        (b'{"timestamp": 5, "event_type": "x", "session_id": "s"}', "timestamp: expected str"),
        (b"\xff\xfe", "not JSON"),
    ],
)
def test_a_broken_line_between_two_events_is_told_with_its_place_and_costs_neither(text: bytes, said: str) -> None:
    content = line(1) + b"\n" + text + b"\n" + line(2) + b"\n"
    before, broken, after = read(content)
    assert (before.problem, after.problem) == ("", "")
    assert broken.event is None
    assert said in broken.problem
    assert broken.offset == len(line(1)) + 1


def test_a_line_that_was_cut_anywhere_is_not_taken_for_a_whole_one() -> None:
    whole = line(1, messages=[{"role": "user", "content": "f() { return {}; }"}], args={"q": {}}, found=[{}, {}])
    whole = whole.replace(b"return", "zurück".encode())
    for length in range(1, len(whole)):
        (entry,) = read(whole[:length] + b"\n")
        assert (entry.event, entry.is_unread) == (None, False), whole[:length]


@pytest.mark.parametrize("text", ['{"a":1}}', "{'a':1}", '{"a":,"b":{}}', '{"a":"b\tc"}', '{"a":1,}', '{"a":"\\q"}'])
def test_a_whole_line_that_is_no_event_is_told_from_half_a_line(text: str) -> None:
    (entry,) = read(text.encode() + b"\n")
    assert (entry.event, entry.is_unread) == (None, True)


def test_what_old_writers_emit_and_json_does_not_allow_is_read() -> None:
    content = line(1).replace(b'"data": {}', b'"data": {"a": NaN, "b": "\\ud800", "c": 1e999}') + b"\n"
    (entry,) = read(content)
    assert entry.problem == ""
    assert entry.event is not None
    assert set(entry.event.data) == {"a", "b", "c"}


@pytest.mark.parametrize("brackets", [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
@pytest.mark.parametrize("depth", [*range(1, 12), *range(60, 70), *range(125, 131)])
def test_data_of_any_depth_is_read_as_the_decoder_reads_it(depth: int, brackets: tuple[str, str]) -> None:
    opening, closing = brackets
    nested = f'"run_id": "r", "duration_ms": null, "data": {{"deep": {opening * depth}1{closing * depth}}}'
    content = line(1).replace(b'"data": {}', nested.encode())
    (entry,) = read(content + b"\n")
    assert entry.event is not None
    assert entry.event.data == jsonvalue.decode(content)["data"]


def test_a_whole_line_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[bytes] = []

    def decode(text: bytes) -> Any:
        decoded.append(text)
        return json.loads(text)

    monkeypatch.setattr(jsonvalue, "decode", decode)
    read(line(1) + b"\n" + line(2) + b"\n" + line(3))
    assert decoded == [line(1) + b"\n", line(2) + b"\n", line(3)]


def test_the_rest_of_a_line_that_comes_while_it_is_read_is_not_read_as_a_line() -> None:
    class Growing(io.BytesIO):
        """Half of a line, and the rest once the half was read."""

        def readline(self, size: int | None = -1, /) -> bytes:
            read = super().readline(size)
            if not read.endswith(b"\n"):
                end = self.tell()
                self.write(line(2)[-5:] + b"\n")
                self.seek(end)
            return read

    content = line(1) + b"\n" + line(2)[:-5]
    assert [entry.problem for entry in read_journal(Growing(content), 0)] == [""]


@given(any_event(), st.booleans())
def test_an_event_reads_the_same_whichever_decoder_takes_its_line(value: dict[str, Any], has_run: bool) -> None:
    if has_run:
        value["run_id"] = "r"
    text = json.dumps(value).encode() + b"\n"
    (entry,) = read(text)
    assert entry.event is not None
    slow = event_from_json(jsonvalue.decode(text))
    assert msgspec.structs.replace(entry.event, size=slow.size) == slow
    assert entry.event.fields == jsonvalue.decode(text)


def test_a_line_as_tracebridge_writes_it_takes_the_fast_decoder() -> None:
    value: dict[str, Any] = {
        "timestamp": "2026-02-06T12:00:00.123456Z",
        "event_type": "thinking",
        "session_id": "s",
        "run_id": "r",
    }
    value |= {"turn": 1, "duration_ms": None, "data": {}, "seq": 3, "trace_id": "a" * 32, "span_id": "b" * 16}
    text = json.dumps(value).encode()
    (entry,) = read(text + b"\n")
    assert entry.event is not None
    assert entry.event.size == len(text) + 1, "the other one does not know the size"
