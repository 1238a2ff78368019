from __future__ import annotations

import asyncio
import contextvars
import threading
from pathlib import Path

import pytest

from tests.recording.rig import Recording
from tracebridge import Session


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    return Recording(tmp_path)


def test_each_turn_is_a_trace_of_its_own(recording: Recording) -> None:
    with recording.session() as session:
        with recording.turn(session) as one:
            pass
        with recording.turn(session) as other:
            pass
    assert one.trace_id != other.trace_id
    assert (one.number, other.number) == (1, 2)
    for event in recording.of_type("turn.start"):
        assert "parent_id" not in event


def test_turns_share_the_sessions_trace_where_that_is_configured(tmp_path: Path) -> None:
    recording = Recording(tmp_path, trace_scope="session")
    with recording.session() as session:
        for _ in range(2):
            with recording.turn(session):
                pass
    start = recording.only("session.start")
    for event in recording.of_type("turn.start"):
        assert (event["trace_id"], event["parent_id"]) == (start["trace_id"], start["span_id"])


def test_both_events_of_a_turn_name_one_span(recording: Recording) -> None:
    with recording.session() as session, recording.turn(session) as turn:
        pass
    ids = [
        (event["trace_id"], event["span_id"]) for event in recording.events() if event["event_type"].startswith("turn.")
    ]
    assert ids == [(turn.trace_id, turn.span_id)] * 2


def test_a_turn_inside_a_tool_call_is_its_child(recording: Recording) -> None:
    with (
        recording.session() as session,
        recording.turn(session) as outer,
        session.tool_call("research"),
        recording.turn(session, "find out") as inner,
    ):
        session.log_thinking("hm")
    tool = recording.only("tool.call")
    inner_start = recording.of_type("turn.start")[1]
    assert inner.number == 2
    assert (inner_start["trace_id"], inner_start["parent_id"]) == (outer.trace_id, tool["span_id"])
    assert recording.only("thinking")["parent_id"] == inner.span_id
    assert recording.only("session.end")["data"]["total_turns"] == 2


def test_a_turn_inside_a_logged_tool_call_is_its_child(recording: Recording) -> None:
    with recording.session() as session, recording.turn(session):
        session.log_tool_call("research")
        with recording.turn(session) as inner:
            session.log_tool_call("search")
            session.log_tool_result("search", True, "inner")
        session.log_tool_result("research", True, "outer")
    research, search = recording.of_type("tool.call")
    assert recording.of_type("turn.start")[1]["parent_id"] == research["span_id"]
    assert search["parent_id"] == inner.span_id
    results = {event["data"]["result"]: event["span_id"] for event in recording.of_type("tool.result")}
    assert results == {"inner": search["span_id"], "outer": research["span_id"]}


def test_a_turn_inside_several_logged_tool_calls_is_a_part_of_the_turn(recording: Recording) -> None:
    with recording.session() as session, recording.turn(session) as outer:
        session.log_tool_call("one")
        session.log_tool_call("two")
        with recording.turn(session):
            pass
    assert recording.of_type("turn.start")[1]["parent_id"] == outer.span_id


def test_sub_agents_that_work_in_parallel_belong_to_their_own_tool_calls(recording: Recording) -> None:
    async def work(session: Session, number: int) -> None:
        async with session.tool_call("agent", number):
            await asyncio.sleep(0)
            async with recording.turn(session, number):
                await asyncio.sleep(0.001)
                session.log_thinking(number)

    async def run() -> None:
        async with recording.session() as session, recording.turn(session):
            await asyncio.gather(*(work(session, number) for number in range(10)))

    asyncio.run(run())
    tools = {event["span_id"]: event["data"]["args"] for event in recording.of_type("tool.call")}
    turns = recording.of_type("turn.start")[1:]
    assert sorted(event["turn"] for event in turns) == list(range(2, 12))
    assert all(tools[event["parent_id"]] == event["data"]["user_input"] for event in turns)
    spans = {event["span_id"]: event["data"]["user_input"] for event in turns}
    assert all(spans[event["parent_id"]] == event["data"]["content"] for event in recording.of_type("thinking"))


def test_turns_in_threads_of_their_own_are_traces_of_their_own(recording: Recording) -> None:
    def work() -> None:
        with recording.turn(session):
            pass

    with recording.session() as session, recording.turn(session):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert ["parent_id" in event for event in recording.of_type("turn.start")] == [False, False]


def test_a_turn_in_a_task_that_outlived_the_turn_it_came_from_is_no_part_of_it(recording: Recording) -> None:
    def work() -> None:
        with recording.turn(session):
            pass

    with recording.session() as session:
        with recording.turn(session):
            context = contextvars.copy_context()
        context.run(work)
    assert ["parent_id" in event for event in recording.of_type("turn.start")] == [False, False]


def test_a_turn_that_is_left_in_another_context_ends_well(recording: Recording) -> None:
    with recording.session() as session:
        turn = recording.turn(session)
        contextvars.copy_context().run(turn.__enter__)
        session.log_thinking("still the open turn")
        contextvars.copy_context().run(turn.__exit__, None, None, None)
        session.log_thinking("outside")
    assert [event["turn"] for event in recording.of_type("thinking")] == [1, 0]
    assert recording.only("turn.end")["span_id"] == turn.span_id


def test_more_entries_of_a_turn_are_recorded_as_they_are(recording: Recording) -> None:
    with recording.session() as session, recording.turn(session, "hi", channel="mail"):
        pass
    assert recording.only("turn.start")["data"] == {"user_input": "hi", "channel": "mail"}


def test_times_within_a_turn_agree_with_the_durations(recording: Recording) -> None:
    from tracebridge.event import timestamp_ns

    with recording.session() as session, recording.turn(session):
        session.log_thinking("hm")
    start, thinking, end = (timestamp_ns(event["timestamp"]) for event in recording.events()[1:4])
    assert start <= thinking <= end
    assert abs((end - start) / 1e6 - recording.only("turn.end")["duration_ms"]) <= 0.002


def test_a_turn_that_is_entered_again_while_it_is_open_goes_on(recording: Recording) -> None:
    with recording.session("s") as session:
        with recording.turn(session, "one") as turn:
            with turn:
                session.log_thinking("inside")
            session.log_thinking("after")
        with recording.turn(session, "two"):
            pass
    assert [(event["event_type"], event["turn"]) for event in recording.events()[1:-1]] == [
        ("turn.start", 1),
        ("thinking", 1),
        ("thinking", 1),
        ("turn.end", 1),
        ("turn.start", 2),
        ("turn.end", 2),
    ]
    assert "parent_id" not in recording.of_type("turn.start")[1]


def test_a_turn_that_is_entered_again_after_its_end_does_not_tell_the_answer_before(recording: Recording) -> None:
    with recording.session() as session:
        turn = recording.turn(session, "one")
        turn.output = "planned"
        with turn:
            pass
        with turn:
            turn.output = "second"
        assert turn.output == "second"
        with pytest.raises(ValueError, match="before"), turn:
            raise ValueError("before there is an answer")
    assert [event["data"]["output"] for event in recording.of_type("turn.end")] == ["planned", "second", None]
