"""Chat content to the conventions' message structure (a role and parts) and exactly back.

What the structure has no place for rides along in it: keys that it does not know stay on the message, which
its schema allows, and what is no message at all becomes a part of a type of our own. So every JSON value has
a form, and `input_of(input_form(value)) == value`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from tracebridge.event import Json
from tracebridge_otel import names
from tracebridge_otel.shapes import CALLS, PARTS, TOOLS, item_of, shaped


class Reply(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a model answered."""

    thinking: Json = None
    content: Json = None
    tool_calls: list[Json] = []


def input_form(value: Json) -> Json:
    """The messages for an input: a list of chat messages, a text, or any other JSON value."""
    if isinstance(value, list):
        return [_message_form(message) for message in value]
    if isinstance(value, str):
        return [{"role": "user", "parts": [_text_part(value)], names.FORM: "text"}]
    return [{"role": "user", "parts": [_verbatim(value)], names.FORM: "value"}]


def input_of(form: Json) -> Json:
    """The input that messages stand for; what is not in the form of messages is returned as it is."""
    match form:
        case [{"parts": [{"content": content}], names.FORM: "text"}]:
            return content
        case [{"parts": [{"value": value}], names.FORM: "value"}]:
            return value
        case list():
            return [_message_of(message) for message in form]
    return form


def reply_form(reply: Reply) -> Json:
    """The messages for a model's answer."""
    if isinstance(reply.content, list) and any(shaped(item, PARTS) for item in reply.content):
        form = _reply_form(reply, reply.content)
        if reply_of(form) == reply:
            return form
    return _reply_form(reply)


def _reply_form(reply: Reply, items: list[Json] | None = None) -> Json:
    """The same; with `items` the content is a list of parts."""
    parts: list[Json] = []
    form: dict[str, Json] = {"role": "assistant", "parts": parts}
    if isinstance(reply.thinking, str):
        parts.append({"type": "reasoning", "content": reply.thinking})
    elif reply.thinking is not None:
        parts.append({**_verbatim(reply.thinking), names.FORM: "thinking"})
    if items is not None:
        form[names.FORM] = "parts"
        parts.extend(map(_part_form, items))
    elif isinstance(reply.content, str):
        parts.append(_text_part(reply.content))
    elif reply.content is not None:
        parts.append(_verbatim(reply.content))
    if reply.tool_calls:
        parts.extend(map(_call_form, reply.tool_calls))
    return [form]


def reply_of(form: Json) -> Reply:
    """The answer that messages stand for; what is not in their form is returned as the answer's content."""
    match form:
        case [{"parts": list(parts), **rest}]:
            items: list[Json] | None = [] if rest.get(names.FORM) == "parts" else None
        case _:
            return Reply(content=form)
    thinking: Json = None
    content: Json = None
    tool_calls: list[Json] = []
    for part in parts:
        match part:
            case {"type": "reasoning", "content": text} if items is None or names.FORM not in part:
                thinking = text
            case {"type": names.VERBATIM, names.FORM: "thinking", "value": value}:
                thinking = value
            case {"type": "tool_call"} if items is None or not _is_item(part):
                tool_calls.append(_call_of(part))
            case _ if items is not None:
                items.append(_part_of(part))
            case {"type": "text", "content": text}:
                content = text
            case {"type": names.VERBATIM, "value": value}:
                content = value
    if items is not None:
        content = items
    return Reply(thinking=thinking, content=content, tool_calls=tool_calls)


def tools_form(definitions: list[Json]) -> Json:
    """The conventions' form of tool definitions."""
    return [_tool_form(definition) for definition in definitions]


def tools_of(form: Json) -> list[Json]:
    """The tool definitions that `form` stands for."""
    return [_tool_of(tool) for tool in form] if isinstance(form, list) else []


def _message_form(message: Json) -> Json:
    if type(message) is dict and len(message) == 2:
        # by far the most messages are just this, and a `match` takes several times as long to see it
        role, content = message.get("role"), message.get("content")
        if type(role) is str and type(content) is str:
            return {"role": role, "parts": [{"type": "text", "content": content}]}
    role = _role_of(message)
    if isinstance(message, dict) and role is not None:
        form = _structured(message, role)
        if (form["parts"] or "role" in message) and _message_of(form) == message:
            return form
    return {"role": role or "user", "parts": [_verbatim(message)]}


def _role_of(message: Json) -> str | None:
    """Who said it, by its role or by what it is."""
    match message:
        case {"role": str(role)}:
            return role
        case {"type": str(said)} | {"kind": str(said)} if "role" not in message:
            return _ROLES.get(said)
    return None


def _structured(message: dict[str, Json], role: str) -> dict[str, Json]:
    rest = {key: value for key, value in message.items() if key not in _OWN_KEYS}
    parts: list[Json] = []
    form: dict[str, Json] = {"role": role, "parts": parts}
    named = "role" in message
    if not named:
        if (part := shaped(message, PARTS)) is not None:
            return {**form, "parts": [part], names.FORM: "part"}
        form[names.FORM] = "no role"
    match message:
        case {"tool_call_id": str(call_id), "content": content}:
            parts.append({"type": "tool_call_response", "id": call_id, "response": content})
            del rest["content"], rest["tool_call_id"]
        case {"content": str(content)}:
            parts.append(_text_part(content))
            del rest["content"]
        case {"content": [_, *_] as items}:
            parts.extend(map(_part_form, items))
            form[names.FORM] = "parts" if named else "no role, parts"
            del rest["content"]
        case {"parts": [_, *_] as items} if "content" not in message:
            parts.extend(map(_part_form, items))
            form[names.FORM] = "own parts" if named else "no role, own parts"
    match rest:
        case {"tool_calls": [_, *_] as calls}:
            parts.extend(map(_call_form, calls))
            del rest["tool_calls"]
    return {**form, **rest}


