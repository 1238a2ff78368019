"""`Span` to OTLP and exactly back, both pure.

Each field of a span has one home. What the conventions (or OTLP itself) have a place for lives there and only
there; the rest goes into one attribute, the `Remainder`. Where a convention's value would not read back
exactly, such as a whole number where the convention wants a double, the attribute is what people see and the
remainder what counts.

Texts are valid Unicode and floats are finite in every span, because the journal's reader lets nothing else
through.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final

import msgspec

from tracebridge.event import Json
from tracebridge.span import Link, Span, SpanError, SpanKind, Status
from tracebridge_otel import names
from tracebridge_otel.call import (
    read_request,
    read_response,
    read_usage,
    write_request,
    write_response,
    write_usage,
)
from tracebridge_otel.content import CONTENT, read_content, write_content
from tracebridge_otel.remainder import Remainder, Writing, is_kept_number, json_in, remainder_in, text_in, texts_in
from tracebridge_otlp.wire import Attributes, WireKind, WireLink, WireSpan, WireStatus

MAPPING_VERSION: Final = 3
"""Raised whenever `to_wire` changes what it makes of any span."""

_LATEST_NS: Final = 2**63 - 1
_GENERATED_SESSION_ID: Final = re.compile(r"session-[0-9a-f]{16}")
"""What recording calls a session that was given no id. The journal says it in no other way."""
_KINDS: Final[Mapping[Json, SpanKind]] = {operation: kind for kind, operation in names.OPERATIONS.items()}
_WIRE_STATUS: Final[Mapping[Status, WireStatus]] = {
    "unset": WireStatus.UNSET,
    "ok": WireStatus.OK,
    "error": WireStatus.ERROR,
}
_STATUS: Final[Mapping[WireStatus, Status]] = {wire: status for status, wire in _WIRE_STATUS.items()}
_OF_THE_SESSION: Final = ("session_id", "user_id", "agent_name", "environment", "release")
_OF_THE_SPAN: Final = tuple(attribute for field, attribute in names.TEXTS.items() if field not in _OF_THE_SESSION)
_texts_of_session: Final = attrgetter(*_OF_THE_SESSION)
_texts_of_span: Final = attrgetter(*(field for field in names.TEXTS if field not in _OF_THE_SESSION))
_WHOLE_VALUES: Final = (*CONTENT, "cost", "time_to_first_token_ms")
_MERGED_VALUES: Final = ("model_parameters", "metadata")


def to_wire(span: Span) -> WireSpan:
    """Map a span to OTLP."""
    writing = Writing()
    _write_operation(span, writing)
    _write_texts(span, writing)
    write_content(span, writing)
    write_request(span, writing)
    write_response(span, writing)
    if span.metadata:
        _write_metadata(span.metadata, writing)
    start_ns = min(max(span.start_ns, 0), _LATEST_NS)
    end_ns = min(max(span.end_ns, start_ns), _LATEST_NS)
    # a backend cuts the duration, so the one time is not exact without the other
    exact_times = (start_ns, end_ns) == (span.start_ns, span.end_ns)
    status_message = _write_error(span, writing)
    wire_name = _wire_name(span)
    remainder = Remainder(
        kind=None if span.kind in names.OPERATIONS else span.kind,
        name=None if span.name == _name_in(span.kind, writing.attributes, wire_name) else span.name,
        run_id=span.run_id,
        turn=span.turn,
        is_root=not span.parent_id and any(link.trace_id == span.trace_id for link in span.links),
        remote_parent=span.remote_parent,
        extent=span.extent,
        start_ns=None if exact_times else span.start_ns,
        end_ns=None if exact_times else span.end_ns,
        opened=span.opened,
        closed=span.closed,
        json=writing.json,
        usage=write_usage(span.usage, writing),
        prompt=writing.prompt,
        error=writing.error,
        values=writing.values,
    )
    writing.put_json(names.REMAINDER, remainder)
    return WireSpan(
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_id=span.parent_id,
        name=wire_name,
        kind=WireKind.CLIENT if span.kind == "llm" else WireKind.INTERNAL,
        start_ns=start_ns,
        end_ns=end_ns,
        attributes=writing.attributes,
        status=_WIRE_STATUS[span.status],
        status_message=status_message,
        links=tuple([WireLink(trace_id=link.trace_id, span_id=link.span_id) for link in span.links]),
    )


def from_wire(wire: WireSpan) -> Span:
    """Map an OTLP span back. One that `to_wire` did not make gives as much as its attributes tell."""
    remainder = remainder_in(wire.attributes)
    attributes = wire.attributes | remainder.whole if remainder.whole else wire.attributes
    kind = remainder.kind or _KINDS.get(text_in(attributes, names.OPERATION), "event")
    fields: dict[str, Any] = {field: text_in(attributes, attribute) for field, attribute in names.TEXTS.items()}
    fields.update(read_content(kind, attributes, remainder))
    fields.update(read_request(attributes))
    fields.update(read_response(attributes))
    fields["tags"] = tuple(texts_in(attributes, names.TAGS))
    fields["metadata"] = _read_metadata(attributes, remainder)
    fields["usage"] = read_usage(attributes, remainder)
    status = _STATUS[wire.status]
    if remainder.error is msgspec.UNSET:
        fields["error"] = _error_in(status, wire.status_message, attributes)
    else:
        fields["error"] = remainder.error
    if remainder.prompt is not None:
        fields["prompt"] = remainder.prompt
    fields.update(_read_values(remainder.values, fields))
    return Span(
        kind=kind,
        trace_id=wire.trace_id,
        span_id=wire.span_id,
        parent_id="" if remainder.is_root else wire.parent_id,
        remote_parent=remainder.remote_parent,
        name=_name_in(kind, attributes, wire.name) if remainder.name is None else remainder.name,
        start_ns=wire.start_ns if remainder.start_ns is None else remainder.start_ns,
        end_ns=wire.end_ns if remainder.end_ns is None else remainder.end_ns,
        extent=remainder.extent,
        run_id=remainder.run_id,
        turn=remainder.turn,
        status=status,
        links=tuple(Link(trace_id=link.trace_id, span_id=link.span_id) for link in wire.links),
        opened=remainder.opened,
        closed=remainder.closed,
        **fields,
    )


def _wire_name(span: Span) -> str:
    """The span's name as the conventions build it."""
    operation = names.OPERATIONS.get(span.kind)
    if operation is None:
        return span.name or span.kind
    subject = {"turn": span.agent_name, "llm": span.model, "tool": span.name}[span.kind]
    return f"{operation} {subject}" if subject else operation


