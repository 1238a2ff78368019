"""Input and output: one text field each, in which text and JSON must stay apart."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from tracebridge.event import Json
from tracebridge_langfuse import exact

_CONTAINERS: Final = ("{", "[")
_SIGNS_OF_THE_UNSENDABLE: Final = ("\\ud", "NaN", "Infinity")
_ESCAPED_HALF: Final = re.compile(r"\\u[dD][89a-fA-F]")
_TOOL_NAMES: Final = ("name", "toolName")


class Payload(msgspec.Struct, frozen=True, kw_only=True):
    """A value as the text of an input or output field."""

    text: str | None
    """None where nothing is sent."""
    inverted: bool = False
    """Whether `value_of` must be told to read the text the other way than it looks."""
    complete: bool = True
    """Whether `value_of` gives the value back; if not, it must travel elsewhere as well."""


def payload_of(value: Json) -> Payload:
    """Write a value for people first: text as it is, everything else as JSON."""
    payload = _payload(value)
    if payload.text is None or _ESCAPED_HALF.search(payload.text) is None:
        return payload
    shown = _without_halves_of_names(value)
    if exact.same(shown, value):
        return payload
    return msgspec.structs.replace(_payload(shown), complete=False)


def _payload(value: Json) -> Payload:
    if value is None:
        return Payload(text=None)
    if value == "" and type(value) is str:
        # the server cannot tell it from nothing
        return Payload(text=None, complete=False)
    if type(value) is str:
        if exact.has_surrogate(value):
            return Payload(text=exact.sendable(value), complete=False)
        return Payload(text=value, inverted=value.startswith(_CONTAINERS) and type(value_of(value)) is not str)
    text = exact.encode_plain(value)
    if text is None:
        text = exact.encode_any(value)
        if any(sign in text for sign in _SIGNS_OF_THE_UNSENDABLE):
            clean = exact.sendable(value)
            if not exact.same(clean, value):
                return Payload(text=exact.encode(clean), complete=False)
    return Payload(text=text, inverted=not text.startswith(_CONTAINERS))


def value_of(text: str | None, *, inverted: bool = False) -> Json:
    """Read an input or output field: JSON if it looks like an object or array, else text; or inverted."""
    if text is None or text.startswith(_CONTAINERS) == inverted:
        return text
    try:
        return exact.decode(text)
    except ValueError:
        return text


def _without_halves_of_names(value: Json) -> Json:
    """`value` with U+FFFD for what would become half a character, over which the server loses whole requests.

    The server looks for tools in inputs and outputs, also in texts that are JSON, and stores their names as they read
    there: what was written as an escape is half a character then.
    """
    match value:
        case str() if _ESCAPED_HALF.search(value):
            read = value_of(value.lstrip())
            if type(read) is str:
                return value
            clean = _without_halves_of_names(read)
            if _names_half(read):
                clean = exact.sendable(clean)
            return value if exact.same(clean, read) else exact.encode(clean)
        case list():
            return [_without_halves_of_names(item) for item in value]
        case dict():
            return {key: _without_halves_of_names(item) for key, item in value.items()}
        case _:
            return value


def _names_half(value: Json) -> bool:
    match value:
        case list():
            return any(map(_names_half, value))
        case dict():
            return any(
                (key in _TOOL_NAMES and not exact.same(entry, exact.sendable(entry))) or _names_half(entry)
                for key, entry in value.items()
            )
        case _:
            return False
