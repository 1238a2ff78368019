"""What grows is watched, what is quiet is not, and whoever comes back to it is heard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.delivery.rig import LONG_AGO, now, session_lines, write_session
from tests.recording.rig import Recording
from tracebridge.delivery.pace import FullSpeed
from tracebridge.delivery.state import Advance, State
from tracebridge.delivery.watch import SessionWatch
from tracebridge.event import Json
from tracebridge.journal import layout
from tracebridge.journal.opened import OpenedLog
from tracebridge.policy import Policy
from tracebridge.session_stream import SessionStream
from tracebridge.span import Span


def everything(event_type: str, data: dict[str, Json]) -> dict[str, Json]:
    return data


class Watching:
    """A watch, and a reader that reads whatever it names and writes down how far it came."""

    def __init__(self, trace_dir: Path, policy: Policy | None = None) -> None:
        self.state = State(layout.state_file(trace_dir))
        self.target = self.state.target("sink", "somewhere")
        self.watch = SessionWatch(self.state, self.target, trace_dir, policy or Policy(), everything)

    def read(self) -> list[Span]:
        """Read all there is, in all sessions, and let them go."""
        spans: list[Span] = []
        self.watch.refresh(FullSpeed())
        for key, stream in self.watch.unread():
            spans += [span for step in stream.steps() for span in step.spans]
            advance = Advance(folder=key.folder, session_id=key.name, cursor=stream.cursor)
            self.state.write_down(self.target, [], [advance], [])
            self.watch.let_go(key, stream)
        return spans

    def named(self) -> list[str]:
        """The sessions in which there is something to do now."""
        self.watch.refresh(FullSpeed())
        return [key.name for key, _ in self.watch.unread()]


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[Recording]:
    recording = Recording(tmp_path)
    yield recording
    recording.tracer.shutdown()


@pytest.fixture
def watching(recording: Recording) -> Iterator[Watching]:
    watching = Watching(recording.trace_dir)
    yield watching
    watching.state.close()


def run(recording: Recording, session_id: str = "s", thoughts: int = 1) -> None:
    with recording.session(session_id) as session:
        for number in range(thoughts):
            session.log_thinking(str(number))


def append_unannounced(recording: Recording, session_id: str = "s") -> None:
    with recording.file(session_id).open("a", encoding="utf-8") as file:
        file.writelines(text + "\n" for text in session_lines(session_id, 1, "search", True, now()))


def test_a_session_is_found_however_it_was_written(recording: Recording, watching: Watching) -> None:
    run(recording, "before")
    write_session(recording.trace_dir, "by-another-program")
    assert sorted(watching.named()) == ["session-before", "session-by-another-program"]
    run(recording, "after")
    assert "session-after" in watching.named()


def test_a_session_that_was_let_go_is_read_on_when_it_is_entered_again(
    recording: Recording, watching: Watching
) -> None:
    run(recording, thoughts=2)
    assert len(watching.read()) == 3
    assert watching.named() == []
    run(recording, thoughts=4)
    assert watching.named() == ["session-s"]
    assert len(watching.read()) == 5
    assert watching.named() == []


def test_a_quiet_session_is_not_looked_at(recording: Recording, watching: Watching) -> None:
    run(recording)
    watching.read()
    append_unannounced(recording)  # tracebridge's own writers never do this; it shows that nobody looks
    assert watching.named() == []
    assert watching.watch.pending_bytes() == 0


def test_a_new_watch_finds_what_was_not_announced(recording: Recording, watching: Watching) -> None:
    run(recording)
    watching.read()
    append_unannounced(recording)
    second = Watching(recording.trace_dir)
    assert second.named() == ["session-s"]
    assert {span.kind for span in second.read()} == {"session", "turn", "tool"}
    second.state.close()


def test_another_file_in_the_place_of_one_that_was_read_is_found_though_it_is_as_long(tmp_path: Path) -> None:
    journal = write_session(tmp_path, "s", turns=1)
    watching = Watching(tmp_path)
    try:
        watching.read()
        assert watching.named() == []
        size = journal.stat().st_size
        journal.rename(tmp_path / "rotated")
        assert write_session(tmp_path, "s", turns=1, run_id="run-2").stat().st_size == size
        again = Watching(tmp_path)
        assert again.named() == ["session-s"]
        again.state.close()
    finally:
        watching.state.close()


def test_a_session_whose_file_a_writer_holds_is_watched_though_all_of_it_was_read(
    recording: Recording, watching: Watching
) -> None:
    with recording.session() as session:
        session.log_thinking("one")
        assert [span.output for span in watching.read()] == ["one"]
        announced = layout.opened_log(recording.trace_dir).read_bytes()
        session.log_thinking("two")
        assert layout.opened_log(recording.trace_dir).read_bytes() == announced
        assert watching.named() == ["session-s"]
        assert [span.output for span in watching.read()] == ["two"]
    assert [span.kind for span in watching.read()] == ["session"]


def test_a_session_with_something_open_and_no_writer_is_left_alone_until_it_is_given_up(
    recording: Recording, watching: Watching
) -> None:
    write_session(recording.trace_dir, "fresh", end=False)
    write_session(recording.trace_dir, "old", end=False, at=LONG_AGO)
    watching.read()
    assert watching.named() == ["session-old"]
    ((_, stream),) = watching.watch.unread()
    assert stream.deadline_ns < 2**62


def test_a_new_watch_takes_up_what_is_open(recording: Recording, watching: Watching) -> None:
    path = write_session(recording.trace_dir, "s", turns=1, end=False)
    watching.read()
    with path.open("a", encoding="utf-8") as file:
        file.write(session_lines("s", 1, "search", True, now())[-1] + "\n")
    second = Watching(recording.trace_dir)
    (session,) = second.read()
    assert (session.kind, session.extent) == ("session", "whole")
    second.state.close()


def test_what_sampling_leaves_out_is_not_watched(recording: Recording) -> None:
    run(recording)
    sampled = Watching(recording.trace_dir, Policy(sample_rate=0.0))
    assert sampled.named() == []
    sampled.state.close()


def test_a_folder_that_is_added_is_read_too(recording: Recording, watching: Watching, tmp_path: Path) -> None:
    assert watching.named() == []
    write_session(tmp_path / "old", "past")
    watching.state.folder(tmp_path / "old")
    assert watching.named() == ["session-past"]
    assert len(watching.read()) == 7


def test_a_folder_that_is_forgotten_while_it_is_read_is_no_trouble(
    recording: Recording, watching: Watching, tmp_path: Path
) -> None:
    for name in ("a", "b", "c"):
        write_session(tmp_path / "old", name)
    number = watching.state.folder(tmp_path / "old")
    watching.watch.refresh(FullSpeed())
    reading = watching.watch.unread()
    assert next(reading)[0].folder == number
    watching.state.forget_folder(number)
    watching.watch.refresh(FullSpeed())
    assert list(reading) == []
    assert watching.named() == []


def test_a_folder_that_gets_the_number_of_one_that_was_forgotten_is_read(
    recording: Recording, watching: Watching, tmp_path: Path
) -> None:
    watching.state.folder(recording.trace_dir)
    for name in ("first", "second"):
        write_session(tmp_path / name, name)
        number = watching.state.folder(tmp_path / name)
        assert number == 2
        assert watching.named() == [f"session-{name}"]
        watching.read()
        watching.state.forget_folder(number)


def test_what_is_unread_is_counted(recording: Recording, watching: Watching) -> None:
    path = write_session(recording.trace_dir, "s", turns=2)
    watching.named()
    assert watching.watch.pending_bytes() == path.stat().st_size
    watching.read()
    assert watching.watch.pending_bytes() == 0


def test_a_session_whose_folder_is_deleted_is_no_trouble(recording: Recording, watching: Watching) -> None:
    run(recording)
    watching.named()
    recording.tracer.shutdown()
    recording.file().unlink()
    assert watching.named() == []
    assert watching.watch.pending_bytes() == 0


def test_a_session_that_is_named_and_found_at_once_is_read_once(recording: Recording, watching: Watching) -> None:
    with recording.session() as session:
        session.log_thinking("one")
        assert watching.named() == ["session-s"]
        second = Watching(recording.trace_dir)
        second.watch.refresh(FullSpeed())
        recording.tracer.shutdown()
        session.log_thinking("two")  # opens the file again, and says so
        assert [span.output for span in second.read()] == ["one", "two"]
        assert second.read() == []
        second.state.close()


def test_what_is_due_in_a_session_that_was_let_go_is_given_up_by_whoever_comes_next(tmp_path: Path) -> None:
    write_session(tmp_path, "old", turns=1, end=False, at=LONG_AGO)
    first = Watching(tmp_path)
    assert [span.kind for span in first.read()] == ["tool", "turn"]
    first.state.close()
    second = Watching(tmp_path)
    ((_, stream),) = list(_unread(second))
    (session,) = stream.expire(2**62)
    assert (session.kind, session.extent) == ("session", "incomplete")
    second.state.close()


def test_a_cursor_of_a_version_that_kept_no_deadline_is_looked_into_once(tmp_path: Path) -> None:
    write_session(tmp_path, "s", turns=1, end=False)
    first = Watching(tmp_path)
    first.watch.refresh(FullSpeed())
    ((key, stream),) = list(first.watch.unread())
    for _ in stream.steps():
        pass
    older = msgspec.structs.replace(
        stream.cursor, checkpoint=msgspec.structs.replace(stream.cursor.checkpoint, deadline_ns=0)
    )
    first.state.write_down(first.target, [], [Advance(folder=key.folder, session_id=key.name, cursor=older)], [])
    first.state.close()
    second = Watching(tmp_path)
    assert second.read() == []
    assert second.watch._growing == {}
    assert second.named() == []
    second.state.close()


def test_half_a_line_that_a_dead_writer_left_is_read_once_and_then_left_alone(tmp_path: Path) -> None:
    path = write_session(tmp_path, "s", turns=1)
    with path.open("a", encoding="utf-8") as file:
        file.write('{"timestamp":"2026-02-06T22')
    watching = Watching(tmp_path)
    assert len(watching.read()) == 3
    assert watching.named() == []
    assert watching.watch._growing == {}
    with path.open("a", encoding="utf-8") as file:
        file.write("\n" + "".join(text + "\n" for text in session_lines("s", 1, "search", True, now())))
    OpenedLog(tmp_path).append("session-s")
    assert len(watching.read()) == 3
    watching.state.close()


def test_a_session_that_a_writer_holds_is_watched_by_a_new_watch_though_nothing_is_new(
    recording: Recording, watching: Watching
) -> None:
    with recording.session() as session:
        watching.read()
        layout.opened_log(recording.trace_dir).write_bytes(b"")
        second = Watching(recording.trace_dir)
        assert second.named() == []
        session.log_thinking("unannounced, as the file was open")
        assert second.named() == ["session-s"]
        second.state.close()


def test_a_journal_in_which_what_was_open_is_gone_costs_no_other_session_anything(tmp_path: Path) -> None:
    broken = write_session(tmp_path, "broken", turns=1, end=False)
    watching = Watching(tmp_path)
    watching.read()
    watching.state.close()
    broken.write_bytes(b"\n" * 10_000)
    write_session(tmp_path, "whole", turns=1)
    second = Watching(tmp_path)
    assert {span.session_id for span in second.read()} == {"whole"}
    second.state.close()


def _unread(watching: Watching) -> Iterator[tuple[object, SessionStream]]:
    watching.watch.refresh(FullSpeed())
    yield from watching.watch.unread()


def test_a_session_that_only_the_old_log_of_opened_files_told_of_is_watched_as_long_as_a_writer_holds_it(
    recording: Recording, watching: Watching
) -> None:
    with recording.session() as session:
        session.log_thinking("one")
        watching.read()
        OpenedLog(recording.trace_dir, large=0).begin_anew()
        fresh = Watching(recording.trace_dir)
        try:
            assert fresh.named() == []
            session.log_thinking("two")
            assert fresh.named() == ["session-s"]
        finally:
            fresh.state.close()


def test_a_new_log_of_opened_files_makes_the_watch_look_through_the_folder(
    recording: Recording, watching: Watching
) -> None:
    run(recording)
    watching.read()
    append_unannounced(recording)
    assert watching.named() == []
    OpenedLog(recording.trace_dir, large=0).begin_anew()
    assert watching.named() == ["session-s"]
