"""A tracer that writes into a test's folder, raises its own errors, and reads back what it wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tracebridge import Session, Tracer, Turn
from tracebridge.journal import layout


def raise_it(error: BaseException) -> None:
    """Make trouble visible: what is only counted in production fails the test."""
    raise error


class Recording:
    """One tracer and its trace folder."""

    def __init__(self, folder: Path, *, on_error: Any = raise_it, **settings: Any) -> None:
        self.trace_dir = folder / "traces"
        self.tracer = Tracer({"agent_trace": {"trace_dir": str(self.trace_dir), **settings}}, on_error=on_error)

    def session(self, session_id: Any = "s", *args: Any, **attributes: Any) -> Session:
        return self.tracer.trace_session(session_id, *args, **attributes)

    def turn(self, session: Session, user_input: Any = None, **extra: Any) -> Turn:
        return self.tracer.trace_turn(session, user_input, **extra)

    def file(self, session_id: str = "s") -> Path:
        return layout.events_file(layout.session_folder(self.trace_dir, session_id))

    def events(self, session_id: str = "s") -> list[dict[str, Any]]:
        """Every event of a session; a line that is no JSON fails the test."""
        return [json.loads(line) for line in self.file(session_id).read_bytes().splitlines()]

    def of_type(self, event_type: str, session_id: str = "s") -> list[dict[str, Any]]:
        return [event for event in self.events(session_id) if event["event_type"] == event_type]

    def only(self, event_type: str, session_id: str = "s") -> dict[str, Any]:
        [event] = self.of_type(event_type, session_id)
        return event

    def metadata(self, session_id: str = "s") -> dict[str, Any]:
        folder = layout.session_folder(self.trace_dir, session_id)
        return json.loads(layout.metadata_file(folder).read_text(encoding="utf-8"))
