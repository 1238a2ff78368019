from __future__ import annotations

import copy
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import pytest

from tests.recording.rig import Recording


@pytest.fixture(params=["Tracer", "Session", "Turn", "LlmCall", "ToolCall"])
def handle(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    tracer = Recording(tmp_path).tracer
    session = tracer.trace_session("s")
    handles = (tracer, session, tracer.trace_turn(session), session.llm_call("m"), session.tool_call("t"))
    return next(handle for handle in handles if type(handle).__name__ == request.param)


def test_a_copy_in_the_same_process_is_the_handle_itself(handle: Any) -> None:
    assert copy.copy(handle) is handle
    assert copy.deepcopy({"state": [handle]}) == {"state": [handle]}


def test_what_is_recorded_through_a_copied_state_belongs_to_the_same_run(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    with recording.session() as session, recording.turn(session) as turn:
        state: dict[str, Any] = copy.deepcopy({"trace": session, "note": session.log_thinking})
        with state["trace"].tool_call("search"):
            state["note"]("found")
    assert [event["event_type"] for event in recording.events()] == [
        *("session.start", "turn.start", "tool.call", "thinking", "tool.result", "turn.end", "session.end"),
    ]
    assert {event["run_id"] for event in recording.events()} == {session.run_id}
    assert recording.only("tool.call")["parent_id"] == turn.span_id


def test_what_would_be_pickled_says_what_to_do_instead(handle: Any) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match=f"a {type(handle).__name__} of tracebridge stays .* `trace_session`"):
            pickle.dumps([handle], protocol)


def test_whoever_passes_a_session_to_a_spawned_process_is_told(tmp_path: Path) -> None:
    session = Recording(tmp_path).session()
    process = multiprocessing.get_context("spawn").Process(target=print, args=(session,))
    with pytest.raises(TypeError, match="pass the session's `session_id`"):
        process.start()
