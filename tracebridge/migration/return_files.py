"""Brings back the sessions whose files a spool has deleted, from a backend that shows them."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from tracebridge.config import Settings, SinkSettings
from tracebridge.delivery.records import Advance, Target
from tracebridge.delivery.removal import sweep
from tracebridge.delivery.state import State
from tracebridge.journal import layout
from tracebridge.journal.opened import OpenedLog
from tracebridge.journal.spooled import Spooled, SpooledLog
from tracebridge.migration.tiers import MigrationError
from tracebridge.policy import Policy
from tracebridge.restore import Restoration, RestoredSession, Restorer, Selection
from tracebridge.session_stream import Cursor, head_of

Progress = Callable[[int, int], None]
PolicyOf = Callable[[str], Policy | None]


class Returned(msgspec.Struct, frozen=True, kw_only=True):
    """What bringing sessions back came to."""

    sink: str
    """Where they were read from."""
    sessions: tuple[str, ...] = ()
    """Those that are back."""
    narrowed: dict[str, int] = {}
    """By name, what is not as it was in the originals."""
    with_gaps: tuple[str, ...] = ()
    """Those of them in which events are missing between others: what stands behind has other places now."""
    kept: tuple[str, ...] = ()
    """Those that are there again, with later events: nothing is put over them, and their earlier part stays away."""
    not_found: tuple[str, ...] = ()
    """Those that the backend does not show."""
    unlisted: str = ""
    """What the backend may hold of them and does not show, in words; empty where it shows all."""
    left: int = 0
    """How many were not reached."""
    trouble: str = ""
    """Why."""

    @property
    def is_whole(self) -> bool:
        """Whether everything is back as it was."""
        return not (self.narrowed or self.kept or self.not_found or self.unlisted or self.left)


def source_for(settings: Settings, name: str | None) -> SinkSettings | None:
    """The sink that sessions are read back from: the one that was named, else that which is sent the most.

    Raises:
        MigrationError: the one that was named cannot be read back.
    """
    readable = [sink for sink in settings.enabled_sinks if sink.capabilities.readable]
    if name is not None:
        named = settings.sink(name)
        if named is None or named.sink_type is None or named.settings is None or not named.capabilities.readable:
            raise MigrationError(f"{settings.source}: {name} cannot be read back; name another sink with --from")
        return named
    return max(readable, key=lambda sink: _breadth(sink.policy), default=None)


def return_files(
    settings: Settings, state: State, sink: SinkSettings, policy_of: PolicyOf, progress: Progress | None = None
) -> Returned:
    """Bring back everything that the spool has deleted and that is not there again.

    It may be killed at any moment and be called again. No sink is sent again what it had when the files went.

    Raises:
        TracebridgeError: the backend cannot be read at all, or the folder not be written to.
    """
    log, returning = SpooledLog(settings.trace_dir), _returning(settings.trace_dir)
    staging = layout.state_folder(settings.trace_dir) / "returning"
    # else what a spool that was killed had still to forget would be forgotten of what is back
    sweep(state, state.folder(settings.trace_dir), settings.trace_dir)
    # of what a killed run has noted as restored, that is still to be moved which it has not moved
    unmoved = {name: notes for name, notes in returning.sessions().items() if _has_journal(staging / name)}
    spooled = unmoved | log.sessions()
    there = {name for name in spooled if _is_begun_anew(settings.trace_dir / name, staging / name)}
    wanted = [notes[-1].session_id for name, notes in spooled.items() if name not in there]
    kept = [spooled[name][-1].session_id for name in sorted(there)]
    if not wanted:
        return Returned(sink=sink.name, kept=tuple(kept))
    pruned = SpooledLog(settings.trace_dir, layout.pruned_log(settings.trace_dir)).sessions()
    restorer = Restorer(sink, staging, settings.capture, policy_of)
    try:
        restored = restorer.restore(Selection(session_ids=tuple(wanted)), skip_existing=True, progress=progress)
    finally:
        restorer.close()
    restored_folders = [folder for folder in layout.session_folders(staging) if folder.name in spooled]
    # they change from one log to the other before they are moved: else what was moved by a run that is killed, and is
    # there, would look as if a writer had begun it anew
    returning.note(note for folder in restored_folders for note in spooled[folder.name])
    log.forget({folder.name for folder in restored_folders})
    back = []
    for staged in restored_folders:
        notes = spooled[staged.name]
        session_id = notes[-1].session_id
        # the backend gives back what was pruned of it before as well
        if _put_in_place(settings, state, staged, [*pruned.get(staged.name, ()), *notes]):
            back.append(session_id)
        else:
            log.note(notes)
            if session_id not in kept:
                kept.append(session_id)
    returning.forget(returning.sessions())
    if not restored.left:
        shutil.rmtree(staging, ignore_errors=True)
    return Returned(
        sink=sink.name,
        sessions=tuple(back),
        narrowed=_narrowed(restored),
        with_gaps=tuple(one.session_id for one in restored.sessions if _has_gaps(one)),
        kept=tuple(kept),
        not_found=restored.not_found,
        unlisted=restored.unlisted,
        left=restored.left,
        trouble=restored.trouble,
    )


def _returning(trace_dir: Path) -> SpooledLog:
    return SpooledLog(trace_dir, layout.returning_log(trace_dir))


def _has_journal(folder: Path) -> bool:
    return os.path.lexists(layout.events_file(folder))


def _is_begun_anew(folder: Path, staged: Path) -> bool:
    return _has_journal(folder) and not _is_in_place(staged, folder)


def _is_in_place(staged: Path, folder: Path) -> bool:
    """Whether a run that was killed has put a restored journal in its place, and not taken it from where it was."""
    try:
        return layout.events_file(staged).samefile(layout.events_file(folder))
    except OSError:
        return False


def _put_in_place(settings: Settings, state: State, staged: Path, notes: Sequence[Spooled]) -> bool:
    """Move a restored session into the trace folder; False if a writer has begun it anew meanwhile."""
    folder = settings.trace_dir / staged.name
    if _is_begun_anew(folder, staged):
        return False
    number = state.folder(settings.trace_dir)
    # what is in place has its cursors, and more may stand in it by now
    for target in () if _is_in_place(staged, folder) else state.targets():
        cursor = _cursor_for(state, target, layout.events_file(staged), notes)
        # before the file is there: nobody may find it and take it for new
        if cursor is not None:
            state.write_down(target.id, [], [Advance(folder=number, session_id=staged.name, cursor=cursor)], [])
    if not _moved(staged, folder):
        return False
    OpenedLog(settings.trace_dir).append(staged.name)
    return True


def _moved(staged: Path, folder: Path) -> bool:
    """Move a session's files to their place; False if a writer has begun it anew meanwhile."""
    try:
        staged.rename(folder)
    except NotADirectoryError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    else:
        return True
    # a file of the user's lies in it, which the spool has left there
    try:
        os.link(layout.events_file(staged), layout.events_file(folder))
    except FileExistsError:
        if not _is_in_place(staged, folder):
            return False
    if not layout.metadata_file(folder).exists():
        layout.metadata_file(staged).rename(layout.metadata_file(folder))
    shutil.rmtree(staged)
    return True


