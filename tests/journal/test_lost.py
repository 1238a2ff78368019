"""What could not be written is written down as lost as soon as something can be written again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tracebridge.journal import layout
from tracebridge.journal.lost import lost_events, write_down
from tracebridge.journal.writer import Journal

EVENT = b'{"timestamp":"2026-02-06T22:10:00Z"}\n'


def in_the_way(trace_dir: Path) -> Path:
    """A file where a session's folder should be."""
    trace_dir.mkdir(exist_ok=True)
    path = layout.session_folder(trace_dir, "s")
    path.write_text("in the way")
    return path


def test_losses_are_written_down_with_the_next_event_that_can_be_written(tmp_path: Path) -> None:
    obstacle = in_the_way(tmp_path)
    journal = Journal(tmp_path)
    assert [journal.append("s", EVENT) for _ in range(3)] == [False] * 3
    assert lost_events(tmp_path) == {}
    obstacle.unlink()
    assert journal.append("s", EVENT)
    assert sum(lost_events(tmp_path).values()) == 3
    assert journal.append("s", EVENT)
    journal.close()
    assert sum(lost_events(tmp_path).values()) == 3


def test_losses_are_written_down_at_the_end_if_no_event_can_be(tmp_path: Path) -> None:
    in_the_way(tmp_path)
    journal = Journal(tmp_path)
    assert journal.append("another", EVENT)
    assert not journal.append("s", EVENT)
    journal.close()
    assert sum(lost_events(tmp_path).values()) == 1


def test_losses_that_cannot_be_written_down_are_kept_until_they_can(tmp_path: Path) -> None:
    obstacle = in_the_way(tmp_path)
    layout.lost_log(tmp_path).mkdir(parents=True)
    journal = Journal(tmp_path)
    assert not journal.append("s", EVENT)
    journal.close()
    assert journal.has_losses_to_tell
    layout.lost_log(tmp_path).rmdir()
    obstacle.unlink()
    assert journal.append("s", EVENT)
    assert sum(lost_events(tmp_path).values()) == 1
    journal.close()


def test_several_processes_losses_add_up_and_a_line_in_part_is_passed_over(tmp_path: Path) -> None:
    layout.state_folder(tmp_path).mkdir(parents=True)
    write_down(tmp_path, {"journal: ENOSPC": 2})
    with layout.lost_log(tmp_path).open("ab") as file:
        file.write(b'{"time_ns": 1, "lo\n')
    write_down(tmp_path, {"journal: ENOSPC": 3, "journal: EACCES": 1})
    assert lost_events(tmp_path) == {"journal: ENOSPC": 5, "journal: EACCES": 1}


def test_a_forked_child_does_not_tell_its_parents_losses(tmp_path: Path) -> None:
    obstacle = in_the_way(tmp_path)
    journal = Journal(tmp_path)
    assert not journal.append("s", EVENT)
    obstacle.unlink()
    child = os.fork()
    if child == 0:
        os._exit(0 if journal.append("s", EVENT) and lost_events(tmp_path) == {} else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert journal.append("s", EVENT)
    assert sum(lost_events(tmp_path).values()) == 1
    journal.close()


@pytest.mark.parametrize("content", [b"", b"nonsense\n", b"[1]\n"])
def test_a_log_that_makes_no_sense_tells_nothing(tmp_path: Path, content: bytes) -> None:
    layout.state_folder(tmp_path).mkdir(parents=True)
    layout.lost_log(tmp_path).write_bytes(content)
    assert lost_events(tmp_path) == {}
