"""Whatever moves a cursor is part of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.delivery.rig import write_session
from tracebridge.delivery.collect import Collector
from tracebridge.delivery.pace import FullSpeed
from tracebridge.delivery.state import State
from tracebridge.delivery.watch import SessionWatch
from tracebridge.policy import Policy
from tracebridge.session_stream import SessionStream, Step
from tracebridge.span import Span


def encode(span: Span) -> bytes:
    return span.span_id.encode()


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[SessionWatch]:
    write_session(tmp_path, "a", turns=100)
    state = State(tmp_path / ".tracebridge" / "state.sqlite")
    target = state.target("file", "here")
    watch = SessionWatch(state, target, tmp_path, Policy(), lambda _, data: data)
    watch.refresh(FullSpeed())
    yield watch
    state.close()


def test_batches_have_no_more_spans_than_a_request_may(watch: SessionWatch) -> None:
    collector = Collector(watch, encode, lambda *_: frozenset(), FullSpeed(), Policy(), max_bytes=10**6, max_spans=70)
    sizes = []
    while not (collected := collector.collect()).is_empty:
        sizes += [len(batch.refs) for batch in collected.batches]
    assert sizes == [70, 70, 61]


def test_spans_that_were_read_before_a_journal_failed_are_in_a_batch(
    watch: SessionWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = SessionStream.steps

    def failing(stream: SessionStream) -> Iterator[Step]:
        for number, step in enumerate(whole(stream)):
            yield step
            if number == 22:
                raise OSError("the disk is gone")

    monkeypatch.setattr(SessionStream, "steps", failing)
    collector = Collector(
        watch, encode, lambda *_: frozenset(), FullSpeed(), Policy(), max_bytes=10**6, max_spans=1_000
    )
    collected = collector.collect()
    (advance,) = collected.advances
    assert advance.cursor.ordinal == 23
    (batch,) = collected.batches
    # five turns with a call each; the session and the sixth turn are open
    assert len(batch.refs) == 10
