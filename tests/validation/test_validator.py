"""A verdict rests on every owed session, under the rules that its spans were sent with."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from tests.delivery.file_backend import FileBackend, FileReader, FileSettings, PartialBackend, settings_for, stored
from tests.delivery.rig import LONG_AGO, TAILS, Rig, end_with, write_session
from tests.waiting import grace_s
from tracebridge.delivery.choice import ALWAYS, Window
from tracebridge.errors import BackendError, ConfigurationError
from tracebridge.journal import layout
from tracebridge.policy import Policy
from tracebridge.sink import Query
from tracebridge.span import Span
from tracebridge.validation import Scope, Validator, Verdict
from tracebridge.validation.windows import WINDOW_BYTES

SPANS = 7


class WatchedBackend(FileBackend):
    """Its reader calls `before_read` each time that something is read."""

    def __init__(self) -> None:
        super().__init__()
        self.before_read: Callable[[], object] = int

    def open_reader(self, settings: msgspec.Struct) -> WatchedReader:  # type: ignore[override]
        assert isinstance(settings, FileSettings)
        return WatchedReader(settings.path, self)


class WatchedReader:
    def __init__(self, path: Path, backend: WatchedBackend) -> None:
        self._reader, self._backend = FileReader(path), backend

    def read(self, query: Query) -> Iterator[Span]:
        self._backend.before_read()
        return self._reader.read(query)

    def close(self) -> None:
        return


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path, FileBackend())


def validate(
    rig: Rig, session_id: str | None = None, policy: Policy | None = None, *, since_last: bool = False
) -> Verdict:
    settings = settings_for(rig.trace_dir, rig.backend, rig.file, policy)
    validator = Validator(settings.sinks[0], rig.trace_dir)
    try:
        return validator.validate(Scope(session_id=session_id, since_last=since_last))
    finally:
        validator.close()


def defects(rig: Rig) -> list[int]:
    """How many of each session are kept as evidence."""
    state = rig.state()
    try:
        return [one.defects for one in state.evidence.compared(1)]
    finally:
        state.close()


def rewrite(rig: Rig, change: Callable[[Span], Span | None]) -> None:
    """Change what the backend stores; None takes a span away."""
    kept = [changed for span in stored(rig.file) if (changed := change(span)) is not None]
    rig.file.write_bytes(b"".join(msgspec.json.encode(span) + b"\n" for span in kept))


@pytest.mark.parametrize("content", ["", "half a li", "not an event\n"])
def test_journals_that_hold_no_event_are_no_comparison_and_no_pass(rig: Rig, content: str) -> None:
    events = layout.events_file(layout.session_folder(rig.trace_dir, "died-at-once"))
    events.parent.mkdir(parents=True)
    events.write_text(content)
    verdict = validate(rig)
    assert (verdict.exit_code, verdict.sessions) == (2, 0)
    write_session(rig.trace_dir, "a")
    rig.ship()
    verdict = validate(rig)
    assert (verdict.exit_code, verdict.sessions) == (0, 1)


@pytest.mark.parametrize("is_begun_anew", [True, False], ids=["begun anew", "not begun anew"])
def test_what_was_rotated_away_is_told_and_never_passes_until_it_is_back_or_elsewhere(
    rig: Rig, is_begun_anew: bool
) -> None:
    write_session(rig.trace_dir, "other", turns=1)
    journal = write_session(rig.trace_dir, "s", turns=1)
    part = journal.rename(journal.with_name("events.jsonl.1"))
    if is_begun_anew:
        write_session(rig.trace_dir, "s", turns=1, run_id="run-2")
    rig.ship()
    verdict = validate(rig)
    assert (verdict.exit_code, verdict.counts) == (2, {})
    (told,) = verdict.uncompared
    assert (told.session_id, told.reason.startswith(f"{part}: a part that was rotated away")) == ("s", True)
    assert validate(rig, "other").exit_code == 0

    part.rename(rig.trace_dir / "elsewhere" if is_begun_anew else journal)
    rig.ship()
    assert validate(rig).exit_code == 0


def test_what_was_rotated_away_from_a_session_that_a_backfill_did_not_ask_for_is_nobodys_business(
    rig: Rig, tmp_path: Path
) -> None:
    unasked = write_session(tmp_path / "old", "unasked", turns=1, at=LONG_AGO)
    unasked.with_name("events.jsonl.1.gz").write_bytes(b"its beginning")
    write_session(tmp_path / "old", "asked-for", turns=1)
    state = rig.state()
    state.backfill(tmp_path / "old", Window(time.time_ns() - 3_600 * 10**9, ALWAYS.until_ns))
    state.close()
    rig.ship()
    verdict = validate(rig)
    assert (verdict.exit_code, verdict.uncompared, verdict.sessions) == (0, (), 1)


@pytest.mark.parametrize("turns", [1, 2], ids=["as long", "shorter"])
def test_another_file_in_the_place_of_a_delivered_one_is_pending_until_it_is_shipped(rig: Rig, turns: int) -> None:
    delivered = write_session(rig.trace_dir, "s", turns=turns)
    rig.ship()
    sent = len(stored(rig.file))
    delivered.rename(rig.trace_dir / "elsewhere")
    write_session(rig.trace_dir, "s", turns=1, run_id="run-2")
    verdict = validate(rig)
    assert (verdict.exit_code, verdict.counts.get("missing", 0)) == (2, 0)
    assert [told.reason for told in verdict.uncompared] == ["not delivered yet; run `tracebridge ship`"]
    rig.ship()
    assert validate(rig).counts == {"extra": sent}
    assert set(Counter(span.span_id for span in stored(rig.file)).values()) == {1}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"timestamp":"2026-02-06T22:10:00Z","event_type":"turn.start","turn":"1"}\n', "not an event: "),
        (b'{"event_type":"turn.start","data":{"user_input":"caf\xe9"}}\n', "not JSON: "),
    ],
    ids=["no event", "another encoding"],
)
def test_a_line_that_is_whole_and_cannot_be_read_is_told_and_is_no_pass_until_it_is_out(
    rig: Rig, line: bytes, why: str
) -> None:
    journal = write_session(rig.trace_dir, "s")
    events = journal.read_bytes()
    journal.write_bytes(events + line + line)
    rig.ship()
    verdict = validate(rig)
    assert (verdict.exit_code, verdict.counts, verdict.sessions) == (2, {}, 1)
    (told,) = verdict.uncompared
    assert (told.session_id, told.reason.startswith(f"{journal}, byte {len(events)}: {why}")) == ("s", True)
    assert defects(rig) == [2]
    assert told.reason.endswith(", and 1 more such lines; no backend has it: take it out")
    again = validate(rig, since_last=True)
    assert (again.exit_code, again.known_clean) == (2, 0), "it is not known to be clean"

    journal.write_bytes(events)
    rig.ship()
    assert validate(rig).exit_code == 0


@pytest.mark.parametrize("is_mended", [False, True], ids=["blanked", "mended"])
def test_a_line_that_could_not_be_read_can_be_blanked_at_any_time_and_mended_only_before_the_rest_is_delivered(
    rig: Rig, is_mended: bool
) -> None:
    journal = write_session(rig.trace_dir, "s")
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[5], whole = lines[5].replace(b'"turn": 2', b'"turn":"2"'), lines[5]
    journal.write_bytes(b"".join(lines))
    rig.ship()
    assert validate(rig).exit_code == 2
    lines[5] = whole if is_mended else b" " * (len(whole) - 1) + b"\n"
    with journal.open("r+b") as file:
        file.write(b"".join(lines))
    write_session(rig.trace_dir, "s", run_id="run-2")
    rig.ship()
    verdict = validate(rig)
    assert (verdict.exit_code, "extra" in verdict.counts) == ((1, True) if is_mended else (0, False))


@pytest.mark.parametrize(
    "half",
    [b'{"timestamp":"2026-', bytes(512), b'{"timestamp":"2026-02-06T22:10:00Z","event_type":"x","data":{"args":{}'],
    ids=["half a line", "zeros", "half a line that ends in a bracket"],
)
def test_what_a_writer_that_died_left_in_the_middle_is_in_nobodys_way(rig: Rig, half: bytes) -> None:
    journal = write_session(rig.trace_dir, "s")
    with journal.open("ab") as file:
        file.write(half + b"\n")
    write_session(rig.trace_dir, "s", run_id="run-2")
    rig.ship()
    verdict = validate(rig)
    assert (verdict.exit_code, verdict.uncompared) == (0, ())


def test_a_journal_that_was_emptied_after_it_was_delivered_is_no_pass(rig: Rig) -> None:
    write_session(rig.trace_dir, "a")
    emptied = write_session(rig.trace_dir, "b")
    rig.ship()
    emptied.write_bytes(b"")
    verdict = validate(rig)
    assert (verdict.exit_code, verdict.counts) == (1, {"extra": SPANS})


@pytest.mark.parametrize(
    ("content", "scope", "why"),
    [
        (None, Scope(), "no session is owed to this sink"),
        ("", Scope(), "no session that is owed to this sink holds an event"),
        ("a", Scope(sample=1e-9), "none of the 1 sessions was drawn; ask for a larger share with --sample"),
    ],
    ids=["no session", "no event", "not drawn"],
)
def test_why_nothing_was_compared_is_told(rig: Rig, content: str | None, scope: Scope, why: str) -> None:
    rig.trace_dir.mkdir()
    if content is not None:
        journal = write_session(rig.trace_dir, "a")
        if not content:
            journal.write_text(content)
    rig.ship()
    validator = Validator(rig.settings.sinks[0], rig.trace_dir)
    try:
        verdict = validator.validate(scope)
    finally:
        validator.close()
    assert (verdict.exit_code, [one.reason for one in verdict.uncompared]) == (2, [why])


def test_a_session_that_the_spool_removes_before_it_is_read_is_owed_no_more(rig: Rig) -> None:
    first = write_session(rig.trace_dir, "a", at=LONG_AGO, tool="large")
    first.write_text(first.read_text().replace("large", "large" * (WINDOW_BYTES // 20)))
    write_session(rig.trace_dir, "b")
    removed = write_session(rig.trace_dir, "c")
    rig.ship()
    validator = Validator(rig.settings.sinks[0], rig.trace_dir)
    try:
        verdict = validator.validate(progress=lambda *_: shutil.rmtree(removed.parent, ignore_errors=True))
    finally:
        validator.close()
    assert (verdict.exit_code, verdict.sessions, verdict.uncompared) == (0, 2, ())


@pytest.mark.parametrize("sessions", [1, 4], ids=["one by one", "at once"])
def test_a_session_that_the_spool_removes_while_it_is_compared_takes_no_verdict_away(
    tmp_path: Path, sessions: int
) -> None:
    rig = Rig(tmp_path, backend := WatchedBackend(), Policy(include_messages=False))
    for number in range(sessions):
        write_session(rig.trace_dir, f"s{number}")
    rig.ship()
    backend.before_read = lambda: shutil.rmtree(rig.trace_dir / "session-s0", ignore_errors=True)
    verdict = validate(rig, policy=Policy())
    assert (verdict.exit_code, verdict.sessions) == (2, sessions - 1)
    assert [one.session_id for one in verdict.uncompared] == ["s0"]
    assert "its journal cannot be read" in verdict.uncompared[0].reason


def test_what_was_delivered_is_clean(rig: Rig) -> None:
    write_session(rig.trace_dir, "a")
    write_session(rig.trace_dir, "b")
    rig.ship()
    verdict = validate(rig)
    assert (verdict.exit_code, verdict.sessions, verdict.equal) == (0, 2, 2 * SPANS)
    assert verdict.spans == {"session": 2, "turn": 6, "tool": 6}
    assert (verdict.findings, verdict.uncompared) == ((), ())


@pytest.mark.parametrize(
    ("sent_with", "validated_with"),
    [
        (Policy(include_messages=False), Policy()),
        (Policy(), Policy(include_messages=False)),
        (Policy(max_content_length=3), Policy(max_content_length=5)),
    ],
    ids=["widened", "narrowed", "other length"],
)
def test_a_policy_that_was_changed_after_sending_is_no_difference(
    tmp_path: Path, sent_with: Policy, validated_with: Policy
) -> None:
    rig = Rig(tmp_path, FileBackend(), sent_with)
    write_session(rig.trace_dir, "a")
    rig.ship()
    verdict = validate(rig, policy=validated_with)
    assert (verdict.exit_code, verdict.equal) == (0, SPANS)


def test_a_session_that_was_sent_under_two_policies_is_compared_under_both(tmp_path: Path) -> None:
    write_session(tmp_path / "traces", "a", turns=1)
    Rig(tmp_path, FileBackend(), Policy(include_messages=False)).ship()
    write_session(tmp_path / "traces", "a", turns=2)
    later = Rig(tmp_path, FileBackend())
    later.ship()
    assert len({span.fingerprint for span in stored(later.file)}) == 2
    verdict = validate(later)
    assert (verdict.exit_code, verdict.equal) == (0, 3 + 5)


def test_content_that_the_rules_left_out_and_the_backend_shows_is_different(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FileBackend(), Policy(include_messages=False))
    write_session(rig.trace_dir, "a", turns=1)
    rig.ship()
    rewrite(rig, lambda span: msgspec.structs.replace(span, input="leaked") if span.kind == "turn" else span)
    (finding,) = validate(rig).findings
    assert [difference.field for difference in finding.differences] == ["input"]


def test_a_span_that_lost_its_session_is_different_and_not_missing(rig: Rig) -> None:
    write_session(rig.trace_dir, "a")
    rig.ship()
    rewrite(rig, lambda span: msgspec.structs.replace(span, session_id="") if span.kind == "session" else span)
    verdict = validate(rig)
    assert (verdict.exit_code, verdict.counts) == (1, {"different": 1})
    assert [difference.field for difference in verdict.findings[0].differences] == ["session_id"]


def test_a_neighbour_that_shares_a_trace_with_a_missing_span_is_not_extra(rig: Rig) -> None:
    write_session(rig.trace_dir, "a")
    write_session(rig.trace_dir, "b")
    rig.ship()
    # this backend answers a question for traces with all that it has
    rewrite(rig, lambda span: None if (span.session_id, span.kind) == ("a", "session") else span)
    verdict = validate(rig)
    assert verdict.counts == {"missing": 1}


def test_what_was_not_shipped_is_not_missing_but_not_compared(rig: Rig) -> None:
    write_session(rig.trace_dir, "a")
    verdict = validate(rig)
    assert (verdict.exit_code, verdict.sessions, verdict.counts) == (2, 0, {"pending": SPANS})
    assert {finding.command for finding in verdict.findings} == {"tracebridge ship --sink file"}
    assert [entry.session_id for entry in verdict.uncompared] == ["a"]


def test_many_sessions_with_something_missing_are_waited_for_together(rig: Rig) -> None:
    for number in range(6):
        write_session(rig.trace_dir, f"s{number}", turns=1)
    rig.ship()
    rewrite(rig, lambda span: None if span.kind == "turn" else span)
    began = time.monotonic()
    assert validate(rig).counts == {"missing": 6}
    assert time.monotonic() - began < 5 + grace_s(), "each alone would be waited for for 2 s"


def test_what_sampling_leaves_out_is_not_owed(rig: Rig) -> None:
    write_session(rig.trace_dir, "a")
    verdict = validate(rig, policy=Policy(sample_rate=0.0))
    assert (verdict.exit_code, verdict.expected) == (2, 0)
    assert [entry.reason for entry in verdict.uncompared] == ["no session is owed to this sink"]


def test_a_run_that_nobody_ended_is_compared_once_it_was_given_up(rig: Rig) -> None:
    write_session(rig.trace_dir, "old", end=False, at=LONG_AGO)
    write_session(rig.trace_dir, "open", end=False)
    rig.ship()
    verdict = validate(rig)
    assert (verdict.exit_code, verdict.sessions, verdict.equal) == (2, 1, SPANS)
    assert [entry.session_id for entry in verdict.uncompared] == ["open"]


def test_a_session_in_two_folders_is_compared_as_one(rig: Rig, tmp_path: Path) -> None:
    write_session(rig.trace_dir, "a", turns=1, at=LONG_AGO)
    shutil.move(rig.trace_dir / "session-a", tmp_path / "old" / "session-a")
    state = rig.state()
    state.folder(tmp_path / "old")
    state.close()
    path = write_session(rig.trace_dir, "a", turns=2)
    path.write_text(path.read_text().replace("run-1", "run-2"))
    rig.ship()
    verdict = validate(rig)
    assert (verdict.exit_code, verdict.sessions, verdict.equal) == (0, 1, 3 + 5)


def test_a_run_that_was_sent_from_two_journals_is_a_duplicate(rig: Rig, tmp_path: Path) -> None:
    write_session(rig.trace_dir, "a")
    shutil.copytree(rig.trace_dir / "session-a", tmp_path / "old" / "session-a")
    # else it would be known for a copy
    copy = tmp_path / "old" / "session-a" / "events.jsonl"
    copy.write_text("\n" + copy.read_text())
    state = rig.state()
    state.folder(tmp_path / "old")
    state.close()
    rig.ship()
    verdict = validate(rig)
    assert (verdict.expected, verdict.observed, verdict.counts) == (SPANS, 2 * SPANS, {"duplicate": SPANS})


def test_a_session_that_goes_on_while_it_is_compared_is_named_and_not_blamed(tmp_path: Path) -> None:
    backend = WatchedBackend()
    rig = Rig(tmp_path, backend)
    write_session(rig.trace_dir, "a")
    rig.ship()

    def go_on() -> None:
        write_session(rig.trace_dir, "a", turns=1)
        rig.ship()

    backend.before_read = go_on
    verdict = validate(rig)
    assert (verdict.exit_code, verdict.findings) == (2, ())
    ((session_id, reason),) = ((entry.session_id, entry.reason) for entry in verdict.uncompared)
    assert (session_id, "while it was compared" in reason) == ("a", True)


@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS)
def test_what_a_writer_left_at_the_end_when_it_died_hides_no_finding(rig: Rig, tail: bytes) -> None:
    end_with(write_session(rig.trace_dir, "a"), tail)
    rig.ship()
    assert validate(rig).exit_code == 0
    rewrite(rig, lambda span: None if span.kind == "tool" else span)
    verdict = validate(rig)
    assert (verdict.exit_code, verdict.counts, verdict.uncompared) == (1, {"missing": 3}, ())


@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS)
def test_a_session_with_half_a_line_at_its_end_is_known_to_be_clean_once_it_was_compared(rig: Rig, tail: bytes) -> None:
    end_with(write_session(rig.trace_dir, "a"), tail)
    rig.ship()
    assert validate(rig).exit_code == 0
    verdict = validate(rig, since_last=True)
    assert (verdict.exit_code, verdict.known_clean) == (0, 1)


def test_a_journal_that_is_changed_in_its_place_while_it_is_compared_is_not_known_to_be_clean(tmp_path: Path) -> None:
    backend = WatchedBackend()
    rig = Rig(tmp_path, backend)
    journal = write_session(rig.trace_dir, "a")
    rig.ship()
    backend.before_read = lambda: journal.write_text(journal.read_text("utf-8").replace("answer", "******"), "utf-8")
    assert validate(rig).exit_code == 0
    backend.before_read = int
    verdict = validate(rig, since_last=True)
    assert (verdict.exit_code, verdict.known_clean) == (1, 0)


def test_a_backend_that_goes_away_in_the_middle_ends_it_with_what_was_compared(tmp_path: Path) -> None:
    backend = WatchedBackend()
    rig = Rig(tmp_path, backend)
    for name in ("a", "b", "c"):
        write_session(rig.trace_dir, name)
    rig.ship()
    reads: list[None] = []

    def go_away() -> None:
        reads.append(None)
        if len(reads) > 1:
            raise BackendError("file: gone")

    backend.before_read = go_away
    verdict = validate(rig)
    assert (verdict.exit_code, verdict.sessions) == (2, 1)
    assert "file: gone" in verdict.uncompared[0].reason
    assert len(reads) == 2, "no one asks a backend that is away again for every session"


def test_a_sink_without_a_reader_cannot_be_validated(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FileBackend(readable=False))
    with pytest.raises(ConfigurationError, match="cannot be read back"):
        validate(rig)


def test_what_a_search_does_not_find_is_compared_by_its_traces(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FileBackend(hidden_from_search="Nothing is found."))
    for name in "abcdef":
        write_session(rig.trace_dir, name)
    rig.ship()
    assert (validate(rig).exit_code, validate(rig).equal) == (0, 6 * SPANS)
    (lost, changed, copied, *_) = [span for span in stored(rig.file) if span.kind == "turn"]
    more = [msgspec.structs.replace(changed, span_id="e" * 16), copied]
    kept = [span for span in stored(rig.file) if span is not lost and span.span_id != lost.span_id]
    rewritten = [msgspec.structs.replace(span, input="x") if span == changed else span for span in kept] + more
    rig.file.write_bytes(b"".join(msgspec.json.encode(span) + b"\n" for span in rewritten))
    assert validate(rig).counts == {"missing": 1, "different": 1, "extra": 1, "duplicate": 1}


def test_a_session_that_is_shown_in_part_is_not_compared_and_the_others_are(tmp_path: Path) -> None:
    rig = Rig(tmp_path, PartialBackend("b", tells_ids=False))
    for name in "abcde":
        write_session(rig.trace_dir, name)
    rig.ship()
    verdict = validate(rig)
    assert (verdict.exit_code, verdict.sessions, verdict.findings) == (2, 4, ())
    assert [(one.session_id, one.reason) for one in verdict.uncompared] == [
        ("b", "only a part of it is shown; raise the limit")
    ]
