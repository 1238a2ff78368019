"""Input and output: one text field each, in which text and JSON must stay apart."""

from __future__ import annotations

from typing import Final

import msgspec

from tracebridge.event import Json
from tracebridge_langfuse import exact

_CONTAINERS: Final = ("{", "[")
_SIGNS_OF_THE_UNSENDABLE: Final = ("\\ud", "NaN", "Infinity")


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
