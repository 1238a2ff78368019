"""The gate opens when everything holds, names each thing in its way, and changes one value of the file."""

from __future__ import annotations

import errno
import getpass
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.delivery.rig import TAILS, end_with, write_session
from tests.migration.evidence import compare_all, deliver, state_of, write_sessions
from tests.workplace import Workplace, environment, langfuse, otel
from tracebridge.config import load
from tracebridge.devserver import DevServer
from tracebridge.journal import layout
from tracebridge.migration.configuration_file import ConfigurationFile
from tracebridge.migration.facts import newest_of_everything
from tracebridge.migration.gate import Asked, advance, plan_of
from tracebridge.migration.history import entries
from tracebridge.migration.tiers import MigrationError, Switch
from tracebridge.policy import keeps_session
from tracebridge.testing import Fault

INGESTION = "POST /api/public/otel/v1/traces"
FEW = ("--min-sessions", "3")


@pytest.fixture
def workplace(tmp_path: Path, devserver: DevServer) -> Workplace:
    """Dual-write with three sessions, delivered, compared and clean; the file has comments."""
    workplace = Workplace(tmp_path / "here", {"jsonl": {"enabled": True}, "langfuse": langfuse(devserver)})
    workplace.config.write_text("# of the support team\n" + workplace.config.read_text(), "utf-8")
    write_sessions(workplace, 3)
    deliver(workplace)
    compare_all(workplace)
    return workplace


def names(told: dict[str, Any]) -> list[str]:
    """The conditions that do not hold."""
    plan = told.get("next") or told["step"]
    return [one["name"] for one in plan["conditions"] if not one["holds"]]


def status(workplace: Workplace, *arguments: str) -> dict[str, Any]:
    ran = workplace.call("migrate", "status", "--json", *arguments)
    told: dict[str, Any] = json.loads(ran.stdout)
    assert ran.returncode == (1 if told["blockers"] else 0)
    return told


def test_when_everything_holds_one_value_of_the_file_changes_and_the_history_says_on_which_evidence(
    workplace: Workplace,
) -> None:
    before = workplace.config.read_text("utf-8")
    assert status(workplace, *FEW)["tier"] == {"number": 2, "name": "dual-write", "sinks": ["jsonl", "langfuse"]}
    ran = workplace.call("migrate", "advance", *FEW)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "tier 2, LangFuse: langfuse" in ran.stdout
    assert "restart agents" in ran.stdout
    assert workplace.config.read_text("utf-8") == before.replace("enabled: true", "enabled: false", 1)
    assert not workplace.settings.keep_journal

    (entry,) = json.loads(workplace.call("migrate", "history", "--json").stdout)
    assert (entry["id"], entry["who"], entry["action"]) == (1, getpass.getuser(), "advance")
    assert time.time_ns() - entry["at_ns"] < 60e9
    assert (entry["record"]["before"], entry["record"]["after"]) == ("dual-write", "LangFuse")
    assert all(condition["holds"] for condition in entry["record"]["conditions"])
    assert "3 of 3 sessions are clean" in workplace.call("migrate", "history").stdout


def test_how_much_evidence_is_asked_for_may_stand_in_the_file(workplace: Workplace, devserver: DevServer) -> None:
    workplace.configure({"langfuse": langfuse(devserver)}, migration={"min_sessions": 3, "min_days": 1.5})
    assert names(status(workplace)) == []
    assert names(status(workplace, "--min-days", "3")) == ["days"]
    assert names(status(workplace, "--min-sessions", "4")) == ["sessions"]
    workplace.configure({"langfuse": langfuse(devserver)}, migration={"min_days": "soon"})
    assert "agent_trace.migration.min_days" in workplace.call("migrate", "status").stderr


def test_a_dry_run_changes_nothing_and_says_what_would_change(workplace: Workplace) -> None:
    before = workplace.config.read_bytes()
    ran = workplace.call("migrate", "advance", "--dry-run", *FEW)
    assert ran.returncode == 0
    assert "would be changed: `agent_trace.sinks.jsonl.enabled: false`" in ran.stdout
    assert workplace.config.read_bytes() == before
    assert workplace.call("migrate", "history").stdout == "no step was made yet\n"
    assert workplace.call("migrate", "advance", "--dry-run").returncode == 1


