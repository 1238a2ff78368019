"""Attributes to OTLP's `KeyValue` messages.

The messages are written byte by byte, because protobuf's own classes make three Python objects for each
attribute and take up to twice as long; the tests compare with those classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

from tracebridge_otlp.protobuf import double, sized, sized_unless_empty, utf8, varint
from tracebridge_otlp.wire import Attributes

_KEY: Final = b"\x0a"
_VALUE: Final = b"\x12"
_STRING: Final = b"\x0a"
_TRUE: Final = b"\x10\x01"
_FALSE: Final = b"\x10\x00"
_INTEGER: Final = b"\x18"
_DOUBLE: Final = b"\x21"
_ARRAY: Final = b"\x2a"
_ARRAY_ENTRY: Final = b"\x0a"

_INT64: Final = range(-(2**63), 2**63)
_TWO_COMPLEMENT: Final = 2**64 - 1
_SHORT: Final = 64
"""Characters of a text that may well come again in the next span, as a user's or a model's name does."""


def encode_attributes(tag: bytes, attributes: Attributes) -> list[bytes]:
    """Encode attributes as fields of `tag`, one for each that has a value; the list holds them in pieces."""
    pieces: list[bytes] = []
    for key, value in attributes.items():
        kind = type(value)
        if kind is str:
            if len(value) <= _SHORT:
                pieces.append(_short_text(tag, key, value))
            else:
                # a text may be long, so it is not copied into each message that it stands in
                content = utf8(value)
                name, head = _encoded_key(key), _head_of_text(len(content))
                pieces += (tag, varint(len(name) + len(head) + len(content)), name, head, content)
        elif kind is int:
            pieces.append(_integer(tag, key, value))
        elif value is not None:
            pieces.append(_field(tag, key, value))
    return pieces


def _field(tag: bytes, key: str, value: Any) -> bytes:
    return sized(tag, _encoded_key(key) + sized(_VALUE, _any_value(value)))


_short_text: Final = lru_cache(maxsize=1024)(_field)
_integer: Final = lru_cache(maxsize=1024)(_field)


@lru_cache(maxsize=1024)
def _encoded_key(key: str) -> bytes:
    return sized_unless_empty(_KEY, utf8(key))


@lru_cache(maxsize=4096)
def _head_of_text(size: int) -> bytes:
    """What goes before a text of `size` bytes and after the key."""
    value = _STRING + varint(size)
    return _VALUE + varint(len(value) + size) + value


def _any_value(value: Any) -> bytes:
    if isinstance(value, str):
        return sized(_STRING, utf8(value))
    if isinstance(value, bool):
        return _TRUE if value else _FALSE
    if isinstance(value, int):
        if value in _INT64:
            return _INTEGER + varint(value & _TWO_COMPLEMENT)
        return sized(_STRING, utf8(str(value)))
    if isinstance(value, float):
        return _DOUBLE + double(value)
    if isinstance(value, Iterable):
        return sized(_ARRAY, b"".join([sized(_ARRAY_ENTRY, _any_value(entry)) for entry in value if entry is not None]))
    return sized(_STRING, utf8(str(value)))
