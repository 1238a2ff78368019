"""Memory and work follow what is open and what grows: not the length of a session, nor the number of idle ones."""

from __future__ import annotations

import fcntl
import gc
import json
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.assembler.journals import timestamp
from tests.delivery.rig import write_session
from tests.delivery.test_watch import Watching, everything
from tests.workplace import ROOT, environment
from tracebridge.assembler import Assembler, Place
from tracebridge.delivery.pace import FullSpeed
from tracebridge.event import event_from_json
from tracebridge.session_stream import SessionStream

SYSTEM_CALLS = ("stat", "open", "scandir", "listdir", "flock", "is_file")


@contextmanager
def counted_calls(watching: Watching) -> Iterator[Counter[str]]:
    """Counts lines of Python, its system calls by the name of the function, and the statements that SQLite runs."""
    counts: Counter[str] = Counter()

    def on_event(_: Any, event: str, function: Any) -> None:
        if event == "c_call" and function.__name__ in SYSTEM_CALLS:
            counts[function.__name__] += 1

    def on_line(frame: Any, event: str, _: Any) -> Any:
        # others run code of theirs whenever garbage is collected
        counts["lines"] += event == "line" and frame.f_globals.get("__name__", "").startswith("tracebridge.")
        return on_line

    with watching.state._file.db.unforked() as raw:
        pass
    raw.set_trace_callback(lambda statement: counts.update([statement.split()[0]]))
    sys.setprofile(on_event)
    sys.settrace(on_line)
    try:
        yield counts
    finally:
        sys.settrace(None)
        sys.setprofile(None)
        raw.set_trace_callback(None)


def look(watching: Watching) -> None:
    """What a shipper does that finds nothing to read."""
    watching.watch.refresh(FullSpeed())
    assert list(watching.watch.unread()) == []
    watching.watch.settle()


@contextmanager
def idle_sessions(folder: Path, number: int, end: bool) -> Iterator[Watching]:
    """A watch that comes to `number` sessions, all of which were read."""
    for name in range(number):
        write_session(folder, f"{name:05}", turns=1, end=end)
    before = Watching(folder)
    before.read()
    before.state.close()
    watching = Watching(folder)
    yield watching
    watching.state.close()


@pytest.mark.parametrize("end", [True, False], ids=["ended", "open"])
def test_a_look_costs_the_same_however_many_sessions_are_idle(tmp_path: Path, end: bool) -> None:
    costs = []
    for number in (3, 300):
        with idle_sessions(tmp_path / str(number), number, end) as watching:
            look(watching)
            with counted_calls(watching) as counts:
                look(watching)
            costs.append(counts)
    assert costs[0] == costs[1]
    assert costs[0]["SELECT"] > 0
    assert costs[0]["lines"] < 200


@pytest.mark.parametrize("end", [True, False], ids=["ended", "open"])
def test_a_scan_asks_the_state_for_many_sessions_at_once_and_the_disk_once_for_each(tmp_path: Path, end: bool) -> None:
    with idle_sessions(tmp_path, 300, end) as watching:
        with counted_calls(watching) as counts:
            look(watching)
        assert counts["SELECT"] < 10
        assert counts["scandir"] == 1
        assert counts["flock"] == 300
        assert 300 <= counts["stat"] <= 300 + 10, "the state's own file is looked at too, once for each question"
        # a scan that only looks for what nobody has announced need not ask who holds the files
        watching.watch._scanned_at -= 3601
        with counted_calls(watching) as counts:
            look(watching)
        assert counts["SELECT"] < 10
        assert counts["flock"] == 0
        assert 300 <= counts["stat"] <= 300 + 10


def test_no_stream_is_held_for_a_session_that_only_waits(tmp_path: Path) -> None:
    with idle_sessions(tmp_path, 50, end=False) as watching:
        look(watching)
        gc.collect()
        streams = [found for found in gc.get_objects() if isinstance(found, SessionStream)]
        assert [stream for stream in streams if stream.path.is_relative_to(tmp_path)] == []
        assert len(watching.watch._waiting) == 50


