"""The way back from "JSONL off": the files come back, nothing is sent twice, and an outage in between loses nothing."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.delivery.rig import write_session
from tests.migration.evidence import state_of
from tests.waiting import until
from tests.workplace import Workplace, delete_stored, environment, journal_events, langfuse, otel, restored
from tracebridge.delivery.background import BackgroundShipper
from tracebridge.delivery.pace import FullSpeed
from tracebridge.delivery.removal import Removal
from tracebridge.devserver import DevServer
from tracebridge.journal import deletion, layout
from tracebridge.journal.spooled import SpooledLog
from tracebridge.testing import Fault

INGESTION = "POST /api/public/otel/v1/traces"
READING = "GET /api/public/v2/observations"
OFF = ("migrate", "advance", "--override", "test")
KILLED_AFTER_TWO = """
import os, signal, sys
from pathlib import Path
from tracebridge.cli import main
rename, moved = Path.rename, []
def rename_and_die(source, target):
    rename(source, target)
    if Path(target).parent.name == "traces":
        moved.append(target)
        if len(moved) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
Path.rename = rename_and_die
main(sys.argv[1:])
"""

KILLED_BEHIND_THE_LINK = """
import os, signal, sys
from tracebridge.cli import main
link = os.link
def link_and_die(source, target):
    link(source, target)
    os.kill(os.getpid(), signal.SIGKILL)
