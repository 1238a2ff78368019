from __future__ import annotations

import asyncio
import contextvars
import json
import re
import sys
import threading
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.recording.rig import Recording
from tracebridge import Session
from tracebridge.event import event_from_json
from tracebridge.journal import layout

SEVEN = ["timestamp", "event_type", "session_id", "run_id", "turn", "duration_ms", "data"]


class Unprintable:
    def __repr__(self) -> str:
        raise ValueError("no")

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        raise ValueError("no")

    __hash__ = None  # type: ignore[assignment]


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    return Recording(tmp_path)


def in_thread(work: Any) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_a_line_has_the_originals_seven_fields_first_and_in_order(recording: Recording) -> None:
    with recording.session("user-123") as session, recording.turn(session, user_input="Hello!"):
        session.log_llm_request(model="gpt-4", messages=[])
        session.log_llm_response(model="gpt-4", content="Hi!", tokens={"prompt": 1})
    for event in recording.events("user-123"):
        more = ["seq", "trace_id", "span_id"] + (["parent_id"] if "parent_id" in event else [])
        assert list(event) == SEVEN + more
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", event["timestamp"])
        assert re.fullmatch("run-[0-9a-f]{12}", event["run_id"])
        assert event["session_id"] == "user-123"
        assert event_from_json(event).has_ids


@pytest.mark.parametrize(
    ("cost", "recorded"),
    [
        (Decimal("0.0135"), 0.0135),
        ({"input": Decimal("0.25"), "note": "list price"}, {"input": 0.25, "note": "list price"}),
        (0.5, 0.5),
        (Decimal("NaN"), "NaN"),
        (Unprintable(), "<Unprintable: ValueError when it was recorded>"),
    ],
    ids=["decimal", "object of decimals", "float", "no number", "anything"],
)
def test_a_cost_that_is_a_decimal_is_recorded_as_a_number(recording: Recording, cost: Any, recorded: Any) -> None:
    with recording.session() as session, recording.turn(session), session.llm_call(model="m", messages=[]) as call:
        session.log_llm_response(model="m", content="", cost=cost)
        call.finish(content="", cost=cost)
    found = [event["data"]["cost"] for event in recording.events() if event["event_type"] == "llm.response"]
    assert found == [recorded] * 2


def test_a_run_is_written_from_start_to_end(recording: Recording) -> None:
    with recording.session() as session:
        with recording.turn(session, "Hello!") as turn:
            session.log_thinking("hm", stage="planning", tokens=3)
            turn.output = "Hi!"
        session.outcome = "solved"
    start, turn_start, thinking, turn_end, end = recording.events()
    assert [event["event_type"] for event in recording.events()] == [
        "session.start",
        "turn.start",
        "thinking",
        "turn.end",
        "session.end",
    ]
    assert start["data"] == {"metadata": {}, "orphan_after_s": 3600.0}
    assert turn_start["data"] == {"user_input": "Hello!"}
    assert thinking["data"] == {"content": "hm", "stage": "planning", "tokens": 3}
    assert turn_end["data"] == {"output": "Hi!"}
    assert end["data"] == {"outcome": "solved", "total_turns": 1}
    assert [event["turn"] for event in recording.events()] == [0, 1, 1, 1, 0]
    assert [event["duration_ms"] is None for event in recording.events()] == [True, True, True, False, False]
    assert type(end["duration_ms"]) is float
    assert [event["seq"] for event in recording.events()] == [0, 1, 2, 3, 4]


def test_the_sessions_attributes_are_recorded_and_those_not_given_are_left_out(recording: Recording) -> None:
    with recording.session(
        "s",
        {"a": 1},
        user_id=7,
        tags=("x", 2),
        environment="test",
        release="1.4",
        agent_name="airline",
        plan="gold",
    ):
        pass
    assert recording.only("session.start")["data"] == {
        "metadata": {"a": 1, "plan": "gold"},
        "user_id": "7",
        "tags": ["x", "2"],
        "environment": "test",
        "release": "1.4",
        "agent_name": "airline",
        "orphan_after_s": 3600.0,
    }


def test_environment_and_release_default_to_the_configuration(tmp_path: Path) -> None:
    recording = Recording(tmp_path, environment="production", release="1.0")
    with recording.session(release="2.0"):
        pass
    data = recording.only("session.start")["data"]
    assert (data["environment"], data["release"]) == ("production", "2.0")


def test_metadata_json_has_the_originals_form_and_holds_the_last_run(recording: Recording) -> None:
    with recording.session("s", {"n": 1}):
        assert recording.metadata()["metadata"] == {"n": 1}
    with recording.session("s", {"n": 2}, user_id="u") as session:
        session.outcome = "solved"
    start = recording.of_type("session.start")[1]
    assert recording.metadata() == {
        "session_id": "s",
        "created_at": start["timestamp"],
        "metadata": {"n": 2},
        "run_id": start["run_id"],
        "user_id": "u",
        "outcome": "solved",
    }
    assert list(recording.metadata())[:3] == ["session_id", "created_at", "metadata"]


