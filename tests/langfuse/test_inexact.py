"""The short way to what LangFuse does not give back says what the long one does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.langfuse.test_law import HALF_A_CHARACTER, hostile_spans, hostile_values
from tracebridge.event import Json
from tracebridge.session_stream import SessionStream
from tracebridge.span import Edge, Link, Prompt, Span, SpanError
from tracebridge.testing.strategies import json_values, spans
from tracebridge_langfuse import inexact
from tracebridge_langfuse.exact import encode, same, sendable, sendable_text
from tracebridge_langfuse.mapping import to_wire
from tracebridge_langfuse.remainder import Remainder
from tracebridge_langfuse.served import comes_back, served_json
from tracebridge_langfuse.session import session_of

ORDINARY: dict[str, Any] = {
    "trace_id": "a" * 32,
    "span_id": "b" * 16,
    "parent_id": "c" * 16,
    "start_ns": 1_790_000_000_123_456_789,
    "end_ns": 1_790_000_001_123_456_789,
    "session_id": "user-1",
    "run_id": "run-1",
    "turn": 2,
    "user_id": "u-17",
    "agent_name": "helper",
    "environment": "production",
    "release": "1.4.2",
    "tags": ("a", "b"),
    "metadata": {"plan": "gold", "seats": 3},
    "opened": Edge(ordinal=1, timestamp="2026-02-06T22:10:00.123Z", seq=1, ids=True),
    "closed": Edge(ordinal=2, timestamp="2026-02-06T22:10:01.123Z", duration_ms=1000.5, fields={"k": "v"}),
    "fingerprint": "f1",
}
LLM = Span(
    kind="llm",
    name="llm",
    input=[{"role": "user", "content": "Grüße"}],
    output="y",
    model="gpt-4o",
    model_parameters={"temperature": 0.7, "max_tokens": 512},
    tool_definitions=[{"type": "function", "function": {"name": "search"}}],
    finish_reason="stop",
    time_to_first_token_ms=250,
    usage={"prompt": 120, "completion": 30},
    cost={"input": 0.25, "output": 0.5},
    **ORDINARY,
)
TURN = Span(kind="turn", name="turn", input="Hello!", output="Hi!", **ORDINARY)
TOOL = Span(kind="tool", name="search", input={"q": 1}, output=["found"], status="ok", **ORDINARY)

ODD: dict[str, list[Any]] = {
    "parent_id": [""],
    "remote_parent": [True],
    "name": ["", "\x00", HALF_A_CHARACTER, "é"],
    "start_ns": [0, 10**6 - 1, 2**32 * 10**9 - 1, 2**32 * 10**9, -1],
    "end_ns": [0, 2**32 * 10**9],
    "extent": ["incomplete", "late"],
    "session_id": [HALF_A_CHARACTER],
    "run_id": ["", "\x00", HALF_A_CHARACTER],
    "turn": [0, 2**53],
    "user_id": ["", "\x00"],
    "agent_name": ["", "agent", "\x00"],
    "environment": ["", "default", "Production", "langfuse-x", "a b", "x" * 41, "\x00"],
    "release": ["", "\x00"],
    "tags": [(), ("b", "a"), ("a", "a"), ("",), ("\x00",)],
    "metadata": [
        {"ratio": 1.0, "half": 0.5, "scope": 1, "tracebridge": "x", "": 1, HALF_A_CHARACTER: 1},
        {"deep": {"__proto__": 1}},
        {"k": "the session's"},
    ],
    "model": ["", "\x00"],
    "response_model": ["gpt-4o-mini", HALF_A_CHARACTER],
    "model_parameters": [
        {},
        {"temperature": 1.0, "stop": ["a"], "stream": True, "seed": 2**60, "user": None},
        {HALF_A_CHARACTER: 1, "\ufffd": 2},
        {"x": float("nan")},
    ],
    "prompt": [Prompt(name="greet", version=2), Prompt(name="", version=-1)],
    "tool_definitions": [[], [1.0], [HALF_A_CHARACTER]],
    "time_to_first_token_ms": [None, 0, 250.5, 250.0, -1, 10**10, float("nan")],
    "usage": [
        {},
        {"prompt": -1},
        {"prompt": 3.0, "x": 1.0},
        {"input_tokens": 10, "cache_read_input_tokens": 100},
        {"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 4}},
        {"prompt_tokens_details": {"cached_tokens": 4}, "prompt_tokens_details.cached_tokens": 5},
        {"prompt": 2**53 - 1, "completion": 2**53 - 1},
    ],
    "cost": [
        *(None, 0.25, 1, -0.0, float("nan"), 1e-13),
        *({}, {"input": 1}, {HALF_A_CHARACTER: 0.5}, {"total_cost": 1.5, "x": 0.5}, {"__proto__": 1.5}),
    ],
    "status": ["unset", "ok", "error"],
    "error": [
        SpanError(message="boom", type="ValueError"),
        SpanError(message=""),
        SpanError(message="\x00"),
        SpanError(message="boom", type=HALF_A_CHARACTER),
    ],
    "links": [(Link(trace_id="c" * 32, span_id="d" * 16),)],
}


def assert_both_ways_agree(span: Span) -> None:
    short, long = to_wire(span), to_wire(span, foresee=False)
    assert short == long
    assert list(short.attributes) == list(long.attributes)


@pytest.mark.parametrize("ordinary", [LLM, TURN, TOOL], ids=lambda span: span.kind)
def test_ordinary_spans_need_no_look_at_the_answer(ordinary: Span) -> None:
    draft = Remainder(usage={"prompt": "input"})
    assert inexact.foreseen(ordinary, session_of(ordinary), {}, draft) is not None
    assert_both_ways_agree(ordinary)


@pytest.mark.parametrize("ordinary", [LLM, TURN, TOOL], ids=lambda span: span.kind)
@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in ODD.items() for value in values], ids=repr
)
def test_one_odd_value_makes_no_difference(ordinary: Span, field: str, value: Any) -> None:
    assert_both_ways_agree(msgspec.structs.replace(ordinary, **{field: value}))


@settings(max_examples=examples(75))
@given(spans() | hostile_spans())
def test_both_ways_agree_on_any_span(span: Span) -> None:
    assert_both_ways_agree(span)


@settings(max_examples=examples(75))
@given(
    st.sampled_from((LLM, TURN, TOOL)),
    st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in ODD.items()}),
)
def test_both_ways_agree_on_any_mixture_of_odd_values(ordinary: Span, fields: dict[str, Any]) -> None:
    assert_both_ways_agree(msgspec.structs.replace(ordinary, **fields))


def test_both_ways_agree_on_real_spans(legacy_traces: Path) -> None:
    for file in sorted(legacy_traces.glob("session-*/events.jsonl"))[::5]:
        for step in SessionStream(file, lambda _, data: data).steps():
            for span in step.spans:
                assert_both_ways_agree(span)


@given(json_values() | hostile_values())
@example({"a": [0.5, 1.0]})
@example({"__proto__": 1})
@example(-0.0)
def test_a_value_comes_back_if_javascript_leaves_it_alone(value: Json) -> None:
    assert comes_back(value) == same(value, served_json(sendable(value)))


@given(json_values() | hostile_values())
def test_the_text_of_a_sendable_value_is_written_in_one_go(value: Json) -> None:
    assert sendable_text(value) == encode(sendable(value))