def test_what_is_in_the_way_is_named_with_the_command_that_clears_it(workplace: Workplace) -> None:
    before = workplace.config.read_bytes()
    ran = workplace.call("migrate", "advance", "--min-days", "5")
    assert ran.returncode == 1
    assert "refused: cannot switch jsonl off" in ran.stderr
    assert "2 of 12 conditions do not hold" in ran.stdout
    assert "langfuse sessions: 3 clean (wanted: at least 100)" in ran.stdout
    assert "langfuse days: 2.00 days from the first clean session to the last (wanted: at least 5)" in ran.stdout
    assert ran.stdout.count("tracebridge validate --sink langfuse") == 2
    assert workplace.config.read_bytes() == before


@pytest.mark.parametrize(("variables", "code"), [({}, 1), ({"PYTHONUNBUFFERED": "1"}, 141)], ids=["told", "cut short"])
def test_a_gate_that_is_shut_does_not_look_open_because_nobody_reads_what_it_says(
    workplace: Workplace, variables: dict[str, str], code: int
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        line = workplace.command("--config", workplace.config, "migrate", "status")
        ran = subprocess.run(
            line, stdout=writing, stderr=subprocess.PIPE, env=environment(**variables), check=False, timeout=50
        )
    finally:
        os.close(writing)
    assert (ran.returncode, ran.stderr) == (code, b"")


def test_a_session_that_was_never_compared_is_in_the_way(workplace: Workplace) -> None:
    age(workplace)
    with state_of(workplace) as state:
        state.forget_session(1, "session-s1", "")
    assert names(status(workplace, *FEW)) == ["compared", "sessions"]
    assert "1 never compared" in workplace.call("migrate", "status", *FEW).stdout


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"defects": 1}, "3 with findings"),
        ({"rules": "0123456789ab"}, "3 compared under other rules"),
        ({"size": 17}, "3 written to since"),
    ],
)
def test_a_comparison_that_proves_nothing_for_what_is_there_is_in_the_way(
    workplace: Workplace, changes: dict[str, Any], words: str
) -> None:
    age(workplace)
    compare_all(workplace, **changes)
    assert names(status(workplace, *FEW)) == ["compared", "sessions", "days"]
    assert words in workplace.call("migrate", "status", *FEW).stdout


def age(workplace: Workplace) -> None:
    """The journals were written to an hour ago."""
    then = time.time() - 3600
    for events in workplace.trace_dir.glob("*/events.jsonl"):
        os.utime(events, (then, then))


def test_another_policy_makes_new_evidence_necessary(workplace: Workplace, devserver: DevServer) -> None:
    age(workplace)
    workplace.configure({"langfuse": langfuse(devserver, policy={"max_content_length": 500})})
    found = names(status(workplace, *FEW))
    assert {"compared", "policy"} <= set(found)


def test_a_validation_that_had_nothing_to_compare_is_no_fresh_validation(tmp_path: Path, devserver: DevServer) -> None:
    workplace = Workplace(tmp_path / "there", {"langfuse": langfuse(devserver)})
    write_sessions(workplace, 3)
    assert workplace.call("ship").returncode == 0
    newest = []
    for arguments in ((), ("--since-last",), ()):
        assert workplace.call("validate", *arguments).returncode == 0
        with state_of(workplace) as state:
            found = newest_of_everything(state.evidence.validations(1))
        newest.append(found and found.id)
    assert newest == [1, 1, 3]


def test_a_validation_of_a_part_is_no_fresh_validation(
    workplace: Workplace, tmp_path: Path, devserver: DevServer
) -> None:
    fresh = Workplace(tmp_path / "there", {"langfuse": langfuse(devserver)})
    write_sessions(fresh, 3)
    deliver(fresh)
    compare_all(fresh, scope='{"sample":0.5}')
    assert names(status(fresh, *FEW)) == ["fresh"]
    compare_all(fresh, scope='{"since_last":true}')
    assert names(status(fresh, *FEW)) == []


