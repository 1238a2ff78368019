"""`survey`: what there is in a folder of old traces, told line by line before anything of it is sent."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from tracebridge import jsonvalue
from tracebridge.event import EVENT_TYPES, Event, is_span_id, is_trace_id, timestamp_ns
from tracebridge.journal import layout
from tracebridge.journal.reader import read_journal

DEEPEST: Final = 2
"""How many levels below the folder that is named others are looked for, e.g. one for each month."""
MOST_BROKEN: Final = 1_000
"""How many broken lines are remembered; all are counted."""

_COMPRESSED: Final = (".gz", ".bz2", ".xz", ".zst")
_ROTATED: Final = re.compile(r"events(\.jsonl)?[.-][0-9].*", re.DOTALL)
"""As `events.jsonl.1`, `events.jsonl-20260201.gz` and `events.2026-02-01.jsonl`."""
_KNOWN_TYPES: Final = frozenset(EVENT_TYPES)

Progress = Callable[[int, int], None]
"""Is told how many bytes of how many were read."""


class BrokenLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line that is not one whole event."""

    file: str
    line: int
    """The number of the line, from 1."""
    offset: int
    """Where it begins, in bytes."""
    problem: str


class Unread(msgspec.Struct, frozen=True, kw_only=True):
    """Something in which there may be traces, and which cannot be read."""

    path: str
    reason: str


class Survey(msgspec.Struct, kw_only=True):
    """What there is. Only sessions that were asked for are counted, but for `left_out`."""

    folders: list[str] = msgspec.field(default_factory=list)
    """The folders that hold sessions."""
    sessions: int = 0
    runs: int = 0
    turns: int = 0
    events: int = 0
    old_events: int = 0
    """Those of the events that are of the original format, without ids of their own."""
    bytes: int = 0
    blank_lines: int = 0
    broken_lines: int = 0
    """Lines that are not one whole event; what is whole of them is delivered."""
    broken: list[BrokenLine] = msgspec.field(default_factory=list)
    """The first of them."""
    unknown_types: dict[str, int] = msgspec.field(default_factory=dict)
    """By event type that is none of the nine, how many events there are; they are delivered as well."""
    unread: list[Unread] = msgspec.field(default_factory=list)
    left_out: int = 0
    """Sessions that began at another time than was asked for."""


class _Line(msgspec.Struct):
    """As much of a line as must be right for it to be an event; reading only that is several times as fast."""

    timestamp: str
    event_type: str
    session_id: str
    run_id: str | None = None
    turn: int | None = None
    duration_ms: float | None = None
    data: dict[str, msgspec.Raw] | None = None
    trace_id: str | None = None
    span_id: str | None = None


_line_decoder = msgspec.json.Decoder(_Line)


class _Session(msgspec.Struct):
    """The counts of one session."""

    runs: set[str]
    turns: set[tuple[str, int]]
    types: Counter[str]
    first_ns: int | None = None
    events: int = 0
    old_events: int = 0
    blank_lines: int = 0
    broken_lines: int = 0
    broken: list[BrokenLine] = []

    def add(self, time_ns: int, event_type: str, run_id: str, turn: int, *, is_old: bool) -> None:
        if self.first_ns is None:
            self.first_ns = time_ns
        self.events += 1
        self.old_events += is_old
        self.runs.add(run_id)
        if turn:
            self.turns.add((run_id, turn))
        if event_type not in _KNOWN_TYPES:
            self.types[event_type] += 1


def survey(root: Path, takes: Callable[[int], bool] = lambda _: True, progress: Progress = lambda *_: None) -> Survey:
    """Read all of a folder of `session-<id>` folders, or of folders of such.

    `takes` is asked, with the time of a session's first event in nanoseconds since the epoch, whether to count it.

    Raises:
        OSError: `root` itself cannot be read.
    """
    found = Survey()
    folders = list(trace_folders(root, found.unread))
    found.folders = [shown(folder) for folder in folders]
    files = [file for folder in folders for file in _journals(folder, found.unread)]
    total, done = sum(size for _, size in files), 0
    for file, size in files:
        try:
            with file.open("rb") as opened:
                _count(opened, shown(file), takes, found)
        except OSError as error:
            found.unread.append(Unread(path=shown(file), reason=f"cannot be read: {error.strerror}"))
        done += size
        progress(done, total)
    return found


