"""A session's files go in one step, never under a writer's hands, and nothing else goes with them."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from tests.delivery.rig import session_lines, write_session
from tracebridge.journal import deletion, layout
from tracebridge.journal.reader import read_journal
from tracebridge.journal.writer import Journal


def size(path: Path) -> int:
    return path.stat().st_size


def remove(trace_dir: Path, events: Path) -> str:
    return deletion.remove(trace_dir, events.parent, size(events))


def test_the_files_of_a_session_go_and_are_kept_aside_until_they_are_deleted(tmp_path: Path) -> None:
    events = write_session(tmp_path, "s")
    layout.metadata_file(events.parent).write_text("{}")
    (events.parent / f".{layout.METADATA}.run-1").write_text("half")
    content = events.read_bytes()
    assert remove(tmp_path, events) == ""
    assert list(events.parent.iterdir()) == []
    (gone,) = deletion.removed(tmp_path)
    assert (gone.session, gone.path.read_bytes()) == ("session-s", content)
    deletion.delete(tmp_path, gone)
    assert not events.parent.exists()
    assert list(deletion.removed_folder(tmp_path).iterdir()) == []


def test_what_the_user_put_beside_them_stays(tmp_path: Path) -> None:
    events = write_session(tmp_path, "s")
    (events.parent / "notes.txt").write_text("mine")
    assert remove(tmp_path, events) == ""
    (gone,) = deletion.removed(tmp_path)
    deletion.delete(tmp_path, gone)
    assert [path.name for path in events.parent.iterdir()] == ["notes.txt"]


def test_a_session_that_a_writer_has_open_stays(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert journal.append("s", b'{"timestamp":"x"}\n')
    events = layout.events_file(layout.session_folder(tmp_path, "s"))
    assert remove(tmp_path, events) == "a writer has its file open"
    journal.close()
    assert remove(tmp_path, events) == ""


def test_a_session_that_has_grown_stays(tmp_path: Path) -> None:
    events = write_session(tmp_path, "s")
    known = size(events)
    write_session(tmp_path, "s")
    assert deletion.remove(tmp_path, events.parent, known) == "it was written to meanwhile"
    assert events.exists()


def test_a_session_that_is_gone_already_is_told(tmp_path: Path) -> None:
    assert deletion.remove(tmp_path, tmp_path / "session-s", 10) == "its file is gone"
    assert list(deletion.removed(tmp_path)) == []


@pytest.mark.parametrize("name", ["a!b", "a/b", "ü" * 200, "!"])
def test_odd_names_are_told_apart(tmp_path: Path, name: str) -> None:
    events = write_session(tmp_path, name)
    assert remove(tmp_path, events) == ""
    (gone,) = deletion.removed(tmp_path)
    assert gone.session == layout.folder_name(name)


def test_a_writer_that_waits_for_the_lock_meanwhile_begins_a_new_file(tmp_path: Path) -> None:
    events = write_session(tmp_path, "s")
    old = events.read_bytes()
    with events.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        assert remove(tmp_path, events) == "a writer has its file open"
    assert remove(tmp_path, events) == ""
    journal = Journal(tmp_path)
    assert journal.append("s", b'{"new":1}\n')
    journal.close()
    assert events.read_bytes() == b'{"new":1}\n'
    (gone,) = deletion.removed(tmp_path)
    assert gone.path.read_bytes() == old


REMOVALS = 25
MOST_WRITTEN = 20_000
"""Of each writer; a loaded machine removes seldom, and what was removed has to be read."""


def write_on_and_off(trace_dir: str, enough: Event, written: Queue[int]) -> None:
    """Open the session's file, write one event, close it, again and again until it is enough."""
    journal = Journal(Path(trace_dir))
    text = session_lines("s", 1, "search", True, "2026-02-06T22:10:00Z")[0]
    number = 0
    while not enough.is_set() and number < MOST_WRITTEN:
        assert journal.append("s", text.replace('"plan"', f'"number": {number}, "plan"').encode() + b"\n")
        journal.close()
        number += 1
    written.put(number)


def test_writers_that_come_back_while_a_session_is_removed_again_and_again_lose_nothing(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    enough, written = spawn.Event(), spawn.Queue()
    writers = [spawn.Process(target=write_on_and_off, args=(os.fspath(tmp_path), enough, written)) for _ in range(2)]
    for writer in writers:
        writer.start()
    events = layout.events_file(layout.session_folder(tmp_path, "s"))
    times = 0
    while any(writer.is_alive() for writer in writers):
        if events.exists():
            try:
                times += deletion.remove(tmp_path, events.parent, size(events)) == ""
            except FileNotFoundError:
                continue  # its size was asked for just as a writer had not made it yet
        if times >= REMOVALS:
            enough.set()
    counts = [written.get(timeout=50) for _ in writers]
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    left = [events] if events.exists() else []
    numbers = []
    for path in [*left, *(gone.path for gone in deletion.removed(tmp_path))]:
        with path.open("rb") as file:
            for line in read_journal(file, 0):
                assert line.problem == ""
                assert line.event is not None
                numbers.append(line.event.data["metadata"]["number"])
    assert sorted(numbers) == sorted(number for count in counts for number in range(count))
    assert times >= REMOVALS, "the file was hardly ever removed under the writers: this proves little"
