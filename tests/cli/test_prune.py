"""`prune` and `forget`: what goes, what stays and why, as a person or a script sees it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.delivery.rig import write_session
from tests.workplace import Workplace, langfuse
from tracebridge.devserver import DevServer
from tracebridge.testing import Fault

INGESTION = "POST /api/public/otel/v1/traces"


@pytest.fixture
def delivered(tmp_path: Path, devserver: DevServer) -> Workplace:
    """Two old sessions, both delivered, and one that is a moment old."""
    workplace = Workplace(tmp_path / "here", {"langfuse": langfuse(devserver)})
    for name in ("a", "b"):
        old(write_session(workplace.trace_dir, name))
    write_session(workplace.trace_dir, "young")
    assert workplace.call("ship").returncode == 0
    return workplace


def old(events: Path) -> Path:
    then = time.time() - 40 * 86_400
    os.utime(events, (then, then))
    return events


def sessions(workplace: Workplace) -> list[str]:
    return sorted(path.name for path in workplace.trace_dir.glob("session-*"))


def test_old_sessions_that_the_sink_shows_are_deleted(delivered: Workplace) -> None:
    told = delivered.call("prune", "--older-than", "30d", "--dry-run")
    assert (told.returncode, told.stdout.split(",")[0]) == (0, "2 sessions would be deleted")
    assert len(sessions(delivered)) == 3
    ran = delivered.call("prune", "--older-than", "30d")
    assert (ran.returncode, ran.stdout.split(",")[0]) == (0, "2 sessions deleted")
    assert sessions(delivered) == ["session-young"]
    assert delivered.call("ship").stdout.startswith("langfuse: nothing new delivered")


def test_a_session_that_is_entered_again_after_it_was_pruned_is_clean(delivered: Workplace) -> None:
    delivered.record("entered-again")
    assert delivered.call("ship").returncode == 0
    assert delivered.call("prune", "--older-than", "0s").returncode == 0
    assert sessions(delivered) == []
    delivered.record("entered-again")
    assert delivered.call("ship").returncode == 0
    verdict = delivered.verdicts()["langfuse"]
    assert (verdict["exit_code"], verdict["counts"], verdict["sessions"]) == (0, {}, 1)


def test_a_session_that_is_entered_again_after_its_own_project_pruned_it_is_clean_where_it_is_backfilled(
    delivered: Workplace, tmp_path: Path
) -> None:
    other = Workplace(tmp_path / "other", {"jsonl": {"enabled": True}}, delivery="external")
    other.record("entered-again")
    delivered.backfill(other.trace_dir)
    assert other.call("prune", "--older-than", "0s").returncode == 0
    other.record("entered-again")
    assert delivered.call("ship").returncode == 0
    verdict = delivered.verdicts()["langfuse"]
    assert (verdict["exit_code"], verdict["counts"], verdict["sessions"]) == (0, {}, 4)


def test_what_has_to_stay_is_named_and_the_exit_code_says_so(delivered: Workplace, devserver: DevServer) -> None:
    devserver.faults.add(Fault(route=INGESTION, status=503))
    old(write_session(delivered.trace_dir, "undelivered"))
    ran = delivered.call("prune", "--older-than", "30d", "--json")
    told = json.loads(ran.stdout)
    assert ran.returncode == 1
    assert told["sessions"] == ["a", "b"]
    assert told["refused"] == [{"session": "undelivered", "reason": "not all of it is delivered to langfuse"}]
    assert "kept undelivered: not all of it is delivered" in delivered.call("prune", "--older-than", "30d").stdout


def test_what_the_backend_lost_after_all_is_kept(delivered: Workplace, devserver: DevServer) -> None:
    devserver.clear()
    ran = delivered.call("prune", "--older-than", "30d")
    assert ran.returncode == 1
    assert ran.stdout.count("do not show at langfuse") == 2
    assert len(sessions(delivered)) == 3


@pytest.mark.parametrize("age", ["30", "d", "-1d", "1y", ""])
def test_an_age_that_is_none_is_refused_with_examples(run: Run, age: str) -> None:
    ran = run("prune", f"--older-than={age}")
    assert ran.code == 2
    assert "such as 30d" in ran.err


def test_a_sink_that_is_switched_off_is_named_and_can_be_forgotten(delivered: Workplace, devserver: DevServer) -> None:
    devserver.faults.add(Fault(route=INGESTION, status=503))
    old(write_session(delivered.trace_dir, "pending"))
    assert delivered.call("ship", "--patience", "0.1").returncode == 1

    delivered.configure({"langfuse": {**langfuse(devserver), "enabled": False}})
    told = delivered.call("status").stdout
    assert f"langfuse -> {devserver.url} as {devserver.public_key}: switched off" in told
    assert "10 events in flight" in told or "14 events in flight" in told
    ran = delivered.call("prune", "--older-than", "30d")
    assert ran.returncode == 1
    assert "switched off: switch it on, or `tracebridge forget` it" in ran.stdout

    backend = f"{devserver.url} as {devserver.public_key}"
    assert delivered.call("forget", "langfuse").stdout == f"langfuse -> {backend}: forgotten\n"
    assert "switched off" not in delivered.call("status").stdout
    assert delivered.call("prune", "--older-than", "30d").returncode == 0
    assert sessions(delivered) == ["session-young"]


def test_a_sink_that_is_switched_on_cannot_be_forgotten(delivered: Workplace) -> None:
    ran = delivered.call("forget", "langfuse")
    assert ran.returncode == 2
    assert "it is switched on" in ran.stderr
    ran = delivered.call("forget", "unheard-of")
    assert "nothing was delivered to it" in ran.stderr
