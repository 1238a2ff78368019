from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.waiting import grace_s
from tests.workplace import environment
from tracebridge.journal import layout
from tracebridge.journal.opened import OpenedLog


def begin_anew(trace_dir: Path) -> None:
    """Begin a log anew that need not be large for it."""
    OpenedLog(trace_dir, large=0).begin_anew()


def first_line(trace_dir: Path) -> bytes:
    return layout.opened_log(trace_dir).read_bytes().partition(b"\n")[0]


def test_names_are_read_in_the_order_in_which_they_were_added(tmp_path: Path) -> None:
    log = OpenedLog(tmp_path)
    log.append("session-a")
    log.append("session-b")
    tail = log.tail()
    assert tail.names == ["session-a", "session-b"]
    log.append("session-a")
    added = log.tail(tail.position)
    assert (added.names, added.is_another) == (["session-a"], False)
    assert added.position.offset == tail.position.offset + len("session-a\n")
    assert log.tail(added.position).names == []


def test_a_log_that_is_not_there_is_empty(tmp_path: Path) -> None:
    tail = OpenedLog(tmp_path).tail()
    assert (tail.names, tail.is_another) == ([], False)
    log = OpenedLog(tmp_path)
    log.append("session-a")
    position = log.tail().position
    layout.opened_log(tmp_path).unlink()
    assert log.tail(position).names == []
    assert log.tail(position).position == position


def test_a_log_without_a_first_line_is_read_as_before(tmp_path: Path) -> None:
    path = layout.opened_log(tmp_path)
    path.parent.mkdir()
    path.write_bytes(b"session-a\nsession-b\n")
    log = OpenedLog(tmp_path)
    tail = log.tail()
    assert tail.names == ["session-a", "session-b"]
    log.append("session-c")
    added = log.tail(tail.position)
    assert (added.names, added.is_another) == (["session-c"], False)


def test_a_line_that_is_still_being_written_is_left_for_later(tmp_path: Path) -> None:
    log = OpenedLog(tmp_path)
    log.append("session-a")
    with layout.opened_log(tmp_path).open("ab") as file:
        file.write(b"session-b")
    tail = log.tail()
    assert tail.names == ["session-a"]
    with layout.opened_log(tmp_path).open("ab") as file:
        file.write(b"cd\n")
    assert log.tail(tail.position).names == ["session-bcd"]


def test_a_name_never_joins_the_half_line_of_a_writer_that_was_killed(tmp_path: Path) -> None:
    log = OpenedLog(tmp_path)
    log.append("session-a")
    with layout.opened_log(tmp_path).open("ab") as file:
        file.write(b"session-half")
    log.append("session-b")
    assert log.tail().names == ["session-a", "session-half", "session-b"]


def test_a_log_that_was_emptied_is_read_from_its_start(tmp_path: Path) -> None:
    log = OpenedLog(tmp_path)
    for _ in range(3):
        log.append("session-a")
    position = log.tail().position
    layout.opened_log(tmp_path).write_bytes(b"")
    assert log.tail(position).position == position
    log.append("session-b")
    tail = log.tail(position)
    assert (tail.names, tail.is_another) == (["session-b"], True)


def test_a_new_log_is_noticed_though_it_has_the_inode_of_the_old_one_and_is_longer(tmp_path: Path) -> None:
    log = OpenedLog(tmp_path)
    log.append("session-a")
    position = log.tail().position
    path = layout.opened_log(tmp_path)
    path.write_bytes(b"")  # keeps the inode
    for _ in range(10):
        log.append("session-b")
    status = path.stat()
    assert (status.st_dev, status.st_ino) == position.inode
    assert status.st_size > position.offset
    tail = log.tail(position)
    assert (tail.names, tail.is_another) == (["session-b"] * 10, True)


def test_what_is_no_sessions_name_is_passed_over(tmp_path: Path) -> None:
    log = OpenedLog(tmp_path)
    log.append("session-a")
    with layout.opened_log(tmp_path).open("ab") as file:
        file.write(b"rubbish\xff\n\n")
    log.append("session-b")
    assert log.tail().names == ["session-a", "session-b"]


def test_a_writer_that_waits_while_the_log_is_replaced_writes_into_the_new_one(tmp_path: Path) -> None:
    log = OpenedLog(tmp_path)
    log.append("session-a")
    path = layout.opened_log(tmp_path)
    with path.open("rb") as replaced:
        fcntl.flock(replaced, fcntl.LOCK_EX)
        writer = threading.Thread(target=log.append, args=("session-b",))
        writer.start()
        path.unlink()
        path.write_bytes(b"session-kept\n")
    writer.join(50)
    assert log.tail().names == ["session-kept", "session-b"]


