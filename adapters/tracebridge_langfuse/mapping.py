"""`Span` to the OTLP span that LangFuse shows best and gives back whole. Pure.

Each value goes where a LangFuse user looks for it. What the server's answer will not tell exactly (`inexact`),
and only that, goes into the remainder; so reading back is exact by construction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from tracebridge.event import Json
from tracebridge.span import Edge, Span
from tracebridge_langfuse import exact, names
from tracebridge_langfuse.inexact import EARLIEST_NS, LATEST_NS, LONGEST_WAIT_MS, by_inverse, foreseen
from tracebridge_langfuse.metadata import Entries, entries_of
from tracebridge_langfuse.observation import MS, folded, milliseconds_text, unfolded
from tracebridge_langfuse.payload import Payload, payload_of
from tracebridge_langfuse.remainder import Remainder, to_metadata
from tracebridge_langfuse.session import SessionAttributes, session_of
from tracebridge_langfuse.text import plain
from tracebridge_langfuse.usage_details import DetailedUsage, cost_details, detailed_usage
from tracebridge_otlp.wire import Attributes, WireSpan, WireStatus

_LARGEST_VERSION: Final = 2**31 - 1


def to_wire(span: Span, *, foresee: bool = True) -> WireSpan:
    """Map a span; whatever the span holds, nothing that LangFuse is known to lose or to choke on is sent.

    Args:
        span: any span.
        foresee: whether to use `foreseen` where it knows the answer. The result is the same without it.
    """
    session = session_of(span)
    contents = _contents(span)
    entries = entries_of(span, with_opened=not contents.input_shows_opened)
    counts = _counts(span)
    draft = _draft(span, contents, entries, counts)
    attributes = _attributes(span, session, contents, counts)
    attributes.update(entries.attributes)
    wire = WireSpan(
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_id=span.parent_id,
        name=plain(span.name),
        start_ns=_time(span.start_ns),
        end_ns=_time(span.end_ns),
        attributes=attributes,
        status=WireStatus.ERROR if span.status == "error" else WireStatus.UNSET,
    )
    inexact = foreseen(span, session, counts.costs, draft) if foresee else None
    if inexact is None:
        inexact = by_inverse(span, wire, draft)
    inexact |= _inexact_contents(span, contents)
    kept = msgspec.structs.replace(draft, exact=inexact) if inexact else draft
    attributes[names.METADATA + names.REMAINDER] = to_metadata(kept)
    return wire


class _Contents(msgspec.Struct, frozen=True, kw_only=True):
    input: Payload
    output: Payload
    input_shows_opened: bool
    """Whether the opening event's fields were put into the input."""
    answer_comes_back: bool
    """Whether the output field gives back output, tool calls and thinking as they are."""

    @property
    def input_is_opened(self) -> bool:
        """Whether the opening event's fields come back from the input."""
        return self.input_shows_opened and self.input.complete


class _Counts(msgspec.Struct, frozen=True, kw_only=True):
    """What an LLM call took, in LangFuse's words."""

    usage: DetailedUsage
    costs: dict[str, float]


_NO_COUNTS: Final = _Counts(usage=DetailedUsage(), costs={})


def _contents(span: Span) -> _Contents:
    fields = _fields_as_input(span)
    source = payload_of(span.input if fields is None else fields)
    if span.kind == "llm":
        answer = folded(span.output, span.tool_calls, span.thinking)
        comes_back = type(answer) is not dict or unfolded(answer)["output"] is span.output
    else:
        answer = span.output
        comes_back = not span.tool_calls and span.thinking is None
    output = payload_of(answer)
    return _Contents(
        input=source,
        output=output,
        input_shows_opened=fields is not None,
        answer_comes_back=comes_back and output.complete,
    )


def _counts(span: Span) -> _Counts:
    if span.kind != "llm":
        return _NO_COUNTS
    return _Counts(usage=detailed_usage(span.usage), costs={} if span.cost is None else cost_details(span.cost))


def _fields_as_input(span: Span) -> dict[str, Json] | None:
    """All that an event of an unknown type says, which is what its page should show first."""
    if span.kind != "event" or span.input is not None or span.opened is None:
        return None
    return span.opened.fields or None