os.link = link_and_die
main(sys.argv[1:])
"""


@pytest.fixture
def workplace(tmp_path: Path, devserver: DevServer) -> Workplace:
    workplace = Workplace(tmp_path / "here", dual(devserver), delivery="external")
    for number in range(3):
        write_session(workplace.trace_dir, f"s{number}", turns=1)
    return workplace


def dual(server: DevServer) -> dict[str, Any]:
    """JSONL, which keeps nothing for longer than it must once it is off, and LangFuse."""
    return {"jsonl": {"enabled": True, "spool_keep": 0}, "langfuse": langfuse(server)}


@contextmanager
def shipping(workplace: Workplace) -> Iterator[BackgroundShipper]:
    """Whoever ships, with the configuration as it is now."""
    shipper = BackgroundShipper(workplace.settings, FullSpeed)
    shipper.start()
    try:
        yield shipper
    finally:
        shipper.stop(5)


def is_empty(workplace: Workplace) -> bool:
    return not list(workplace.trace_dir.glob("session-*/events.jsonl"))


def empty(workplace: Workplace) -> None:
    """Deliver everything and delete it as the spool does, without waiting for its thread."""
    assert workplace.call("ship").returncode == 0
    removal = Removal(workplace.settings, noted_in=SpooledLog(workplace.trace_dir))
    try:
        assert removal.remove_older_than(0).refused == []
    finally:
        removal.close()
    assert is_empty(workplace)


def stored(workplace: Workplace, sink: str = "langfuse") -> Counter[tuple[str, str]]:
    """How often each span is stored."""
    return Counter((span.trace_id, span.span_id) for span in workplace.observed(sink))


def test_a_session_that_the_spool_has_deleted_more_than_once_comes_back_whole_and_clean(workplace: Workplace) -> None:
    assert workplace.call(*OFF).returncode == 0
    recorded = []
    for _ in range(3):
        workplace.record("entered-again")
        recorded += journal_events(workplace.trace_dir)["entered-again"]
        empty(workplace)
    at_backend = stored(workplace)
    told = workplace.call("migrate", "rollback").stdout
    assert "several_files: 8 events come from several files of one session" in told
    assert journal_events(workplace.trace_dir)["entered-again"] == recorded
    assert workplace.call("ship").stdout.startswith("langfuse: nothing new delivered")
    assert stored(workplace) == at_backend
    verdict = workplace.verdicts()["langfuse"]
    assert (verdict["exit_code"], verdict["counts"]) == (0, {})
    assert verdict["losses"]["recorded-in-several-files"] == 4
    ran = workplace.call("validate", "--left", f"folder:{workplace.trace_dir}", "--right", "sink:langfuse", "--json")
    told = json.loads(ran.stdout)
    assert (ran.returncode, told["losses"]["recorded-in-several-files"]) == (0, 4)


def test_a_session_that_is_entered_again_after_the_spool_deleted_it_is_clean_and_what_nobody_recorded_is_found(
    workplace: Workplace, devserver: DevServer
) -> None:
    assert workplace.call(*OFF).returncode == 0
    workplace.record("entered-again")
    empty(workplace)
    workplace.record("entered-again")
    assert workplace.call("ship").returncode == 0
    verdict = workplace.verdicts()["langfuse"]
    assert (verdict["exit_code"], verdict["counts"], verdict["sessions"]) == (0, {}, 1)
    strange = Workplace(workplace.folder / "elsewhere", dual(devserver), delivery="external")
    strange.record("entered-again")
    assert strange.call("ship").returncode == 0
    assert workplace.verdicts()["langfuse"]["counts"] == {"extra": 2}


def test_what_was_deleted_while_jsonl_was_off_comes_back_and_is_not_sent_again(workplace: Workplace) -> None:
    originals = journal_events(workplace.trace_dir)
    before = workplace.config.read_bytes()
    assert workplace.call(*OFF).returncode == 0
    empty(workplace)
    write_session(workplace.trace_dir, "while-off", turns=1)
    originals |= journal_events(workplace.trace_dir)
    empty(workplace)
    at_backend = stored(workplace)
    assert max(at_backend.values()) == 1

    ran = workplace.call("migrate", "rollback")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "step 1 (switch jsonl off) is taken back: switch jsonl on" in ran.stdout
    assert "4 sessions are back from langfuse" in ran.stdout
    assert workplace.config.read_bytes() == before
    assert journal_events(workplace.trace_dir) == originals
    assert sorted(path.name for path in (workplace.trace_dir / ".tracebridge").iterdir() if path.is_dir()) == [
        *("locks", "removed"),
    ]

    assert workplace.call("ship").stdout.startswith("langfuse: nothing new delivered")
    assert stored(workplace) == at_backend
    assert workplace.verdicts()["langfuse"]["exit_code"] == 0
    told = json.loads(workplace.call("status", "--json").stdout)
    (sink,) = told["sinks"]
    assert (sink["events"]["unread"], sink["events"]["unaccounted"]) == (0, 0)
    assert "takes step 1 back: switch jsonl on" in workplace.call("migrate", "history").stdout


def test_what_is_written_into_a_session_that_is_back_is_delivered(workplace: Workplace) -> None:
    workplace.call(*OFF)
    empty(workplace)
    workplace.call("migrate", "rollback")
    write_session(workplace.trace_dir, "s1", turns=1, run_id="run-2")
    assert workplace.call("ship").returncode == 0
    assert workplace.verdicts()["langfuse"]["exit_code"] == 0
    assert restored(workplace.observed("langfuse")) == journal_events(workplace.trace_dir)


def test_nothing_is_put_over_a_session_that_is_there_again(workplace: Workplace) -> None:
    workplace.call(*OFF)
    empty(workplace)
    again = write_session(workplace.trace_dir, "s1", turns=1, run_id="run-2")
    content = again.read_bytes()
    ran = workplace.call("migrate", "rollback")
    assert ran.returncode == 1
    assert "not back: s1: there again with later events" in ran.stdout
    assert "2 sessions are back" in ran.stdout
    assert again.read_bytes() == content


def test_a_session_that_the_spool_could_not_delete_is_not_told_as_begun_anew(workplace: Workplace) -> None:
    workplace.call(*OFF)
    assert workplace.call("ship").returncode == 0
    removal = Removal(workplace.settings, noted_in=SpooledLog(workplace.trace_dir))
    try:
        with layout.events_file(layout.session_folder(workplace.trace_dir, "s1")).open("rb") as held:
            fcntl.flock(held, fcntl.LOCK_SH)
            for _ in range(3):
                refused = removal.remove_older_than(0).refused
                assert [(one.session, one.reason) for one in refused] == [("s1", "a writer has its file open")]
    finally:
        removal.close()
    assert "session-s1" not in SpooledLog(workplace.trace_dir).sessions()
    ran = workplace.call("migrate", "rollback")
    assert (ran.returncode, "not back" in ran.stdout) == (0, False)
    assert "2 sessions are back" in ran.stdout


@pytest.mark.parametrize("command", ["rollback", "restore"])
def test_a_rollback_that_was_killed_while_files_came_back_is_whole_once_it_goes_on(
    workplace: Workplace, devserver: DevServer, command: str
) -> None:
    switch_langfuse_on_and_jsonl_off(workplace, devserver)
    kill_while_files_come_back(workplace)
    again = workplace.call("migrate", command)
    assert (again.returncode, again.stdout.count("1 sessions are back from langfuse\n")) == (0, 1)
    assert sorted(journal_events(workplace.trace_dir)) == ["s0", "s1", "s2"]
    assert SpooledLog(workplace.trace_dir).sessions() == {}
    # the step before stays, until somebody takes it back once everything is done
    assert enabled(workplace) == ["langfuse"]
    assert workplace.call("migrate", "rollback").returncode == 0
    assert enabled(workplace) == []


def test_a_rollback_that_goes_on_after_a_kill_says_so_and_is_not_told_twice(
    workplace: Workplace, devserver: DevServer
) -> None:
    switch_langfuse_on_and_jsonl_off(workplace, devserver)
    kill_while_files_come_back(workplace)
    file = workplace.config.read_bytes()
    tried = workplace.call("migrate", "rollback", "--dry-run")
    assert (tried.returncode, "what is left would come back" in tried.stdout) == (0, True)
    assert len(list(workplace.trace_dir.glob("session-*"))) == 2
    assert "interrupted while files came back" in workplace.call("migrate", "history").stdout
    ran = json.loads(workplace.call("migrate", "rollback", "--json").stdout)
    assert (ran["made"], ran["undone"]["id"], len(ran["returned"]["sessions"])) == (False, 2, 1)
    assert workplace.config.read_bytes() == file
    history = json.loads(workplace.call("migrate", "history", "--json").stdout)
    assert [step["action"] for step in history] == ["advance", "advance", "rollback"]
    assert "interrupted" not in workplace.call("migrate", "history").stdout


def test_a_rollback_that_was_killed_is_gone_on_with_though_a_share_was_changed_since(
    workplace: Workplace, devserver: DevServer
) -> None:
    switch_langfuse_on_and_jsonl_off(workplace, devserver)
    kill_while_files_come_back(workplace)
    assert workplace.call("migrate", "ramp", "--sink", "langfuse", "--share", "50%").returncode == 0
    again = workplace.call("migrate", "rollback")
    assert "1 sessions are back from langfuse\n" in again.stdout
    assert enabled(workplace) == ["langfuse"]


def test_a_rollback_whose_files_a_backend_did_not_give_back_does_not_hold_up_the_next_one(
    workplace: Workplace, devserver: DevServer
) -> None:
    switch_langfuse_on_and_jsonl_off(workplace, devserver)
    devserver.faults.add(Fault(route=READING, status=400))
    assert workplace.call("migrate", "rollback").returncode == 1
    assert workplace.call("migrate", "rollback").returncode == 0
    assert enabled(workplace) == []


def enabled(workplace: Workplace) -> list[str]:
    return [sink.name for sink in workplace.settings.enabled_sinks]


def switch_langfuse_on_and_jsonl_off(workplace: Workplace, server: DevServer) -> None:
    """Two steps, after which all files are gone."""
    workplace.configure({**dual(server), "langfuse": langfuse(server, enabled=False)}, delivery="external")
    workplace.call("migrate", "advance", "--on", "langfuse", "--override", "test")
    workplace.call("migrate", "advance", "--off", "jsonl", "--override", "test")
    empty(workplace)


def kill_while_files_come_back(workplace: Workplace) -> None:
    line = [sys.executable, "-c", KILLED_AFTER_TWO, "--config", str(workplace.config), "migrate", "rollback"]
    ran = subprocess.run(line, env=environment(), cwd=workplace.folder, check=False, timeout=50)
    assert ran.returncode == -signal.SIGKILL
    assert len(list(workplace.trace_dir.glob("session-*"))) == 2


def test_the_name_of_a_session_cannot_command_the_terminal(workplace: Workplace, devserver: DevServer) -> None:
    write_session(workplace.trace_dir, "\x1b[2J\x9b31m\u202e", turns=1)
    workplace.call(*OFF)
    empty(workplace)
    devserver.clear()
    told = workplace.call("migrate", "rollback").stdout
    assert "not back: \\x1b[2J\\x9b31m\\u202e: not at the backend" in told
    assert not {"\x1b", "\x9b", "\u202e"} & set(told)


def test_what_the_backend_lost_is_named(workplace: Workplace, devserver: DevServer) -> None:
    workplace.call(*OFF)
    empty(workplace)
    devserver.clear()
    ran = workplace.call("migrate", "rollback")
    assert ran.returncode == 1
    assert [f"not back: s{number}: not at the backend" in ran.stdout for number in range(3)] == [True] * 3


@pytest.mark.parametrize("is_old", [True, False], ids=["original format", "with ids"])
def test_a_session_that_comes_back_with_a_gap_is_named_with_what_follows_and_the_way_out(
    workplace: Workplace, devserver: DevServer, is_old: bool
) -> None:
    workplace.call(*OFF)
    if is_old:
        write_session(workplace.trace_dir, "gap", turns=2)
    else:
        tracer = workplace.tracer()
        with tracer.trace_session("gap") as session:
            for number in range(2):
                with tracer.trace_turn(session, user_input="hi"), session.tool_call("search", {"q": number}) as call:
                    call.finish("found")
        tracer.shutdown()
    empty(workplace)
    calls = [span for span in workplace.observed("langfuse") if (span.session_id, span.kind) == ("gap", "tool")]
    delete_stored(devserver, "langfuse", min(calls, key=lambda span: span.start_ns))
    ran = workplace.call("migrate", "rollback")
    assert ran.returncode == 1
    assert "missing: 2 events stand between others in the original and are not at the backend" in ran.stdout
    assert "not whole: gap: events are missing between others" in ran.stdout
    assert "do not --resend it: a session whose folder is moved out of the trace folder is not compared" in ran.stdout
    assert workplace.verdicts()["langfuse"]["exit_code"] == 1
    layout.session_folder(workplace.trace_dir, "gap").rename(workplace.folder / "session-gap")
    assert workplace.call("ship").returncode == 0
    assert workplace.verdicts()["langfuse"]["exit_code"] == 0
    told = json.loads(workplace.call("status", "--json").stdout)
    assert told["sinks"][0]["events"]["unaccounted"] == 0


def test_a_backend_that_is_down_leaves_the_rest_to_the_next_time(workplace: Workplace, devserver: DevServer) -> None:
    workplace.call(*OFF)
    empty(workplace)
    devserver.faults.add(Fault(route=READING, status=400))
    ran = workplace.call("migrate", "rollback")
    assert (ran.returncode, is_empty(workplace)) == (1, True)
    assert "3 were not reached" in ran.stdout
    assert "go on with `tracebridge migrate restore`" in ran.stdout
    assert workplace.settings.keep_journal
    devserver.faults.clear()
    ran = workplace.call("migrate", "restore")
    assert (ran.returncode, ran.stdout.split("\n")[0]) == (0, "3 sessions are back from langfuse")
    assert workplace.call("migrate", "restore").stdout == "0 sessions are back from langfuse\n"


def test_a_folder_that_cannot_be_written_leaves_the_rest_to_the_next_time(workplace: Workplace) -> None:
    originals = journal_events(workplace.trace_dir)
    workplace.call(*OFF)
    empty(workplace)
    log = layout.returning_log(workplace.trace_dir)
    log.mkdir()
    ran = workplace.call("migrate", "rollback")
    assert (ran.returncode, workplace.settings.keep_journal) == (2, True)
    assert f"Is a directory: '{log}'; what is left comes back with `tracebridge migrate restore`" in ran.stderr
    log.rmdir()
    assert workplace.call("migrate", "restore").returncode == 0
    assert journal_events(workplace.trace_dir) == originals


def test_a_process_that_runs_by_the_old_configuration_deletes_nothing_more_after_the_rollback(
    workplace: Workplace,
) -> None:
    workplace.call(*OFF)
    with shipping(workplace) as old:
        until(lambda: is_empty(workplace), "the spool is empty")
        assert workplace.call("migrate", "rollback").returncode == 0
        write_session(workplace.trace_dir, "later", turns=1)
        until(lambda: old.flush(1) == 0, "everything is delivered")
        until(lambda: not old._housekeeping._thread.is_alive(), "the tidying has ended")
        assert len(journal_events(workplace.trace_dir)) == 4
    # and what is started anew by a file that says so deletes again
    assert workplace.call(*OFF).returncode == 0
    empty(workplace)


def test_a_sink_that_cannot_be_read_is_not_sent_again_what_it_had_accepted(
    workplace: Workplace, devserver: DevServer
) -> None:
    blind = otel(devserver)
    del blind["reader"]
    workplace.configure({**dual(devserver), "otel": blind}, delivery="external")
    workplace.call(*OFF)
    empty(workplace)
    requests = devserver.requests.get("POST /v1/traces", 0)
    assert workplace.call("migrate", "rollback").returncode == 0
    assert workplace.call("ship").returncode == 0
    assert devserver.requests.get("POST /v1/traces", 0) == requests
    told = json.loads(workplace.call("status", "--json").stdout)
    assert [sink["events"]["unaccounted"] for sink in told["sinks"]] == [0, 0]


def test_a_sink_that_is_new_since_gets_what_is_back(workplace: Workplace, devserver: DevServer) -> None:
    workplace.call(*OFF)
    empty(workplace)
    off = {"jsonl": {"spool_keep": 0, "enabled": False}, "langfuse": langfuse(devserver), "otel": otel(devserver)}
    workplace.configure(off, delivery="external")
    assert workplace.call("migrate", "rollback").returncode == 0
    assert workplace.call("ship").returncode == 0
    assert restored(workplace.observed("otel")) == journal_events(workplace.trace_dir)


@pytest.mark.parametrize("is_readable", [True, False], ids=["readable", "not readable"])
def test_a_sink_that_was_switched_on_between_two_deletions_gets_all_that_is_back(
    workplace: Workplace, devserver: DevServer, is_readable: bool
) -> None:
    sinks = dual(devserver) | {"otel": otel(devserver) if is_readable else {"endpoint": devserver.url}}
    sinks["jsonl"]["enabled"] = False
    workplace.record("pruned-first")
    assert workplace.call("ship").returncode == 0
    assert workplace.call("prune", "--older-than", "0s").returncode == 0
    workplace.call(*OFF)
    workplace.record("entered-again")
    empty(workplace)
    workplace.configure(sinks, delivery="external")
    workplace.record("entered-again")
    workplace.record("pruned-first")
    empty(workplace)
    assert "several_files" in workplace.call("migrate", "rollback").stdout
    assert workplace.call("ship").returncode == 0
    assert workplace.call("ship").stdout.count("nothing new delivered") == 2
    events = sum(map(len, journal_events(workplace.trace_dir).values()))
    workplace.configure(dual(devserver) | {"otel": otel(devserver)}, delivery="external")
    assert sum(map(len, restored(workplace.observed("otel")).values())) >= events
    assert workplace.verdicts()["otel"]["counts"] == ({} if is_readable else {"duplicate": 4})
    told = json.loads(workplace.call("status", "--json").stdout)
    assert [sink["events"]["unaccounted"] for sink in told["sinks"]] == [0, 0]


def test_a_sink_whose_share_was_raised_between_two_deletions_gets_all_that_is_back(
    workplace: Workplace, devserver: DevServer
) -> None:
    def switch(share: float, *, keeps: bool = False) -> None:
        sinks = {**dual(devserver), "otel": otel(devserver, policy={"sample_rate": share})}
        sinks["jsonl"]["enabled"] = keeps
        workplace.configure(sinks, delivery="external")

    switch(1e-9, keeps=True)
    workplace.call(*OFF)
    workplace.record("entered-again")
    empty(workplace)
    switch(1.0)
    workplace.record("entered-again")
    empty(workplace)
    assert "several_files" in workplace.call("migrate", "rollback").stdout
    assert workplace.call("ship").returncode == 0
    assert set(stored(workplace, "otel").values()) == {1}
    assert {sink: verdict["counts"] for sink, verdict in workplace.verdicts().items()} == {"langfuse": {}, "otel": {}}


def annotated_and_spooled(workplace: Workplace) -> tuple[Path, dict[str, Any]]:
    """A spool has deleted a session beside a file of the user's: its folder, and what was recorded, by session."""
    workplace.record("annotated")
    originals = journal_events(workplace.trace_dir)
    folder = workplace.trace_dir / "session-annotated"
    (folder / "notes.txt").write_text("mine")
    workplace.call(*OFF)
    empty(workplace)
    return folder, originals


