"""Real sessions at a Tempo, whose searches do not find what is old and which cuts what is long."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.delivery.rig import LONG_AGO, write_session
from tests.migration.test_rollback import empty
from tests.workplace import Workplace, answer_of, sent_requests
from tracebridge.devserver import DevServer, Tempo
from tracebridge.journal import layout
from tracebridge.testing import Fault
from tracebridge_otel.configuration import OtelSettings
from tracebridge_otel.factory import sink_type


@pytest.fixture(scope="module")
def running() -> Iterator[DevServer]:
    with DevServer(tempo=Tempo(max_attribute_bytes=0)) as server:
        yield server


@pytest.fixture
def server(running: DevServer) -> DevServer:
    running.clear()
    return running


@pytest.fixture
def old(legacy_traces: Path, tmp_path: Path) -> Path:
    """Ten real sessions, months old."""
    for path in sorted(legacy_traces.iterdir())[::10]:
        shutil.copytree(path, tmp_path / "old" / path.name)
    return tmp_path / "old"


def sink(server: DevServer) -> dict[str, Any]:
    reader = {"type": "tempo", "url": server.url, "visibility_lag": 0.05}
    return {"type": "otel", "endpoint": server.url, "reader": reader}


def uncut(server: DevServer) -> dict[str, Any]:
    return sink(server) | {"max_attribute_bytes": 0}


@pytest.fixture
def workplace(server: DevServer, tmp_path: Path) -> Workplace:
    return Workplace(tmp_path / "here", {"tempo": uncut(server)}, max_content_length=None)


def test_a_backfill_validates_though_no_search_finds_any_of_it(workplace: Workplace, old: Path) -> None:
    workplace.backfill(old)
    verdict = workplace.verdicts()["tempo"]
    assert (verdict["exit_code"], verdict["sessions"], verdict["losses"]) == (0, 10, {})


def test_a_backfill_whose_state_was_lost_sends_nothing_again(
    workplace: Workplace, old: Path, server: DevServer
) -> None:
    workplace.backfill(old)
    sent = sent_requests(server)
    for file in layout.state_folder(workplace.trace_dir).glob("state.sqlite*"):
        file.unlink()
    workplace.backfill(old)
    assert sent_requests(server) == sent
    assert workplace.verdicts()["tempo"]["exit_code"] == 0


def test_requests_without_an_answer_are_settled_by_their_traces_and_not_sent_again(
    workplace: Workplace, old: Path, server: DevServer
) -> None:
    server.faults.add(Fault(route="POST /v1/traces", reset="after", first=1))
    workplace.backfill(old)
    verdict = workplace.verdicts()["tempo"]
    assert (verdict["exit_code"], verdict["counts"]) == (0, {})


def test_a_trace_that_is_shown_in_part_is_neither_missing_nor_equal(
    workplace: Workplace, old: Path, server: DevServer
) -> None:
    workplace.backfill(old)
    server.faults.add(Fault(route="GET /api/v2/traces/*", partial=True, times=1))
    verdict = workplace.verdicts()["tempo"]
    assert (verdict["exit_code"], verdict["sessions"], verdict["counts"]) == (2, 9, {})
    (uncompared,) = verdict["uncompared"]
    assert "only a part of this trace" in uncompared["reason"]


def test_a_restoration_says_what_no_search_finds(workplace: Workplace, old: Path, tmp_path: Path) -> None:
    workplace.backfill(old)
    ran = workplace.call("restore", "--from", "tempo", "--out", tmp_path / "new")
    assert ran.returncode == 1
    assert "unlisted  Tempo finds spans that were more than two minutes old" in ran.stdout


def test_what_is_recorded_now_is_found_and_restored(workplace: Workplace, tmp_path: Path) -> None:
    workplace.record("s")
    ran = workplace.call("restore", "--from", "tempo", "--out", tmp_path / "new", "--json")
    assert layout.session_folder(tmp_path / "new", "s").exists(), ran.stdout + ran.stderr


def test_a_side_says_what_no_search_finds(workplace: Workplace, old: Path) -> None:
    pytest.importorskip("ibis")
    workplace.backfill(old)
    ran = workplace.call("validate", "--left", f"folder:{old}", "--right", "sink:tempo")
    assert ran.returncode != 0
    assert "Such spans are not compared" in ran.stdout


@pytest.fixture
def cutting() -> Iterator[DevServer]:
    """A Tempo as it is unless it is told otherwise."""
    with DevServer() as server:
        yield server


def test_what_is_cut_is_declared_by_name_and_counted_before_and_after(
    cutting: DevServer, old: Path, tmp_path: Path
) -> None:
    workplace = Workplace(tmp_path / "here", {"tempo": sink(cutting)}, max_content_length=None)
    (foretold,) = answer_of(workplace.call("backfill", old, "--dry-run", "--json"))["sinks"]
    workplace.backfill(old)
    verdict = workplace.verdicts()["tempo"]
    assert (verdict["exit_code"], verdict["sessions"], verdict["counts"]) == (0, 10, {})
    assert verdict["losses"].keys() == {"attributes-cut-at-2048-bytes"}
    (status,) = answer_of(workplace.call("status", "--json"))["sinks"]
    assert verdict["losses"]["attributes-cut-at-2048-bytes"] == status["cut_spans"] == foretold["cut"] > 0


def test_a_limit_that_was_raised_makes_no_difference_of_what_was_cut_before(
    cutting: DevServer, old: Path, legacy_traces: Path, tmp_path: Path
) -> None:
    workplace = Workplace(tmp_path / "here", {"tempo": sink(cutting) | {"max_attribute_bytes": 1_024}})
    workplace.backfill(old)
    workplace.configure({"tempo": sink(cutting) | {"max_attribute_bytes": 2_000}})
    more = sorted(legacy_traces.iterdir())[1]
    shutil.copytree(more, tmp_path / "more" / more.name)
    workplace.backfill(tmp_path / "more")
    verdict = workplace.verdicts()["tempo"]
    assert (verdict["exit_code"], verdict["sessions"], verdict["counts"]) == (0, 11, {})
    assert verdict["losses"].keys() == {"attributes-cut-at-2000-bytes"}, "the earlier cut is as it was foretold"


def test_what_an_earlier_mapping_has_cut_elsewhere_is_no_difference(
    cutting: DevServer, old: Path, tmp_path: Path
) -> None:
    workplace = Workplace(tmp_path / "here", {"tempo": sink(cutting) | {"max_attribute_bytes": 1_024}})
    workplace.backfill(old)
    cut_at, said = (
        sink_type.capabilities(OtelSettings(max_attribute_bytes=limit)).mapping_version for limit in (1_024, 2_000)
    )
    earlier = [f'"mapping":{version},' for version in (cut_at, said - 1)]
    with closing(sqlite3.connect(layout.state_file(workplace.trace_dir))) as db, db:
        assert db.execute("UPDATE rules SET text = replace(text, ?, ?)", earlier).rowcount == 1
    workplace.configure({"tempo": sink(cutting) | {"max_attribute_bytes": 2_000}})
    verdict = workplace.verdicts()["tempo"]
    assert (verdict["exit_code"], verdict["sessions"], verdict["counts"]) == (0, 10, {})


def test_what_a_restoration_cannot_bring_back_is_counted_by_the_name_of_the_loss(
    cutting: DevServer, tmp_path: Path
) -> None:
    workplace = Workplace(tmp_path / "here", {"tempo": sink(cutting)})
    tracer = workplace.tracer()
    with tracer.trace_session("s") as session, tracer.trace_turn(session, user_input="x" * 5_000):
        pass
    tracer.shutdown()
    answer = json.loads(workplace.call("restore", "--from", "tempo", "--out", tmp_path / "new", "--json").stdout)
    assert (answer["exit_code"], answer["totals"]) == (1, {"attributes-cut-at-2048-bytes": 1})


def test_a_spool_that_is_brought_back_says_what_no_search_finds(server: DevServer, tmp_path: Path) -> None:
    jsonl = {"enabled": False, "spool_keep": 0}
    workplace = Workplace(tmp_path / "here", {"jsonl": jsonl, "tempo": uncut(server)}, delivery="external")
    workplace.record("now")
    write_session(workplace.trace_dir, "late", at=LONG_AGO)
    empty(workplace)
    ran = workplace.call("migrate", "restore")
    assert (ran.returncode, ran.stdout.split("\n")[0]) == (1, "1 sessions are back from tempo")
    assert "not back: late: not at the backend" in ran.stdout
    assert "What of it no search finds is not back." in ran.stdout
