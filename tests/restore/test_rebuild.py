"""What is missing, left out, stored twice or changed at the backend is told by name and count."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.delivery.rig import LONG_AGO, session_lines, write_session
from tests.restore.sending import Shelf, restored_lines, spans_of, write_journal
from tracebridge.diagnosis import PROBE_MARK
from tracebridge.errors import BackendError, ConfigurationError
from tracebridge.journal import layout
from tracebridge.policy import Policy
from tracebridge.restore import ExistingSessionError, Restoration
from tracebridge.sink import Loss, Query
from tracebridge.span import Edge, Span


def lines(name: str = "s", turns: int = 2, run_id: str = "run-1") -> list[dict[str, Any]]:
    texts = session_lines(name, turns, "search", True, LONG_AGO)
    return [json.loads(text.replace("run-1", run_id)) for text in texts]


def totals(told: Restoration) -> dict[str, int]:
    return told.totals


def rewrite(shelf: Shelf, change: Callable[[Span], list[Span]]) -> None:
    kept = [msgspec.json.decode(line, type=Span) for line in shelf.file.read_bytes().splitlines()]
    shelf.file.unlink()
    shelf.put([changed for span in kept for changed in change(span)])


@pytest.mark.parametrize(
    ("policy", "found"),
    [
        (Policy(), {}),
        (Policy(include_messages=False), {"include_messages": 8}),
        (Policy(max_content_length=5), {"max_content_length": 9}),
        (Policy(include_messages=False, max_content_length=5), {"include_messages": 8, "max_content_length": 5}),
    ],
    ids=["nothing", "messages", "length", "both"],
)
def test_what_the_sinks_policy_left_out_is_counted(tmp_path: Path, policy: Policy, found: dict[str, int]) -> None:
    shelf = Shelf(tmp_path, policy)
    shelf.send(write_journal(tmp_path / "old", "s", lines()))
    told = shelf.restore(tmp_path / "new")
    assert (totals(told), told.exit_code) == (found, 1 if found else 0)


def test_what_capture_left_out_already_is_no_shortfall(tmp_path: Path) -> None:
    narrow = Policy(include_messages=False)
    with_ids = [line | {"trace_id": "1" * 32, "span_id": f"{number:016x}"} for number, line in enumerate(lines(), 1)]
    for event_lines, found in ((with_ids, {}), (lines(), {"include_messages": 8})):
        folder = tmp_path / f"{len(found)}"
        folder.mkdir()
        shelf = Shelf(folder, narrow)
        shelf.send(write_journal(folder / "old", "s", event_lines))
        assert totals(shelf.restore(folder / "new", capture=narrow)) == found
        assert totals(shelf.restore(folder / "wider", capture=Policy())) == {"include_messages": 8}


def test_spans_that_are_not_there_leave_gaps_that_are_counted(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.send(write_journal(tmp_path / "old", "s", lines()))
    rewrite(shelf, lambda span: [] if span.kind == "tool" else [span])
    told = shelf.restore(tmp_path / "new")
    assert (totals(told), told.exit_code) == ({"missing": 4}, 1)
    kept = [line for line in lines() if not line["event_type"].startswith("tool")]
    assert restored_lines(tmp_path / "new", "s") == kept


def test_a_session_that_is_still_open_is_restored_as_far_as_it_is(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    path = write_session(tmp_path / "old", "s", turns=1, end=False)
    # the session's own span is sent at its end
    shelf.put([span for span in spans_of(path, fingerprint=shelf.fingerprint) if span.kind != "session"])
    assert totals(shelf.restore(tmp_path / "new")) == {"missing": 1}
    assert len(restored_lines(tmp_path / "new", "s")) == 4


def test_spans_that_are_stored_twice_count_once(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.send(write_journal(tmp_path / "old", "s", lines()))
    rewrite(shelf, lambda span: [span, span] if span.kind == "tool" else [span])
    told = shelf.restore(tmp_path / "new")
    assert (totals(told), told.sessions[0].repeats) == ({}, 2)
    assert restored_lines(tmp_path / "new", "s") == lines()


def test_spans_of_other_senders_are_no_part_of_a_session_of_ours(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    sent = shelf.send(write_journal(tmp_path / "old", "s", lines()))
    stranger = msgspec.structs.replace(sent[0], span_id="9" * 16, opened=None, closed=None, fingerprint="")
    shelf.put([stranger])
    told = shelf.restore(tmp_path / "new")
    assert (told.exit_code, told.sessions[0].others) == (0, 1)
    assert restored_lines(tmp_path / "new", "s") == lines()


def test_content_that_was_changed_at_the_backend_is_told(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.send(write_journal(tmp_path / "old", "s", lines()))
    rewrite(shelf, lambda span: [msgspec.structs.replace(span, user_id="x")] if span.kind == "tool" else [span])
    assert totals(shelf.restore(tmp_path / "new")) == {"changed": 2}


def test_answers_that_differ_only_in_what_the_policy_left_out_are_not_taken_for_changed(tmp_path: Path) -> None:
    """The second one has no call, and what is left of it says what the first one says."""
    turn = {"timestamp": "2026-02-06T22:10:00.000Z", "session_id": "s", "run_id": "run-1", "turn": 1, "duration_ms": 1}
    answers = [{"model": "gpt-4o", "content": text} for text in ("yes", "not")]
    events = [("turn.start", {}), ("llm.request", {"model": "gpt-4o"}), *(("llm.response", one) for one in answers)]
    recorded = [turn | {"event_type": kind, "data": data} for kind, data in events]
    shelf = Shelf(tmp_path, Policy(include_messages=False))
    shelf.send(write_journal(tmp_path / "old", "s", recorded))
    told = shelf.restore(tmp_path / "new")
    assert totals(told) == {"include_messages": 2}


def test_a_span_whose_events_somebody_has_broken_is_left_out_and_told(tmp_path: Path) -> None:
    def broken(span: Span) -> list[Span]:
        if span.kind != "session" or span.closed is None:
            return [span]
        return [msgspec.structs.replace(span, closed=msgspec.structs.replace(span.closed, timestamp="soon"))]

    shelf = Shelf(tmp_path)
    shelf.send(write_journal(tmp_path / "old", "s", lines()))
    rewrite(shelf, broken)
    assert totals(shelf.restore(tmp_path / "new")) == {"unreadable": 1, "missing": 1}


def test_a_session_that_was_recorded_in_two_files_is_restored_one_after_the_other(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    later = [line | {"timestamp": "2026-03-01T10:00:00.000Z"} for line in lines(turns=1, run_id="run-2")]
    shelf.send(write_journal(tmp_path / "b", "s", later))
    shelf.send(write_journal(tmp_path / "a", "s", lines()))
    told = shelf.restore(tmp_path / "new")
    assert totals(told) == {"several_files": len(later)}
    assert restored_lines(tmp_path / "new", "s") == lines() + later


def test_runs_of_a_later_file_are_not_put_into_an_earlier_one_in_which_their_places_are_free(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    runs = [
        [line | {"timestamp": f"2026-03-0{day}T10:00:00.000Z"} for line in lines(turns=turns, run_id=f"run-{day}")]
        for day, turns in ((1, 1), (2, 3), (3, 1))
    ]
    shelf.send(write_journal(tmp_path / "first", "s", runs[0]))
    shelf.send(write_journal(tmp_path / "second", "s", runs[1] + runs[2]))
    told = shelf.restore(tmp_path / "new")
    assert restored_lines(tmp_path / "new", "s") == [line for run in runs for line in run]
    assert totals(told) == {"several_files": len(runs[1] + runs[2])}


@pytest.mark.parametrize("cut", range(1, len(lines())))
def test_a_session_whose_file_was_moved_away_in_the_middle_of_a_run_is_restored_one_after_the_other(
    tmp_path: Path, cut: int
) -> None:
    shelf = Shelf(tmp_path)
    whole = [line | {"timestamp": f"2026-02-06T22:{number:02}:00.000Z"} for number, line in enumerate(lines())]
    shelf.send(write_journal(tmp_path / "moved", "s", whole[:cut]))
    shelf.send(write_journal(tmp_path / "new", "s", whole[cut:]))
    told = shelf.restore(tmp_path / "restored")
    assert totals(told) == {"several_files": len(whole) - cut}
    assert restored_lines(tmp_path / "restored", "s") == whole


def test_a_session_without_a_name_is_restored_from_all_of_its_traces(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.send(write_journal(tmp_path / "old", "", lines("")))
    assert totals(shelf.restore(tmp_path / "new")) == {}
    assert restored_lines(tmp_path / "new", "") == lines("")


def test_a_window_names_sessions_and_each_is_restored_whole(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    for day in (1, 2, 3):
        timed = [line | {"timestamp": f"2026-02-0{day}T10:{n:02}:00.000Z"} for n, line in enumerate(lines(f"s{day}"))]
        shelf.send(write_journal(tmp_path / "old", f"s{day}", timed))
    second_day_ns = 1_769_990_700_000_000_000  # its fifth minute past midnight, and so on
    told = shelf.restore(tmp_path / "new", start_ns=second_day_ns, end_ns=second_day_ns + 36_000_000_000_000)
    assert [(session.session_id, session.events) for session in told.sessions] == [("s2", len(lines()))]


def test_a_probe_of_the_doctor_is_nobodys_session(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    probe = f"{PROBE_MARK}-1"
    span = Span(kind="event", trace_id="1" * 32, span_id="2" * 16, name="p", start_ns=1, end_ns=1, session_id=probe)
    shelf.put([span])
    told = shelf.restore(tmp_path / "new")
    assert (told.sessions, told.probes, told.exit_code) == ((), 1, 0)


def test_sessions_that_are_there_already_are_named_before_anything_is_written(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    for name in ("a", "b", "c"):
        shelf.send(write_journal(tmp_path / "old", name, lines(name)))
    shelf.restore(tmp_path / "new", session_ids=("b",))
    with pytest.raises(ExistingSessionError, match="'b'"):
        shelf.restore(tmp_path / "new")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["session-b"]
    told = shelf.restore(tmp_path / "new", skip_existing=True)
    assert ([session.session_id for session in told.sessions], told.skipped) == (["a", "c"], ("b",))


def test_a_backend_that_goes_away_ends_it_with_what_was_restored(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    for name in ("a", "b", "c"):
        shelf.send(write_journal(tmp_path / "old", name, lines(name)))

    def gone(session_id: str) -> None:
        # what is read first is the list, then one session after the other
        shelf.backend.answers.reader_is_away = len(shelf.backend.answers.queries) >= 3

    answers = shelf.backend.answers
    answers.queries = Watched(gone)
    told = shelf.restore(tmp_path / "new")
    assert (told.exit_code, [session.session_id for session in told.sessions], told.left) == (2, ["a"], 2)
    assert "away" in told.trouble


class Watched(list[Any]):
    """The queries of a reader; each is told before it is answered."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__()
        self._tell = tell

    def append(self, query: Any) -> None:
        super().append(query)
        self._tell(query.session_id)