def test_a_session_comes_back_beside_what_the_spool_has_left_in_its_folder(workplace: Workplace) -> None:
    folder, originals = annotated_and_spooled(workplace)
    assert [file.name for file in folder.iterdir()] == ["notes.txt"]
    ran = workplace.call("migrate", "rollback")
    assert (ran.returncode, journal_events(workplace.trace_dir)) == (0, originals)
    assert {file.name for file in folder.iterdir()} == {layout.EVENTS, layout.METADATA, "notes.txt"}


def test_a_session_beside_a_file_that_was_left_is_back_though_the_rollback_is_killed_as_it_comes(
    workplace: Workplace,
) -> None:
    folder, originals = annotated_and_spooled(workplace)
    at_backend = stored(workplace)
    line = [sys.executable, "-c", KILLED_BEHIND_THE_LINK, "--config", str(workplace.config), "migrate", "rollback"]
    ran = subprocess.run(line, env=environment(), cwd=workplace.folder, check=False, timeout=50)
    assert ran.returncode == -signal.SIGKILL
    # meanwhile the session is entered again
    write_session(workplace.trace_dir, "annotated", turns=1, run_id="run-2")
    again = workplace.call("migrate", "restore")
    assert (again.returncode, "not back" in again.stdout) == (0, False), again.stdout
    back = journal_events(workplace.trace_dir)
    assert {name: events[: len(originals[name])] for name, events in back.items()} == originals
    assert {file.name for file in folder.iterdir()} == {layout.EVENTS, layout.METADATA, "notes.txt"}
    assert workplace.call("ship").returncode == 0
    assert workplace.call("validate", "--session", "annotated").returncode == 0
    assert stored(workplace) & at_backend == at_backend
    assert set(stored(workplace).values()) == {1}


