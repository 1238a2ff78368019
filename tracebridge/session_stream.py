"""One session's journal as a stream of spans: the one code path of delivery, backfill, replay and validation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import msgspec

from tracebridge.assembler import Assembler, Checkpoint, Place
from tracebridge.event import Event, Json
from tracebridge.journal.reader import read_journal
from tracebridge.span import Span

Narrowing = Callable[[str, dict[str, Json]], dict[str, Json]]
"""What a sink's policy leaves of an event's data: takes the event's type and data, returns data."""


class Cursor(msgspec.Struct, frozen=True, kw_only=True):
    """How far a session's journal was read, and what is open before that place."""

    offset: int = 0
    """Byte offset of the first line that was not read."""
    ordinal: int = 0
    """Number of events before it."""
    checkpoint: Checkpoint = Checkpoint()


class Problem(msgspec.Struct, frozen=True):
    """A line that is not what it should be."""

    file: Path
    offset: int
    text: str


class Step(msgspec.Struct, frozen=True):
    """What reading one more event gave: the spans that it completed, or none."""

    spans: list[Span]
    problem: Problem | None = None


class SessionStream:
    """Reads a session's journal from a cursor on. Between steps, `cursor` tells how far the steps so far went."""

    def __init__(self, path: Path, narrowing: Narrowing, cursor: Cursor | None = None) -> None:
        """`path` is the session's events.jsonl.

        Raises:
            OSError: the journal cannot be read, and the cursor has open events to take up again.
        """
        self.path = path
        self._narrowing = narrowing
        self._offset = cursor.offset if cursor else 0
        self._ordinal = cursor.ordinal if cursor else 0
        self._end = self._offset
        self._assembler = Assembler(self._narrowed)
        if cursor is not None and cursor.checkpoint.opened:
            with path.open("rb") as file:
                opened = [self._event_at(file, mark.offset) for mark in cursor.checkpoint.opened]
            self._assembler = Assembler.restored(cursor.checkpoint, opened, self._narrowed)

    def steps(self) -> Iterator[Step]:
        """Read on to the present end of the journal, one event a step."""
        with self.path.open("rb") as file:
            for line in read_journal(file, self._offset):
                problem = Problem(self.path, line.offset, line.problem) if line.problem else None
                spans: list[Span] = []
                if line.event is not None:
                    place = Place(line.offset, self._ordinal)
                    spans = self._assembler.feed(line.event, place)
                    self._ordinal += 1
                self._offset = line.end
                if spans or problem:
                    yield Step(spans, problem)
                else:
                    yield _NOTHING
            self._end = file.tell()

    def expire(self, now_ns: int) -> list[Span]:
        """Spans of what has waited too long for its end at `now_ns`, in nanoseconds since the epoch."""
        return self._assembler.expire(now_ns) if now_ns > self._assembler.deadline_ns() else []

    @property
    def cursor(self) -> Cursor:
        """Where a new stream must begin to go on from here."""
        return Cursor(offset=self._offset, ordinal=self._ordinal, checkpoint=self._assembler.checkpoint())

    @property
    def deadline_ns(self) -> int:
        """The time after which `expire` has something to give; far in the future when nothing is open."""
        return self._assembler.deadline_ns()

    @property
    def offset(self) -> int:
        """Byte offset of the first line that was not read."""
        return self._offset

    @property
    def end(self) -> int:
        """Where the journal ended when it was last read to its end: beyond `offset` stood no whole line."""
        return max(self._offset, self._end)

    @property
    def events_read(self) -> int:
        """Number of events before `offset`."""
        return self._ordinal

    @property
    def is_idle(self) -> bool:
        """Whether no span is open."""
        return self._assembler.is_idle

    def _narrowed(self, event: Event) -> Event:
        data = self._narrowing(event.event_type, event.data)
        if data is event.data:
            return event
        fields = {name: data if name == "data" else value for name, value in event.fields.items()}
        return msgspec.structs.replace(event, data=data, fields=fields)

    def _event_at(self, file: BinaryIO, offset: int) -> Event:
        # line by line: a chunk for each of thousands of open events would be read for nothing
        file.seek(offset)
        for line in read_journal(BytesIO(file.readline()), 0):
            if line.event is not None:
                return line.event
        raise OSError(f"{self.path}: no event at byte {offset}, where one was read before")


_NOTHING = Step([])
