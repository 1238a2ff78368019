"""One session's journal as a stream of spans: the one code path of delivery, backfill, replay and validation."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from tracebridge.assembler import Assembler, Checkpoint, Narrowing, Place, narrower
from tracebridge.event import Event
from tracebridge.journal.reader import read_journal
from tracebridge.span import Span

_HEAD_BYTES: Final = 512
_READ_BYTES: Final = 1 << 18


class Cursor(msgspec.Struct, frozen=True, kw_only=True):
    """How far a session's journal was read, and what is open before that place."""

    offset: int = 0
    """Byte offset of the first line that was not read."""
    ordinal: int = 0
    """Number of events before it."""
    checkpoint: Checkpoint = Checkpoint()
    head: str = ""
    """Tells this file from another one in its place: a hash of its first line; empty as long as nothing was read."""
    prior_end: int = 0
    """Byte offset before which the backend may hold spans that this state knows nothing of."""
    earlier: int = 0
    """Number of events of earlier files in its place, less those that went with their file while they were open."""

    @property
    def events_read(self) -> int:
        """How many events were read, of this file and of earlier ones, that are open or in a span."""
        return self.ordinal + self.earlier


class Problem(msgspec.Struct, frozen=True):
    """A line that is not what it should be, or a file."""

    file: Path
    offset: int
    text: str
    is_of_line: bool = True
    is_unread: bool = False
    """Whether it is a whole line of which nothing was read, so that nobody can have it from here."""


class Step(msgspec.Struct, frozen=True, gc=False):
    """What reading one more event gave: the spans that it completed, or none."""

    spans: list[Span]
    problem: Problem | None = None


