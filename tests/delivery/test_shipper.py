"""One sink gets everything that the journal holds, whatever its backend answers."""

from __future__ import annotations

import os
import random
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.delivery.file_backend import FileBackend, FileReader, FileSettings, stored
from tests.delivery.rig import LONG_AGO, Rig, now, session_lines, write_session
from tests.waiting import until
from tracebridge.delivery.backoff import Backoff
from tracebridge.delivery.pace import FullSpeed
from tracebridge.delivery.shipper import MAX_UNSETTLED, Shipper
from tracebridge.errors import IncompleteAnswerError
from tracebridge.journal import layout
from tracebridge.policy import Policy
from tracebridge.sink import Outcome, Query, Receipt
from tracebridge.span import Span

RETRY = Receipt(outcome=Outcome.RETRY, message="503", retry_after_s=0.0)
UNKNOWN = Receipt(outcome=Outcome.UNKNOWN, message="timed out")


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path, FileBackend())


def drive(shipper: Shipper) -> None:
    """Ship on until everything is delivered."""
    until(lambda: shipper.round(2).is_done, "everything is delivered")


def expected_names(*sessions: str, turns: int = 3) -> list[str]:
    kinds = ["session", *["turn"] * turns, *["tool"] * turns]
    return sorted(f"{session}/{kind}" for session in sessions for kind in kinds)


def test_every_span_arrives_once_and_a_second_run_sends_nothing(rig: Rig) -> None:
    write_session(rig.trace_dir, "a")
    write_session(rig.trace_dir, "b")
    rig.ship()
    assert rig.stored_names() == expected_names("a", "b")
    requests = len(rig.backend.answers.requests)
    rig.ship()
    assert len(rig.backend.answers.requests) == requests
    assert rig.counters() == {"confirmed_spans": 14, "confirmed_events": 28, "confirmed_requests": 1}


def test_a_batch_holds_no_more_spans_and_bytes_than_the_backend_takes(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FileBackend(max_request_spans=4, max_request_bytes=1500))
    write_session(rig.trace_dir, "a", turns=20)
    rig.ship()
    assert rig.stored_names() == expected_names("a", turns=20)
    assert max(len(request) for request in rig.backend.answers.requests) <= 4


def test_a_shipper_goes_on_in_the_middle_of_a_turn_where_the_last_one_stopped(rig: Rig) -> None:
    lines = session_lines("a", 3, "search", end=True, at=now())
    path = layout.events_file(layout.session_folder(rig.trace_dir, "a"))
    path.parent.mkdir(parents=True)
    for text in lines:
        with path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")
        rig.ship()
    assert rig.stored_names() == expected_names("a")
    by_kind = {span.kind: span for span in stored(rig.file)}
    assert by_kind["turn"].extent == by_kind["session"].extent == "whole"


def test_a_backend_that_is_away_for_a_while_gets_the_same_bytes_once_it_is_back(rig: Rig) -> None:
    write_session(rig.trace_dir, "a")
    rig.backend.answers.scripted = [RETRY, RETRY]
    rig.ship()
    assert rig.stored_names() == expected_names("a")
    first, second, third = rig.backend.answers.requests
    assert first == second == third


def test_a_batch_that_was_stored_though_no_answer_came_is_not_sent_again(rig: Rig) -> None:
    write_session(rig.trace_dir, "a")
    rig.backend.answers.scripted = [UNKNOWN]
    rig.backend.answers.stores_anyway = [True]
    rig.ship()
    assert rig.stored_names() == expected_names("a")
    assert len(rig.backend.answers.requests) == 1


def test_a_batch_that_was_not_stored_is_sent_again_once_something_later_shows_and_it_does_not(rig: Rig) -> None:
    write_session(rig.trace_dir, "a")
    rig.backend.answers.scripted = [ConnectionResetError("reset")]
    shipper = rig.shipper()
    until(lambda: shipper.round().is_done or len(rig.backend.answers.requests) == 1, "1 requests came")
    time.sleep(0.02)  # more than the backend's lag: what is sent now is later for certain
    write_session(rig.trace_dir, "b")
    layout.opened_log(rig.trace_dir).write_text("session-b\n")
    drive(shipper)
    assert rig.stored_names() == expected_names("a", "b")
    first, second, third = rig.backend.answers.requests
    assert (first, len(second)) == (third, 7), "the same spans, after those of the other session"
    assert "possible_repeats" not in rig.counters()
    shipper.close()