def _draft(span: Span, contents: _Contents, entries: Entries, counts: _Counts) -> Remainder:
    opened = None if contents.input_is_opened else entries.opened
    return Remainder(
        fingerprint=span.fingerprint,
        opened=_rest(span.opened, opened),
        closed=_rest(span.closed, entries.closed),
        opened_shown=entries.opened,
        closed_shown=entries.closed,
        input_is_opened=contents.input_is_opened,
        inverted=("input",) * contents.input.inverted + ("output",) * contents.output.inverted,
        usage=counts.usage.named,
        usage_rest=counts.usage.rest,
        cost=_cost_keys(span, counts.costs),
    )


def _rest(edge: Edge | None, shown: tuple[str, ...] | None) -> Edge | None:
    """The edge without the fields that are shown; all are when `shown` is None."""
    if edge is None or not edge.fields or shown == ():
        return edge
    fields = {} if shown is None else {key: value for key, value in edge.fields.items() if key not in shown}
    return msgspec.structs.replace(edge, fields=fields)


def _attributes(span: Span, session: SessionAttributes, contents: _Contents, counts: _Counts) -> Attributes:
    attributes = session.attributes | {names.TYPE: names.TYPES[span.kind]}
    level = _level(span)
    if level is not None:
        attributes[names.LEVEL] = level
    if span.error is not None and span.error.message:
        attributes[names.STATUS_MESSAGE] = plain(span.error.message)
    if contents.input.text is not None:
        attributes[names.INPUT] = contents.input.text
    if contents.output.text is not None:
        attributes[names.OUTPUT] = contents.output.text
    if span.remote_parent:
        attributes[names.IS_APP_ROOT] = True
    version = span.metadata.get(names.VERSION_KEY)
    if type(version) is str and version:
        attributes[names.VERSION] = plain(version)
    if span.kind == "llm":
        _add_call(attributes, span, counts)
    return attributes


def _level(span: Span) -> str | None:
    if span.status == "error":
        return "ERROR"
    return "WARNING" if span.extent == "incomplete" else None


def _add_call(attributes: Attributes, span: Span, counts: _Counts) -> None:
    model = span.model or span.response_model
    if model:
        attributes[names.MODEL] = plain(model)
    if span.model_parameters:
        attributes[names.MODEL_PARAMETERS] = exact.sendable_text(span.model_parameters)
    if counts.costs:
        attributes[names.COST_DETAILS] = exact.sendable_text(counts.costs)
    completion_start = _completion_start(span)
    if completion_start is not None:
        attributes[names.COMPLETION_START] = completion_start
    prompt = span.prompt
    if prompt is not None and prompt.name and 0 <= prompt.version <= _LARGEST_VERSION:
        attributes[names.PROMPT_NAME] = plain(prompt.name)
        attributes[names.PROMPT_VERSION] = prompt.version
    if counts.usage.details:
        attributes[names.USAGE_DETAILS] = exact.encode(counts.usage.details)


def _completion_start(span: Span) -> str | None:
    wait_ms = span.time_to_first_token_ms
    if wait_ms is None or not 0 <= wait_ms <= LONGEST_WAIT_MS:
        return None
    return milliseconds_text((_time(span.start_ns) + int(wait_ms * MS)) // MS)


def _cost_keys(span: Span, costs: Mapping[str, float]) -> tuple[str, ...] | None:
    if not costs:
        return None
    return tuple(key for key in costs if key in span.cost) if type(span.cost) is dict else ()


def _inexact_contents(span: Span, contents: _Contents) -> dict[str, Json]:
    inexact: dict[str, Json] = {}
    if not contents.input.complete:
        inexact["input"] = span.input
    if not contents.answer_comes_back:
        inexact["output"] = span.output
        if span.output != "" or span.tool_calls or span.thinking is not None:
            inexact |= {"tool_calls": span.tool_calls, "thinking": span.thinking}
    return inexact


def _time(ns: int) -> int:
    return min(max(ns, EARLIEST_NS), LATEST_NS)
