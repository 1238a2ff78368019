"""A folder of which only sessions of some time are backfilled: whole sessions, for whoever ships and validates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.delivery.file_backend import FileBackend
from tests.delivery.rig import Rig, write_session
from tests.waiting import until
from tracebridge.delivery.accounting import account_for
from tracebridge.delivery.choice import ALWAYS, Window
from tracebridge.delivery.state import State
from tracebridge.event import timestamp_ns
from tracebridge.policy import Policy


def day(number: int) -> int:
    return timestamp_ns(f"2026-02-{number:02d}T00:00:00Z")


def days(since: int, until_: int) -> Window:
    return Window(day(since), day(until_))


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path, FileBackend())


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Sessions called 1 to 4, begun on these days; that of the second day goes on on the fourth."""
    for number in (1, 2, 3, 4):
        write_session(tmp_path / "old", str(number), turns=1, at=f"2026-02-{number:02d}T00:00:00Z")
    write_session(tmp_path / "old", "2", turns=1, at="2026-02-04T12:00:00Z", run_id="run-2")
    return tmp_path / "old"


@pytest.fixture
def state(rig: Rig) -> Iterator[State]:
    state = rig.state()
    yield state
    state.close()


def sessions(rig: Rig) -> set[str]:
    return {name.partition("/")[0] for name in rig.stored_names()}


def test_sessions_that_began_in_the_window_are_delivered_as_a_whole(rig: Rig, old: Path, state: State) -> None:
    state.backfill(old, days(2, 4))
    rig.ship()
    assert sessions(rig) == {"2", "3"}
    assert rig.stored_names().count("2/session") == 2, "the run of the fourth day belongs to a session of the second"


def test_the_account_knows_of_no_others(rig: Rig, old: Path, state: State) -> None:
    state.backfill(old, days(2, 4))
    target = state.target("file", str(rig.file))
    before = account_for(state, target, Policy())
    assert (before.written, before.unread) == (18, 18)
    rig.ship()
    after = account_for(state, target, Policy())
    assert (after.written, after.confirmed, after.unread) == (18, 18, 0)


def test_windows_add_up_and_a_running_shipper_sees_a_new_one(rig: Rig, old: Path, state: State) -> None:
    state.backfill(old, days(1, 2))
    shipper = rig.shipper()
    until(lambda: shipper.round().is_done, "the first day is delivered")
    assert sessions(rig) == {"1"}
    state.backfill(old, days(4, 5))
    until(lambda: shipper.round(2).is_done and sessions(rig) == {"1", "4"}, "the fourth is delivered")
    state.backfill(old)
    until(lambda: shipper.round(3).is_done and sessions(rig) == {"1", "2", "3", "4"}, "all are delivered")
    shipper.close()
    assert state.choices() == {}


@pytest.mark.parametrize("before", [None, days(1, 2)], ids=["as a whole at once", "as a whole in the end"])
def test_a_folder_that_is_read_as_a_whole_stays_whole(old: Path, state: State, before: Window | None) -> None:
    if before is not None:
        state.backfill(old, before)
    state.backfill(old, ALWAYS)
    state.backfill(old, days(3, 4))
    assert state.choices() == {}


def test_the_same_window_twice_is_one(old: Path, state: State) -> None:
    number = state.backfill(old, days(1, 2))
    assert state.backfill(old, days(1, 2)) == number
    assert state.choices() == {number: (days(1, 2),)}


def test_a_session_without_a_whole_event_is_read_so_that_what_is_wrong_is_told(
    rig: Rig, old: Path, state: State
) -> None:
    (old / "session-5").mkdir()
    (old / "session-5" / "events.jsonl").write_text("broken\n")
    state.backfill(old, days(1, 2))
    rig.ship()
    assert [session for _, session, _, _ in state.problems()] == ["session-5"]
