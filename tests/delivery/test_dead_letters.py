"""What people do about dead letters: look at them, have them sent again, give them up."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.delivery.file_backend import FileBackend, FileSink, PartialBackend, stored
from tests.delivery.rig import Rig, write_session
from tests.waiting import until
from tracebridge.delivery import lookup
from tracebridge.delivery.state import SpanRef
from tracebridge.journal import layout
from tracebridge.journal.opened import OpenedLog
from tracebridge.session_stream import SessionStream, Step
from tracebridge.span import Span


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """Two spans are dead: the backend refuses tools of that name."""
    rig = Rig(tmp_path, FileBackend())
    rig.backend.answers.poison = {"poison"}
    write_session(rig.trace_dir, "a", turns=2, tool="poison")
    write_session(rig.trace_dir, "b", turns=1)
    rig.ship()
    assert len(rig.dead()) == 2
    return rig


def retry(rig: Rig, *numbers: int) -> None:
    state = rig.state()
    state.dead.retry(state.dead.of(1, numbers=numbers))
    state.close()


def test_letters_are_found_by_reason_and_by_number(rig: Rig) -> None:
    first, second = rig.dead()
    state = rig.state()
    assert state.dead.of(1, reason="pois") == [first, second]
    assert state.dead.of(1, reason="no such reason") == []
    assert state.dead.of(1, numbers=[second.id]) == [second]
    assert state.dead.of(2) == []
    assert b"poison" in state.dead.part(first.id)
    state.close()


def test_what_is_retried_arrives_once_the_backend_takes_it_and_the_rest_stays_dead(rig: Rig) -> None:
    first, second = rig.dead()
    rig.backend.answers.poison = set()
    retry(rig, first.id)
    rig.ship()
    assert rig.dead() == [second]
    assert rig.stored_names().count("a/tool") == 1
    assert rig.account().unaccounted_events == 0


@pytest.mark.parametrize("shown", [1, 2])
def test_what_shows_by_the_time_it_would_be_sent_again_is_not_sent(rig: Rig, shown: int) -> None:
    at_backend = rig.stored_names()
    refs = [SpanRef.of(span) for span in stored(rig.file) if span.session_id == "b"][:2]
    state = rig.state()
    state.dead.resend(1, refs)
    state.close()
    lost = {ref.span_id for ref in refs[shown:]}
    kept = [span for span in stored(rig.file) if span.span_id not in lost]
    rig.file.write_bytes(b"".join(msgspec.json.encode(span) + b"\n" for span in kept))
    rig.ship()
    assert rig.stored_names() == at_backend
    assert (len(rig.dead()), rig.counters()["found_spans"]) == (2, shown)
    assert rig.account().unaccounted_events == 0


def test_what_two_validations_at_once_found_missing_is_sent_again_once(rig: Rig) -> None:
    at_backend = rig.stored_names()
    refs = [SpanRef.of(span) for span in stored(rig.file) if span.session_id == "b"][:2]
    kept = [span for span in stored(rig.file) if span.span_id not in {ref.span_id for ref in refs}]
    rig.file.write_bytes(b"".join(msgspec.json.encode(span) + b"\n" for span in kept))
    for _ in range(2):
        state = rig.state()
        state.dead.resend(1, refs)
        state.close()
    rig.ship()
    assert rig.stored_names() == at_backend
    assert rig.account().unaccounted_events == 0


def test_a_trace_that_shows_only_a_part_has_nothing_of_others_sent_again(tmp_path: Path) -> None:
    rig = Rig(tmp_path, PartialBackend("partial", tells_ids=False))
    for name in ("a", "partial", "z"):
        write_session(rig.trace_dir, name)
    rig.ship()
    at_backend = rig.stored_names()
    state = rig.state()
    state.dead.resend(1, [SpanRef.of(span) for span in stored(rig.file) if span.kind == "turn"])
    state.close()
    rig.ship()
    assert rig.dead() == []
    # nobody can tell whether the parts that are not shown are there
    assert rig.stored_names() == sorted([*at_backend, *["partial/turn"] * 3])
    assert rig.account().unaccounted_events == 0


@pytest.mark.parametrize("readable", [True, False], ids=["readable", "not readable"])
@pytest.mark.parametrize("is_lost", [True, False], ids=["lost", "shown by now"])
def test_as_long_as_some_of_very_many_are_still_to_be_sent_again_not_everything_is_delivered(
    tmp_path: Path, readable: bool, is_lost: bool
) -> None:
    rig = Rig(tmp_path, FileBackend(readable=readable))
    for number in range(75):
        write_session(rig.trace_dir, f"s-{number}")
    rig.ship()
    at_backend = rig.stored_names()
    state = rig.state()
    state.dead.resend(1, [SpanRef.of(span) for span in stored(rig.file)])
    state.close()
    if is_lost:
        rig.file.write_bytes(b"")
    rig.ship()
    assert rig.dead() == []
    assert set(rig.stored_names()) == set(at_backend)
    if readable or is_lost:
        assert rig.stored_names() == at_backend
    assert rig.account().unaccounted_events == 0


def test_a_journal_is_read_once_for_all_letters_of_its_session(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    class Counted(SessionStream):
        def steps(self) -> Iterator[Step]:
            read.append(self.path)
            return super().steps()

    monkeypatch.setattr(lookup, "SessionStream", Counted)
    rig.backend.answers.poison = set()
    retry(rig)
    rig.ship()
    assert rig.dead() == []
    assert read == [layout.events_file(layout.session_folder(rig.trace_dir, "a"))]


def test_as_long_as_nobody_can_tell_what_shows_nothing_is_sent_again(rig: Rig) -> None:
    rig.backend.answers.poison = set()
    rig.backend.answers.reader_is_away = True
    retry(rig)
    shipper = rig.shipper()
    until(lambda: not shipper.round().is_done and bool(shipper.trouble), "the backend was asked")
    assert len(rig.dead()) == 2
    rig.backend.answers.reader_is_away = False
    until(lambda: shipper.round().is_done, "they are sent")
    assert rig.dead() == []
    shipper.close()


def test_a_shipper_that_runs_already_sends_it(rig: Rig) -> None:
    rig.backend.answers.poison = set()
    shipper = rig.shipper()
    until(lambda: shipper.round().is_done, "there is nothing to do")
    retry(rig)
    number = 1
    while rig.dead():
        number += 1
        shipper.round(number)
        shipper.wait(0.01)
    until(lambda: shipper.round(number).is_done, "it is sent")
    shipper.close()
    assert rig.stored_names().count("a/tool") == 2


def test_what_is_refused_again_is_dead_again(rig: Rig) -> None:
    retry(rig)
    rig.ship()
    assert [(letter.reason, letter.is_retried) for letter in rig.dead()] == [("poison", False)] * 2


def test_it_is_made_anew_from_the_journal_so_that_a_newer_mapping_applies(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FileBackend())
    rig.backend.answers.unencodable = {"odd"}
    write_session(rig.trace_dir, "a", turns=1, tool="odd")
    rig.ship()
    (letter,) = rig.dead()
    state = rig.state()
    assert state.dead.part(letter.id) == b"", "it could not be encoded"
    state.close()
    rig.backend.answers.unencodable = set()
    retry(rig)
    rig.ship()
    assert rig.dead() == []
    assert rig.stored_names() == ["a/session", "a/tool", "a/turn"]


def test_without_its_journal_the_bytes_that_were_refused_are_sent_again(rig: Rig) -> None:
    shutil.rmtree(layout.session_folder(rig.trace_dir, "a"))
    rig.backend.answers.poison = set()
    retry(rig)
    rig.ship()
    assert rig.dead() == []
    assert rig.stored_names().count("a/tool") == 2


def test_what_can_be_made_of_nothing_any_more_stays_dead_and_is_not_tried_for_ever(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FileBackend())
    rig.backend.answers.unencodable = {"odd"}
    write_session(rig.trace_dir, "a", turns=1, tool="odd")
    rig.ship()
    shutil.rmtree(layout.session_folder(rig.trace_dir, "a"))
    retry(rig)
    rig.ship()
    (letter,) = rig.dead()
    assert not letter.is_retried


def test_what_is_discarded_is_counted_and_gone(rig: Rig) -> None:
    state = rig.state()
    letters = state.dead.of(1)
    assert state.dead.discard(1, letters) == 2
    assert state.dead.discard(1, letters) == 0, "somebody else was faster"
    state.close()
    assert rig.dead() == []
    account = rig.account()
    assert (account.counters["discarded_spans"], account.counters["discarded_events"]) == (2, 4)
    assert account.unaccounted_events == 0


@pytest.mark.parametrize("all_of_them", [True, False])
def test_what_is_discarded_while_it_is_made_anew_to_be_sent_is_given_up(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, all_of_them: bool
) -> None:
    encode, (first, second) = FileSink.encode, rig.dead()
    given_up = [first, second] if all_of_them else [first]

    def somebody_is_faster(sink: FileSink, span: Span) -> bytes:
        state = rig.state()
        state.dead.discard(1, given_up)
        state.close()
        return encode(sink, span)

    rig.backend.answers.poison = set()
    retry(rig)
    monkeypatch.setattr(FileSink, "encode", somebody_is_faster)
    rig.ship()
    assert rig.dead() == []
    assert rig.stored_names().count("a/tool") == 2 - len(given_up)
    account = rig.account()
    assert account.counters["discarded_spans"] == len(given_up)
    assert account.unaccounted_events == 0


def test_a_backend_that_found_everything_too_large_for_a_while_gets_all_of_it_from_the_same_shipper(
    tmp_path: Path,
) -> None:
    """As behind a proxy whose limit was set wrong: it says nothing of what the backend takes."""
    rig = Rig(tmp_path, FileBackend())
    rig.backend.answers.takes_bytes = 10
    write_session(rig.trace_dir, "a", turns=2, tool="x" * 5_000)
    shipper = rig.shipper()
    until(lambda: shipper.round(1).is_done, "all is refused")
    assert len(rig.dead()) == 5
    rig.backend.answers.takes_bytes = None
    events = write_session(rig.trace_dir, "b", turns=2, tool="x" * 5_000)
    OpenedLog(rig.trace_dir).append(events.parent.name)
    retry(rig)
    until(lambda: shipper.round(2).is_done, "all is taken")
    shipper.close()
    assert rig.dead() == []
    assert rig.stored_names() == sorted(
        f"{name}/{kind}" for name in "ab" for kind in ["session", *["tool", "turn"] * 2]
    )
    assert {len(span.name) for span in stored(rig.file) if span.kind == "tool"} == {5_000}
