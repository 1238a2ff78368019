from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracebridge.journal import layout

ANY_ID = st.text(st.characters(codec="utf-8"), max_size=300)


@pytest.mark.parametrize("session_id", ["user-123", "airline-3-0", "bob@example.com", "a.b_c~d", "org:7,x=1+2"])
def test_ordinary_ids_stand_in_the_folders_name_as_they_are(session_id: str) -> None:
    assert layout.session_folder(Path("t"), session_id) == Path("t") / f"session-{session_id}"


@given(ANY_ID)
def test_no_id_leaves_the_folder_or_makes_a_name_that_is_too_long(session_id: str) -> None:
    name = layout.folder_name(session_id)
    assert "/" not in name
    assert name not in (".", "..")
    assert name.isascii()
    assert name.isprintable()
    assert len(name) <= 255


@given(ANY_ID, ANY_ID)
def test_no_two_ids_have_one_folder(one: str, other: str) -> None:
    assert (one == other) == (layout.folder_name(one) == layout.folder_name(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a/b", "a%2Fb"),
        ("..", "%2E%2E"),
        ("x" * 300, "x" * 301),
        ("x" * 255 + "a", "x" * 255 + "b"),
        ("é", "e\u0301"),
        (" a", "a"),
    ],
)
def test_ids_that_look_alike_have_folders_of_their_own(one: str, other: str) -> None:
    assert layout.folder_name(one) != layout.folder_name(other)


@given(st.text(st.characters(codec="utf-8"), max_size=20))
def test_the_name_tells_the_id(session_id: str) -> None:
    assert layout.session_id_of(Path(layout.folder_name(session_id))) == session_id


def test_an_unusual_name_of_an_old_folder_is_its_id() -> None:
    assert layout.session_id_of(Path("session-a b [50%] é")) == "a b [50%] é"


@pytest.mark.parametrize("written", ["metadata.json", "events.jsonl"])
def test_a_shortened_name_leaves_the_id_to_the_sessions_files(written: str, tmp_path: Path) -> None:
    session_id = "x" * 1000
    folder = layout.session_folder(tmp_path, session_id)
    folder.mkdir()
    (folder / written).write_text(json.dumps({"session_id": session_id}) + "\n", encoding="utf-8")
    assert layout.session_id_of(folder) == session_id


def test_a_shortened_name_without_files_still_gives_a_text(tmp_path: Path) -> None:
    assert layout.session_id_of(layout.session_folder(tmp_path, "x" * 1000)).startswith("xxx")


def test_sessions_are_the_folders_that_have_events(tmp_path: Path) -> None:
    for name in ("session-b", "session-a", "session-empty", ".tracebridge", "other"):
        (tmp_path / name).mkdir()
    for name in ("session-b", "session-a", "other"):
        (tmp_path / name / "events.jsonl").touch()
    (tmp_path / "session-file").touch()
    assert [folder.name for folder in layout.session_folders(tmp_path)] == ["session-a", "session-b"]


def test_a_folder_that_is_not_there_has_no_sessions(tmp_path: Path) -> None:
    assert list(layout.session_folders(tmp_path / "none")) == []
