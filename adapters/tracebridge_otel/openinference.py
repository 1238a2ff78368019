"""What a sink with `semconv: openinference` adds to its spans, so that Phoenix and its kin show them well.

The names are those of the package `openinference-semantic-conventions`, version 0.1.42. They come in addition to
those of `names`, and are never read back: OpenInference spreads a message over many attributes and has no place
for much of what a span holds, so that the GenAI names and the remainder stay what counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from tracebridge.event import Json
from tracebridge.span import Span, SpanKind
from tracebridge.usage import count_tokens
from tracebridge_otel.remainder import INT64, is_kept_number
from tracebridge_otlp.wire import Attributes

OPENINFERENCE_VERSION: Final = 1
"""Raised whenever `openinference_attributes` changes what it makes of any span."""

SPAN_KIND: Final = "openinference.span.kind"
SPAN_KINDS: Final[Mapping[SpanKind, str]] = {"turn": "AGENT", "llm": "LLM", "tool": "TOOL"}
OTHER_KIND: Final = "CHAIN"
"""Of a session, a thought, and an event of an unknown type."""

INPUT: Final = "input"
OUTPUT: Final = "output"
VALUE: Final = ".value"
MIME_TYPE: Final = ".mime_type"

MODEL_NAME: Final = "llm.model_name"
PROVIDER: Final = "llm.provider"
INVOCATION_PARAMETERS: Final = "llm.invocation_parameters"
FINISH_REASON: Final = "llm.finish_reason"
COST: Final = "llm.cost.total"
INPUT_MESSAGES: Final = "llm.input_messages"
OUTPUT_MESSAGES: Final = "llm.output_messages"
TOOLS: Final = "llm.tools"
TOOL_NAME: Final = "tool.name"
TOOL_ID: Final = "tool.id"
AGENT_NAME: Final = "agent.name"
METADATA: Final = "metadata"
TAGS: Final = "tag.tags"

TOTAL_TOKENS: Final = "llm.token_count.total"
TOKENS: Final[Mapping[str, str]] = {
    "input": "llm.token_count.prompt",
    "output": "llm.token_count.completion",
    "cache_read": "llm.token_count.prompt_details.cache_read",
    "cache_write": "llm.token_count.prompt_details.cache_write",
    "reasoning": "llm.token_count.completion_details.reasoning",
}
"""What `tracebridge.usage` counts, and the attribute that each count is."""

_encode = msgspec.json.Encoder().encode


def openinference_attributes(span: Span) -> Attributes:
    """The attributes that show a span in OpenInference's words, none of them one that is sent anyway.

    `session.id` and `user.id` are, and mean the same there.
    """
    attributes: Attributes = {SPAN_KIND: SPAN_KINDS.get(span.kind, OTHER_KIND)}
    attributes.update(_value(INPUT, span.input))
    attributes.update(_value(OUTPUT, span.output))
    if span.kind == "llm":
        attributes.update(_model(span))
        attributes.update(_tokens(span))
        attributes.update(_messages(span))
    if span.kind == "tool":
        attributes.update(_texts({TOOL_NAME: span.name, TOOL_ID: span.tool_call_id}))
    if span.kind == "turn":
        attributes.update(_texts({AGENT_NAME: span.agent_name}))
    if span.metadata:
        attributes[METADATA] = _json(span.metadata)
    if span.tags:
        attributes[TAGS] = list(span.tags)
    return attributes


def _value(side: str, value: Json) -> Attributes:
    if value is None:
        return {}
    if isinstance(value, str):
        return {side + VALUE: value, side + MIME_TYPE: "text/plain"}
    return {side + VALUE: _json(value), side + MIME_TYPE: "application/json"}


def _model(span: Span) -> Attributes:
    attributes = _texts(
        {
            MODEL_NAME: span.response_model or span.model,
            PROVIDER: span.provider,
            FINISH_REASON: span.finish_reason,
        }
    )
    if span.model_parameters:
        attributes[INVOCATION_PARAMETERS] = _json(span.model_parameters)
    if span.cost is not None and is_kept_number(span.cost):
        attributes[COST] = span.cost
    return attributes


def _tokens(span: Span) -> Attributes:
    counts = count_tokens(span.usage)
    attributes: Attributes = {}
    for meaning, attribute in TOKENS.items():
        count = getattr(counts, meaning)
        if count is not None and count in INT64:
            attributes[attribute] = count
    # the details are parts of these two, as the conventions have it
    if counts.input is not None and counts.output is not None and counts.input + counts.output in INT64:
        attributes[TOTAL_TOKENS] = counts.input + counts.output
    return attributes


def _messages(span: Span) -> Attributes:
    attributes: Attributes = {}
    asked = [{"role": "user", "content": span.input}] if isinstance(span.input, str) else span.input
    if isinstance(asked, list):
        for place, message in enumerate(asked):
            if isinstance(message, dict):
                attributes.update(_message(f"{INPUT_MESSAGES}.{place}.message.", message))
    if isinstance(span.output, str) or span.tool_calls:
        answer: dict[str, Json] = {"role": "assistant", "content": span.output, "tool_calls": span.tool_calls}
        attributes.update(_message(f"{OUTPUT_MESSAGES}.0.message.", answer))
    for place, definition in enumerate(span.tool_definitions):
        attributes[f"{TOOLS}.{place}.tool.json_schema"] = _json(definition)
    return attributes


def _message(prefix: str, message: Mapping[str, Json]) -> Attributes:
    attributes: Attributes = {}
    for key in ("role", "content", "name", "tool_call_id"):
        text = message.get(key)
        if isinstance(text, str) and text:
            attributes[prefix + key] = text
    contents = message.get("content")
    if isinstance(contents, list):
        for place, part in enumerate(contents):
            match part:
                case {"type": "text", "text": str(text)}:
                    attributes[f"{prefix}contents.{place}.message_content.type"] = "text"
                    attributes[f"{prefix}contents.{place}.message_content.text"] = text
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        for place, call in enumerate(calls):
            for key, text in _call(call):
                attributes[f"{prefix}tool_calls.{place}.tool_call.{key}"] = text
    return attributes


def _call(call: Json) -> Iterator[tuple[str, str]]:
    if not isinstance(call, dict):
        return
    function = call.get("function")
    named = function if isinstance(function, dict) else call
    if isinstance(call_id := call.get("id"), str):
        yield "id", call_id
    if isinstance(name := named.get("name"), str):
        yield "function.name", name
    arguments = named.get("arguments", named.get("args"))
    if arguments is not None:
        yield "function.arguments", arguments if isinstance(arguments, str) else _json(arguments)


def _texts(texts: Mapping[str, str]) -> Attributes:
    return {attribute: text for attribute, text in texts.items() if text}


def _json(value: Json) -> str:
    return _encode(value).decode()
