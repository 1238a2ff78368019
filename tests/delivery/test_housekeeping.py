"""One process tidies a spool up and names what is switched off, beside the shippers, and goes on after trouble."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from tests.delivery.file_backend import FileBackend, stored
from tests.delivery.rig import Rig, write_session
from tests.waiting import until
from tracebridge.config import Settings
from tracebridge.delivery.background import BackgroundShipper
from tracebridge.delivery.housekeeping import Housekeeping
from tracebridge.delivery.pace import FullSpeed
from tracebridge.journal import layout
from tracebridge.journal.writer import Journal


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path, FileBackend())


def spool(rig: Rig, keep_s: float = 0.0) -> Settings:
    return msgspec.structs.replace(rig.settings, keep_journal=False, spool_keep=keep_s)


def test_a_spool_is_emptied_once_everything_is_delivered_and_shows(rig: Rig) -> None:
    for number in range(5):
        write_session(rig.trace_dir, f"s{number}")
    shipper = BackgroundShipper(spool(rig), FullSpeed)
    shipper.start()
    try:
        until(lambda: not list(layout.session_folders(rig.trace_dir)), "the spool is empty")
    finally:
        shipper.stop(5)
    assert len(stored(rig.file)) == 35


def test_a_kept_journal_stays(rig: Rig) -> None:
    write_session(rig.trace_dir, "a")
    kept = Housekeeping(msgspec.structs.replace(rig.settings, spool_keep=0.0), FullSpeed())
    kept.start()
    kept.join(50)
    assert len(list(layout.session_folders(rig.trace_dir))) == 1


def test_a_spool_keeps_a_session_for_as_long_as_it_is_told_to(rig: Rig) -> None:
    write_session(rig.trace_dir, "a")
    rig.ship()
    tidying = Housekeeping(spool(rig, keep_s=3600.0), FullSpeed())
    tidying.start()
    until(lambda: tidying.passes > 0, "it has looked")
    tidying.ask_to_stop()
    tidying.join(50)
    assert len(list(layout.session_folders(rig.trace_dir))) == 1


def test_a_writer_that_comes_back_while_its_spooled_session_goes_again_and_again_loses_nothing(rig: Rig) -> None:
    journal = Journal(rig.trace_dir)
    shipper = BackgroundShipper(spool(rig), FullSpeed)
    shipper.start()
    try:
        for _ in range(3):
            path = write_and_close(journal, rig)
            until(lambda path=path: not path.exists(), "the session's file is gone")  # type: ignore[misc]
    finally:
        shipper.stop(5)
    assert len(stored(rig.file)) == 3
    assert len({span.span_id for span in stored(rig.file)}) == 3


def write_and_close(journal: Journal, rig: Rig) -> Path:
    """One thought, with ids of its own, in a session that nobody else writes to."""
    moment = time.time_ns()
    event = {
        "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "event_type": "thinking",
        "session_id": "s",
        "run_id": f"run-{moment}",
        "turn": 0,
        "duration_ms": None,
        "data": {"content": "thought"},
        "seq": 0,
        "trace_id": f"{moment:032x}",
        "span_id": f"{moment:016x}",
    }
    assert journal.append("s", msgspec.json.encode(event) + b"\n")
    journal.close()
    return layout.events_file(layout.session_folder(rig.trace_dir, "s"))


def test_what_is_switched_off_with_work_pending_is_named_at_the_start(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    write_session(rig.trace_dir, "a")
    rig.ship()
    write_session(rig.trace_dir, "b")
    off = Housekeeping(Settings(trace_dir=rig.trace_dir), FullSpeed())
    off.start()
    off.join(50)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(
        f"sink file ({rig.file}) is switched off and is still owed 1 sessions, and 0 events in flight"
    )
    assert "tracebridge forget file" in line


def test_two_do_not_tidy_up_the_same_folder_and_the_second_takes_over(rig: Rig) -> None:
    first, second = (Housekeeping(spool(rig), FullSpeed()) for _ in range(2))
    first.start()
    until(lambda: first.passes > 0, "the first one has looked")
    second.start()
    write_session(rig.trace_dir, "a")
    passes = first.passes
    until(lambda: first.passes > passes, "the first one goes on")
    assert second.passes == 0
    first.ask_to_stop()
    first.join(50)
    until(lambda: second.passes > 0, "the second one has taken over")
    second.ask_to_stop()
    second.join(50)


def test_it_goes_on_after_the_state_was_deleted_under_it(rig: Rig) -> None:
    write_session(rig.trace_dir, "a")
    rig.ship()
    tidying = Housekeeping(spool(rig, keep_s=1.0), FullSpeed())
    tidying.start()
    until(lambda: tidying.passes > 0, "it has looked")
    rig.lose_the_state()
    rig.ship()
    until(lambda: not list(layout.session_folders(rig.trace_dir)), "the spool is empty")
    tidying.ask_to_stop()
    tidying.join(50)