class SessionStream:
    """Reads a session's journal from a cursor on. Between steps, `cursor` tells how far the steps so far went.

    A file that takes the place of the one that was read before is told as a problem, and read from its start the next
    time. Of one that was cut short, which is told too, what is appended from then on is read.
    """

    def __init__(
        self, path: Path, narrowing: Narrowing, cursor: Cursor | None = None, *, untouched_size: int = -1
    ) -> None:
        """`path` is the session's events.jsonl; see `narrower` for `narrowing` and `untouched_size`.

        Raises:
            OSError: the journal cannot be read, and the cursor says that it was.
        """
        self.path = path
        self.is_new = cursor is None
        """Whether the session was never read before."""
        self.is_resumed = cursor is not None
        """Whether it goes on from where a state says it was read to."""
        self.replaced_at: float | None = None
        """When another file was found in the place of the one that was read, by the monotonic clock."""
        self.may_repeat = False
        """Whether what is read may be at the backend already and cannot be told; whoever delivers it sets it."""
        self._narrow = narrower(narrowing, untouched_size)
        self._assembler = Assembler(self._narrow)
        self._offset = self._end = self._ordinal = self._earlier = self.prior_end = 0
        self._head = self._trouble = ""
        self._identity = (-1, -1)
        if cursor is not None:
            self._resume(cursor)

    def steps(self) -> Iterator[Step]:
        """Read on to the present end of the journal, one event a step.

        Raises:
            OSError: the journal cannot be read.
        """
        with self.path.open("rb", buffering=_READ_BYTES) as file:
            self._recognise(file, self._assembler.checkpoint)
            if self._trouble:
                problem, self._trouble = Problem(self.path, self._offset, self._trouble, is_of_line=False), ""
                yield Step([], problem)
                if self.may_be_held_already:
                    # of another file it must first be asked what the backend holds
                    return
            for line in read_journal(file, self._offset):
                told = None
                if line.problem:
                    told = Problem(self.path, line.offset, line.problem, is_unread=line.is_unread)
                spans: list[Span] = []
                if line.event is not None:
                    place = Place(line.offset, self._ordinal)
                    spans = self._assembler.feed(line.event, place)
                    self._ordinal += 1
                self._offset = line.end
                if not self._head:
                    self._head = head_of(file)
                yield Step(spans, told) if spans or told else _NOTHING
            self._end = file.tell()

    def expire(self, now_ns: int) -> list[Span]:
        """Spans of what has waited too long for its end at `now_ns`, in nanoseconds since the epoch."""
        return self._assembler.expire(now_ns) if now_ns > self._assembler.deadline_ns() else []

    @property
    def cursor(self) -> Cursor:
        """Where a new stream must begin to go on from here."""
        return Cursor(
            offset=self._offset,
            ordinal=self._ordinal,
            checkpoint=self._assembler.checkpoint(),
            head=self._head,
            prior_end=self.prior_end,
            earlier=self._earlier,
        )

    @property
    def may_be_held_already(self) -> bool:
        """Whether the backend may hold spans of what is read next that this state knows nothing of."""
        return self._offset < self.prior_end

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

    def _resume(self, cursor: Cursor) -> None:
        self._offset, self._ordinal, self._head = cursor.offset, cursor.ordinal, cursor.head
        self.prior_end, self._earlier = cursor.prior_end, cursor.earlier
        if cursor.offset == 0:
            return
        with self.path.open("rb") as file:
            if self._recognise(file, lambda: cursor.checkpoint):
                self._take_up(file, cursor.checkpoint)

    def _take_up(self, file: BinaryIO, checkpoint: Checkpoint) -> None:
        """Read the open events again, as far as the file still holds them."""
        held = [mark for mark in checkpoint.opened if mark.offset < self._offset]
        self._earlier -= len(checkpoint.opened) - len(held)
        opened = [self._event_at(file, mark.offset) for mark in held]
        run_ids = {event.run_id for event in opened}
        runs = tuple(run for run in checkpoint.runs if run.run_id in run_ids)
        self._assembler = Assembler.restored(Checkpoint(opened=tuple(held), runs=runs), opened, self._narrow)

    def _recognise(self, file: BinaryIO, checkpoint: Callable[[], Checkpoint]) -> bool:
        """Whether this is the file that was read before, and still holds all of what was read.

        `checkpoint` tells what was open when it was read last. Where it is not, all is set to go on from what is there.
        """
        status = os.fstat(file.fileno())
        identity = (status.st_dev, status.st_ino)
        if self._offset == 0 or (identity == self._identity and status.st_size >= self._offset):
            self._identity = identity
            return True
        self._identity = identity
        head = head_of(file)
        self._head = self._head or head
        if head != self._head:
            self._trouble = f"another file has taken the place of the one that was read to byte {self._offset}"
            self._earlier += self._ordinal - len(checkpoint().opened)
            self._offset = self._end = self._ordinal = 0
            # it may hold events of the earlier one: a writer whose file is deleted under it writes them again
            self.prior_end = status.st_size
            self.replaced_at = time.monotonic()
            self._head = ""
            self._assembler = Assembler(self._narrow)
            return False
        if status.st_size < self._offset:
            self._trouble = f"the file was cut from {self._offset} bytes or more to {status.st_size}"
            self._offset = self._end = status.st_size
            self._take_up(file, checkpoint())
            return False
        return True

    def _event_at(self, file: BinaryIO, offset: int) -> Event:
        # line by line: a chunk for each of thousands of open events would be read for nothing
        file.seek(offset)
        for line in read_journal(BytesIO(file.readline()), 0):
            if line.event is not None:
                return line.event
        raise OSError(f"{self.path}: no event at byte {offset}, where one was read before")


_NOTHING = Step([])


def is_another(path: Path | str, head: str) -> bool:
    """Whether another file has taken the place of a journal with this head; False if that cannot be told."""
    try:
        with open(path, "rb", buffering=0, opener=_without_waiting) as file:
            return bool(head) and head_of(file) != head
    except OSError:
        return False


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; a pipe in its place would hold us up for ever."""
    return os.open(path, flags | os.O_NONBLOCK)


def head_of(file: BinaryIO) -> str:
    """A hash of the first line of a journal, which no other one has: it holds a time and the ids of a run."""
    first, _, _ = os.pread(file.fileno(), _HEAD_BYTES, 0).partition(b"\n")
    return hashlib.blake2b(first, digest_size=8).hexdigest()