@pytest.mark.parametrize("is_folder_left", [True, False], ids=["before its folder", "before its file"])
def test_a_session_that_a_killed_spool_had_still_to_delete_comes_back_and_is_not_sent_again(
    workplace: Workplace, is_folder_left: bool
) -> None:
    originals = journal_events(workplace.trace_dir)
    workplace.call(*OFF)
    assert workplace.call("ship").returncode == 0
    at_backend = stored(workplace)
    folder = workplace.trace_dir / "session-s0"
    SpooledLog(workplace.trace_dir).append(folder.name, "s0")
    assert deletion.remove(workplace.trace_dir, folder, layout.events_file(folder).stat().st_size) == ""
    if not is_folder_left:
        folder.rmdir()
    assert workplace.call("migrate", "rollback").returncode == 0
    assert journal_events(workplace.trace_dir) == originals
    assert workplace.call("prune", "--older-than", "1d").returncode == 0
    assert workplace.call("ship").stdout.startswith("langfuse: nothing new delivered")
    assert stored(workplace) == at_backend


def test_a_sink_that_was_looked_at_only_and_was_off_gets_what_is_back_once_it_is_on(
    workplace: Workplace, devserver: DevServer
) -> None:
    off = otel(devserver, enabled=False)
    workplace.configure({**dual(devserver), "otel": otel(devserver)}, delivery="external")
    workplace.call("status")
    workplace.configure({**dual(devserver), "otel": off}, delivery="external")
    workplace.call(*OFF)
    empty(workplace)
    assert workplace.call("migrate", "rollback").returncode == 0
    workplace.configure({**dual(devserver), "otel": otel(devserver)}, delivery="external")
    assert workplace.call("ship").returncode == 0
    assert restored(workplace.observed("otel")) == journal_events(workplace.trace_dir)