def _cursor_for(state: State, target: Target, events: Path, notes: Sequence[Spooled]) -> Cursor | None:
    """Where a target goes on in a session that is back; None if it gets it from its beginning, as if it were new.

    `notes` are all deletions of it.
    """
    first_ns, last_ns = (pick(note.gone_ns for note in notes) for pick in (min, max))
    if state.known_since_ns(target.id) > last_ns or not state.was_shipped_to(target.id):
        return None
    was_on = not target.off_since_ns or target.off_since_ns > last_ns
    was_to_get_all = state.met_ns(target.id) <= first_ns and all(target.id not in note.without for note in notes)
    if was_on and was_to_get_all:
        # it had taken all of it, and showed it if it can be read, or the session would not have gone
        return _read_to_its_end(events)
    # it was off, new or left some of it out, and may have the rest: if it can be read, it is asked before it is sent
    return Cursor(prior_end=events.stat().st_size)


def _read_to_its_end(events: Path) -> Cursor:
    with events.open("rb") as file:
        count = sum(1 for _ in file)
        # its events were counted when the first file went
        return Cursor(offset=file.tell(), ordinal=count, earlier=-count, head=head_of(file))


def _narrowed(restored: Restoration) -> dict[str, int]:
    return {name: count for name, count in restored.totals.items() if name != "not_found"}


def _has_gaps(session: RestoredSession) -> bool:
    return any(shortfall.name == "missing" for shortfall in session.shortfalls)


def _breadth(policy: Policy) -> tuple[float, bool, bool, float]:
    limit = policy.max_content_length
    return (
        policy.sample_rate,
        policy.include_messages,
        policy.include_thinking,
        float("inf") if limit is None else limit,
    )
