"""`Prior`: what a backend held already when this state began to keep account of it.

A state that is new, because it is the first or because the one before it was lost, does not know what was sent from
the journals that are older than itself. Where the backend can be read, it is asked before anything of them is sent.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from tracebridge.journal import layout
from tracebridge.journal.opened import OpenedLog
from tracebridge.journal.reader import read_journal
from tracebridge.sink import Query, Reader

SpanId = tuple[str, str]
"""Trace id and span id."""


class Prior:
    """Asks one backend what it holds of sessions. Both questions raise a BackendError if it cannot be read."""

    def __init__(self, reader: Callable[[], Reader], wall_ns: Callable[[], int] = time.time_ns) -> None:
        """`reader` gives the backend's reader."""
        self._reader = reader
        self._wall_ns = wall_ns
        self._was_empty: bool | None = None

    def held(self, session_id: str) -> frozenset[SpanId]:
        """The spans of a session that the backend held before anything was delivered to it.

        Most backends are new when they are first delivered to: one question then spares one for each session.
        """
        if self._was_empty is None:
            spans = self._reader().read(Query(start_ns=0, end_ns=self._wall_ns(), ids_only=True))
            self._was_empty = next(spans, None) is None
        return frozenset() if self._was_empty else self.shown(session_id)

    def shown(self, session_id: str) -> frozenset[SpanId]:
        """The spans of a session that the backend shows now."""
        spans = self._reader().read(Query(session_id=session_id, ids_only=True))
        return frozenset((span.trace_id, span.span_id) for span in spans)


def prior_end(path: Path, known_since_ns: int) -> int:
    """Byte offset in a journal before which its events may have been sent unknown to the state.

    That is the whole file as it is now if it was begun before `known_since_ns`, by the wall clock.
    """
    try:
        with path.open("rb") as file:
            first = next(read_journal(file, 0), None)
            began_ns = first.event.time_ns if first is not None and first.event is not None else 0
            return os.fstat(file.fileno()).st_size if began_ns < known_since_ns else 0
    except OSError:
        return 0


def all_announced(trace_dir: Path) -> bool:
    """Whether every session of a folder was begun by a writer of ours since `opened.log` was."""
    announced = set(OpenedLog(trace_dir).tail().names)
    return all(folder.name in announced for folder in layout.session_folders(trace_dir))
