from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.otel.test_law import deliver, exact, read, settings_for
from tracebridge.devserver import DevServer
from tracebridge.sink import Query
from tracebridge.span import Span
from tracebridge.testing.strategies import spans
from tracebridge_otel.configuration import OtelSettings
from tracebridge_otel.factory import sink_type
from tracebridge_otel.mapping import to_wire
from tracebridge_otel.openinference import openinference_attributes
from tracebridge_otlp.decoding import decode_traces

COMMON: dict[str, Any] = {
    "trace_id": "0af7651916cd43dd8448eb211c80319c",
    "span_id": "b7ad6b7169203331",
    "start_ns": 1_000,
    "end_ns": 2_000,
    "session_id": "s",
}
CALL = {"id": "call_1", "type": "function", "function": {"name": "find_order", "arguments": '{"id":1}'}}
TOOL_DEFINITION = {"type": "function", "function": {"name": "find_order"}}
LLM = Span(
    kind="llm",
    name="llm",
    model="gpt-4o",
    response_model="gpt-4o-2024-08-06",
    provider="openai",
    finish_reason="tool_calls",
    cost=0.25,
    model_parameters={"temperature": 0.2},
    usage={
        "prompt_tokens": 12,
        "completion_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 5},
        "completion_tokens_details": {"reasoning_tokens": 2},
    },
    input=[
        {"role": "user", "content": [{"type": "text", "text": "Where is it?"}, {"type": "image_url"}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "name": "find_order", "content": "shipped"},
    ],
    output="It was shipped.",
    tool_calls=[{"name": "notify", "args": {"to": "ada"}}],
    tool_definitions=[TOOL_DEFINITION],
    **COMMON,
)


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        ("session", "CHAIN"),
        ("turn", "AGENT"),
        ("llm", "LLM"),
        ("tool", "TOOL"),
        ("thinking", "CHAIN"),
        ("event", "CHAIN"),
    ],
)
def test_every_kind_of_span_has_openinferences_kind(kind: Any, shown: str) -> None:
    span = Span(kind=kind, name="n", **COMMON)
    assert openinference_attributes(span)["openinference.span.kind"] == shown


def test_a_call_of_a_model_shows_model_counts_messages_and_tools() -> None:
    attributes = openinference_attributes(LLM)
    json_texts = {
        name: msgspec.json.decode(attributes.pop(name))
        for name in ("input.value", "llm.invocation_parameters", "llm.tools.0.tool.json_schema")
    }
    assert json_texts == {
        "input.value": LLM.input,
        "llm.invocation_parameters": {"temperature": 0.2},
        "llm.tools.0.tool.json_schema": TOOL_DEFINITION,
    }
    asked, answered = "llm.input_messages.", "llm.output_messages.0.message."
    assert attributes == {
        "openinference.span.kind": "LLM",
        "input.mime_type": "application/json",
        "output.value": "It was shipped.",
        "output.mime_type": "text/plain",
        "llm.model_name": "gpt-4o-2024-08-06",
        "llm.provider": "openai",
        "llm.finish_reason": "tool_calls",
        "llm.cost.total": 0.25,
        "llm.token_count.prompt": 12,
        "llm.token_count.completion": 7,
        "llm.token_count.total": 19,
        "llm.token_count.prompt_details.cache_read": 5,
        "llm.token_count.completion_details.reasoning": 2,
        f"{asked}0.message.role": "user",
        f"{asked}0.message.contents.0.message_content.type": "text",
        f"{asked}0.message.contents.0.message_content.text": "Where is it?",
        f"{asked}1.message.role": "assistant",
        f"{asked}1.message.tool_calls.0.tool_call.id": "call_1",
        f"{asked}1.message.tool_calls.0.tool_call.function.name": "find_order",
        f"{asked}1.message.tool_calls.0.tool_call.function.arguments": '{"id":1}',
        f"{asked}2.message.role": "tool",
        f"{asked}2.message.tool_call_id": "call_1",
        f"{asked}2.message.name": "find_order",
        f"{asked}2.message.content": "shipped",
        f"{answered}role": "assistant",
        f"{answered}content": "It was shipped.",
        f"{answered}tool_calls.0.tool_call.function.name": "notify",
        f"{answered}tool_calls.0.tool_call.function.arguments": '{"to":"ada"}',
    }


def test_the_prompt_count_holds_what_anthropic_counts_beside_it() -> None:
    usage = {"input_tokens": 10, "cache_read_input_tokens": 90, "output_tokens": 1}
    attributes = openinference_attributes(msgspec.structs.replace(LLM, usage=usage))
    assert attributes["llm.token_count.prompt"] == 100
    assert attributes["llm.token_count.total"] == 101


def test_a_turn_a_tool_and_metadata_are_shown() -> None:
    turn = Span(kind="turn", name="turn", agent_name="support", tags=("a", "b"), metadata={"k": 1}, **COMMON)
    assert openinference_attributes(turn) == {
        "openinference.span.kind": "AGENT",
        "agent.name": "support",
        "metadata": '{"k":1}',
        "tag.tags": ["a", "b"],
    }
    tool = Span(kind="tool", name="find_order", tool_call_id="call_1", input={"id": 1}, output="", **COMMON)
    assert openinference_attributes(tool) == {
        "openinference.span.kind": "TOOL",
        "tool.name": "find_order",
        "tool.id": "call_1",
        "input.value": '{"id":1}',
        "input.mime_type": "application/json",
        "output.value": "",
        "output.mime_type": "text/plain",
    }


@pytest.mark.parametrize("semconv", ["genai", "openinference"])
def test_openinferences_names_are_sent_only_where_they_are_asked_for(semconv: Any) -> None:
    sink = sink_type.open_sink(OtelSettings(semconv=semconv))
    (received,) = decode_traces(sink.join([sink.encode(LLM)]))
    sink.close()
    added = openinference_attributes(LLM) if semconv == "openinference" else {}
    assert received.span.attributes == {**added, **to_wire(LLM).attributes}


def test_the_two_choices_of_names_have_different_fingerprints() -> None:
    versions = {
        sink_type.capabilities(OtelSettings(semconv=semconv)).mapping_version for semconv in ("genai", "openinference")
    }
    assert len(versions) == 2


def test_what_was_delivered_with_openinferences_names_reads_back_equal(devserver: DevServer) -> None:
    sink_settings = msgspec.structs.replace(settings_for(devserver, "http/protobuf"), semconv="openinference")

    @given(st.lists(spans(), min_size=1, max_size=12, unique_by=lambda span: (span.trace_id, span.span_id)))
    @settings(max_examples=examples(15))
    def law(batch: list[Span]) -> None:
        deliver(sink_settings, batch)
        query = Query(trace_ids=tuple(span.trace_id for span in batch))
        assert set(exact(batch, sink_settings)) <= set(exact(read(sink_settings, query), sink_settings))

    law()


@given(spans())
def test_openinferences_names_never_take_the_place_of_one_that_is_read_back(span: Span) -> None:
    assert openinference_attributes(span).keys().isdisjoint(to_wire(span).attributes)
