"""What a spool deletes is written down by any number of processes, and forgotten by name."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tracebridge.journal import layout
from tracebridge.journal.spooled import SpooledLog


@pytest.fixture
def log(tmp_path: Path) -> SpooledLog:
    return SpooledLog(tmp_path)


def test_what_was_noted_is_known_by_name_in_the_order_in_which_it_was_noted(log: SpooledLog) -> None:
    assert log.sessions() == {}
    log.append("session-a%20b", "a b")
    (first,) = log.sessions()["session-a%20b"]
    log.append("session-é", "é\n😀")
    log.append("session-a%20b", "a b")
    found = log.sessions()
    names = {name: {one.session_id for one in notes} for name, notes in found.items()}
    assert names == {"session-a%20b": {"a b"}, "session-é": {"é\n😀"}}
    assert found["session-a%20b"][0] == first
    assert found["session-a%20b"][1].gone_ns > first.gone_ns


def test_a_full_disk_is_told_with_the_log_that_it_keeps_from_being_written(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="/dev/full"):
        SpooledLog(tmp_path, Path("/dev/full")).append("session-a", "a")


def test_every_note_of_a_session_outlives_that_another_one_is_forgotten(log: SpooledLog) -> None:
    notes = [log.append("session-a", "a", [1]), log.append("session-a", "a")]
    log.append("session-b", "b")
    log.forget(["session-b"])
    assert log.sessions() == {"session-a": notes}


def test_a_note_that_is_withdrawn_leaves_what_was_noted_before(log: SpooledLog) -> None:
    first = log.append("session-a", "a")
    log.withdraw(log.append("session-a", "a"))
    assert log.sessions() == {"session-a": [first]}
    last = log.append("session-b", "b")
    log.withdraw(first)
    assert log.sessions() == {"session-b": [last]}
    log.withdraw(last)
    assert log.sessions() == {}


def test_half_a_line_of_a_writer_that_died_spoils_no_other(log: SpooledLog, tmp_path: Path) -> None:
    log.append("session-a", "a")
    with layout.spooled_log(tmp_path).open("ab") as file:
        file.write(b'[17,"sess')
    log.append("session-b", "b")
    assert set(log.sessions()) == {"session-a", "session-b"}


def test_nothing_is_lost_that_is_noted_while_other_sessions_are_forgotten(log: SpooledLog) -> None:
    def note(start: int) -> None:
        for number in range(start, start + 50):
            log.append(f"session-{number}", str(number))

    threads = [threading.Thread(target=note, args=(start,)) for start in (0, 50, 100)]
    for thread in threads:
        thread.start()
    for number in range(1000, 1050):
        log.append(f"session-{number}", str(number))
        log.forget([f"session-{number}"])
    for thread in threads:
        thread.join()
    assert set(log.sessions()) == {f"session-{number}" for number in range(150)}
