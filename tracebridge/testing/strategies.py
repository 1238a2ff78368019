"""Hypothesis strategies for spans and what they hold, nasty values among them. Needs `tracebridge[testing]`."""

from __future__ import annotations

import string
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Final

from hypothesis import strategies as st

from tracebridge.span import Edge, Link, Prompt, Span, SpanError, SpanKind

NASTY_TEXTS: Final[Mapping[str, str]] = {
    "nothing": "",
    "white space": " ",
    "NUL": "\x00",
    "null": "null",
    "a boolean": "true",
    "an integer": "123",
    "a number with a zero behind the point": "1.0",
    "zeros before a number": "007",
    "an exponent": "1e5",
    "an integer over 2**53": "9007199254740993",
    "a date": "2026-01-01T00:00:00Z",
    "quotes": '"quoted"',
    "an empty array": "[]",
    "an empty object": "{}",
    "an object": '{"a": 1}',
    "an array that breaks off": "[1",
    "an equals sign": "=",
    "two equals signs": "==input",
    "a word of OpenTelemetry": "_OTHER",
    "combining, right to left, a byte order mark": "e\u0301 \U0001f600 \u202e \ufeff \uffff",
    "line ends": "line\r\nline\u2028\x7f",
    "half a character as the journal writes it": "\\ud800",
    "a comma": "a,b",
    "an array of texts": '["a","b"]',
    "spaces at the ends": " a ",
    "over 200 characters": "long " * 50,
    "over 200 characters, none of them ASCII": "\u6f22\u00e9\U0001f600" * 70,
    "an image": "data:image/png;base64,iVBORw0KGgo=",
    "an image in a text": "see data:image/png;base64,iVBORw0KGgo= and data:text/plain;charset=utf-8;base64,aGk=",
    "a reference to an image": "@@@langfuseMedia:type=image/png|id=x|source=base64_data_uri@@@",
}
"""Texts that something on the way may take for something else, each with a name for what it is or looks like."""

NASTY_ENVIRONMENTS: Final = (
    "default",
    "Production",
    "two words",
    "x" * 41,
    "langfuse",
    "langfuse-x",
    "langfuse_x",
    "s\u00fcd",
)
"""Names of environments that a backend may rewrite."""

NASTY_OBJECTS: Final[Mapping[str, dict[str, Any]]] = {
    "keys with dots that are the paths of others": {"a": {"b": 1}, "a.b": 2, "a.": 3, ".a": 4},
    "keys that JavaScript has a meaning for": {
        "__proto__": {"x": 1},
        "constructor": 1,
        "toString": "2",
        "hasOwnProperty": 3,
    },
    "keys that are numbers": {"1": "b", "0": "a"},
    "keys that backends use": {
        "attributes": 1,
        "scope.name": "x",
        "resourceAttributes": {"a": 1},
        "langfuse_user_id": "x",
    },
    "keys that the event has too": {"turn": 7, "tokens": 5, "stage": "x", "data": {}, "total_turns": -1},
    "tools": {"tools": [{"name": "search"}, {"type": "function", "function": {"name": "book"}}]},
    "tools as text": {"tools": '[{"name": "search"}]'},
    "nothing beside nulls": {"none": None, "empty": {}, "list": [], "text": ""},
    "numbers of every kind": {
        "whole": 1,
        "float": 1.0,
        "minus": -0.0,
        "big": 2**53 + 1,
        "bigger": 2**63,
        "tiny": 5e-324,
    },
    "an image as Anthropic has it": {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="},
        "ratio": 1.0,
    },
    "an image as Gemini has it": {"inline_data": {"mime_type": "image/png", "data": "iVBORw0KGgo="}, "big": 2**60 + 1},
}
"""Objects that something on the way may change, each with a name for what is in it."""

DEEPEST: Final = 100
"""How many containers stand inside one another in the deepest value."""

_BIG_INTEGERS = (2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**40)


def texts(max_size: int = 12) -> st.SearchStrategy[str]:
    """Any text that is valid Unicode, nasty ones often."""
    return st.sampled_from(tuple(NASTY_TEXTS.values())) | st.text(st.characters(codec="utf-8"), max_size=max_size)


def names() -> st.SearchStrategy[str]:
    """A text such as users give to things; never empty."""
    return st.text(string.ascii_letters + "-_ .é漢", min_size=1, max_size=10) | texts().filter(bool)


