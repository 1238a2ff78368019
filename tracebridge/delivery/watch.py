"""`SessionWatch`: which sessions one sink has something to read in, found without looking through all of them."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from tracebridge.delivery.backlog import size_of
from tracebridge.delivery.pace import Pace
from tracebridge.delivery.state import State
from tracebridge.journal import layout
from tracebridge.journal.opened import LogPosition, OpenedLog
from tracebridge.policy import Policy, keeps_session
from tracebridge.session_stream import Narrowing, SessionStream

FULL_SCAN_EVERY_S: Final = 3600.0
INCOMPLETE_GRACE_NS: Final = 60 * 1_000_000_000
"""How much longer than its run allows a missing end is waited for, by the wall clock, before a span is given up."""


class SessionKey(msgspec.Struct, frozen=True):
    """Names a session's journal."""

    folder: int
    """The number of the folder it lies in."""
    name: str
    """The name of its own folder."""


class SessionWatch:
    """Holds the streams of the sessions that grow, or in which something is open.

    A session that is read to its end, in which nothing is open and which no writer holds, is let go: the writer that
    comes back to it announces it in `opened.log`.
    """

    def __init__(self, state: State, target: int, trace_dir: Path, policy: Policy, narrowing: Narrowing) -> None:
        self._state = state
        self._target = target
        self._policy = policy
        self._narrowing = narrowing
        self._log = OpenedLog(trace_dir)
        self._log_position = LogPosition()
        self._main_folder = state.folder(trace_dir)
        self._folders = state.folders()
        self._scanned: set[int] = set()
        self._scanned_at = 0.0
        self._growing: dict[SessionKey, SessionStream] = {}
        self._waiting: dict[SessionKey, SessionStream] = {}

    def refresh(self, pace: Pace) -> None:
        """Learn of sessions that were opened, of folders that were added, and of time that has passed."""
        if time.monotonic() - self._scanned_at > FULL_SCAN_EVERY_S:
            self._scanned.clear()
        self._folders = self._state.folders()
        opened = self._log.tail(self._log_position)
        self._log_position = opened.position
        if opened.is_another:
            # some names may have stood in the old one only
            self._scanned.discard(self._main_folder)
        for name in dict.fromkeys(opened.names):
            self._grows(SessionKey(self._main_folder, name))
        for number, path in self._folders.items():
            if number not in self._scanned:
                self._scan(number, path, pace)
        give_up_before = time.time_ns() - INCOMPLETE_GRACE_NS
        for key in [key for key, stream in self._waiting.items() if stream.deadline_ns < give_up_before]:
            self._growing[key] = self._waiting.pop(key)

    def unread(self) -> Iterator[tuple[SessionKey, SessionStream]]:
        """The streams in which there may be something to read, or to give up, now."""
        give_up_before = time.time_ns() - INCOMPLETE_GRACE_NS
        for key, stream in list(self._growing.items()):
            if stream.deadline_ns < give_up_before or size_of(stream.path) > stream.offset:
                yield key, stream

    def let_go(self, key: SessionKey, stream: SessionStream) -> None:
        """Stop watching a session that was read to its end, if no writer holds it."""
        if key not in self._growing or not _is_quiet(stream):
            return
        del self._growing[key]
        if not stream.is_idle:
            self._waiting[key] = stream

    def settle(self) -> None:
        """Let go of every session that is quiet."""
        for key, stream in list(self._growing.items()):
            self.let_go(key, stream)

    def pending_bytes(self) -> int:
        """How many bytes of the watched sessions were not read yet."""
        return sum(max(0, size_of(stream.path) - stream.offset) for stream in self._growing.values())

    def _scan(self, number: int, path: Path, pace: Pace) -> None:
        positions = self._state.positions(self._target, number)
        has_open = set(self._state.open_sessions(self._target, number))
        for folder in layout.session_folders(path):
            pace.tick()
            events = layout.events_file(folder)
            # the log that told of a session which a writer holds may have been replaced before that writes on
            if folder.name in has_open or size_of(events) > positions.get(folder.name, 0) or _is_held(events):
                self._grows(SessionKey(number, folder.name))
        self._scanned.add(number)
        self._scanned_at = time.monotonic()

    def _grows(self, key: SessionKey) -> None:
        if key in self._growing:
            return
        if key in self._waiting:
            self._growing[key] = self._waiting.pop(key)
            return
        folder = self._folders[key.folder] / key.name
        if keeps_session(self._policy, layout.session_id_of(folder)):
            cursor = self._state.cursor(self._target, key.folder, key.name)
            self._growing[key] = SessionStream(layout.events_file(folder), self._narrowing, cursor)


def _is_quiet(stream: SessionStream) -> bool:
    """Whether no writer holds the journal and all of it was read.

    A writer announces a session only once it holds its lock, so one that is free and fully read will be announced
    again before it grows.
    """
    try:
        with stream.path.open("rb") as file:
            return not _is_locked(file) and size_of(stream.path) <= stream.offset
    except FileNotFoundError:
        return True


def _is_held(events: Path) -> bool:
    """Whether a writer holds a journal."""
    try:
        with events.open("rb") as file:
            return _is_locked(file)
    except FileNotFoundError:
        return False


def _is_locked(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    return False