def test_metadata_that_changed_is_recorded_at_the_end(recording: Recording) -> None:
    with recording.session("s", {"n": 1}) as session:
        session.metadata["more"] = [2]
    assert recording.only("session.end")["data"]["metadata"] == {"n": 1, "more": [2]}
    assert recording.metadata()["metadata"] == {"n": 1, "more": [2]}


def test_an_exception_is_recorded_and_goes_on_untouched(recording: Recording) -> None:
    failure = KeyError("gone")
    with pytest.raises(KeyError) as caught, recording.session() as session, recording.turn(session):
        raise failure
    assert caught.value is failure
    error = {"type": "KeyError", "message": "'gone'"}
    assert recording.only("turn.end")["data"] == {"output": None, "error": error}
    assert recording.only("session.end")["data"] == {"outcome": "error", "total_turns": 1, "error": error}


def test_a_success_that_leaves_by_an_exception_is_no_error(recording: Recording) -> None:
    def leave() -> None:
        with recording.session() as session:
            session.outcome = "done"
            sys.exit(0)

    with pytest.raises(SystemExit):
        leave()
    assert recording.only("session.end")["data"] == {"outcome": "done", "total_turns": 0}


def test_runs_of_one_session_share_a_file_and_number_their_turns_anew(recording: Recording) -> None:
    for _ in range(2):
        with recording.session() as session, recording.turn(session):
            pass
    starts = recording.of_type("turn.start")
    assert [event["turn"] for event in starts] == [1, 1]
    assert starts[0]["run_id"] != starts[1]["run_id"]
    assert [event["seq"] for event in recording.events()] == [0, 1, 2, 3] * 2


