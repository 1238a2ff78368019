"""Somebody deletes the folder of a session while its agent writes and a shipper delivers it: nothing comes twice."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.workplace import Workplace, langfuse
from tracebridge.devserver import DevServer
from tracebridge.journal import layout


@pytest.mark.parametrize("what", ["the session", "everything"])
def test_what_was_delivered_before_the_folder_was_deleted_is_not_sent_again_with_what_the_writer_brings_back(
    tmp_path: Path, devserver: DevServer, what: str
) -> None:
    workplace = Workplace(tmp_path / "here", {"langfuse": langfuse(devserver)})
    tracer = workplace.tracer()
    with tracer.trace_session("s") as session:
        for number in range(5):
            session.log_thinking(f"before {number}")
        assert tracer.flush(20) == 0
        deleted = layout.session_folder(workplace.trace_dir, "s") if what == "the session" else workplace.trace_dir
        shutil.rmtree(deleted)
        for number in range(3):
            session.log_thinking(f"after {number}")
    # the session's end has closed its file, and with that brought back what the deleted one had taken
    for _ in range(2):
        assert tracer.flush(20) == 0
    tracer.shutdown()
    assert workplace.call("ship").returncode == 0
    thoughts = Counter(span.output for span in workplace.observed("langfuse") if span.kind == "thinking")
    expected = [*(f"before {number}" for number in range(5)), *(f"after {number}" for number in range(3))]
    assert thoughts == Counter(expected)
