from __future__ import annotations

import fcntl
import threading
from pathlib import Path

from tracebridge.journal import layout
from tracebridge.journal.opened import OpenedLog


def test_names_are_read_in_the_order_in_which_they_were_added(tmp_path: Path) -> None:
    log = OpenedLog(tmp_path)
    log.append("session-a")
    log.append("session-b")
    names, offset = log.tail()
    assert names == ["session-a", "session-b"]
    log.append("session-a")
    assert log.tail(offset) == (["session-a"], offset + len("session-a\n"))


def test_a_log_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert OpenedLog(tmp_path).tail(17) == ([], 0)


def test_a_line_that_is_still_being_written_is_left_for_later(tmp_path: Path) -> None:
    log = OpenedLog(tmp_path)
    log.append("session-a")
    with layout.opened_log(tmp_path).open("ab") as file:
        file.write(b"session-b")
    names, offset = log.tail()
    assert names == ["session-a"]
    with layout.opened_log(tmp_path).open("ab") as file:
        file.write(b"cd\n")
    assert log.tail(offset)[0] == ["session-bcd"]


def test_a_log_that_was_begun_anew_is_read_from_its_start(tmp_path: Path) -> None:
    log = OpenedLog(tmp_path)
    for _ in range(3):
        log.append("session-a")
    _, offset = log.tail()
    layout.opened_log(tmp_path).write_bytes(b"")
    log.append("session-b")
    assert log.tail(offset)[0] == ["session-b"]


def test_what_is_no_sessions_name_is_passed_over(tmp_path: Path) -> None:
    log = OpenedLog(tmp_path)
    log.append("session-a")
    with layout.opened_log(tmp_path).open("ab") as file:
        file.write(b"rubbish\xff\n\n")
    log.append("session-b")
    assert log.tail()[0] == ["session-a", "session-b"]


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
    writer.join(5)
    assert log.tail()[0] == ["session-kept", "session-b"]