def trace_folders(root: Path, unread: list[Unread] | None = None) -> Iterator[Path]:
    """The folders that hold session folders: `root` itself, and those at most `DEEPEST` levels below it, in order.

    One that several paths lead to is told once. Adds to `unread` those that cannot be looked into.

    Raises:
        OSError: `root` itself cannot be looked into.
    """
    level, met = [root], set[Path]()
    for depth in range(DEEPEST + 1):
        below: list[Path] = []
        for folder in level:
            if (target := folder.resolve()) in met:
                continue
            met.add(target)
            try:
                with os.scandir(folder) as entries:
                    names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=depth == 0))
            except OSError as error:
                if folder == root:
                    raise
                if unread is not None:
                    unread.append(Unread(path=shown(folder), reason=f"cannot be looked into: {error.strerror}"))
                continue
            if any(layout.is_session_folder_name(name) for name in names):
                yield folder
            below += [
                folder / name for name in names if not (layout.is_session_folder_name(name) or name.startswith("."))
            ]
        level = below


def shown(path: Path) -> str:
    """A path as text that can be printed and encoded, whatever bytes it is made of."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def _journals(folder: Path, unread: list[Unread]) -> Iterator[tuple[Path, int]]:
    """The journals of a folder's sessions, and their sizes in bytes."""
    for session in sorted(folder.iterdir()):
        if not layout.is_session_folder_name(session.name):
            continue
        file = layout.events_file(session)
        unread += _beside(file)
        try:
            status = file.stat()
        except FileNotFoundError:
            continue
        except OSError as error:
            unread.append(Unread(path=shown(file), reason=f"cannot be read: {error.strerror}"))
            continue
        if file.is_file():
            yield file, status.st_size
        else:
            unread.append(Unread(path=shown(file), reason="is not a file"))


def parts_apart(folder: Path) -> Iterator[tuple[Path, Unread]]:
    """The files beside the journals of a folder's sessions that nobody reads, each with its session's folder."""
    try:
        sessions = sorted(folder.iterdir())
    except OSError:
        return  # whoever wants the journals in it tells
    for session in sessions:
        if layout.is_session_folder_name(session.name):
            yield from ((session, part) for part in _beside(layout.events_file(session)))


def _beside(file: Path) -> list[Unread]:
    """What else of a session lies beside its journal."""
    try:
        names = sorted(os.listdir(file.parent))
    except OSError:
        return []  # the journal cannot be read either, or there is none
    found = []
    for name in names:
        if _ROTATED.fullmatch(name):
            reason = f"a part that was rotated away: put its lines, unpacked, before those of {file.name} first"
        elif name in {file.name + suffix for suffix in _COMPRESSED}:
            reason = f"compressed: unpack it to {file.name} first"
        else:
            continue
        found.append(Unread(path=shown(file.with_name(name)), reason=reason))
    return found


def _count(file: BinaryIO, name: str, takes: Callable[[int], bool], found: Survey) -> None:
    session = _Session(set(), set(), Counter(), broken=[])
    offset = 0
    for number, text in enumerate(file, 1):
        _count_line(text, number, offset, name, session)
        offset += len(text)
        if session.events and session.first_ns is not None and not takes(session.first_ns):
            found.left_out += 1
            return
    found.sessions += 1
    found.bytes += offset
    found.runs += len(session.runs)
    found.turns += len(session.turns)
    found.events += session.events
    found.old_events += session.old_events
    found.blank_lines += session.blank_lines
    found.broken_lines += session.broken_lines
    found.broken += session.broken[: max(0, MOST_BROKEN - len(found.broken))]
    for event_type, count in session.types.items():
        found.unknown_types[event_type] = found.unknown_types.get(event_type, 0) + count


def _count_line(text: bytes, number: int, offset: int, name: str, session: _Session) -> None:
    try:
        if text.count(b"{") + text.count(b"[") > jsonvalue.MAX_DEPTH:
            raise ValueError("perhaps too deep")
        # what is skipped is not checked for being UTF-8
        text.decode()
        line = _line_decoder.decode(text)
        time_ns = timestamp_ns(line.timestamp)
    except ValueError:
        _count_odd_line(text, number, offset, name, session)
    else:
        has_ids = is_trace_id(line.trace_id) and is_span_id(line.span_id)
        session.add(time_ns, line.event_type, line.run_id or "", line.turn or 0, is_old=not has_ids)


def _count_odd_line(text: bytes, number: int, offset: int, name: str, session: _Session) -> None:
    """Count a line as those see it who deliver it."""
    if not text.strip():
        session.blank_lines += 1
        return
    lines = list(read_journal(BytesIO(text), 0))
    problems = [line.problem for line in lines if line.problem]
    if not lines:
        problems = ["the file ends in the middle of it"]
    for line in lines:
        if line.event is not None:
            _add(line.event, session)
    if problems:
        session.broken_lines += 1
        if len(session.broken) < MOST_BROKEN:
            session.broken.append(BrokenLine(file=name, line=number, offset=offset, problem="; ".join(problems)))


def _add(event: Event, session: _Session) -> None:
    session.add(event.time_ns, event.event_type, event.run_id, event.turn, is_old=not event.has_ids)