def test_an_old_validation_is_in_the_way(workplace: Workplace) -> None:
    assert names(status(workplace, *FEW, "--fresh", "0s")) == ["fresh"]


def test_what_waits_for_a_backend_that_is_down_is_in_the_way(workplace: Workplace, devserver: DevServer) -> None:
    devserver.faults.add(Fault(route=INGESTION, status=503))
    write_session(workplace.trace_dir, "waits", turns=1, at="2026-02-06T22:10:00.123Z")
    assert names(status(workplace, *FEW)) == ["pending"]
    assert "tracebridge ship --sink langfuse" in workplace.call("migrate", "advance", *FEW).stdout


def test_a_journal_that_was_changed_in_its_place_since_it_was_compared_is_in_the_way(workplace: Workplace) -> None:
    journals = [layout.events_file(folder) for folder in layout.session_folders(workplace.trace_dir)]
    for journal in journals:
        os.utime(journal, (time.time() - 7_200,) * 2)
    compare_all(workplace, compared_ns=time.time_ns() - 3_600 * 10**9)
    assert names(status(workplace, *FEW)) == []
    journals[1].write_text(journals[1].read_text("utf-8").replace("answer", "******"), "utf-8")
    os.utime(journals[1], (time.time() - 1_800,) * 2)
    assert "2 of 3 sessions are clean, 1 written to since" in workplace.call("migrate", "status", *FEW).stdout


def test_a_session_that_is_written_at_this_moment_is_not_in_the_way(workplace: Workplace) -> None:
    write_session(workplace.trace_dir, "new", turns=1)
    write_session(workplace.trace_dir, "open", turns=1, end=False)
    deliver(workplace)
    told = status(workplace, *FEW)
    assert names(told) == []
    assert "2 are younger than the newest validation, or open" in workplace.call("migrate", "status", *FEW).stdout
    assert workplace.call("migrate", "advance", *FEW).returncode == 0


@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS)
def test_what_a_writer_left_at_the_end_when_it_died_is_not_in_the_way(
    tmp_path: Path, devserver: DevServer, tail: bytes
) -> None:
    workplace = Workplace(tmp_path / "here", {"langfuse": langfuse(devserver)}, delivery="external")
    workplace.record("died")
    end_with(workplace.trace_dir / "session-died" / "events.jsonl", tail)
    assert workplace.call("ship").returncode == 0
    for _ in range(2):  # by the second, what was written before the first is not young any more
        assert workplace.call("validate").returncode == 0
    assert names(status(workplace, "--min-sessions", "1", "--min-days", "0")) == []


def test_a_step_that_somebody_else_made_since_the_configuration_was_read_is_not_made_again(
    workplace: Workplace,
) -> None:
    read_before, switch = workplace.settings, Switch(sink="jsonl", on=False)
    assert workplace.call("migrate", "advance", *FEW).returncode == 0
    file, asked = ConfigurationFile(workplace.config), Asked()
    with state_of(workplace) as state:
        plan = plan_of(read_before, state, switch, asked)
        with pytest.raises(MigrationError, match="somebody has changed it meanwhile, nothing was changed; try again"):
            advance(read_before, file, state, plan, asked, "test")
        assert len(entries(state)) == 1
    assert workplace.call("migrate", "rollback").returncode == 0
    assert workplace.settings.keep_journal


def test_a_session_whose_file_is_dated_later_than_now_is_in_the_way_until_it_is_touched_and_compared(
    workplace: Workplace,
) -> None:
    # as after the clock was set back, or copied from a machine whose clock is ahead
    journal = write_session(workplace.trace_dir, "ahead", turns=1)
    os.utime(journal, (time.time() + 7_200,) * 2)
    deliver(workplace)
    assert "3 of 4 sessions are clean, 1 never compared" in workplace.call("migrate", "status", *FEW).stdout
    compare_all(workplace)
    told = workplace.call("migrate", "status", *FEW).stdout
    assert "3 of 4 sessions are clean, 1 dated later than now, as after the clock was set back" in told
    assert "touch events.jsonl where it is dated later than now, then tracebridge validate" in told
    os.utime(journal)
    compare_all(workplace)
    assert names(status(workplace, *FEW)) == []


