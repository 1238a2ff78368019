"""The recipes of the original guide, run as users run them: by jq, find and grep on the files of the writer."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.recording.rig import Recording

pytestmark = pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose `traces` hold two sessions, written by the tracer."""
    recording = Recording(tmp_path)
    for session_id, waits in (("user-123", (100, 300)), ("user-456", (200, 50))):
        with recording.session(session_id) as session, recording.turn(session, "Hello!"):
            for number, milliseconds in enumerate(waits):
                model = f"gpt-{number}"
                session.log_llm_request(model, [{"role": "user", "content": "Hello!"}])
                session.log_llm_response(
                    model, "Hi!", {"prompt": 100, "completion": 20 + number}, duration_ms=milliseconds
                )
            with session.llm_call("gpt-0", []) as call:
                call.finish("no usage", duration_ms=1)
            session.log_tool_call("search", {})
            session.log_tool_result("search", success=session_id == "user-123")
            session.log_tool_call("search", {})
            session.log_tool_result("search")
    return tmp_path


def shell(command: str, folder: Path) -> str:
    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


def answer(command: str, folder: Path) -> Any:
    return json.loads(shell(command, folder))


ALL_EVENTS = 'find traces -name "events.jsonl" -exec cat {} \\; | '


def test_all_events_of_a_session(folder: Path) -> None:
    shown = shell("cat traces/session-user-123/events.jsonl | jq -c .event_type", folder).splitlines()
    assert shown[0] == '"session.start"'
    assert len(shown) == 14


def test_the_slowest_llm_calls(folder: Path) -> None:
    slowest = answer(
        ALL_EVENTS
        + "jq 'select(.event_type==\"llm.response\") | {session: .session_id, ms: .duration_ms}' | "
        + "jq -s 'sort_by(.ms) | reverse | .[0:10]'",
        folder,
    )
    assert [(call["session"][-3:], call["ms"]) for call in slowest][:4] == [
        ("123", 300),
        ("456", 200),
        ("123", 100),
        ("456", 50),
    ]
    assert len(slowest) == 6


def test_the_tools_failure_rate(folder: Path) -> None:
    rate = answer(
        ALL_EVENTS
        + "jq 'select(.event_type==\"tool.result\")' | "
        + "jq -s 'group_by(.data.success) | map({success: .[0].data.success, count: length})'",
        folder,
    )
    assert rate == [{"success": False, "count": 1}, {"success": True, "count": 3}]


def test_the_token_usage_by_model(folder: Path) -> None:
    usage = answer(
        ALL_EVENTS
        + 'jq \'select(.event_type=="llm.response" and .data.tokens) | '
        + "{model: .data.model, tokens: (.data.tokens.prompt + .data.tokens.completion)}' | "
        + "jq -s 'group_by(.model) | map({model: .[0].model, total: (map(.tokens) | add)})'",
        folder,
    )
    assert usage == [{"model": "gpt-0", "total": 240}, {"model": "gpt-1", "total": 242}]


def test_the_events_of_a_run(folder: Path) -> None:
    first = (folder / "traces" / "session-user-456" / "events.jsonl").read_text(encoding="utf-8").splitlines()[0]
    run_id = json.loads(first)["run_id"]
    found = shell(f'grep "{run_id}" traces/*/events.jsonl', folder).splitlines()
    assert len(found) == 14
    assert all(line.startswith("traces/session-user-456/events.jsonl:{") for line in found)
