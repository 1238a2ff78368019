"""Which values of a span LangFuse does not give back exactly, and which the remainder therefore holds.

There are two ways to the same answer. `by_inverse` reads the server's answer as the reader will, and compares
every field: it holds for any span, and takes longer than all the rest of the mapping. `foreseen` says the
same from the values themselves, for ordinary spans only.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any, Final

import msgspec

from tracebridge.event import Json
from tracebridge.span import Span
from tracebridge_langfuse import exact
from tracebridge_langfuse.metadata import is_shown
from tracebridge_langfuse.observation import MS, OVERLAID, told_fields
from tracebridge_langfuse.remainder import Remainder
from tracebridge_langfuse.served import comes_back, served, served_costs
from tracebridge_langfuse.session import SessionAttributes
from tracebridge_langfuse.text import is_plain
from tracebridge_langfuse.usage_details import cost_of
from tracebridge_otlp.wire import WireSpan

EARLIEST_NS: Final = MS  # a time of 0 counts as not given, and the server puts in its own clock
LATEST_NS: Final = 2**32 * 10**9 - 1  # the server sorts by minutes of 32 bits; later ones it does not find by time
LONGEST_WAIT_MS: Final = 10**9

_SETTLED: Final = frozenset(
    {"kind", "trace_id", "span_id", "input", "output", "tool_calls", "thinking"} | {"opened", "closed", "fingerprint"}
)
"""Fields whose way back is known without a look at the answer."""
_COMPARED: Final = tuple(name for name in Span.__struct_fields__ if name not in _SETTLED)
_texts_of: Final = attrgetter(
    *("name", "run_id", "model", "response_model", "provider", "finish_reason", "response_id", "tool_call_id")
)


def by_inverse(span: Span, wire: WireSpan, draft: Remainder) -> dict[str, Json]:
    """What the span's fields hold and the server's answer to `wire` does not tell."""
    back = told_fields(served(wire), draft)
    inexact: dict[str, Json] = {}
    for name in _COMPARED:
        value, found = getattr(span, name), back[name]
        if name in OVERLAID:
            entries = {key: entry for key, entry in value.items() if not _has(found, key, entry)}
            if entries:
                inexact[name] = entries
        elif not _comes_as(name, value, found):
            inexact[name] = msgspec.to_builtins(value)
    return inexact


def foreseen(
    span: Span, session: SessionAttributes, costs: dict[str, float], draft: Remainder
) -> dict[str, Json] | None:
    """What `by_inverse` would say, or None where only that can tell.

    Args:
        span: any span.
        session: its session.
        costs: the cost details that are sent.
        draft: the remainder without its `exact`.
    """
    if not (session.is_ordinary and _is_ordinary(span) and _has_what_its_kind_has(span)):
        return None
    inexact: dict[str, Json] = {}
    if span.metadata:
        entries = {
            key: value for key, value in span.metadata.items() if not (is_shown(key, value) and comes_back(value))
        }
        if entries:
            inexact["metadata"] = entries
    if span.model_parameters:
        entries = {key: value for key, value in span.model_parameters.items() if not _is_told_parameter(value)}
        if entries:
            inexact["model_parameters"] = entries
    if span.prompt is not None:  # never told, see `told_fields`
        inexact["prompt"] = msgspec.to_builtins(span.prompt)
    if not _waits_whole_milliseconds(span.time_to_first_token_ms):
        inexact["time_to_first_token_ms"] = span.time_to_first_token_ms
    if span.usage and not (draft.usage or draft.usage_rest):  # it has no count, so nothing is sent
        inexact["usage"] = span.usage
    if span.cost is not None:
        told = cost_of(draft.cost, served_costs(exact.sendable(costs)))
        if not exact.same(span.cost, told):
            inexact["cost"] = span.cost
    if span.links:  # never told
        inexact["links"] = msgspec.to_builtins(span.links)
    return inexact


def _is_ordinary(span: Span) -> bool:
    error = span.error
    return (
        EARLIEST_NS <= span.start_ns <= LATEST_NS
        and EARLIEST_NS <= span.end_ns <= LATEST_NS
        and (not span.remote_parent or span.parent_id != "")
        and comes_back(span.turn)
        and is_plain("".join(_texts_of(span)))
        and (error is None or (error.message != "" and is_plain(error.message + (error.type or ""))))
    )


def _has_what_its_kind_has(span: Span) -> bool:
    if span.kind == "llm":
        return (
            span.status != "ok"
            and (span.model != "" or span.response_model == "")
            and comes_back(span.tool_definitions)
            and is_plain("".join(span.model_parameters))
            # a dot would read as the path of an inner count
            and "." not in "".join(span.usage)
        )
    return (
        span.status in (("ok", "error") if span.kind == "tool" else ("unset", "error"))
        and not (span.model or span.model_parameters or span.tool_definitions or span.usage)
        and span.cost is None
        and span.time_to_first_token_ms is None
    )


def _is_told_parameter(value: Json) -> bool:
    """Whether a parameter comes back; values of other types do so as their JSON text."""
    return type(value) in (str, int, float) and comes_back(value)


def _waits_whole_milliseconds(wait_ms: float | int | None) -> bool:
    return wait_ms is None or (type(wait_ms) is int and 0 <= wait_ms <= LONGEST_WAIT_MS)


def _comes_as(name: str, value: Any, found: Any) -> bool:
    if name in ("start_ns", "end_ns"):
        return bool(value - value % MS == found)  # what is cut is the declared loss
    if type(value) is str:
        return bool(value == found)
    return exact.same(msgspec.to_builtins(value), msgspec.to_builtins(found))


def _has(found: Any, key: str, value: Json) -> bool:
    return type(found) is dict and key in found and exact.same(value, found[key])
