"""However often reading stops and goes on elsewhere, a journal gives the same spans."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.assembler.journals import agent_journal, any_journal
from tests.delivery.rig import LONG_AGO, session_lines
from tests.examples import examples
from tracebridge.event import Json
from tracebridge.session_stream import Cursor, SessionStream
from tracebridge.span import Span


def everything(event_type: str, data: dict[str, Json]) -> dict[str, Json]:
    return data


def without_input(event_type: str, data: dict[str, Json]) -> dict[str, Json]:
    return {key: value for key, value in data.items() if key != "user_input"}


def written(journal: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(event).encode() + b"\n" for event in journal)


def read(path: Path, cursor: Cursor | None = None) -> tuple[list[Span], Cursor]:
    """The spans from a cursor on, and the cursor after them as the state keeps it."""
    stream = SessionStream(path, everything, cursor)
    spans = [span for step in stream.steps() for span in step.spans]
    return spans, msgspec.msgpack.decode(msgspec.msgpack.encode(stream.cursor), type=Cursor)


def read_in_parts(path: Path, content: bytes, ends: list[int]) -> list[Span]:
    """What a reader gets that comes by whenever the file has grown to one of `ends` bytes."""
    spans: list[Span] = []
    cursor: Cursor | None = None
    path.unlink(missing_ok=True)
    with path.open("ab", buffering=0) as file:
        for begin, end in pairwise([0, *sorted(ends), len(content)]):
            file.write(content[begin:end])
            found, cursor = read(path, cursor)
            spans += found
    return spans


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def test_a_restart_at_every_byte_gives_the_same_spans(path: Path, tmp_path: Path) -> None:
    lines = session_lines("s", 2, "sök", True, LONG_AGO)
    content = "".join(text + "\n" for text in lines).encode()
    path.write_bytes(content)
    whole, _ = read(path)
    assert len(whole) == 5
    growing = tmp_path / "growing.jsonl"
    with growing.open("wb", buffering=0) as file:
        for end in range(len(content)):
            file.write(content[end : end + 1])
            before, cursor = read(growing)
            after, _ = read(path, cursor)
            assert before + after == whole, end


@settings(max_examples=examples(25))
@given(journal=agent_journal(), data=st.data())
def test_restarts_anywhere_in_what_agents_write_give_the_same_spans(
    journal: list[dict[str, Any]], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert_same_in_parts(journal, data, tmp_path_factory)


@settings(max_examples=examples(25))
@given(journal=any_journal, data=st.data())
def test_restarts_anywhere_in_any_journal_give_the_same_spans(
    journal: list[dict[str, Any]], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert_same_in_parts(journal, data, tmp_path_factory)


def assert_same_in_parts(
    journal: list[dict[str, Any]], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "events.jsonl"
    content = written(journal)
    whole = read_in_parts(path, content, [])
    _, cursor = read(path)
    assert cursor.offset == len(content)
    assert cursor.ordinal == len(journal)
    ends = data.draw(st.lists(st.integers(0, len(content)), max_size=5))
    assert read_in_parts(path, content, ends) == whole


def test_a_restart_in_the_middle_of_a_step_loses_and_repeats_nothing(path: Path) -> None:
    path.write_text("".join(text + "\n" for text in session_lines("s", 3, "search", True, LONG_AGO)))
    whole, _ = read(path)
    steps = SessionStream(path, everything)
    first: list[Span] = []
    for step in steps.steps():
        first += step.spans
        if len(first) == 3:
            break
    rest, _ = read(path, steps.cursor)
    assert first + rest == whole


def test_what_is_open_over_a_restart_is_narrowed_as_before(path: Path) -> None:
    lines = session_lines("s", 1, "search", True, LONG_AGO)
    content = "".join(text + "\n" for text in lines)
    path.write_text("".join(text + "\n" for text in lines[:3]))
    before = SessionStream(path, without_input)
    assert [span for step in before.steps() for span in step.spans] == []
    path.write_text(content)
    after = SessionStream(path, without_input, before.cursor)
    turn = next(span for step in after.steps() for span in step.spans if span.kind == "turn")
    assert (turn.input, turn.output, turn.extent) == (None, "answer", "whole")


def test_a_broken_line_is_told_once_and_passed_over(path: Path) -> None:
    lines = session_lines("s", 1, "search", True, LONG_AGO)
    path.write_text("\n".join([lines[0], '{"timestamp": "2026', *lines[1:]]) + "\n")
    stream = SessionStream(path, everything)
    problems = [step.problem for step in stream.steps() if step.problem]
    assert [(problem.file, problem.offset) for problem in problems] == [(path, len(lines[0]) + 1)]
    assert stream.is_idle
    assert [step for step in stream.steps() if step.problem] == []


def test_what_waits_for_its_end_is_given_up_at_its_time_and_not_before(path: Path) -> None:
    path.write_text("".join(text + "\n" for text in session_lines("s", 1, "search", False, LONG_AGO)))
    stream = SessionStream(path, everything)
    assert len([span for step in stream.steps() for span in step.spans]) == 2
    assert not stream.is_idle
    assert stream.expire(stream.deadline_ns) == []
    (session,) = stream.expire(stream.deadline_ns + 1)
    assert (session.kind, session.extent) == ("session", "incomplete")
    assert stream.is_idle


def told(stream: SessionStream) -> list[str]:
    return [step.problem.text for step in stream.steps() if step.problem is not None]


def resumed(path: Path) -> SessionStream:
    """A stream that goes on where another one stopped that read the whole file."""
    return SessionStream(path, everything, read(path)[1])


@pytest.mark.parametrize("open_ended", [False, True])
def test_a_file_that_took_the_place_of_the_one_that_was_read_is_read_from_its_start(
    path: Path, open_ended: bool
) -> None:
    path.write_text("".join(text + "\n" for text in session_lines("old", 3, "search", not open_ended, LONG_AGO)))
    _, cursor = read(path)
    other = "".join(text + "\n" for text in session_lines("new", 9, "search", True, LONG_AGO))
    path.unlink()
    path.write_text(other)
    stream = SessionStream(path, everything, cursor)
    assert stream.prior_end == path.stat().st_size, "some of it may have stood in the file before"
    assert told(stream) == [f"another file has taken the place of the one that was read to byte {cursor.offset}"]
    spans = [span for step in stream.steps() for span in step.spans]
    assert [span.session_id for span in spans] == ["new"] * 19


def test_a_shorter_file_that_takes_the_place_of_the_one_being_read_is_noticed(path: Path) -> None:
    path.write_text("".join(text + "\n" for text in session_lines("old", 3, "search", False, LONG_AGO)))
    stream = SessionStream(path, everything)
    assert len([span for step in stream.steps() for span in step.spans]) == 6
    path.unlink()
    path.write_text("".join(text + "\n" for text in session_lines("new", 1, "search", True, LONG_AGO)))
    assert len(told(stream)) == 1
    spans = [span for step in stream.steps() for span in step.spans]
    assert [span.session_id for span in spans] == ["new"] * 3


def test_a_file_that_was_cut_is_read_on_at_its_end(path: Path) -> None:
    lines = [text + "\n" for text in session_lines("s", 3, "search", True, LONG_AGO)]
    path.write_text("".join(lines[:-1]))
    stream = resumed(path)
    path.write_text("".join(lines[:5]))
    assert told(stream) == [
        f"the file was cut from {stream.path.stat().st_size + len(''.join(lines[5:-1]).encode())} "
        f"bytes or more to {path.stat().st_size}"
    ]
    with path.open("a") as file:
        file.writelines(lines[5:9])
    assert [span.turn for step in stream.steps() for span in step.spans] == [2, 2]
    with path.open("a") as file:
        file.write(lines[-1])
    (session,) = [span for step in stream.steps() for span in step.spans]
    assert (session.kind, session.extent) == ("session", "whole"), "what was open before the cut is still open"


def test_the_same_file_moved_back_into_its_place_is_not_read_again(path: Path) -> None:
    path.write_text("".join(text + "\n" for text in session_lines("s", 3, "search", True, LONG_AGO)))
    stream = resumed(path)
    copy = path.read_bytes()
    path.unlink()
    path.write_bytes(copy)
    assert list(stream.steps()) == []


def test_a_journal_that_is_not_there_is_not_taken_for_an_empty_one(path: Path) -> None:
    path.write_text("".join(text + "\n" for text in session_lines("s", 1, "search", False, LONG_AGO)))
    _, cursor = read(path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        SessionStream(path, everything, cursor)
