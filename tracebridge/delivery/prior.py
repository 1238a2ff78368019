"""`Prior`: what a backend held already when this state began to keep account of it.

A state that is new, because it is the first or because the one before it was lost, does not know what was sent from
the journals that are older than itself. Where the backend can be read, it is asked before anything of them is sent.
Of a backfilled session that is a copy of one that is delivered from another folder nothing is sent, and nobody asked.
"""

from __future__ import annotations

import os
import time
from collections.abc import Container
from io import BytesIO
from pathlib import Path
from typing import Final

from tracebridge.assembler.deadlines import LATEST_NS
from tracebridge.delivery.choice import Choice
from tracebridge.delivery.read_back import ReadBack
from tracebridge.delivery.state import State
from tracebridge.delivery.watch import SessionKey
from tracebridge.errors import IncompleteAnswerError
from tracebridge.journal import layout
from tracebridge.journal.opened import OpenedLog
from tracebridge.journal.reader import read_journal
from tracebridge.session_stream import SessionStream
from tracebridge.sink import Capabilities, Query

_LONGEST_FIRST_LINE: Final = 1 << 20

_COMPARED_AT_ONCE: Final = 1 << 20

SpanId = tuple[str, str]
"""Trace id and span id."""


class _Everything(Container[SpanId]):
    def __contains__(self, span_id: object) -> bool:
        return True


EVERYTHING: Final = _Everything()
"""All spans there are."""


class Prior:
    """Knows what one target's backend may hold of a session without this state having sent it."""

    def __init__(
        self,
        state: State,
        target: int,
        trace_dir: Path,
        capabilities: Capabilities,
        read_back: ReadBack,
        *,
        had_shipper: bool,
    ) -> None:
        """`had_shipper` says that the sink's lock was held before, in this folder."""
        self._state = state
        self._target = target
        self._main_folder = state.folder(trace_dir)
        self._capabilities = capabilities
        self._read_back = read_back
        self._began_at = time.monotonic()
        self._was_empty: bool | None = None
        self._since_ns: dict[int, int] = {}
        self.lost_state = _lost_state(state, target, had_shipper=had_shipper)
        """What became of an earlier state that delivered to the target; empty if there is no sign of one."""
        if not had_shipper and not _has_namesake(state, target) and _all_announced(trace_dir):
            state.knows_all(target)

    @property
    def wait_s(self) -> float:
        """How long it may take until what was sent before this began shows, in seconds."""
        return max(0.0, self._began_at + self._capabilities.visibility_lag_s - time.monotonic())

    def held(self, key: SessionKey, stream: SessionStream) -> Container[SpanId] | None:
        """The spans that the backend holds of what `stream` reads next; None if that cannot be told now.

        Those that it gets from the original of a copy count as held.

        Raises:
            BackendError: the backend could not be read.
        """
        if stream.is_new:
            stream.is_new = False
            stream.prior_end = _prior_end(stream.path, self._known_since_ns(key.folder))
        if key.folder != self._main_folder and self._is_copy(key, stream.path):
            return EVERYTHING
        if not stream.may_be_held_already:
            return frozenset()
        if not self._capabilities.readable:
            stream.may_repeat = bool(self.lost_state) or stream.replaced_at is not None
            return frozenset()
        if not self._read_back.is_time or not self._shows_what_was_sent(key, stream):
            return None
        session_id = layout.session_id_of(stream.path.parent)
        if stream.is_resumed or stream.replaced_at is not None:
            # that the backend was empty once says nothing of what was sent and came back
            return self._shown(session_id, stream)
        return self._held_before(session_id, stream)

    def _held_before(self, session_id: str, stream: SessionStream) -> frozenset[SpanId]:
        if self._capabilities.hidden_from_search:
            # that a search finds nothing does not say that there is nothing
            return self._shown(session_id, stream)
        # most backends are new when they are first delivered to: one question then spares one for each session
        if self._was_empty is None:
            everything = Query(start_ns=0, end_ns=time.time_ns(), ids_only=True, enough=1, is_patient=False)
            spans = self._read_back.reader().read(everything)
            self._was_empty = next(spans, None) is None
            self._read_back.worked()
        return frozenset() if self._was_empty else self._shown(session_id, stream)

    def _shown(self, session_id: str, stream: SessionStream) -> frozenset[SpanId]:
        held = self._read(session_id, stream)
        self._read_back.worked()
        return held

    def _read(self, session_id: str, stream: SessionStream) -> frozenset[SpanId]:
        if not self._capabilities.hidden_from_search:
            return self._ids(Query(session_id=session_id, ids_only=True, is_patient=False))
        held: set[SpanId] = set()
        for trace_id in _traces_in(stream.path):
            try:
                held |= self._ids(Query(trace_ids=(trace_id,), ids_only=True, is_patient=False))
            except IncompleteAnswerError:
                # what is not shown of it cannot be told from what is not there
                stream.may_repeat = True
        return frozenset(held)

    def _ids(self, query: Query) -> frozenset[SpanId]:
        return frozenset((span.trace_id, span.span_id) for span in self._read_back.reader().read(query))

    def _is_copy(self, key: SessionKey, path: Path) -> bool:
        """Whether another folder holds the same session and all of its events, byte for byte, from the beginning on.

        What is in the trace folder is no copy, and of two others one is: else they would leave it to each other.
        """
        choice = Choice(self._state.choices())
        for number, folder in self._state.folders().items():
            events = layout.events_file(folder / key.name)
            is_first = number == self._main_folder or (number < key.folder and choice.takes(number, events))
            if number != key.folder and is_first and _begins_with(events, path):
                return True
        return False

    def _shows_what_was_sent(self, key: SessionKey, stream: SessionStream) -> bool:
        """Whether what was sent before this began, or before the file was replaced, has had the time to show."""
        if key.folder != self._main_folder and not self.lost_state:
            return True
        since = max(self._began_at, stream.replaced_at or 0.0)
        return time.monotonic() - since >= self._capabilities.visibility_lag_s

    def _known_since_ns(self, folder: int) -> int:
        if folder not in self._since_ns:
            backfilled = None if folder == self._main_folder else folder
            self._since_ns[folder] = self._state.known_since_ns(self._target, backfilled)
        return self._since_ns[folder]