@pytest.mark.parametrize("is_named", [True, False], ids=["off", "not in the file any more"])
def test_a_sink_that_was_off_is_not_sent_again_what_it_had_before(
    tmp_path: Path, devserver: DevServer, is_named: bool
) -> None:
    workplace = Workplace(tmp_path / "new", {**dual(devserver), "otel": otel(devserver)}, delivery="external")
    workplace.record("a")
    assert workplace.call("ship").returncode == 0
    workplace.configure(dual(devserver) | ({"otel": otel(devserver, enabled=False)} if is_named else {}))
    with shipping(workplace):
        until(lambda: bool(off_since(workplace)), "it is known that the sink is off")
    workplace.call(*OFF)
    empty(workplace)
    assert workplace.call("migrate", "rollback").returncode == 0
    workplace.configure({**dual(devserver), "otel": otel(devserver)}, delivery="external")
    assert workplace.call("ship").returncode == 0
    assert set(stored(workplace, "otel").values()) == {1}


def off_since(workplace: Workplace) -> int:
    with state_of(workplace) as state:
        return max(target.off_since_ns for target in state.targets())


@pytest.mark.parametrize("is_raised_before", [True, False], ids=["raised before the rollback", "raised after it"])
@pytest.mark.parametrize("was_sent", [True, False], ids=["sent under a wider share", "never sent"])
def test_a_sink_whose_share_left_out_what_went_gets_it_once_the_share_is_raised(
    workplace: Workplace, devserver: DevServer, was_sent: bool, is_raised_before: bool
) -> None:
    def switch(share: float, *, keeps: bool = True) -> None:
        sinks = {**dual(devserver), "otel": otel(devserver, policy={"sample_rate": share})}
        sinks["jsonl"]["enabled"] = keeps
        workplace.configure(sinks, delivery="external")

    switch(1.0 if was_sent else 1e-9)
    assert workplace.call("ship").returncode == 0
    switch(1e-9)
    workplace.call(*OFF)
    empty(workplace)
    if is_raised_before:
        switch(1.0, keeps=False)
    assert workplace.call("migrate", "rollback").returncode == 0
    switch(1.0)
    assert workplace.call("ship").returncode == 0
    assert restored(workplace.observed("otel")) == journal_events(workplace.trace_dir)
    assert set(stored(workplace, "otel").values()) == {1}


