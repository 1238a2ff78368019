"""`Choice`: which sessions of a backfilled folder are delivered, where not all of them are.

A session is taken as a whole, by the time of its first event: so no run and no turn is ever taken in half.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from tracebridge.journal.reader import read_journal


class Window(msgspec.Struct, frozen=True, order=True, array_like=True):
    """A span of time, in nanoseconds since the epoch."""

    since_ns: int
    """Inclusive."""
    until_ns: int
    """Exclusive."""

    def holds(self, time_ns: int) -> bool:
        """Whether a moment lies in it."""
        # a window without an end on one side holds also what the state's numbers cannot say
        return self.since_ns <= min(max(time_ns, ALWAYS.since_ns), ALWAYS.until_ns - 1) < self.until_ns


ALWAYS = Window(-(2**63), 2**63 - 1)
"""All of time."""


class Choice:
    """Knows, by the number of a folder, in which windows its sessions must have begun to be delivered."""

    def __init__(self, windows: Mapping[int, tuple[Window, ...]]) -> None:
        """Of a folder that `windows` does not name, everything is delivered."""
        self._windows = windows

    def takes(self, folder: int, events: Path) -> bool:
        """Whether a session is delivered; `events` is its journal.

        One that holds no whole event is: whoever reads it tells what is wrong with it.
        """
        windows = self._windows.get(folder)
        if windows is None:
            return True
        began_ns = began_ns_of(events)
        return began_ns is None or any(window.holds(began_ns) for window in windows)

    def takes_all(self, folder: int) -> bool:
        """Whether every session of a folder is delivered, whenever it began."""
        return folder not in self._windows

    def changed(self, other: Choice) -> list[int]:
        """The folders of which another choice takes other sessions."""
        mine, theirs = self._windows, other._windows
        return [folder for folder in {*mine, *theirs} if mine.get(folder) != theirs.get(folder)]


def began_ns_of(events: Path) -> int | None:
    """When the first event of a journal happened; None if there is none, or it cannot be read."""
    try:
        return first_ns_of(events)
    except OSError:
        return None


def first_ns_of(events: Path, offset: int = 0) -> int | None:
    """When the first event from `offset` on happened; None if there is none.

    Raises:
        OSError: the journal cannot be read.
    """
    with events.open("rb") as file:
        return next((line.event.time_ns for line in read_journal(file, offset) if line.event is not None), None)
