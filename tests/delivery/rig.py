"""Sessions written as an agent would, and shippers that bring them to a `FileBackend`."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.delivery.file_backend import FileBackend, settings_for, stored
from tracebridge.delivery.backoff import Backoff
from tracebridge.delivery.pace import FullSpeed
from tracebridge.delivery.records import Account, DeadLetter
from tracebridge.delivery.shipper import Shipper
from tracebridge.delivery.state import State
from tracebridge.journal import layout
from tracebridge.policy import Policy

LONG_AGO = "2026-02-06T22:10:00.123Z"


def write_session(
    trace_dir: Path,
    name: str,
    turns: int = 3,
    tool: str = "search",
    end: bool = True,
    at: str = "",
    run_id: str = "run-1",
) -> Path:
    folder = layout.session_folder(trace_dir, name)
    folder.mkdir(parents=True, exist_ok=True)
    path = layout.events_file(folder)
    with path.open("a", encoding="utf-8") as file:
        for text in session_lines(name, turns, tool, end, at or now()):
            file.write(text.replace("run-1", run_id) + "\n")
    return path


TAILS = {"half a line": b'{"timestamp":"2026-', "a blank line": b"\n", "a page of zeros": bytes(4096)}
"""What may stand at the end of a journal and is no event, nor the beginning of one to come once its writer is dead."""


def end_with(events: Path, tail: bytes) -> Path:
    """Have a journal end so, without anybody having written to it lately."""
    status = events.stat()
    with events.open("ab") as file:
        file.write(tail)
    os.utime(events, ns=(status.st_atime_ns, status.st_mtime_ns))
    return events


def now() -> str:
    return datetime.now(UTC).isoformat()


def session_lines(name: str, turns: int, tool: str, end: bool, at: str) -> list[str]:
    def line(event_type: str, turn: int, **data: Any) -> str:
        event = {"timestamp": at, "event_type": event_type, "session_id": name}
        return json.dumps(event | {"run_id": "run-1", "turn": turn, "duration_ms": None, "data": data})

    lines = [line("session.start", 0, metadata={"plan": "pro"})]
    for turn in range(1, turns + 1):
        lines.append(line("turn.start", turn, user_input=f"question {turn}"))
        lines.append(line("tool.call", turn, tool_name=tool, args={"q": turn}))
        lines.append(line("tool.result", turn, tool_name=tool, success=True, result="found"))
        lines.append(line("turn.end", turn, output="answer"))
    return [*lines, line("session.end", turns, outcome="solved")] if end else lines


class Rig:
    """A trace folder, a backend, and shippers that come and go."""

    def __init__(self, folder: Path, backend: FileBackend, policy: Policy | None = None) -> None:
        self.trace_dir = folder / "traces"
        self.file = folder / "backend.jsonl"
        self.backend = backend
        self.settings = settings_for(self.trace_dir, backend, self.file, policy)

    def shipper(self, backoff: Backoff | None = None) -> Shipper:
        return Shipper(self.settings.sinks[0], self.trace_dir, FullSpeed(), backoff=backoff)

    def ship(self, seconds: float = 50.0, backoff: Backoff | None = None) -> None:
        """Ship until everything is delivered."""
        shipper = self.shipper(backoff)
        deadline = time.monotonic() + seconds
        while not (round_ := shipper.round()).is_done:
            assert time.monotonic() < deadline, f"not delivered: {shipper.trouble}"
            shipper.wait(min(round_.wait_s, 0.05))
        shipper.close()

    def state(self) -> State:
        return State(layout.state_file(self.trace_dir))

    def lose_the_state(self) -> None:
        for file in layout.state_folder(self.trace_dir).glob("state.sqlite*"):
            file.unlink()

    def account(self) -> Account:
        state = self.state()
        try:
            return state.account(1)
        finally:
            state.close()

    def dead(self) -> list[DeadLetter]:
        state = self.state()
        try:
            return state.dead.of(1)
        finally:
            state.close()

    def counters(self) -> dict[str, int]:
        state = self.state()
        try:
            return state.account(1).counters
        finally:
            state.close()

    def stored_names(self) -> list[str]:
        return sorted(f"{span.session_id}/{span.kind}" for span in stored(self.file))
