"""A session is there whole or not at all, and nothing is overwritten."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.delivery.rig import session_lines
from tests.restore.sending import restored_lines
from tests.waiting import until
from tests.workplace import Workplace, answer_of, journal_events, otel, tree_digest
from tracebridge.devserver import DevServer
from tracebridge.restore.folder import ExistingSessionError, OutFolder, OutFolderError

LINES = [json.loads(text) for text in session_lines("s", 1, "search", True, "2026-02-06T22:10:00.123Z")]
METADATA = {"session_id": "s", "metadata": {"plan": "pro"}}


def test_a_session_is_written_in_the_original_layout(tmp_path: Path) -> None:
    with OutFolder(tmp_path / "new") as out:
        assert not out.holds("s/1")
        folder = out.write("s/1", LINES, METADATA)
        assert out.holds("s/1")
    assert folder == tmp_path / "new" / "session-s%2F1"
    assert sorted(path.name for path in folder.iterdir()) == ["events.jsonl", "metadata.json"]
    assert [path.name for path in folder.parent.iterdir()] == ["session-s%2F1"]
    assert restored_lines(tmp_path / "new", "s/1") == LINES
    assert json.loads((folder / "metadata.json").read_text()) == METADATA


@pytest.mark.parametrize("has_events", [True, False], ids=["a session", "an empty folder"])
def test_what_is_there_already_is_an_error_and_stays(tmp_path: Path, has_events: bool) -> None:
    there = tmp_path / "session-s"
    there.mkdir()
    if has_events:
        (there / "events.jsonl").write_text("kept\n")
    before = tree_digest(tmp_path)
    with OutFolder(tmp_path) as out, pytest.raises(ExistingSessionError, match="'s'"):
        out.write("s", LINES, METADATA)
    assert tree_digest(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["session-s"]


def test_what_fails_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> Iterator[dict[str, Any]]:
        yield LINES[0]
        raise KeyboardInterrupt

    with OutFolder(tmp_path) as out, pytest.raises(KeyboardInterrupt):
        out.write("s", interrupted(), METADATA)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_half_done_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".restoring").mkdir()
    (tmp_path / ".restoring" / "events.jsonl").write_text("half a li")
    with OutFolder(tmp_path) as out:
        out.write("s", LINES, METADATA)
    assert [path.name for path in tmp_path.iterdir()] == ["session-s"]


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("chapter 1")
    with pytest.raises(OutFolderError, match=r"thesis\.tex"):
        OutFolder(tmp_path)


def test_a_folder_of_other_sessions_is_taken_with_whatever_lies_beside_them(tmp_path: Path) -> None:
    for name in ("session-other", ".tracebridge", "notes"):
        (tmp_path / name).mkdir()
    with OutFolder(tmp_path) as out:
        out.write("s", LINES, METADATA)


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutFolderError, match="name another folder"):
        OutFolder(tmp_path / "file")


def test_two_do_not_restore_into_one_folder_at_once(tmp_path: Path) -> None:
    with OutFolder(tmp_path), pytest.raises(OutFolderError, match="another process"):
        OutFolder(tmp_path)
    OutFolder(tmp_path).close()


def test_a_run_that_is_killed_leaves_whole_sessions_and_is_taken_up(tmp_path: Path, devserver: DevServer) -> None:
    old, out = tmp_path / "old", tmp_path / "new"
    for number in range(30):
        folder = old / f"session-s{number}"
        folder.mkdir(parents=True)
        lines = session_lines(f"s{number}", 2, "search", True, "2026-02-06T22:10:00.123Z")
        (folder / "events.jsonl").write_text("\n".join(lines) + "\n")
    workplace = Workplace(tmp_path / "here", {"otel": otel(devserver)})
    workplace.backfill(old)
    events = journal_events(old)

    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    killed = workplace.start("restore", "--from", "otel", "--out", out, **streams)
    until(lambda: len(list(out.glob("session-*"))) > 3 or killed.poll() is not None, "some sessions")
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    there = journal_events(out)
    assert there
    assert there == {session_id: events[session_id] for session_id in there}

    told = answer_of(workplace.call("restore", "--from", "otel", "--out", out, "--skip-existing", "--json"))
    assert sorted(told["skipped"]) == sorted(there)
    assert journal_events(out) == events
    assert {path.name for path in out.iterdir()} == {path.name for path in old.iterdir()}
