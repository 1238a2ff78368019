"""`SessionWatch`: which sessions one sink has something to read in, found without looking through all of them."""

from __future__ import annotations

import os
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from tracebridge.assembler import Narrowing
from tracebridge.assembler.deadlines import Deadlines
from tracebridge.delivery.pace import Pace
from tracebridge.delivery.portion import Journal, Portion
from tracebridge.delivery.state import Mark, State
from tracebridge.journal import layout
from tracebridge.journal.locking import is_held
from tracebridge.journal.opened import LogPosition, OpenedLog
from tracebridge.line import one_line
from tracebridge.log import log
from tracebridge.policy import Policy, untouched_size
from tracebridge.session_stream import SessionStream, is_another

FULL_SCAN_EVERY_S: Final = 3600.0
INCOMPLETE_GRACE_NS: Final = 60 * 1_000_000_000
"""How much longer than its run allows a missing end is waited for, by the wall clock, before a span is given up."""
SCAN_AT_ONCE: Final = 100
"""How many sessions a scan looks at between two questions to the state."""
SETTLE_AT_ONCE: Final = 100
"""How many sessions are asked at a time whether a writer still holds them."""


class SessionKey(msgspec.Struct, frozen=True, order=True):
    """Names a session's journal."""

    folder: int
    """The number of the folder it lies in."""
    name: str
    """The name of its own folder."""


