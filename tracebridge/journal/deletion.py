"""Deleting a session's files so that no writer loses an event and no crash leaves half of them.

A session's journal is first moved, in one step, to `.tracebridge/removed/`; whoever deletes does the rest from there,
now or, after a crash, the next time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tracebridge.journal import layout


class Removed(msgspec.Struct, frozen=True):
    """A journal that was taken out of its place and is still to be deleted."""

    path: Path
    session: str
    """The name of the session's folder."""


def remove(trace_dir: Path, folder: Path, size: int) -> str:
    """Take a session's files out of their place; return why not, or an empty text.

    Writers hold a shared lock on the journal while it is open, and check once they have it that the path still names
    their file. So with the lock held alone nobody writes, and whoever comes later begins a new file.

    Args:
        trace_dir: the folder of the journals.
        folder: the session's folder in it.
        size: the size up to which the journal is known to be delivered; a longer one stays.

    Raises:
        OSError: the files cannot be moved.
    """
    events = layout.events_file(folder)
    try:
        journal = os.open(events, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return "its file is gone"
    try:
        try:
            fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return "a writer has its file open"
        status = os.fstat(journal)
        if status.st_size != size or not _is_at(status, events):
            return "it was written to meanwhile"
        target = removed_folder(trace_dir) / secrets.token_hex(8) / folder.name
        target.parent.mkdir(parents=True)
        # the metadata before the journal: of a session that a writer begins anew at once, the new one must stay
        for metadata in (layout.metadata_file(folder), *folder.glob(f".{layout.METADATA}.*")):
            metadata.unlink(missing_ok=True)
        os.replace(events, target)
    finally:
        os.close(journal)
    return ""


def removed(trace_dir: Path) -> Iterator[Removed]:
    """The journals that were taken out of their place and not deleted yet."""
    for path in sorted(removed_folder(trace_dir).glob("*/*")):
        yield Removed(path, path.name)


def delete(trace_dir: Path, gone: Removed) -> None:
    """Delete a journal for good, and the folder that it was in if nothing else is in it.

    Raises:
        OSError: it cannot be deleted.
    """
    # something of the user's may lie in it, or a writer may have come back
    with contextlib.suppress(OSError):
        (trace_dir / gone.session).rmdir()
    gone.path.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):  # another process may be as far
        gone.path.parent.rmdir()


def removed_folder(trace_dir: Path) -> Path:
    """Where journals lie from the moment they are removed until they are deleted."""
    return layout.state_folder(trace_dir) / "removed"


def _is_at(status: os.stat_result, path: Path) -> bool:
    try:
        return os.path.samestat(status, os.stat(path))
    except FileNotFoundError:
        return False
