"""`tracebridge restore` as a person or a script sees it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.delivery.rig import write_session
from tests.waiting import until
from tests.workplace import Workplace, answer_of, both, journal_events, langfuse
from tracebridge.delivery.background import BackgroundShipper
from tracebridge.delivery.pace import FullSpeed
from tracebridge.devserver import DevServer
from tracebridge.journal.opened import OpenedLog
from tracebridge.testing import Fault

READING = "GET /api/public/v2/observations"


@pytest.fixture
def delivered(tmp_path: Path, devserver: DevServer) -> Workplace:
    """Three sessions of one day each, delivered; the sink leaves messages out."""
    sink = langfuse(devserver, policy={"include_messages": False})
    workplace = Workplace(tmp_path / "here", {"langfuse": sink})
    for day in (1, 2, 3):
        write_session(workplace.trace_dir, f"s{day}", turns=1, at=f"2026-02-0{day}T10:00:00.000Z")
    assert workplace.call("ship").returncode == 0
    return workplace


def test_what_was_left_out_is_told_by_name_and_count_with_exit_code_1(delivered: Workplace, tmp_path: Path) -> None:
    ran = delivered.call("restore", "--from", "langfuse", "--out", tmp_path / "new")
    assert (ran.returncode, ran.stderr) == (1, "")
    assert ran.stdout.startswith(f"{tmp_path / 'new'}: 3 sessions, 18 events of 9 spans")
    assert "loss      time-in-milliseconds: LangFuse cuts" in ran.stdout
    assert "include_messages: 12 contents were left out" in ran.stdout
    assert "- s1: include_messages 4" in ran.stdout


def test_scripts_get_the_same_as_json(delivered: Workplace, tmp_path: Path) -> None:
    ran = delivered.call("restore", "--from", "langfuse", "--out", tmp_path / "new", "--json")
    told = json.loads(ran.stdout)
    assert (ran.returncode, told["exit_code"]) == (1, 1)
    assert told["totals"] == {"include_messages": 12}
    assert [(session["session_id"], session["folder"], session["events"]) for session in told["sessions"]] == [
        (name, f"session-{name}", 6) for name in ("s1", "s2", "s3")
    ]


def test_a_sink_that_is_switched_off_is_restored_from_though_the_files_and_the_state_are_gone(
    delivered: Workplace, tmp_path: Path, devserver: DevServer
) -> None:
    delivered.trace_dir.rename(tmp_path / "elsewhere")
    delivered.configure({"langfuse": langfuse(devserver, enabled=False)})
    ran = delivered.call("restore", "--from", "langfuse", "--out", tmp_path / "new")
    assert ran.returncode == 1
    assert journal_events(tmp_path / "new").keys() == {"s1", "s2", "s3"}
    assert not delivered.trace_dir.exists()


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--session", "s1", "--session", "s3"], {"s1", "s3"}),
        (["--since", "2026-02-02"], {"s2", "s3"}),
        (["--until", "2026-02-02T10:00:00Z"], {"s1"}),
        (["--since", "2026-02-02T11:00:00+01:00", "--until", "2026-02-03"], {"s2"}),
        (["--since", "2026-02"], {"s1", "s2", "s3"}),
    ],
    ids=["by name", "since", "until", "both", "month"],
)
def test_a_part_can_be_asked_for(delivered: Workplace, tmp_path: Path, options: list[str], names: set[str]) -> None:
    delivered.call("restore", "--from", "langfuse", "--out", tmp_path / "new", *options)
    assert journal_events(tmp_path / "new").keys() == names


def test_a_session_that_is_not_at_the_backend_is_named(delivered: Workplace, tmp_path: Path) -> None:
    ran = delivered.call("restore", "--from", "langfuse", "--out", tmp_path / "new", "--session", "nobody")
    assert ran.returncode == 1
    assert "not_found: 1 sessions that were asked for" in ran.stdout
    assert "- nobody: not found" in ran.stdout


@pytest.mark.parametrize("sink", ["langfuse", "otel"])
def test_a_session_can_be_asked_for_by_an_id_that_is_no_unicode(
    tmp_path: Path, devserver: DevServer, sink: str
) -> None:
    workplace = Workplace(tmp_path / "here", {sink: both(devserver)[sink]}, delivery="external")
    workplace.record("half \ud800")
    assert workplace.call("ship").returncode == 0
    asked = ("restore", "--from", sink, "--out", tmp_path / "out", "--session", "half \ud800", "--session", "\udcff")
    ran = workplace.call(*asked)
    assert (ran.returncode, "not_found: 1 sessions" in ran.stdout) == (1, True)
    assert journal_events(tmp_path / "out") == journal_events(workplace.trace_dir)


def test_sessions_whose_ids_the_backend_cannot_store_as_they_are_come_back(
    tmp_path: Path, devserver: DevServer
) -> None:
    workplace = Workplace(tmp_path / "here", {"langfuse": langfuse(devserver)}, delivery="external")
    for session_id in ("a\x00b", "a\ufffdb", "\x00"):
        workplace.record(session_id)
    assert workplace.call("ship").returncode == 0
    assert workplace.call("restore", "--from", "langfuse", "--out", tmp_path / "out").returncode == 0
    assert journal_events(tmp_path / "out") == journal_events(workplace.trace_dir)


def test_a_session_that_is_there_is_named_and_can_be_skipped(delivered: Workplace, tmp_path: Path) -> None:
    arguments = ("restore", "--from", "langfuse", "--out", tmp_path / "new")
    delivered.call(*arguments, "--session", "s2")
    (tmp_path / "new" / "session-s2" / "events.jsonl").write_text("mine\n")
    ran = delivered.call(*arguments)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "'s2'" in ran.stderr
    assert "--skip-existing" in ran.stderr
    ran = delivered.call(*arguments, "--skip-existing")
    assert (ran.returncode, "1 sessions were there already" in ran.stdout) == (1, True)
    assert (tmp_path / "new" / "session-s2" / "events.jsonl").read_text() == "mine\n"


def test_a_backend_that_goes_away_ends_it_with_2_and_what_was_restored_stays(
    delivered: Workplace, tmp_path: Path, devserver: DevServer
) -> None:
    devserver.faults.add(Fault(route=READING, first=2, latency_s=0.001), Fault(route=READING, status=400))
    ran = delivered.call("restore", "--from", "langfuse", "--out", tmp_path / "new")
    assert ran.returncode == 2
    assert "2 sessions were not reached" in ran.stderr
    assert "HTTP 400" in ran.stderr
    assert journal_events(tmp_path / "new").keys() == {"s1"}
    devserver.faults.clear()
    again = delivered.call("restore", "--from", "langfuse", "--out", tmp_path / "new", "--skip-existing", "--json")
    assert json.loads(again.stdout)["skipped"] == ["s1"]
    assert journal_events(tmp_path / "new").keys() == {"s1", "s2", "s3"}


def test_spans_that_sampling_left_out_are_spoken_of(delivered: Workplace, tmp_path: Path, devserver: DevServer) -> None:
    delivered.configure({"langfuse": langfuse(devserver, policy={"sample_rate": 0.25})})
    ran = delivered.call("restore", "--from", "langfuse", "--out", tmp_path / "new")
    assert "the sink is sent 25.00% of the sessions" in ran.stdout


def test_the_rules_that_the_state_remembers_are_known_when_the_policy_has_changed(
    tmp_path: Path, devserver: DevServer
) -> None:
    """What is sent whole is not taken for cut because a text ends as a cut one does."""
    workplace = Workplace(tmp_path / "here", {"langfuse": langfuse(devserver)}, max_content_length=None)
    path = write_session(workplace.trace_dir, "s", turns=1, at="2026-02-01T10:00:00.000Z")
    path.write_text(path.read_text().replace("question 1", "what is …[cut 3]"), encoding="utf-8")
    assert workplace.call("ship").returncode == 0
    workplace.configure({"langfuse": langfuse(devserver, policy={"include_messages": False})}, max_content_length=None)
    told = answer_of(workplace.call("restore", "--from", "langfuse", "--out", tmp_path / "new", "--json"))
    assert told["totals"] == {}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--from", "langfuse"], "--out"),
        (["--out", "new"], "--from"),
        (["--from", "nobody", "--out", "new"], "no sink called 'nobody'"),
        (["--from", "langfuse", "--out", "new", "--since", "yesterday"], "'yesterday' is no time"),
        (
            ["--from", "langfuse", "--out", "new", "--since", "2026-02-06", "--until", "2026-02-06"],
            "--until must be later than --since",
        ),
        (
            ["--from", "langfuse", "--out", "new", "--session", "a", "--since", "2026-02-06"],
            "leave --since and --until",
        ),
        (["--from", "langfuse", "--out", "new"], "127.0.0.1:9"),
    ],
    ids=["no folder", "no sink", "unknown sink", "no time", "empty window", "too much", "backend away"],
)
def test_what_cannot_be_done_is_told_with_exit_code_2(
    run: Run, workplace: Workplace, options: list[str], said: str
) -> None:
    ran = run("--config", workplace.config, "restore", *options)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert "sk-very-secret" not in ran.err


def test_what_is_restored_into_the_trace_folder_is_not_sent_again(tmp_path: Path, devserver: DevServer) -> None:
    workplace = Workplace(tmp_path / "here", {"langfuse": langfuse(devserver)}, delivery="external")
    shipper = BackgroundShipper(workplace.settings, FullSpeed)
    shipper.start()
    try:
        # begun after the state, so that only the cursors say that they were sent, which go with the files
        for name in ("a", "b"):
            write_session(workplace.trace_dir, name, turns=1)
            OpenedLog(workplace.trace_dir).append(f"session-{name}")
        until(lambda: len(workplace.observed("langfuse")) == 6, "everything is there")
        until(lambda: shipper.flush(1) == 0, "and confirmed")
        assert workplace.call("prune", "--older-than", "0s").returncode == 0
        ran = workplace.call("restore", "--from", "langfuse", "--out", workplace.trace_dir)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        write_session(workplace.trace_dir, "a", turns=1, run_id="run-2")
        for name in ("a", "b"):
            OpenedLog(workplace.trace_dir).append(f"session-{name}")
        until(lambda: len(workplace.observed("langfuse")) == 9, "what is new is there")
        until(lambda: shipper.flush(1) == 0, "and confirmed")
    finally:
        shipper.stop(5)
    assert workplace.verdicts()["langfuse"]["exit_code"] == 0
