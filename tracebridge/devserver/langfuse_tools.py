"""What Langfuse 4.16 does with tools: it moves those of the metadata into the input, and indexes all by their names.

Without I/O.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tracebridge.devserver.otlp import json_text

_KEY = "tools"
_GENAI_DEFINITIONS = "gen_ai.tool.definitions"
_NAMES = ("name", "toolName")
_HALF = re.compile("[\ud800-\udfff]")


def with_tools_moved(source: Any, metadata: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The input and the metadata as they are stored; both unchanged if no tool is defined in the metadata.

    `metadata` is the tree before it is made flat. Only a list in which every entry has a name is moved.
    """
    kept = dict(metadata)
    tools = _definitions(kept.get(_KEY))
    if tools:
        del kept[_KEY]
    attributes = kept.get("attributes")
    named = _definitions(attributes.get(_GENAI_DEFINITIONS)) if isinstance(attributes, dict) else []
    if isinstance(attributes, dict) and named:
        kept["attributes"] = {key: value for key, value in attributes.items() if key != _GENAI_DEFINITIONS}
    tools = _each_once([*tools, *named])
    if not tools:
        return source, dict(metadata)
    merged = _merged(_parsed(source), tools)
    return (source, dict(metadata)) if merged is None else (json_text(merged), kept)


def is_named_by_half_a_character(text: str | None) -> bool:
    """Whether a tool in an input or output has half a surrogate pair in its name, which the database refuses.

    Here any entry called as a tool's name counts, also in texts that are JSON themselves; Langfuse knows the places.
    """
    return text is not None and _names_half(text)


def _names_half(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_names_half, value))
    if isinstance(value, dict):
        names = [value[key] for key in _NAMES if isinstance(value.get(key), str)]
        return any(map(_HALF.search, names)) or any(map(_names_half, value.values()))
    if not isinstance(value, str) or "\\u" not in value:
        return False
    parsed = _parsed(value)
    return not isinstance(parsed, str) and _names_half(parsed)


def _merged(value: Any, tools: list[Any]) -> dict[str, Any] | None:
    """The input with the tools in it; None where the server finds no place for them."""
    if isinstance(value, list):
        return {"messages": value, "tools": tools}
    if isinstance(value, str):
        return {"prompt": value, "tools": tools}
    if value is None:
        return {"tools": tools}
    if not isinstance(value, dict):
        return None
    if value.get("tools") is None:
        return {**value, "tools": tools}
    existing = _definitions(value["tools"])
    return {**value, "tools": _each_once([*existing, *tools])} if existing else None


def _definitions(value: Any) -> list[Any]:
    """The tools of a list, or of JSON text of one; none unless all its entries are tools."""
    entries = _parsed(value)
    if not isinstance(entries, list):
        return []
    tools = [_parsed(entry) for entry in entries]
    return tools if all(_name(tool) for tool in tools) else []


def _name(tool: Any) -> Any:
    if not isinstance(tool, dict):
        return None
    function = tool.get("function")
    described = tool if function is None else function
    return described.get("name") if isinstance(described, dict) else None


def _each_once(tools: list[Any]) -> list[Any]:
    seen: set[str] = set()
    kept = []
    for tool in tools:
        name = json_text(_name(tool))
        if name not in seen:
            seen.add(name)
            kept.append(tool)
    return kept


def _parsed(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
