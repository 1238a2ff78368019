"""The way back: what was sent and is restored is what was recorded, for any journal and under any policy."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.assembler.journals import agent_journal, any_journal, lived_journal
from tests.examples import examples
from tests.restore.sending import Shelf, restored_lines, spans_of, write_journal
from tests.workplace import Workplace, both
from tracebridge import policy as policies
from tracebridge.assembler import narrow_event
from tracebridge.devserver import DevServer
from tracebridge.journal import layout
from tracebridge.journal.reader import read_journal
from tracebridge.policy import Policy

# a session is synced to the disk, which takes longer than all else
FAST = "/dev/shm" if os.path.isdir("/dev/shm") else None

POLICIES = st.sampled_from(
    [
        Policy(),
        Policy(include_messages=False),
        Policy(include_thinking=False),
        Policy(max_content_length=2),
        Policy(include_messages=False, include_thinking=False, max_content_length=3),
    ]
)


def narrowed(path: Path, policy: Policy) -> list[dict[str, Any]]:
    """The events of a journal as the policy leaves them."""
    with path.open("rb") as file:
        events = [line.event for line in read_journal(file, 0) if line.event is not None]
    return [narrow_event(partial(policies.apply, policy), event).fields for event in events]


def _two_answers_that_differ_in_content() -> list[dict[str, Any]]:
    """The second has no call; without content it says what the first one says."""
    line = {"timestamp": "2026-02-06T22:10:00Z", "session_id": "s", "run_id": "r", "turn": 1, "duration_ms": None}
    contents: list[Any] = [[None], [[]]]
    answers = [("llm.response", {"model": "m", "content": content}) for content in contents]
    events: list[tuple[str, dict[str, Any]]] = [("turn.start", {}), ("llm.request", {"model": "m"}), *answers]
    return [line | {"event_type": kind, "data": data} for kind, data in events]


@settings(max_examples=examples(20))
@example(lines=_two_answers_that_differ_in_content(), policy=Policy(include_messages=False))
@given(
    lines=any_journal | agent_journal() | lived_journal().map(lambda lived: [at.event for at in lived]), policy=POLICIES
)
def test_any_journal_is_restored_as_its_policy_left_it(lines: list[dict[str, Any]], policy: Policy) -> None:
    with tempfile.TemporaryDirectory(dir=FAST) as folder:
        shelf = Shelf(Path(folder), policy)
        old = write_journal(Path(folder) / "old", "s", lines)
        sent = shelf.send(old)
        told = shelf.restore(Path(folder) / "new")
        if not lines:
            assert told.sessions == ()
            return
        assert restored_lines(Path(folder) / "new", "s") == narrowed(old, policy)
        assert "missing" not in told.totals
        again = spans_of(layout.events_file(Path(folder) / "new" / "session-s"), policy, shelf.fingerprint)
        assert [(span.trace_id, span.span_id) for span in again] == [(span.trace_id, span.span_id) for span in sent]


@pytest.fixture(scope="module")
def server() -> Iterator[DevServer]:
    with DevServer() as server:
        yield server


@pytest.mark.timeout(180)
@pytest.mark.parametrize("sink", ["langfuse", "otel"])
@settings(max_examples=examples(4))
@given(lines=agent_journal(), policy=POLICIES)
def test_journals_are_restored_from_each_backend(
    server: DevServer, sink: str, lines: list[dict[str, Any]], policy: Policy
) -> None:
    server.clear()
    narrow = {key: getattr(policy, key) for key in ("include_messages", "include_thinking", "max_content_length")}
    with tempfile.TemporaryDirectory(dir=FAST) as folder:
        workplace = Workplace(
            Path(folder) / "here", {sink: both(server)[sink] | {"policy": narrow}}, max_content_length=None
        )
        old = write_journal(Path(folder) / "old", "s", lines)
        if not lines:
            return
        assert workplace.call("backfill", Path(folder) / "old").returncode == 0
        ran = workplace.call("restore", "--from", sink, "--out", Path(folder) / "new")
        assert ran.returncode in (0, 1), ran.stderr
        assert "changed" not in ran.stdout
        assert restored_lines(Path(folder) / "new", "s") == narrowed(old, policy)
