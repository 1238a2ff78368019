from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tracebridge.recording.ids import IdSource
from tracebridge.span import Edge, Link, Prompt, Span, SpanError
from tracebridge.testing.strategies import json_values, spans, texts
from tracebridge_otel import names
from tracebridge_otel.mapping import _shared_attributes, from_wire, to_wire
from tracebridge_otlp.decoding import decode_traces
from tracebridge_otlp.encoding import encode_span, join
from tracebridge_otlp.wire import WireKind, WireLink, WireScope, WireSpan, WireStatus

IDS: dict[str, Any] = {"trace_id": "0af7651916cd43dd8448eb211c80319c", "span_id": "b7ad6b7169203331"}
TURN = Span(kind="turn", name="turn", start_ns=1, end_ns=2, session_id="s", agent_name="airline", **IDS)
LLM = Span(
    kind="llm",
    name="llm",
    start_ns=1_000,
    end_ns=2_000,
    session_id="s",
    parent_id="00f067aa0ba902b7",
    model="gpt-4o",
    response_model="gpt-4o-2024-08-06",
    provider="openai",
    response_id="r-1",
    model_parameters={"temperature": 0.2, "max_tokens": 100, "logprobs": 2},
    prompt=Prompt(name="greet", version=3),
    usage={"prompt_tokens": 12, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 5}},
    cost=0.25,
    finish_reason="stop",
    time_to_first_token_ms=350.5,
    input=[{"role": "user", "content": "hi"}],
    output="hello",
    fingerprint="f1",
    **IDS,
)
TOOL = Span(
    kind="tool",
    name="get_user",
    start_ns=1,
    end_ns=2,
    session_id="s",
    tool_call_id="call_1",
    input={"id": 1},
    output="found",
    **IDS,
)


def exact(span: Span) -> bytes:
    """A form in which 1, 1.0 and True differ, and the order of keys does not count."""
    return msgspec.json.encode(span, order="sorted")


def over_the_wire(span: Span) -> Span:
    request = join([encode_span(to_wire(span))], {"service.name": "agent"}, WireScope(name="tracebridge"))
    (received,) = decode_traces(request)
    return from_wire(received.span)


@given(spans())
def test_every_span_reads_back_exactly_as_it_was(span: Span) -> None:
    assert exact(over_the_wire(span)) == exact(span)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (
            "usage",
            {"prompt": 5, "completion": 5, "note": "=input", "kind": "==", "more": {"deep": "=", "n": 5}},
        ),
        (
            "usage",
            {"input_tokens": 2**62, "cache_read_input_tokens": 2**62, "cache_creation_input_tokens": 2**62},
        ),
        ("usage", {"prompt": 3.0, "completion": True, "total": None}),
        ("model_parameters", {"max_tokens": True, "temperature": 0, "top_p": 1.0, "seed": 2**70, "n": None}),
        ("model_parameters", {"": None, "stop": None, "logit_bias": {"1": 1}}),
        ("metadata", {"": 1, "empty": "", "none": None, "big": 2**64, "list": [], "text": "[]", "yes": True}),
        ("cost", {"input": 0.1, "output": 1}),
        ("cost", "0.5"),
        ("time_to_first_token_ms", 350),
        ("time_to_first_token_ms", 350.0),
        ("time_to_first_token_ms", 1e300),
        ("prompt", Prompt(name="", version=2**80)),
        ("tags", ("", "a")),
        ("input", []),
        ("input", "[]"),
        ("output", ""),
        ("thinking", {"a": 1}),
    ],
)
def test_a_value_that_its_attribute_would_bend_reads_back_exactly(field: str, value: Any) -> None:
    span = msgspec.structs.replace(LLM, **{field: value})
    assert exact(over_the_wire(span)) == exact(span)


@given(spans())
@example(msgspec.structs.replace(LLM, metadata={"empty": ""}, output="", tags=()))
def test_no_attribute_is_empty_because_not_every_backend_keeps_those(span: Span) -> None:
    assert not [name for name, value in to_wire(span).attributes.items() if value in (None, "", [])]


@given(spans())
@example(msgspec.structs.replace(LLM, model_parameters={"max_tokens": True, "temperature": 1, "stream": 1}))
def test_model_parameters_have_the_types_that_the_conventions_give_them(span: Span) -> None:
    attributes = to_wire(span).attributes
    kinds = dict(names.PARAMETERS.values())
    assert all(type(value) is kinds[name] for name, value in attributes.items() if name in kinds)


@given(spans(earliest_ns=-(2**64), latest_ns=2**65))
def test_times_that_no_backend_can_hold_read_back_all_the_same(span: Span) -> None:
    assert exact(over_the_wire(span)) == exact(span)


@given(
    st.sampled_from(("session", "turn", "llm", "tool", "thinking", "event")),
    texts(),
    json_values(),
    json_values(),
    json_values(),
    st.lists(json_values(), max_size=2),
)
def test_a_span_with_content_that_its_kind_should_not_have_reads_back_too(
    kind: Any, name: str, given_in: Any, given_out: Any, thinking: Any, calls: list[Any]
) -> None:
    span = Span(
        kind=kind,
        name=name,
        start_ns=1,
        end_ns=2,
        session_id="s",
        input=given_in,
        output=given_out,
        thinking=thinking,
        tool_calls=calls,
        **IDS,
    )
    assert exact(over_the_wire(span)) == exact(span)


