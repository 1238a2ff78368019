"""Ids for events that name none: hashes of where the event stands, the same from any machine and for ever."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from tracebridge.event import Json


def trace_id(session_id: str, run_id: str, turn: int | None, ordinal: int | None) -> str:
    """The trace of a turn of a file without ids, or, without turn and ordinal, of what its run does outside turns."""
    return _digest("trace", session_id, run_id, turn, ordinal)[:32]


def span_id(session_id: str, run_id: str, turn: int, kind: str, ordinal: int) -> str:
    """The span that the event at `ordinal` of a file without ids opens, or, for a late span, closes."""
    return _digest("span", session_id, run_id, turn, kind, ordinal)[:16]


def late_span_id(trace: str, given_up: str, ordinal: int) -> str:
    """The span of a closing event that came after the span `given_up` was sent without it."""
    return _digest("late", trace, given_up, ordinal)[:16]


def answer(turn: int, data: Mapping[str, Json]) -> str:
    """A name for what an answer says."""
    return hashlib.sha256(json.dumps([turn, data], sort_keys=True).encode()).hexdigest()[:16]


def _digest(*parts: str | int | None) -> str:
    return hashlib.sha256(json.dumps(["tracebridge", *parts]).encode()).hexdigest()
