"""Whatever LangFuse filters by finds every span of a run, as v4 filters spans and not traces."""

from __future__ import annotations

import json
import secrets
from typing import Any

import httpx
import pytest

from tests.langfuse.test_mapping import LLM, span
from tracebridge.devserver import DevServer
from tracebridge.sink import Outcome
from tracebridge.span import Span
from tracebridge_langfuse.sink import LangfuseSink

SESSION: dict[str, Any] = {
    "user_id": "u-007",
    "tags": ("a,b", "vip"),
    "agent_name": "helper",
    "environment": "production",
    "release": "r-9",
    "metadata": {"plan": "gold", "version": "1.4.2"},
    "run_id": "run-1",
}
KINDS: tuple[dict[str, Any], ...] = (
    {"kind": "session", "name": "session"},
    {"kind": "turn"},
    LLM,
    {"kind": "tool", "name": "search"},
    {"kind": "thinking", "name": "thinking"},
    {"kind": "event", "name": "custom"},
)


def of_text(column: str, value: str, key: str | None = None) -> dict[str, Any]:
    kind = "string" if key is None else "stringObject"
    return {"type": kind, "column": column, "operator": "=", "value": value} | ({"key": key} if key else {})


FILTERS: dict[str, dict[str, str]] = {
    "user": {"userId": "u-007"},
    "environment": {"environment": "production"},
    "version": {"version": "1.4.2"},
    "release": {"filter": json.dumps([of_text("release", "r-9")])},
    "trace name": {"filter": json.dumps([of_text("traceName", "helper")])},
    "metadata": {"filter": json.dumps([of_text("metadata", "gold", "plan")])},
    "run": {"filter": json.dumps([of_text("metadata", "run-1", "run.id")])},
    "a tag with a comma": {
        "filter": json.dumps([{"type": "arrayOptions", "column": "tags", "operator": "any of", "value": ["a,b"]}])
    },
}


@pytest.fixture(scope="module")
def sent(sink: LangfuseSink) -> list[Span]:
    session_id, trace_id = secrets.token_hex(8), secrets.token_hex(16)
    spans = [
        span(**{**kind, **SESSION, "session_id": session_id, "trace_id": trace_id, "span_id": f"{number:016x}"})
        for number, kind in enumerate(KINDS, 1)
    ]
    assert sink.deliver(sink.join([sink.encode(each) for each in spans])).outcome is Outcome.ACCEPTED
    return spans


@pytest.mark.parametrize("parameters", FILTERS.values(), ids=FILTERS.keys())
def test_every_span_of_a_run_is_found(backend: DevServer, sent: list[Span], parameters: dict[str, str]) -> None:
    asked = {"sessionId": sent[0].session_id, "limit": "100", **parameters}
    keys = (backend.public_key, backend.secret_key)
    rows = httpx.get(f"{backend.url}/api/public/v2/observations", params=asked, auth=keys).json()["data"]
    assert sorted(row["id"] for row in rows) == [each.span_id for each in sent]