@pytest.mark.parametrize(
    ("span", "name", "kind", "operation"),
    [
        (TURN, "invoke_agent airline", WireKind.INTERNAL, "invoke_agent"),
        (msgspec.structs.replace(TURN, agent_name=""), "invoke_agent", WireKind.INTERNAL, "invoke_agent"),
        (LLM, "chat gpt-4o", WireKind.CLIENT, "chat"),
        (TOOL, "execute_tool get_user", WireKind.INTERNAL, "execute_tool"),
        (msgspec.structs.replace(TURN, kind="session", name="session"), "session", WireKind.INTERNAL, None),
        (
            msgspec.structs.replace(TURN, kind="thinking", name="thinking"),
            "thinking",
            WireKind.INTERNAL,
            None,
        ),
        (msgspec.structs.replace(TURN, kind="event", name="cache.hit"), "cache.hit", WireKind.INTERNAL, None),
    ],
)
def test_name_kind_and_operation_are_those_of_the_conventions(
    span: Span, name: str, kind: WireKind, operation: str | None
) -> None:
    wire = to_wire(span)
    assert (wire.name, wire.kind, wire.attributes.get("gen_ai.operation.name")) == (name, kind, operation)


def test_an_llm_call_has_the_attributes_of_the_conventions() -> None:
    expected = {
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.response.model": "gpt-4o-2024-08-06",
        "gen_ai.provider.name": "openai",
        "gen_ai.response.id": "r-1",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.response.time_to_first_chunk": 0.3505,
        "gen_ai.request.temperature": 0.2,
        "gen_ai.request.max_tokens": 100,
        "gen_ai.prompt.name": "greet",
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 7,
        "gen_ai.usage.cache_read.input_tokens": 5,
        "gen_ai.conversation.id": "s",
        "session.id": "s",
        "gen_ai.input.messages": '[{"role":"user","parts":[{"type":"text","content":"hi"}]}]',
        "gen_ai.output.messages": '[{"role":"assistant","parts":[{"type":"text","content":"hello"}]}]',
        "tracebridge.cost.usd": 0.25,
        "tracebridge.fingerprint": "f1",
    }
    attributes = to_wire(LLM).attributes
    assert {name: attributes.get(name) for name in expected} == expected


def test_input_tokens_include_the_cached_ones_whatever_the_providers_way_of_counting() -> None:
    usage = {"input_tokens": 10, "output_tokens": 3, "cache_read_input_tokens": 90}
    attributes = to_wire(msgspec.structs.replace(LLM, usage=usage)).attributes
    assert attributes["gen_ai.usage.input_tokens"] == 100
    assert attributes["gen_ai.usage.cache_read.input_tokens"] == 90


def test_a_tool_call_has_the_attributes_of_the_conventions() -> None:
    attributes = to_wire(TOOL).attributes
    assert attributes["gen_ai.tool.name"] == "get_user"
    assert attributes["gen_ai.tool.call.id"] == "call_1"
    assert attributes["gen_ai.tool.call.arguments"] == '{"id":1}'
    assert attributes["gen_ai.tool.call.result"] == "found"


def test_an_error_is_status_message_and_error_type() -> None:
    error = SpanError(message="no such user", type="KeyError")
    wire = to_wire(msgspec.structs.replace(TOOL, status="error", error=error))
    assert (wire.status, wire.status_message) == (WireStatus.ERROR, "no such user")
    assert wire.attributes["error.type"] == "KeyError"
    assert "no such user" not in wire.attributes[names.REMAINDER]


def test_links_are_links() -> None:
    link = Link(trace_id="1" * 32, span_id="2" * 16)
    wire = to_wire(msgspec.structs.replace(TURN, links=(link,)))
    assert wire.links == (WireLink(trace_id="1" * 32, span_id="2" * 16),)


def test_metadata_can_be_searched_by_key_with_its_type() -> None:
    metadata = {"task": 7, "ratio": 0.5, "vip": True, "plan": "gold", "flags": ["a"]}
    attributes = to_wire(msgspec.structs.replace(TURN, metadata=metadata)).attributes
    found = {key: attributes[names.METADATA_PREFIX + key] for key in metadata}
    assert found == {**metadata, "flags": '["a"]'}


MARKS = (
    "mark-user",
    "mark-agent",
    "mark-environment",
    "mark-release",
    "mark-tag",
    "mark-metadata",
    "mark-input",
    "mark-output",
    "mark-thinking",
    "mark-model",
    "mark-answered",
    "mark-provider",
    "mark-parameter",
    "mark-prompt",
    "mark-definition",
    "mark-call",
    "mark-reason",
    "mark-response",
    "mark-error",
    "mark-class",
    "mark-opened",
)