def test_a_declared_loss_that_a_span_shows_is_counted_by_its_name(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    media = Loss(
        name="media-by-reference", words="Media go.", apply=lambda span: span, shows=lambda span: span.kind == "tool"
    )
    silent = Loss(name="time", words="Times are cut.", apply=lambda span: span)
    losses = {"losses": (media, silent)}
    shelf.backend._capabilities = msgspec.structs.replace(shelf.backend._capabilities, **losses)
    shelf.send(write_journal(tmp_path / "old", "s", lines()))
    told = shelf.restore(tmp_path / "new")
    assert (totals(told), told.exit_code) == ({"media-by-reference": 2}, 1)
    assert told.words("media-by-reference") == "spans show it: Media go."
    assert told.declared == {"media-by-reference": "Media go.", "time": "Times are cut."}


def test_in_memory_is_one_session_however_many_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them has a megabyte."""

    class Streaming:
        def __init__(self, sessions: int) -> None:
            self.names = [f"s{number}" for number in range(sessions)]

        def read(self, query: Query) -> Iterator[Span]:
            for name in self.names if query.session_id is None else [query.session_id]:
                yield span_of(name, "" if query.ids_only else "x" * 1_000_000)

        def close(self) -> None:
            return

    def span_of(name: str, content: str) -> Span:
        return Span(
            kind="event",
            trace_id=f"{int(name[1:]) + 1:032x}",
            span_id="1" * 16,
            name="note",
            start_ns=1,
            end_ns=1,
            session_id=name,
            opened=Edge(ordinal=0, timestamp=LONG_AGO, fields={"content": content}),
            fingerprint="f",
        )

    peaks = []
    for sessions in (3, 30):
        folder = tmp_path / f"{sessions}"
        folder.mkdir()
        shelf = Shelf(folder)
        monkeypatch.setattr(shelf.backend, "open_reader", lambda _, count=sessions: Streaming(count))
        tracemalloc.start()
        told = shelf.restore(folder / "new")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(told.sessions) == sessions
    assert peaks[1] - peaks[0] < 1_000_000


def test_a_backend_that_cannot_be_read_at_all_is_an_error(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.backend.answers.reader_is_away = True
    with pytest.raises(BackendError, match="away"):
        shelf.restore(tmp_path / "new")


def test_a_sink_without_a_reader_is_refused(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.backend._capabilities = msgspec.structs.replace(shelf.backend._capabilities, readable=False)
    with pytest.raises(ConfigurationError, match="cannot be read back"):
        shelf.restore(tmp_path / "new")


def test_the_metadata_is_that_of_the_last_run(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    both = lines() + [
        line | ({"data": {"metadata": {"plan": "free"}}} if line["event_type"] == "session.start" else {})
        for line in lines(run_id="run-2")
    ]
    shelf.send(write_journal(tmp_path / "old", "s", both))
    shelf.restore(tmp_path / "new")
    found = json.loads(layout.metadata_file(tmp_path / "new" / "session-s").read_text())
    assert found == {"session_id": "s", "created_at": LONG_AGO, "metadata": {"plan": "free"}}
