"""`Backlog`: what a sink has not been sent yet, told from the state and the files, whoever is shipping."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from tracebridge.delivery.state import State
from tracebridge.journal import layout
from tracebridge.policy import Policy, keeps_session


class Unread(msgspec.Struct, frozen=True):
    """A session of which a part was not read."""

    path: Path
    """Its events.jsonl."""
    offset: int
    """Where the unread part begins."""
    size: int
    """The size of the file."""


class Backlog:
    """What one target still has to get. Looks through every folder at each question, so it is not asked often."""

    def __init__(self, state: State, target: int, policy: Policy) -> None:
        self._state = state
        self._target = target
        self._policy = policy

    def unread(self) -> Iterator[Unread]:
        """The sessions of which a part was not read."""
        for number, path in self._state.folders().items():
            positions = self._state.positions(self._target, number)
            for folder in layout.session_folders(path):
                events = layout.events_file(folder)
                size, offset = size_of(events), positions.get(folder.name, 0)
                if size > offset and keeps_session(self._policy, layout.session_id_of(folder)):
                    yield Unread(events, offset, size)

    def unread_bytes(self) -> int:
        """How many bytes were not read."""
        return sum(session.size - session.offset for session in self.unread())

    def pending_events(self) -> int:
        """How many events the backend has not taken, but for those that were read and whose spans are still open."""
        unread = sum(_count_lines(session) for session in self.unread())
        return unread + self._state.in_flight_events(self._target)

    def is_empty(self) -> bool:
        """Whether everything was read and nothing is in flight."""
        return self._state.in_flight_events(self._target) == 0 and next(self.unread(), None) is None


def size_of(path: Path) -> int:
    """The size of a file in bytes; 0 if there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _count_lines(session: Unread) -> int:
    try:
        with session.path.open("rb") as file:
            file.seek(session.offset)
            return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
    except FileNotFoundError:
        return 0
