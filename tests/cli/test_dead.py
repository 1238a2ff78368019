"""`dead` and `status`: what was refused and why, as a person or a script sees it, and what can be done about it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.delivery.rig import write_session
from tests.workplace import Workplace, langfuse, otel
from tracebridge.devserver import DevServer
from tracebridge.testing import Fault

INGESTION = "POST /api/public/otel/v1/traces"


@pytest.fixture
def refused(tmp_path: Path, devserver: DevServer) -> Workplace:
    """One session of three spans, all of which LangFuse refused."""
    workplace = Workplace(tmp_path / "here", {"langfuse": langfuse(devserver)})
    write_session(workplace.trace_dir, "a", turns=1)
    devserver.faults.add(Fault(route=INGESTION, status=400, body="no such project"))
    assert workplace.call("ship").returncode == 1
    devserver.faults.clear()
    return workplace


def listed(run: Run, workplace: Workplace, *options: str) -> list[dict[str, object]]:
    ran = run("--config", workplace.config, "dead", "list", "--json", *options)
    assert ran.code == 0
    found: list[dict[str, object]] = json.loads(ran.out)
    return found


def test_the_list_tells_which_spans_and_why(run: Run, refused: Workplace) -> None:
    letters = listed(run, refused)
    assert [(one["sink"], one["session_id"], one["events"]) for one in letters] == [("langfuse", "a", 2)] * 3
    assert all("no such project" in str(one["reason"]) for one in letters)
    told = run("--config", refused.config, "dead", "list").out
    assert "HTTP 400: no such project" in told
    assert listed(run, refused, "--reason", "project") == letters
    assert listed(run, refused, "--reason", "something else") == []


def test_one_can_be_looked_at_with_its_content(run: Run, refused: Workplace) -> None:
    number = str(listed(run, refused)[0]["id"])
    (shown,) = json.loads(run("--config", refused.config, "dead", "show", number, "--json").out)
    assert shown["span"]["name"] == "search"
    assert shown["encoded"]
    assert '"name": "search"' in run("--config", refused.config, "dead", "show", number).out


def test_what_is_retried_is_delivered_by_the_next_ship_and_validates(run: Run, refused: Workplace) -> None:
    ran = run("--config", refused.config, "dead", "retry", "--reason", "no such project")
    assert (ran.code, ran.out.split(" ")[0]) == (0, "3")
    assert run("--config", refused.config, "ship").code == 0
    assert listed(run, refused) == []
    assert run("--config", refused.config, "validate").code == 0


def test_what_is_discarded_is_gone_and_counted(run: Run, refused: Workplace) -> None:
    number = str(listed(run, refused)[0]["id"])
    assert run("--config", refused.config, "dead", "discard", number).out.startswith("1 dead letters are given up")
    assert len(listed(run, refused)) == 2
    (sink,) = json.loads(run("--config", refused.config, "status", "--json").out)["sinks"]
    assert (sink["discarded_spans"], sink["dead_spans"]) == (1, 2)
    places = ("confirmed", "in_flight", "unread", "open", "dead", "discarded", "left_out")
    assert sum(sink["events"][place] for place in places) == sink["events"]["written"] == 6


@pytest.mark.parametrize("command", ["retry", "discard"])
def test_nothing_is_changed_before_it_is_said_which_are_meant(run: Run, refused: Workplace, command: str) -> None:
    ran = run("--config", refused.config, "dead", command)
    assert ran.code == 2
    assert "say which" in ran.err
    ran = run("--config", refused.config, "dead", command, "4711")
    assert (ran.code, "no dead letter 4711" in ran.err) == (2, True)
    assert len(listed(run, refused)) == 3
    assert run("--config", refused.config, "dead", command, "--all").out.startswith("3 ")


def test_status_tells_why_spans_were_refused_and_what_a_switched_off_sink_is(
    run: Run, refused: Workplace, devserver: DevServer
) -> None:
    told = run("--config", refused.config, "status").out
    assert "HTTP 400: no such project" in told
    assert "delivered 0 spans of 0 of 6 events" in told
    refused.configure({"langfuse": langfuse(devserver), "otel": otel(devserver) | {"enabled": False}})
    sinks = json.loads(run("--config", refused.config, "status", "--json").out)["sinks"]
    assert [(sink["name"], sink["enabled"], sink["state"]) for sink in sinks] == [
        ("langfuse", True, "idle"),
        ("otel", False, "switched off"),
    ]


def test_status_says_until_when_a_sink_is_left_alone_and_how_old_its_oldest_event_is(
    run: Run, tmp_path: Path, devserver: DevServer
) -> None:
    workplace = Workplace(tmp_path / "there", {"langfuse": langfuse(devserver)})
    write_session(workplace.trace_dir, "a", turns=1, at="2026-02-06T22:10:00Z")
    devserver.faults.add(Fault(route=INGESTION, status=503, headers={"retry-after": "60"}))
    assert run("--config", workplace.config, "ship", "--patience", "0.1").code == 1
    (sink,) = json.loads(run("--config", workplace.config, "status", "--json").out)["sinks"]
    assert (sink["state"], "503" in sink["detail"]) == ("backing off", True)
    assert sink["until"] > sink["since"]
    assert sink["events"]["in_flight"] == 6
    told = run("--config", workplace.config, "status").out
    assert f"tried again at {sink['until']}" in told
    assert "oldest" in told


def test_status_says_that_a_sink_waits_for_a_backend_that_cannot_be_read(
    run: Run, tmp_path: Path, devserver: DevServer
) -> None:
    workplace = Workplace(tmp_path / "there", {"langfuse": langfuse(devserver)})
    assert run("--config", workplace.config, "ship").code == 0  # nothing, so that it was idle
    write_session(tmp_path / "old", "a", turns=1, at="2026-02-06T22:10:00Z")
    devserver.faults.add(Fault(route="GET *", status=401))
    assert run("--config", workplace.config, "backfill", tmp_path / "old", "--patience", "0.1").code == 1
    (sink,) = json.loads(run("--config", workplace.config, "status", "--json").out)["sinks"]
    assert (sink["state"], "cannot be read: HTTP 401" in sink["detail"]) == ("waiting", True)
    assert sink["events"]["unread"] == 6

    devserver.faults.clear()
    assert run("--config", workplace.config, "ship").code == 0
    (sink,) = json.loads(run("--config", workplace.config, "status", "--json").out)["sinks"]
    assert (sink["state"], sink["events"]["confirmed"]) == ("idle", 6)


def test_a_backend_that_could_not_be_read_for_a_moment_is_no_trouble_once_everything_is_delivered(
    run: Run, tmp_path: Path, devserver: DevServer
) -> None:
    workplace = Workplace(tmp_path / "there", {"langfuse": langfuse(devserver)})
    write_session(tmp_path / "old", "a", turns=1, at="2026-02-06T22:10:00Z")
    devserver.faults.add(Fault(route="GET *", status=401, times=1))
    ran = run("--config", workplace.config, "backfill", tmp_path / "old", "--json")
    (sink,) = json.loads(ran.out)["sinks"]
    assert (ran.code, sink["spans"], sink["left"], sink["trouble"]) == (0, 3, 0, "")
