"""Conversations as providers' and frameworks' packages write them, in the form of the conventions and exactly back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracebridge.testing.strategies import json_values
from tracebridge_otel import names
from tracebridge_otel.messages import Reply, input_form, input_of, reply_form, reply_of, tools_form, tools_of
from tracebridge_otel.shapes import CALLS, PARTS, TOOLS, Shape, item_of

ARGUMENTS = {"in": "Paris"}
ASKED = ("user", [{"type": "text", "content": "Weather?"}])
THOUGHT = {"type": "reasoning", "content": "Hm."}
CALL = {"type": "tool_call", "id": "c1", "name": "weather", "arguments": ARGUMENTS}
RAIN = {"type": "tool_call_response", "id": "c1", "response": "rain"}

CONVERSATIONS: dict[str, tuple[list[Any], list[tuple[str, list[dict[str, Any]]]]]] = {
    "Anthropic": (
        [
            {"role": "user", "content": [{"type": "text", "text": "Weather?", "cache_control": {"type": "ephemeral"}}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm.", "signature": "Eo8="},
                    {"type": "tool_use", "id": "c1", "name": "weather", "input": ARGUMENTS, "caller": None},
                ],
            },
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "rain", "is_error": False}],
            },
        ],
        [
            ASKED,
            ("assistant", [THOUGHT, CALL]),
            ("user", [RAIN]),
        ],
    ),
    "OpenAI's responses": (
        [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
            {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "weather", "arguments": ARGUMENTS},
            {"type": "function_call_output", "call_id": "c1", "output": "rain"},
            {"role": "assistant", "content": [{"type": "output_text", "text": "Rain.", "annotations": []}]},
        ],
        [
            ASKED,
            ("assistant", [CALL]),
            ("tool", [RAIN]),
            ("assistant", [{"type": "text", "content": "Rain."}]),
        ],
    ),
    "OpenAI's chat, with an index, and a tool's answer in parts": (
        [
            {"role": "user", "content": "Weather?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "index": 0,
                        "id": "c1",
                        "type": "function",
                        "function": {"name": "weather", "arguments": ARGUMENTS},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "rain"}]},
        ],
        [
            ASKED,
            ("assistant", [CALL]),
            ("tool", [{"type": "tool_call_response", "id": "c1", "response": [{"type": "text", "text": "rain"}]}]),
        ],
    ),
    "Gemini": (
        [
            {"role": "user", "parts": [{"text": "Weather?"}]},
            {
                "role": "model",
                "parts": [
                    {"text": "Hm.", "thought": True},
                    {"function_call": {"id": "c1", "name": "weather", "args": ARGUMENTS}, "thought_signature": "Eo8="},
                ],
            },
            {
                "role": "user",
                "parts": [{"functionResponse": {"id": "c1", "name": "weather", "response": {"sky": "rain"}}}],
            },
        ],
        [
            ASKED,
            ("model", [THOUGHT, CALL]),
            ("user", [{"type": "tool_call_response", "id": "c1", "response": {"sky": "rain"}}]),
        ],
    ),
    "Bedrock": (
        [
            {"role": "user", "content": [{"text": "Weather?"}]},
            {
                "role": "assistant",
                "content": [
                    {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "Eo8="}}},
                    {"toolUse": {"toolUseId": "c1", "name": "weather", "input": ARGUMENTS}},
                ],
            },
            {"role": "user", "content": [{"toolResult": {"toolUseId": "c1", "content": [], "status": "success"}}]},
        ],
        [ASKED, ("assistant", [THOUGHT, CALL]), ("user", [{"type": "tool_call_response", "id": "c1", "response": []}])],
    ),
    "LangChain": (
        [
            {"type": "human", "content": "Weather?", "id": None},
            {
                "type": "ai",
                "content": [{"type": "tool_use", "id": "c1", "name": "weather", "input": ARGUMENTS}],
                "tool_calls": [{"type": "tool_call", "id": "c1", "name": "weather", "args": ARGUMENTS}],
            },
            {"type": "tool", "tool_call_id": "c1", "content": "rain", "status": "success"},
        ],
        [
            ASKED,
            ("assistant", [CALL, CALL]),
            ("tool", [RAIN]),
        ],
    ),
    "Pydantic AI": (
        [
            {"kind": "request", "parts": [{"part_kind": "user-prompt", "content": "Weather?"}]},
            {
                "kind": "response",
                "parts": [
                    {"part_kind": "thinking", "content": "Hm."},
                    {"part_kind": "tool-call", "tool_call_id": "c1", "tool_name": "weather", "args": ARGUMENTS},
                ],
            },
            {
                "kind": "request",
                "parts": [
                    {"part_kind": "tool-return", "tool_call_id": "c1", "tool_name": "weather", "content": "rain"}
                ],
            },
        ],
        [
            ASKED,
            ("assistant", [THOUGHT, CALL]),
            ("user", [RAIN]),
        ],
    ),
    "the AI SDK": (
        [
            {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "reasoning", "text": "Hm."},
                    {"type": "tool-call", "toolCallId": "c1", "toolName": "weather", "input": ARGUMENTS},
                ],
            },
            {
                "role": "tool",
                "content": [
                    {
                        "type": "tool-result",
                        "toolCallId": "c1",
                        "toolName": "weather",
                        "output": {"type": "text", "value": "rain"},
                    }
                ],
            },
        ],
        [
            ASKED,
            ("assistant", [THOUGHT, CALL]),
            ("tool", [{"type": "tool_call_response", "id": "c1", "response": {"type": "text", "value": "rain"}}]),
        ],
    ),
}


def plain(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Parts without what is there for the way back only."""
    return [{key: value for key, value in part.items() if key != names.FORM} for part in parts]


