from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from tracebridge.journal.metadata import write_metadata


def test_the_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    write_metadata(tmp_path, "run-1", {"session_id": "s", "metadata": {"a": "é"}})
    write_metadata(tmp_path, "run-2", {"session_id": "s", "metadata": {}})
    assert json.loads((tmp_path / "metadata.json").read_text(encoding="utf-8")) == {"session_id": "s", "metadata": {}}
    assert [file.name for file in tmp_path.iterdir()] == ["metadata.json"]


def test_a_reader_never_sees_a_part(tmp_path: Path) -> None:
    def write() -> None:
        for _ in range(100):
            write_metadata(tmp_path, "run-1", {"text": "x" * 20_000})

    write_metadata(tmp_path, "run-1", {"text": "x" * 20_000})
    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        assert len(json.loads((tmp_path / "metadata.json").read_bytes())["text"]) == 20_000
    writer.join()


def test_a_folder_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_metadata(tmp_path / "none", "run-1", {})