def test_no_value_is_sent_twice() -> None:
    span = Span(
        kind="llm",
        name="llm",
        start_ns=1,
        end_ns=2,
        session_id="s",
        user_id="mark-user",
        agent_name="mark-agent",
        environment="mark-environment",
        release="mark-release",
        tags=("mark-tag",),
        metadata={"k": "mark-metadata"},
        input=[{"role": "user", "content": "mark-input"}],
        output="mark-output",
        thinking="mark-thinking",
        model="mark-model",
        response_model="mark-answered",
        provider="mark-provider",
        model_parameters={"stop": "mark-parameter"},
        prompt=Prompt(name="mark-prompt", version=1),
        tool_definitions=[{"type": "function", "function": {"name": "mark-definition"}}],
        tool_calls=[{"id": "1", "name": "mark-call", "arguments": {}}],
        finish_reason="mark-reason",
        response_id="mark-response",
        status="error",
        error=SpanError(message="mark-error", type="mark-class"),
        opened=Edge(ordinal=0, timestamp="t", fields={"k": "mark-opened"}),
        **IDS,
    )
    wire = to_wire(span)
    sent = repr(wire.attributes) + wire.status_message
    assert {mark: sent.count(mark) for mark in MARKS} == dict.fromkeys(MARKS, 1)


def test_a_span_of_another_service_is_read_as_far_as_it_tells_without_our_mark() -> None:
    wire = WireSpan(
        name="GET /users",
        kind=WireKind.SERVER,
        start_ns=5,
        end_ns=6,
        attributes={"http.route": "/users", "session.id": 7, "gen_ai.input.messages": [{"role": "user"}]},
        **IDS,
    )
    span = from_wire(wire)
    assert (span.kind, span.name, span.fingerprint) == ("event", "GET /users", "")


def test_a_generation_of_another_library_is_read_by_the_conventions() -> None:
    wire = WireSpan(
        name="chat m",
        kind=WireKind.CLIENT,
        start_ns=5,
        end_ns=6,
        attributes={
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "m",
            "gen_ai.usage.input_tokens": 3,
        },
        **IDS,
    )
    span = from_wire(wire)
    assert (span.kind, span.name, span.model, span.usage) == ("llm", "llm", "m", {"input": 3})


@pytest.mark.parametrize("attribute", [names.REMAINDER, names.INPUT_MESSAGES, names.OUTPUT_MESSAGES])
@pytest.mark.parametrize("damage", [lambda text: text[: len(text) // 2], lambda _: "[1]", lambda _: 7])
def test_what_was_damaged_in_the_backend_is_read_and_differs(attribute: str, damage: Any) -> None:
    span = msgspec.structs.replace(LLM, turn=3)
    wire = to_wire(span)
    attributes = {**wire.attributes, attribute: damage(wire.attributes[attribute])}
    assert from_wire(msgspec.structs.replace(wire, attributes=attributes)) != span


def in_jaegers_own_model(value: Any) -> Any:
    """Lists become the text of a JSON array, and a negative zero loses its sign."""
    if isinstance(value, list):
        return msgspec.json.encode(value).decode()
    return abs(value) if isinstance(value, float) and value == 0 else value


def as_in_jaegers_own_model(wire: WireSpan) -> WireSpan:
    """What Jaeger gives back of a span that it kept in Badger, Cassandra or Elasticsearch; seen with Badger."""
    parent_id = wire.parent_id
    for link in wire.links:
        if not parent_id and link.trace_id == wire.trace_id:
            parent_id = link.span_id
    attributes = {name: in_jaegers_own_model(value) for name, value in wire.attributes.items()}
    return msgspec.structs.replace(wire, parent_id=parent_id, attributes=attributes)


@given(spans())
@example(msgspec.structs.replace(TURN, links=(Link(trace_id=TURN.trace_id, span_id="00f067aa0ba902b7"),)))
@example(msgspec.structs.replace(TURN, tags=("a", '["b"]'), metadata={"zero": -0.0, "list": [1]}, cost=-0.0))
@example(msgspec.structs.replace(LLM, model_parameters={"temperature": -0.0}))
def test_a_span_that_jaeger_kept_in_its_own_model_reads_back_exactly(span: Span) -> None:
    assert exact(from_wire(as_in_jaegers_own_model(to_wire(span)))) == exact(span)


def test_what_the_spans_of_a_session_share_is_mapped_once_for_each_kind() -> None:
    _shared_attributes.cache_clear()
    for span in (LLM, TOOL, LLM, TOOL):
        to_wire(msgspec.structs.replace(span, session_id="one", user_id="u", agent_name="", environment="", release=""))
    assert _shared_attributes.cache_info().misses == 2


def test_a_conversation_has_an_id_only_where_the_agent_gave_the_session_one() -> None:
    given_id = to_wire(msgspec.structs.replace(TURN, session_id="session-of-ada")).attributes
    assert given_id[names.CONVERSATION_ID] == given_id[names.SESSION_ID] == "session-of-ada"
    generated = msgspec.structs.replace(TURN, session_id=IdSource().session_id())
    attributes = to_wire(generated).attributes
    assert attributes[names.SESSION_ID] == generated.session_id
    assert names.CONVERSATION_ID not in attributes
    assert from_wire(to_wire(generated)) == generated
