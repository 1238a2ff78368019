"""A span as texts and numbers that can be compared far from Python: equal if and only if the fields are equal.

Equality is that of `tracebridge.validation.compare`: 1, 1.0 and true differ, the order of keys does not matter, 0.0 is
-0.0. NaN and the infinities are null, as in the journal.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Final

import msgspec

from tracebridge.span import Span
from tracebridge.validation.comparison import COMPARED_FIELDS

FIELDS: Final = tuple(name for name in COMPARED_FIELDS if name not in ("trace_id", "span_id"))
"""The fields in which two spans with the same ids may differ; a field's number is its place here."""

Column = tuple[int, int]
"""A level and a field's number. Level 0 is the span as it is, level n what is left after the first n losses."""

DEFAULT_DIGEST: Final = 0
"""What stands for a field with its default value."""

_FIELDS_OF_SPAN: Final = {field.name: field for field in msgspec.structs.fields(Span)}
_ENCODER: Final = msgspec.json.Encoder(order="sorted")
_NEGATIVE_ZERO: Final = b"-0.0"


def _default_of(name: str) -> Any:
    field = _FIELDS_OF_SPAN[name]
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


_DEFAULTS: Final = tuple(_default_of(name) for name in FIELDS)


def column_name(column: Column) -> str:
    """The name of the digest of a field at a level."""
    level, number = column
    return f"v{level}_{FIELDS[number]}"


def texts_of(span: Span) -> dict[int, bytes]:
    """By number, the JSON texts of the fields that do not have their default value."""
    texts = {}
    for number, name in enumerate(FIELDS):
        value, default = getattr(span, name), _DEFAULTS[number]
        if value is not default and (type(value) is not type(default) or value != default):
            texts[number] = text_of(value)
    return texts


def texts_changed(before: Span, after: Span) -> dict[int, bytes | None]:
    """By number, the texts of the fields of `after` that are other objects than those of `before`.

    None stands for the default value.
    """
    changed: dict[int, bytes | None] = {}
    for number, name in enumerate(FIELDS):
        value = getattr(after, name)
        if value is not getattr(before, name):
            default = _DEFAULTS[number]
            is_default = type(value) is type(default) and value == default
            changed[number] = None if is_default else text_of(value)
    return changed


def text_of(value: Any) -> bytes:
    """JSON text of a field's value, one text for all values that are equal."""
    try:
        text = _ENCODER.encode(value)
    except (UnicodeEncodeError, msgspec.MsgspecError, OverflowError):
        return _ENCODER.encode(_sendable(msgspec.to_builtins(value)))
    return _ENCODER.encode(_sendable(msgspec.to_builtins(value))) if _NEGATIVE_ZERO in text else text


def digest_of(text: bytes | None) -> int:
    """64 bits, signed, that stand for a text in comparisons; `DEFAULT_DIGEST` for None."""
    if text is None:
        return DEFAULT_DIGEST
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little", signed=True)


def default_value(number: int) -> Any:
    """The default value of a field as JSON."""
    return msgspec.to_builtins(_DEFAULTS[number])


def _sendable(value: Any) -> Any:
    """`value` with one kind of zero, and with lone surrogates told apart from the texts that stand for them."""
    if isinstance(value, float):
        return value + 0.0 if value else 0.0
    if isinstance(value, str):
        return _utf8(value)
    if isinstance(value, list | tuple):
        return [_sendable(item) for item in value]
    if isinstance(value, dict):
        return {_utf8(key): _sendable(item) for key, item in value.items()}
    return value


def _utf8(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return "\x00" + text.encode("utf-8", "backslashreplace").decode()
    return text