def test_a_folder_that_is_deleted_again_while_the_log_is_created_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deletions, create = 0, os.open

    def create_after_a_deletion(path: Path, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        nonlocal deletions
        if path == layout.opened_log(trace_dir) and deletions < 3:
            deletions += 1
            shutil.rmtree(trace_dir, ignore_errors=True)
        return create(path, flags, mode, dir_fd=dir_fd)

    trace_dir = tmp_path / "traces"
    monkeypatch.setattr(os, "open", create_after_a_deletion)
    OpenedLog(trace_dir).append("session-a")
    assert (deletions, OpenedLog(trace_dir).tail().names) == (3, ["session-a"])


def test_a_log_that_stays_locked_is_an_os_error_after_a_moment(tmp_path: Path) -> None:
    log = OpenedLog(tmp_path)
    log.append("session-a")
    with layout.opened_log(tmp_path).open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        begun = time.monotonic()
        with pytest.raises(BlockingIOError):
            log.append("session-b")
        assert time.monotonic() - begun < grace_s()
    log.append("session-c")
    assert log.tail().names == ["session-a", "session-c"]


@pytest.mark.parametrize("what", ["pipe", "folder"])
def test_what_is_no_file_in_its_place_is_an_os_error_and_holds_nobody_up(what: str, tmp_path: Path) -> None:
    path = layout.opened_log(tmp_path)
    path.parent.mkdir()
    if what == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    log = OpenedLog(tmp_path)
    with pytest.raises(OSError, match=r"Is a directory|is not a regular file"):
        log.append("session-a")
    assert log.tail().names == []


def test_a_large_log_is_begun_anew_and_its_new_id_is_its_own(tmp_path: Path) -> None:
    log = OpenedLog(tmp_path, large=1000)
    ids = set()
    for _ in range(500):
        if log.append("session-a"):
            log.begin_anew()
        ids.add(first_line(tmp_path))
    assert layout.opened_log(tmp_path).stat().st_size < 1100
    assert len(ids) > 4
    assert [path.name for path in layout.state_folder(tmp_path).iterdir()] == ["opened.log"]


def test_only_one_of_those_who_find_the_log_large_begins_it_anew(tmp_path: Path) -> None:
    log = OpenedLog(tmp_path, large=50)
    while not log.append("session-a"):
        pass
    log.begin_anew()
    log.append("session-b")
    log.begin_anew()
    assert log.tail().names == ["session-b"]


def test_reading_goes_on_over_any_number_of_new_logs(tmp_path: Path) -> None:
    log = OpenedLog(tmp_path)
    log.append("session-a")
    tail = log.tail()
    for number in range(3):
        begin_anew(tmp_path)
        log.append(f"session-{number}")
    tail = log.tail(tail.position)
    assert (tail.names, tail.is_another) == (["session-2"], True)
    assert not log.tail(tail.position).is_another


def test_what_a_killed_process_left_of_a_new_log_is_cleared_away(tmp_path: Path) -> None:
    log = OpenedLog(tmp_path)
    log.append("session-a")
    (layout.state_folder(tmp_path) / "opened.log.new-0badcafe").write_bytes(b"log 12")
    begin_anew(tmp_path)
    assert [path.name for path in layout.state_folder(tmp_path).iterdir()] == ["opened.log"]


def test_a_first_line_that_could_not_be_written_whole_is_written_again(tmp_path: Path) -> None:
    path = layout.opened_log(tmp_path)
    path.parent.mkdir()
    path.write_bytes(b"log 0123")
    log = OpenedLog(tmp_path)
    assert log.tail().names == []
    log.append("session-a")
    tail = log.tail()
    assert tail.names == ["session-a"]
    assert tail.position.log_id


APPENDER = """
import sys
from pathlib import Path
from tracebridge.journal.opened import OpenedLog
log = OpenedLog(Path(sys.argv[1]), large=2000)
number = 0
while True:
    name = f"session-{sys.argv[2]}-{number}"
    large = log.append(name)
    # written only after the name stands in the log, as a session's events are
    Path(sys.argv[1], name).touch()
    if large:
        log.begin_anew()
    number += 1
"""


def test_a_reader_that_looks_around_at_each_new_log_misses_no_name_while_writers_are_killed(tmp_path: Path) -> None:
    """Writers add names and begin the log anew every few dozen; each is killed again and again at any moment."""
    log = OpenedLog(tmp_path)
    known: set[str] = set()
    others = 0
    position = log.tail().position
    long_enough = time.monotonic() + 3

    def start(number: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", APPENDER, str(tmp_path), str(number)], env=environment())

    def look() -> None:
        nonlocal position, others
        tail = log.tail(position)
        position = tail.position
        known.update(tail.names)
        if tail.is_another:
            others += 1
            known.update(path.name for path in tmp_path.glob("session-*"))

    writers = [start(number) for number in range(3)]
    started = 3
    try:
        while time.monotonic() < long_enough or others <= 5 or started <= 3:
            for _ in range(20):
                look()
            if len(known) > 100 * started:
                victim = writers.pop(0)
                victim.send_signal(signal.SIGKILL)
                victim.wait(50)
                writers.append(start(started))
                started += 1
    finally:
        for writer in writers:
            writer.kill()
            writer.wait(50)
    look()
    written = {path.name for path in tmp_path.glob("session-*")}
    assert written <= known
    assert layout.opened_log(tmp_path).stat().st_size < 4000
    assert len(list(layout.state_folder(tmp_path).glob("opened.log.new-*"))) <= len(writers)