def test_a_handle_that_is_entered_again_while_it_is_open_goes_on_with_its_run(recording: Recording) -> None:
    def answer(session: Session, text: str) -> None:
        with session, recording.turn(session, text):
            session.log_thinking(text)

    with recording.session("s") as session:
        answer(session, "one")
        with recording.session("other") as other, session, recording.turn(other, "elsewhere"):
            answer(session, "two")
        threads = [threading.Thread(target=answer, args=(session, "three")) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    types = [event["event_type"] for event in recording.events()]
    assert (types[0], types[-1]) == ("session.start", "session.end")
    assert Counter(types) == {"session.start": 1, "turn.start": 6, "thinking": 6, "turn.end": 6, "session.end": 1}
    assert recording.only("session.end")["data"]["total_turns"] == 6


def test_a_handle_that_is_left_more_often_than_entered_ends_once(recording: Recording) -> None:
    with recording.session("s") as session:
        pass
    session.__exit__(None, None, None)
    assert [event["event_type"] for event in recording.events()] == ["session.start", "session.end"]


def test_a_handle_that_is_entered_again_is_another_run(recording: Recording) -> None:
    session = recording.session()
    for _ in range(2):
        with session, recording.turn(session):
            pass
    assert len({event["run_id"] for event in recording.events()}) == 2
    assert [event["turn"] for event in recording.of_type("turn.start")] == [1, 1]


def test_a_handle_that_is_entered_again_does_not_tell_what_came_of_the_run_before(recording: Recording) -> None:
    session = recording.session()
    session.outcome = "planned"
    with session:
        pass
    with pytest.raises(ValueError, match="once"), session:
        raise ValueError("once")
    assert session.outcome == "error"
    with session:
        pass
    assert [event["data"]["outcome"] for event in recording.of_type("session.end")] == ["planned", "error", None]
    assert "outcome" not in recording.metadata() or recording.metadata()["outcome"] is None


@pytest.mark.parametrize("session_id", [None, ""])
def test_a_session_without_an_id_gets_one(session_id: Any, recording: Recording) -> None:
    with recording.session(session_id) as one, recording.session(session_id) as other:
        pass
    assert one.session_id != other.session_id
    assert recording.only("session.start", one.session_id)["session_id"] == one.session_id


@pytest.mark.parametrize("session_id", ["../../etc", "a/b", "x" * 2000, "\ud800", 17, b"b", "é\n"])
def test_any_id_finds_its_folder_and_stands_in_its_events(session_id: Any, recording: Recording) -> None:
    with recording.session(session_id) as session:
        pass
    [folder] = layout.session_folders(recording.trace_dir)
    assert folder.parent == recording.trace_dir
    assert layout.session_id_of(folder) == session.session_id
    assert {event["session_id"] for event in recording.events(session.session_id)} == {session.session_id}


def test_arguments_may_be_given_by_position(recording: Recording) -> None:
    with recording.session("s", {"m": 1}) as session, recording.turn(session, "hello"):
        session.log_llm_request("gpt-4", [1], [2])
        session.log_llm_response("gpt-4", "hi", {"prompt": 1}, 12, "hm", [3], 0.5)
        session.log_tool_call("search", {"q": 1}, "call-1")
        session.log_tool_result("search", True, "found", None, 7, "call-1")
        session.log_thinking("hm", "plan", 4)
    assert recording.only("llm.request")["data"] == {"model": "gpt-4", "messages": [1], "tools": [2]}
    response = recording.only("llm.response")
    assert response["data"] == {
        "model": "gpt-4",
        "content": "hi",
        "tokens": {"prompt": 1},
        "thinking": "hm",
        "tool_calls": [3],
        "cost": 0.5,
    }
    assert response["duration_ms"] == 12.0
    assert recording.only("tool.call")["data"] == {"tool_name": "search", "args": {"q": 1}, "call_id": "call-1"}
    result = recording.only("tool.result")
    assert result["data"] == {"tool_name": "search", "success": True, "result": "found", "call_id": "call-1"}
    assert result["duration_ms"] == 7.0


def test_more_entries_are_recorded_as_they_are(recording: Recording) -> None:
    with recording.session() as session:
        session.log_llm_request("m", model_parameters={"temperature": 0}, prompt=("greet", 3), provider="openai")
        session.log_llm_response(finish_reason="stop", response_id="r1")
        session.log_tool_call("t", host="h")
        session.log_tool_result("t", attempts=2)
    assert recording.only("llm.request")["data"] == {
        "model": "m",
        "model_parameters": {"temperature": 0},
        "prompt": {"name": "greet", "version": 3},
        "provider": "openai",
    }
    assert recording.only("llm.response")["data"] == {
        "model": "m",
        "content": None,
        "finish_reason": "stop",
        "response_id": "r1",
    }
    assert recording.only("tool.call")["data"] == {"tool_name": "t", "args": None, "host": "h"}
    assert recording.only("tool.result")["data"]["attempts"] == 2


@pytest.mark.parametrize(
    ("given", "success", "error"),
    [
        ({}, True, None),
        ({"success": False}, False, None),
        ({"error": "boom"}, False, "boom"),
        ({"error": ValueError("boom")}, False, {"type": "ValueError", "message": "boom"}),
        ({"success": True, "error": "warning"}, True, "warning"),
    ],
)
def test_a_tool_has_succeeded_unless_it_says_otherwise(
    given: dict[str, Any], success: bool, error: Any, recording: Recording
) -> None:
    with recording.session() as session:
        session.log_tool_call("t")
        session.log_tool_result("t", **given)
    data = recording.only("tool.result")["data"]
    assert (data["success"], data.get("error")) == (success, error)


def test_a_duration_is_measured_unless_it_is_given(recording: Recording) -> None:
    with recording.session() as session:
        session.log_llm_request("m")
        session.log_llm_response("m")
        session.log_llm_request("m")
        session.log_llm_response("m", duration_ms="soon")
        session.log_llm_response("nobody asked")
    measured, not_a_number, unpaired = recording.of_type("llm.response")
    assert type(measured["duration_ms"]) is float
    assert type(not_a_number["duration_ms"]) is float
    assert not_a_number["data"]["duration_ms"] == "soon"
    assert unpaired["duration_ms"] is None


def test_values_are_recorded_as_they_are_at_the_call(recording: Recording) -> None:
    messages = [{"role": "user", "content": "a"}]
    with recording.session() as session:
        session.log_llm_request("m", messages)
        messages.append({"role": "assistant", "content": "b"})
    assert recording.only("llm.request")["data"]["messages"] == [{"role": "user", "content": "a"}]


AWKWARD = [
    b"\xff",
    {1, 2},
    float("nan"),
    "\ud800",
    Unprintable(),
    {"a": Unprintable()},
    {None: 1},
    10**5000,
    (n for n in range(3)),
    object,
]


@pytest.mark.parametrize("value", AWKWARD, ids=lambda value: type(value).__name__)
def test_no_value_makes_a_call_raise_or_an_event_vanish(value: Any, recording: Recording) -> None:
    with recording.session(
        value, value, user_id=value, tags=value, environment=value, release=value, agent_name=value
    ) as session:
        with recording.turn(session, value) as turn:
            turn.output = value
            session.log_llm_request(value, value, value, prompt=value, model_parameters=value)
            session.log_llm_response(value, value, value, value, value, value, value)
            session.log_tool_call(value, value, value)
            session.log_tool_result(value, value, value, value, value, value)
            session.log_thinking(value, value, value)
            with session.llm_call(value, value, prompt=value) as llm:
                llm.finish(value, value, value, value, value, value, duration_ms=value)
            with session.tool_call(value, value, value) as tool:
                tool.finish(value, value, value, duration_ms=value)
        session.outcome = value
        session.metadata["more"] = value
    events = recording.events(session.session_id)
    assert len(events) == 13
    assert len({event["span_id"] for event in events}) == 7


def test_what_is_recorded_in_a_thread_with_a_copied_context_lands_in_its_turn(recording: Recording) -> None:
    with recording.session() as session:
        with recording.turn(session) as first:
            context = contextvars.copy_context()
        with recording.turn(session):
            in_thread(lambda: context.run(session.log_thinking, "late"))
    assert recording.only("thinking")["parent_id"] == first.span_id


def test_what_is_recorded_in_any_other_thread_lands_in_the_open_turn(recording: Recording) -> None:
    with recording.session() as session:
        with recording.turn(session) as turn:
            in_thread(lambda: session.log_thinking("inside"))
        in_thread(lambda: session.log_thinking("outside"))
    inside, outside = recording.of_type("thinking")
    assert (inside["turn"], inside["trace_id"], inside["parent_id"]) == (1, turn.trace_id, turn.span_id)
    assert (outside["turn"], outside["parent_id"]) == (0, recording.only("session.start")["span_id"])


def test_sessions_inside_one_another_keep_to_themselves(recording: Recording) -> None:
    with (
        recording.session("a") as a,
        recording.turn(a) as outer,
        recording.session("b") as b,
        recording.turn(b) as inner,
    ):
        a.log_thinking("for a")
        b.log_thinking("for b")
    assert recording.only("thinking", "a")["parent_id"] == outer.span_id
    assert recording.only("thinking", "b")["parent_id"] == inner.span_id
    assert inner.trace_id != outer.trace_id


def test_a_session_is_a_block_of_async_code_as_well(recording: Recording) -> None:
    async def run() -> None:
        async with recording.session() as session, recording.turn(session) as turn:
            async with session.llm_call("m") as call:
                call.finish("a")
            async with session.tool_call("t") as tool:
                tool.finish("b")
            turn.output = "c"

    asyncio.run(run())
    assert len(recording.events()) == 8
    assert {event["parent_id"] for event in recording.of_type("tool.result")} == {
        recording.only("turn.start")["span_id"]
    }


def test_parallel_tasks_never_mix(recording: Recording) -> None:
    async def ask(session: Any, number: int) -> None:
        session.log_llm_request("m", [number])
        await asyncio.sleep(0.001 * (7 - number % 8))
        session.log_llm_response("m", number)
        session.log_tool_call("t", {"n": number})
        await asyncio.sleep(0.001 * (number % 8))
        session.log_tool_result("t", True, number)

    async def run() -> None:
        async with recording.session() as session, recording.turn(session):
            await asyncio.gather(*(ask(session, number) for number in range(40)))

    asyncio.run(run())
    asked = {event["span_id"]: event["data"]["messages"] for event in recording.of_type("llm.request")}
    answered = {event["span_id"]: [event["data"]["content"]] for event in recording.of_type("llm.response")}
    called = {event["span_id"]: event["data"]["args"]["n"] for event in recording.of_type("tool.call")}
    returned = {event["span_id"]: event["data"]["result"] for event in recording.of_type("tool.result")}
    assert len(asked) == len(called) == 40
    assert asked == answered
    assert called == returned


def test_parallel_threads_never_mix(recording: Recording) -> None:
    barrier = threading.Barrier(8)

    def ask(session: Any, number: int) -> None:
        for _ in range(20):
            session.log_llm_request("m", [number])
            barrier.wait(10)
            session.log_llm_response("m", number)

    with recording.session() as session, recording.turn(session):
        threads = [threading.Thread(target=ask, args=(session, number)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    asked = {event["span_id"]: event["data"]["messages"] for event in recording.of_type("llm.request")}
    answered = {event["span_id"]: [event["data"]["content"]] for event in recording.of_type("llm.response")}
    assert len(asked) == 160
    assert asked == answered
    assert sorted(event["seq"] for event in recording.events()) == list(range(324))


def test_every_line_is_one_json_object(recording: Recording) -> None:
    with recording.session() as session:
        session.log_thinking("line\nbreak\r\u2028")
    lines = recording.file().read_bytes().split(b"\n")
    assert lines.pop() == b""
    assert [type(json.loads(line)) for line in lines] == [dict] * 3


def test_the_file_is_closed_at_the_end_and_opened_again_for_a_straggler(recording: Recording) -> None:
    with recording.session() as session:
        pass
    session.log_thinking("late")
    assert [event["event_type"] for event in recording.events()] == ["session.start", "session.end", "thinking"]
