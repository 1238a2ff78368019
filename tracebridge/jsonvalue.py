r"""JSON values: any Python value to JSON bytes, and any journal line back to values.

`encode` never raises. What JSON has no form for is written in one that is fixed here:

| value | form |
| --- | --- |
| NaN, Infinity | `null` |
| bytes, bytearray, memoryview | base64 text |
| datetime, date, time, timedelta | ISO 8601 text |
| Decimal, UUID, path | text |
| Enum | its value |
| set, frozenset, tuple, namedtuple, deque | array |
| dataclass | object of its fields |
| msgspec Struct | object of its fields, or what else its class declares |
| attrs object | object of its attributes but those that begin with `_` |
| `Mapping`, object with `model_dump` (pydantic) | object |
| object with `tolist` (numpy) | what it gives |
| exception | `{"type": ..., "message": ...}` |
| key of an object that is no text | its text; `null`, `true`, `false` for None, True, False |
| lone surrogate in a text | `\ud800`, six characters, as `errors="backslashreplace"` writes it |
| integer of more than 4,300 digits | hexadecimal text, `0x...` |
| object that contains itself | `<cycle: dict>` where it would begin again |
| container deeper than `MAX_DEPTH` | `<too deep: dict>` |
| iterator, generator, class, function, anything else | its `repr`; iterators are not consumed |
| object whose conversion raises | `<Name: ValueError when it was recorded>` |
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from os import PathLike, fspath
from types import MemberDescriptorType
from typing import Any, Final
from uuid import UUID

import msgspec

from tracebridge.event import Json
from tracebridge.interruption import is_interruption

MAX_DEPTH: Final = 128
"""The most containers inside one another that a value, or the `data` of a journal line, may have."""

_LINE_DEPTH: Final = MAX_DEPTH + 1
_MANY_DIGITS: Final = 10**4300
_ARRAYS: Final = (list, tuple, set, frozenset, deque)
_PARTS_OF_TIMEDELTA: Final = (timedelta.days, timedelta.seconds, timedelta.microseconds)
_NEARER_TO_JSON: Final = (dict, list, int, float, bool, str, bytes, datetime, date, timedelta)
_TEXTS_OF_MSGSPEC: Final = (datetime, date, time, timedelta, Decimal, UUID, bytes, bytearray, memoryview)


def encode(value: object) -> bytes:
    """Return `value` as JSON. It is read now: a later change of it changes nothing."""
    try:
        return ENCODER.encode(value)
    except Exception as error:
        # msgspec refuses as a whole what holds one value that it cannot write
        if is_interruption(error):
            raise
        return ENCODER.encode(plain(value))


def plain(value: object) -> Json:
    """Return `value` as JSON values only, in the forms of the table above; it never raises."""
    return _convert(value, set(), 0)


def decode(line: bytes) -> Json:
    """Read one JSON text.

    What msgspec refuses is tried with the standard library: older writers emit NaN, Infinity and 1e400, read
    as None, and lone surrogates, read in the form that `encode` gives them. Containers that are too deep are
    cut as by `encode`.

    Raises:
        ValueError: neither decoder can read `line`.
    """
    try:
        value = msgspec.json.decode(line)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        import json  # here, because few journals need it

        try:
            value = _convert(json.loads(line), set(), -1)
        except RecursionError:
            raise ValueError("nested too deep to be read") from None
    if may_be_too_deep(line) and _is_too_deep(value):
        return _convert(value, set(), -1)
    return value


def may_be_too_deep(line: bytes) -> bool:
    """Whether a JSON text may hold containers that `decode` cuts; False is certain."""
    return len(line) > 2 * _LINE_DEPTH and line.count(b"{") + line.count(b"[") > _LINE_DEPTH


def may_hold_longer(line: bytes, limit: int) -> bool:
    """Whether a string of more than `limit` characters may stand in a JSON text; False is certain.

    It looks at the bytes only, which costs far less than a walk through the values.
    """
    if len(line) <= limit:
        return False
    if b"\\" in line:
        # an escaped quote ends no string; two bytes become one, and so does the character that they stand for
        line = line.replace(b"\\\\", b"_").replace(b'\\"', b"_")
    return max(map(len, line.split(b'"'))) > limit


def text(value: object) -> str:
    """Return `value` as a text that UTF-8 can hold; it never raises."""
    try:
        return _utf8(str.__str__(value) if isinstance(value, str) else str(value))
    except Exception as error:
        return _unshowable(value, error)


def _convert(value: Any, inside: set[int], depth: int) -> Json:
    # `inside` holds the objects that this one is part of; `depth` counts the containers among them
    kind = type(value)
    if kind is str:
        return _utf8(value)
    if value is None or kind is bool:
        return value
    if kind is int:
        return value if -_MANY_DIGITS < value < _MANY_DIGITS else hex(value)
    if kind is float:
        return value if value - value == 0 else None
    try:
        if id(value) in inside:
            return f"<cycle: {kind.__name__}>"
        inside.add(id(value))
        try:
            if isinstance(value, dict):
                if depth >= MAX_DEPTH:
                    return f"<too deep: {kind.__name__}>"
                # copied first: another thread may be changing it
                return {_key(key): _convert(entry, inside, depth + 1) for key, entry in list(value.items())}
            if isinstance(value, _ARRAYS):
                if depth >= MAX_DEPTH:
                    return f"<too deep: {kind.__name__}>"
                return [_convert(entry, inside, depth + 1) for entry in list(value)]
            return _convert(_simpler(value), inside, depth)
        finally:
            inside.discard(id(value))
    except Exception as error:
        return _unshowable(value, error)


def _simpler(value: Any) -> Any:
    """Return something nearer to JSON than `value`, which is neither a container nor a plain value."""
    if isinstance(value, type):
        return repr(value)
    if isinstance(value, msgspec.Struct):
        return _of_struct(value)
    # before what else it may be, such as an exception: so does msgspec
    fields = _fields(value)
    if fields is not None:
        return fields
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, int):
        return int.__index__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, _TEXTS_OF_MSGSPEC):
        return msgspec.to_builtins(_of_known_type(value))
    if isinstance(value, _ARRAYS):
        return list(value)
    if isinstance(value, Mapping):
        return dict(value.items())
    if isinstance(value, PathLike):
        return fspath(value)
    if isinstance(value, BaseException):
        return {"type": type(value).__qualname__, "message": text(value)}
    for method in ("model_dump", "tolist"):
        simpler = getattr(value, method, None)
        if simpler is not None:
            found = simpler()
            # an object that answers to every name, such as a mock, gives something of its own kind
            if type(found) in _NEARER_TO_JSON:
                return found
    return repr(value)


def _of_known_type(value: Any) -> Any:
    """Return what msgspec takes in the place of a value of a type that is derived from one of `_TEXTS_OF_MSGSPEC`."""
    if isinstance(value, memoryview):
        # which may have gaps
        return value.tobytes()
    if type(value) in _TEXTS_OF_MSGSPEC:
        return value
    if isinstance(value, bytes | bytearray):
        return bytes(memoryview(value))
    if hasattr(value, "isoformat"):
        # that of pandas tells nanoseconds as well, and what is no time
        return value.isoformat()
    if isinstance(value, timedelta):
        return timedelta(*(part.__get__(value) for part in _PARTS_OF_TIMEDELTA))
    return str(value)


def _fields(value: Any) -> dict[str, Any] | None:
    kind = type(value)
    if hasattr(kind, "__dataclass_fields__"):
        # imported here, where somebody has done so before; the attribute tells of the class's variables, too
        from dataclasses import fields

        names = [field.name for field in fields(value)]
    elif hasattr(kind, "__attrs_attrs__") and not isinstance(value, Enum):
        return _public_attributes(value)
    else:
        return None
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def _of_struct(value: msgspec.Struct) -> Any:
    try:
        # in the form that the class declares: with its tag, other names, or as an array
        return msgspec.to_builtins(value, str_keys=True, enc_hook=plain)
    except (TypeError, ValueError, RecursionError):
        return {name: getattr(value, name) for name in value.__struct_fields__ if hasattr(value, name)}


def _public_attributes(value: Any) -> dict[str, Any]:
    found = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        for name, member in list(vars(kind).items()):
            # asked itself, as the object may compute what the slot does not hold yet
            if type(member) is MemberDescriptorType and name not in found:
                with suppress(AttributeError):
                    found[name] = member.__get__(value)
    return {name: entry for name, entry in found.items() if not name.startswith("_")}


def _key(key: object) -> str:
    try:
        if isinstance(key, str):
            return text(key.value if isinstance(key, Enum) else key)
        if key is None or key is True or key is False:
            return {None: "null", True: "true", False: "false"}[key]
        if isinstance(key, (Enum, *_TEXTS_OF_MSGSPEC)):
            return text(_simpler(key))
        return text(key)
    except Exception as error:
        return _unshowable(key, error)


def _is_too_deep(value: Json) -> bool:
    level = [value] if type(value) is dict or type(value) is list else []
    for _ in range(_LINE_DEPTH):
        level = [
            entry
            for container in level
            for entry in (container.values() if type(container) is dict else container)
            if type(entry) is dict or type(entry) is list
        ]
        if not level:
            return False
    return True


def _utf8(value: str) -> str:
    if value.isascii():
        return value
    return value.encode("utf-8", "backslashreplace").decode()


def _unshowable(value: object, error: Exception) -> str:
    if is_interruption(error):
        raise error
    return f"<{type(value).__name__}: {type(error).__name__} when it was recorded>"


ENCODER: Final = msgspec.json.Encoder()
"""Writes the forms of the table, but raises at lone surrogates, cycles, what is too deep for it, and what is no JSON.

It has no hook for the last: msgspec walks through a list while others may change it, so that Python code which runs in
the middle (a `__repr__`, and any other thread while it does) would end the process by a segmentation fault.
"""