def test_a_batch_that_was_not_stored_with_nothing_after_it_is_sent_again_in_the_end_and_counted(rig: Rig) -> None:
    write_session(rig.trace_dir, "a")
    rig.backend.answers.scripted = [ConnectionResetError("reset")]
    rig.ship()
    assert rig.stored_names() == expected_names("a")
    assert rig.counters()["possible_repeats"] == 7


def test_it_is_sent_again_also_by_a_shipper_that_nobody_asks_to_catch_up(rig: Rig) -> None:
    write_session(rig.trace_dir, "a")
    rig.backend.answers.scripted = [ConnectionResetError("reset")]
    shipper = rig.shipper()
    until(lambda: shipper.round(0).is_done and rig.stored_names() == expected_names("a"), "it arrives")
    shipper.close()
    condition = rig.account().condition
    assert condition is not None
    assert condition.state == "idle"


def test_what_shows_only_after_a_while_is_not_sent_again(rig: Rig) -> None:
    write_session(rig.trace_dir, "late")
    rig.backend.answers.scripted = [UNKNOWN]
    rig.backend.answers.stores_anyway = [True]
    rig.backend.answers.hidden = {"late"}
    shipper = rig.shipper()
    until(lambda: shipper.round().is_done or len(rig.backend.answers.requests) == 1, "1 requests came")
    until(
        lambda: shipper.round().is_done or len(rig.backend.answers.queries) > 2,
        "it was asked for what was not answered",
    )
    assert shipper.trouble
    rig.backend.answers.hidden = set()
    drive(shipper)
    assert len(rig.backend.answers.requests) == 1
    assert rig.counters()["confirmed_spans"] == 7
    shipper.close()


def test_a_reader_that_is_away_stops_nothing_that_is_new(rig: Rig) -> None:
    write_session(rig.trace_dir, "a")
    rig.backend.answers.scripted = [UNKNOWN]
    rig.backend.answers.stores_anyway = [True]
    shipper = rig.shipper()
    until(lambda: shipper.round().is_done or len(rig.backend.answers.requests) == 1, "1 requests came")
    rig.backend.answers.reader_is_away = True
    write_session(rig.trace_dir, "b")
    layout.opened_log(rig.trace_dir).write_text("session-b\n")
    until(lambda: shipper.round().is_done or len(rig.backend.answers.requests) == 2, "2 requests came")
    until(
        lambda: shipper.round().is_done or "query service is away" in shipper.trouble,
        "it is known that the reader is away",
    )
    rig.backend.answers.reader_is_away = False
    drive(shipper)
    assert rig.stored_names() == expected_names("a", "b")
    shipper.close()


def test_a_state_that_was_lost_is_made_good_by_reading_the_backend(rig: Rig) -> None:
    write_session(rig.trace_dir, "a")
    write_session(rig.trace_dir, "b", end=False)
    rig.ship()
    requests = len(rig.backend.answers.requests)
    rig.lose_the_state()
    write_session(rig.trace_dir, "c")
    rig.ship()
    assert rig.stored_names() == sorted([*expected_names("a", "c"), *expected_names("b")[1:]])
    assert len(rig.backend.answers.requests) == requests + 1
    counters = rig.counters()
    assert (counters["found_spans"], counters["confirmed_spans"]) == (13, 20)


def test_a_lost_state_in_the_middle_of_a_session_sends_only_what_is_missing(rig: Rig) -> None:
    lines = session_lines("a", 6, "search", end=True, at=now())
    path = layout.events_file(layout.session_folder(rig.trace_dir, "a"))
    path.parent.mkdir(parents=True)
    for number, text in enumerate(lines):
        with path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")
        if number % 5 == 2:
            rig.ship()
            rig.lose_the_state()
    rig.ship()
    assert rig.stored_names() == expected_names("a", turns=6)


