"""Old traces arrive whole in both backends, once, and stay as they were."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.workplace import (
    EVERYTHING,
    Workplace,
    answer_of,
    event_counts,
    journal_events,
    restored,
    sent_requests,
    tree_digest,
    verdicts_of,
)
from tracebridge.devserver import DevServer

HAND_WRITTEN = Path(__file__).resolve().parent.parent / "data" / "legacy"
TEN = 10

Run = Callable[..., subprocess.CompletedProcess[str]]


def backfill_and_check(
    old: Path, workplace: Workplace, server: DevServer, sessions: int, spans: Mapping[str, int], run: Run
) -> None:
    before, events = tree_digest(old), journal_events(old)
    total = sum(spans.values())

    told = answer_of(run("backfill", old, "--json"))
    assert told["sessions"] == sessions
    assert {sink["sink"]: (sink["spans"], sink["left"], sink["dead"]) for sink in told["sinks"]} == {
        "langfuse": (total, 0, 0),
        "otel": (total, 0, 0),
    }

    for verdict in verdicts_of(run("validate", "--json")).values():
        assert verdict["exit_code"] == 0
        assert verdict["sessions"] == sessions
        assert verdict["spans"] == spans
        assert (verdict["expected"], verdict["observed"], verdict["equal"]) == (total, total, total)
        assert (verdict["findings"], verdict["uncompared"]) == ([], [])
    for sink in ("langfuse", "otel"):
        assert restored(workplace.observed(sink, EVERYTHING)) == events

    sent = sent_requests(server)
    assert min(sent.values()) > 0
    again = answer_of(run("backfill", old, "--json"))
    assert [sink["spans"] for sink in again["sinks"]] == [0, 0]
    assert sent_requests(server) == sent
    assert tree_digest(old) == before


def test_hand_written_old_traces_arrive_whole_and_a_second_backfill_sends_nothing(
    tmp_path: Path, workplace: Workplace, devserver: DevServer
) -> None:
    old = shutil.copytree(HAND_WRITTEN, tmp_path / "old")
    spans = {"session": 4, "turn": 5, "llm": 6, "tool": 8, "thinking": 2, "event": 1}
    backfill_and_check(old, workplace, devserver, 3, spans, workplace.run)


def test_ten_real_sessions_arrive_whole_and_a_second_backfill_sends_nothing(
    legacy_traces: Path, tmp_path: Path, workplace: Workplace, devserver: DevServer
) -> None:
    old = tmp_path / "old"
    for folder in sorted(legacy_traces.iterdir())[:TEN]:
        shutil.copytree(folder, old / folder.name)
    counts = event_counts(old)
    spans = {
        "session": counts["session.start"],
        "turn": counts["turn.start"],
        "llm": counts["llm.request"],
        "tool": counts["tool.call"],
    }
    backfill_and_check(old, workplace, devserver, TEN, spans, workplace.call)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_all_real_sessions_arrive_whole_and_a_second_backfill_sends_nothing(
    legacy_traces: Path, tmp_path: Path, workplace: Workplace, devserver: DevServer
) -> None:
    old = shutil.copytree(legacy_traces, tmp_path / "old")
    spans = {"session": 100, "turn": 757, "llm": 1229, "tool": 572}
    backfill_and_check(old, workplace, devserver, 100, spans, workplace.run)
