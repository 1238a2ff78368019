"""Where a LangFuse user finds what a span holds, and what is never sent."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given

from tests.langfuse.test_law import TOOLS_NAMED_BY_HALF_A_CHARACTER, hostile_spans
from tracebridge.event import Json
from tracebridge.span import Edge, Link, Prompt, Span, SpanError
from tracebridge_langfuse.exact import encode
from tracebridge_langfuse.mapping import to_wire
from tracebridge_langfuse.remainder import from_metadata
from tracebridge_otlp.wire import WireStatus

START_NS = 1_790_000_000_123_456_789
REMAINDER = "langfuse.observation.metadata.tracebridge"


def span(**fields: Any) -> Span:
    given = {
        "kind": "turn",
        "trace_id": "a" * 32,
        "span_id": "b" * 16,
        "name": "turn",
        "start_ns": START_NS,
        "end_ns": START_NS + 10**9,
        "session_id": "user-1",
        "fingerprint": "f1",
        "opened": Edge(ordinal=1, timestamp="2026-02-06T22:10:00.123Z"),
    }
    return Span(**{**given, **fields})


def sent(**fields: Any) -> dict[str, Any]:
    return to_wire(span(**fields)).attributes


def remainder(**fields: Any) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(json.loads(sent(**fields)[REMAINDER]))
    return value


def metadata_sent(text: str) -> str:
    value: str = sent(metadata={"k": text})["langfuse.observation.metadata.k"]
    return value


LLM = {"kind": "llm", "name": "llm", "model": "gpt-4o"}

PLACES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a turn is an agent with input and output": (
        {"input": "Hello!", "output": "Hi!"},
        {
            "langfuse.observation.type": "agent",
            "langfuse.observation.input": "Hello!",
            "langfuse.observation.output": "Hi!",
        },
    ),
    "a run is a chain with its outcome and its turns": (
        {
            "kind": "session",
            "output": "resolved",
            "closed": Edge(ordinal=2, timestamp="t", fields={"total_turns": 3}),
        },
        {
            "langfuse.observation.type": "chain",
            "langfuse.observation.output": "resolved",
            "langfuse.observation.metadata.total_turns": "3",
        },
    ),
    "an LLM call is a generation": (
        {
            **LLM,
            "input": [{"role": "user", "content": "x"}],
            "output": "y",
            "model_parameters": {"temperature": 0.5},
            "time_to_first_token_ms": 250,
            "prompt": Prompt(name="greet", version=2),
            "cost": 0.25,
        },
        {
            "langfuse.observation.type": "generation",
            "langfuse.observation.model.name": "gpt-4o",
            "langfuse.observation.model.parameters": '{"temperature":0.5}',
            "langfuse.observation.input": '[{"role":"user","content":"x"}]',
            "langfuse.observation.output": "y",
            "langfuse.observation.completion_start_time": "2026-09-21T14:13:20.373Z",
            "langfuse.observation.prompt.name": "greet",
            "langfuse.observation.prompt.version": 2,
            "langfuse.observation.cost_details": '{"total":0.25}',
        },
    ),
    "tool calls are part of the answer": (
        {**LLM, "tool_calls": [{"id": "c1"}], "thinking": "hm"},
        {
            "langfuse.observation.output": '{"role":"assistant","content":null,"reasoning_content":"hm",'
            '"tool_calls":[{"id":"c1"}]}'
        },
    ),
    "tools that were offered do not disturb the input": (
        {**LLM, "input": "x", "tool_definitions": [{"name": "search"}]},
        {
            "langfuse.observation.input": "x",
            "langfuse.observation.metadata.llm.tools": '[{"name":"search"}]',
        },
    ),
    "a tool has its own name, arguments and result": (
        {"kind": "tool", "name": "search", "input": {"q": 1}, "output": "found", "status": "ok"},
        {
            "langfuse.observation.type": "tool",
            "langfuse.observation.input": '{"q":1}',
            "langfuse.observation.output": "found",
        },
    ),
    "a thought is a span with its text and stage": (
        {
            "kind": "thinking",
            "output": "hm",
            "opened": Edge(ordinal=1, timestamp="t", fields={"stage": "plan"}),
        },
        {
            "langfuse.observation.type": "span",
            "langfuse.observation.output": "hm",
            "langfuse.observation.metadata.stage": "plan",
        },
    ),
    "an event of an unknown type shows its data as input": (
        {"kind": "event", "name": "custom", "opened": Edge(ordinal=1, timestamp="t", fields={"k": 1.0})},
        {"langfuse.observation.type": "event", "langfuse.observation.input": '{"k":1.0}'},
    ),
    "an error has a level, a message and a type": (
        {"status": "error", "error": SpanError(message="boom", type="ValueError")},
        {
            "langfuse.observation.level": "ERROR",
            "langfuse.observation.status_message": "boom",
            "langfuse.observation.metadata.error.type": "ValueError",
        },
    ),
    "an incomplete call is a warning": (
        {"extent": "incomplete"},
        {
            "langfuse.observation.level": "WARNING",
            "langfuse.observation.metadata.span.extent": "incomplete",
        },
    ),
    "whose it is stands on every span": (
        {
            "user_id": "u",
            "tags": ("a,b", "c"),
            "agent_name": "helper",
            "environment": "prod",
            "release": "1.0",
            "metadata": {"plan": "gold", "seats": "123", "dotted.key": [1], "version": "1.4"},
            "run_id": "run-1",
            "turn": 2,
        },
        {
            "session.id": "user-1",
            "user.id": "u",
            "langfuse.trace.name": "helper",
            "langfuse.trace.tags": ["a,b", "c"],
            "langfuse.environment": "prod",
            "langfuse.release": "1.0",
            "langfuse.version": "1.4",
            "langfuse.observation.metadata.plan": "gold",
            "langfuse.observation.metadata.seats": '"123"',
            "langfuse.observation.metadata.version": '"1.4"',
            "langfuse.observation.metadata.dotted.key": "[1]",
            "langfuse.observation.metadata.run.id": "run-1",
            "langfuse.observation.metadata.turn.number": "2",
        },
    ),
    "a turn of a remote trace is a root of its own": (
        {"parent_id": "c" * 16, "remote_parent": True},
        {"langfuse.internal.is_app_root": True},
    ),
}


@pytest.mark.parametrize(("fields", "expected"), PLACES.values(), ids=PLACES.keys())
def test_each_value_is_where_a_user_looks_for_it(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    attributes = sent(**fields)
    assert {name: attributes.get(name) for name in expected} == expected


@pytest.mark.parametrize(("fields", "expected"), PLACES.values(), ids=PLACES.keys())
def test_what_has_a_field_is_not_copied_into_the_remainder(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    left = remainder(**fields)
    # the server keeps a prompt's link only if it knows the prompt
    assert set(left.get("exact", {})) <= {"prompt"}
    for edge in ("opened", "closed"):
        assert "fields" not in left.get(edge, {})


def test_an_error_is_an_error_of_otlp_too() -> None:
    assert to_wire(span(status="error")).status is WireStatus.ERROR
    assert to_wire(span(status="ok")).status is WireStatus.UNSET


def test_a_value_that_javascript_would_change_is_shown_and_kept_exactly() -> None:
    given = {"plan": "gold", "ratio": 1.0, "big": 2**60}
    attributes = sent(metadata=given)
    assert attributes["langfuse.observation.metadata.ratio"] == "1.0"
    assert remainder(metadata=given)["exact"] == {"metadata": {"ratio": 1.0, "big": 2**60}}


@pytest.mark.parametrize(
    "environment", ["Production", "x" * 41, "langfuse-prod", "langfuse_prod", "langfuse", "a b", "default"]
)
def test_an_environment_that_the_server_would_rewrite_is_kept_exactly(environment: str) -> None:
    assert remainder(environment=environment)["exact"] == {"environment": environment}


def test_metadata_texts_are_as_they_are_unless_they_could_be_read_as_something_else() -> None:
    plain = ("gold", "run-1", "2026-01-01T00:00:00Z", "007", "1.2.3", "tea", "NaN", "-", "a b", "größer", "+1", "1e")
    assert [metadata_sent(text) for text in plain] == list(plain)
    read = ("", " ", " a", "1", "-1.5e+3", "1 ", "true", "null", '"', "{", "[", "\n", "a\x00", "\ufeff")
    assert [json.loads(metadata_sent(text)) for text in read] == list(read)


@pytest.mark.parametrize(
    "tools",
    [[{"name": "search"}], [{"function": {"name": "search"}}], '[{"name": "search"}]', ['{"name": "search"}']],
)
def test_tools_that_the_server_would_move_into_the_input_are_no_metadata_entry(tools: Any) -> None:
    assert "langfuse.observation.metadata.tools" not in sent(metadata={"tools": tools})
    assert remainder(metadata={"tools": tools})["exact"] == {"metadata": {"tools": tools}}
    edge = Edge(ordinal=1, timestamp="t", fields={"tools": tools})
    assert "langfuse.observation.metadata.tools" not in sent(opened=edge)


def test_a_list_of_names_that_is_called_tools_is_one() -> None:
    assert sent(metadata={"tools": ["search", "book"]})["langfuse.observation.metadata.tools"] == '["search","book"]'


def test_text_that_looks_like_json_is_told_apart_by_a_word_not_by_a_copy() -> None:
    text, value = remainder(input='{"a": 1}'), remainder(input={"a": 1})
    assert (text["inverted"], "inverted" in value) == (["input"], False)
    assert "exact" not in text


def test_links_which_the_server_drops_are_in_the_remainder() -> None:
    link = {"trace_id": "c" * 32, "span_id": "d" * 16}
    assert remainder(links=(Link(**link),))["exact"] == {"links": [link]}


def test_the_remainder_is_known_also_where_the_server_gives_it_back_as_it_was_sent() -> None:
    text = sent(run_id="run-1")[REMAINDER]
    assert from_metadata(text) == from_metadata(json.loads(text))
    assert from_metadata(text) is not None


@given(hostile_spans())
def test_nothing_is_sent_over_which_the_server_loses_requests(any_span: Span) -> None:
    wire = to_wire(any_span)
    assert 10**6 <= wire.start_ns < 2**32 * 10**9
    assert 10**6 <= wire.end_ns < 2**32 * 10**9
    for name, value in (*wire.attributes.items(), ("name", wire.name)):
        name.encode()
        assert value is not None
        for text in value if isinstance(value, list) else [value]:
            assert isinstance(text, str | bool | int)
            str(text).encode()


@pytest.mark.parametrize("text", TOOLS_NAMED_BY_HALF_A_CHARACTER)
def test_no_text_that_the_server_reads_as_json_names_a_tool_by_half_a_character(text: str) -> None:
    for value in (text, [text], {"tools": [text]}):
        kept = remainder(input=value)["exact"]
        shown = sent(input=value)["langfuse.observation.input"]
        assert kept["input"] == value
        assert "\ufffd" in shown
        assert re.search(r"\\u[dD][89a-fA-F]", shown) is None


@pytest.mark.parametrize(
    "value",
    [
        "half a \\ud83d",
        ["half a \\ud83d"],
        '{"whole": "\\ud83d\\ude00"}',
        [{"arguments": '{"whole": "\\ud83d\\ude00"}'}],
        '"\\ud83d"',
        '{"name": "\\ud83d"',
    ],
)
def test_an_escape_that_the_server_does_not_undo_stays(value: Json) -> None:
    shown = sent(input=value)["langfuse.observation.input"]
    assert shown == (value if type(value) is str else encode(value))
    assert "exact" not in remainder(input=value)
