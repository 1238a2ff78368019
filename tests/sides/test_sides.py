"""Folders, live backends, exports and dumps as sides, from the command line."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.correlation import test_unsampled as unsampled
from tests.delivery.rig import write_session
from tests.langfuse.test_export import row_of, written
from tests.workplace import Workplace, langfuse, otel
from tracebridge.devserver import DevServer
from tracebridge.journal import layout

pytest.importorskip("ibis", reason="needs the extra `compare`")

SESSIONS = ("s1", "s2")
SPANS = 6


@pytest.fixture
def delivered(tmp_path: Path, devserver: DevServer) -> Workplace:
    """Two sessions, delivered to both backends."""
    workplace = Workplace(tmp_path / "here", {"langfuse": langfuse(devserver), "otel": otel(devserver)})
    for name in SESSIONS:
        write_session(workplace.trace_dir, name, turns=1, at="2026-02-01T10:00:00.000Z")
    assert workplace.call("ship").returncode == 0
    return workplace


def compared(workplace: Workplace, left: str, right: str, *options: str | Path) -> tuple[int, dict[str, Any]]:
    ran = workplace.call("validate", "--left", left, "--right", right, "--json", *options)
    assert ran.stderr == ""
    return ran.returncode, json.loads(ran.stdout)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("folder:{traces}", "folder:{traces}"),
        ("folder:{traces}", "sink:langfuse"),
        ("folder:{traces}", "sink:otel"),
        ("sink:langfuse", "sink:otel"),
        ("sink:otel", "folder:{traces}"),
    ],
)
def test_any_two_sides_that_hold_the_same_are_equal(delivered: Workplace, left: str, right: str) -> None:
    addresses = (address.format(traces=delivered.trace_dir) for address in (left, right))
    code, told = compared(delivered, *addresses)
    assert (code, told["expected"], told["observed"], told["equal"]) == (0, SPANS, SPANS, SPANS)


@pytest.mark.parametrize("sink", ["langfuse", "otel"])
def test_what_was_recorded_by_a_clock_that_is_days_ahead_is_read_too(delivered: Workplace, sink: str) -> None:
    later = datetime.now(UTC) + timedelta(days=8)
    write_session(delivered.trace_dir, "ahead", turns=1, at=later.isoformat())
    assert delivered.call("ship").returncode == 0
    code, told = compared(delivered, f"folder:{delivered.trace_dir}", f"sink:{sink}")
    assert (code, told["equal"], told["counts"]) == (0, SPANS * 3 // 2, {})


def test_no_content_can_reach_the_terminal_as_it_is(delivered: Workplace, tmp_path: Path) -> None:
    write_session(tmp_path / "copy", "\x1b[2J\x9b31m\u202e", turns=1, tool="\u202e\x9b", at="2026-02-01T10:00:00.000Z")
    ran = delivered.call("validate", "--left", f"folder:{tmp_path / 'copy'}", "--right", "sink:langfuse")
    assert ran.returncode == 1
    assert "of session \\x1b[2J\\x9b31m\\u202e" in ran.stdout
    assert not {"\x1b", "\x9b", "\u202e"} & set(ran.stdout)


def test_what_one_folder_lacks_is_missing_one_way_and_extra_the_other(delivered: Workplace, tmp_path: Path) -> None:
    write_session(tmp_path / "copy", "s1", turns=1, at="2026-02-01T10:00:00.000Z")
    here, copy = f"folder:{delivered.trace_dir}", f"folder:{tmp_path / 'copy'}"
    assert compared(delivered, here, copy)[1]["counts"].keys() == {"missing"}
    assert compared(delivered, copy, here)[1]["counts"].keys() == {"extra"}


@pytest.mark.parametrize("sink", ["langfuse", "otel"])
def test_a_journal_that_was_appended_to_itself_is_told_as_validate_tells_it(delivered: Workplace, sink: str) -> None:
    delivered.record("twice")
    assert delivered.call("ship").returncode == 0
    journal = delivered.trace_dir / "session-twice" / "events.jsonl"
    journal.write_bytes(journal.read_bytes() * 2)
    here, there = f"folder:{delivered.trace_dir}", f"sink:{sink}"
    for left, right in ((here, there), (there, here)):
        code, told = compared(delivered, left, right)
        assert (code, told["equal"], told["counts"]) == (0, SPANS + 4, {})
        assert told["losses"]["recorded-more-than-once"] == 2
    assert "recorded-more-than-once" in delivered.call("validate", "--left", here, "--right", there).stdout


def test_what_was_rotated_away_in_a_folder_is_named_and_is_no_pass(delivered: Workplace) -> None:
    part = layout.session_folder(delivered.trace_dir, "s1") / "events.jsonl.1"
    part.write_bytes(b"")
    code, told = compared(delivered, f"folder:{delivered.trace_dir}", "sink:langfuse")
    assert (code, told["equal"]) == (2, SPANS)
    assert [one["reason"].startswith(f"{part}: a part that was rotated") for one in told["uncompared"]] == [True]


def test_a_session_that_is_still_written_is_compared_on_neither_side(delivered: Workplace, tmp_path: Path) -> None:
    journal = delivered.trace_dir / "session-s2" / "events.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    write_session(tmp_path / "copy", "s1", turns=1, at="2026-02-01T10:00:00.000Z")
    (tmp_path / "copy" / "session-s2").mkdir()
    now = json.loads(lines[0]) | {"timestamp": "2999-01-01T00:00:00.000Z"}
    (tmp_path / "copy" / "session-s2" / "events.jsonl").write_text(json.dumps(now) + "\n")
    code, told = compared(delivered, f"folder:{delivered.trace_dir}", f"folder:{tmp_path / 'copy'}")
    assert (code, told["equal"], told["counts"]) == (2, SPANS // 2, {})
    assert [(one["session_id"], one["reason"]) for one in told["uncompared"]] == [
        ("s2", "still open: its last run has not ended")
    ]


@pytest.mark.parametrize("name", ["kept.jsonl", "kept.jsonl.gz"])
def test_what_a_backend_shows_can_be_kept_and_compared_again(delivered: Workplace, tmp_path: Path, name: str) -> None:
    kept = tmp_path / name
    assert compared(delivered, f"folder:{delivered.trace_dir}", "sink:langfuse", "--save-right", kept)[0] == 0
    code, told = compared(delivered, f"folder:{delivered.trace_dir}", f"spans:{kept}", "--as", "langfuse")
    assert (code, told["equal"]) == (0, SPANS)


def test_what_a_folder_gave_is_ours_in_a_dump_too(delivered: Workplace, tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    write_session(delivered.trace_dir, "not-sent", turns=1, at="2026-02-01T10:00:00.000Z")
    here, there = f"folder:{delivered.trace_dir}", "sink:langfuse"
    assert compared(delivered, here, there, "--save-left", kept)[1]["counts"] == {"missing": SPANS // 2}
    for left, right, kind in ((f"spans:{kept}", there, "missing"), (there, f"spans:{kept}", "extra")):
        code, told = compared(delivered, left, right)
        assert (code, told["equal"], told["counts"]) == (1, SPANS, {kind: SPANS // 2})


@pytest.mark.parametrize("name", ["kept.jsonl", "kept.jsonl.gz"])
def test_of_a_side_that_cannot_be_read_to_its_end_no_dump_is_left_that_would_be_taken_for_whole(
    delivered: Workplace, tmp_path: Path, name: str
) -> None:
    here, whole, kept = f"folder:{delivered.trace_dir}", tmp_path / "whole.jsonl", tmp_path / "kept" / name
    compared(delivered, here, here, "--save-left", whole)
    broken = tmp_path / "broken.jsonl"
    broken.write_text(whole.read_text() + "half a li")
    kept.parent.mkdir()
    for source, code in ((broken, 2), (whole, 0)):
        ran = delivered.call("validate", "--left", here, "--right", f"spans:{source}", "--save-right", kept)
        assert ran.returncode == code, "the second time nothing is in the way"
        assert [file.name for file in kept.parent.iterdir()] == ([] if code else [name])
    assert compared(delivered, here, f"spans:{kept}")[1]["equal"] == SPANS


def test_an_export_is_compared_with_the_journal(delivered: Workplace, tmp_path: Path) -> None:
    spans = delivered.observed("langfuse")
    (tmp_path / "export" / "observations_v2").mkdir(parents=True)
    written(tmp_path / "export" / "observations_v2", "2026-02-02.jsonl.gz", map(row_of, spans[1:]))
    here, export = f"folder:{delivered.trace_dir}", f"langfuse-export:{tmp_path / 'export'}"
    code, told = compared(delivered, here, export, "--as", "langfuse")
    assert (code, told["equal"], told["counts"]) == (1, SPANS - 1, {"missing": 1})
    assert [finding["span_id"] for finding in told["findings"]] == [spans[0].span_id]
    assert "time-in-milliseconds" in told["declared"]


def test_journals_are_read_under_the_policy_of_the_sink_that_is_the_other_side(
    tmp_path: Path, devserver: DevServer
) -> None:
    sink = langfuse(devserver, policy={"include_messages": False})
    workplace = Workplace(tmp_path / "here", {"langfuse": sink})
    write_session(workplace.trace_dir, "s1", turns=1, at="2026-02-01T10:00:00.000Z")
    assert workplace.call("ship").returncode == 0
    assert compared(workplace, f"folder:{workplace.trace_dir}", "sink:langfuse")[0] == 0


def test_of_traces_that_nobody_wants_nothing_is_expected_of_a_sink_that_leaves_them_out(
    tmp_path: Path, devserver: DevServer
) -> None:
    workplace = Workplace(tmp_path, unsampled.sinks(devserver, include_unsampled=False), delivery="external")
    unsampled.record(workplace)
    assert workplace.call("ship", "--patience", "10").returncode == 0
    for name, spans in (("otel", 2), ("langfuse", 5)):
        here, there = f"folder:{workplace.trace_dir}", f"sink:{name}"
        assert [
            (code, told["equal"]) for code, told in (compared(workplace, here, there), compared(workplace, there, here))
        ] == [(0, spans)] * 2


def test_people_are_told_what_differs_and_where(delivered: Workplace, tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    here = f"folder:{delivered.trace_dir}"
    compared(delivered, here, here, "--save-left", kept)
    kept.write_text(kept.read_text().replace('"name":"turn"', '"name":"other"'))
    ran = delivered.call("validate", "--left", here, "--right", f"spans:{kept}")
    assert ran.returncode == 1
    assert ran.stdout.startswith("FINDINGS: folder:")
    assert "2 in name" in ran.stdout
    assert 'left:  "turn"' in ran.stdout
    assert 'right: "other"' in ran.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--left", "folder:."], "name both"),
        (["--left", "folder:.", "--right", "nonsense"], "'nonsense' names no side"),
        (["--left", "folder:.", "--right", "tape:x"], "'tape' is not known"),
        (["--left", "folder:.", "--right", "folder:nowhere"], "there is no folder nowhere"),
        (["--left", "folder:.", "--right", "folder:session-s"], "no `session-<id>` folder lies in session-s"),
        (["--left", "folder:.", "--right", "sink:nobody"], "there is no sink called 'nobody'"),
        (["--left", "folder:.", "--right", "spans:nowhere.jsonl"], "nowhere.jsonl is not there"),
        (["--left", "folder:.", "--right", "otel-export:."], "reads no exports of the sink type 'otel'"),
        (["--left", "folder:.", "--right", "folder:.", "--master", "local"], "add --engine spark"),
        (["--left", "folder:.", "--right", "folder:.", "--session", "s"], "--session can be had"),
        *(
            (["--left", "folder:.", "--right", "folder:.", *option], f"{option[0]} can be had of a comparison with the")
            for option in (
                ["--sink", "langfuse"],
                ["--since", "2026-02"],
                ["--until", "2026-02"],
                ["--environment", "production"],
                ["--sample", "5%"],
                ["--since-last"],
                ["--resend"],
                ["--html", "report.html"],
                ["--junit", "report.xml"],
            )
        ),
        (["--engine", "duckdb"], "name both"),
    ],
)
def test_what_cannot_be_compared_is_told_with_what_to_do(run: Run, arguments: list[str], words: str) -> None:
    Path("session-s").mkdir()
    Path("session-s/events.jsonl").write_text("")
    ran = run("validate", *arguments)
    assert ran.code == 2
    assert words in ran.err


def test_having_compared_nothing_is_no_pass(run: Run) -> None:
    Path("x.jsonl").write_text("")
    ran = run("validate", "--left", "spans:x.jsonl", "--right", "spans:x.jsonl")
    assert ran.code == 2
    assert "neither side has a span" in ran.out


def test_a_dump_that_is_none_is_told_by_its_line(run: Run) -> None:
    Path("x.jsonl.gz").write_bytes(gzip.compress(b'{"kind": "turn"}\n'))
    ran = run("validate", "--left", "spans:x.jsonl.gz", "--right", "spans:x.jsonl.gz")
    assert ran.code == 2
    assert "x.jsonl.gz, line 1: no span" in ran.err


@pytest.mark.parametrize("kind", ["spans", "langfuse-export"])
def test_a_compressed_file_that_is_damaged_is_named(run: Run, kind: str) -> None:
    # behind the header, a block of the type that there is not
    Path("x.jsonl.gz").write_bytes(gzip.compress(b"")[:10] + b"\x07")
    ran = run("validate", "--left", f"{kind}:x.jsonl.gz", "--right", f"{kind}:x.jsonl.gz")
    assert (ran.code, ran.out) == (2, "")
    assert "x.jsonl.gz" in ran.err
    assert "cannot be read" in ran.err
