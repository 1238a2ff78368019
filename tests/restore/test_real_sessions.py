"""Real sessions go to a backend and come back as they were."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.workplace import Workplace, both, journal_events, sent_requests
from tracebridge.devserver import DevServer
from tracebridge.journal import layout

HAND_WRITTEN = Path(__file__).resolve().parent.parent / "data" / "legacy"


@pytest.fixture(scope="module")
def server() -> Iterator[DevServer]:
    with DevServer() as server:
        yield server


def metadata_below(folder: Path) -> dict[str, Any]:
    return {path.parent.name: json.loads(path.read_text("utf-8")) for path in folder.glob("*/metadata.json")}


def restore_and_check(old: Path, folder: Path, server: DevServer) -> None:
    server.clear()
    workplace = Workplace(folder / "here", both(server), max_content_length=None)
    workplace.backfill(old)
    sent = sent_requests(server)
    for sink in ("langfuse", "otel"):
        out = folder / sink
        ran = workplace.call("restore", "--from", sink, "--out", out)
        assert (ran.returncode, ran.stderr) == (0, "")
        assert journal_events(out) == journal_events(old)
        assert metadata_below(out) == metadata_below(old)
        # the same ids, so that nothing is sent again and nothing is there twice
        workplace.backfill(out)
        assert sent_requests(server) == sent
    assert workplace.call("validate").returncode == 0
    # and what is restored is as good a source for a backend that has nothing yet
    server.clear()
    fresh = Workplace(folder / "fresh", both(server), max_content_length=None)
    fresh.backfill(folder / "otel")
    assert fresh.call("validate").returncode == 0


def test_ten_real_sessions_are_restored_as_they_were(legacy_traces: Path, tmp_path: Path, server: DevServer) -> None:
    old = tmp_path / "old"
    for path in sorted(legacy_traces.iterdir())[::10]:
        shutil.copytree(path, old / path.name)
    restore_and_check(old, tmp_path, server)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_all_real_sessions_are_restored_as_they_were(legacy_traces: Path, tmp_path: Path, server: DevServer) -> None:
    assert len(journal_events(legacy_traces)) == 100
    restore_and_check(legacy_traces, tmp_path, server)


def test_hand_written_sessions_are_restored_as_they_were(tmp_path: Path, server: DevServer) -> None:
    restore_and_check(HAND_WRITTEN, tmp_path, server)


def test_what_the_tracer_recorded_is_restored_with_its_metadata(tmp_path: Path, server: DevServer) -> None:
    server.clear()
    workplace = Workplace(tmp_path / "here", both(server), delivery="external")
    tracer = workplace.tracer()
    for number in range(2):
        with tracer.trace_session(
            "s/1", user_id="ada", tags=["a", "b"], agent_name="helper", environment="prod", metadata={"n": number}
        ) as session:
            with tracer.trace_turn(session, user_input="hello") as turn:
                with session.llm_call("gpt-4", [{"role": "user", "content": "hello"}]) as call:
                    call.finish("hi", tokens={"prompt": 1, "completion": 2}, thinking="hm")
                session.log_thinking("well", stage="plan")
                turn.output = "hi"
            session.metadata["late"] = True
            session.outcome = "solved"
    tracer.shutdown()
    assert workplace.call("ship").returncode == 0
    for sink in ("langfuse", "otel"):
        out = tmp_path / sink
        ran = workplace.call("restore", "--from", sink, "--out", out)
        assert (ran.returncode, ran.stderr) == (0, "")
        assert journal_events(out) == journal_events(workplace.trace_dir)
        assert metadata_below(out) == metadata_below(workplace.trace_dir)


@pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq")
def test_the_recipes_give_the_same_on_the_restored_files(tmp_path: Path, server: DevServer) -> None:
    server.clear()
    # of the hand-written sessions, those without a broken line
    old = tmp_path / "old"
    for name in ("session-gardener-1", "session-gardener@3"):
        shutil.copytree(HAND_WRITTEN / name, old / name)
    workplace = Workplace(tmp_path / "here", both(server))
    workplace.backfill(old)
    assert workplace.call("restore", "--from", "langfuse", "--out", tmp_path / "traces").returncode == 0
    recipes = (
        "jq -c 'select(.event_type==\"llm.response\") | {session: .session_id, ms: .duration_ms}' | sort",
        "jq -c 'select(.event_type==\"tool.result\")' | jq -sc 'group_by(.data.success) | map(length)'",
        "grep -c '\"run_id\"'",
    )
    for recipe in recipes:
        answers = []
        for folder in (old, tmp_path / "traces"):
            command = f"cat {folder}/session-*/{layout.EVENTS} | {recipe}"
            ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
            answers.append(ran.stdout)
        assert answers[0] == answers[1]
        assert answers[0].strip() not in ("", "[]", "0")