def test_a_file_that_somebody_changed_in_the_same_place_is_not_touched(
    workplace: Workplace, devserver: DevServer
) -> None:
    workplace.call(*OFF)
    workplace.configure(dual(devserver))
    before = workplace.config.read_bytes()
    ran = workplace.call("migrate", "rollback")
    assert ran.returncode == 2
    assert "changed since by somebody else" in ran.stderr
    assert workplace.config.read_bytes() == before


def test_a_rollback_that_is_tried_only_changes_nothing(workplace: Workplace) -> None:
    workplace.call(*OFF)
    before = workplace.config.read_bytes()
    ran = workplace.call("migrate", "rollback", "--dry-run")
    assert (ran.returncode, workplace.config.read_bytes()) == (0, before)
    assert "would be changed: step 1 (switch jsonl off) is taken back" in ran.stdout
    assert workplace.call("migrate", "rollback").returncode == 0


@pytest.mark.parametrize("status", [503, None], ids=["it answers 503", "its process is gone"])
def test_after_jsonl_off_an_outage_loses_nothing(workplace: Workplace, tmp_path: Path, status: int | None) -> None:
    """The journal keeps each session until it shows at the backend."""
    port = free_port()
    backend = backend_on(port, tmp_path / "backend.sqlite")
    try:
        workplace.configure(dual(backend), delivery="external")
        originals = journal_events(workplace.trace_dir)
        assert workplace.call(*OFF).returncode == 0
        with shipping(workplace):
            until(lambda: is_empty(workplace), "the spool is empty")
            if status is None:
                backend.stop()
            else:
                backend.faults.add(Fault(route=INGESTION, status=status))
            for number in range(5):
                write_session(workplace.trace_dir, f"outage-{number}", turns=1)
            during = journal_events(workplace.trace_dir)
            assert len(during) == 5
        with shipping(workplace) as shipper:
            until(lambda: bool(shipper.troubles()), "the outage is noticed")
            assert journal_events(workplace.trace_dir) == during, "nothing goes that does not show"
            if status is None:
                backend = backend_on(port, tmp_path / "backend.sqlite")
            else:
                backend.faults.clear()
            until(lambda: is_empty(workplace), "everything shows, so the spool is empty again", 40)
        assert restored(workplace.observed("langfuse")) == originals | during
        assert set(stored(workplace).values()) == {1}
    finally:
        backend.stop()


