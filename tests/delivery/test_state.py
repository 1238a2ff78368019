"""The state keeps what it is told over restarts, and refuses files that it cannot rely on."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from tracebridge.assembler import Checkpoint
from tracebridge.assembler.assemble import OpenEvent, OpenRun
from tracebridge.delivery.accounting import account_for
from tracebridge.delivery.state import SCHEMA_VERSION, Advance, Batch, SpanRef, State, Witness
from tracebridge.errors import StateError
from tracebridge.policy import Policy
from tracebridge.session_stream import Cursor

DATA = Path(__file__).resolve().parent.parent / "data" / "state"


def ref(number: int, events: int = 2) -> SpanRef:
    return SpanRef(f"{number:032x}", f"{number:016x}", "s", number, events)


def batch(*numbers: int) -> Batch:
    return Batch(parts=tuple(b"%d" % number for number in numbers), refs=tuple(map(ref, numbers)), fate="unsent")


def without_parts(batch: Batch) -> Batch:
    return msgspec.structs.replace(batch, parts=())


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


@pytest.mark.parametrize("file", sorted(DATA.glob("schema-*.sql")), ids=lambda file: file.stem)
def test_a_state_of_an_earlier_schema_is_upgraded_and_keeps_all_that_it_holds(path: Path, file: Path) -> None:
    path.parent.mkdir()
    database = sqlite3.connect(path)
    database.executescript(file.read_text("utf-8"))
    database.close()

    state = State(path)
    (target,) = state.targets()
    assert (target.sink, target.endpoint, target.off_since_ns) == ("langfuse", "http://127.0.0.1:3000", 0)
    assert state.folders() == {1: Path("/var/traces")}
    assert state.positions(1, 1) == {"session-done": 50, "session-open": 100}
    cursor = state.cursor(1, 1, "session-open")
    assert cursor is not None
    assert [mark.offset for mark in cursor.checkpoint.opened] == [3]
    assert state.deadlines(1, 1) == {"session-done": 0, "session-open": 0}, "whatever may be open is looked at once"
    (batch,) = state.in_flight(1)
    assert (batch.fate, state.parts(batch), batch.refs) == ("unknown", (b"1", b"2"), (ref(1), ref(2)))
    assert batch.sent_ns == 1795527100889515881, "it may have been sent when it was written down"
    assert state.account(1).counters == {"confirmed_spans": 1, "confirmed_events": 2, "confirmed_requests": 1}
    assert [(letter.reason, letter.ref) for letter in state.dead.of(1)] == [("too odd", ref(4))]
    assert account_for(state, 1, Policy()).written == 6, "it is told, though this state did not count what was removed"
    assert state.problems() == [(Path("/var/traces"), "session-done", 7, "not JSON")]
    assert state.rules("abcdefabcdef") == "{}"
    assert state.known_since_ns(1) == 0, "it knows all that was sent, for it sent it"
    assert state.evidence.compared(1) == [], "a comparison that does not say what it was sent under proves too little"
    state.close()
    State(path).close()  # and once more, now that it is of this version
    assert schema_of(path) == schema_of(a_new_state(path.with_name("new.sqlite")))


def a_new_state(path: Path) -> Path:
    State(path).close()
    return path


def schema_of(path: Path) -> dict[str, list[tuple[str, str]]]:
    """By table, its columns and their types."""
    database = sqlite3.connect(path)
    tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    found = {
        table: sorted((name, kind) for _, name, kind, *_ in database.execute(f"PRAGMA table_info({table})"))
        for table in tables
    }
    assert database.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    database.close()
    return found


def test_there_is_an_upgrade_from_every_earlier_schema() -> None:
    assert sorted(int(file.stem.partition("-")[2]) for file in DATA.glob("schema-*.sql")) == list(
        range(1, SCHEMA_VERSION)
    )


def test_a_state_that_was_deleted_while_it_is_open_refuses_to_go_on(path: Path) -> None:
    state = State(path)
    target = state.target("sink", "somewhere")
    path.unlink()
    with pytest.raises(StateError, match="deleted or replaced"):
        state.write_down(target, [batch(1)], [], [])
    State(path).close()
    with pytest.raises(StateError, match="deleted or replaced"):
        state.targets()
    state.close()


@pytest.mark.parametrize("content", [b"no database at all " * 100, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_shipper_moves_a_damaged_state_aside_and_begins_a_new_one_that_says_so(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    state = State.for_shipping(path)
    assert state.successor_of == "state.sqlite.damaged-1"
    assert path.with_name(state.successor_of).read_bytes() == content
    state.close()
    again = State.for_shipping(path)
    assert again.successor_of == "state.sqlite.damaged-1", "a sound state is kept"
    again.close()


def test_damage_inside_of_the_file_is_found_before_anything_is_shipped(path: Path) -> None:
    state = State(path)
    target, folder = state.target("sink", "somewhere"), state.folder(path.parent)
    for number in range(200):
        advance = Advance(folder=folder, session_id=f"session-{number}", cursor=Cursor(offset=number))
        state.write_down(target, [batch(number)], [advance], [])
    state.close()
    damaged = bytearray(path.read_bytes())
    page_bytes = int.from_bytes(damaged[16:18], "big")
    begin = len(damaged) // 2 // page_bytes * page_bytes
    damaged[begin : begin + page_bytes] = b"\xaa" * page_bytes
    path.write_bytes(damaged)
    rebuilt = State.for_shipping(path)
    assert rebuilt.successor_of == "state.sqlite.damaged-1"
    assert rebuilt.targets() == []
    rebuilt.close()


def test_of_many_that_find_the_state_damaged_one_moves_it_aside(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a state" * 100)
    ready = threading.Barrier(6)
    found: list[str] = []

    def open_it() -> None:
        ready.wait()
        while True:
            try:
                state = State.for_shipping(path)
            except StateError:
                continue  # another one is at it
            found.append(state.successor_of)
            state.close()
            return

    threads = [threading.Thread(target=open_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["state.sqlite.damaged-1"] * 6
    assert not path.with_name("state.sqlite.damaged-2").exists()


def test_of_one_session_not_too_many_broken_lines_are_remembered(path: Path) -> None:
    state = State(path)
    target, folder = state.target("otel", "http://a"), state.folder(path.parent)
    state.write_down(target, [], [], [(folder, "session-s", offset, "not JSON") for offset in range(1500)])
    state.write_down(target, [], [], [(folder, "session-t", 0, "not JSON")])
    assert len(state.problems()) == 1001
    state.close()


def test_a_session_that_is_gone_is_forgotten_but_not_the_one_that_took_its_place(path: Path) -> None:
    state = State(path)
    folder = state.folder(path.parent)
    old, new = state.target("one", "http://a"), state.target("two", "http://a")
    state.write_down(old, [], [Advance(folder=folder, session_id="s", cursor=Cursor(offset=9, head="old"))], [])
    state.write_down(new, [], [Advance(folder=folder, session_id="s", cursor=Cursor(offset=5, head="new"))], [])
    state.forget_session(folder, "s", "old")
    assert state.positions(old, folder) == {}
    assert state.positions(new, folder) == {"s": 5}
    state.close()


def test_what_a_switched_off_sink_has_not_read_stays_owed_to_it_until_it_is_forgotten(path: Path) -> None:
    state = State(path)
    folder, target = state.folder(path.parent), state.target("sink", "http://a")
    state.write_down(target, [batch(1)], [Advance(folder=folder, session_id="a", cursor=Cursor(offset=9))], [])
    state.switched_off(target, {folder: ["a", "b"]})
    assert state.positions(target, folder) == {"a": 9, "b": 0}
    assert state.targets()[0].off_since_ns > 0
    state.switched_on(target)
    assert state.targets()[0].off_since_ns == 0
    state.forget_target(target)
    assert (state.targets(), list(state.in_flight(target)), state.positions(target, folder)) == ([], [], {})
    state.close()


def test_two_backends_of_one_sink_name_are_apart(path: Path) -> None:
    state = State(path)
    here, there = state.target("langfuse", "http://here"), state.target("langfuse", "http://there")
    folder = state.folder(path.parent)
    advance = Advance(folder=folder, session_id="session-s", cursor=Cursor(offset=10, ordinal=1))
    (written,) = state.write_down(here, [batch(1, 2)], [advance], [])

    assert state.cursor(here, folder, "session-s") == Cursor(offset=10, ordinal=1)
    assert state.cursor(there, folder, "session-s") is None
    assert (state.positions(here, folder), state.positions(there, folder)) == ({"session-s": 10}, {})
    assert (list(state.in_flight(here)), list(state.in_flight(there))) == ([without_parts(written)], [])
    assert state.parts(written) == (b"1", b"2")

    state.confirm(here, written)
    assert state.account(here).counters["confirmed_spans"] == 2
    assert state.account(there).counters == {}
    state.close()


def test_what_is_in_flight_and_what_is_open_survive_a_restart(path: Path) -> None:
    opened = OpenEvent(offset=3, ordinal=1, trace_id="1" * 32, parent_id="2" * 16)
    checkpoint = Checkpoint(opened=(opened,), runs=(OpenRun(run_id="r", last_ns=5),), deadline_ns=7)
    cursor = Cursor(offset=100, ordinal=4, checkpoint=checkpoint)
    state = State(path)
    target, folder = state.target("otel", "http://a"), state.folder(path.parent)
    advance = Advance(folder=folder, session_id="session-s", cursor=cursor)
    (written,) = state.write_down(target, [batch(1, 2)], [advance], [(folder, "session-s", 7, "not JSON")])
    sent = state.set_fate(written, "unknown")
    assert sent.sent_ns > 0

    after = State(path)  # the first one is still open, as a killed process leaves it
    assert list(after.in_flight(target)) == [
        msgspec.structs.replace(without_parts(written), fate="unknown", sent_ns=sent.sent_ns)
    ]
    assert after.cursor(target, folder, "session-s") == cursor
    assert after.deadlines(target, folder) == {"session-s": 7}
    assert after.problems() == [(path.parent.resolve(), "session-s", 7, "not JSON")]
    after.close()
    state.close()


def test_a_broken_line_of_a_folder_that_was_forgotten_meanwhile_is_told_no_more(path: Path) -> None:
    state = State(path)
    target, folder = state.target("otel", "http://a"), state.folder(path.parent)
    state.forget_folder(folder)
    # the shipper was reading it
    state.write_down(target, [], [], [(folder, "session-s", 7, "not JSON")])
    assert state.problems() == []
    state.close()


def test_of_two_numbers_of_the_trace_folder_the_cursor_is_kept_that_has_read_more(path: Path) -> None:
    trace_dir = path.parent.parent
    state = State(path)
    target = state.target("otel", "http://a")
    folder, other = state.folder(trace_dir), state.folder(trace_dir / "was-here")
    read = {folder: (10, 40, 70), other: (20, 30)}
    advances = [
        Advance(folder=number, session_id=f"session-{n}", cursor=Cursor(offset=offset, ordinal=offset))
        for number, offsets in read.items()
        for n, offset in enumerate(offsets)
    ]
    state.write_down(target, [], advances, [(other, "session-1", 7, "not JSON")])
    with closing(sqlite3.connect(path)) as database, database:
        # as an earlier version left it that had found the trace folder here, too
        database.execute("UPDATE folder SET path = 'elsewhere' WHERE id = ?", (folder,))
        database.execute("UPDATE folder SET path = ? WHERE id = ?", (str(trace_dir.resolve()), other))
    assert state.folder(trace_dir) == folder
    assert list(state.folders()) == [folder]
    assert state.positions(target, folder) == {"session-0": 20, "session-1": 40, "session-2": 70}
    assert state.account(target).read_events == 10 + 40 + 70 + 20 + 30
    assert state.problems() == [(trace_dir.resolve(), "session-1", 7, "not JSON")]
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
    (letter,) = state.dead.of(target)
    assert (letter.sink, letter.reason, letter.ref) == ("otel", "too odd", ref(3))
    state.close()


def test_witnesses_are_kept_until_others_take_their_place(path: Path) -> None:
    state = State(path)
    target = state.target("otel", "http://a")
    assert state.witnesses(target) == ()
    both = (Witness(ref(1), 2.5), Witness(ref(2), 3.5, 4.5))
    state.keep_witnesses(target, both)
    state.close()
    after = State(path)
    assert after.witnesses(target) == both
    after.keep_witnesses(target, ())
    assert after.witnesses(target) == ()
    after.close()


def test_a_folder_has_one_number_by_whatever_way_it_is_named(path: Path, tmp_path: Path) -> None:
    state = State(path)
    (tmp_path / "old").mkdir()
    (tmp_path / "link").symlink_to("old")
    assert state.folder(tmp_path / "old") == state.folder(tmp_path / "link") == state.folder(tmp_path / "x/../old")
    assert state.folders() == {1: (tmp_path / "old").resolve()}
    state.close()


def test_a_folder_whose_name_is_not_utf_8_is_known_by_its_bytes(path: Path, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"tr\xffces")
    odd.mkdir()
    state = State(path)
    number = state.folder(odd)
    assert state.folder(odd) == number
    assert state.folders() == {number: odd.resolve()}
    state.close()


def test_what_a_fingerprint_stood_for_is_kept(path: Path) -> None:
    state = State(path)
    state.keep_rules("abc", "the first text")
    state.keep_rules("abc", "the first text")
    assert (state.rules("abc"), state.rules("def")) == ("the first text", None)
    state.close()
