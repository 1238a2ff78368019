"""The recorded exchanges with a real Langfuse, and requests made from what they show was sent."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec

OTLP_ROUTE = "/api/public/otel/v1/traces"


class Recording(msgspec.Struct, frozen=True):
    """One exchange: what was asked, and what the real server answered."""

    number: int
    name: str
    method: str
    path: str
    headers: dict[str, str]
    content: bytes
    status: int
    media_type: str
    body: Any

    @property
    def is_export(self) -> bool:
        """Whether spans were sent."""
        return self.method == "POST" and self.path == OTLP_ROUTE

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The observations in the answer, if it was a page of them."""
        if not self.path.startswith("/api/public/v2/observations") or self.status != httpx.codes.OK:
            return []
        return list(self.body["data"])


def load(folder: Path) -> list[Recording]:
    """All exchanges in the default write mode, in the order in which they took place."""
    exchanges = []
    for file in sorted((folder / "recorded").glob("*.json")):
        exchange = json.loads(file.read_bytes())
        if str(exchange.get("write_mode", "")).startswith("events_only"):
            exchanges.append(_recording(file.stem, exchange))
    return exchanges


def _recording(stem: str, exchange: Mapping[str, Any]) -> Recording:
    request, response = exchange["request"], exchange["response"]
    url = urlsplit(request["url"])
    return Recording(
        number=int(stem[:3]),
        name=stem,
        method=request["method"],
        path=f"{url.path}?{url.query}" if url.query else url.path,
        headers=request["headers"],
        content=_content(request["body"]),
        status=response["status"],
        media_type=response["headers"]["Content-Type"],
        body=response["body"],
    )


def _content(body: Any) -> bytes:
    if body is None:
        return b""
    if isinstance(body, dict) and body.keys() == {"base64"}:
        return base64.b64decode(body["base64"])
    return json.dumps(body).encode()


def sent_spans(content: bytes) -> list[tuple[str, str]]:
    """Trace and span ids of an export."""
    try:
        tree = json.loads(content)
        return [
            (span["traceId"], span["spanId"])
            for resource in tree["resourceSpans"]
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        ]
    except (ValueError, KeyError, TypeError):
        return []


def export_for(row: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """An export that the real server would have turned into this observation.

    Where the answer has metadata, it lists every attribute that was sent; else they follow from the fields.
    """
    metadata = dict(reversed(row.get("metadata", {}).items()))
    resource = _with_prefix(metadata, "resourceAttributes.")
    scope = {"name": metadata.get("scope.name", "importer")}
    if "scope.version" in metadata:
        scope["version"] = str(metadata["scope.version"])
    listed = "metadata" in row and not str(scope["name"]).startswith("langfuse-sdk")
    attributes = _with_prefix(metadata, "attributes.") if listed else _attributes_of_fields(row)
    if "metadata" not in row and row.get("environment", "default") != "default":
        resource["deployment.environment.name"] = row["environment"]
    for key, value in metadata.items():
        if not key.startswith(("attributes.", "resourceAttributes.", "scope.")):
            attributes[f"langfuse.observation.metadata.{key}"] = _uncut(value)
    for key in ("input", "output"):
        if row.get(key) is not None:
            attributes[f"langfuse.observation.{key}"] = row[key]
    span = {
        "traceId": row["traceId"],
        "spanId": row["id"],
        "name": row.get("name", "unnamed"),
        "startTimeUnixNano": _nanoseconds(row["startTime"]),
        "endTimeUnixNano": _nanoseconds(row["endTime"]),
        "attributes": _otlp({**attributes, **extra}),
        "status": {
            "code": 2 if row.get("level") == "ERROR" else 0,
            "message": row.get("statusMessage", ""),
        },
    }
    if row["parentObservationId"] is not None:
        span["parentSpanId"] = row["parentObservationId"]
    scope_attributes = _otlp(_with_prefix(metadata, "scope.attributes."))
    scope_spans = {"scope": scope | {"attributes": scope_attributes}, "spans": [span]}
    return {"resourceSpans": [{"resource": {"attributes": _otlp(resource)}, "scopeSpans": [scope_spans]}]}


def _with_prefix(metadata: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {key.removeprefix(prefix): value for key, value in metadata.items() if key.startswith(prefix)}


def _attributes_of_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    fields = {
        "langfuse.observation.type": row["type"].lower(),
        "user.id": row.get("userId"),
        "session.id": row.get("sessionId"),
        "langfuse.version": row.get("version"),
        "langfuse.release": row.get("release"),
        "langfuse.trace.name": row.get("traceName"),
        "langfuse.trace.tags": row.get("tags"),
        "langfuse.observation.level": row.get("level"),
        "langfuse.observation.model.name": row.get("model"),
        "langfuse.observation.model.parameters": row.get("modelParameters"),
        "langfuse.observation.usage_details": row.get("usageDetails"),
        "langfuse.observation.cost_details": row.get("costDetails"),
    }
    return {name: value for name, value in fields.items() if value}


def _uncut(value: Any) -> Any:
    """Metadata of exactly the length at which it is cut was longer when it was sent."""
    return value + "..." if isinstance(value, str) and len(value) == 200 else value


def _nanoseconds(text: str) -> str:
    moment = datetime.fromisoformat(text)
    return str((moment - datetime(1970, 1, 1, tzinfo=UTC)) // _MICROSECOND * 1000)


_MICROSECOND = datetime.resolution


def _otlp(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _otlp_value(value)} for key, value in attributes.items()]


def _otlp_value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [_otlp_value(item) for item in value]}}
    return {"stringValue": value if isinstance(value, str) else json.dumps(value)}


def richest(rows: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Of several answers about one observation, the one with the most fields."""
    return max(rows, key=len)
