"""What a sink still has to get is told from the state and the files, by anyone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.delivery.file_backend import FileBackend
from tests.delivery.rig import TAILS, Rig, end_with, write_session
from tracebridge.delivery.backlog import Backlog, Left
from tracebridge.delivery.state import Advance, Batch, SpanRef, State
from tracebridge.journal import layout
from tracebridge.policy import Policy
from tracebridge.session_stream import Cursor


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    state = State(layout.state_file(tmp_path))
    state.folder(tmp_path)
    state.target("sink", "somewhere")
    yield state
    state.close()


def test_what_was_not_read_is_counted_in_events_and_bytes(tmp_path: Path, state: State) -> None:
    path = write_session(tmp_path, "s", turns=2)
    backlog = Backlog(state, 1, Policy())
    assert backlog.left() == Left(10)
    assert [(session.offset, session.size) for session in backlog.unread()] == [(0, path.stat().st_size)]
    assert not backlog.is_empty()


def test_what_was_read_is_not_counted(tmp_path: Path, state: State) -> None:
    path = write_session(tmp_path, "s", turns=2)
    first = len(path.read_bytes().splitlines(keepends=True)[0])
    state.write_down(1, [], [Advance(folder=1, session_id="session-s", cursor=Cursor(offset=first))], [])
    assert Backlog(state, 1, Policy()).left() == Left(9)
    whole = Advance(folder=1, session_id="session-s", cursor=Cursor(offset=path.stat().st_size))
    state.write_down(1, [], [whole], [])
    assert Backlog(state, 1, Policy()).is_empty()


@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS)
def test_what_is_no_event_at_the_end_is_not_waited_for(tmp_path: Path, tail: bytes) -> None:
    rig = Rig(tmp_path, FileBackend())
    end_with(write_session(rig.trace_dir, "s", turns=2), tail)
    rig.ship()
    state = rig.state()
    try:
        backlog = Backlog(state, 1, Policy())
        assert backlog.is_empty()
        assert backlog.left() == Left(0)
    finally:
        state.close()


def test_what_is_in_flight_is_pending_though_it_was_read(state: State) -> None:
    ref = SpanRef("1" * 32, "1" * 16, "s", 0, 2)
    state.write_down(1, [Batch(parts=(b"x",), refs=(ref,))], [], [])
    assert Backlog(state, 1, Policy()).left() == Left(2)


def test_what_the_sinks_sampling_leaves_out_is_not_owed(tmp_path: Path, state: State) -> None:
    write_session(tmp_path, "s")
    assert Backlog(state, 1, Policy(sample_rate=0.0)).is_empty()


def test_what_another_target_has_got_is_still_owed_to_this_one(tmp_path: Path, state: State) -> None:
    path = write_session(tmp_path, "s")
    other = state.target("sink", "elsewhere")
    whole = Advance(folder=1, session_id="session-s", cursor=Cursor(offset=path.stat().st_size))
    state.write_down(other, [], [whole], [])
    assert Backlog(state, other, Policy()).is_empty()
    assert not Backlog(state, 1, Policy()).is_empty()


def test_counting_ends_at_the_deadline_and_says_so(tmp_path: Path, state: State) -> None:
    for number in range(3):
        with write_session(tmp_path, f"s{number}").open("ab") as file:
            file.write(b"{}\n" * 1_000_000)
    left = Backlog(state, 1, Policy()).left(time.monotonic())
    assert not left.is_exact
    assert 0 < left.events < 1_000_000
    assert str(left) == f"at least {left.events:,}"
    whole = Backlog(state, 1, Policy()).left(time.monotonic() + 60)
    assert (whole, str(whole)) == (Left(3_000_042), "3,000,042")
