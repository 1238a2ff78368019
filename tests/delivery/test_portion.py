"""`Portion`: who gets a session is one decision, whatever of it is asked, and tells why a session is not sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.delivery.rig import write_session
from tracebridge.delivery.choice import Choice, Window
from tracebridge.delivery.portion import Journal, Portion, Standing, recorded
from tracebridge.delivery.ramp import Ramp
from tracebridge.delivery.state import State
from tracebridge.event import timestamp_ns
from tracebridge.policy import Policy, keeps_session

NAMES = [f"s{number}" for number in range(12)]
BEFORE, RAISED, AFTER = (f"2026-02-0{day}T00:00:00Z" for day in (1, 2, 3))
FIFTH, HALF = Policy(sample_rate=0.2), Policy(sample_rate=0.5)
RAMP = Ramp().raised(0.2, 0.5, timestamp_ns(RAISED))


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    """A trace folder and an old one, each with sessions that began before and after the share was raised."""
    state = State(tmp_path / "state.sqlite")
    for folder in ("traces", "old"):
        for name in NAMES:
            write_session(tmp_path / folder, f"{name}-before", turns=1, at=BEFORE)
            write_session(tmp_path / folder, f"{name}-after", turns=1, at=AFTER)
    state.folder(tmp_path / "traces")
    # of the old ones, those that began before
    state.backfill(tmp_path / "old", Window(timestamp_ns(BEFORE), timestamp_ns(RAISED)))
    yield state
    state.close()


def ramped(state: State) -> Portion:
    """That of a sink whose share was raised from a fifth to a half."""
    target = state.target("sink", "somewhere")
    state.keep_ramp(target, RAMP)
    return Portion.of(state, target, HALF)


def expected_of(journal: Journal, trace_folder: int) -> Standing:
    began_after = journal.session_id.endswith("-after")
    if journal.number != trace_folder and began_after:
        return Standing.NOT_CHOSEN
    if not keeps_session(HALF, journal.session_id):
        return Standing.SAMPLED_OUT
    is_new = not keeps_session(FIFTH, journal.session_id)
    return Standing.LEFT_BEHIND if is_new and not began_after else Standing.TAKEN


def test_each_session_has_one_standing(state: State, tmp_path: Path) -> None:
    portion, trace_folder = ramped(state), state.folder(tmp_path / "traces")
    found = {journal: portion.standing(journal) for journal in recorded(state)}
    assert len(found) == 2 * 2 * len(NAMES)
    assert found == {journal: expected_of(journal, trace_folder) for journal in found}
    assert set(found.values()) == set(Standing), "the case has one of each"


def test_what_was_not_chosen_is_neither_in_nor_left_out() -> None:
    assert {standing for standing in Standing if standing.is_left_out} == {Standing.SAMPLED_OUT, Standing.LEFT_BEHIND}
    assert {standing for standing in Standing if standing.is_in} == {Standing.TAKEN, Standing.LEFT_BEHIND}


def test_the_short_question_has_the_same_answer(state: State) -> None:
    choice = Choice(state.choices())
    for portion in (
        ramped(state),
        Portion(HALF, choice, Ramp()),
        Portion(Policy(), choice, RAMP),
        Portion(Policy(), choice, Ramp()),
        Portion(Policy(sample_rate=0.0), Choice({}), Ramp()),
    ):
        for journal in recorded(state):
            assert portion.takes(journal) == (portion.standing(journal) is Standing.TAKEN)


def test_a_share_of_all_of_which_nobody_was_left_behind_leaves_nothing_out(state: State) -> None:
    assert Portion(Policy(), Choice(state.choices()), Ramp()).leaves_nothing_out
    assert not Portion(HALF, Choice({}), Ramp()).leaves_nothing_out
    assert not Portion(Policy(), Choice({}), RAMP).leaves_nothing_out


def test_journals_come_folder_by_folder_and_only_those_that_are_there(state: State, tmp_path: Path) -> None:
    state.folder(tmp_path / "gone")
    (tmp_path / "traces" / "session-without-events").mkdir()
    journals = list(recorded(state))
    assert len(journals) == 2 * 2 * len(NAMES)
    assert journals == sorted(journals)
    assert {journal.number for journal in journals} == {1, 2}
    assert all(journal.size == journal.events.stat().st_size for journal in journals)
    assert Journal(3, tmp_path / "gone" / "session-a").size == 0