def test_a_lost_state_repeats_nothing_at_a_backend_that_hides_everything_from_a_search(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FileBackend(hidden_from_search="Nothing is found."))
    write_session(rig.trace_dir, "a")
    write_session(rig.trace_dir, "open", end=False)
    layout.session_folder(rig.trace_dir, "empty").mkdir()
    layout.events_file(layout.session_folder(rig.trace_dir, "empty")).touch()
    rig.ship()
    names = rig.stored_names()
    rig.lose_the_state()
    rig.ship()
    assert rig.stored_names() == names
    assert all(query.trace_ids for query in rig.backend.answers.queries)


class PartialReader(FileReader):
    """Shows the first trace of all only in part, and says so."""

    def read(self, query: Query) -> Iterator[Span]:
        found = list(super().read(query))
        if found and found[0].trace_id == stored(self._path)[0].trace_id:
            raise IncompleteAnswerError("only a part of it is shown")
        yield from found


class PartialBackend(FileBackend):
    def open_reader(self, settings: msgspec.Struct) -> FileReader:
        assert isinstance(settings, FileSettings)
        return PartialReader(settings.path, self.answers)


def test_of_what_is_shown_in_part_after_a_lost_state_only_that_may_be_repeated_and_is_counted(tmp_path: Path) -> None:
    rig = Rig(tmp_path, PartialBackend(hidden_from_search="Nothing is found."))
    write_session(rig.trace_dir, "a")
    write_session(rig.trace_dir, "b")
    rig.ship()
    first, before = stored(rig.file)[0].trace_id, len(stored(rig.file))
    rig.lose_the_state()
    rig.ship()
    again = stored(rig.file)[before:]
    assert {span.trace_id for span in again} == {first}
    assert rig.counters()["possible_repeats"] == len(again)


def test_a_shipper_that_dies_while_it_makes_a_lost_state_good_repeats_nothing(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FileBackend(max_request_spans=2))
    for name in ("a", "b", "c"):
        write_session(rig.trace_dir, name, turns=8)
    rig.ship()
    rig.lose_the_state()
    for _ in range(30):
        dying = rig.shipper()
        dying.round()
        dying.close()
    rig.ship()
    assert rig.stored_names() == expected_names("a", "b", "c", turns=8)


def test_without_anything_at_the_backend_it_is_asked_once_however_many_sessions_are_old(rig: Rig) -> None:
    for number in range(20):
        write_session(rig.trace_dir, f"s{number}")
    rig.ship()
    assert len(rig.backend.answers.queries) == 1


def test_what_the_backend_may_hold_already_waits_for_its_lag_and_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracebridge.delivery.shipper.LOOK_EVERY_S", 3600.0)
    rig = Rig(tmp_path, FileBackend(visibility_lag_s=0.05))
    write_session(rig.trace_dir, "a")
    rig.ship()
    assert rig.stored_names() == expected_names("a")


def test_a_state_that_saw_the_first_session_begin_asks_nothing(rig: Rig) -> None:
    write_session(rig.trace_dir, "a")
    layout.opened_log(rig.trace_dir).parent.mkdir()
    layout.opened_log(rig.trace_dir).write_text("session-a\n")
    shipper = Shipper(rig.settings.sinks[0], rig.trace_dir, FullSpeed())
    drive(shipper)
    shipper.close()
    assert rig.stored_names() == expected_names("a")
    assert rig.backend.answers.queries == []


def test_a_sink_that_was_renamed_is_not_sent_anything_again(rig: Rig) -> None:
    write_session(rig.trace_dir, "a")
    layout.opened_log(rig.trace_dir).parent.mkdir()
    layout.opened_log(rig.trace_dir).write_text("session-a\n")
    rig.ship()
    renamed = msgspec.structs.replace(rig.settings.sinks[0], name="renamed")
    shipper = Shipper(renamed, rig.trace_dir, FullSpeed())
    drive(shipper)
    shipper.close()
    assert rig.stored_names() == expected_names("a")