def numbers() -> st.SearchStrategy[int | float]:
    """Integers of any size and finite floats."""
    return (
        st.integers()
        | st.sampled_from(_BIG_INTEGERS)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.sampled_from((0, 0.0, -0.0, 1, 1.0, 1e22, 5e-324))
    )


def json_values(max_leaves: int = 6) -> st.SearchStrategy[Any]:
    """Any JSON value as the journal's reader gives it."""
    leaves = st.none() | st.booleans() | numbers() | texts() | st.builds(deep_value)
    return st.recursive(
        leaves,
        lambda children: st.lists(children, max_size=3) | st.dictionaries(texts(), children, max_size=3),
        max_leaves=max_leaves,
    )


def json_objects(max_size: int = 3) -> st.SearchStrategy[dict[str, Any]]:
    """JSON objects with arbitrary keys."""
    return st.dictionaries(texts(), json_values(), max_size=max_size) | nasty_objects()


def nasty_objects() -> st.SearchStrategy[dict[str, Any]]:
    """One of `NASTY_OBJECTS`; each time a copy."""
    return st.sampled_from(tuple(NASTY_OBJECTS)).map(lambda name: deepcopy(NASTY_OBJECTS[name]))


def deep_value() -> Any:
    """Containers inside one another, as deep as a journal line may have them and more than most people expect."""
    value: Any = 1.0
    for level in range(DEEPEST):
        value = [value] if level % 2 else {"deeper": value}
    return value


def hex_ids(digits: int) -> st.SearchStrategy[str]:
    """Trace ids (32 digits) and span ids (16), never all zero."""
    return st.integers(1, 16**digits - 1).map(lambda number: f"{number:0{digits}x}")


def edges() -> st.SearchStrategy[Edge]:
    """What a span keeps of an event."""
    return st.builds(
        Edge,
        ordinal=st.integers(0, 2**40),
        timestamp=st.sampled_from(("2026-02-06T22:10:00.123Z", "2026-02-06T22:10:00.123456+01:00")) | texts(),
        seq=st.none() | st.integers(0, 2**40),
        duration_ms=st.none() | numbers(),
        ids=st.booleans(),
        fields=json_objects(),
        repeated=st.lists(names(), max_size=2).map(tuple),
        extra=json_objects(),
        absent=st.lists(st.sampled_from(("run_id", "data.success")), max_size=2, unique=True).map(tuple),
    )


def tool_calls() -> st.SearchStrategy[dict[str, Any]]:
    """Tool calls as models answer them: OpenAI's form, the flat one, and near misses."""
    arguments = texts() | json_objects()
    flat = st.fixed_dictionaries({"id": texts(), "name": texts(), "arguments": arguments})
    nested = st.fixed_dictionaries(
        {
            "id": texts(),
            "type": st.just("function"),
            "function": st.fixed_dictionaries(
                {"name": texts(), "arguments": arguments}, optional={"strict": st.booleans()}
            ),
        },
        optional={"index": st.integers(0, 3)},
    )
    return flat | nested


def messages() -> st.SearchStrategy[Any]:
    """Chat messages: OpenAI's forms, lists of parts, and what is none."""
    part = st.fixed_dictionaries({"type": st.just("text"), "text": texts()}) | st.fixed_dictionaries(
        {"type": names()},
        optional={"text": texts(), "content": json_values(), "id": texts(), "value": texts()},
    )
    message = st.fixed_dictionaries(
        {"role": st.sampled_from(("system", "user", "assistant", "tool")) | texts()},
        optional={
            "content": st.none() | texts() | st.lists(part, max_size=3) | json_values(),
            "tool_calls": st.none() | st.lists(tool_calls(), max_size=2),
            "tool_call_id": texts(),
            "name": texts(),
            "parts": st.lists(part, max_size=2),
        },
    )
    return message | json_values()


def tool_definitions() -> st.SearchStrategy[Any]:
    """Tool definitions: OpenAI's form, the flat one, and what is none."""
    function = st.fixed_dictionaries(
        {"name": names()}, optional={"description": texts(), "parameters": json_objects(), "type": texts()}
    )
    nested = st.fixed_dictionaries({"type": st.just("function"), "function": function})
    flat = st.fixed_dictionaries({"type": st.just("function"), "name": names()}, optional={"x": json_values()})
    return nested | flat | json_values()


