"""What the scripted agent leaves in the journal is all that the demo promises to show."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.demo.conftest import Event, journal, of_type
from tracebridge.demo.scenario import OrderDesk, PlayedTurn


@pytest.fixture
def played(traces: Path) -> list[PlayedTurn]:
    return list(OrderDesk(seconds_to_first_token=0.001).play())


@pytest.fixture
def events(played: list[PlayedTurn], traces: Path) -> list[Event]:
    return journal(traces)


def test_it_takes_as_many_turns_as_it_says(played: list[PlayedTurn]) -> None:
    assert len(played) == OrderDesk().turns


def test_a_played_turn_names_the_span_that_the_journal_has(played: list[PlayedTurn], events: list[Event]) -> None:
    outputs = {(event["trace_id"], event["span_id"]): event["data"]["output"] for event in of_type(events, "turn.end")}
    assert [outputs[turn.trace_id, turn.span_id] for turn in played] == [turn.output for turn in played]


def test_a_customer_who_comes_back_has_two_runs_of_one_session(events: list[Event]) -> None:
    runs = {event["run_id"] for event in events if event["session_id"] == "ada-order-A-17"}
    assert len(runs) == 2


def test_every_call_and_turn_has_its_end(events: list[Event]) -> None:
    for opening, closing in (
        ("session.start", "session.end"),
        ("turn.start", "turn.end"),
        ("llm.request", "llm.response"),
        ("tool.call", "tool.result"),
    ):
        opened, closed = ([event["span_id"] for event in of_type(events, kind)] for kind in (opening, closing))
        assert sorted(opened) == sorted(closed)


def test_tools_that_the_model_asks_for_together_run_under_the_same_turn(events: list[Event]) -> None:
    asked = [event for event in of_type(events, "llm.response") if len(event["data"].get("tool_calls") or ()) > 1]
    calls = of_type(events, "tool.call")

    assert len(asked) == 2
    for response in asked:
        wanted = {call["id"] for call in response["data"]["tool_calls"]}
        made = [call for call in calls if call["trace_id"] == response["trace_id"]]
        assert {call["data"]["call_id"] for call in made} == wanted
        assert {call["parent_id"] for call in made} == {response["parent_id"]}


def test_the_warehouse_s_agent_works_below_the_tool_call_that_asks_it(events: list[Event]) -> None:
    (asking,) = [event for event in of_type(events, "tool.call") if event["data"]["tool_name"] == "ask_warehouse"]
    (below,) = [event for event in of_type(events, "turn.start") if event.get("parent_id") == asking["span_id"]]
    inside = {event["event_type"] for event in events if event.get("parent_id") == below["span_id"]}

    assert below["trace_id"] == asking["trace_id"]
    assert inside == {"thinking", "llm.request", "llm.response", "tool.call", "tool.result"}


def test_one_tool_fails_and_one_call_of_the_model_is_tried_again(events: list[Event]) -> None:
    failed_tools = [event["data"] for event in of_type(events, "tool.result") if not event["data"]["success"]]
    failed_calls = [event for event in of_type(events, "llm.response") if "error" in event["data"]]

    assert [(data["tool_name"], data["error"]["type"]) for data in failed_tools] == [("refund", "RefundRefusedError")]
    assert [event["data"]["error"]["type"] for event in failed_calls] == ["ModelOverloadedError"]
    requests = [event for event in of_type(events, "llm.request") if event["trace_id"] == failed_calls[0]["trace_id"]]
    assert requests[0]["data"]["messages"] == requests[1]["data"]["messages"]


def test_answers_tell_their_cost_their_tokens_and_the_wait_for_the_first_one(events: list[Event]) -> None:
    answers = [event for event in of_type(events, "llm.response") if "error" not in event["data"]]

    assert any(answer["data"].get("thinking") for answer in answers)
    for answer in answers:
        assert answer["data"]["cost"] > 0
        assert answer["data"]["tokens"]["completion"] > 0
        assert 0 < answer["data"]["time_to_first_token_ms"] <= answer["duration_ms"]