def test_many_sessions_that_writers_hold_are_not_all_asked_for_at_each_look(tmp_path: Path) -> None:
    files = [write_session(tmp_path, f"{name:05}", turns=0).open("rb") for name in range(250)]
    for file in files:
        fcntl.flock(file, fcntl.LOCK_SH)
    watching = Watching(tmp_path)
    watching.read()
    with counted_calls(watching) as counts:
        look(watching)
    assert counts["flock"] == 100
    for file in files:
        file.close()
    for _ in range(6):
        look(watching)
    assert watching.watch._growing == {}
    watching.state.close()


# --- one long session ------------------------------------------------------------------------------------------------


def event(number: int, event_type: str, turn: int = 0, ms: float | None = None, **data: Any) -> dict[str, Any]:
    line = {"timestamp": timestamp(number), "event_type": event_type, "session_id": "s", "run_id": "run-a"}
    return line | {"turn": turn, "duration_ms": ms, "data": data}


def write_long_session(path: Path, events: int) -> None:
    """Turns of calls, and no end."""
    encode = msgspec.json.Encoder().encode
    with path.open("wb") as file:
        file.write(encode(event(0, "session.start", metadata={"plan": "pro"})) + b"\n")
        for number in range(1, events, 6):
            turn = number
            for step, kind in enumerate(("turn.start", "llm.request", "llm.response", "tool.call", "tool.result")):
                file.write(encode(event(number + step, kind, turn, model="m", tool_name="t", content="x" * 50)) + b"\n")
            file.write(encode(event(number + 5, "turn.end", turn, output="y" * 50)) + b"\n")


