"""How providers and frameworks write parts of messages, calls and tool definitions, and the conventions' form of each.

A table, because it is all that differs: the same few things have other names everywhere. What a shape has no place for
rides along beside its name, so `item_of(shaped(item)) == item`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from tracebridge.event import Json
from tracebridge_otel import names

Path = tuple[str, ...]
_ABSENT: Final = object()


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """One way to write a thing down."""

    part: str
    """The conventions' type of it."""
    fields: Mapping[str, Path]
    """The conventions' keys, each with where it stands. The first must be there, as text unless anything may be it."""
    where: Mapping[str, Json] = {}
    """What tells the shape besides."""


def _text(where: Mapping[str, Json], *content: str) -> Shape:
    return Shape(part="text", fields={"content": content}, where=where)


def _reasoning(where: Mapping[str, Json], *content: str) -> Shape:
    return Shape(part="reasoning", fields={"content": content}, where=where)


def _call(where: Mapping[str, Json], name: Path, id_: Path, arguments: Path) -> Shape:
    return Shape(part="tool_call", fields={"name": name, "id": id_, "arguments": arguments}, where=where)


def _response(where: Mapping[str, Json], response: Path, id_: Path) -> Shape:
    return Shape(part="tool_call_response", fields={"response": response, "id": id_}, where=where)


def _tool(name: Path, description: Path, parameters: Path) -> Shape:
    return Shape(part="function", fields={"parameters": parameters, "name": name, "description": description})


CALLS: Final[Mapping[str, Shape]] = {
    "function": _call({}, ("function", "name"), ("id",), ("function", "arguments")),
    "tool_use": _call({"type": "tool_use"}, ("name",), ("id",), ("input",)),
    "tool_call": _call({"type": "tool_call"}, ("name",), ("id",), ("args",)),
    "function_call": _call({"type": "function_call"}, ("name",), ("call_id",), ("arguments",)),
    "tool-call": _call({"type": "tool-call"}, ("toolName",), ("toolCallId",), ("input",)),
    "part tool-call": _call({"part_kind": "tool-call"}, ("tool_name",), ("tool_call_id",), ("args",)),
    "toolUse": _call({}, ("toolUse", "name"), ("toolUse", "toolUseId"), ("toolUse", "input")),
    "Gemini call": _call({}, ("function_call", "name"), ("function_call", "id"), ("function_call", "args")),
    "name and args": _call({}, ("name",), ("id",), ("args",)),
    "Gemini functionCall": _call({}, ("functionCall", "name"), ("functionCall", "id"), ("functionCall", "args")),
}
"""Calls of OpenAI and those that took over its form, Anthropic, LangChain, OpenAI's responses, the AI SDK, Pydantic AI,
Bedrock, Gemini."""

PARTS: Final[Mapping[str, Shape]] = {
    "text": _text({"type": "text"}, "text"),
    "input_text": _text({"type": "input_text"}, "text"),
    "output_text": _text({"type": "output_text"}, "text"),
    "thinking": _reasoning({"type": "thinking"}, "thinking"),
    "reasoning": _reasoning({"type": "reasoning"}, "reasoning"),
    "reasoning text": _reasoning({"type": "reasoning"}, "text"),
    "Gemini thought": _reasoning({"thought": True}, "text"),
    "reasoningText": _reasoning({}, "reasoningContent", "reasoningText", "text"),
    "part text": _text({"part_kind": "text"}, "content"),
    "part user-prompt": _text({"part_kind": "user-prompt"}, "content"),
    "part system-prompt": _text({"part_kind": "system-prompt"}, "content"),
    "part thinking": _reasoning({"part_kind": "thinking"}, "content"),
    **CALLS,
    "tool_result": _response({"type": "tool_result"}, ("content",), ("tool_use_id",)),
    "function_call_output": _response({"type": "function_call_output"}, ("output",), ("call_id",)),
    "tool-result": _response({"type": "tool-result"}, ("output",), ("toolCallId",)),
    "part tool-return": _response({"part_kind": "tool-return"}, ("content",), ("tool_call_id",)),
    "toolResult": _response({}, ("toolResult", "content"), ("toolResult", "toolUseId")),
    "Gemini response": _response({}, ("function_response", "response"), ("function_response", "id")),
    "Gemini functionResponse": _response({}, ("functionResponse", "response"), ("functionResponse", "id")),
    "only text": _text({}, "text"),
}

TOOLS: Final[Mapping[str, Shape]] = {
    "input_schema": _tool(("name",), ("description",), ("input_schema",)),
    "inputSchema": _tool(("name",), ("description",), ("inputSchema",)),
    "toolSpec": _tool(("toolSpec", "name"), ("toolSpec", "description"), ("toolSpec", "inputSchema", "json")),
    "function": _tool(("function", "name"), ("function", "description"), ("function", "parameters")),
}
"""Definitions of Anthropic, MCP, Bedrock, and OpenAI with more than it asks for."""

_OF_ANY_TYPE: Final = frozenset({"response", "parameters"})


def shaped(item: Json, shapes: Mapping[str, Shape]) -> dict[str, Json] | None:
    """The conventions' form of `item`; None if it has none of the shapes."""
    if type(item) is not dict:
        return None
    for name, shape in shapes.items():
        if all(item.get(key) == value and type(item[key]) is type(value) for key, value in shape.where.items()):
            found = {key: value for key, path in shape.fields.items() if (value := _at(item, path)) is not _ABSENT}
            first = next(iter(shape.fields))
            if (first in _OF_ANY_TYPE and first in found) or isinstance(found.get(first), str):
                taken = [path for key, path in shape.fields.items() if key in found]
                rest = _without(item, [*taken, *((key,) for key in shape.where)])
                return {"type": shape.part, **found, names.FORM: {name: rest}}
    return None


def item_of(form: Mapping[str, Json], shapes: Mapping[str, Shape]) -> Json:
    """The way back from `shaped`; None if `form` is none of it."""
    named = form.get(names.FORM)
    if type(named) is not dict or len(named) != 1:
        return None
    ((name, rest),) = named.items()
    shape = shapes.get(name)
    if shape is None or type(rest) is not dict:
        return None
    item: dict[str, Any] = {**rest, **shape.where}
    for key, path in shape.fields.items():
        if key in form:
            _put(item, path, form[key])
    return item


def _at(item: Json, path: Path) -> Any:
    value: Any = item
    for key in path:
        if type(value) is not dict or key not in value:
            return _ABSENT
        value = value[key]
    return value


def _put(item: dict[str, Any], path: Path, value: Json) -> None:
    for key in path[:-1]:
        inner = item.get(key)
        item[key] = dict(inner) if type(inner) is dict else {}
        item = item[key]
    item[path[-1]] = value


def _without(item: dict[str, Any], paths: list[Path]) -> dict[str, Any]:
    """A copy of `item` without what stands at `paths`, and without what is empty then."""
    rest = dict(item)
    for key in {path[0] for path in paths}:
        inner = [path[1:] for path in paths if path[0] == key and len(path) > 1]
        left = _without(rest.pop(key), inner) if inner else None
        if left:
            rest[key] = left
    return rest
