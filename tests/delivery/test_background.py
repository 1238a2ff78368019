"""Each sink is shipped to on its own; `flush` and `stop` keep their time and tell what is left."""

from __future__ import annotations

import logging
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from tests.delivery.file_backend import FileBackend, FileSink, settings_for, stored
from tests.delivery.rig import write_session
from tests.waiting import grace_s, until
from tracebridge.config import Settings
from tracebridge.delivery.background import LOCK_CHECK_S, BackgroundShipper
from tracebridge.delivery.state import State
from tracebridge.journal import layout
from tracebridge.sink import Outcome, Receipt

AWAY = Receipt(outcome=Outcome.RETRY, message="503: away", retry_after_s=600.0)
EVENTS = 14
SPANS = 7

_HOLDER = """
import sys
from pathlib import Path
from tracebridge.delivery.lock import ShipperLock
print("ready", flush=True)
sys.stdin.readline()
assert ShipperLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def other_process(lock: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that takes a lock as soon as it is told to: it takes long to start."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        yield holder


def take_lock(holder: subprocess.Popen[str]) -> None:
    assert holder.stdin is not None
    assert holder.stdout is not None
    holder.stdin.write("\n")
    holder.stdin.flush()
    assert holder.stdout.readline() == "held\n"


class UnopenableBackend(FileBackend):
    def open_sink(self, settings: msgspec.Struct) -> FileSink:
        raise RuntimeError("this sink has a defect")


class Untellable(Exception):
    def __str__(self) -> str:
        raise LookupError("its words are in no catalogue")


class LateBackend(FileBackend):
    """Cannot be opened at once, and cannot say why."""

    is_late = True

    def open_sink(self, settings: msgspec.Struct) -> FileSink:
        if self.is_late:
            self.is_late = False
            raise Untellable
        return super().open_sink(settings)


def settings_of(tmp_path: Path, **backends: FileBackend) -> Settings:
    """One sink for each backend, under its name, with a file of its name."""
    trace_dir = tmp_path / "traces"
    sinks = tuple(
        msgspec.structs.replace(settings_for(trace_dir, backend, tmp_path / name).sinks[0], name=name)
        for name, backend in backends.items()
    )
    return Settings(trace_dir=trace_dir, sinks=sinks)


@contextmanager
def shipping(settings: Settings) -> Iterator[BackgroundShipper]:
    shipper = BackgroundShipper(settings)
    shipper.start()
    try:
        yield shipper
    finally:
        shipper.stop(0.0)


def elapsed(began: float) -> float:
    return time.monotonic() - began


def test_a_sink_that_hangs_holds_up_no_other_and_no_flush(tmp_path: Path) -> None:
    hanging, good = FileBackend(), FileBackend()
    settings = settings_of(tmp_path, hanging=hanging, good=good)
    write_session(settings.trace_dir, "a")
    with hanging.answers.guard, shipping(settings) as shipper:
        began = time.monotonic()
        assert shipper.flush(0.5) == EVENTS
        assert 0.5 <= elapsed(began) < 0.5 + grace_s()
        assert len(stored(tmp_path / "good")) == SPANS
        assert shipper.pending_by_sink() == {"hanging": EVENTS, "good": 0}


def test_a_sink_that_fails_and_cannot_say_why_is_tried_again(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, late=LateBackend())
    write_session(settings.trace_dir, "a")
    with shipping(settings):
        until(lambda: len(stored(tmp_path / "late")) == SPANS, "the sink has everything")


def test_a_sink_whose_trouble_the_log_of_the_agent_raises_at_is_tried_again(tmp_path: Path) -> None:
    def of_the_request(record: logging.LogRecord) -> bool:
        raise RuntimeError("Working outside of request context")

    settings = settings_of(tmp_path, late=LateBackend())
    write_session(settings.trace_dir, "a")
    logger = logging.getLogger("tracebridge")
    logger.addFilter(of_the_request)
    try:
        with shipping(settings):
            until(lambda: len(stored(tmp_path / "late")) == SPANS, "the sink has everything")
    finally:
        logger.removeFilter(of_the_request)


def test_a_sink_that_cannot_be_opened_holds_up_no_other_and_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_of(tmp_path, broken=UnopenableBackend(), good=FileBackend())
    write_session(settings.trace_dir, "a")
    with shipping(settings) as shipper:
        until(lambda: len(stored(tmp_path / "good")) == SPANS, "the good sink has everything")
        began = time.monotonic()
        assert shipper.flush(40) > 0
        assert elapsed(began) < 30, "nobody waits for a sink that is given up"
        assert shipper.troubles() == {"broken": "RuntimeError: this sink has a defect"}
    told = [record for record in caplog.records if "sink broken is not shipped to" in record.getMessage()]
    assert len(told) == 1, "it was tried again, and told once"


def test_a_sink_that_fails_for_a_while_is_shipped_to_again_without_a_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_of(tmp_path, sink=FileBackend())
    write_session(settings.trace_dir, "a")
    locks = layout.locks_folder(settings.trace_dir)
    locks.parent.mkdir(parents=True)
    locks.touch()  # a file where the folder should be
    with shipping(settings) as shipper:
        assert shipper.flush(5) > 0
        assert "FileExistsError" in shipper.troubles()["sink"]
        locks.unlink()
        assert shipper.flush(50) == 0
        assert shipper.troubles() == {}
    assert len(stored(tmp_path / "sink")) == SPANS
    assert "sink sink is shipped to again" in caplog.text


def test_a_newer_state_is_not_touched_not_waited_for_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_of(tmp_path, sink=FileBackend())
    write_session(settings.trace_dir, "a")
    file = layout.state_file(settings.trace_dir)
    State(file).close()
    with sqlite3.connect(file) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with shipping(settings) as shipper:
        began = time.monotonic()
        assert [shipper.flush(40) > 0 for _ in range(3)] == [True] * 3
        assert elapsed(began) < 30
        assert shipper.catches_up(40), "nobody waits for a sink that cannot work"
        assert shipper.is_behind()
    assert caplog.text.count("written by a newer tracebridge") == 1
    assert stored(tmp_path / "sink") == []


@pytest.mark.parametrize("deleted", ["the lock", "all locks", "the state folder", "the trace folder"])
def test_a_shipper_whose_lock_file_is_deleted_gives_up_and_competes_for_the_new_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, deleted: str
) -> None:
    settings = settings_of(tmp_path, sink=FileBackend())
    write_session(settings.trace_dir, "a")
    lock = layout.locks_folder(settings.trace_dir) / "sink.lock"
    paths = {
        "the lock": lock,
        "all locks": lock.parent,
        "the state folder": lock.parent.parent,
        "the trace folder": settings.trace_dir,
    }
    with shipping(settings) as first, other_process(lock) as second:
        assert first.flush(50) == 0
        if paths[deleted].is_dir():
            shutil.rmtree(paths[deleted])
        else:
            lock.unlink()
        lock.parent.mkdir(parents=True, exist_ok=True)
        take_lock(second)
        until(lambda: "were replaced" in caplog.text, "the first one knows", LOCK_CHECK_S + grace_s())
        write_session(settings.trace_dir, "b")
        assert first.flush(0.5) > 0, "the first one ships no more"
        second.communicate("")
        assert first.flush(50) == 0
    assert {span.session_id for span in stored(tmp_path / "sink")} == {"a", "b"}
    if "lock" in deleted:
        assert len(stored(tmp_path / "sink")) == 2 * SPANS


def test_a_trace_folder_that_was_deleted_is_not_made_again_by_who_ships(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_of(tmp_path, sink=FileBackend())
    write_session(settings.trace_dir, "a")
    with shipping(settings) as shipper:
        assert shipper.flush(50) == 0
        shutil.rmtree(settings.trace_dir)
        until(lambda: "were replaced" in caplog.text, "it knows", LOCK_CHECK_S + grace_s())
        assert shipper.flush(50) == 0
    assert not settings.trace_dir.exists()


def test_a_request_that_raises_is_settled_and_sent_again(tmp_path: Path) -> None:
    backend = FileBackend()
    backend.answers.scripted = [RuntimeError("a defect in the sink")]
    settings = settings_of(tmp_path, sink=backend)
    write_session(settings.trace_dir, "a")
    with shipping(settings) as shipper:
        assert shipper.flush(50) == 0
    assert len(stored(tmp_path / "sink")) == SPANS


def test_flush_tells_how_many_events_are_left_when_the_backend_is_away(tmp_path: Path) -> None:
    backend = FileBackend()
    backend.answers.scripted = [AWAY]
    settings = settings_of(tmp_path, sink=backend)
    write_session(settings.trace_dir, "a")
    with shipping(settings) as shipper:
        began = time.monotonic()
        assert shipper.flush(0.5) == EVENTS
        assert elapsed(began) < 0.5 + grace_s()
        assert shipper.troubles() == {"sink": "503: away"}


def test_what_is_still_open_is_not_left(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, sink=FileBackend())
    write_session(settings.trace_dir, "a", end=False)
    with shipping(settings) as shipper:
        assert shipper.flush(50) == 0
    assert {span.kind for span in stored(tmp_path / "sink")} == {"turn", "tool"}


def test_flush_covers_what_was_written_just_before_it_every_time(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, sink=FileBackend())
    with shipping(settings) as shipper:
        assert shipper.flush(50) == 0
        # appended unannounced to sessions that the first scan does not know would be found hourly only
        for number in range(1, 6):
            layout.opened_log(settings.trace_dir).parent.mkdir(exist_ok=True)
            write_session(settings.trace_dir, f"s{number}")
            with layout.opened_log(settings.trace_dir).open("a") as log:
                log.write(f"session-s{number}\n")
            assert shipper.flush(50) == 0
            assert len(stored(tmp_path / "sink")) == number * SPANS


def test_stop_keeps_its_time_while_a_request_hangs_and_what_is_left_goes_out_the_next_time(tmp_path: Path) -> None:
    backend = FileBackend()
    settings = settings_of(tmp_path, sink=backend)
    write_session(settings.trace_dir, "a")
    with backend.answers.guard:
        shipper = BackgroundShipper(settings)
        shipper.start()
        began = time.monotonic()
        assert shipper.stop(0.5) == EVENTS
        assert elapsed(began) < 0.5 + grace_s()
        until(lambda: not any(thread.name == "tracebridge-sink" for thread in threading.enumerate()), "it ends")
    until(lambda: len(stored(tmp_path / "sink")) == SPANS, "the request that hung is answered after all")
    with shipping(settings) as again:
        assert again.flush(50) == 0
    assert len(stored(tmp_path / "sink")) == SPANS, "the request was settled by reading back, not repeated"


def test_stopping_leaves_no_thread_and_gives_the_locks_up(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, one=FileBackend(), two=FileBackend())
    before = set(threading.enumerate())
    shipper = BackgroundShipper(settings)
    shipper.start()
    assert shipper.stop(10) == 0
    until(lambda: set(threading.enumerate()) <= before, "its threads end")
    with shipping(settings) as again:
        assert again.flush(50) == 0


def test_another_process_takes_over_when_the_one_that_ships_ends(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, sink=FileBackend())
    write_session(settings.trace_dir, "a")
    lock = layout.locks_folder(settings.trace_dir) / "sink.lock"
    with other_process(lock) as holder:
        take_lock(holder)
        with shipping(settings) as shipper:
            assert shipper.flush(0.3) > 0, "another process ships, so this one cannot"
            assert stored(tmp_path / "sink") == []
            holder.kill()
            assert shipper.flush(50) == 0
    assert len(stored(tmp_path / "sink")) == SPANS


def test_of_two_one_ships_and_both_know_what_is_delivered(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, sink=FileBackend())
    for number in range(20):
        write_session(settings.trace_dir, f"s{number}")
    with shipping(settings) as one, shipping(settings) as two:
        assert (one.flush(50), two.flush(50)) == (0, 0), "also the one that does not ship knows that it is delivered"
    assert len(stored(tmp_path / "sink")) == 20 * SPANS