def peak_of_reading(path: Path) -> tuple[int, int, int]:
    """The most memory that reading a session took, the number of its spans, and the bytes of the longest cursor."""
    stream = SessionStream(path, everything)
    spans = longest = 0
    gc.collect()
    tracemalloc.start()
    for number, step in enumerate(stream.steps()):
        spans += len(step.spans)
        if number % 1000 == 0:
            longest = max(longest, len(msgspec.msgpack.encode(stream.cursor)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak, spans, longest


def assert_flat(tmp_path: Path, fewer: int, more: int) -> None:
    peaks, cursors = [], []
    for events in (fewer, more):
        path = tmp_path / "events.jsonl"
        write_long_session(path, events)
        # in a process of its own: what other tests have left running here must not be counted
        program = f"import json; from {__name__} import *; print(json.dumps(peak_of_reading(Path({str(path)!r}))))"
        ran = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, env=environment(), check=True, cwd=ROOT
        )
        peak, spans, cursor = json.loads(ran.stdout)
        assert spans > events // 3
        peaks.append(peak)
        cursors.append(cursor)
    assert peaks[1] < peaks[0] + 200_000
    assert cursors[1] < cursors[0] + 40


def test_reading_a_session_takes_memory_for_what_is_open_and_not_for_its_length(tmp_path: Path) -> None:
    assert_flat(tmp_path, 1_500, 15_000)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_reading_a_very_long_session_takes_memory_for_what_is_open_and_not_for_its_length(tmp_path: Path) -> None:
    assert_flat(tmp_path, 20_000, 200_000)


# --- a backlog -------------------------------------------------------------------------------------------------------


def shipped(megabytes: int, longest_line_mb: int) -> dict[str, Any]:
    """What the benchmark measures of a process that ships a backlog."""
    sizes = ("--gigabytes", str(megabytes / 1000), "--longest-line-mb", str(longest_line_mb))
    command = [sys.executable, str(ROOT / "benchmarks" / "backlog.py"), *sizes, "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_shipping_a_backlog_takes_memory_and_state_for_what_is_on_the_way_and_not_for_the_backlog() -> None:
    small, large = shipped(50, longest_line_mb=1), shipped(150, longest_line_mb=1)
    for figures in (small, large):
        # the run of each session has no end, so its span is not sent
        assert figures["confirmed_events"] >= figures["events"] - 20
        assert figures["peak"] < figures["limit"]
    assert large["peak"] < small["peak"] + 20_000_000
    assert large["largest_state"] < small["largest_state"] + 5_000_000
    assert large["largest_wal"] < small["largest_wal"] + 8_000_000


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_shipping_a_line_of_16_mb_takes_ten_times_as_much_at_most() -> None:
    figures = shipped(60, longest_line_mb=16)
    assert figures["peak"] < figures["baseline"] + 40_000_000 + 10 * 16_000_000
    # what no request can hold is cut before it is written down: the state holds a request of it at most
    assert figures["largest_state"] < 12_000_000
    # the run of each session has no end, so its span is not sent; the long line is among those that are
    assert figures["confirmed_events"] >= figures["events"] - 20
    assert figures["largest_wal"] < 60_000_000


# --- much that is open at once --------------------------------------------------------------------------------------


def work_of(journal: list[dict[str, Any]], way_back: bool = False) -> int:
    """How many lines of Python are run to assemble a journal, each time around a loop counted."""
    parsed = [event_from_json(line) for line in journal]
    assembler = Assembler()
    work = 0

    def on_line(frame: Any, kind: str, _: Any) -> Any:
        nonlocal work
        work += frame.f_globals.get("__name__", "").startswith("tracebridge.")
        return on_line

    sys.settrace(on_line)
    try:
        for ordinal, line in enumerate(parsed):
            assembler.feed(line, Place(ordinal, ordinal))
            if way_back and ordinal == len(parsed) // 2:
                opened = [parsed[mark.ordinal] for mark in assembler.checkpoint().opened]
                assembler = Assembler.restored(assembler.checkpoint(), opened)
        assembler.expire(2**62)
    finally:
        sys.settrace(None)
    assert assembler.is_idle
    return work


def parallel_calls(count: int, with_ids: bool, timed: bool) -> list[dict[str, Any]]:
    def line(number: int, kind: str, call: int) -> dict[str, Any]:
        ids = {"trace_id": f"{1:032x}", "span_id": f"{call + 1:016x}"} if with_ids else {}
        ms = float(number - call) if timed and kind == "tool.result" else None
        return event(number, kind, 1, ms, tool_name="t", call_id=None if timed else f"call-{call}") | ids

    opened = [line(number, "tool.call", number) for number in range(count)]
    # the last one is answered first, which is the longest way through a list
    return opened + [line(count + number, "tool.result", count - 1 - number) for number in range(count)]


def runs_with_a_short_patience(count: int) -> list[dict[str, Any]]:
    """Many runs wait for an hour, and one gives something up at each event."""
    waiting = [event(0, "llm.request", 1) | {"run_id": f"run-{number}"} for number in range(count)]
    hasty = [event(0, "session.start", orphan_after_s=0.001)]
    return waiting + hasty + [event(number * 2, "llm.request", 1, model="m") for number in range(count)]


JOURNALS: dict[str, Callable[[int], list[dict[str, Any]]]] = {
    "calls with ids": lambda count: parallel_calls(count, with_ids=True, timed=False),
    "calls with names": lambda count: parallel_calls(count, with_ids=False, timed=False),
    "calls with times": lambda count: parallel_calls(count, with_ids=False, timed=True),
    "turns": lambda count: [event(number, "turn.start", number) for number in range(count)],
    "turns of one number": lambda count: [
        event(number, "turn.start", 1) | {"trace_id": f"{1:032x}", "span_id": f"{number + 1:016x}"}
        for number in range(count)
    ],
    "turns and their calls": lambda count: [
        line
        for number in range(count)
        for line in (event(number, "turn.start", number), event(number, "tool.call", number, tool_name="t"))
    ],
    "runs": lambda count: [event(number, "session.start") | {"run_id": f"run-{number}"} for number in range(count)],
    "a hasty run among patient ones": runs_with_a_short_patience,
}


@pytest.mark.parametrize("kind", list(JOURNALS))
def test_ten_times_as_much_that_is_open_at_once_is_ten_times_the_work(kind: str) -> None:
    few, many = JOURNALS[kind](100), JOURNALS[kind](1000)
    for way_back in (False, True):
        assert work_of(many, way_back) < 13 * work_of(few, way_back)
