"""`SpooledLog`: names the sessions whose files a spool has deleted, so that they can be brought back.

What `tracebridge prune` deletes is noted in another log of the same form, and is not brought back.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from tracebridge.journal import layout
from tracebridge.journal.log_file import append_lines, open_or_create


class Spooled(msgspec.Struct, frozen=True, array_like=True):
    """A session whose files are gone."""

    gone_ns: int
    """When they were deleted, in nanoseconds since the epoch."""
    name: str
    """The name of the session's own folder."""
    session_id: str
    without: tuple[int, ...] = ()
    """The backends, by their numbers in the state, that were not to get it, or not all of it, when the files went."""


class SpooledLog:
    """The file `.tracebridge/spooled.log`, one line a deletion. Any number of processes may use it."""

    def __init__(self, trace_dir: Path, path: Path | None = None) -> None:
        """`path` is that of another file in the same form."""
        self._path = path or layout.spooled_log(trace_dir)

    def append(self, name: str, session_id: str, without: Iterable[int] = ()) -> Spooled:
        """Note a session whose files are about to go; returns the note.

        Raises:
            OSError: it cannot be noted, so they must stay.
        """
        noted = Spooled(time.time_ns(), name, session_id, tuple(without))
        self.note([noted])
        return noted

    def note(self, sessions: Iterable[Spooled]) -> None:
        """Note sessions.

        Raises:
            OSError: they cannot be noted.
        """
        lines = b"".join(msgspec.json.encode(spooled) + b"\n" for spooled in sessions)
        with self._locked() as descriptor:
            append_lines(descriptor, lines, self._path)

    def withdraw(self, noted: Spooled) -> None:
        """Take a note back, because the files stay; what was noted of the session before holds again.

        Raises:
            OSError: the log cannot be written.
        """
        line = msgspec.json.encode(noted) + b"\n"
        with self._locked() as descriptor:
            begin = os.fstat(descriptor).st_size - len(line)
            if begin >= 0 and os.pread(descriptor, len(line), begin) == line:
                # this takes no room, of which there may be none
                os.ftruncate(descriptor, begin)
            else:
                self._replace(spooled for spooled in self.noted() if spooled != noted)

    def sessions(self) -> dict[str, list[Spooled]]:
        """Each session that was noted, by the name of its folder, with all its deletions in their order."""
        found: dict[str, list[Spooled]] = {}
        for spooled in self.noted():
            found.setdefault(spooled.name, []).append(spooled)
        return found

    def forget(self, names: Collection[str]) -> None:
        """Sessions are back, or are not missed any more.

        Raises:
            OSError: the log cannot be written.
        """
        with self._locked():
            self._replace(spooled for spooled in self.noted() if spooled.name not in names)

    def noted(self) -> Iterator[Spooled]:
        """Each deletion, in the order in which they were noted."""
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return
        with file:
            yield from _decoded(file)

    def _replace(self, kept: Iterable[Spooled]) -> None:
        new = self._path.with_suffix(".new")
        new.write_bytes(b"".join(msgspec.json.encode(spooled) + b"\n" for spooled in kept))
        os.replace(new, self._path)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """Open the log alone, as it stands at its path."""
        while True:
            descriptor = open_or_create(self._path)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                # it may have been replaced while its lock was waited for
                if os.path.exists(self._path) and os.path.samestat(os.fstat(descriptor), os.stat(self._path)):
                    yield descriptor
                    return
            finally:
                os.close(descriptor)


def deleted_ns(folders: Iterable[Path], sessions: Collection[str]) -> dict[str, int]:
    """When the files of these sessions were deleted last, of those that ever were: by a spool, or by `prune`.

    A folder that was backfilled may be the trace folder of another project, which deletes in it.
    """
    found: dict[str, int] = {}
    for folder in folders:
        for path in (layout.spooled_log(folder), layout.pruned_log(folder)):
            with suppress(OSError):  # what cannot be read of another project's explains nothing
                for one in SpooledLog(folder, path).noted():
                    if one.session_id in sessions:
                        found[one.session_id] = max(one.gone_ns, found.get(one.session_id, 0))
    return found


def _decoded(lines: Iterable[bytes]) -> Iterator[Spooled]:
    for line in lines:
        try:
            yield msgspec.json.decode(line, type=Spooled)
        except msgspec.DecodeError:
            continue  # half a line, of a process that was killed before it deleted anything
