"""`Backlog`: what a sink has not been sent yet, told from the state and the files, whoever is shipping."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from tracebridge.config import SinkSettings
from tracebridge.delivery.portion import Journal, Portion
from tracebridge.delivery.state import State
from tracebridge.delivery.state_file import BUSY_S
from tracebridge.journal import layout
from tracebridge.journal.reader import is_read
from tracebridge.policy import Policy

_LEAST_BUSY_S: Final = 0.05


class Unread(msgspec.Struct, frozen=True):
    """A session of which a part was not read."""

    path: Path
    """Its events.jsonl."""
    offset: int
    """Where the unread part begins."""
    size: int
    """The size of the file."""


class Left(msgspec.Struct, frozen=True):
    """How many events a backend has not taken."""

    events: int
    is_exact: bool = True
    """Whether they were counted to the end; if not, there are at least so many."""

    def __str__(self) -> str:
        return f"{self.events:,}" if self.is_exact else f"at least {self.events:,}"


class Backlog:
    """What one target still has to get. Looks through every folder at each question, so it is not asked often."""

    def __init__(self, state: State, target: int, policy: Policy) -> None:
        self._state = state
        self._target = target
        self._policy = policy

    def unread(self) -> Iterator[Unread]:
        """The sessions of which a part was not read, in no order."""
        portion = Portion.of(self._state, self._target, self._policy)
        for number, path in self._state.folders().items():
            positions = self._state.positions(self._target, number)
            for folder in _session_folders(path):
                events = layout.events_file(folder)
                size, offset = size_of(events), positions.get(folder.name, 0)
                if size < offset:
                    offset = 0  # another file has taken the place of the one that was read
                if size > offset and portion.takes(Journal(number, folder)) and not is_read(events, offset, size):
                    yield Unread(events, offset, size)

    def left(self, deadline: float | None = None) -> Left:
        """How many events the backend has not taken, but for those that were read and whose spans are still open.

        What is unread must be read to be counted; that ends at `deadline`, a reading of the monotonic clock.
        """
        events, is_exact = self._unread_events(deadline)
        # asked afterwards, as in `is_empty`
        events += self._state.in_flight_events(self._target)
        return Left(events if is_exact else max(1, events), is_exact)

    def is_empty(self) -> bool:
        """Whether everything was read and nothing is in flight."""
        # in this order: what is read meanwhile is in flight then, and must not be missed by both questions
        return next(self.unread(), None) is None and self._state.in_flight_events(self._target) == 0

    def _unread_events(self, deadline: float | None) -> tuple[int, bool]:
        events = 0
        for session in self.unread():
            for lines in _count_lines(session.path, session.offset):
                events += lines
                if deadline is not None and time.monotonic() > deadline:
                    return events, False
        return events, True


@contextmanager
def backlog_of(sink: SinkSettings, trace_dir: Path, busy_s: float = BUSY_S) -> Iterator[Backlog]:
    """Open the state to ask for one sink's backlog.

    Raises:
        StateError: the state cannot be used.
        ForkedError: this process cannot use it.
        sqlite3.Error: it is locked for longer than `busy_s`, or cannot be read.
    """
    assert sink.sink_type is not None, "only complete sinks are enabled"
    assert sink.settings is not None, "only complete sinks are enabled"
    state = State(layout.state_file(trace_dir), busy_s)
    try:
        state.folder(trace_dir)
        target = state.target(sink.name, sink.sink_type.endpoint(sink.settings))
        yield Backlog(state, target, sink.policy)
    finally:
        state.close()


def left_of(sink: SinkSettings, trace_dir: Path, deadline: float | None) -> Left:
    """How many events a sink has not taken, as far as they can be counted until a reading of the monotonic clock.

    Raises nothing: if the state cannot be used, it is at least one.
    """
    if not trace_dir.exists():
        # asking the state would make it
        return Left(0)
    try:
        busy_s = BUSY_S if deadline is None else max(_LEAST_BUSY_S, deadline - time.monotonic())
        with backlog_of(sink, trace_dir, busy_s) as backlog:
            return Left(0) if backlog.is_empty() else backlog.left(deadline)
    except Exception:
        # whoever ships tells what is wrong with the state, or with the sink's plug-in
        return Left(1, is_exact=False)


def size_of(path: Path) -> int:
    """The size of a file in bytes; 0 if there is none, or if that cannot be told."""
    try:
        return path.stat().st_size
    except OSError:
        return 0  # it is gone; or it cannot be reached, which whoever ships or compares it tells


def _session_folders(trace_dir: Path) -> Iterator[Path]:
    # unsorted and unseen, unlike `layout.session_folders`: counting may have to stop in the middle of very many
    try:
        with os.scandir(trace_dir) as entries:
            for entry in entries:
                if layout.is_session_folder_name(entry.name):
                    yield trace_dir / entry.name
    except FileNotFoundError:
        return


def lines_of(path: Path, offset: int = 0) -> int:
    """How many lines a file holds from `offset` on; 0 if there is none, or if it cannot be read."""
    return sum(_count_lines(path, offset))


def _count_lines(path: Path, offset: int) -> Iterator[int]:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            while chunk := file.read(1 << 20):
                yield chunk.count(b"\n")
    except OSError:
        return  # it is gone; or it cannot be read, which whoever ships or compares it tells
