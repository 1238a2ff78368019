"""`backfill`, `ship` and `status`: what they deliver, what they say of it, and what they refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.cli.conftest import Run
from tests.delivery.file_backend import FileBackend, FileSink, settings_for, stored
from tests.delivery.rig import write_session
from tests.workplace import ROOT, Workplace, both, event_counts, journal_events, otel
from tracebridge.cli.delivery import deliver_all
from tracebridge.devserver import DevServer
from tracebridge.errors import MissingExtraError
from tracebridge.journal import layout
from tracebridge.testing import Fault
from tracebridge.testing.contract.io_watch import io_of_this_thread

HAND_WRITTEN = ROOT / "tests" / "data" / "legacy"


class UninstalledBackend(FileBackend):
    """The packages that it needs are not there."""

    def open_sink(self, settings: msgspec.Struct) -> FileSink:
        raise MissingExtraError("its packages are missing: pip install 'tracebridge[file]'")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return shutil.copytree(HAND_WRITTEN, tmp_path / "old")


@pytest.fixture
def fed(tmp_path: Path, devserver: DevServer) -> Workplace:
    """A folder with both sinks on, to which the agent has written one session."""
    workplace = Workplace(tmp_path / "fed", both(devserver), delivery="external")
    tracer = workplace.tracer()
    with tracer.trace_session("s") as session, tracer.trace_turn(session, user_input="hello"):
        session.log_thinking("well")
    tracer.shutdown()
    return workplace


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: folder / "nowhere", "there is no such folder"),
        (lambda folder: folder, "holds no `session-<id>` folder"),
        (lambda folder: HAND_WRITTEN / "session-gardener-1", f"name the folder above it, {HAND_WRITTEN}"),
        (lambda folder: HAND_WRITTEN / "session-gardener-1" / "events.jsonl", "there is no such folder"),
    ],
    ids=["missing", "empty", "one session's", "a file"],
)
def test_a_folder_that_cannot_be_backfilled_is_refused_with_what_to_do(
    run: Run, workplace: Workplace, tmp_path: Path, make: object, said: str
) -> None:
    assert callable(make)
    ran = run("--config", workplace.config, "backfill", make(tmp_path))
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("tracebridge: ")
    assert said in ran.err
    assert len(ran.err.splitlines()) == 1


def test_a_refused_folder_is_not_remembered(run: Run, workplace: Workplace, tmp_path: Path) -> None:
    run("--config", workplace.config, "backfill", tmp_path)
    told = json.loads(run("--config", workplace.config, "status", "--json").out)
    assert [journal["folder"] for journal in told["journals"]] == [str(workplace.trace_dir)]


@pytest.mark.parametrize("command", [("ship",), ("validate",), ("backfill", HAND_WRITTEN)])
def test_a_sink_that_is_not_there_is_refused_and_those_that_are_named(
    run: Run, workplace: Workplace, command: tuple[str | Path, ...]
) -> None:
    ran = run("--config", workplace.config, *command, "--sink", "langfus")
    assert (ran.code, ran.out) == (2, "")
    assert "no sink called 'langfus' is switched on (switched on: langfuse)" in ran.err


@pytest.mark.parametrize("command", [("validate",), ("backfill", HAND_WRITTEN)])
def test_a_configuration_without_a_sink_has_nowhere_to_deliver_to(run: Run, command: tuple[str | Path, ...]) -> None:
    ran = run(*command)
    assert (ran.code, ran.out) == (2, "")
    assert "nowhere to deliver to" in ran.err


def test_a_sink_that_cannot_be_read_back_cannot_be_validated(
    run: Run, workplace: Workplace, devserver: DevServer
) -> None:
    workplace.configure({"otel": {"endpoint": devserver.url}})
    ran = run("--config", workplace.config, "validate")
    assert (ran.code, ran.err) == (2, "")
    assert "otel: NOT EVERYTHING COULD BE COMPARED" in ran.out
    assert "needs `reader:`" in ran.out


def test_backfill_accounts_for_what_it_delivered_as_text_and_as_json(
    run: Run, old: Path, tmp_path: Path, devserver: DevServer
) -> None:
    workplace = Workplace(tmp_path / "here", both(devserver))
    first = run("--config", workplace.config, "backfill", old, "--sink", "otel")
    assert (first.code, first.out.splitlines()[0]) == (0, f"3 sessions in {old}")
    assert "otel: 26 spans of 45 events delivered" in first.out
    assert "langfuse" not in first.out

    second = run("--config", workplace.config, "backfill", old, "--json")
    told = json.loads(second.out)
    assert {"sessions", "runs", "turns", "events", "broken", "unread", "sinks"} <= set(told)
    keys = {"sink", "endpoint", "spans", "found", "events", "dead", "left", "left_is_exact", "trouble"}
    assert [set(sink) for sink in told["sinks"]] == [keys, keys]
    assert {sink["sink"]: sink["spans"] for sink in told["sinks"]} == {"langfuse": 26, "otel": 0}


def test_ship_delivers_and_then_has_nothing_new(run: Run, fed: Workplace) -> None:
    ran = run("--config", fed.config, "ship")
    assert (ran.code, ran.err) == (0, "")
    assert "langfuse: 3 spans of 5 events delivered to" in ran.out
    again = run("--config", fed.config, "ship", "--json")
    assert again.code == 0
    assert [sink["spans"] for sink in json.loads(again.out)] == [0, 0]


def test_ship_gives_up_on_a_backend_that_is_away_says_so_and_leaves_the_rest_for_later(
    run: Run, fed: Workplace, devserver: DevServer
) -> None:
    devserver.faults.add(Fault(route="POST /v1/traces", status=503))
    ran = run("--config", fed.config, "ship", "--patience", "0.5", "--json")
    told = {sink["sink"]: sink for sink in json.loads(ran.out)}
    assert ran.code == 1
    assert (told["langfuse"]["left"], told["langfuse"]["trouble"]) == (0, "")
    assert told["otel"]["left"] == 5
    assert "503" in told["otel"]["trouble"]

    devserver.faults.clear()
    assert run("--config", fed.config, "ship").code == 0
    assert run("--config", fed.config, "validate").code == 0


def test_status_agrees_with_the_journal_before_and_after_delivery(
    run: Run, fed: Workplace, old: Path, devserver: DevServer
) -> None:
    def status() -> dict[str, dict[str, Any]]:
        told = json.loads(run("--config", fed.config, "status", "--json").out)
        journals = {journal["folder"]: journal for journal in told["journals"]}
        return {**journals, **{sink["name"]: sink for sink in told["sinks"]}}

    size = layout.events_file(fed.trace_dir / "session-s").stat().st_size
    before = status()
    nothing_wrong = {"is_gone": False, "broken_lines": 0, "lost_events": {}, "apart": []}
    assert before[str(fed.trace_dir)] == {
        "folder": str(fed.trace_dir),
        "sessions": 1,
        "bytes": size,
        **nothing_wrong,
    }
    for sink in ("langfuse", "otel"):
        assert (before[sink]["state"], before[sink]["unread_bytes"]) == ("never shipped", size)

    run("--config", fed.config, "backfill", old, "--sink", "langfuse")
    after = status()
    events = event_counts(fed.trace_dir).total() + event_counts(old).total()
    old_bytes = sum(file.stat().st_size for file in old.rglob("events.jsonl"))
    one_broken = {"is_gone": False, "broken_lines": 1, "lost_events": {}, "apart": []}
    assert after[str(old)] == {
        "folder": str(old),
        "sessions": len(journal_events(old)),
        "bytes": old_bytes,
        **one_broken,
    }
    assert (after["langfuse"]["events"]["confirmed"], after["langfuse"]["events"]["written"]) == (events, events)
    assert after["langfuse"]["delivered_spans"] == 3 + 26
    assert (after["langfuse"]["unread_bytes"], after["langfuse"]["in_flight_spans"]) == (0, 0)
    assert (after["langfuse"]["state"], after["langfuse"]["shipper_pid"]) == ("idle", None)
    assert after["otel"]["unread_bytes"] == size + old_bytes
    told = json.loads(run("--config", fed.config, "status", "--json").out)
    (broken,) = told["problems"]
    assert broken.startswith(f"{old / 'session-gardener-2' / 'events.jsonl'}: byte ")


def test_status_for_people_names_each_sink_and_its_trouble(run: Run, fed: Workplace, devserver: DevServer) -> None:
    devserver.faults.add(Fault(route="POST /v1/traces", status=401))
    assert run("--config", fed.config, "ship", "--patience", "0.2").code == 1
    ran = run("--config", fed.config, "status")
    assert ran.code == 0
    assert f"langfuse -> {devserver.url} as {devserver.public_key}: idle" in ran.out
    assert f"otel -> {devserver.url}/v1/traces: paused (" in ran.out
    assert "in flight 3 spans" in ran.out


def test_a_state_that_is_not_ours_is_named_without_a_traceback(run: Run, fed: Workplace) -> None:
    layout.state_file(fed.trace_dir).parent.mkdir(parents=True, exist_ok=True)
    layout.state_file(fed.trace_dir).write_bytes(b"not a database" * 100)
    for command in (("status",), ("ship", "--patience", "0.1"), ("validate",)):
        ran = run("--config", fed.config, *command)
        assert (ran.code, ran.out) == (2, ""), command
        assert str(layout.state_file(fed.trace_dir)) in ran.err
        assert len(ran.err.splitlines()) == 1


def test_validate_as_json_has_a_verdict_for_each_sink(run: Run, fed: Workplace, devserver: DevServer) -> None:
    fed.configure({"otel": otel(devserver), "again": {"type": "otel", **otel(devserver)}}, delivery="external")
    run("--config", fed.config, "ship", "--sink", "otel")
    ran = run("--config", fed.config, "validate", "--sink", "otel", "--json")
    (verdict,) = json.loads(ran.out)
    assert ran.code == verdict["exit_code"] == 0
    assert set(verdict) == {
        "exit_code", "counts", "sink", "endpoint", "sessions", "spans", "expected", "observed", "equal", "losses",
        "findings", "uncompared", "policy", "server_computed", "scope", "drawn_from", "known_clean", "resent",
        "began_ns", "ended_ns",
    }  # fmt: skip
    assert verdict["spans"] == {"session": 1, "turn": 1, "thinking": 1}


def test_without_a_sink_there_is_nothing_to_ship_and_nothing_wrong(run: Run) -> None:
    """JSONL alone is a way to work, and scripts that ship go on working in it."""
    ran = run("ship")
    assert (ran.code, ran.err) == (0, "")
    assert "nothing to deliver" in ran.out
    assert run("ship", "--json").out == "[]\n"


def test_while_everything_is_delivered_nobody_counts_what_is_left(tmp_path: Path) -> None:
    """Counting reads the journals once more, again and again, and keeps the threads that ship from their work."""
    settings = settings_for(tmp_path / "traces", FileBackend(max_request_spans=2), tmp_path / "sink")
    for name in "abc":
        write_session(settings.trace_dir, name)
    with io_of_this_thread() as seen:
        # half a second between two requests, which is how long the command waits between two looks
        (delivered,) = deliver_all(settings, 60.0, max_rps=6)
    assert (delivered.left, delivered.trouble) == (0, "")
    assert len(stored(tmp_path / "sink")) == delivered.spans > 12
    assert not [event for event in seen if "events.jsonl" in event]


def test_what_a_sink_leaves_that_cannot_work_is_counted_once_the_others_have_everything(tmp_path: Path) -> None:
    settings = settings_for(tmp_path / "traces", FileBackend(), tmp_path / "fine")
    (sink,) = settings.sinks
    missing = msgspec.structs.replace(sink, name="missing", sink_type=UninstalledBackend())
    settings = msgspec.structs.replace(settings, sinks=(sink, missing))
    write_session(settings.trace_dir, "a")
    taken, left = deliver_all(settings, 60.0)
    assert (taken.left, taken.spans) == (0, len(stored(tmp_path / "fine")))
    assert left.left == event_counts(settings.trace_dir).total()
    assert "pip install" in left.trouble
