"""Spans as OTLP has them, free of protobuf: what the adapters' mappings make and read."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import msgspec

AttributeValue = str | bool | int | float | list[str] | list[bool] | list[int] | list[float]
"""What the adapters put into an attribute."""

Attributes = dict[str, Any]
"""Attributes by name. Those that are sent hold `AttributeValue`s; those that are read may also hold None,
bytes and nested lists and dicts, which other senders use."""


class WireKind(IntEnum):
    """OTLP's `SpanKind`."""

    UNSPECIFIED = 0
    INTERNAL = 1
    SERVER = 2
    CLIENT = 3
    PRODUCER = 4
    CONSUMER = 5


class WireStatus(IntEnum):
    """OTLP's `StatusCode`."""

    UNSET = 0
    OK = 1
    ERROR = 2


class WireLink(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A link to another span; ids in hex."""

    trace_id: str
    span_id: str
    attributes: Attributes = {}


class WireEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A span event."""

    name: str
    time_ns: int
    attributes: Attributes = {}


class WireSpan(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One OTLP span; ids in lower-case hex, `parent_id` empty for a root."""

    trace_id: str
    span_id: str
    parent_id: str = ""
    name: str
    kind: WireKind = WireKind.INTERNAL
    start_ns: int
    end_ns: int
    attributes: Attributes = {}
    status: WireStatus = WireStatus.UNSET
    status_message: str = ""
    links: tuple[WireLink, ...] = ()
    events: tuple[WireEvent, ...] = ()


class WireScope(msgspec.Struct, frozen=True, kw_only=True):
    """The instrumentation scope that spans were made by."""

    name: str = ""
    version: str = ""
    attributes: Attributes = {}


class ReceivedSpan(msgspec.Struct, frozen=True, kw_only=True):
    """A span as read from a backend, with the resource and the scope that it came under."""

    span: WireSpan
    resource: Attributes
    scope: WireScope
