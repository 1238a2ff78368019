"""`OutFolder`: the folder that sessions are restored into. A session appears in it whole, or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from tracebridge import jsonvalue
from tracebridge.errors import TracebridgeError
from tracebridge.event import Json
from tracebridge.journal import layout
from tracebridge.journal.metadata import write_metadata

_UNFINISHED: Final = ".restoring"
"""Where a session is written before it is moved to its place; whoever holds the folder's lock is alone with it."""


BeforeMove = Callable[[Path, str], None]


class OutFolderError(TracebridgeError):
    """The folder cannot be restored into."""


class ExistingSessionError(OutFolderError):
    """A session is there already; nothing of it was changed."""


class OutFolder:
    """A folder of sessions. One process at a time restores into it."""

    def __init__(self, path: Path, before_move: BeforeMove | None = None) -> None:
        """Open the folder, making it if need be, and clear away what a killed run has left half done.

        `before_move` is called with each session's own folder before it is moved to its place, and with its name there.

        Raises:
            OutFolderError: it holds something else than sessions, or another process restores into it.
        """
        self.path = path
        self._before_move = before_move
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise OutFolderError(f"{path}: cannot be written to ({error.strerror}); name another folder") from None
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another process restore into it."""
        os.close(self._descriptor)

    def holds(self, session_id: str) -> bool:
        """Whether there is a folder of the session, whatever it holds."""
        return os.path.lexists(layout.session_folder(self.path, session_id))

    def write(self, session_id: str, events: Iterable[dict[str, Json]], metadata: dict[str, Json]) -> Path:
        """Write a session and return its folder. Once it is there it outlives a power cut.

        Raises:
            ExistingSessionError: it is there already.
            OutFolderError: the disk does not take it.
        """
        folder = layout.session_folder(self.path, session_id)
        try:
            with self._unfinished() as made:
                with layout.events_file(made).open("wb") as file:
                    for event in events:
                        file.write(jsonvalue.encode(event) + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
                write_metadata(made, "restored", jsonvalue.plain(metadata))
                _sync(layout.metadata_file(made))
                _sync(made)
                # an empty folder would be replaced
                if self.holds(session_id):
                    raise already_there(self.path, [session_id])
                if self._before_move is not None:
                    self._before_move(made, folder.name)
                made.rename(folder)
            os.fsync(self._descriptor)
        except OSError as error:
            raise OutFolderError(f"{folder}: cannot be written ({error.strerror})") from error
        return folder

    def _begin(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise OutFolderError(f"{self.path}: another process restores into it; wait for it to end") from None
        names = [entry.name for entry in self.path.iterdir()]
        others = [name for name in names if not _belongs(name)]
        if others and not any(layout.is_session_folder_name(name) for name in names):
            raise OutFolderError(
                f"{self.path}: holds {others[0]!r} and no sessions; name an empty folder, or one that holds sessions"
            )
        if _UNFINISHED in names:
            shutil.rmtree(self.path / _UNFINISHED)

    @contextmanager
    def _unfinished(self) -> Iterator[Path]:
        """A folder to write a session in; whatever is still there at the end goes."""
        made = self.path / _UNFINISHED
        made.mkdir()
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)


def already_there(path: Path, session_ids: list[str]) -> ExistingSessionError:
    """The error for sessions that are there already."""
    named = ", ".join(repr(session_id) for session_id in session_ids[:5])
    more = f" and {len(session_ids) - 5:,} more" if len(session_ids) > 5 else ""
    count = "a session is" if len(session_ids) == 1 else f"{len(session_ids):,} sessions are"
    return ExistingSessionError(
        f"{path}: {count} there already ({named}{more}) and nothing is overwritten; name another folder, or leave "
        "what is there as it is with --skip-existing"
    )


def _belongs(name: str) -> bool:
    return layout.is_session_folder_name(name) or name in (_UNFINISHED, layout.STATE_FOLDER)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
