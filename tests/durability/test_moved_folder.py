"""A trace folder is known by the state in it: it may be moved, copied, or mounted elsewhere for another process."""

from __future__ import annotations

import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.workplace import Workplace, answer_of, both
from tracebridge.devserver import DevServer
from tracebridge.journal import layout


@pytest.fixture
def workplace(tmp_path: Path, devserver: DevServer) -> Workplace:
    """Two sessions are delivered."""
    workplace = Workplace(tmp_path / "here", both(devserver), delivery="external")
    for number in range(2):
        workplace.record(f"before-{number}")
    ship(workplace)
    return workplace


def ship(workplace: Workplace) -> None:
    shipped = workplace.call("ship")
    assert shipped.returncode == 0, shipped.stderr


def in_folder(folder: Path, trace_dir: Path, devserver: DevServer) -> Workplace:
    """A user's folder whose configuration names a trace folder that is there."""
    workplace = Workplace(folder)
    workplace.trace_dir = trace_dir
    workplace.configure(both(devserver), delivery="external")
    return workplace


def moved_from(workplace: Workplace, elsewhere: Path, devserver: DevServer) -> Workplace:
    """The same trace folder at another place, and a configuration that names it there."""
    shutil.move(workplace.trace_dir, elsewhere)
    return in_folder(elsewhere.parent / "there", elsewhere, devserver)


def sessions_shown(workplace: Workplace, sink: str) -> Counter[str]:
    """How many spans of each session a backend shows, copies included."""
    return Counter(span.session_id for span in workplace.observed(sink))


def accounts(workplace: Workplace) -> dict[str, dict[str, Any]]:
    told = answer_of(workplace.call("status", "--json"))
    return {sink["name"]: sink["events"] for sink in told["sinks"]}


def change_state(workplace: Workplace, *statements: str) -> None:
    with closing(sqlite3.connect(layout.state_file(workplace.trace_dir))) as database, database:
        for statement in statements:
            database.execute(statement)


# versions before did not note which folder of the state is the trace folder
FORGET_WHICH = "DELETE FROM about WHERE name = 'trace folder'"


def test_of_a_folder_that_was_moved_nothing_is_sent_again(
    tmp_path: Path, workplace: Workplace, devserver: DevServer
) -> None:
    moved = moved_from(workplace, tmp_path / "elsewhere", devserver)
    moved.record("after")
    moved.record("before-0")
    ship(moved)
    for sink in ("langfuse", "otel"):
        assert sessions_shown(moved, sink) == {"before-0": 4, "before-1": 2, "after": 2}
        account = accounts(moved)[sink]
        assert (account["written"], account["confirmed"], account["unaccounted"]) == (16, 16, 0)
    assert {sink: verdict["exit_code"] for sink, verdict in moved.verdicts().items()} == {"langfuse": 0, "otel": 0}


def test_processes_that_see_a_folder_at_different_places_send_nothing_twice(
    tmp_path: Path, workplace: Workplace, devserver: DevServer
) -> None:
    # what a container sees of a folder that is mounted into it
    inside, outside = tmp_path / "inside", workplace.trace_dir
    for turn in range(2):
        shutil.move(outside, inside)
        ship(in_folder(tmp_path / "container", inside, devserver))
        shutil.move(inside, outside)
        workplace.record(f"after-{turn}")
        ship(workplace)
    for sink in ("langfuse", "otel"):
        assert set(sessions_shown(workplace, sink).values()) == {2}


def test_a_copy_delivers_what_is_recorded_in_it_and_leaves_the_rest_to_the_original(
    tmp_path: Path, workplace: Workplace, devserver: DevServer
) -> None:
    shutil.copytree(workplace.trace_dir, tmp_path / "copy")
    copy = in_folder(tmp_path / "there", tmp_path / "copy", devserver)
    copy.record("in the copy")
    workplace.record("in the original")
    for place in (copy, workplace, copy):
        ship(place)
    for sink in ("langfuse", "otel"):
        shown = sessions_shown(workplace, sink)
        assert shown == {"before-0": 2, "before-1": 2, "in the copy": 2, "in the original": 2}


def test_a_dry_run_in_a_folder_that_was_moved_counts_nothing_that_is_delivered(
    tmp_path: Path, workplace: Workplace, devserver: DevServer
) -> None:
    moved = moved_from(workplace, tmp_path / "elsewhere", devserver)
    moved.record("after")
    old = Workplace(tmp_path / "old")
    old.record("old")
    counted = answer_of(moved.call("backfill", old.trace_dir, "--dry-run", "--json"))
    assert {sink["sink"]: sink["spans"] for sink in counted["sinks"]} == {"langfuse": 4, "otel": 4}


def test_of_a_folder_that_was_moved_while_tracebridge_was_upgraded_nothing_is_sent_again(
    tmp_path: Path, workplace: Workplace, devserver: DevServer
) -> None:
    change_state(workplace, FORGET_WHICH)
    moved = moved_from(workplace, tmp_path / "elsewhere", devserver)
    moved.record("after")
    old = Workplace(tmp_path / "old")
    old.record("old")
    counted = answer_of(moved.call("backfill", old.trace_dir, "--dry-run", "--json"))
    assert {sink["sink"]: sink["spans"] for sink in counted["sinks"]} == {"langfuse": 4, "otel": 4}
    ship(moved)
    for sink in ("langfuse", "otel"):
        assert sessions_shown(moved, sink) == {"before-0": 2, "before-1": 2, "after": 2}


def test_a_folder_that_an_earlier_version_knew_by_two_paths_is_one_again(
    tmp_path: Path, workplace: Workplace, devserver: DevServer
) -> None:
    elsewhere = tmp_path / "elsewhere"
    change_state(
        workplace,
        FORGET_WHICH,
        f"INSERT INTO folder (id, path) VALUES (2, '{elsewhere.resolve()}')",
        "UPDATE cursor SET folder = 2 WHERE session = 'session-before-1'",
    )
    assert workplace.call("status").returncode == 0
    moved = moved_from(workplace, elsewhere, devserver)
    moved.record("after")
    ship(moved)
    for sink in ("langfuse", "otel"):
        assert sessions_shown(moved, sink) == {"before-0": 2, "before-1": 2, "after": 2}
        account = accounts(moved)[sink]
        assert (account["written"], account["confirmed"], account["unaccounted"]) == (12, 12, 0)
    assert moved.call("status").stdout.count("journal ") == 1
