"""What a span keeps besides its attributes, and the two of them while a span is being written."""

from __future__ import annotations

import math
from typing import Final

import msgspec

from tracebridge.event import Json
from tracebridge.span import Edge, Extent, Prompt, SpanError, SpanKind
from tracebridge_otel import names
from tracebridge_otlp.wire import Attributes

INT64: Final = range(-(2**63), 2**63)
"""The integers that an attribute can hold."""

_encode = msgspec.json.Encoder().encode


class Remainder(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What a span keeps that no attribute of the conventions can hold."""

    kind: SpanKind | None = None
    """Where no operation's name tells it."""
    name: str | None = None
    """Where neither the kind nor the tool's name tells it."""
    run_id: str = ""
    turn: int = 0
    is_root: bool = False
    """Of a span without a parent that is linked to a span of its own trace: some of Jaeger's storages take the link for
    the parent."""
    remote_parent: bool = False
    extent: Extent = "whole"
    start_ns: int | None = None
    """Both times, where OTLP cannot hold them: before 1970, after 2262, or an end before the start."""
    end_ns: int | None = None
    opened: Edge | None = None
    closed: Edge | None = None
    json: list[str] = []
    """The attributes whose text is JSON; any other text is itself."""
    usage: dict[str, Json] | None = None
    """The usage object as the agent wrote it, with references in place of counts that have an attribute."""
    prompt: Prompt | None = None
    """Where its attributes cannot hold it."""
    error: SpanError | msgspec.UnsetType | None = msgspec.UNSET
    """Where status and `error.type` would read back as another one."""
    whole: Attributes = {}
    """Attributes that are too long for the backend, as they are; what stands in their place is for the eye."""
    values: dict[str, Json] = {}
    """By field of the span, what no attribute holds, or holds only nearly: the whole value, or entries of an
    object of which the other entries have attributes."""


_decode = msgspec.json.Decoder(Remainder).decode


class Writing:
    """The attributes and the remainder of one span, while they are being filled."""

    __slots__ = ("attributes", "error", "json", "prompt", "values")

    def __init__(self, attributes: Attributes) -> None:
        self.attributes = attributes
        self.json: list[str] = []
        self.prompt: Prompt | None = None
        self.error: SpanError | msgspec.UnsetType | None = msgspec.UNSET
        self.values: dict[str, Json] = {}

    def put_text_or_json(self, attribute: str, value: Json) -> None:
        """Write a text as it is, and any other value as JSON, noted as such."""
        # an empty text as an attribute does not survive every backend
        if isinstance(value, str) and value:
            self.attributes[attribute] = value
        else:
            self.put_json(attribute, value)
            self.json.append(attribute)

    def put_json(self, attribute: str, value: Json) -> None:
        """Write a value as JSON into an attribute that always holds JSON."""
        self.attributes[attribute] = _encode(value).decode()


def is_kept_number(value: Json) -> bool:
    """Whether a value is a number that every backend keeps: Jaeger loses the sign of a negative zero."""
    if type(value) is float:
        return value != 0 or math.copysign(1, value) > 0
    return isinstance(value, int) and value in INT64


def remainder_in(attributes: Attributes) -> Remainder:
    """The remainder of a span; an empty one where there is none that can be read."""
    parts = [attributes.get(names.REMAINDER, "{}")]
    while (part := attributes.get(f"{names.REMAINDER}.{len(parts) + 1}")) is not None:
        parts.append(part)
    try:
        return _decode(parts[0] if len(parts) == 1 else "".join(parts))
    except (msgspec.DecodeError, TypeError):
        # cut or changed on the way: the rest is read as it stands, and differs
        return Remainder()


def remainder_attributes(remainder: Remainder, limit: int) -> Attributes:
    """The attributes that hold a remainder, as many as it takes with at most `limit` bytes in each."""
    content = _encode(remainder)
    attributes: Attributes = {}
    begin = 0
    while begin < len(content):
        # a piece ends between two characters
        piece = content[begin : begin + limit].decode(errors="ignore")
        attributes[f"{names.REMAINDER}.{len(attributes) + 1}" if attributes else names.REMAINDER] = piece
        begin += len(piece.encode())
    return attributes


def text_in(attributes: Attributes, name: str) -> str:
    """The text of an attribute; empty where there is none."""
    value = attributes.get(name)
    return value if isinstance(value, str) else ""


def texts_in(attributes: Attributes, name: str) -> list[str]:
    """The texts of an attribute that is a list of them, which a backend may have turned into the text of a JSON array.

    Jaeger does so in every storage that keeps its own model of a span: Badger, Cassandra, Elasticsearch.
    """
    value = attributes.get(name)
    entries = json_in(value) if isinstance(value, str) else value
    return [entry for entry in entries if isinstance(entry, str)] if isinstance(entries, list) else []


def json_in(value: Json) -> Json:
    """The JSON value of an attribute; as it stands where it is none, as when a backend has cut it."""
    if not isinstance(value, str):
        return value
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError:
        return value
