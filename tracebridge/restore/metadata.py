"""The document of a session's `metadata.json`, told from its events. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tracebridge.event import SESSION_END, SESSION_START, Json

_NOT_OF_THE_SESSION: Final = frozenset({"orphan_after_s"})
"""What a session's first event says for tracebridge itself."""


def metadata_of(session_id: str, events: Sequence[dict[str, Json]]) -> dict[str, Json]:
    """What the writer of these events has left in the file, or would have: its last run's metadata."""
    document: dict[str, Json] = {"session_id": session_id, "created_at": events[0]["timestamp"] if events else None}
    written = [event for event in events if event["event_type"] in (SESSION_START, SESSION_END)]
    if not written:
        return document | {"metadata": {}}
    last = written[-1]
    started = [event for event in written if event["event_type"] == SESSION_START and _run(event) == _run(last)]
    start = started[-1] if started else last
    told = {key: value for key, value in _data(start).items() if key not in _NOT_OF_THE_SESSION}
    document["metadata"] = told.pop("metadata", {})
    if "span_id" not in start:
        # the original's file holds no more than this, and tells when the session was begun first
        return document
    document["created_at"] = start["timestamp"]
    document["run_id"] = _run(start)
    document |= told
    if last["event_type"] == SESSION_END:
        closed = _data(last)
        document |= {key: closed[key] for key in ("metadata", "outcome") if key in closed}
    return document


def _run(event: dict[str, Json]) -> Json:
    return event.get("run_id")


def _data(event: dict[str, Json]) -> dict[str, Json]:
    data = event.get("data")
    return data if isinstance(data, dict) else {}
