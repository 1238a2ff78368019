"""Media inside values: what a LangFuse server that stores media by itself leaves of them.

Such a server (`LANGFUSE_OTEL_MEDIA_UPLOAD_ENABLED`) takes images and files out of what it is sent and puts a
reference there that names the type and a hash of the content. The reference can be foretold, so that a span
with the media and one with the reference can be told to be the same.
"""

from __future__ import annotations

import ast
import base64
import binascii
import hashlib
import re
from typing import Any, Final, TypeVar

import msgspec

from tracebridge.event import Json
from tracebridge.span import Span
from tracebridge_langfuse import exact, names

_TYPE: Final = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*"
_MEDIA: Final = re.compile(
    rf"data:({_TYPE})(?:;[A-Za-z0-9!#$&^_.+-]+=[^;,\s\"'<>\[\]{{}}]+)*;base64,([A-Za-z0-9+/]+={{0,2}})"
    r"|@@@langfuseMedia:type=([^|@]+)\|id=([^|@]+)\|source=[^|@]+@@@"
)
_REFERENCE: Final = "@@@langfuseMedia:"
_SIGNS: Final = (names.MEDIA_MARK, _REFERENCE)
_ESCAPE: Final = r"""\\(?:x[0-9a-fA-F]{2}|["'\\nrt])"""
# no part is tried twice: these texts are large
_BYTES_LITERAL: Final = re.compile(rf"""b(?:'(?:[ -&(-\[\]-~]++|{_ESCAPE})++'|"(?:[ !#-\[\]-~]++|{_ESCAPE})++")""")
"""Bytes as Python shows them, which is how the JSON of some agents has them."""
_HASH_CHARACTERS: Final = 22
_EXACT_IN_JAVASCRIPT: Final = 2**53

_SHAPES: Final = (
    ("base64", "media_type", "data"),  # Anthropic
    ("media", "mime_type", "data"),  # Vertex
    ("blob", "mime_type", "content"),
    ("file", "mediaType", "data"),
    ("file", "mediaType", "image"),
)
"""Objects that hold base64 without a data URI: their `type`, and the keys of the media type and of the content."""
_NESTED_SHAPES: Final = ("inline_data", "inlineData")  # Gemini
_NESTED_TYPES: Final = ("mime_type", "mimeType")


def by_reference(span: Span) -> Span:
    """`span` with a reference for each piece of media, and numbers as JavaScript has them where it had to be parsed."""
    parsed = any(_has_object_with_media(getattr(span, name)) for name in _PARSED if hasattr(span, name)) or any(
        _has_object_with_media(fields)
        for edge in (span.opened, span.closed)
        if edge
        for fields in (edge.fields, edge.extra)
    )
    return _in_record(span, parsed)


def shows_reference(span: Span) -> bool:
    """Whether a span that was read back holds a reference in the place of a piece of media."""
    return _REFERENCE.encode() in msgspec.json.encode(span)


_PARSED: Final = ("metadata", "input", "output", "tool_definitions", "tool_calls", "thinking", "fields", "extra")
"""Fields of a span and of its edges in which the server may write JSON anew."""

T = TypeVar("T", bound=msgspec.Struct)


def _in_record(record: T, parsed: bool) -> T:
    changed = {name: _in_field(name, getattr(record, name), parsed) for name in record.__struct_fields__}
    return msgspec.structs.replace(record, **changed)


def _in_field(name: str, value: Any, parsed: bool) -> Any:
    match value:
        case str() | list() | dict():
            return _changed(value, parsed and name in _PARSED)
        case tuple():
            return tuple(_in_field(name, item, parsed) for item in value)
        case msgspec.Struct():
            return _in_record(value, parsed)
        case _:
            return _changed(value, parsed) if name in _PARSED else value


def reference(content_type: str, content: bytes) -> str:
    """The text that the server puts in the place of media."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode()
    return _reference(content_type, digest[:_HASH_CHARACTERS])


def _reference(content_type: str, media_id: str) -> str:
    # the server also says what it was made from, which makes no difference here
    return f"@@@langfuseMedia:type={content_type}|id={media_id}|source=base64_data_uri@@@"


def _changed(value: Json, parsed: bool) -> Json:
    match value:
        case str():
            return _changed_text(value)
        case bool() | None:
            return value
        case int() | float():
            return _javascripts(value) if parsed else value
        case list():
            return [_changed(item, parsed) for item in value]
        case _:
            entries = {_changed_text(key): _changed(item, parsed) for key, item in value.items()}
            return entries | _referenced(value)


def _referenced(value: dict[str, Json]) -> dict[str, Json]:
    """The entry of an object that holds media, with a reference in the media's place; else nothing."""
    for type_, type_key, key in _SHAPES:
        if value.get("type") == type_:
            found = _decoded_reference(value.get(type_key), value.get(key))
            if found is not None:
                return {key: found}
    for outer in _NESTED_SHAPES:
        inner = value.get(outer)
        if type(inner) is dict:
            content_type = next((inner[key] for key in _NESTED_TYPES if inner.get(key) is not None), None)
            found = _decoded_reference(content_type, inner.get("data"))
            if found is not None:
                return {outer: {**inner, "data": found}}
    return {}


def _decoded_reference(content_type: Json, content: Json) -> str | None:
    if type(content_type) is not str or type(content) is not str or not content:
        return None
    if any(sign in content for sign in _SIGNS):
        return _changed_text(content)
    decoded = ast.literal_eval(content) if _BYTES_LITERAL.fullmatch(content) else _decoded(content)
    return None if decoded is None else reference(content_type, decoded)


def _changed_text(text: str) -> str:
    if not any(sign in text for sign in _SIGNS):
        return _reparsed(text)
    return _reparsed(_MEDIA.sub(_replacement, text))


def _replacement(found: re.Match[str]) -> str:
    content_type, content, given_type, given_id = found.groups()
    if given_id is not None:
        return _reference(given_type, given_id)
    decoded = _decoded(content)
    return found[0] if decoded is None else reference(content_type, decoded)


def _reparsed(text: str) -> str:
    """A text that is JSON with media, of which some may be in objects: written anew, as the server does.

    It also does so for a data URI that an escape before or behind it hides until the text is read.
    """
    if not text.startswith(("{", "[")) or ('"data"' not in text and '"content"' not in text and '"image"' not in text):
        return text
    try:
        value = exact.decode(text)
    except ValueError:
        return text
    is_written_anew = _REFERENCE in text or _has_object_with_media(value)
    return exact.encode(_changed(value, parsed=True)) if is_written_anew else text


def _has_object_with_media(value: Json) -> bool:
    if type(value) is dict:
        return bool(_referenced(value)) or any(map(_has_object_with_media, value.values()))
    return type(value) is list and any(map(_has_object_with_media, value))


def _javascripts(number: float) -> float | None:
    try:
        double = float(number)
    except OverflowError:
        return None
    return int(double) if double.is_integer() and abs(double) < _EXACT_IN_JAVASCRIPT else double


def _decoded(text: str) -> bytes | None:
    """The content of base64, padded or not; None if it is none, or empty."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True) or None
    except (binascii.Error, ValueError):
        return None
