"""JSON text from which a value comes back exactly: `1` is not `1.0`, NaN and lone surrogates included."""

from __future__ import annotations

import json
import re
from typing import Final

import msgspec

from tracebridge.event import Json

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_FAST: Final = msgspec.json.Encoder()
_WITH_NAN: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)
_ASCII: Final = json.JSONEncoder(separators=(",", ":"))


def encode(value: Json) -> str:
    """JSON text of `value`, compact. It is ASCII where `value` holds what UTF-8 cannot."""
    text = encode_plain(value)
    return encode_any(value) if text is None else text


def encode_plain(value: Json) -> str | None:
    """The text that `encode` gives for `value`, or None if `value` may hold what plain JSON has no word for.

    That is NaN, infinities and lone surrogates. A text that is returned is therefore sendable, and `value`
    comes back from it. msgspec writes null for NaN and the infinities, so a null makes it a "may" in
    everything but a string.
    """
    try:
        data = _FAST.encode(value)
    except UnicodeEncodeError:
        return None
    return None if b"null" in data and type(value) is not str else data.decode()


def encode_any(value: Json) -> str:
    """The text that `encode` gives where `encode_plain` gives none."""
    text = _WITH_NAN.encode(value)
    return _ASCII.encode(value) if has_surrogate(text) else text


def decode(text: str) -> Json:
    """The value of a JSON text.

    Raises:
        ValueError: `text` is no JSON, not even as Python's own encoder writes it.
    """
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        pass  # the standard library reads NaN and lone surrogates
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("JSON nested too deeply") from None


def same(left: Json, right: Json) -> bool:
    """Whether two JSON values are the same, types of numbers included. The order of keys does not matter."""
    if left is right:
        return True
    if type(left) is not type(right):
        return False
    if type(left) is dict:
        return left.keys() == right.keys() and all(same(value, right[key]) for key, value in left.items())
    if type(left) in (list, tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if type(left) is float:
        return repr(left) == repr(right)  # tells -0.0 from 0.0, and NaN is NaN
    return bool(left == right)


def has_surrogate(text: str) -> bool:
    """Whether `text` holds half a character, over which LangFuse loses whole requests."""
    if text.isascii():
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def sendable(value: Json) -> Json:
    """`value` with U+FFFD for each lone surrogate and the numbers that JSON lacks as text."""
    match value:
        case str():
            return _SURROGATE.sub("\ufffd", value) if has_surrogate(value) else value
        case float() if value != value or value in (float("inf"), float("-inf")):
            return repr(value)
        case list():
            return [sendable(item) for item in value]
        case dict():
            return {sendable(key): sendable(item) for key, item in value.items()}
        case _:
            return value


def sendable_text(value: Json) -> str:
    """`encode(sendable(value))`."""
    text = encode_plain(value)
    return encode(sendable(value)) if text is None else text
