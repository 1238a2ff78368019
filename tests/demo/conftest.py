"""The demo as a user starts it, and an agent's journal to look into."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tracebridge

ROOT = Path(__file__).resolve().parent.parent.parent

Event = dict[str, Any]


def run_demo(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the demo where the user's own settings, and a proxy that is not there, would lead it astray."""
    astray = {
        "HTTP_PROXY": "http://127.0.0.1:9",
        "LANGFUSE_HOST": "http://127.0.0.1:9",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "TRACEBRIDGE_CONFIG": "not-there.yaml",
    }
    return subprocess.run(
        [sys.executable, "-m", "tracebridge", "demo", *arguments],
        cwd=ROOT,
        env={**os.environ, **astray},
        capture_output=True,
        text=True,
        check=False,
    )


def journal(traces: Path) -> list[Event]:
    """Return all events of a trace folder, session by session."""
    files = sorted(traces.glob("session-*/events.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def of_type(events: list[Event], event_type: str) -> list[Event]:
    """Return the events of one type."""
    return [event for event in events if event["event_type"] == event_type]


@pytest.fixture
def traces(tmp_path: Path) -> Iterator[Path]:
    """Where what this test records through the public functions is written to; nothing is delivered."""
    folder = tmp_path / "traces"
    tracebridge.configure({"agent_trace": {"trace_dir": str(folder)}})
    yield folder
    tracebridge.configure({"agent_trace": {"enabled": False}})
