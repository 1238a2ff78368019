"""What a real Phoenix makes of spans that are sent with `semconv: openinference`."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from tests.otel.test_law import deliver
from tests.otel.test_openinference import LLM
from tests.servers.phoenix import running_phoenix
from tests.waiting import until
from tracebridge.span import Span
from tracebridge_otel.configuration import OtelSettings

# a Phoenix makes its database first, which takes it most of a minute
pytestmark = [pytest.mark.real_server, pytest.mark.slow, pytest.mark.timeout(240)]

PROJECT = "orders"
SESSION = "order-1"


def test_phoenix_shows_kinds_tree_content_counts_and_session(tmp_path: Path) -> None:
    trace_id = uuid.uuid4().hex
    session_id, turn_id, llm_id, tool_id = (uuid.uuid4().hex[:16] for _ in range(4))
    now_ns = time.time_ns()
    common: dict[str, Any] = {
        "trace_id": trace_id,
        "session_id": SESSION,
        "start_ns": now_ns - 1_000_000_000,
        "end_ns": now_ns,
    }
    batch = [
        Span(kind="session", name="session", span_id=session_id, **common),
        Span(
            kind="turn",
            name="turn",
            agent_name="support",
            user_id="ada",
            input="Where is it?",
            output="It was shipped.",
            span_id=turn_id,
            parent_id=session_id,
            **common,
        ),
        msgspec.structs.replace(LLM, span_id=llm_id, parent_id=turn_id, **common),
        Span(
            kind="tool",
            name="find_order",
            tool_call_id="call_1",
            input={"id": 1},
            output="shipped",
            span_id=tool_id,
            parent_id=turn_id,
            **common,
        ),
    ]
    with running_phoenix(tmp_path / "phoenix") as url:
        resource = {"openinference.project.name": PROJECT}
        deliver(OtelSettings(endpoint=url, semconv="openinference", resource=resource), batch)
        until(lambda: len(shown_spans(url)) == len(batch), "phoenix shows all spans", 30.0)
        spans = {span["context"]["span_id"]: span for span in shown_spans(url)}
        sessions = httpx.get(f"{url}/v1/projects/{PROJECT}/sessions").json()["data"]

    assert {span_id: (span["span_kind"], span["parent_id"]) for span_id, span in spans.items()} == {
        session_id: ("CHAIN", None),
        turn_id: ("AGENT", session_id),
        llm_id: ("LLM", turn_id),
        tool_id: ("TOOL", turn_id),
    }
    turn, llm, tool = (spans[span_id]["attributes"] for span_id in (turn_id, llm_id, tool_id))
    assert (turn["input.value"], turn["output.value"]) == ("Where is it?", "It was shipped.")
    assert turn["user.id"] == "ada"
    assert (tool["input.value"], tool["output.value"]) == ('{"id":1}', "shipped")
    assert llm["llm.model_name"] == "gpt-4o-2024-08-06"
    assert llm["llm.output_messages.0.message.content"] == "It was shipped."
    counts = {name.removeprefix("llm.token_count."): llm[name] for name in llm if name.startswith("llm.token_count.")}
    assert counts == {
        "prompt": 12,
        "completion": 7,
        "total": 19,
        "prompt_details.cache_read": 5,
        "completion_details.reasoning": 2,
    }
    assert [session["session_id"] for session in sessions] == [SESSION]
    assert [trace["trace_id"] for trace in sessions[0]["traces"]] == [trace_id]


def shown_spans(url: str) -> list[dict[str, Any]]:
    answer = httpx.get(f"{url}/v1/projects/{PROJECT}/spans")
    # the project is there with its first span
    return answer.json()["data"] if answer.is_success else []
