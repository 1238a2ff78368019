"""A survey sees in a folder what delivery would, and names what it cannot read."""

from __future__ import annotations

import json
import os
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workplace import ROOT, event_counts
from tracebridge.journal import survey as survey_module
from tracebridge.journal.reader import read_journal
from tracebridge.journal.survey import Survey, survey

HAND_WRITTEN = ROOT / "tests" / "data" / "legacy"
IDS: dict[str, Any] = {"trace_id": "5b8efff798038103d269b633813fc60c", "span_id": "eee19b7ec3c1b174"}


def event(event_type: str = "thinking", turn: int = 1, at: str = "2026-02-06T22:10:00.123Z", **more: Any) -> bytes:
    fields = {"timestamp": at, "event_type": event_type, "session_id": "s", "run_id": "run-1", "turn": turn}
    return json.dumps(fields | {"duration_ms": None, "data": {}} | more).encode()


def write(folder: Path, name: str, *lines: bytes, end: bytes = b"\n") -> Path:
    file = folder / f"session-{name}" / "events.jsonl"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"\n".join(lines) + end)
    return file


def surveyed(content: bytes, folder: Path) -> Survey:
    file = folder / "session-s" / "events.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return survey(folder)


def test_it_counts_the_hand_written_old_traces() -> None:
    found = survey(HAND_WRITTEN)
    assert found.folders == [str(HAND_WRITTEN)]
    assert (found.sessions, found.runs, found.turns, found.events) == (3, 4, 5, event_counts(HAND_WRITTEN).total())
    assert found.old_events == found.events
    assert found.bytes == sum(file.stat().st_size for file in HAND_WRITTEN.rglob("events.jsonl"))
    assert [(Path(line.file).parent.name, line.line) for line in found.broken] == [("session-gardener-2", 5)]


def test_what_is_odd_is_counted_and_told_with_file_and_line(tmp_path: Path) -> None:
    lines = [event(), b"", b"  ", b'{"timestamp": "2026', event("voice.note"), event(**IDS), b"[1]"]
    file = write(tmp_path, "a", *lines, b'{"timestamp": "2026-02', end=b"")
    found = survey(tmp_path)
    assert (found.events, found.old_events, found.blank_lines, found.broken_lines) == (3, 2, 2, 3)
    assert found.unknown_types == {"voice.note": 1}
    assert [(line.file, line.line) for line in found.broken] == [(str(file), 4), (str(file), 7), (str(file), 8)]
    assert found.broken[0].problem.startswith("not JSON")
    assert found.broken[1].problem.startswith("not an event: expected an object")
    assert found.broken[2].problem == "the file ends in the middle of it"
    assert found.broken[1].offset == sum(len(line) + 1 for line in lines[:6])


def test_the_whole_event_after_a_half_line_counts_and_so_does_the_break(tmp_path: Path) -> None:
    write(tmp_path, "a", event()[:40] + event(turn=2))
    found = survey(tmp_path)
    assert (found.events, found.broken_lines) == (1, 1)


