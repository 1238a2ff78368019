from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.recording.rig import Recording
from tracebridge import jsonvalue
from tracebridge.recording import oversize
from tracebridge.recording.run import MAX_EVENT_BYTES

BUDGET = 10_000


def size(value: Any) -> int:
    return len(jsonvalue.encode(value))


def test_the_longest_strings_are_cut_and_the_rest_is_kept() -> None:
    data = {"model": "m", "messages": [{"content": "x" * 100_000}, {"content": "short"}]}
    cut = oversize.cut_to(data, BUDGET)
    assert size(cut) <= BUDGET + 100
    assert cut["model"] == "m"
    assert cut["messages"][1] == {"content": "short"}
    assert cut["messages"][0]["content"].startswith("xxxxx")
    assert "…[cut " in cut["messages"][0]["content"]
    assert cut[oversize.MARK] == size(data)


def test_what_has_too_many_parts_is_left_out_by_entry() -> None:
    data = {"model": "m", "messages": list(range(100_000)), "tools": [1]}
    cut = oversize.cut_to(data, BUDGET)
    assert cut == {
        "model": "m",
        "messages": f"<left out: {size({'messages': data['messages']})} bytes>",
        "tools": [1],
        oversize.MARK: size(data),
    }


def test_of_names_without_number_the_mark_is_left() -> None:
    data = {f"key {number}": number for number in range(10_000)}
    assert oversize.cut_to(data, BUDGET) == {oversize.MARK: size(data)}


@pytest.mark.parametrize(
    "content", ["x" * 17_000_000, "\x01" * 4_000_000, ["é" * 60] * 140_000], ids=["long", "escaped", "many"]
)
def test_an_event_that_is_too_large_is_recorded_cut(content: Any, tmp_path: Path) -> None:
    recording = Recording(tmp_path, max_content_length=10**9)
    with recording.session() as session:
        session.log_tool_call("t", content)
    line = recording.file().read_bytes().splitlines()[1]
    assert len(line) <= MAX_EVENT_BYTES + 100
    data = json.loads(line)["data"]
    assert data["tool_name"] == "t"
    assert data[oversize.MARK] > MAX_EVENT_BYTES
