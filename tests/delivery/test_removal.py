"""A session's files go only when every sink has, and shows, what it is owed; and a crash leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import msgspec
import pytest

from tests.delivery.file_backend import FileBackend
from tests.delivery.rig import TAILS, Rig, end_with, write_session
from tracebridge.config import Settings
from tracebridge.delivery.removal import Removal, Removed, sweep
from tracebridge.delivery.state import State
from tracebridge.delivery.switched_off import mark_switched_off, still_owed
from tracebridge.journal import deletion, layout
from tracebridge.policy import Policy, keeps_session
from tracebridge.sink import Outcome, Receipt

DAY_S = 86_400.0


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path, FileBackend())


def age(events: Path, seconds: float = 2 * DAY_S) -> Path:
    then = time.time() - seconds
    os.utime(events, (then, then))
    return events


def remove(rig: Rig, settings: Settings | None = None, *, dry_run: bool = False) -> Removed:
    removal = Removal(settings or rig.settings)
    try:
        return removal.remove_older_than(DAY_S, dry_run=dry_run)
    finally:
        removal.close()


def reasons(removed: Removed) -> dict[str, str]:
    assert removed.sessions == []
    return {refusal.session: refusal.reason for refusal in removed.refused}


def test_an_old_session_that_every_sink_shows_goes_with_all_that_the_state_knew_of_it(rig: Rig) -> None:
    events = age(write_session(rig.trace_dir, "old"))
    young = write_session(rig.trace_dir, "young")
    rig.ship()
    size = events.stat().st_size
    removed = remove(rig)
    assert (removed.sessions, removed.bytes, removed.refused) == (["old"], size, [])
    assert not events.parent.exists()
    assert young.exists()
    assert list(deletion.removed(rig.trace_dir)) == []
    state = rig.state()
    assert set(state.positions(1, 1)) == {"session-young"}
    state.close()


def test_what_another_pass_deletes_meanwhile_is_neither_deleted_nor_refused_by_this_one(rig: Rig) -> None:
    age(write_session(rig.trace_dir, "old"))
    rig.ship()
    others: list[Removed] = []

    def another_passes() -> bool:
        others.append(remove(rig))
        return False

    removal = Removal(rig.settings)
    removed = removal.remove_older_than(DAY_S, is_over=another_passes)
    removal.close()
    assert [other.sessions for other in others] == [["old"]]
    assert (removed.sessions, removed.bytes, removed.refused) == ([], 0, [])


def test_a_dry_run_tells_and_deletes_nothing(rig: Rig) -> None:
    events = age(write_session(rig.trace_dir, "old"))
    rig.ship()
    assert remove(rig, dry_run=True).sessions == ["old"]
    assert events.exists()


def test_what_is_not_delivered_stays(rig: Rig) -> None:
    age(write_session(rig.trace_dir, "a"))
    rig.ship()
    age(write_session(rig.trace_dir, "a"))
    age(write_session(rig.trace_dir, "b"))
    assert reasons(remove(rig)) == dict.fromkeys("ab", "not all of it is delivered to file")


def test_what_is_in_flight_stays(rig: Rig) -> None:
    age(write_session(rig.trace_dir, "a"))
    rig.backend.answers.scripted = [Receipt(outcome=Outcome.RETRY, message="503", retry_after_s=60)]
    shipper = rig.shipper()
    shipper.round()
    assert reasons(remove(rig)) == {"a": "not all of it is delivered to file"}
    shipper.close()


@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS)
def test_a_session_goes_though_its_writer_died_in_the_middle_of_a_line(rig: Rig, tail: bytes) -> None:
    end_with(age(write_session(rig.trace_dir, "a")), tail)
    rig.ship()
    assert remove(rig).sessions == ["a"]


def test_a_session_with_a_line_that_nobody_could_read_stays(rig: Rig) -> None:
    events = write_session(rig.trace_dir, "edited")
    size = events.stat().st_size
    with events.open("a", encoding="utf-8") as file:
        file.write('{"event_type": "turn.start"}\n')
    age(events)
    rig.ship()
    (why,) = reasons(remove(rig)).values()
    assert why.startswith(f"byte {size} of its file: not an event: ")
    assert why.endswith("; no sink has it")
    assert events.exists()


def test_what_is_open_stays(rig: Rig) -> None:
    age(write_session(rig.trace_dir, "a", end=False))
    rig.ship()
    assert reasons(remove(rig)) == {"a": "something of it is still open for file"}


def test_what_a_sink_refused_stays(rig: Rig) -> None:
    age(write_session(rig.trace_dir, "a", tool="poison"))
    rig.backend.answers.poison = {"poison"}
    rig.ship()
    assert reasons(remove(rig)) == {"a": "file has dead letters of it"}


def test_what_was_accepted_and_does_not_show_stays_and_is_not_asked_for_all_the_time(rig: Rig) -> None:
    age(write_session(rig.trace_dir, "a"))
    rig.ship()
    rig.backend.answers.hidden = {"a"}
    removal = Removal(rig.settings)
    assert reasons(removal.remove_older_than(DAY_S)) == {"a": "7 of its spans do not show at file"}
    asked = len(rig.backend.answers.queries)
    for _ in range(5):
        assert reasons(removal.remove_older_than(DAY_S)) == {"a": "it did not show whole a short while ago"}
    assert len(rig.backend.answers.queries) == asked
    removal.close()
    rig.backend.answers.hidden = set()
    assert remove(rig).sessions == ["a"]


def test_without_a_reader_what_was_accepted_may_go(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FileBackend(readable=False))
    age(write_session(rig.trace_dir, "a"))
    rig.ship()
    assert remove(rig).sessions == ["a"]


def test_another_file_that_is_as_long_as_the_one_that_was_accepted_stays(tmp_path: Path) -> None:
    rig = Rig(tmp_path, FileBackend(readable=False))
    accepted = write_session(rig.trace_dir, "s", turns=1)
    rig.ship()
    accepted.rename(rig.trace_dir / "rotated")
    age(write_session(rig.trace_dir, "s", turns=1, run_id="run-2"))
    assert reasons(remove(rig)) == {"s": "not all of it is delivered to file"}
    rig.ship()
    assert remove(rig).sessions == ["s"]


def test_a_backend_that_is_away_keeps_everything(rig: Rig) -> None:
    age(write_session(rig.trace_dir, "a"))
    rig.ship()
    rig.backend.answers.reader_is_away = True
    assert reasons(remove(rig)) == {"a": "file cannot be read back: the query service is away"}


def test_what_sampling_leaves_out_owes_nothing(tmp_path: Path) -> None:
    policy = Policy(sample_rate=0.5)
    rig = Rig(tmp_path, FileBackend(), policy)
    names = [f"s{number}" for number in range(10)]
    for name in names:
        age(write_session(rig.trace_dir, name))
    left_out = [name for name in names if not keeps_session(policy, name)]
    assert remove(rig).sessions == left_out


def test_without_sinks_age_is_enough(rig: Rig) -> None:
    age(write_session(rig.trace_dir, "a"))
    assert remove(rig, Settings(trace_dir=rig.trace_dir)).sessions == ["a"]


def test_a_session_whose_run_is_not_over_stays_without_sinks_too(rig: Rig) -> None:
    age(write_session(rig.trace_dir, "a", end=False))
    assert reasons(remove(rig, Settings(trace_dir=rig.trace_dir))) == {"a": "its last run is not over"}


def test_a_file_from_the_future_stays(rig: Rig) -> None:
    age(write_session(rig.trace_dir, "a"), -10 * DAY_S)
    rig.ship()
    assert remove(rig) == Removed(sessions=[], bytes=0, refused=[])


def test_a_sink_that_is_switched_off_keeps_what_it_is_owed_until_it_is_forgotten(rig: Rig) -> None:
    age(write_session(rig.trace_dir, "delivered"))
    rig.ship()
    age(write_session(rig.trace_dir, "pending"))
    off = Settings(trace_dir=rig.trace_dir)
    state = rig.state()
    mark_switched_off(state, off)
    (owed,) = still_owed(state, off)
    assert (owed.sink, owed.sessions, owed.events) == ("file", 1, 0)

    age(write_session(rig.trace_dir, "after-it-went-off"))
    mark_switched_off(state, off)
    removed = remove(rig, off)
    assert removed.sessions == ["after-it-went-off", "delivered"]
    (refused,) = removed.refused
    assert refused.session == "pending"
    assert "switched off: switch it on, or `tracebridge forget` it" in refused.reason

    state.forget_target(1)
    state.close()
    assert remove(rig, off).sessions == ["pending"]


def test_a_sink_that_is_switched_on_again_gets_what_was_kept_for_it(rig: Rig) -> None:
    write_session(rig.trace_dir, "a")
    rig.ship()
    write_session(rig.trace_dir, "b")
    off = Settings(trace_dir=rig.trace_dir)
    state = rig.state()
    mark_switched_off(state, off)
    rig.ship()
    assert len(rig.stored_names()) == 14
    assert still_owed(state, rig.settings) == []
    assert state.targets()[0].off_since_ns == 0
    state.close()


def test_a_backend_that_a_command_has_only_looked_for_is_owed_nothing(rig: Rig) -> None:
    """As `status` does with a configuration that names another place."""
    age(write_session(rig.trace_dir, "a"))
    rig.ship()
    state = rig.state()
    state.target("file", "elsewhere")
    mark_switched_off(state, rig.settings)
    assert still_owed(state, rig.settings) == []
    state.close()
    assert remove(rig).sessions == ["a"]


def test_a_second_sink_that_has_not_got_it_keeps_it(rig: Rig, tmp_path: Path) -> None:
    age(write_session(rig.trace_dir, "a"))
    rig.ship()
    second = msgspec.structs.replace(rig.settings.sinks[0], name="second", sink_type=FileBackend())
    both = msgspec.structs.replace(rig.settings, sinks=(rig.settings.sinks[0], second))
    assert reasons(remove(rig, both)) == {"a": "not all of it is delivered to second"}


@pytest.mark.parametrize("comes_back", [False, True])
def test_what_a_crash_left_half_removed_is_finished_the_next_time(rig: Rig, comes_back: bool) -> None:
    events = age(write_session(rig.trace_dir, "a"))
    rig.ship()
    assert deletion.remove(rig.trace_dir, events.parent, events.stat().st_size) == ""  # and then the process died
    if comes_back:
        write_session(rig.trace_dir, "a", turns=1, run_id="run-2")
        rig.ship()
    remove(rig)
    assert list(deletion.removed(rig.trace_dir)) == []
    assert events.parent.exists() == comes_back
    state = rig.state()
    assert state.positions(1, 1) == ({"session-a": events.stat().st_size} if comes_back else {})
    state.close()
    rig.ship()
    assert len(rig.backend.answers.requests) == (2 if comes_back else 1)


def test_two_that_finish_at_once_what_a_crash_left_do_not_trip_over_each_other(rig: Rig) -> None:
    class Other(State):
        def forget_session(self, folder: int, session: str, head: str) -> None:
            """Another process is just as far."""
            super().forget_session(folder, session, head)
            state = rig.state()
            sweep(state, folder, rig.trace_dir)
            state.close()

    for name in ("a", "b"):
        events = write_session(rig.trace_dir, name)
        assert deletion.remove(rig.trace_dir, events.parent, events.stat().st_size) == ""
    state = Other(layout.state_file(rig.trace_dir))
    sweep(state, state.folder(rig.trace_dir), rig.trace_dir)
    state.close()
    assert list(deletion.removed(rig.trace_dir)) == []


def test_a_session_that_comes_back_after_it_was_removed_is_delivered_from_its_new_start(rig: Rig) -> None:
    age(write_session(rig.trace_dir, "a", turns=5))
    rig.ship()
    assert remove(rig).sessions == ["a"]
    write_session(rig.trace_dir, "a", turns=1, run_id="run-2")
    rig.ship()
    assert len(rig.backend.answers.requests[-1]) == 3


def test_backfilled_folders_are_never_touched(rig: Rig, tmp_path: Path) -> None:
    events = age(write_session(tmp_path / "archive", "a"))
    state = rig.state()
    state.folder(rig.trace_dir)
    state.folder(tmp_path / "archive")
    state.close()
    rig.ship()
    assert remove(rig).sessions == []
    assert events.exists()


@pytest.mark.parametrize("is_file", [False, True], ids=["folder", "file"])
def test_what_a_link_leads_to_stays(rig: Rig, tmp_path: Path, is_file: bool) -> None:
    events = age(write_session(rig.trace_dir, "linked"))
    linked = events if is_file else events.parent
    elsewhere = linked.rename(tmp_path / "elsewhere")
    linked.symlink_to(elsewhere)
    rig.ship()
    before = events.read_bytes()
    for dry_run in (True, False):
        why = reasons(remove(rig, dry_run=dry_run))
        assert why == {"linked": "it is a link, and only what lies in the trace folder itself is deleted"}
    assert (events.read_bytes(), linked.is_symlink()) == (before, True)


def test_a_folder_that_is_not_there_holds_nothing_to_delete(rig: Rig) -> None:
    write_session(rig.trace_dir, "a")
    removal = Removal(rig.settings)
    shutil.rmtree(rig.trace_dir / "session-a")
    assert removal.remove_older_than(0.0).sessions == []
    removal.close()
