"""Coverage: of the sessions of each day, which were compared as they are now, and which of those are clean."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.delivery.rig import write_session
from tests.workplace import ROOT
from tracebridge.delivery.choice import Window
from tracebridge.delivery.evidence import Compared
from tracebridge.delivery.ramp import Ramp
from tracebridge.delivery.state import State
from tracebridge.event import timestamp_ns
from tracebridge.policy import Policy, keeps_session
from tracebridge.report import Day
from tracebridge.report.collect import policy_in_words
from tracebridge.report.coverage import OwedSession, by_day, owed_sessions

DAY_NS = 86_400 * 1_000_000_000


RULES = "those that hold now"


def compared(session: str, size: int, defects: int = 0, rules: str = RULES) -> Compared:
    return Compared(folder=1, session=session, compared_ns=1, size=size, rules=rules, spans=1, defects=defects)


def test_a_session_counts_as_compared_only_as_it_was_then_and_as_clean_only_without_defects() -> None:
    owed = [OwedSession(1, name, day * DAY_NS, 100) for name, day in (("a", 0), ("b", 0), ("c", 0), ("d", 0), ("e", 2))]
    found = by_day(
        owed, [compared("a", 100), compared("b", 100, defects=2), compared("c", 99), compared("e", 100)], RULES
    )
    assert found == (
        Day(date="1970-01-01", owed=4, compared=2, clean=1),
        Day(date="1970-01-03", owed=1, compared=1, clean=1),
    )


def test_a_session_of_the_same_name_in_another_folder_is_another_one() -> None:
    (day,) = by_day([OwedSession(2, "a", 0, 100)], [compared("a", 100)], RULES)
    assert day.compared == 0


def test_what_was_compared_under_other_rules_proves_nothing_for_what_is_sent_now() -> None:
    (day,) = by_day([OwedSession(1, "a", 0, 100)], [compared("a", 100, rules="those before")], RULES)
    assert (day.owed, day.compared, day.clean) == (1, 0, 0)


def test_what_is_owed_is_told_from_the_folders_their_windows_and_the_sampling(tmp_path: Path) -> None:
    old = shutil.copytree(ROOT / "tests" / "data" / "legacy", tmp_path / "old")
    (old / "session-empty").mkdir()
    (old / "session-empty" / "events.jsonl").touch()
    state = State(tmp_path / "state.sqlite")
    try:
        number = state.backfill(old, Window(timestamp_ns("2025-03-01"), timestamp_ns("2026-01-01")))
        target = state.target("sink", "somewhere")
        owed = {one.session: one for one in owed_sessions(state, target, Policy())}
        assert "session-empty" not in owed
        assert owed["session-gardener-1"] == OwedSession(
            number,
            "session-gardener-1",
            timestamp_ns("2025-03-04T09:00:00Z"),
            (old / "session-gardener-1" / "events.jsonl").stat().st_size,
            (old / "session-gardener-1" / "events.jsonl").stat().st_mtime_ns,
        )
        assert list(owed_sessions(state, target, Policy(sample_rate=0.0))) == []
        state.backfill(old, Window(0, 1))
    finally:
        state.close()


def test_what_was_left_behind_when_the_share_was_raised_is_not_owed(tmp_path: Path) -> None:
    names = [f"s{number}" for number in range(10)]
    for name in names:
        write_session(tmp_path / "traces", name, turns=1, at="2026-02-01T00:00:00Z")
    write_session(tmp_path / "traces", "later", turns=1, at="2026-02-03T00:00:00Z")
    state = State(tmp_path / "state.sqlite")
    try:
        state.folder(tmp_path / "traces")
        raised, other = state.target("raised", "somewhere"), state.target("other", "somewhere")
        state.keep_ramp(raised, Ramp().raised(0.5, 1.0, timestamp_ns("2026-02-02T00:00:00Z")))
        was_in = [f"session-{name}" for name in names if keeps_session(Policy(sample_rate=0.5), name)]
        assert 0 < len(was_in) < len(names)
        assert [one.session for one in owed_sessions(state, raised, Policy())] == ["session-later", *was_in]
        assert len(list(owed_sessions(state, other, Policy()))) == len(names) + 1
    finally:
        state.close()


def test_a_policy_is_told_by_what_it_changes() -> None:
    assert policy_in_words(Policy()) == ()
    assert policy_in_words(Policy(include_thinking=False, sample_rate=0.5, max_content_length=100)) == (
        "sample_rate: 0.5",
        "include_thinking: false",
        "max_content_length: 100",
    )
