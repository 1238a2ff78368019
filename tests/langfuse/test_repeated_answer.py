"""An answer that the agent's code logs twice costs once in LangFuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tracebridge.devserver import DevServer
from tracebridge.recording.tracer import Tracer

ANSWER: dict[str, Any] = {"content": "42", "tokens": {"prompt": 100, "completion": 20}, "cost": 0.5}


@pytest.mark.parametrize("times", [1, 2, 3])
def test_what_an_answer_took_is_counted_once_however_often_it_was_logged(
    tmp_path: Path, devserver: DevServer, times: int
) -> None:
    keys = {"public_key": devserver.public_key, "secret_key": devserver.secret_key}
    tracer = Tracer(
        {
            "agent_trace": {
                "trace_dir": str(tmp_path),
                "sinks": {"langfuse": {"type": "langfuse", "enabled": True, "host": devserver.url, **keys}},
            }
        }
    )
    with tracer.trace_session("s") as session, tracer.trace_turn(session, user_input="?"):
        session.log_llm_request(model="gpt-4o", messages=[])
        for _ in range(times):
            session.log_llm_response(model="gpt-4o", **ANSWER)
    assert tracer.flush(20) == 0
    tracer.shutdown()
    asked = {"sessionId": "s", "fields": "core,basic,usage"}
    url = f"{devserver.url}/api/public/v2/observations"
    rows = httpx.get(url, params=asked, auth=(devserver.public_key, devserver.secret_key)).json()["data"]
    assert len(rows) == 2 + times
    assert sum(row["totalUsage"] for row in rows) == 120
    assert sum(row["totalCost"] for row in rows) == 0.5