@pytest.mark.parametrize(("messages", "form"), CONVERSATIONS.values(), ids=CONVERSATIONS.keys())
def test_a_conversation_has_the_form_of_the_conventions_whoever_wrote_it(messages: list[Any], form: list[Any]) -> None:
    written = input_form(messages)
    assert [(message["role"], plain(message["parts"])) for message in written] == form
    assert input_of(written) == messages


@pytest.mark.parametrize(
    ("message", "role"),
    [
        ({"type": "reasoning", "id": "rs_1", "summary": []}, "assistant"),
        ({"type": "web_search_call", "id": "ws_1"}, "user"),
        ({"type": "ai", "text": 7}, "assistant"),
    ],
)
def test_a_message_of_another_form_is_one_part_as_it_is(message: Any, role: str) -> None:
    assert input_form([message]) == [{"role": role, "parts": [{"type": names.VERBATIM, "value": message}]}]


def test_items_of_openais_responses_are_an_answer_in_parts() -> None:
    thought: dict[str, Any] = {"type": "reasoning", "id": "rs_1", "summary": [], "content": None}
    call = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "weather", "arguments": ARGUMENTS}
    reply = Reply(thinking="Hm.", content=[thought, call])
    (answer,) = reply_form(reply)
    assert plain(answer["parts"]) == [THOUGHT, {"type": names.VERBATIM, "value": thought}, CALL]
    assert reply_of([answer]) == reply


@pytest.mark.parametrize("content", [[1, 2], [[]], [{"x": 1}], [{"type": "image"}]])
def test_an_answer_that_is_a_list_of_something_else_is_one_part_as_it_is(content: list[Any]) -> None:
    ((answer),) = reply_form(Reply(content=content))
    assert answer == {"role": "assistant", "parts": [{"type": names.VERBATIM, "value": content}]}


def test_a_number_that_python_takes_for_true_stays_a_number() -> None:
    ((part,),) = [
        message["parts"] for message in input_form([{"role": "model", "parts": [{"text": "x", "thought": 1}]}])
    ]
    (message,) = input_of([{"role": "model", "parts": [part], names.FORM: "own parts"}])
    assert message["parts"][0]["thought"] is not True


