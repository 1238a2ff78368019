"""What the server will answer for a span that is about to be sent, as far as it was measured.

`mapping` reads this answer before the span is sent, and puts what it does not give back exactly into the
remainder. Where the server was not measured, or not exactly, the answer here differs from what was sent, so
that the remainder has the value for certain.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from tracebridge.event import Json
from tracebridge_langfuse import exact, names
from tracebridge_langfuse.observation import MS, Observation
from tracebridge_langfuse.text import reads_as_itself
from tracebridge_otlp.wire import WireSpan

_EXACT_IN_JAVASCRIPT: Final = 2**53 - 1
_COST_DECIMALS: Final = 12
_ENVIRONMENT: Final = re.compile(r"[a-z0-9_-]+")
_LANGFUSES_OWN: Final = re.compile(r"(?:langfuse[-_]?)+")
_LARGEST_ENVIRONMENT: Final = 40
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def served(span: WireSpan) -> Observation:
    """The observation that the server will make of `span`, but for what it adds of its own."""
    sent = span.attributes
    return Observation(
        id=span.span_id,
        trace_id=span.trace_id,
        parent_id=span.parent_id,
        type=sent[names.TYPE].upper(),
        name=span.name,
        start_ms=span.start_ns // MS,
        end_ms=span.end_ns // MS,
        level=sent.get(names.LEVEL, "DEFAULT"),
        status_message=sent.get(names.STATUS_MESSAGE, ""),
        environment=served_environment(sent.get(names.ENVIRONMENT, "")),
        is_root=not span.parent_id or names.IS_APP_ROOT in sent,
        completion_start_ms=_completion_start_ms(sent.get(names.COMPLETION_START)),
        input=sent.get(names.INPUT),
        output=sent.get(names.OUTPUT),
        metadata={
            name.removeprefix(names.METADATA): served_metadata(value)
            for name, value in sent.items()
            if name.startswith(names.METADATA)
        },
        model=sent.get(names.MODEL, ""),
        model_parameters=served_parameters(exact.decode(sent.get(names.MODEL_PARAMETERS, "{}"))),
        usage_details=exact.decode(sent.get(names.USAGE_DETAILS, "{}")),
        cost_details=served_costs(exact.decode(sent.get(names.COST_DETAILS, "{}"))),
        user_id=sent.get(names.USER, ""),
        session_id=sent.get(names.SESSION, ""),
        trace_name=sent.get(names.TRACE_NAME, ""),
        release=sent.get(names.RELEASE, ""),
        # not measured: empty ones, repeats and another order than the alphabet's
        tags=tuple(sorted(set(filter(None, sent.get(names.TAGS, ()))))),
    )


def served_environment(text: str) -> str:
    """Lower case, without LangFuse's own prefix, at most 40 characters; anything else is the default one."""
    lower = text.lower()
    own = _LANGFUSES_OWN.match(lower)
    name = lower[own.end() if own else 0 :][:_LARGEST_ENVIRONMENT]
    return name if _ENVIRONMENT.fullmatch(name) else names.DEFAULT_ENVIRONMENT


def served_metadata(text: str) -> Json:
    """A metadata value: read as JSON where it is JSON."""
    return text if reads_as_itself(text) else served_json(exact.decode(text))


def served_json(value: Json) -> Json:
    """What JavaScript makes of a value: it has one kind of number, and whole ones over 2**53 become text."""
    match value:
        case bool() | str() | None:
            return value
        case int():
            return value if abs(value) <= _EXACT_IN_JAVASCRIPT else str(value)
        case float():
            return served_json(int(value)) if value.is_integer() else value
        case list():
            return [served_json(item) for item in value]
        case _:
            return {key: served_json(item) for key, item in value.items() if not key.startswith(names.MISREAD_INSIDE)}


def comes_back(value: Json) -> bool:
    """Whether `value` as a metadata value is the same after `exact.sendable` and `served_json`."""
    kind = type(value)
    if kind is str:
        return not exact.has_surrogate(value)
    if kind is int:
        return bool(abs(value) <= _EXACT_IN_JAVASCRIPT)
    if kind is float:
        return math.isfinite(value) and not value.is_integer()
    if kind is list:
        return all(map(comes_back, value))
    if kind is dict:
        return all(
            not key.startswith(names.MISREAD_INSIDE) and not exact.has_surrogate(key) and comes_back(item)
            for key, item in value.items()
        )
    return value is None or kind is bool


def served_parameters(parameters: dict[str, Json]) -> dict[str, Json]:
    """Numbers and text stay, everything else becomes JSON text."""
    return {
        key: served_json(value)
        if type(value) in (str, int, float)
        else msgspec.json.encode(served_json(value)).decode()
        for key, value in parameters.items()
    }


def served_costs(costs: dict[str, float]) -> dict[str, float]:
    """Twelve decimals, one kind of zero, and no name that JavaScript takes for something else."""
    return {
        key: round(amount, _COST_DECIMALS) + 0.0
        for key, amount in costs.items()
        if not key.startswith(names.MISREAD_INSIDE)
    }


def _completion_start_ms(text: str | None) -> int | None:
    return None if text is None else (datetime.fromisoformat(text) - _EPOCH) // timedelta(milliseconds=1)
