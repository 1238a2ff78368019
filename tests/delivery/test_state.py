"""The state keeps what it is told over restarts, and refuses files that it cannot rely on."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import msgspec
import pytest

from tracebridge.assembler import Checkpoint
from tracebridge.assembler.assemble import OpenEvent, OpenRun
from tracebridge.delivery.state import SCHEMA_VERSION, Advance, Batch, SpanRef, State
from tracebridge.errors import StateError
from tracebridge.session_stream import Cursor


def ref(number: int, events: int = 2) -> SpanRef:
    return SpanRef(f"{number:032x}", f"{number:016x}", "s", number, events)


def batch(*numbers: int) -> Batch:
    return Batch(parts=tuple(b"%d" % number for number in numbers), refs=tuple(map(ref, numbers)), fate="unsent")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".tracebridge" / "state.sqlite"


def test_a_new_state_has_the_schema_of_this_version(path: Path) -> None:
    State(path).close()
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    database.close()
    assert {"target", "folder", "cursor", "in_flight", "dead", "counter", "condition", "problem", "rules"} <= tables


def test_opening_it_again_changes_nothing(path: Path) -> None:
    first = State(path)
    target = first.target("langfuse", "http://a")
    first.close()
    second = State(path)
    assert second.target("langfuse", "http://a") == target
    second.close()


def test_any_number_may_open_a_new_state_at_the_same_moment(path: Path) -> None:
    path.parent.mkdir()
    ready = threading.Barrier(8)
    failures: list[BaseException] = []

    def open_it(number: int) -> None:
        ready.wait()
        try:
            state = State(path)
            state.target("sink", str(number))
            state.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=open_it, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    state = State(path)
    assert len({state.target("sink", str(number)) for number in range(8)}) == 8
    state.close()


def test_a_state_of_a_newer_tracebridge_is_refused_with_both_versions_and_left_alone(path: Path) -> None:
    State(path).close()
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    database.close()
    with pytest.raises(StateError, match=f"newer tracebridge .schema {SCHEMA_VERSION + 1}, .* {SCHEMA_VERSION}"):
        State(path)
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION + 1,)
    database.close()


def test_somebody_elses_sqlite_file_is_refused_and_left_alone(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE theirs (x)")
    database.close()
    with pytest.raises(StateError, match="is not a tracebridge state"):
        State(path)
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]
    database.close()


@pytest.mark.parametrize("content", [b"no database at all " * 100, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_damaged_file_is_refused_with_its_name_and_what_to_do(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(StateError, match="Move the file away") as refused:
        State(path)
    assert str(path) in str(refused.value)
    assert path.read_bytes() == content


def test_two_backends_of_one_sink_name_are_apart(path: Path) -> None:
    state = State(path)
    here, there = state.target("langfuse", "http://here"), state.target("langfuse", "http://there")
    folder = state.folder(path.parent)
    advance = Advance(folder=folder, session_id="session-s", cursor=Cursor(offset=10, ordinal=1))
    (written,) = state.write_down(here, [batch(1, 2)], [advance], [])

    assert state.cursor(here, folder, "session-s") == Cursor(offset=10, ordinal=1)
    assert state.cursor(there, folder, "session-s") is None
    assert (state.positions(here, folder), state.positions(there, folder)) == ({"session-s": 10}, {})
    assert (list(state.in_flight(here)), list(state.in_flight(there))) == ([written], [])

    state.confirm(here, written)
    assert state.account(here).counters["confirmed_spans"] == 2
    assert state.account(there).counters == {}
    state.close()


def test_what_is_in_flight_and_what_is_open_survive_a_restart(path: Path) -> None:
    opened = OpenEvent(offset=3, ordinal=1, trace_id="1" * 32, parent_id="2" * 16)
    checkpoint = Checkpoint(opened=(opened,), runs=(OpenRun(run_id="r", last_ns=5),))
    cursor = Cursor(offset=100, ordinal=4, checkpoint=checkpoint)
    state = State(path)
    target, folder = state.target("otel", "http://a"), state.folder(path.parent)
    advance = Advance(folder=folder, session_id="session-s", cursor=cursor)
    (written,) = state.write_down(target, [batch(1, 2)], [advance], [(folder, "session-s", 7, "not JSON")])
    state.set_fate(written, "unknown")

    after = State(path)  # the first one is still open, as a killed process leaves it
    assert list(after.in_flight(target)) == [msgspec.structs.replace(written, fate="unknown")]
    assert after.cursor(target, folder, "session-s") == cursor
    assert after.open_sessions(target, folder) == ["session-s"]
    assert after.problems() == [(path.parent.resolve(), "session-s", 7, "not JSON")]
    after.close()
    state.close()


def test_a_step_that_fails_leaves_nothing_behind(path: Path) -> None:
    state = State(path)
    target, folder = state.target("otel", "http://a"), state.folder(path.parent)
    advance = Advance(folder=folder, session_id="session-s", cursor=Cursor(offset=1))
    unwritable = (folder, "session-s", 2**70, "an offset that SQLite cannot hold")
    with pytest.raises(OverflowError):
        state.write_down(target, [batch(1)], [advance], [unwritable])
    assert state.cursor(target, folder, "session-s") is None
    assert list(state.in_flight(target)) == []
    state.close()


def test_every_span_of_a_batch_ends_up_confirmed_or_dead_and_is_counted_once(path: Path) -> None:
    state = State(path)
    target = state.target("otel", "http://a")
    (written,) = state.write_down(target, [batch(1, 2, 3, 4)], [], [])
    assert state.in_flight_events(target) == 8

    bad, rest = state.replace(target, written, [batch(3), batch(2, 4)])  # the first one arrived
    state.bury(target, bad, "too odd")
    state.confirm(target, rest)

    account = state.account(target)
    assert (account.in_flight_spans, account.dead_spans) == (0, 1)
    assert account.counters["confirmed_spans"] == 3
    assert account.counters["confirmed_events"] == 6
    (letter,) = state.dead_letters(target)
    assert (letter.sink, letter.reason, letter.ref) == ("otel", "too odd", ref(3))
    state.close()


def test_a_folder_has_one_number_by_whatever_way_it_is_named(path: Path, tmp_path: Path) -> None:
    state = State(path)
    (tmp_path / "old").mkdir()
    (tmp_path / "link").symlink_to("old")
    assert state.folder(tmp_path / "old") == state.folder(tmp_path / "link") == state.folder(tmp_path / "x/../old")
    assert state.folders() == {1: (tmp_path / "old").resolve()}
    state.close()


def test_what_a_fingerprint_stood_for_is_kept(path: Path) -> None:
    state = State(path)
    state.keep_rules("abc", "the first text")
    state.keep_rules("abc", "the first text")
    assert (state.rules("abc"), state.rules("def")) == ("the first text", None)
    state.close()
