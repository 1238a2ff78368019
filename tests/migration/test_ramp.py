"""A sink is rolled out to a share of sessions: who was in is known, and the past of who comes in is sent if asked."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.delivery.rig import write_session
from tests.migration.evidence import compare_all
from tests.waiting import until
from tests.workplace import Workplace, langfuse
from tracebridge.delivery.background import BackgroundShipper
from tracebridge.delivery.pace import FullSpeed
from tracebridge.delivery.ramp import ALWAYS_NS, Ramp, Stage
from tracebridge.devserver import DevServer
from tracebridge.policy import Policy, keeps_session

NAMES = [f"s{number}" for number in range(30)]


def share_of(rate: float, names: list[str] = NAMES) -> set[str]:
    return {name for name in names if keeps_session(Policy(sample_rate=rate), name)}


@pytest.fixture
def workplace(tmp_path: Path, devserver: DevServer) -> Workplace:
    """A sink that is sent a fifth of thirty sessions, and has got them."""
    workplace = fifth(tmp_path / "here", devserver)
    for name in NAMES:
        write_session(workplace.trace_dir, name, turns=1)
    assert workplace.call("ship").returncode == 0
    assert at_backend(workplace) == share_of(0.2)
    return workplace


def fifth(folder: Path, devserver: DevServer) -> Workplace:
    return Workplace(folder, {"langfuse": langfuse(devserver, policy={"sample_rate": 0.2})}, delivery="external")


def at_backend(workplace: Workplace) -> set[str]:
    spans = workplace.observed("langfuse")
    assert set(Counter(span.span_id for span in spans).values()) <= {1}
    return {span.session_id for span in spans}


def ramp(workplace: Workplace, *arguments: str) -> dict[str, float]:
    ran = workplace.call("migrate", "ramp", "--sink", "langfuse", "--json", *arguments)
    assert ran.returncode == 0, ran.stderr
    told: dict[str, float] = json.loads(ran.stdout)
    return told


def test_who_comes_in_is_sent_from_then_on_and_validation_knows_who_was_in(workplace: Workplace) -> None:
    came_in = share_of(0.6) - share_of(0.2)
    told = ramp(workplace, "--share", "60%")
    assert (told["before"], told["after"]) == (0.2, 0.6)
    assert (told["came_in"], told["left_behind"]) == (len(came_in), len(came_in))
    assert "sample_rate: 0.6" in workplace.config.read_text("utf-8")

    later = [f"later-{number}" for number in range(10)]
    for name in later:
        write_session(workplace.trace_dir, name, turns=1)
    assert workplace.call("ship").returncode == 0
    assert at_backend(workplace) == share_of(0.2) | share_of(0.6, later)
    verdict = workplace.verdicts()["langfuse"]
    assert (verdict["exit_code"], verdict["sessions"]) == (0, len(at_backend(workplace)))
    (sink,) = json.loads(workplace.call("status", "--json").stdout)["sinks"]
    events = sink["events"]
    assert (events["unread"], events["unaccounted"]) == (0, 0)
    assert events["left_out"] == 6 * (40 - len(at_backend(workplace)))
    assert events["written"] == 6 * 40


def test_the_past_of_who_came_in_is_sent_when_it_is_asked_for(workplace: Workplace) -> None:
    ramp(workplace, "--share", "0.6")
    assert workplace.call("ship").returncode == 0
    assert at_backend(workplace) == share_of(0.2)
    assert ramp(workplace, "--backfill")["left_behind"] == 0
    assert workplace.call("ship").returncode == 0
    assert at_backend(workplace) == share_of(0.6)
    assert workplace.verdicts()["langfuse"]["exit_code"] == 0
    ran = workplace.call("migrate", "ramp", "--sink", "langfuse", "--backfill")
    assert ran.returncode == 2
    assert "nothing of its past is left behind" in ran.stderr


def test_a_shipper_that_runs_sends_the_past_that_is_asked_for(workplace: Workplace) -> None:
    ramp(workplace, "--share", "0.6")
    shipper = BackgroundShipper(workplace.settings, FullSpeed)
    shipper.start()
    try:
        until(lambda: shipper.flush(1) == 0, "it has looked")
        ramp(workplace, "--backfill")
        until(lambda: at_backend(workplace) == share_of(0.6), "the past is sent")
    finally:
        shipper.stop(5)


def test_share_and_past_may_be_asked_for_at_once(workplace: Workplace) -> None:
    assert ramp(workplace, "--share", "1", "--backfill")["left_behind"] == 0
    assert workplace.call("ship").returncode == 0
    assert at_backend(workplace) == set(NAMES)


def test_old_sessions_that_no_backfill_asked_for_neither_come_in_nor_are_left_behind(workplace: Workplace) -> None:
    old = workplace.folder / "old"
    asked = [f"asked-{number}" for number in range(10)]
    for name in asked:
        write_session(old, name, turns=1, at="2026-02-01T00:00:00Z")
    for number in range(10):
        write_session(old, f"not-asked-{number}", turns=1, at="2026-02-03T00:00:00Z")
    ran = workplace.call("backfill", str(old), "--until", "2026-02-02")
    assert ran.returncode == 0, ran.stderr
    came_in = share_of(0.6, NAMES + asked) - share_of(0.2, NAMES + asked)
    told = ramp(workplace, "--share", "60%")
    assert (told["came_in"], told["left_behind"]) == (len(came_in), len(came_in))


def test_a_share_that_is_raised_by_hand_sends_the_past(workplace: Workplace, devserver: DevServer) -> None:
    workplace.configure({"langfuse": langfuse(devserver, policy={"sample_rate": 0.6})}, delivery="external")
    assert workplace.call("ship").returncode == 0
    assert at_backend(workplace) == share_of(0.6)


def test_a_share_that_is_lowered_keeps_who_is_in(workplace: Workplace) -> None:
    assert ramp(workplace, "--share", "0.1")["came_in"] == 0
    for name in NAMES:
        write_session(workplace.trace_dir, name, turns=1, run_id="run-2")
    assert workplace.call("ship").returncode == 0
    runs = Counter(span.session_id for span in workplace.observed("langfuse") if span.kind == "session")
    assert runs == {name: 1 + (name in share_of(0.1)) for name in share_of(0.2)}


def test_a_past_that_is_left_behind_is_in_the_way_of_switching_the_journal_off(workplace: Workplace) -> None:
    ramp(workplace, "--share", "1")
    assert workplace.call("ship").returncode == 0
    compare_all(workplace)
    few = ("--min-sessions", "1", "--min-days", "0")
    ran = workplace.call("migrate", "advance", *few)
    assert ran.returncode == 1
    assert f"langfuse ramp: {30 - len(share_of(0.2))} sessions came in when the share was raised" in ran.stdout
    assert "tracebridge migrate ramp --sink langfuse --backfill" in ran.stdout
    assert workplace.call("migrate", "advance", "--dry-run", *few, "--accept", "ramp").returncode == 0
    ramp(workplace, "--backfill")
    assert workplace.call("ship").returncode == 0
    compare_all(workplace)
    assert workplace.call("migrate", "advance", *few).returncode == 0
    history = workplace.call("migrate", "history").stdout
    assert "send 100.00% of the sessions to langfuse" in history
    assert "with the past of everybody who is in" in history
    assert workplace.call("migrate", "rollback").stdout.count("step 3 (switch jsonl off) is taken back") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--sink", "langfuse", "--share", "20%"), "is sent 20.00% of the sessions already"),
        (("--sink", "nobody", "--share", "20%"), "no sink called 'nobody' is switched on"),
    ],
)
def test_what_changes_nothing_is_told(
    tmp_path: Path, devserver: DevServer, arguments: tuple[str, ...], words: str
) -> None:
    ran = fifth(tmp_path / "here", devserver).call("migrate", "ramp", *arguments)
    assert ran.returncode == 2
    assert words in ran.stderr


def test_more_than_capture_keeps_is_refused_and_nothing_is_changed(tmp_path: Path, devserver: DevServer) -> None:
    workplace = fifth(tmp_path / "here", devserver)
    sinks = {"langfuse": langfuse(devserver, policy={"sample_rate": 0.2})}
    workplace.configure(sinks, delivery="external", sample_rate=0.5)
    before = workplace.config.read_bytes()
    ran = workplace.call("migrate", "ramp", "--sink", "langfuse", "--share", "60%")
    assert ran.returncode == 2
    assert "wider than capture's" in ran.stderr
    assert workplace.config.read_bytes() == before


def test_each_raise_has_a_time_of_its_own() -> None:
    one = Ramp().raised(0.1, 0.2, 1_000)
    assert one.stages == (Stage(0.1, ALWAYS_NS), Stage(0.2, 1_000))
    two = one.raised(0.2, 0.5, 2_000)
    assert two.stages == (Stage(0.1, ALWAYS_NS), Stage(0.2, 1_000), Stage(0.5, 2_000))
    # lowered to a tenth by hand, and raised again
    assert two.raised(0.1, 0.3, 3_000).stages == (Stage(0.1, ALWAYS_NS), Stage(0.3, 3_000))
