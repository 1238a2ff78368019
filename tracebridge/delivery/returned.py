"""Sessions that come back into the trace folder, and that backends may hold already."""

from __future__ import annotations

from pathlib import Path

from tracebridge.config import Settings
from tracebridge.delivery.records import Advance
from tracebridge.delivery.state import State
from tracebridge.session_stream import Cursor


def expect_held(settings: Settings, state: State, name: str, events: Path) -> None:
    """Let each backend that can be read be asked what it holds of a session before anything of it is sent.

    Call it before the session's file is in its place. What is appended to it later is not asked for.

    Args:
        settings: the configuration, which names the sinks.
        state: the state of the trace folder.
        name: the name of the session's own folder in the trace folder.
        events: its journal, wherever it still lies.
    """
    cursor = Cursor(prior_end=events.stat().st_size)
    folder = state.folder(settings.trace_dir)
    for target in state.targets():
        sink = settings.sink(target.sink)
        if sink is None or sink.sink_type is None or sink.settings is None:
            continue
        if sink.endpoint == target.endpoint and sink.capabilities.readable:
            state.write_down(target.id, [], [Advance(folder=folder, session_id=name, cursor=cursor)], [])