def _lost_state(state: State, target: int, *, had_shipper: bool) -> str:
    if state.successor_of:
        return f"was damaged, and is kept as {state.successor_of}"
    account = state.account(target)
    others = [other for other in state.targets() if other.sink == account.sink and other.id != target]
    is_new = not (account.sessions or account.counters or others)
    return "is gone" if had_shipper and is_new else ""


def _has_namesake(state: State, target: int) -> bool:
    """Whether a sink of another name delivered to the same place: it may have been this one, before it was renamed."""
    endpoint = state.account(target).endpoint
    return any(other.endpoint == endpoint and other.id != target for other in state.targets())


def _prior_end(path: Path, known_since_ns: int) -> int:
    """Byte offset in a journal before which its events may have been sent unknown to the state.

    That is the whole file as it is now if it was begun before `known_since_ns`, by the wall clock.
    """
    try:
        with path.open("rb") as file:
            # the first line alone: there may be very many journals to look into
            first = next(read_journal(BytesIO(file.readline(_LONGEST_FIRST_LINE)), 0), None)
            began_ns = first.event.time_ns if first is not None and first.event is not None else 0
            return os.fstat(file.fileno()).st_size if began_ns < known_since_ns else 0
    except OSError:
        return 0


def _traces_in(path: Path) -> tuple[str, ...]:
    """The traces of all that a journal holds, also of what is still open."""
    stream = SessionStream(path, lambda _, data: data)
    traces = {span.trace_id: None for step in stream.steps() for span in step.spans}
    traces.update((span.trace_id, None) for span in stream.expire(LATEST_NS))
    return tuple(traces)


def _all_announced(trace_dir: Path) -> bool:
    """Whether every session of a folder was begun by a writer of ours since `opened.log` was."""
    announced = set(OpenedLog(trace_dir).tail().names)
    return all(folder.name in announced for folder in layout.session_folders(trace_dir))


def _begins_with(file: Path, beginning: Path) -> bool:
    """Whether one file begins with all that another one holds."""
    try:
        with file.open("rb") as longer, beginning.open("rb") as shorter:
            if os.fstat(longer.fileno()).st_size < os.fstat(shorter.fileno()).st_size:
                return False
            while chunk := shorter.read(_COMPARED_AT_ONCE):
                if longer.read(len(chunk)) != chunk:
                    return False
            return True
    except OSError:
        return False