@pytest.mark.parametrize(
    "call",
    [
        {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": ARGUMENTS}, "index": 0},
        {"id": "c1", "function": {"name": "weather", "arguments": ARGUMENTS}},
        {"id": "c1", "name": "weather", "args": ARGUMENTS},
        {"id": "c1", "name": "weather", "args": ARGUMENTS, "type": "tool_call"},
        {"id": "c1", "name": "weather", "input": ARGUMENTS, "type": "tool_use"},
        {"id": "fc_1", "call_id": "c1", "name": "weather", "arguments": ARGUMENTS, "type": "function_call"},
        {"toolUse": {"toolUseId": "c1", "name": "weather", "input": ARGUMENTS}},
    ],
    ids=str,
)
def test_a_call_has_its_name_its_id_and_its_arguments_whoever_made_it(call: Any) -> None:
    reply = Reply(content="Let me see.", tool_calls=[call])
    ((answer),) = reply_form(reply)
    assert plain(answer["parts"])[1:] == [CALL]
    assert reply_of([answer]) == reply


def test_an_answer_in_parts_has_the_form_of_the_conventions() -> None:
    blocks = [
        {"type": "thinking", "thinking": "Hm.", "signature": "Eo8="},
        {"type": "text", "text": "Let me see.", "citations": None},
        {"type": "tool_use", "id": "c1", "name": "weather", "input": ARGUMENTS},
        {"type": "image", "source": {"type": "url", "url": "x"}},
    ]
    call = {"id": "c1", "name": "weather", "arguments": ARGUMENTS}
    reply = Reply(thinking="Hm.", content=blocks, tool_calls=[call])
    (answer,) = reply_form(reply)
    assert plain(answer["parts"]) == [
        THOUGHT,
        THOUGHT,
        {"type": "text", "content": "Let me see."},
        CALL,
        blocks[3],
        CALL,
    ]
    assert reply_of([answer]) == reply


@pytest.mark.parametrize(
    "definition",
    [
        {"name": "weather", "description": "Tells it.", "input_schema": {"type": "object"}},
        {"name": "weather", "description": "Tells it.", "inputSchema": {"type": "object"}, "annotations": {}},
        {"toolSpec": {"name": "weather", "description": "Tells it.", "inputSchema": {"json": {"type": "object"}}}},
        {
            "type": "function",
            "function": {"name": "weather", "description": "Tells it.", "parameters": {"type": "object"}},
            "cache_control": {"type": "ephemeral"},
        },
    ],
    ids=str,
)
def test_a_tool_definition_has_name_and_parameters_whoever_wrote_it(definition: Any) -> None:
    written = tools_form([definition])
    assert plain(written) == [
        {"type": "function", "name": "weather", "description": "Tells it.", "parameters": {"type": "object"}}
    ]
    assert tools_of(written) == [definition]


def near(shapes: Mapping[str, Shape]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects that have a shape, or nearly, with more or less than belongs to it."""
    keys = ("id", "role", "parts", "content", "value", "type", "kind", "text", "args", names.FORM)
    more = st.fixed_dictionaries({}, optional={key: json_values() for key in keys})

    def of(name: str) -> st.SearchStrategy[dict[str, Any]]:
        fields = {key: st.just("x") | json_values() for key in shapes[name].fields}
        form = st.fixed_dictionaries({names.FORM: more.map(lambda rest: {name: rest})}, optional=fields)
        return st.tuples(form, st.just({}) | more).map(lambda pair: {**item_of(pair[0], shapes), **pair[1]})

    return st.sampled_from(list(shapes)).flatmap(of)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "role": st.sampled_from(["user", "model"]) | json_values(),
            "type": st.sampled_from(["human", "ai", "tool", "function_call", "x"]),
            "kind": st.sampled_from(["request", "response"]),
            "content": st.lists(near(PARTS), max_size=3) | st.just("x"),
            "parts": st.lists(near(PARTS), max_size=3),
            "tool_calls": st.lists(near(CALLS), max_size=2),
            "tool_call_id": st.just("c1"),
        },
    )
    | near(PARTS)
)
def test_every_message_near_a_shape_reads_back_as_it_was(message: Any) -> None:
    assert input_of(input_form([message])) == [message]


@given(st.none() | st.just("Hm.") | json_values(), st.lists(near(PARTS), max_size=3), st.lists(near(CALLS), max_size=2))
def test_every_reply_near_a_shape_reads_back_as_it_was(thinking: Any, content: list[Any], calls: list[Any]) -> None:
    reply = Reply(thinking=thinking, content=content, tool_calls=calls)
    assert reply_of(reply_form(reply)) == reply


@given(st.lists(near(TOOLS), max_size=3))
def test_every_definition_near_a_shape_reads_back_as_it_was(definitions: list[Any]) -> None:
    assert tools_of(tools_form(definitions)) == definitions


@pytest.mark.parametrize(
    "form", ["x", 7, [], {}, {"x": {}}, {"call": 7}, {"call": {"tool_use": 7}}, {"toolUse": {"toolUse": 7}}]
)
def test_a_form_that_somebody_changed_is_read_without_an_error(form: Any) -> None:
    for part in ({**CALL, names.FORM: form}, {"type": "text", "content": "x", names.FORM: form}):
        reply_of([{"role": "assistant", "parts": [part], names.FORM: "parts"}])
        reply_of([{"role": "assistant", "parts": [part]}])
        for mark in ("parts", "own parts", "no role", "part", form):
            input_of([{"role": "user", "parts": [part], names.FORM: mark}])
        tools_of([part])
