"""What an LLM call was asked with and answered with, besides the content, as attributes and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from operator import attrgetter
from typing import Any, Final

from tracebridge.event import Json
from tracebridge.span import Prompt, Span
from tracebridge.usage import count_tokens
from tracebridge_otel import names
from tracebridge_otel.messages import tools_form, tools_of
from tracebridge_otel.remainder import INT64, Remainder, Writing, is_kept_number, json_in, texts_in
from tracebridge_otlp.wire import Attributes

_LONGEST_MS: Final = 2**53
"""Beyond it a delay in milliseconds is no delay, and may not be a double either."""
_COUNT: Final = "="
"""Begins a text in `Remainder.usage` that stands for a count; a text that begins with it gets another one."""
_USAGE: Final = tuple((attribute, _COUNT + meaning) for meaning, attribute in names.USAGE.items())
_counts: Final = attrgetter(*names.USAGE)


def write_request(span: Span, writing: Writing) -> None:
    """Write model parameters, tool definitions and prompt."""
    if span.model_parameters:
        _write_parameters(span.model_parameters, writing)
    if span.tool_definitions:
        writing.put_json(names.TOOL_DEFINITIONS, tools_form(span.tool_definitions))
    if span.prompt is None:
        return
    if span.prompt.name and span.prompt.version in INT64:
        writing.attributes[names.PROMPT_NAME] = span.prompt.name
        writing.attributes[names.PROMPT_VERSION] = span.prompt.version
    else:
        writing.prompt = span.prompt


def _write_parameters(parameters: dict[str, Json], writing: Writing) -> None:
    others: dict[str, Json] = {}
    for key, value in parameters.items():
        attribute, kind = names.PARAMETERS.get(key, ("", None))
        if type(value) is kind and is_kept_number(value):
            writing.attributes[attribute] = value
            continue
        others[key] = value
        if kind is float and type(value) is int and value in INT64:
            writing.attributes[attribute] = float(value)
    if others:
        writing.values["model_parameters"] = others


def read_request(attributes: Attributes) -> dict[str, Any]:
    """Model parameters, tool definitions and prompt."""
    fields: dict[str, Any] = {
        "model_parameters": {
            key: attributes[attribute] for key, (attribute, _) in names.PARAMETERS.items() if attribute in attributes
        },
        "tool_definitions": tools_of(json_in(attributes.get(names.TOOL_DEFINITIONS, "[]"))),
    }
    match attributes:
        case {names.PROMPT_NAME: str(name), names.PROMPT_VERSION: int(version)}:
            fields["prompt"] = Prompt(name=name, version=version)
    return fields


def write_response(span: Span, writing: Writing) -> None:
    """Write finish reason, cost and the time to the first token."""
    if span.finish_reason:
        writing.attributes[names.FINISH_REASONS] = [span.finish_reason]
    if span.cost is not None:
        if is_kept_number(span.cost):
            writing.attributes[names.COST] = span.cost
        else:
            writing.values["cost"] = span.cost
    delay_ms = span.time_to_first_token_ms
    if delay_ms is None:
        return
    if abs(delay_ms) <= _LONGEST_MS:
        writing.attributes[names.TIME_TO_FIRST_CHUNK] = delay_ms / 1000
    if not _same_number(delay_ms, _delay_ms_in(writing.attributes)):
        writing.values["time_to_first_token_ms"] = delay_ms


def read_response(attributes: Attributes) -> dict[str, Any]:
    """Finish reason, cost and the time to the first token."""
    fields: dict[str, Any] = {
        "cost": attributes.get(names.COST),
        "time_to_first_token_ms": _delay_ms_in(attributes),
    }
    reasons = texts_in(attributes, names.FINISH_REASONS)
    if reasons:
        fields["finish_reason"] = reasons[0]
    return fields


def _delay_ms_in(attributes: Attributes) -> float | int | None:
    delay_s = attributes.get(names.TIME_TO_FIRST_CHUNK)
    if not isinstance(delay_s, int | float) or not math.isfinite(delay_s):
        return None
    delay_ms = round(delay_s * 1000, 6)
    return int(delay_ms) if delay_ms == int(delay_ms) else delay_ms


def _same_number(left: float | int, right: float | int | None) -> bool:
    return type(left) is type(right) and left == right


def write_usage(usage: dict[str, Json], writing: Writing) -> dict[str, Json] | None:
    """Write the token counts; return the usage object with references to them, for the remainder."""
    if not usage:
        return None
    counts = count_tokens(usage)
    references: dict[int, str] = {}
    for (attribute, reference), count in zip(_USAGE, _counts(counts), strict=True):
        if count is not None and count in INT64:
            writing.attributes[attribute] = count
            references.setdefault(count, reference)
    return {key: _with_references(value, references) for key, value in usage.items()}


def read_usage(attributes: Attributes, remainder: Remainder) -> dict[str, Json]:
    """The usage object as the agent wrote it."""
    counts = {
        _COUNT + meaning: attributes[attribute] for meaning, attribute in names.USAGE.items() if attribute in attributes
    }
    if remainder.usage is None:
        # another sender's: the conventions' own words are all there is
        return {reference.removeprefix(_COUNT): count for reference, count in counts.items()}
    return {key: _without_references(value, counts) for key, value in remainder.usage.items()}


def _with_references(value: Json, references: Mapping[int, str]) -> Json:
    if type(value) is int:
        return references.get(value, value)
    if isinstance(value, str):
        return _COUNT + value if value.startswith(_COUNT) else value
    if isinstance(value, dict):
        return {key: _with_references(entry, references) for key, entry in value.items()}
    return value


def _without_references(value: Json, counts: Mapping[str, Json]) -> Json:
    if isinstance(value, str) and value.startswith(_COUNT):
        return value[1:] if value.startswith(2 * _COUNT) else counts.get(value)
    if isinstance(value, dict):
        return {key: _without_references(entry, counts) for key, entry in value.items()}
    return value