def usages() -> st.SearchStrategy[dict[str, Any]]:
    """Usage objects: the well-known forms, with counts that are none, and anything else."""
    count = st.integers(0, 10_000) | st.sampled_from((0, 1, 1)) | json_values(max_leaves=2)
    known = st.dictionaries(
        st.sampled_from(
            (
                "prompt",
                "completion",
                "prompt_tokens",
                "completion_tokens",
                "input_tokens",
                "output_tokens",
                "input",
                "output",
                "total_tokens",
                "cache_read_input_tokens",
                "cache_creation_input_tokens",
            )
        ),
        count,
        max_size=5,
    )
    details = st.fixed_dictionaries(
        {},
        optional={
            "prompt_tokens_details": st.fixed_dictionaries({"cached_tokens": count}),
            "completion_tokens_details": st.fixed_dictionaries({"reasoning_tokens": count}),
        },
    )
    return st.builds(lambda left, right: {**left, **right}, known, details) | json_objects()


def model_parameters() -> st.SearchStrategy[dict[str, Any]]:
    """Parameters of a request, well-known and other ones, of fitting and other types."""
    known = st.sampled_from(("temperature", "top_p", "top_k", "max_tokens", "seed", "stop", "stream", "n"))
    return st.dictionaries(known | texts(), numbers() | st.booleans() | json_values(max_leaves=2), max_size=4)


_COMMON: dict[str, st.SearchStrategy[Any]] = {
    "trace_id": hex_ids(32),
    "span_id": hex_ids(16),
    "parent_id": st.just("") | hex_ids(16),
    "remote_parent": st.booleans(),
    "extent": st.sampled_from(("whole", "incomplete", "late")),
    "session_id": names(),
    "run_id": texts(),
    "turn": st.integers(0, 1_000),
    "user_id": texts(),
    "agent_name": texts(),
    "environment": st.sampled_from(NASTY_ENVIRONMENTS) | texts(),
    "release": texts(),
    "tags": st.lists(texts(), max_size=3).map(tuple),
    "metadata": json_objects() | st.fixed_dictionaries({"version": texts()}),
    "status": st.sampled_from(("unset", "ok", "error")),
    "error": st.none() | st.builds(SpanError, message=texts(), type=st.none() | texts()),
    "links": st.lists(st.builds(Link, trace_id=hex_ids(32), span_id=hex_ids(16)), max_size=2).map(tuple),
    "opened": st.none() | edges(),
    "closed": st.none() | edges(),
    "fingerprint": hex_ids(16),
}
_CALL: dict[str, st.SearchStrategy[Any]] = {
    "model": texts(),
    "response_model": texts(),
    "provider": texts(),
    "model_parameters": model_parameters(),
    "prompt": st.none() | st.builds(Prompt, name=texts(), version=st.integers()),
    "tool_definitions": st.lists(tool_definitions(), max_size=2),
    "tool_calls": st.lists(tool_calls() | json_values(), max_size=2),
    "thinking": json_values(),
    "finish_reason": texts(),
    "response_id": texts(),
    "time_to_first_token_ms": st.none() | numbers() | st.floats(0, 60_000).map(lambda ms: round(ms, 3)),
    "usage": usages(),
    "cost": json_values(),
}
_OF_KIND: dict[SpanKind, dict[str, st.SearchStrategy[Any]]] = {
    "session": {"output": json_values()},
    "turn": {"input": json_values(), "output": json_values()},
    "llm": {
        "input": st.lists(messages(), max_size=3) | json_values(),
        "output": json_values(),
        **_CALL,
    },
    "tool": {"name": texts(), "input": json_values(), "output": json_values(), "tool_call_id": texts()},
    "thinking": {"output": json_values()},
    "event": {"name": texts()},
}


@st.composite
def spans(draw: st.DrawFn, *, earliest_ns: int = 0, latest_ns: int = 4_102_444_800_000_000_000) -> Span:
    """Spans of every kind: the fields that its events give such a span, with nasty values in them.

    The default times are those from 1970 to 2100, in nanoseconds; an end before its start is among them.
    """
    kind = draw(st.sampled_from(tuple(_OF_KIND)))
    start_ns = draw(st.integers(earliest_ns, latest_ns))
    duration_ns = draw(st.integers(0, 10**12) | st.sampled_from((0, 1, 999, -1, -(10**9))))
    fields: dict[str, Any] = {"name": kind}
    for name, strategy in {**_COMMON, **_OF_KIND[kind]}.items():
        fields[name] = draw(strategy)
    return Span(kind=kind, start_ns=start_ns, end_ns=max(start_ns + duration_ns, 0), **fields)
