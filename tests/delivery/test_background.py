"""Each sink is shipped to on its own; `flush` and `stop` keep their time and tell what is left."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from tests.delivery.file_backend import FileBackend, FileSink, settings_for, stored
from tests.delivery.rig import write_session
from tracebridge.config import Settings
from tracebridge.delivery.background import BackgroundShipper
from tracebridge.journal import layout
from tracebridge.sink import Outcome, Receipt

AWAY = Receipt(outcome=Outcome.RETRY, message="503: away", retry_after_s=600.0)
EVENTS = 14
SPANS = 7

_HOLDER = """
import sys
from pathlib import Path
from tracebridge.delivery.lock import ShipperLock
assert ShipperLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
sys.stdin.read()
"""


class UnopenableBackend(FileBackend):
    def open_sink(self, settings: msgspec.Struct) -> FileSink:
        raise RuntimeError("this sink has a defect")


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


def until(condition: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.01)


def elapsed(began: float) -> float:
    return time.monotonic() - began


def test_a_sink_that_hangs_holds_up_no_other_and_no_flush(tmp_path: Path) -> None:
    hanging, good = FileBackend(), FileBackend()
    settings = settings_of(tmp_path, hanging=hanging, good=good)
    write_session(settings.trace_dir, "a")
    with hanging.answers.guard, shipping(settings) as shipper:
        began = time.monotonic()
        assert shipper.flush(0.5) == EVENTS
        assert 0.5 <= elapsed(began) < 3
        assert len(stored(tmp_path / "good")) == SPANS
        assert shipper.pending_by_sink() == {"hanging": EVENTS, "good": 0}


def test_a_sink_that_cannot_be_opened_holds_up_no_other_and_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_of(tmp_path, broken=UnopenableBackend(), good=FileBackend())
    write_session(settings.trace_dir, "a")
    with shipping(settings) as shipper:
        until(lambda: len(stored(tmp_path / "good")) == SPANS, "the good sink has everything")
        began = time.monotonic()
        assert shipper.flush(5) > 0
        assert elapsed(began) < 4, "nobody waits for a sink that is given up"
        assert shipper.troubles() == {"broken": "RuntimeError: this sink has a defect"}
    assert "sink broken is not shipped to any more" in caplog.text


def test_a_request_that_raises_is_settled_and_sent_again(tmp_path: Path) -> None:
    backend = FileBackend()
    backend.answers.scripted = [RuntimeError("a defect in the sink")]
    settings = settings_of(tmp_path, sink=backend)
    write_session(settings.trace_dir, "a")
    with shipping(settings) as shipper:
        assert shipper.flush(10) == 0
    assert len(stored(tmp_path / "sink")) == SPANS


def test_flush_tells_how_many_events_are_left_when_the_backend_is_away(tmp_path: Path) -> None:
    backend = FileBackend()
    backend.answers.scripted = [AWAY]
    settings = settings_of(tmp_path, sink=backend)
    write_session(settings.trace_dir, "a")
    with shipping(settings) as shipper:
        began = time.monotonic()
        assert shipper.flush(0.5) == EVENTS
        assert elapsed(began) < 3
        assert shipper.troubles() == {"sink": "503: away"}


def test_what_is_still_open_is_not_left(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, sink=FileBackend())
    write_session(settings.trace_dir, "a", end=False)
    with shipping(settings) as shipper:
        assert shipper.flush(10) == 0
    assert {span.kind for span in stored(tmp_path / "sink")} == {"turn", "tool"}


def test_flush_covers_what_was_written_just_before_it_every_time(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, sink=FileBackend())
    with shipping(settings) as shipper:
        assert shipper.flush(10) == 0
        # appended unannounced to sessions that the first scan does not know would be found hourly only
        for number in range(1, 6):
            layout.opened_log(settings.trace_dir).parent.mkdir(exist_ok=True)
            write_session(settings.trace_dir, f"s{number}")
            with layout.opened_log(settings.trace_dir).open("a") as log:
                log.write(f"session-s{number}\n")
            assert shipper.flush(10) == 0
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
        assert elapsed(began) < 3
        until(lambda: not shipper.is_alive(), "its threads end")
    until(lambda: len(stored(tmp_path / "sink")) == SPANS, "the request that hung is answered after all")
    with shipping(settings) as again:
        assert again.flush(10) == 0
    assert len(stored(tmp_path / "sink")) == SPANS, "the request was settled by reading back, not repeated"


def test_stopping_leaves_no_thread_and_gives_the_locks_up(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, one=FileBackend(), two=FileBackend())
    before = set(threading.enumerate())
    shipper = BackgroundShipper(settings)
    shipper.start()
    assert shipper.stop(10) == 0
    until(lambda: set(threading.enumerate()) <= before, "its threads end")
    with shipping(settings) as again:
        assert again.flush(10) == 0


def test_another_process_takes_over_when_the_one_that_ships_ends(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, sink=FileBackend())
    write_session(settings.trace_dir, "a")
    lock = layout.locks_folder(settings.trace_dir) / "sink.lock"
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with shipping(settings) as shipper:
            assert shipper.flush(0.3) > 0, "another process ships, so this one cannot"
            assert stored(tmp_path / "sink") == []
            holder.kill()
            assert shipper.flush(10) == 0
    assert len(stored(tmp_path / "sink")) == SPANS


def test_of_two_one_ships_and_both_know_what_is_delivered(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, sink=FileBackend())
    for number in range(20):
        write_session(settings.trace_dir, f"s{number}")
    with shipping(settings) as one, shipping(settings) as two:
        assert (one.flush(10), two.flush(10)) == (0, 0), "also the one that does not ship knows that it is delivered"
    assert len(stored(tmp_path / "sink")) == 20 * SPANS