def _name_in(kind: SpanKind, attributes: Attributes, wire_name: str) -> str:
    if kind == "tool":
        return text_in(attributes, names.TOOL_NAME)
    return kind if kind in names.OPERATIONS else wire_name


def _write_operation(span: Span, writing: Writing) -> None:
    operation = names.OPERATIONS.get(span.kind)
    if operation is None:
        return
    writing.attributes[names.OPERATION] = operation
    if span.session_id and not _GENERATED_SESSION_ID.fullmatch(span.session_id):
        # the conventions want it of conversations only that the agent itself tells apart, and no id made up in its
        # place; it is `session.id`, which every span has, that is read back
        writing.attributes[names.CONVERSATION_ID] = span.session_id
    if span.kind == "tool" and span.name:
        writing.attributes[names.TOOL_NAME] = span.name


def _write_texts(span: Span, writing: Writing) -> None:
    attributes = writing.attributes
    attributes.update(_session_texts(_texts_of_session(span)))
    for attribute, text in zip(_OF_THE_SPAN, _texts_of_span(span), strict=True):
        if text:
            attributes[attribute] = text
    if span.tags:
        writing.attributes[names.TAGS] = list(span.tags)


@lru_cache(maxsize=256)
def _session_texts(texts: tuple[str, ...]) -> Attributes:
    """The attributes that all spans of a run share; they MUST NOT be changed."""
    return {names.TEXTS[field]: text for field, text in zip(_OF_THE_SESSION, texts, strict=True) if text}


def _write_metadata(metadata: dict[str, Json], writing: Writing) -> None:
    others: dict[str, Json] = {}
    for key, value in metadata.items():
        attribute = names.METADATA_PREFIX + key
        if not key or value in (None, "") or (isinstance(value, int | float) and not is_kept_number(value)):
            others[key] = value
        elif isinstance(value, dict | list):
            writing.put_json(attribute, value)
            writing.json.append(attribute)
        else:
            writing.attributes[attribute] = value
    if others:
        writing.values["metadata"] = others


def _read_metadata(attributes: Attributes, remainder: Remainder) -> dict[str, Json]:
    return {
        attribute.removeprefix(names.METADATA_PREFIX): (json_in(value) if attribute in remainder.json else value)
        for attribute, value in attributes.items()
        if attribute.startswith(names.METADATA_PREFIX)
    }


def _write_error(span: Span, writing: Writing) -> str:
    """Write the error, and return the message of the span's status."""
    if span.error is None and span.status != "error":
        return ""
    message = ""
    if span.status == "error":
        writing.attributes[names.ERROR_TYPE] = (span.error and span.error.type) or names.OTHER_ERROR
        message = span.error.message if span.error else ""
    if _error_in(span.status, message, writing.attributes) != span.error:
        writing.error = span.error
    return message


def _error_in(status: Status, message: str, attributes: Attributes) -> SpanError | None:
    if status != "error":
        return None
    error_type = text_in(attributes, names.ERROR_TYPE)
    known_type = error_type if error_type != names.OTHER_ERROR else ""
    return SpanError(message=message, type=known_type or None) if message or known_type else None


def _read_values(values: dict[str, Json], fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields whose exact value is in the remainder."""
    exact = {field: value for field, value in values.items() if field in _WHOLE_VALUES}
    for field in _MERGED_VALUES:
        match values.get(field):
            case dict(entries):
                exact[field] = {**fields[field], **entries}
    return exact
