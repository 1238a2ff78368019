"""Which request a logged response answers."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.recording.rig import Recording
from tracebridge import Session


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    return Recording(tmp_path)


def answers(recording: Recording) -> list[int | None]:
    """For each response or result, the number that its request or call bears; None where it has none."""
    numbers = {
        event["span_id"]: event["data"]["n"]
        for event in recording.events()
        if event["event_type"] in ("llm.request", "tool.call")
    }
    closing = [event for event in recording.events() if event["event_type"] in ("llm.response", "tool.result")]
    return [numbers.get(event["span_id"]) for event in closing]


def in_thread(work: Any, *args: Any) -> None:
    thread = threading.Thread(target=work, args=args)
    thread.start()
    thread.join()


def test_a_result_answers_the_call_with_its_id(recording: Recording) -> None:
    with recording.session() as session:
        for number in range(3):
            session.log_tool_call("t", call_id=f"c{number}", n=number)
        for number in (2, 0, 1):
            session.log_tool_result("t", call_id=f"c{number}")
    assert answers(recording) == [2, 0, 1]


def test_a_result_without_an_id_answers_the_oldest_call_of_its_tool(recording: Recording) -> None:
    with recording.session() as session:
        session.log_tool_call("a", n=0)
        session.log_tool_call("b", n=1)
        session.log_tool_call("a", n=2)
        for name in ("b", "a", "a", "a"):
            session.log_tool_result(name)
    assert answers(recording) == [1, 0, 2, None]


def test_a_result_never_answers_a_call_with_another_id_or_name(recording: Recording) -> None:
    with recording.session() as session:
        session.log_tool_call("a", call_id="c0", n=0)
        session.log_tool_result("a", call_id="c1")
        session.log_tool_result("b")
    assert answers(recording) == [None, None]


def test_a_response_answers_the_latest_request_because_an_earlier_one_has_failed(recording: Recording) -> None:
    with recording.session() as session:
        session.log_llm_request("m", n=0)
        session.log_llm_request("m", n=1)
        session.log_llm_response("m")
    assert answers(recording) == [1]


def test_a_response_answers_the_request_of_its_model_first(recording: Recording) -> None:
    with recording.session() as session:
        session.log_llm_request("small", n=0)
        session.log_llm_request("large", n=1)
        session.log_llm_response("small")
        session.log_llm_response("large-2024-08")
    assert answers(recording) == [0, 1]


def test_a_response_without_a_model_gets_that_of_its_request(recording: Recording) -> None:
    with recording.session() as session:
        session.log_llm_request("m", n=0)
        session.log_llm_response(content="a")
    assert recording.only("llm.response")["data"]["model"] == "m"


def test_a_response_in_a_thread_of_its_own_answers_the_open_request_of_the_turn(recording: Recording) -> None:
    with recording.session() as session, recording.turn(session):
        session.log_llm_request("m", n=0)
        in_thread(session.log_llm_response, "m-2024")
        session.log_tool_call("t", n=1)
        in_thread(session.log_tool_result, "t")
    assert answers(recording) == [0, 1]


def test_a_response_after_the_end_of_its_turn_still_answers_and_belongs_there(recording: Recording) -> None:
    with recording.session() as session:
        with recording.turn(session):
            session.log_llm_request("m", n=0)
        session.log_llm_response("m")
    assert answers(recording) == [0]
    assert recording.only("llm.response")["turn"] == 1


def test_a_response_that_a_task_logs_for_its_parents_request_closes_it_for_both(recording: Recording) -> None:
    async def answer(session: Session) -> None:
        session.log_tool_result("t")

    async def run() -> None:
        async with recording.session() as session, recording.turn(session):
            session.log_tool_call("t", n=0)
            await asyncio.create_task(answer(session))
            session.log_tool_call("t", n=1)
            session.log_tool_result("t")
            session.log_tool_result("t")

    asyncio.run(run())
    assert answers(recording) == [0, 1, None]


def test_calls_of_other_runs_are_never_answered(recording: Recording) -> None:
    with recording.session("other") as other:
        other.log_llm_request("m", n=0)
        with recording.session() as session:
            session.log_llm_response("m")
    assert answers(recording) == [None]


def test_requests_that_are_never_answered_are_forgotten_in_time(tmp_path: Path) -> None:
    recording = Recording(tmp_path, orphan_after=0.000001)
    with recording.session() as session:
        for number in range(1000):
            session.log_tool_call("t", n=number)
        with recording.turn(session):
            pass
        session.log_tool_result("t")
    assert answers(recording) == [None]
