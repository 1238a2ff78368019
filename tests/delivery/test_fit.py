"""A span that is too large alone is cut, marked as cut, and delivered; the journal foretells what is left of it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.delivery.file_backend import FileBackend, stored
from tests.delivery.rig import Rig, now, write_session
from tests.waiting import until
from tracebridge.journal import layout
from tracebridge.journal.opened import OpenedLog
from tracebridge.span import Span
from tracebridge.validation import Validator

LARGE = 300_000


def write_large(trace_dir: Path, name: str, sizes: list[int]) -> None:
    """A session of one thought of so many characters each."""
    folder = layout.session_folder(trace_dir, name)
    folder.mkdir(parents=True)
    line = {"timestamp": now(), "event_type": "thinking", "session_id": name, "run_id": "r", "turn": 0}
    line |= {"duration_ms": None}
    with layout.events_file(folder).open("w") as file:
        for size in sizes:
            file.write(json.dumps(line | {"data": {"content": "x" * size, "stage": "planning"}}) + "\n")


def text_of(span: Span) -> str:
    assert type(span.output) is str
    return span.output


def found(rig: Rig) -> list[str]:
    """What `validate` finds."""
    validator = Validator(rig.settings.sinks[0], rig.trace_dir)
    try:
        return [finding.kind for finding in validator.validate().findings]
    finally:
        validator.close()


def test_a_span_over_the_sinks_limit_is_cut_with_a_mark_and_the_backend_holds_what_the_journal_foretells(
    tmp_path: Path,
) -> None:
    rig = Rig(tmp_path, FileBackend(max_request_bytes=100_000))
    write_large(rig.trace_dir, "a", [10, LARGE, 20])
    rig.ship()
    small, other, large = sorted(map(text_of, stored(rig.file)), key=len)
    assert (small, other) == ("x" * 10, "x" * 20)
    kept, _, mark = large.partition("…[cut ")
    assert len(kept) + int(mark.removesuffix("]")) == LARGE
    assert len(kept) > 50_000, "no more is cut than must be"
    assert found(rig) == []
    assert (rig.dead(), rig.counters()["cut_spans"]) == ([], 1)


def test_a_span_that_the_backend_finds_too_large_is_cut_until_it_is_taken(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FileBackend())
    rig.backend.answers.takes_bytes = 40_000
    write_large(rig.trace_dir, "a", [10, LARGE, 20, LARGE])
    write_session(rig.trace_dir, "b")
    rig.ship()
    assert rig.dead() == []
    cut = [text for text in map(text_of, (s for s in stored(rig.file) if s.kind == "thinking")) if len(text) > 20]
    assert len(cut) == 2
    for text in cut:
        kept, _, mark = text.partition("…[cut ")
        assert len(kept) + int(mark.removesuffix("]")) == LARGE
        assert len(kept) > 1000, "no more is cut than must be"
    assert found(rig) == []
    assert rig.counters()["cut_spans"] == 2
    assert len(rig.stored_names()) == 4 + 7


def test_a_span_that_is_too_large_whatever_is_cut_of_it_is_a_dead_letter_and_others_arrive(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FileBackend())
    rig.backend.answers.takes_bytes = 2_000
    write_session(rig.trace_dir, "many", turns=1)
    path = layout.events_file(layout.session_folder(rig.trace_dir, "many"))
    path.write_text(path.read_text().replace('"pro"', json.dumps(list(range(3_000)))))
    write_session(rig.trace_dir, "b")
    rig.ship()
    assert len(rig.dead()) == 3
    assert all("HTTP 413; it has more than" in letter.reason for letter in rig.dead())
    assert all("whatever is cut of its texts" in letter.reason for letter in rig.dead())
    assert rig.stored_names() == sorted(["b/session", *["b/tool", "b/turn"] * 3])


def test_a_span_that_is_too_large_and_whose_journal_is_gone_is_a_dead_letter_that_says_so(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FileBackend())
    rig.backend.answers.takes_bytes = 0
    write_large(rig.trace_dir, "a", [LARGE])
    shipper = rig.shipper()
    shipper.round()
    layout.events_file(layout.session_folder(rig.trace_dir, "a")).unlink()
    while not shipper.round().is_done:
        shipper.wait(0.05)
    shipper.close()
    (letter,) = rig.dead()
    assert letter.reason == "HTTP 413; it cannot be cut, because its journal is gone"


def test_what_the_backend_refused_before_does_not_make_a_dead_letter_of_what_it_was_never_asked_about(
    tmp_path: Path,
) -> None:
    rig = Rig(tmp_path, FileBackend())
    rig.backend.answers.takes_bytes = 0
    write_large(rig.trace_dir, "a", [10])
    shipper = rig.shipper()
    shipper.round()
    layout.events_file(layout.session_folder(rig.trace_dir, "a")).unlink()
    until(lambda: shipper.round().is_done, "it is refused")
    rig.backend.answers.takes_bytes = None
    path = write_session(rig.trace_dir, "b", turns=1, tool="x" * 2_000)
    OpenedLog(rig.trace_dir).append(path.parent.name)
    until(lambda: shipper.round(2).is_done, "all is taken")
    shipper.close()
    assert [letter.ref.session_id for letter in rig.dead()] == ["a"]
    assert rig.stored_names() == ["b/session", "b/tool", "b/turn"]
    assert "cut_spans" not in rig.counters()
