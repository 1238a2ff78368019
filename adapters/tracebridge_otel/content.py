"""What went into an operation and what came out of it, as attributes and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tracebridge.event import Json
from tracebridge.span import Span, SpanKind
from tracebridge_otel import names
from tracebridge_otel.messages import Reply, input_form, input_of, reply_form, reply_of
from tracebridge_otel.remainder import Remainder, Writing, json_in
from tracebridge_otlp.wire import Attributes

CONTENT: Final = ("input", "output", "thinking", "tool_calls")
"""The fields of a span that are content."""

_AS_ATTRIBUTE: Final[Mapping[tuple[SpanKind, str], str]] = {
    ("tool", "input"): names.TOOL_ARGUMENTS,
    ("tool", "output"): names.TOOL_RESULT,
    ("session", "output"): names.OUTCOME,
}

_TOOLS: Final = {names.TOOL_DEFINITIONS: ("tool_definitions",)}
_MESSAGES: Final = {
    names.INPUT_MESSAGES: ("input",),
    names.OUTPUT_MESSAGES: ("thinking", "output", "tool_calls"),
    **_TOOLS,
}
CARRIED: Final[Mapping[SpanKind, Mapping[str, tuple[str, ...]]]] = {
    "turn": _MESSAGES,
    "llm": _MESSAGES,
    "thinking": {names.OUTPUT_MESSAGES: ("output",), **_TOOLS},
    "tool": {names.TOOL_ARGUMENTS: ("input",), names.TOOL_RESULT: ("output",), **_TOOLS},
    "session": {names.OUTCOME: ("output",), **_TOOLS},
    "event": _TOOLS,
}
"""By kind, the attributes that carry what was said, with the fields of each; other content is in the remainder."""


def write_content(span: Span, writing: Writing) -> None:
    """Write the content of a span; what its kind has no attribute for goes into the remainder."""
    if span.kind in ("turn", "llm"):
        _write_messages(span, writing)
        return
    for field, value in zip(CONTENT, (span.input, span.output, span.thinking, span.tool_calls), strict=True):
        if value is None or (field == "tool_calls" and not value):
            continue
        attribute = _AS_ATTRIBUTE.get((span.kind, field))
        if attribute is not None:
            writing.put_text_or_json(attribute, value)
        elif span.kind == "thinking" and field == "output":
            writing.put_json(names.OUTPUT_MESSAGES, reply_form(Reply(thinking=value)))
        else:
            writing.values[field] = value


def _write_messages(span: Span, writing: Writing) -> None:
    if span.input is not None:
        writing.put_json(names.INPUT_MESSAGES, input_form(span.input))
    if span.output is not None or span.thinking is not None or span.tool_calls:
        reply = Reply(thinking=span.thinking, content=span.output, tool_calls=span.tool_calls)
        writing.put_json(names.OUTPUT_MESSAGES, reply_form(reply))


def read_content(kind: SpanKind, attributes: Attributes, remainder: Remainder) -> dict[str, Json]:
    """The content that attributes tell."""
    content: dict[str, Json] = {}
    if names.INPUT_MESSAGES in attributes:
        content["input"] = input_of(json_in(attributes[names.INPUT_MESSAGES]))
    if names.OUTPUT_MESSAGES in attributes:
        reply = reply_of(json_in(attributes[names.OUTPUT_MESSAGES]))
        if kind == "thinking":
            content["output"] = reply.thinking
        else:
            content.update(thinking=reply.thinking, output=reply.content, tool_calls=reply.tool_calls)
    for (of_kind, field), attribute in _AS_ATTRIBUTE.items():
        if of_kind == kind and attribute in attributes:
            value = attributes[attribute]
            content[field] = json_in(value) if attribute in remainder.json else value
    return content