@given(
    st.lists(
        st.one_of(
            st.just(event()),
            st.builds(lambda cut: event()[:cut], st.integers(0, 120)),
            st.builds(lambda deep: event(data={"a": json.loads("[" * deep + "]" * deep)}), st.integers(1, 140)),
            st.sampled_from(
                [b"", b" \t", b"null", event(turn=2**70), event(turn=True), event(data=[1]), event(duration_ms="1")]
            ),
            st.sampled_from([event(at="yesterday"), event(trace_id=1), event(run_id=None), event(at="2026-02-06")]),
            st.sampled_from([event()[:-1] + b',"x":NaN}', event()[:-1] + b',"x":"\xff"}', event() + b"x"]),
            st.builds(lambda text: event(data={"text": text}), st.text()),
        ),
        max_size=6,
    )
)
def test_it_takes_for_events_what_delivery_takes_for_events(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    content = b"".join(line + b"\n" for line in lines)
    found = surveyed(content, tmp_path_factory.mktemp("survey"))
    delivered = list(read_journal(BytesIO(content), 0))
    assert found.events == sum(line.event is not None for line in delivered)
    assert found.old_events == sum(line.event is not None and not line.event.has_ids for line in delivered)
    assert found.broken_lines == sum(bool(line.problem) for line in delivered)
    assert found.blank_lines == sum(not line.strip() for line in lines)


@pytest.mark.parametrize("below", ["", "2026-01", "2026/01"], ids=["here", "a month", "a year and a month"])
def test_folders_of_sessions_are_found_two_levels_down(tmp_path: Path, below: str) -> None:
    write(tmp_path / below, "a", event())
    found = survey(tmp_path)
    assert (found.sessions, found.folders) == (1, [str(tmp_path / below)])


def test_deeper_folders_hidden_ones_and_what_sessions_hold_are_not_looked_into(tmp_path: Path) -> None:
    for below in ("1/2/3", ".hidden", "session-a/2026"):
        write(tmp_path / below, "a", event())
    assert survey(tmp_path).sessions == 0


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    compressed = write(tmp_path, "a", event()).with_name("events.jsonl.gz")
    compressed.write_bytes(b"\x1f\x8b")
    (tmp_path / "session-b" / "events.jsonl").mkdir(parents=True)
    loop = tmp_path / "session-c" / "events.jsonl"
    loop.parent.mkdir()
    loop.symlink_to(loop)
    (tmp_path / "session-d").mkdir()
    found = survey(tmp_path)
    assert (found.sessions, found.events) == (1, 1)
    assert {(Path(unread.path).parent.name, unread.reason) for unread in found.unread} == {
        ("session-a", "compressed: unpack it to events.jsonl first"),
        ("session-b", "is not a file"),
        ("session-c", f"cannot be read: {os.strerror(40)}"),
    }


def test_the_rotated_parts_of_a_session_are_named(tmp_path: Path) -> None:
    session = write(tmp_path, "a", event()).parent
    parts = (
        "events.jsonl.1",
        "events.jsonl.2.gz",
        "events.jsonl-20260201",
        "events.2026-02-01.jsonl",
        "events-1.jsonl.xz",
    )
    for name in (*parts, "metadata.json", "events.jsonl.bak", "events.txt"):
        (session / name).write_bytes(event())
    found = survey(tmp_path)
    assert (found.sessions, found.events) == (1, 1)
    assert {Path(unread.path).name for unread in found.unread} == set(parts)
    assert all("put its lines, unpacked, before those of events.jsonl" in unread.reason for unread in found.unread)


def test_a_folder_that_several_paths_lead_to_is_counted_once(tmp_path: Path) -> None:
    old = tmp_path / "old"
    write(old / "2026-02", "a", event())
    write(old, "b", event())
    (old / "latest").symlink_to("2026-02")
    (old / "up").symlink_to("..")
    found = survey(old)
    assert (found.sessions, found.events) == (2, 2)
    assert found.folders == [str(old), str(old / "2026-02")]


def test_only_sessions_that_began_at_the_right_time_are_counted_and_each_is_whole(tmp_path: Path) -> None:
    write(tmp_path, "early", event(at="2026-01-31T23:59:59Z"), event(at="2026-02-01T00:00:01Z"))
    write(tmp_path, "late", b"broken", event(at="2026-02-01T00:00:00Z"), event(at="2026-03-01T00:00:00Z"))
    february = 1_769_904_000 * 10**9
    found = survey(tmp_path, lambda began_ns: began_ns >= february)
    assert (found.sessions, found.events, found.broken_lines, found.left_out) == (1, 2, 1, 1)


def test_of_very_many_broken_lines_the_first_are_told_and_all_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey_module, "MOST_BROKEN", 3)
    write(tmp_path, "a", *[b"x"] * 5)
    write(tmp_path, "b", *[b"x"] * 5)
    found = survey(tmp_path)
    assert (found.broken_lines, len(found.broken)) == (10, 3)


def test_it_tells_how_far_it_is(tmp_path: Path) -> None:
    sizes = [write(tmp_path, name, event()).stat().st_size for name in "ab"]
    told: list[tuple[int, int]] = []
    survey(tmp_path, progress=lambda done, total: told.append((done, total)))
    assert told == [(sizes[0], sum(sizes)), (sum(sizes), sum(sizes))]


def test_names_that_are_not_utf_8_can_be_told(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"m\xff")
    write(folder, "a", b"x")
    (line,) = survey(tmp_path).broken
    assert json.dumps(line.file).encode().decode().endswith('m\\\\udcff/session-a/events.jsonl"')
