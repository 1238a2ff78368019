"""`backfill`: what it counts before it sends, what it takes and leaves out, and what it tells of an old folder."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.delivery.rig import write_session
from tests.waiting import until
from tests.workplace import (
    COMMAND_TIMEOUT_S,
    ROOT,
    Workplace,
    answer_of,
    both,
    langfuse,
    otel,
    sent_requests,
    tree_digest,
)
from tracebridge.cli.times import time_given
from tracebridge.delivery.lock import shipper_lock
from tracebridge.devserver import DevServer
from tracebridge.journal import layout
from tracebridge.sink import Query
from tracebridge.testing import Fault

HAND_WRITTEN = ROOT / "tests" / "data" / "legacy"
LANGFUSE_ROUTE, OTLP_ROUTE = "POST /api/public/otel/v1/traces", "POST /v1/traces"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return shutil.copytree(HAND_WRITTEN, tmp_path / "old")


@pytest.fixture
def here(tmp_path: Path, devserver: DevServer) -> Workplace:
    return Workplace(tmp_path / "here", both(devserver), max_content_length=None)


def told_of(place: Workplace, *arguments: str | Path) -> dict[str, Any]:
    return answer_of(place.call("backfill", *arguments, "--json"))


def observed_sessions(place: Workplace, sink: str = "langfuse") -> set[str]:
    return {span.session_id for span in place.observed(sink)}


# --- dry run ----------------------------------------------------------------------------------------------------------


def test_a_dry_run_counts_what_is_then_sent_and_sends_and_writes_nothing(
    here: Workplace, old: Path, devserver: DevServer, tmp_path: Path
) -> None:
    before = tree_digest(tmp_path)
    dry = told_of(here, old, "--dry-run", "--max-rps", "0.5")
    assert (devserver.requests, tree_digest(tmp_path)) == ({}, before)
    assert not here.trace_dir.exists()

    done = told_of(here, old)
    assert {key: dry[key] for key in done if key != "sinks"} == {key: done[key] for key in done if key != "sinks"}
    requests = sent_requests(devserver)
    for counted, sent in zip(dry["sinks"], done["sinks"], strict=True):
        assert (counted["sink"], counted["spans"], counted["events"]) == (sent["sink"], sent["spans"], sent["events"])
        route = LANGFUSE_ROUTE if counted["sink"] == "langfuse" else OTLP_ROUTE
        assert counted["requests"] == requests[route]
        assert counted["seconds"] == counted["requests"] / 0.5
        assert counted["bytes"] > 10_000
        assert counted["traces"] == len({span.trace_id for span in here.observed(counted["sink"])})
    units = {counted["sink"]: counted["units"] for counted in dry["sinks"]}
    assert units == {"langfuse": dry["sinks"][0]["traces"] + dry["sinks"][0]["spans"], "otel": None}


def test_a_dry_run_after_a_backfill_counts_what_is_left_and_leaves_the_state_alone(
    here: Workplace, old: Path, devserver: DevServer
) -> None:
    told_of(here, old, "--sink", "otel")
    sent, before = dict(devserver.requests), tree_digest(here.trace_dir)
    dry = told_of(here, old, "--dry-run")
    assert {counted["sink"]: counted["spans"] for counted in dry["sinks"]} == {"langfuse": 26, "otel": 0}
    assert (dict(devserver.requests), tree_digest(here.trace_dir)) == (sent, before)


def test_a_dry_run_tells_people_what_it_would_come_to(run: Run, here: Workplace, old: Path) -> None:
    ran = run("--config", here.config, "backfill", old, "--dry-run", "--max-rps", "0.01")
    assert ran.code == 0
    assert "langfuse: 26 spans of 45 events in 9 traces would be sent to http" in ran.out
    assert "  1 requests, 2 min at 0.01 a second, " in ran.out
    assert "  35 billable units" in ran.out
    assert "nothing was sent" in ran.out


# --- some of it -------------------------------------------------------------------------------------------------------


@pytest.fixture
def months(tmp_path: Path) -> Path:
    """Sessions of three months; that of January goes on in March."""
    for month in (1, 2, 3):
        write_session(tmp_path / "old", f"month-{month}", turns=1, at=f"2026-{month:02d}-10T00:00:00Z")
    write_session(tmp_path / "old", "month-1", turns=1, at="2026-03-01T00:00:00Z", run_id="run-2")
    return tmp_path / "old"


@pytest.mark.parametrize(
    ("window", "taken"),
    [
        (("--since", "2026-02"), {"month-2", "month-3"}),
        (("--until", "2026-02"), {"month-1"}),
        (("--since", "2026-02-10", "--until", "2026-03-10T00:00:00+00:00"), {"month-2"}),
        (("--since", "2026-04"), set()),
    ],
    ids=["since", "until", "both", "nothing"],
)
def test_whole_sessions_that_began_in_the_window_are_sent_now_and_later_and_validated(
    here: Workplace, months: Path, devserver: DevServer, window: tuple[str, ...], taken: set[str]
) -> None:
    told = told_of(here, months, *window)
    assert (told["sessions"], told["left_out"]) == (len(taken), 3 - len(taken))
    assert [counted["spans"] for counted in told_of(here, months, *window, "--dry-run")["sinks"]] == [0, 0]
    assert here.call("ship").returncode == 0
    assert observed_sessions(here) == taken
    assert {verdict["sessions"] for verdict in here.verdicts().values()} == {len(taken)}


@pytest.mark.parametrize(
    ("window", "taken"),
    [
        ((), {"year 1", "year 9999"}),
        (("--since", "2026-02"), {"year 9999"}),
        (("--until", "2026-02"), {"year 1"}),
    ],
    ids=["all", "since", "until"],
)
def test_a_session_of_any_time_is_in_a_window_without_an_end_on_its_side(
    here: Workplace, tmp_path: Path, window: tuple[str, ...], taken: set[str]
) -> None:
    for year in (1, 9999):
        write_session(tmp_path / "old", f"year {year}", turns=1, at=f"{year:04d}-03-10T00:00:00Z")
    told = told_of(here, tmp_path / "old", *window)
    assert (told["sessions"], told["left_out"]) == (len(taken), 2 - len(taken))
    everything = Query(start_ns=0, end_ns=2**63)
    assert {span.session_id for span in here.observed("langfuse", everything)} == taken


def test_another_window_adds_to_the_first(here: Workplace, months: Path) -> None:
    told_of(here, months, "--until", "2026-02")
    told_of(here, months, "--since", "2026-03")
    assert observed_sessions(here) == {"month-1", "month-3"}
    assert {verdict["exit_code"] for verdict in here.verdicts().values()} == {0}


def test_the_trace_folder_itself_has_no_window_for_live_delivery_sends_all_of_it(here: Workplace, months: Path) -> None:
    shutil.copytree(months, here.trace_dir)
    ran = here.call("backfill", here.trace_dir, "--since", "2026-02")
    assert ran.returncode == 2
    assert "--since and --until cannot be used with it" in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--since", "yesterday"), "'yesterday' is no time"),
        (("--since", "2026-02", "--until", "2026-02-01"), "--until must be later than --since"),
        (("--max-rps", "0"), "'0' is no rate"),
        (("--max-rps", "fast"), "'fast' is no rate"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    run: Run, here: Workplace, old: Path, arguments: tuple[str, ...], said: str
) -> None:
    ran = run("--config", here.config, "backfill", old, *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


def test_times_may_be_given_short() -> None:
    assert time_given("2026-02") == time_given("2026-02-01") == time_given("2026-02-01T01:00:00+01:00")


# --- what is odd ------------------------------------------------------------------------------------------------------


def test_what_is_odd_in_an_old_folder_is_kept_counted_and_told(run: Run, here: Workplace, tmp_path: Path) -> None:
    old = tmp_path / "old"
    write_session(old / "2026-01", "a", turns=1)
    path = write_session(old / "2026-02", "b", turns=1)
    lines = path.read_text().splitlines()
    voice = json.dumps({**json.loads(lines[1]), "event_type": "voice.note"})
    path.write_text("\n".join([*lines[:2], "", '{"timestamp": "2026', voice, *lines[2:]]) + "\n")
    compressed = old / "2026-02" / "session-c" / "events.jsonl.gz"
    compressed.parent.mkdir()
    compressed.write_bytes(b"\x1f\x8b")
    before = tree_digest(old)

    ran = run("--config", here.config, "backfill", old)
    assert ran.code == 1, "something could not be read"
    assert f"2 sessions in {old}" in ran.out
    assert f"folders   {old / '2026-01'}" in ran.out
    assert "blank     1 lines" in ran.out
    assert "unknown   1 events of type 'voice.note'" in ran.out
    assert f"{path}, line 4: not JSON" in ran.out
    assert f"not read  {compressed}: compressed: unpack it to events.jsonl first" in ran.out
    assert observed_sessions(here) == {"a", "b"}
    assert tree_digest(old) == before

    told = json.loads(run("--config", here.config, "backfill", old, "--json").out)
    assert (told["sessions"], told["blank_lines"], told["unknown_types"]) == (2, 1, {"voice.note": 1})
    assert [(line["file"], line["line"]) for line in told["broken"]] == [(str(path), 4)]
    assert [unread["path"] for unread in told["unread"]] == [str(compressed)]


def test_a_folder_with_nothing_readable_says_so_and_ends_with_1(run: Run, here: Workplace, tmp_path: Path) -> None:
    compressed = tmp_path / "old" / "session-a" / "events.jsonl.gz"
    compressed.parent.mkdir(parents=True)
    compressed.write_bytes(b"\x1f\x8b")
    ran = run("--config", here.config, "backfill", tmp_path / "old")
    assert ran.code == 1
    assert f"not read  {compressed}: compressed" in ran.out


def test_old_and_new_sessions_in_one_folder_arrive_alike(here: Workplace, old: Path, tmp_path: Path) -> None:
    tracer = Workplace(tmp_path / "writer", {}, trace_dir=str(old)).tracer()
    with tracer.trace_session("new") as session, tracer.trace_turn(session, user_input="hello"):
        session.log_thinking("well")
    tracer.shutdown()
    shutil.rmtree(layout.state_folder(old))
    told = told_of(here, old)
    assert (told["sessions"], told["events"], told["old_events"]) == (4, 45 + 5, 45)
    for verdict in here.verdicts().values():
        assert (verdict["exit_code"], verdict["sessions"], verdict["equal"]) == (0, 4, 26 + 3)


# --- how fast, and stopped half way -----------------------------------------------------------------------------------


def many(folder: Path, sessions: int = 8) -> Path:
    """So much that each sink needs several requests."""
    for number in range(sessions):
        path = write_session(folder, f"s-{number}", turns=4, at="2026-02-06T22:10:00Z")
        path.write_text(path.read_text().replace("answer", "answer " * 40_000))
    return folder


def test_progress_is_told_in_lines_where_there_is_no_terminal(here: Workplace, tmp_path: Path) -> None:
    old = many(tmp_path / "old")
    ran = here.run("backfill", old, "--sink", "otel", "--max-rps", "4", "--progress", "0.5", "--json")
    lines = [line for line in ran.stderr.splitlines() if line.startswith("delivering: ")]
    assert answer_of(ran)["sinks"][0]["left"] == 0
    assert len(lines) >= 2
    assert all(line.partition(" bytes (")[2] for line in lines), lines
    assert any(line.endswith(" left") for line in lines), lines


def start_and_wait_for_requests(here: Workplace, devserver: DevServer, old: Path) -> subprocess.Popen[str]:
    """A slow backfill to LangFuse of which some requests, and not all, have been sent."""
    line = ("backfill", old, "--sink", "langfuse", "--max-rps", "1", "--json")
    # where the tests run in the background the signal is ignored, and so would the program
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        program = here.start(*line, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        until(lambda: devserver.requests.get(LANGFUSE_ROUTE, 0) >= 2, "some requests come in")
    except BaseException:
        program.kill()
        program.communicate()
        raise
    return program


def check_complete_and_without_repeats(here: Workplace, sessions: int) -> None:
    spans = here.observed("langfuse")
    ids = [(span.trace_id, span.span_id) for span in spans]
    assert len(ids) == len(set(ids)) == sessions * 9
    (verdict,) = here.verdicts("--sink", "langfuse").values()
    assert (verdict["exit_code"], verdict["expected"]) == (0, sessions * 9)


def test_killed_in_the_middle_and_run_again_it_repeats_nothing_and_misses_nothing(
    here: Workplace, devserver: DevServer, tmp_path: Path
) -> None:
    old = many(tmp_path / "old")
    with start_and_wait_for_requests(here, devserver, old) as program:
        program.kill()
        program.communicate(timeout=COMMAND_TIMEOUT_S)
    assert 0 < len(here.observed("langfuse")) < 8 * 9
    assert told_of(here, old, "--sink", "langfuse")["sinks"][0]["left"] == 0
    check_complete_and_without_repeats(here, 8)


def test_ctrl_c_tells_what_was_done_and_how_to_go_on(here: Workplace, devserver: DevServer, tmp_path: Path) -> None:
    old = many(tmp_path / "old")
    with start_and_wait_for_requests(here, devserver, old) as program:
        program.send_signal(signal.SIGINT)
        out, err = program.communicate(timeout=COMMAND_TIMEOUT_S)
    (sink,) = json.loads(out)["sinks"]
    assert program.returncode == 130
    assert "run the same command again to go on" in err
    assert "Traceback" not in err
    assert sink["spans"] > 0
    assert sink["left"] > 0
    assert told_of(here, old, "--sink", "langfuse")["sinks"][0]["left"] == 0
    check_complete_and_without_repeats(here, 8)


def test_a_limit_holds_for_each_sink_by_itself_also_while_a_backend_fails(
    here: Workplace, devserver: DevServer, tmp_path: Path
) -> None:
    old = many(tmp_path / "old", sessions=4)
    devserver.faults.add(Fault(route=OTLP_ROUTE, status=503, times=1))
    began = time.monotonic()
    told = told_of(here, old, "--max-rps", "2")
    most = 2 * (time.monotonic() - began) + 1
    assert [sink["left"] for sink in told["sinks"]] == [0, 0]
    for route in (LANGFUSE_ROUTE, OTLP_ROUTE):
        assert 4 <= devserver.requests[route] <= most


def test_a_limit_is_refused_where_another_process_sends_without_one(
    here: Workplace, devserver: DevServer, old: Path
) -> None:
    here.configure(both(devserver), delivery="external")
    with here.start("ship", "--follow", stderr=subprocess.PIPE) as follower:
        lock = shipper_lock(here.trace_dir, "otel")
        until(lambda: lock.holder() is not None, "the follower has the sink")
        ran = here.call("backfill", old, "--sink", "otel", "--max-rps", "5")
        follower.terminate()
        follower.communicate(timeout=COMMAND_TIMEOUT_S)
    assert ran.returncode == 2
    assert f"process {follower.pid} delivers to otel already, and keeps to no limit" in ran.stderr
    assert here.observed("otel") == []


# --- what is delivered live -------------------------------------------------------------------------------------------


def test_a_folder_that_is_followed_live_is_not_sent_twice_by_a_backfill_of_it(
    here: Workplace, devserver: DevServer
) -> None:
    here.configure(both(devserver), delivery="external")
    for number in range(3):
        write_session(here.trace_dir, f"s-{number}", turns=2)
    with here.start("ship", "--follow", stderr=subprocess.PIPE) as follower:
        told = told_of(here, here.trace_dir)
        assert [sink["left"] for sink in told["sinks"]] == [0, 0]
        follower.terminate()
        follower.communicate(timeout=COMMAND_TIMEOUT_S)
    assert {sink: len(here.observed(sink)) for sink in ("langfuse", "otel")} == {"langfuse": 15, "otel": 15}


def test_a_copy_of_the_live_folder_is_not_sent_again_whether_the_backend_can_be_read_or_not(
    here: Workplace, devserver: DevServer, tmp_path: Path
) -> None:
    here.configure({"langfuse": langfuse(devserver), "otel": {"endpoint": devserver.url}}, delivery="external")
    for number in range(3):
        write_session(here.trace_dir, f"s-{number}", turns=2, at="2026-02-06T22:10:00Z")
    assert here.call("ship").returncode == 0
    requests = sent_requests(devserver)
    copy = tmp_path / "copy"
    shutil.copytree(here.trace_dir, copy, ignore=shutil.ignore_patterns(layout.STATE_FOLDER))
    told = told_of(here, copy)
    assert [(sink["spans"], sink["found"]) for sink in told["sinks"]] == [(0, 15), (0, 15)]
    assert sent_requests(devserver) == requests


def test_a_copy_that_another_machine_backfills_to_langfuse_is_not_sent_again(
    here: Workplace, devserver: DevServer, tmp_path: Path
) -> None:
    for number in range(3):
        write_session(here.trace_dir, f"s-{number}", turns=2, at="2026-02-06T22:10:00Z")
    assert here.call("ship").returncode == 0
    elsewhere = Workplace(tmp_path / "elsewhere", {"langfuse": langfuse(devserver), "otel": otel(devserver)})
    copy = tmp_path / "copy"
    shutil.copytree(here.trace_dir, copy, ignore=shutil.ignore_patterns(layout.STATE_FOLDER))
    told = told_of(elsewhere, copy)
    assert [(sink["spans"], sink["found"]) for sink in told["sinks"]] == [(0, 15), (0, 15)]
    assert len(elsewhere.observed("langfuse")) == 15


# --- a backfilled folder that is deleted ------------------------------------------------------------------------------


def test_a_backfilled_folder_that_is_gone_is_told_until_it_is_forgotten_or_back(
    run: Run, here: Workplace, old: Path, tmp_path: Path
) -> None:
    told_of(here, old)
    old.rename(tmp_path / "away")
    verdicts = here.verdicts()
    assert {verdict["exit_code"] for verdict in verdicts.values()} == {2}
    (reason,) = (uncompared["reason"] for uncompared in verdicts["langfuse"]["uncompared"])
    assert reason.startswith(f"{old}: this backfilled folder is gone")
    status = run("--config", here.config, "status")
    assert "gone      it was backfilled, and is not there any more" in status.out

    (tmp_path / "away").rename(old)
    assert {verdict["exit_code"] for verdict in here.verdicts().values()} == {0}

    shutil.rmtree(old)
    write_session(here.trace_dir, "s", turns=1)
    assert here.call("ship").returncode == 0
    ran = run("--config", here.config, "forget", "--folder", old)
    assert (ran.code, ran.out) == (0, f"{old}: forgotten\n")
    assert {verdict["exit_code"] for verdict in here.verdicts().values()} == {0}
    for sink in json.loads(run("--config", here.config, "status", "--json").out)["sinks"]:
        assert sink["events"]["unaccounted"] == 0
        assert sink["events"]["confirmed"] == 45 + 6


def test_a_folder_that_was_forgotten_and_is_backfilled_again_is_not_sent_again(
    here: Workplace, old: Path, devserver: DevServer
) -> None:
    told_of(here, old)
    requests = sent_requests(devserver)
    assert here.call("forget", "--folder", old).returncode == 0
    assert [(sink["spans"], sink["found"]) for sink in told_of(here, old)["sinks"]] == [(0, 26), (0, 26)]
    assert sent_requests(devserver) == requests


@pytest.mark.parametrize("which", ["another", "the trace folder"])
def test_only_a_backfilled_folder_can_be_forgotten(run: Run, here: Workplace, old: Path, which: str) -> None:
    told_of(here, old)
    ran = run("--config", here.config, "forget", "--folder", old.parent if which == "another" else here.trace_dir)
    assert ran.code == 2
    assert ("was not backfilled" if which == "another" else "is the trace folder itself") in ran.err


def test_of_a_folder_of_folders_those_are_named_that_can_be_forgotten(run: Run, here: Workplace, old: Path) -> None:
    month = old / "2026-01"
    month.mkdir()
    for session in old.glob("session-*"):
        session.rename(month / session.name)
    told_of(here, old)
    ran = run("--config", here.config, "forget", "--folder", old)
    assert (ran.code, ran.out) == (2, "")
    assert f"{old}: was not backfilled; those below it are remembered by themselves, name one: {month}\n" in ran.err
    assert run("--config", here.config, "forget", "--folder", old.parent).err.count(str(here.trace_dir)) == 0
    assert run("--config", here.config, "forget", "--folder", month).code == 0