def test_however_many_batches_wait_for_their_fate_something_is_sent_by_which_it_can_be_told(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FileBackend(max_request_spans=1, visibility_lag_s=3600.0))
    rig.backend.answers.scripted = [UNKNOWN] * MAX_UNSETTLED
    write_session(rig.trace_dir, "a", turns=MAX_UNSETTLED // 2 + 5)
    state = rig.state()
    state.knows_all(state.target("file", str(rig.file)))
    state.close()
    shipper = rig.shipper(Backoff(first_s=0.001, longest_s=0.001))
    spans = 2 * (MAX_UNSETTLED // 2 + 5) + 1
    until(lambda: shipper.round().is_done or len(rig.stored_names()) == spans - MAX_UNSETTLED, "the others arrive")
    assert "not answered" in shipper.trouble
    shipper.close()


def test_old_sessions_wait_for_a_reader_that_is_away_and_new_ones_do_not(rig: Rig) -> None:
    write_session(rig.trace_dir, "old")
    rig.backend.answers.reader_is_away = True
    shipper = rig.shipper()
    until(
        lambda: shipper.round().is_done or "query service is away" in shipper.trouble,
        "it is known that the reader is away",
    )
    write_session(rig.trace_dir, "new")
    layout.opened_log(rig.trace_dir).write_text("session-new\n")
    until(lambda: shipper.round().is_done or rig.stored_names() == expected_names("new"), "the new session arrives")
    rig.backend.answers.reader_is_away = False
    drive(shipper)
    assert rig.stored_names() == expected_names("new", "old")
    shipper.close()


def test_what_the_agent_draws_at_random_is_not_moved_on_by_trouble(rig: Rig) -> None:
    rig.backend.answers.scripted = [RETRY, UNKNOWN, RETRY]
    write_session(rig.trace_dir, "a")
    random.seed(7)
    drawn = [random.random() for _ in range(2)]
    random.seed(7)
    assert random.random() == drawn[0]
    rig.ship()
    assert random.random() == drawn[1]


def test_workers_with_the_same_seed_do_not_come_back_at_the_same_moment() -> None:
    waits = set()
    for _ in range(20):
        random.seed(7)
        waits.add(Backoff().failed())
    assert len(waits) == 20


def test_a_copied_folder_is_not_sent_again(rig: Rig, tmp_path: Path) -> None:
    write_session(rig.trace_dir, "a")
    rig.ship()
    shutil.copytree(rig.trace_dir / "session-a", tmp_path / "copy" / "session-a")
    state = rig.state()
    state.folder(tmp_path / "copy")
    state.close()
    rig.ship()
    assert rig.stored_names() == expected_names("a")


def copied(rig: Rig, folder: Path, session: str) -> Path:
    """A copy of a session as it is now, in a folder that is backfilled from now on."""
    shutil.copytree(rig.trace_dir / f"session-{session}", folder / f"session-{session}")
    state = rig.state()
    state.folder(rig.trace_dir)
    state.backfill(folder)
    state.close()
    return folder / f"session-{session}" / "events.jsonl"


def test_a_copy_is_not_sent_again_though_nobody_can_be_asked(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FileBackend(readable=False))
    write_session(rig.trace_dir, "a")
    rig.ship()
    copied(rig, tmp_path / "copy", "a")
    copied(rig, tmp_path / "second copy", "a")
    rig.ship()
    assert rig.stored_names() == expected_names("a")
    assert rig.counters()["found_spans"] == 2 * len(expected_names("a"))
    assert rig.account().unaccounted_events == 0


def test_a_copy_is_not_sent_again_while_what_was_sent_does_not_show(rig: Rig, tmp_path: Path) -> None:
    write_session(rig.trace_dir, "a")
    rig.backend.answers.hidden.add("a")
    rig.ship()
    copied(rig, tmp_path / "copy", "a")
    rig.ship()
    rig.backend.answers.hidden.clear()
    assert rig.stored_names() == expected_names("a")


def test_of_two_copies_in_backfilled_folders_one_is_sent(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FileBackend(readable=False))
    write_session(rig.trace_dir, "a")
    copied(rig, tmp_path / "copy", "a")
    copied(rig, tmp_path / "second copy", "a")
    shutil.rmtree(rig.trace_dir / "session-a")
    rig.ship()
    assert rig.stored_names() == expected_names("a")


def test_the_past_of_a_session_is_sent_though_the_trace_folder_has_another_part_of_it(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FileBackend(readable=False))
    write_session(rig.trace_dir, "a")
    copied(rig, tmp_path / "past", "a")
    shutil.rmtree(rig.trace_dir / "session-a")
    write_session(rig.trace_dir, "a", run_id="run-2")
    rig.ship()
    assert rig.stored_names() == sorted(2 * expected_names("a"))


def test_a_copy_of_a_run_that_goes_on_is_left_to_the_original_as_a_whole(tmp_path: Path) -> None:
    """The copy ends with an open turn, which is over long since by the copy, and which the original ends."""
    rig = Rig(tmp_path, FileBackend(readable=False))
    lines = [text + "\n" for text in session_lines("a", 3, "search", end=True, at=LONG_AGO)]
    path = layout.events_file(layout.session_folder(rig.trace_dir, "a"))
    path.parent.mkdir(parents=True)
    path.write_text("".join(lines[:3]))
    copied(rig, tmp_path / "copy", "a")
    path.write_text("".join(lines))
    rig.ship()
    assert rig.stored_names() == expected_names("a")


@pytest.mark.parametrize("is_watched", [True, False])
def test_a_journal_that_was_deleted_and_begun_anew_with_events_of_the_old_one_repeats_none_of_them(
    rig: Rig, is_watched: bool
) -> None:
    lines = [text + "\n" for text in session_lines("a", 3, "search", end=True, at=now())]
    path = layout.events_file(layout.session_folder(rig.trace_dir, "a"))
    path.parent.mkdir(parents=True)
    path.write_text("".join(lines))
    shipper = rig.shipper()
    until(lambda: shipper.round().is_done, "everything is delivered")
    if not is_watched:
        shipper.close()
    # as a writer does under whose hands its file was deleted: it writes again what it wrote last
    path.unlink()
    path.write_text("".join(lines[-3:]) + "".join(lines).replace("run-1", "run-2"))
    if not is_watched:
        shipper = rig.shipper()
    layout.opened_log(rig.trace_dir).write_text("session-a\n")
    drive(shipper)
    shipper.close()
    # the last lines of the first run are told apart by their places in the file, as they bear no ids
    assert Counter(span.run_id for span in stored(rig.file) if span.extent == "whole") == {"run-1": 7, "run-2": 7}
    assert len({span.span_id for span in stored(rig.file)}) == len(stored(rig.file))


def test_a_damaged_state_is_replaced_and_nothing_is_sent_twice(rig: Rig) -> None:
    write_session(rig.trace_dir, "a")
    rig.ship()
    rig.lose_the_state()
    layout.state_file(rig.trace_dir).write_bytes(b"\x00" * 5000)
    write_session(rig.trace_dir, "b")
    rig.ship()
    assert rig.stored_names() == expected_names("a", "b")
    assert (layout.state_folder(rig.trace_dir) / "state.sqlite.damaged-1").read_bytes() == b"\x00" * 5000


def test_without_a_reader_a_damaged_state_says_what_it_cannot_know(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(tmp_path, FileBackend(readable=False))
    write_session(rig.trace_dir, "a")
    rig.ship()
    rig.lose_the_state()
    layout.state_file(rig.trace_dir).write_bytes(b"\x00" * 5000)
    rig.ship()
    assert rig.stored_names() == sorted(expected_names("a") * 2)
    assert rig.counters()["possible_repeats"] == 7
    assert len([record for record in caplog.records if "may be there twice" in record.getMessage()]) == 1


def test_without_a_reader_a_state_that_is_gone_though_there_was_a_shipper_is_noticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(tmp_path, FileBackend(readable=False))
    write_session(rig.trace_dir, "a")
    rig.ship()
    rig.lose_the_state()
    shipper = Shipper(rig.settings.sinks[0], rig.trace_dir, FullSpeed(), had_shipper=True)
    drive(shipper)
    shipper.close()
    assert rig.counters()["possible_repeats"] == 7
    assert "the state that knew what was delivered is gone" in caplog.text


def test_many_sessions_without_a_span_are_written_down_in_pieces_and_not_all_held_at_once(rig: Rig) -> None:
    for number in range(1200):
        write_session(rig.trace_dir, f"s{number}", turns=0, end=False)
    shipper = rig.shipper()
    most = 0
    done = False
    while not done:
        done = shipper.round().is_done
        most = max(most, len(shipper._watch._growing))
    shipper.close()
    state = rig.state()
    assert len(state.positions(1, 1)) == 1200
    state.close()
    assert most <= 501


def test_a_shipper_that_cannot_begin_leaves_nothing_open(rig: Rig) -> None:
    write_session(rig.trace_dir, "a", end=False)
    rig.ship()
    state = rig.state()
    refs = b"\xc1"  # no msgpack: what a batch in flight was made of cannot be told
    state._file.db.execute(
        "INSERT INTO in_flight (target, fate, written_ns, spans, events) VALUES (1, 'unsent', 0, 1, 1)"
    )
    state._file.db.execute("INSERT INTO content SELECT id, ?, ? FROM in_flight", (refs, refs))
    state.close()
    before = set(os.listdir("/proc/self/fd")) if sys.platform == "linux" else set()
    threads = threading.active_count()
    with pytest.raises(msgspec.DecodeError):
        rig.shipper()
    until(lambda: threading.active_count() <= threads, "its threads end")
    assert sys.platform != "linux" or set(os.listdir("/proc/self/fd")) <= before


def test_a_span_that_the_sink_cannot_encode_is_a_dead_letter_and_its_neighbours_arrive(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    write_session(rig.trace_dir, "a")
    write_session(rig.trace_dir, "b", turns=2, tool="unspeakable")
    rig.backend.answers.unencodable = {"unspeakable"}
    rig.ship()
    assert rig.stored_names() == sorted([*expected_names("a"), "b/session", "b/turn", "b/turn"])
    state = rig.state()
    letters = state.dead.of(1)
    state.close()
    assert [letter.reason for letter in letters] == ["cannot be encoded: ValueError: cannot say unspeakable"] * 2
    assert len([record for record in caplog.records if "dead letter" in record.getMessage()]) == 1


def test_without_a_reader_an_unanswered_batch_is_sent_again_and_counted_as_a_possible_repeat(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FileBackend(readable=False))
    write_session(rig.trace_dir, "a")
    rig.backend.answers.scripted = [UNKNOWN]
    rig.ship()
    assert rig.stored_names() == expected_names("a")
    assert rig.counters()["possible_repeats"] == 7


def test_a_shipper_that_died_after_sending_leaves_a_batch_that_the_next_one_settles_by_reading(rig: Rig) -> None:
    write_session(rig.trace_dir, "a")
    rig.backend.answers.scripted = [UNKNOWN]
    rig.backend.answers.stores_anyway = [True]
    dying = rig.shipper()
    dying.round()
    dying.wait(50)
    dying.close()  # before it has looked at the answer
    rig.ship()
    assert rig.stored_names() == expected_names("a")
    assert len(rig.backend.answers.requests) == 1


def test_one_refused_span_becomes_a_dead_letter_with_its_reason_and_its_neighbours_arrive(rig: Rig) -> None:
    write_session(rig.trace_dir, "a", tool="search")
    write_session(rig.trace_dir, "b", turns=1, tool="poison")
    rig.backend.answers.poison = {"poison"}
    rig.ship()
    assert rig.stored_names() == sorted([*expected_names("a"), "b/session", "b/turn"])
    state = rig.state()
    (letter,) = state.dead.of(1)
    state.close()
    assert (letter.reason, letter.ref.session_id) == ("poison", "b")


def test_a_backend_that_refuses_some_spans_without_naming_them_is_read_back_to_find_which(rig: Rig) -> None:
    write_session(rig.trace_dir, "a")
    rig.backend.answers.scripted = [Receipt(outcome=Outcome.ACCEPTED, rejected=7, message="full")]
    rig.backend.answers.stores_anyway = [False]
    rig.ship()
    state = rig.state()
    dead = state.dead.of(1)
    state.close()
    # this backend stored all of them, whatever it said, so nothing is dead
    assert dead == []
    assert rig.stored_names() == expected_names("a")


def test_refused_credentials_stop_the_sink_after_one_request_and_lose_nothing(rig: Rig) -> None:
    write_session(rig.trace_dir, "a")
    rig.backend.answers.scripted = [Receipt(outcome=Outcome.UNAUTHORIZED, message="401: bad key")]
    shipper = rig.shipper()
    until(lambda: not shipper.round().is_done and bool(shipper.trouble), "it is in trouble")
    assert shipper.trouble == "401: bad key"
    assert not shipper.round().is_done
    assert len(rig.backend.answers.requests) == 1
    shipper.close()
    rig.ship()
    assert rig.stored_names() == expected_names("a")


def test_what_a_sinks_sampling_leaves_out_is_not_sent_to_it(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FileBackend(), Policy(sample_rate=0.0))
    write_session(rig.trace_dir, "a")
    rig.ship()
    assert rig.stored_names() == []


def test_what_a_sinks_policy_leaves_out_is_not_sent_to_it(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FileBackend(), Policy(include_messages=False))
    write_session(rig.trace_dir, "a", turns=1)
    rig.ship()
    turn = next(span for span in stored(rig.file) if span.kind == "turn")
    assert (turn.input, turn.output) == (None, None)


def test_a_run_that_nobody_ended_is_sent_as_incomplete_once_it_is_old_enough(rig: Rig) -> None:
    write_session(rig.trace_dir, "a", turns=1, end=False, at=LONG_AGO)
    rig.ship()
    extents = {span.kind: span.extent for span in stored(rig.file)}
    assert extents == {"tool": "whole", "turn": "whole", "session": "incomplete"}


def test_a_session_that_is_entered_again_goes_on_after_it_was_let_go(rig: Rig) -> None:
    write_session(rig.trace_dir, "a", turns=1)
    rig.ship()
    write_session(rig.trace_dir, "a", turns=2)
    rig.ship()
    assert len(stored(rig.file)) == 3 + 5
    assert len({span.span_id for span in stored(rig.file)}) == 8


def test_every_sent_span_bears_the_fingerprint_of_the_rules_it_was_sent_with(rig: Rig) -> None:
    write_session(rig.trace_dir, "a")
    rig.ship()
    (fingerprint,) = {span.fingerprint for span in stored(rig.file)}
    state = rig.state()
    assert state.rules(fingerprint) is not None
    state.close()


def test_a_broken_line_is_reported_with_its_place_and_costs_no_other_event(rig: Rig) -> None:
    path = write_session(rig.trace_dir, "a")
    lines = path.read_text().splitlines()
    lines.insert(3, '{"timestamp":"2026-02-06T22:10:00')
    path.write_text("\n".join(lines) + "\n")
    rig.ship()
    assert rig.stored_names() == expected_names("a")
    state = rig.state()
    ((folder, session, offset, _),) = state.problems()
    state.close()
    assert (folder, session) == (rig.trace_dir.resolve(), "session-a")
    assert offset == len("\n".join(lines[:3])) + 1


def test_the_name_of_a_folder_with_a_broken_line_adds_no_line_and_no_command_to_the_log(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """The original named a session's folder by its id as it was."""
    folder = rig.trace_dir / "session-a\x1b[2J\nall is well"
    folder.mkdir(parents=True)
    layout.events_file(folder).write_text('{"timestamp":"2026-02-06T22:10:00\n')
    rig.ship()
    (told,) = caplog.messages
    assert "session-a [2J all is well/events.jsonl: byte 0: " in told