def _message_of(form: Json) -> Json:
    match form:
        case {"parts": [{"type": names.VERBATIM, "value": value}]} if names.FORM not in form:
            return value
        case {"parts": [part], names.FORM: "part"}:
            return _part_of(part)
        case {"role": role, "parts": list(parts)}:
            pass
        case _:
            return form
    mark = form.get(names.FORM)
    has_role, listed = _MARKS.get(mark, (True, "")) if isinstance(mark, str) else (True, "")
    message: dict[str, Json] = {"role": role} if has_role else {}
    message.update((key, value) for key, value in form.items() if key not in _OWN_KEYS)
    content: list[Json] = []
    calls: list[Json] = []
    for part in parts:
        match part:
            case {"type": "tool_call"} if not listed or not _is_item(part):
                calls.append(_call_of(part))
            case {"type": "text", "content": text} if not listed:
                message["content"] = text
            case {"type": "tool_call_response", "id": call_id, "response": response} if not listed:
                message["content"] = response
                message["tool_call_id"] = call_id
            case _:
                content.append(_part_of(part))
    if listed:
        message[listed] = content
    if calls:
        message["tool_calls"] = calls
    return message


def _part_form(item: Json) -> Json:
    match item:
        case {"type": "text", "text": str(text), **rest} if not rest:
            return _text_part(text)
    part = shaped(item, PARTS)
    if part is not None:
        return part
    match item:
        case {"type": str(type_)} if type_ not in _TYPES:
            return item
    return _verbatim(item)


def _part_of(part: Json) -> Json:
    match part:
        case {names.FORM: dict()} if (item := item_of(part, PARTS)) is not None:
            return item
        case {"type": "text", "content": str(text), **rest} if not rest:
            return {"type": "text", "text": text}
        case {"type": names.VERBATIM, "value": value}:
            return value
    return part


def _is_item(part: Mapping[str, Json]) -> bool:
    """Whether a call was one of a message's parts, and not of its tool calls."""
    return item_of(part, PARTS) is not None


def _call_form(call: Json) -> Json:
    match call:
        case {
            "id": call_id,
            "type": "function",
            "function": {"name": name, "arguments": arguments, **more},
            **rest,
        } if not more and not rest:
            form = {"type": "tool_call", "id": call_id, "name": name, "arguments": arguments}
            return {**form, names.FORM: "function"}
        case {"name": str()} if "type" not in call and names.FORM not in call:
            if "args" not in call:
                return {"type": "tool_call", **call}
    shape = shaped(call, CALLS)
    if shape is not None:
        return {**shape, names.FORM: {"call": shape[names.FORM]}}
    return {"type": "tool_call", "name": "", names.FORM: "value", "value": call}


def _call_of(form: Json) -> Json:
    match form:
        case {names.FORM: "function", "id": call_id, "name": name, "arguments": arguments}:
            return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
        case {names.FORM: "value", "value": value}:
            return value
        case {names.FORM: {"call": shape}} if (call := item_of({**form, names.FORM: shape}, CALLS)) is not None:
            return call
    return {key: value for key, value in form.items() if key != "type"}


def _tool_form(definition: Json) -> Json:
    match definition:
        case {"type": "function", "function": {"name": str()} as function, **rest} if (
            not rest and "type" not in function and names.FORM not in function
        ):
            return {"type": "function", **function, names.FORM: "function"}
        case {"type": str(), "name": str()} if names.FORM not in definition:
            return definition
    return shaped(definition, TOOLS) or {"type": names.VERBATIM, "name": "", names.FORM: "value", "value": definition}


def _tool_of(form: Json) -> Json:
    match form:
        case {names.FORM: "value", "value": value}:
            return value
        case {names.FORM: "function"}:
            function = {key: value for key, value in form.items() if key not in ("type", names.FORM)}
            return {"type": "function", "function": function}
        case {names.FORM: dict()} if (definition := item_of(form, TOOLS)) is not None:
            return definition
    return form


def _text_part(text: str) -> dict[str, Json]:
    return {"type": "text", "content": text}


def _verbatim(value: Json) -> dict[str, Json]:
    return {"type": names.VERBATIM, "value": value}


_OWN_KEYS = ("role", "parts", names.FORM)

_TYPES: Final = ("text", "reasoning", "tool_call", "tool_call_response")
"""What has such a type and none of the shapes is none of these."""

_ROLES: Final[Mapping[str, str]] = {
    "human": "user",
    "ai": "assistant",
    "system": "system",
    "tool": "tool",
    "request": "user",
    "response": "assistant",
    "reasoning": "assistant",
    "function_call": "assistant",
    "function_call_output": "tool",
}
"""Who speaks in LangChain's messages, Pydantic AI's, and the items of OpenAI's responses, by their type or kind."""

_MARKS: Final[Mapping[str, tuple[bool, str]]] = {
    "parts": (True, "content"),
    "own parts": (True, "parts"),
    "no role": (False, ""),
    "no role, parts": (False, "content"),
    "no role, own parts": (False, "parts"),
}
"""What a message had that its form alone does not tell: a role, and a list under this key."""
