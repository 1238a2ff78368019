"""What a backend does not list, or shows only in part, is never passed over in silence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.delivery.file_backend import FileBackend, PartialBackend, settings_for
from tests.delivery.rig import LONG_AGO, session_lines
from tests.restore.sending import Shelf, write_journal
from tracebridge.journal import layout
from tracebridge.restore import Restoration

HIDDEN = "What came late is found by its trace alone."


def shelf_of(tmp_path: Path, backend: FileBackend) -> Shelf:
    shelf = Shelf(tmp_path)
    shelf.sink = settings_for(tmp_path, backend, shelf.file, shelf.policy).sinks[0]
    for name in "abc":
        lines = [json.loads(text) for text in session_lines(name, 2, "search", True, LONG_AGO)]
        shelf.send(write_journal(tmp_path / "old", name, lines))
    return shelf


def told(restored: Restoration) -> tuple[int, list[str]]:
    return restored.exit_code, [session.session_id for session in restored.sessions]


def test_a_session_that_is_shown_in_part_is_left_out_and_told_and_the_others_are_restored(tmp_path: Path) -> None:
    restored = shelf_of(tmp_path, PartialBackend("b", tells_ids=True)).restore(tmp_path / "new")
    assert told(restored) == (2, ["a", "c"])
    assert (restored.trouble, restored.left) == ("only a part of it is shown; raise the limit", 1)
    assert not layout.session_folder(tmp_path / "new", "b").exists()


@pytest.mark.parametrize("asked", [(), ("a",)])
def test_from_a_backend_that_does_not_list_all_no_restoration_is_called_whole(
    tmp_path: Path, asked: tuple[str, ...]
) -> None:
    backend = FileBackend(hidden_from_search=HIDDEN)
    shelf = shelf_of(tmp_path, backend)
    restored = shelf.restore(tmp_path / "none", session_ids=asked)
    assert told(restored) == (1, [])
    backend.answers.hides_from_search = False
    restored = shelf.restore(tmp_path / "all", session_ids=("a", "b", "c"))
    assert told(restored) == (1, ["a", "b", "c"])
    assert (restored.unlisted, restored.totals) == (HIDDEN, {})
