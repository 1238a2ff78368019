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

MAPPING_VERSION: Final = 4
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
_NUMBERS: Final = (int, float)
_WHOLE_VALUES: Final = (*CONTENT, "cost", "time_to_first_token_ms")
_MERGED_VALUES: Final = ("model_parameters", "metadata")


def to_wire(span: Span) -> WireSpan:
    """Map a span to OTLP."""
    shared = _shared_attributes(
        span.kind, span.session_id, span.user_id, span.agent_name, span.environment, span.release, span.fingerprint
    )
    writing = Writing(shared.copy())
    _write_texts(span, writing.attributes)
    write_content(span, writing)
    write_request(span, writing)
    write_response(span, writing)
    if span.metadata:
        _write_metadata(span.metadata, writing)
    start_ns, end_ns = span.start_ns, span.end_ns
    # a backend cuts the duration, so the one time is not exact without the other
    exact_times = 0 <= start_ns <= end_ns <= _LATEST_NS
    if not exact_times:
        start_ns = min(max(start_ns, 0), _LATEST_NS)
        end_ns = min(max(end_ns, start_ns), _LATEST_NS)
    status_message = _write_error(span, writing)
    wire_name = _wire_name(span)
    remainder = Remainder(
        kind=None if span.kind in names.OPERATIONS else span.kind,
        name=None if span.name == _name_in(span.kind, writing.attributes, wire_name) else span.name,
        run_id=span.run_id,
        turn=span.turn,
        is_root=bool(span.links) and not span.parent_id and _is_linked_to_own_trace(span),
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
        links=_wire_links(span.links) if span.links else (),
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
    match span.kind:
        case "llm":
            subject = span.model
        case "tool":
            subject = span.name
        case _:
            subject = span.agent_name
    return f"{operation} {subject}" if subject else operation


def _name_in(kind: SpanKind, attributes: Attributes, wire_name: str) -> str:
    if kind == "tool":
        return text_in(attributes, names.TOOL_NAME)
    return kind if kind in names.OPERATIONS else wire_name


@lru_cache(maxsize=256)
def _shared_attributes(
    kind: SpanKind,
    session_id: str,
    user_id: str,
    agent_name: str,
    environment: str,
    release: str,
    fingerprint: str,
) -> Attributes:
    """The attributes that all spans of a kind have in common in a run; they MUST NOT be changed."""
    texts = {
        names.SESSION_ID: session_id,
        names.USER_ID: user_id,
        names.AGENT_NAME: agent_name,
        names.ENVIRONMENT: environment,
        names.RELEASE: release,
        names.FINGERPRINT: fingerprint,
    }
    if kind in names.OPERATIONS:
        texts[names.OPERATION] = names.OPERATIONS[kind]
        if not _GENERATED_SESSION_ID.fullmatch(session_id):
            # the conventions want it of conversations only that the agent itself tells apart, and no id made up in its
            # place; it is `session.id`, which every span has, that is read back
            texts[names.CONVERSATION_ID] = session_id
    return {attribute: text for attribute, text in texts.items() if text}


def _write_texts(span: Span, attributes: Attributes) -> None:
    if span.kind == "tool" and span.name:
        attributes[names.TOOL_NAME] = span.name
    if span.model:
        attributes[names.MODEL] = span.model
    if span.response_model:
        attributes[names.RESPONSE_MODEL] = span.response_model
    if span.provider:
        attributes[names.PROVIDER] = span.provider
    if span.response_id:
        attributes[names.RESPONSE_ID] = span.response_id
    if span.tool_call_id:
        attributes[names.TOOL_CALL_ID] = span.tool_call_id
    if span.tags:
        attributes[names.TAGS] = list(span.tags)


def _is_linked_to_own_trace(span: Span) -> bool:
    return any(link.trace_id == span.trace_id for link in span.links)


def _wire_links(links: tuple[Link, ...]) -> tuple[WireLink, ...]:
    return tuple(WireLink(trace_id=link.trace_id, span_id=link.span_id) for link in links)


def _write_metadata(metadata: dict[str, Json], writing: Writing) -> None:
    others: dict[str, Json] = {}
    for key, value in metadata.items():
        attribute = names.METADATA_PREFIX + key
        if key and value and type(value) is str:
            writing.attributes[attribute] = value
        elif not key or value is None or value == "" or (type(value) in _NUMBERS and not is_kept_number(value)):
            others[key] = value
        elif type(value) in (dict, list):
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
