"""Reading a session's journal: whole events, each with the bytes it stands in, and an account of what is broken."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from tracebridge import jsonvalue
from tracebridge.event import Event, NotAnEventError, UsualLine, event_from_json, event_from_usual

_EVENT_BEGINS: Final = re.compile(rb'\{"timestamp":\s*"[^"\\]{0,64}",\s*"event_type":')
"""How every writer begins a line; data may hold many objects with a timestamp, and trying each takes its time."""
_LONGEST_REST: Final = 16 << 20
"""In bytes. Half a line is longer only where an agent records what is that long, and died while it did."""
_BEFORE_A_VALUE: Final = (b":", b": ", b",", b", ", b"[")
"""What stands before a value in JSON, however it is written."""


class JournalLine(msgspec.Struct, frozen=True, gc=False):
    """One line of a journal."""

    offset: int
    """Byte offset of the line."""
    end: int
    """Byte offset just after the line and its newline."""
    event: Event | None
    """None when nothing of the line is an event, as of a blank one."""
    problem: str = ""
    """What is wrong with the line, if anything: a broken line may still end in a whole event."""
    is_unread: bool = False
    """Whether it is whole, as an edited one is, and no half line of a writer that died; and nothing of it was read."""


def read_journal(file: BinaryIO, offset: int) -> Iterator[JournalLine]:
    """Yield the lines of `file` from `offset` on, which must be the start of a line.

    What follows the last newline is yielded only if it is a whole event: it may still be being written.
    Memory is bounded by the longest line.
    """
    file.seek(offset)
    end = offset
    for text in iter(file.readline, b""):
        start, end = end, end + len(text)
        try:
            event = _event_in(text)
        except ValueError:
            if text.endswith(b"\n"):
                if text.strip():
                    yield from _parsed(start, end, text)
                else:
                    # not left out: whoever reads on from the last line that was read must get past it
                    yield JournalLine(start, end, None)
                continue
            # the rest of it may come while this is read, so it is not the beginning of a line that is read on
            yield from (whole for whole in _parsed(start, end, text) if not whole.problem)
            return
        yield JournalLine(start, end, event)


def is_read(path: Path, offset: int, size: int) -> bool:
    """Whether a journal of `size` bytes that was read to `offset` has nothing more to give.

    Half a line at its end, of a writer that died or has not finished, is nothing. What cannot be read may have more,
    and so may what is too long to be looked through by those who ask about many journals.
    """
    if offset >= size:
        return offset == size
    if size - offset > _LONGEST_REST:
        return False
    try:
        with path.open("rb") as file:
            return next(read_journal(file, offset), None) is None
    except OSError:
        return False


def _parsed(start: int, end: int, text: bytes) -> Iterator[JournalLine]:
    try:
        yield JournalLine(start, end, _event_in(text))
        return
    except NotAnEventError as error:
        yield JournalLine(start, end, None, f"not an event: {error}", is_unread=True)
        return
    except ValueError as error:
        broken, is_unread = f"not JSON: {error}", text.rstrip().endswith(b"}") and not _is_half(error)
    # a neighbour's half line may stand before a whole event that was written after it
    for begin in sorted((found.start() for found in _EVENT_BEGINS.finditer(text, 1)), reverse=True):
        if not text.endswith(b"\n") and text.endswith(_BEFORE_A_VALUE, 0, begin):
            continue  # a half line was cut right behind an event that stood in its data
        event = _event(text[begin:])
        if event is None:
            continue
        before = list(_parsed(start, start + begin, text[:begin]))
        if before[-1].event is None:
            yield JournalLine(start, end, event, f"{begin} bytes of an unfinished event before a whole one")
        else:
            # of the event before, only the newline could not be written
            yield from before
            yield JournalLine(start + begin, end, event)
        return
    yield JournalLine(start, end, None, broken, is_unread=is_unread)


def _is_half(error: ValueError) -> bool:
    """Whether all of a line could be the beginning of a JSON text: one that was cut may end in any of its brackets."""
    import json  # here, because few journals need it

    return isinstance(error, json.JSONDecodeError) and error.pos >= len(error.doc.rstrip())


def _event(text: bytes) -> Event | None:
    try:
        return _event_in(text)
    except ValueError:
        return None


def _event_in(text: bytes) -> Event:
    """Read one line.

    Raises:
        NotAnEventError: it is JSON, and no event.
        ValueError: it is no JSON.
    """
    try:
        usual = _decode_usual(text)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        pass  # this decoder is faster, and takes usual lines only
    else:
        event = event_from_usual(usual, len(text))
        if event is not None:
            return event
    return event_from_json(jsonvalue.decode(text))


_decode_usual: Final = msgspec.json.Decoder(UsualLine).decode
