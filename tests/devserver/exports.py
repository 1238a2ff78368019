"""OTLP exports for the tests of the development backend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SPAN_ID = "b7ad6b7169203331"
START_NS = 1_760_000_000_123_456_789
END_NS = START_NS + 2_500_000_000


def attribute(key: str, value: Any) -> dict[str, Any]:
    """One attribute in OTLP/JSON; a mapping stands for itself."""
    if isinstance(value, Mapping):
        return {"key": key, "value": value}
    if isinstance(value, bool):
        return {"key": key, "value": {"boolValue": value}}
    if isinstance(value, int):
        return {"key": key, "value": {"intValue": str(value)}}
    if isinstance(value, float):
        return {"key": key, "value": {"doubleValue": value}}
    if isinstance(value, list):
        return {
            "key": key,
            "value": {"arrayValue": {"values": [attribute("", item)["value"] for item in value]}},
        }
    return {"key": key, "value": {"stringValue": value}}


def span(attributes: Mapping[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """A span in OTLP/JSON."""
    defaults = {
        "traceId": TRACE_ID,
        "spanId": SPAN_ID,
        "name": "answer",
        "kind": 1,
        "startTimeUnixNano": str(START_NS),
        "endTimeUnixNano": str(END_NS),
        "attributes": [attribute(key, value) for key, value in (attributes or {}).items()],
    }
    return defaults | fields


def export(*spans: Mapping[str, Any], scope: str = "langfuse-sdk", service: str = "agent") -> dict[str, Any]:
    """An export in OTLP/JSON of one service and one instrumentation scope."""
    resource = {"attributes": [attribute("service.name", service)]}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": scope}, "spans": [*spans]}]}]}