class SessionWatch:
    """Holds the streams of the sessions that grow. Of all others it knows no more than it must, mostly nothing.

    A session that is read to its end and that no writer holds is let go: the writer that comes back to it announces
    it in `opened.log`. If something is open in it, the time is kept at which that is given up. Its stream is taken up
    again from the state, so what was read of a session MUST be written down there before the next `refresh`.
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
        self._portion = Portion.of(state, target, policy)
        self._scanned: set[int] = set()
        self._known: set[int] = set()
        self._scanned_at = 0.0
        self._growing: dict[SessionKey, SessionStream] = {}
        self._waiting: Deadlines[SessionKey] = Deadlines()
        # to be looked into: what was announced or is due, and then what scans have found, in pieces of one folder each
        self._named: OrderedDict[SessionKey, None] = OrderedDict()
        self._found: deque[tuple[int, deque[str]]] = deque()
        self._found_bytes = 0
        # what was named and taken up while it may also stand among what was found
        self._taken_up: set[SessionKey] = set()
        self._to_settle: list[SessionKey] = []

    def refresh(self, pace: Pace) -> None:
        """Learn of sessions that were opened, of folders that were added, and of time that has passed."""
        if time.monotonic() - self._scanned_at > FULL_SCAN_EVERY_S and not self._found:
            self._scanned.clear()
        folders = self._state.folders()
        self._forget({number for number, path in self._folders.items() if folders.get(number) != path})
        self._folders = folders
        portion = Portion.of(self._state, self._target, self._policy)
        self._scanned.difference_update(portion.choice.changed(self._portion.choice))
        if portion.ramp != self._portion.ramp:
            self._scanned.clear()
        self._portion = portion
        opened = self._log.tail(self._log_position)
        self._log_position = opened.position
        if opened.is_another:
            # some names may have stood in the old one only, also of sessions that writers hold
            self._scanned.discard(self._main_folder)
            self._known.discard(self._main_folder)
        # the first scan asks for itself who holds what, as the log names every session since it was begun
        if self._scanned_at:
            for name in opened.names:
                self._name(SessionKey(self._main_folder, name))
        for number, path in self._folders.items():
            if number not in self._scanned:
                self._scan(number, path, pace, is_first=number not in self._known)
        for key in self._waiting.take_before(time.time_ns() - INCOMPLETE_GRACE_NS):
            self._name(key)

    def unread(self) -> Iterator[tuple[SessionKey, SessionStream]]:
        """The streams in which there may be something to read, or to give up, now."""
        for key, stream in list(self._growing.items()):
            if self._growing.get(key) is stream and _has_work(stream):
                yield key, stream
        while (following := self._next_key()) is not None:
            taken_up = self._take_up(following)
            if taken_up is None:
                continue
            if _has_work(taken_up):
                yield following, taken_up
            else:
                self.let_go(following, taken_up)

    def let_go(self, key: SessionKey, stream: SessionStream) -> None:
        """Stop watching a session that was read to its end, if no writer holds it."""
        if self._growing.get(key) is not stream or not _is_quiet(stream):
            return
        del self._growing[key]
        if not stream.is_idle:
            self._waiting.set(key, stream.deadline_ns)

    def settle(self) -> None:
        """Let go of sessions that are quiet: of all, or, if they are many, of some at each call."""
        if not self._to_settle:
            self._to_settle = list(self._growing)
        asked, self._to_settle = self._to_settle[:SETTLE_AT_ONCE], self._to_settle[SETTLE_AT_ONCE:]
        for key in asked:
            stream = self._growing.get(key)
            if stream is not None:
                self.let_go(key, stream)

    def pending_bytes(self) -> int:
        """How many bytes of the watched sessions were not read yet."""
        growing = sum(max(0, _size_of(stream.path) - stream.offset) for stream in self._growing.values())
        return self._found_bytes + growing

    def _forget(self, folders: set[int]) -> None:
        """Folders are read no more. Their numbers may be those of others now."""
        if not folders:
            return
        self._scanned -= folders
        self._known -= folders
        for key in [key for key in (*self._growing, *self._named) if key.folder in folders]:
            self._growing.pop(key, None)
            self._named.pop(key, None)
        self._found = deque((number, names) for number, names in self._found if number not in folders)

    # --- finding ----------------------------------------------------------------------------------------------------

    def _scan(self, number: int, path: Path, pace: Pace, *, is_first: bool) -> None:
        names = _session_names(path)
        while batch := sorted(islice(names, SCAN_AT_ONCE)):
            pace.tick()
            marks = self._state.marks(self._target, number, batch)
            found: deque[str] = deque()
            for name in batch:
                pace.tick()
                key = SessionKey(number, name)
                if key not in self._growing and key not in self._named:
                    self._scan_one(key, path, marks.get(name), is_first, found)
            if found:
                self._found.append((number, found))
        self._scanned.add(number)
        self._known.add(number)
        self._scanned_at = time.monotonic()

    def _scan_one(self, key: SessionKey, path: Path, mark: Mark | None, is_first: bool, found: deque[str]) -> None:
        # as text, because making a path takes longer than asking the file system
        events = f"{path}/{key.name}/{layout.EVENTS}"
        size, position = _size_of(events), mark.position if mark else 0
        # a file that is shorter than what was read is another one, or was cut
        if size and size != position:
            if self._portion.takes(Journal(key.folder, path / key.name)):
                found.append(key.name)
                self._found_bytes += size - position if size > position else size
        elif (is_first and is_held(events)) or (mark is not None and is_another(events, mark.head)):
            # one that is as long as what was read may be another one too
            self._name(key)
        elif mark is not None and mark.deadline_ns is not None:
            self._waiting.set(key, mark.deadline_ns)

    def _name(self, key: SessionKey) -> None:
        if key not in self._growing:
            self._named[key] = None

    # --- taking up --------------------------------------------------------------------------------------------------

    def _next_key(self) -> SessionKey | None:
        """The next session to look into, each once.

        A session that comes twice before its cursor is written down would be read twice.
        """
        if self._named:
            key, _ = self._named.popitem(last=False)
            if self._found:
                self._taken_up.add(key)
            return key
        while self._found:
            number, names = self._found[0]
            key = SessionKey(number, names.popleft())
            if not names:
                self._found.popleft()
            if key not in self._taken_up:
                return key
        self._taken_up.clear()
        self._found_bytes = 0
        return None

    def _take_up(self, key: SessionKey) -> SessionStream | None:
        if key in self._growing:
            return None
        self._waiting.discard(key)
        if key.folder not in self._folders:
            # it was forgotten while something in it waited to be given up
            return None
        journal = Journal(key.folder, self._folders[key.folder] / key.name)
        if not self._portion.takes(journal):
            return None
        try:
            stream = SessionStream(
                journal.events,
                self._narrowing,
                self._state.cursor(self._target, key.folder, key.name),
                untouched_size=untouched_size(self._policy),
            )
        except FileNotFoundError:
            return None
        except OSError as error:
            # the next scan finds the session again if it can be read then
            log.warning("session %s cannot be read: %s", one_line(key.name), error)
            return None
        self._growing[key] = stream
        unread = max(0, _size_of(stream.path) - stream.offset)
        self._found_bytes = max(0, self._found_bytes - unread)
        return stream


def _has_work(stream: SessionStream) -> bool:
    size = _size_of(stream.path)
    return (size and size != stream.end) or stream.deadline_ns < time.time_ns() - INCOMPLETE_GRACE_NS


def _session_names(folder: Path) -> Iterator[str]:
    """The names of the folders of sessions, as the file system gives them."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if layout.is_session_folder_name(entry.name):
                    yield entry.name
    except (FileNotFoundError, NotADirectoryError):
        return


def _size_of(path: Path | str) -> int:
    """The size of a journal; 0 if it cannot be told, as then there is nothing to read now."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _is_quiet(stream: SessionStream) -> bool:
    """Whether no writer holds the journal and all of it was read.

    A writer announces a session only once it holds its lock, so one that is free and fully read will be announced
    again before it grows. Half a line at its end, of a writer that died, is not waited for.
    """
    return not is_held(stream.path) and _size_of(stream.path) in (0, stream.end)
