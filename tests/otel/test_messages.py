from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracebridge.testing.strategies import json_values, messages, tool_calls, tool_definitions
from tracebridge_otel import names
from tracebridge_otel.messages import (
    Reply,
    input_form,
    input_of,
    reply_form,
    reply_of,
    tools_form,
    tools_of,
)


@given(st.lists(messages(), max_size=4) | json_values())
def test_every_input_reads_back_as_it_was(value: Any) -> None:
    assert input_of(input_form(value)) == value


@given(json_values(), json_values(), st.lists(tool_calls() | json_values(), max_size=3))
def test_every_reply_reads_back_as_it_was(thinking: Any, content: Any, calls: list[Any]) -> None:
    reply = Reply(thinking=thinking, content=content, tool_calls=calls)
    assert reply_of(reply_form(reply)) == reply


@given(st.lists(tool_definitions(), max_size=3))
def test_all_tool_definitions_read_back_as_they_were(definitions: list[Any]) -> None:
    assert tools_of(tools_form(definitions)) == definitions


@given(messages())
def test_the_form_of_any_message_has_a_role_and_parts_with_types(message: Any) -> None:
    (form,) = input_form([message])
    assert isinstance(form["role"], str)
    assert all(isinstance(part["type"], str) for part in form["parts"])


def test_a_conversation_has_the_form_of_the_conventions() -> None:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"in": "Paris"}'},
    }
    conversation = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Weather in Paris?"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "rainy"},
    ]
    parts = [form["parts"] for form in input_form(conversation)]
    assert parts == [
        [{"type": "text", "content": "Be brief."}],
        [{"type": "text", "content": "Weather in Paris?"}],
        [
            {
                "type": "tool_call",
                "id": "call_1",
                "name": "weather",
                "arguments": '{"in": "Paris"}',
                names.FORM: "function",
            }
        ],
        [{"type": "tool_call_response", "id": "call_1", "response": "rainy"}],
    ]


def test_a_reply_has_the_form_of_the_conventions() -> None:
    call = {"id": "call_1", "name": "weather", "arguments": {"in": "Paris"}}
    assert reply_form(Reply(thinking="Hm.", content="Let me see.", tool_calls=[call])) == [
        {
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "content": "Hm."},
                {"type": "text", "content": "Let me see."},
                {"type": "tool_call", "id": "call_1", "name": "weather", "arguments": {"in": "Paris"}},
            ],
        }
    ]


def test_a_tool_definition_has_the_form_of_the_conventions() -> None:
    function = {"name": "weather", "description": "Tells it.", "parameters": {"type": "object"}}
    assert tools_form([{"type": "function", "function": function}]) == [
        {"type": "function", **function, names.FORM: "function"}
    ]


@pytest.mark.parametrize("form", ["cut off", 7, None, [7], [{"role": "user"}], {"a": 1}])
def test_what_another_sender_wrote_is_read_without_an_error(form: Any) -> None:
    input_of(form)
    reply_of(form)
    tools_of(form)
