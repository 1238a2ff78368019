from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.recording.rig import Recording
from tracebridge import LlmCall, ToolCall


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    return Recording(tmp_path)


def test_an_llm_call_is_recorded_with_all_that_is_known_of_it(recording: Recording) -> None:
    with (
        recording.session() as session,
        recording.turn(session) as turn,
        session.llm_call(
            model="gpt-4o",
            messages=[{"role": "user", "content": "hi"}],
            model_parameters={"temperature": 0},
            tools=[{"name": "t"}],
            prompt=("greet", 3),
            provider="openai",
            seed=1,
        ) as call,
    ):
        call.first_token()
        call.finish(
            content="hello",
            tool_calls=[],
            tokens={"prompt": 1, "completion": 2},
            cost=0.5,
            thinking="hm",
            finish_reason="stop",
            model="gpt-4o-2024",
            response_id="r",
            cached=True,
        )
    request, response = recording.only("llm.request"), recording.only("llm.response")
    assert request["data"] == {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": "hi"}],
        "tools": [{"name": "t"}],
        "model_parameters": {"temperature": 0},
        "prompt": {"name": "greet", "version": 3},
        "provider": "openai",
        "seed": 1,
    }
    first_token_ms = response["data"].pop("time_to_first_token_ms")
    assert 0 <= first_token_ms <= response["duration_ms"]
    assert response["data"] == {
        "model": "gpt-4o-2024",
        "content": "hello",
        "tool_calls": [],
        "tokens": {"prompt": 1, "completion": 2},
        "cost": 0.5,
        "thinking": "hm",
        "finish_reason": "stop",
        "response_id": "r",
        "cached": True,
    }
    assert request["span_id"] == response["span_id"]
    assert {request["parent_id"], response["parent_id"]} == {turn.span_id}
    assert request["trace_id"] == response["trace_id"] == turn.trace_id


def test_only_the_first_answer_and_the_first_token_count(recording: Recording) -> None:
    with recording.session() as session, session.llm_call("m") as call:
        call.finish("one", duration_ms=5)
        call.first_token()
        call.finish("two")
    response = recording.only("llm.response")
    assert response["data"] == {"model": "m", "content": "one"}
    assert response["duration_ms"] == 5.0


def test_a_block_that_ends_without_an_answer_is_closed_with_what_is_known(recording: Recording) -> None:
    with recording.session() as session:
        with session.llm_call("m") as call:
            call.first_token()
        with session.tool_call("t", {"a": 1}, "c1"):
            pass
    response, result = recording.only("llm.response"), recording.only("tool.result")
    assert set(response["data"]) == {"model", "content", "time_to_first_token_ms"}
    assert result["data"] == {"tool_name": "t", "success": True, "result": None, "call_id": "c1"}


@pytest.mark.parametrize(
    ("block", "closing"), [("llm_call", "llm.response"), ("tool_call", "tool.result")], ids=["llm", "tool"]
)
def test_an_exception_is_the_calls_error_and_goes_on_untouched(block: str, closing: str, recording: Recording) -> None:
    failure = TimeoutError("too slow")
    with recording.session() as session, pytest.raises(TimeoutError) as caught, getattr(session, block)("name"):
        raise failure
    assert caught.value is failure
    event = recording.only(closing)
    assert event["data"]["error"] == {"type": "TimeoutError", "message": "too slow"}
    assert event["data"].get("success") in (None, False)
    assert type(event["duration_ms"]) is float
    assert "error" not in recording.only("session.end")["data"]


def test_an_exception_after_the_answer_is_none_of_the_calls(recording: Recording) -> None:
    def answer_and_fail() -> None:
        with session.llm_call("m") as call:
            call.finish("answer")
            raise ValueError("later")

    with recording.session() as session, pytest.raises(ValueError, match="later"):
        answer_and_fail()
    assert recording.only("llm.response")["data"] == {"model": "m", "content": "answer"}


@pytest.mark.parametrize(
    ("given", "success", "error"),
    [
        ({"result": 1}, True, None),
        ({"error": "boom"}, False, "boom"),
        ({"success": False, "result": "partial"}, False, None),
    ],
)
def test_a_tools_result_says_whether_it_did_its_work(
    given: dict[str, Any], success: bool, error: Any, recording: Recording
) -> None:
    with recording.session() as session, session.tool_call("t") as call:
        call.finish(**given)
    data = recording.only("tool.result")["data"]
    assert (data["success"], data.get("error")) == (success, error)


def test_what_happens_inside_a_call_is_a_part_of_it(recording: Recording) -> None:
    with recording.session() as session, recording.turn(session):
        with session.tool_call("t"):
            session.log_thinking("inside")
        session.log_thinking("after")
    inside, after = recording.of_type("thinking")
    assert inside["parent_id"] == recording.only("tool.call")["span_id"]
    assert after["parent_id"] == recording.only("turn.start")["span_id"]


def test_a_call_that_is_tried_again_is_another_call(recording: Recording) -> None:
    def attempt(call: LlmCall | ToolCall, number: int) -> None:
        with call:
            if number < 2:
                raise ConnectionError(number)
            call.finish("answer")

    with recording.session() as session:
        for call in (session.llm_call("m"), session.tool_call("t")):
            for number in range(3):
                with suppress(ConnectionError):
                    attempt(call, number)
    for opening, closing, entry in (("llm.request", "llm.response", "content"), ("tool.call", "tool.result", "result")):
        assert [event["span_id"] for event in recording.of_type(closing)] == [
            event["span_id"] for event in recording.of_type(opening)
        ]
        assert [event["data"][entry] for event in recording.of_type(closing)] == [None, None, "answer"]


def test_a_call_that_is_entered_again_while_it_is_open_goes_on(recording: Recording) -> None:
    with recording.session() as session, recording.turn(session):
        with session.tool_call("t") as call:
            with call:
                session.log_thinking("inside")
            session.log_thinking("after")
            call.finish("done")
        session.log_thinking("outside")
    assert recording.only("tool.result")["data"]["result"] == "done"
    tool, turn = recording.only("tool.call")["span_id"], recording.only("turn.start")["span_id"]
    assert [event["parent_id"] for event in recording.of_type("thinking")] == [tool, tool, turn]


def test_a_call_that_is_finished_without_a_block_is_recorded(recording: Recording) -> None:
    with recording.session() as session:
        session.llm_call("m").finish("a")
        session.tool_call("t").finish("b")
    assert [event["event_type"] for event in recording.events()][1:-1] == [
        "llm.request",
        "llm.response",
        "tool.call",
        "tool.result",
    ]