def test_a_session_that_was_given_up_long_ago_and_was_never_sent_to_its_end_is_in_the_way(
    workplace: Workplace,
) -> None:
    open_ = write_session(workplace.trace_dir, "open", turns=1, end=False, at="2026-02-06T22:10:00Z")
    os.utime(open_, (time.time() - 7_200,) * 2)
    deliver(workplace)
    told = status(workplace, *FEW)
    assert names(told) == ["compared"], "nobody writes to it, and what is open in it is overdue"


def test_a_session_whose_journal_cannot_be_read_is_in_the_way(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = write_session(workplace.trace_dir, "closed", turns=1)
    deliver(workplace)
    open_file = Path.open

    def refuse(path: Path, *arguments: Any, **options: Any) -> Any:
        # a mode would not keep root from reading it
        if path == journal:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return open_file(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    assert names(status(workplace, *FEW)) == ["compared"], "no validation to come can compare it either"


def test_dead_letters_are_in_the_way_until_somebody_decides_about_them(
    workplace: Workplace, devserver: DevServer
) -> None:
    devserver.faults.add(Fault(route=INGESTION, status=400))
    write_session(workplace.trace_dir, "refused", turns=1)
    assert workplace.call("ship").returncode == 1
    assert "dead" in names(status(workplace, *FEW))
    devserver.faults.clear()
    assert workplace.call("dead", "discard", "--all").returncode == 0
    assert "dead" not in names(status(workplace, *FEW))


def test_a_session_in_two_folders_counts_once_and_as_the_worse_of_the_two(tmp_path: Path, devserver: DevServer) -> None:
    workplace = Workplace(tmp_path / "here", {"jsonl": {"enabled": True}, "langfuse": langfuse(devserver)})
    write_sessions(workplace, 3)
    os.utime(write_session(tmp_path / "old", "s0", turns=1, at="2025-01-01T00:00:00Z"), (0, 0))
    assert workplace.call("ship").returncode == 0
    compare_all(workplace)
    assert workplace.call("backfill", str(tmp_path / "old")).returncode == 0

    def value(name: str) -> str:
        return next(one["value"] for one in status(workplace)["next"]["conditions"] if one["name"] == name)

    assert value("compared") == "2 of 3 sessions are clean, 1 never compared"
    assert workplace.call("validate").returncode == 0
    assert (value("compared"), value("sessions")) == ("3 of 3 sessions are clean", "3 clean")


def test_a_paused_sink_is_in_the_way(workplace: Workplace, devserver: DevServer) -> None:
    devserver.faults.add(Fault(route=INGESTION, status=401))
    write_session(workplace.trace_dir, "refused", turns=1)
    assert workplace.call("ship", "--patience", "0.1").returncode == 1
    assert "paused" in names(status(workplace, *FEW))


def test_a_narrower_policy_is_in_the_way_until_each_narrowing_is_accepted_by_name(
    workplace: Workplace, devserver: DevServer
) -> None:
    policy = {"include_messages": False, "sample_rate": 0.9}
    workplace.configure({"langfuse": langfuse(devserver, policy=policy)})
    compare_all(workplace)
    owed = sum(keeps_session(workplace.settings.sinks[0].policy, f"s{number}") for number in range(3))
    few = ("--min-sessions", str(owed), "--min-days", "0")
    assert names(status(workplace, *few)) == ["policy"]
    told = workplace.call("migrate", "advance", *few, "--accept", "include_messages")
    assert told.returncode == 1
    assert "leaves out more by sample_rate; include_messages accepted" in told.stdout
    accepted = ("--accept", "include_messages", "--accept", "sample_rate")
    assert workplace.call("migrate", "advance", *few, *accepted).returncode == 0
    assert "accepted: include_messages, sample_rate" in workplace.call("migrate", "history").stdout
    assert workplace.call("migrate", "advance", "--accept", "nonsense").returncode == 2


def test_a_sink_that_cuts_content_is_in_the_way_until_the_cut_is_accepted_by_name(
    workplace: Workplace, devserver: DevServer
) -> None:
    workplace.configure({"jsonl": {"enabled": True}, "otel": otel(devserver) | {"max_attribute_bytes": 1024}})
    workplace.call("forget", "langfuse")
    deliver(workplace)
    compare_all(workplace, "otel")
    few = (*FEW, "--min-days", "0")
    assert names(status(workplace, *few)) == ["content"]
    told = workplace.call("migrate", "advance", *few)
    assert told.returncode == 1
    assert "--accept attributes-cut-at-1024-bytes" in told.stdout
    assert workplace.call("migrate", "advance", *few, "--accept", "attributes-cut-at-1024-bytes").returncode == 0
    assert "accepted: attributes-cut-at-1024-bytes" in workplace.call("migrate", "history").stdout


def test_content_that_an_earlier_policy_left_out_is_in_the_way_though_the_policy_was_widened(
    workplace: Workplace, devserver: DevServer
) -> None:
    sinks = {"jsonl": {"enabled": True}, "langfuse": langfuse(devserver, policy={"include_messages": False})}
    sent = Workplace(workplace.folder / "sent", sinks, delivery="external")
    write_sessions(sent, 3)
    assert sent.call("ship").returncode == 0
    sent.configure({**sinks, "langfuse": langfuse(devserver)}, delivery="external")
    assert sent.call("ship").returncode == 0
    (verdict,) = sent.verdicts().values()
    assert (verdict["exit_code"], list(verdict["policy"].values())) == (0, [6]), "a turn and its tool, three times"
    assert names(status(sent, *FEW)) == ["policy"]
    told = sent.call("migrate", "advance", *FEW)
    assert told.returncode == 1
    assert "what it was sent has less by include_messages" in told.stdout
    assert "accept it with --accept include_messages\n" in told.stdout
    assert sent.call("migrate", "advance", *FEW, "--accept", "include_messages").returncode == 0


def test_content_that_was_recorded_before_capture_cut_it_is_in_the_way_of_switching_the_journal_off(
    workplace: Workplace, devserver: DevServer
) -> None:
    sinks = {"jsonl": {"enabled": True}, "langfuse": langfuse(devserver), "otel": otel(devserver)}
    sent = Workplace(workplace.folder / "sent", sinks, delivery="external")
    write_sessions(sent, 3)
    journal = layout.events_file(layout.session_folder(sent.trace_dir, "s1"))
    # as the original recorded it, or tracebridge with another setting
    journal.write_text(journal.read_text("utf-8").replace("answer", "answer " * 3_000), "utf-8")
    assert sent.call("ship").returncode == 0
    assert [verdict["exit_code"] for verdict in sent.verdicts().values()] == [0, 0]
    assert names(status(sent, *FEW)) == ["policy", "policy"]
    assert (
        "langfuse policy: what it was sent has less by max_content_length"
        in sent.call("migrate", "status", *FEW).stdout
    )
    assert names(status(sent, *FEW, "--off", "langfuse")) == [], "that was cut as well"
    assert sent.call("migrate", "advance", *FEW, "--accept", "max_content_length").returncode == 0


def test_content_that_was_cut_for_an_earlier_limit_is_in_the_way_though_the_limit_was_raised(
    workplace: Workplace, devserver: DevServer
) -> None:
    low = {"jsonl": {"enabled": True}, "otel": otel(devserver) | {"max_attribute_bytes": 1024}}
    sent = Workplace(workplace.folder / "sent", low, delivery="external")
    write_sessions(sent, 2)
    write_session(sent.trace_dir, "long", turns=1, tool="x" * 3_000)
    journal = layout.events_file(layout.session_folder(sent.trace_dir, "long"))
    journal.write_text(journal.read_text("utf-8").replace("question", "question " * 500), "utf-8")
    assert sent.call("ship").returncode == 0
    sent.configure({"jsonl": {"enabled": True}, "otel": otel(devserver)}, delivery="external")
    assert sent.call("ship").returncode == 0
    assert sent.verdicts()["otel"]["exit_code"] == 0
    assert names(status(sent, *FEW)) == ["content"]
    assert sent.call("migrate", "advance", *FEW, "--accept", "earlier-cuts").returncode == 0


@pytest.mark.parametrize("reason", ["", "  \t"])
def test_an_override_without_a_reason_is_none(workplace: Workplace, reason: str) -> None:
    before = workplace.config.read_bytes()
    ran = workplace.run("--config", workplace.config, "migrate", "advance", "--override", reason)
    assert (ran.returncode, workplace.config.read_bytes()) == (2, before)
    assert "say why" in ran.stderr


def test_an_override_works_and_its_reason_is_written_down_for_ever(workplace: Workplace) -> None:
    ran = workplace.call("migrate", "advance", "--override", "the disk is full")
    assert ran.returncode == 0
    assert not workplace.settings.keep_journal
    told = workplace.call("migrate", "history").stdout
    assert "overridden: the disk is full" in told
    assert "DOES NOT HOLD  langfuse sessions: 3 clean" in told
    workplace.call("forget", "langfuse")
    assert workplace.call("migrate", "history").stdout == told


def test_a_backfilled_folder_that_is_gone_is_in_the_way(workplace: Workplace, tmp_path: Path) -> None:
    write_session(tmp_path / "old", "old", turns=1)
    workplace.backfill(tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "elsewhere")
    assert names(status(workplace, *FEW)) == ["folders"]
    assert f"tracebridge forget --folder {tmp_path / 'old'}" in workplace.call("migrate", "status", *FEW).stdout


def test_a_line_that_nobody_could_read_is_in_the_way_until_it_is_out(workplace: Workplace) -> None:
    journal = layout.events_file(layout.session_folder(workplace.trace_dir, "edited"))
    workplace.record("edited")
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"event_type": "turn.start"}\n')
    os.utime(journal, (1, 1))  # before the newest validation of everything
    assert workplace.call("ship").returncode == 0
    assert workplace.call("validate", "--session", "edited").returncode == 2
    assert names(status(workplace, *FEW)) == ["compared"]
    journal.write_bytes(whole)
    os.utime(journal, (1, 1))
    assert workplace.call("ship").returncode == 0
    assert workplace.call("validate", "--session", "edited").returncode == 0
    assert names(status(workplace, *FEW)) == []


@pytest.mark.parametrize("name", ["events.jsonl.1", "events.jsonl.gz"])
def test_a_part_of_a_journal_that_was_rotated_away_is_in_the_way_until_it_is_back(
    workplace: Workplace, devserver: DevServer, name: str
) -> None:
    journal = layout.events_file(layout.session_folder(workplace.trace_dir, "rotated"))
    workplace.record("rotated")
    journal.rename(journal.with_name(name))
    assert names(status(workplace, *FEW)) == ["folders"]
    assert str(journal.with_name(name)) in workplace.call("migrate", "status", *FEW).stdout
    workplace.configure({"langfuse": langfuse(devserver, policy={"sample_rate": 1e-9})})
    assert "folders" not in names(status(workplace, *FEW)), "what it is not owed is no business of a sink"


def test_a_sink_that_cannot_be_read_back_cannot_take_the_journal_s_place_unless_another_one_does(
    workplace: Workplace, devserver: DevServer
) -> None:
    blind = otel(devserver)
    del blind["reader"]
    workplace.configure({"langfuse": langfuse(devserver), "otel": blind})
    deliver(workplace)
    assert names(status(workplace, *FEW)) == ["readable"]
    assert names(status(workplace, *FEW, "--to", "langfuse")) == []
    assert workplace.call("migrate", "status", "--to", "nobody").returncode == 2


def test_what_still_waits_of_a_sink_that_need_not_hold_everything_counts(
    workplace: Workplace, devserver: DevServer
) -> None:
    workplace.configure({"langfuse": langfuse(devserver), "otel": otel(devserver)})
    assert names(status(workplace, *FEW, "--to", "langfuse")) == ["pending"]


def test_the_way_goes_from_the_journal_alone_to_opentelemetry_alone(workplace: Workplace, devserver: DevServer) -> None:
    off = {"langfuse": langfuse(devserver, enabled=False), "otel": otel(devserver, enabled=False)}
    workplace.configure(off)
    ran = workplace.call("migrate", "advance")
    assert ran.returncode == 2
    assert "several sinks are there and switched off (langfuse, otel): say which with --on SINK" in ran.stderr
    tiers = []
    for step in (["--on", "langfuse"], [], ["--on", "otel"], []):
        if step == [] or step == ["--on", "otel"]:
            deliver(workplace)
        for sink in workplace.settings.enabled_sinks:
            compare_all(workplace, sink.name)
        ran = workplace.call("migrate", "advance", *step, *FEW)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        if step == ["--on", "otel"]:
            deliver(workplace)
            compare_all(workplace, "otel")
        tier = status(workplace)["tier"]
        tiers.append((tier["number"], tier["sinks"]))
    assert tiers == [
        (2, ["jsonl", "langfuse"]),
        (2, ["langfuse"]),
        (3, ["langfuse", "otel"]),
        (3, ["otel"]),
    ]
    assert "this is the last tier" in workplace.call("migrate", "status").stdout
    for expected in reversed([(1, ["jsonl"]), *tiers[:-1]]):
        assert workplace.call("migrate", "rollback").returncode == 0
        tier = status(workplace)["tier"]
        assert (tier["number"], tier["sinks"]) == expected
    assert load(workplace.config, {}) == workplace.settings
    assert workplace.call("migrate", "rollback").returncode == 2


def test_from_the_journal_alone_it_is_said_what_to_add(tmp_path: Path) -> None:
    alone = Workplace(tmp_path / "here", {})
    ran = alone.call("migrate", "advance")
    assert ran.returncode == 2
    assert "no backend is there to switch on; add one under `agent_trace.sinks`" in ran.stderr
    assert alone.call("migrate", "status").stdout.startswith("tier 1, JSONL: jsonl\nnext: ")


def test_nothing_is_switched_off_if_nobody_is_left(workplace: Workplace) -> None:
    assert workplace.call("migrate", "advance", *FEW).returncode == 0
    ran = workplace.call("migrate", "advance", "--off", "langfuse", "--override", "why not")
    assert ran.returncode == 2
    assert "nothing else is switched on" in ran.stderr
    assert "switched off already" in workplace.call("migrate", "advance", "--off", "jsonl").stderr
    assert "no sink called 'x'" in workplace.call("migrate", "advance", "--off", "x").stderr


def test_a_sink_whose_variables_are_missing_is_not_switched_on(workplace: Workplace) -> None:
    section = {"langfuse": {"enabled": False, "host": "http://x", "public_key": "pk", "secret_key": "${NOT_SET}"}}
    workplace.configure(section)
    before = workplace.config.read_bytes()
    ran = workplace.call("migrate", "advance")
    assert ran.returncode == 2
    assert "NOT_SET" in ran.stderr
    assert workplace.config.read_bytes() == before
    assert workplace.call("migrate", "history").stdout == "no step was made yet\n"


def test_the_mode_of_the_file_and_a_link_to_it_stay(workplace: Workplace, tmp_path: Path) -> None:
    real = tmp_path / "real.yaml"
    workplace.config.rename(real)
    real.chmod(0o640)
    workplace.config.symlink_to(real)
    assert workplace.call("migrate", "advance", *FEW).returncode == 0
    assert workplace.config.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "real.yaml"]
    assert not workplace.settings.keep_journal


def test_a_value_from_a_variable_is_refused_with_what_to_do(workplace: Workplace, devserver: DevServer) -> None:
    workplace.configure({"jsonl": {"enabled": "${KEEP:-true}"}, "langfuse": langfuse(devserver)})
    ran = workplace.call("migrate", "advance", *FEW)
    assert ran.returncode == 2
    assert "`agent_trace.sinks.jsonl.enabled`, line 5: no plain `true` or `false` stands there" in ran.stderr
    assert "write `false` there by hand" in ran.stderr
    tried = workplace.call("migrate", "advance", *FEW, "--dry-run")
    assert (tried.returncode, tried.stdout, tried.stderr) == (2, "", ran.stderr), "what is tried says what would come"
    assert workplace.call("migrate", "history").stdout == "no step was made yet\n"