def free_port() -> int:
    with DevServer() as server:
        return int(server.url.rpartition(":")[2])


def backend_on(port: int, db: Path) -> DevServer:
    server = DevServer(port=port, db=str(db))
    server.start()
    return server


AGENT = """
import sys, threading
import tracebridge
tracebridge.configure(sys.argv[1])
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
number = 0
while not stop.is_set() or number < 20:
    with tracebridge.trace_session(session_id=f"live-{number}") as session:
        with tracebridge.trace_turn(session, user_input="Hello!") as turn:
            turn.output = "Hi!"
    number += 1
    if number == 10:
        print("recording", flush=True)
    stop.wait(0.05)
tracebridge.shutdown()
print(number, flush=True)
"""


@pytest.mark.slow
def test_under_live_traffic_a_step_and_its_way_back_lose_nothing_though_the_agent_runs_on(
    workplace: Workplace, devserver: DevServer
) -> None:
    workplace.configure(dual(devserver))
    agent = subprocess.Popen(
        [sys.executable, "-c", AGENT, str(workplace.config)],
        cwd=workplace.folder,
        env=environment(),
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert agent.stdin is not None
    assert agent.stdout is not None
    try:
        assert agent.stdout.readline() == "recording\n"
        assert workplace.call(*OFF).returncode == 0
        gone = SpooledLog(workplace.trace_dir)
        with shipping(workplace):
            until(lambda: len(gone.sessions()) > 5, "the new configuration empties the spool beside the old agent")
        assert workplace.call("migrate", "rollback").returncode == 0
        agent.stdin.write("stop\n")
        agent.stdin.flush()
        count = int(agent.stdout.readline())
        assert agent.wait(20) == 0
    finally:
        agent.kill()
        agent.communicate()
    assert workplace.call("ship").returncode == 0
    at_backend = restored(workplace.observed("langfuse"))
    assert {f"live-{number}" for number in range(count)} <= at_backend.keys()
    assert at_backend == journal_events(workplace.trace_dir)
    assert set(stored(workplace).values()) == {1}


def test_the_file_of_another_step_is_named(workplace: Workplace, tmp_path: Path) -> None:
    workplace.call(*OFF)
    other = tmp_path / "other.yaml"
    other.write_bytes(workplace.config.read_bytes())
    moved, workplace.config = workplace.config, other
    ran = workplace.call("migrate", "rollback")
    assert ran.returncode == 2
    assert f"the last step changed {moved}" in ran.stderr
    os.unlink(moved)
    assert f"the last step changed {moved}" in workplace.call("migrate", "rollback").stderr
