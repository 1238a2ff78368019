"""`tracebridge open`: the pages of a session's traces."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.delivery.rig import write_session
from tests.workplace import Workplace

LANGFUSE = {"host": "http://127.0.0.1:9/", "public_key": "pk", "secret_key": "sk-lf-hidden"}
OTEL = {"endpoint": "http://127.0.0.1:9", "reader": {"type": "jaeger", "url": "http://127.0.0.1:16686/"}}
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    sinks = {"langfuse": LANGFUSE, "otel": OTEL, "other": {"type": "otel", "endpoint": "http://127.0.0.1:9"}}
    return Workplace(tmp_path, sinks, delivery="external")


def test_each_trace_of_a_session_is_told_with_its_page_at_each_backend(workplace: Workplace) -> None:
    workplace.record("user/1")
    told = workplace.call("open", "user/1")
    assert told.returncode == 0
    run, *_, turn = [line for line in told.stdout.splitlines() if not line.startswith("  ")]
    assert run.split()[1] == "run"
    trace_id, _, what = turn.partition("  ")
    assert what == "turn 1: hi"
    assert f"  langfuse: http://127.0.0.1:9/trace/{trace_id}\n" in told.stdout
    assert f"  otel: http://127.0.0.1:16686/trace/{trace_id}\n" in told.stdout
    assert "  other: no page is known" in told.stdout


def test_a_page_of_another_kind_is_told_by_its_pattern(workplace: Workplace) -> None:
    page = "https://grafana.example/explore?id={trace_id}&x={y}"
    workplace.configure({"otel": {**OTEL, "trace_page": page}}, delivery="external")
    (trace,) = json.loads(workplace.call("open", TRACE, "--json").stdout)
    assert trace == {
        "trace_id": TRACE,
        "what": "trace",
        "pages": {"otel": f"https://grafana.example/explore?id={TRACE}&x={{y}}"},
    }


@pytest.mark.parametrize("page", ["grafana", "http://127.0.0.1/trace/"])
def test_a_pattern_without_a_place_for_the_id_is_a_mistake(workplace: Workplace, page: str) -> None:
    workplace.configure({"otel": {**OTEL, "trace_page": page}}, delivery="external")
    told = workplace.call("open", TRACE)
    assert told.returncode == 2
    assert "trace_page" in told.stderr


def test_a_session_of_a_backfilled_folder_in_the_original_format_is_found(workplace: Workplace, tmp_path: Path) -> None:
    write_session(tmp_path / "old", "long-ago", turns=2)
    workplace.configure({"langfuse": LANGFUSE}, delivery="external")
    workplace.call("backfill", tmp_path / "old", "--patience", "0.1")
    told = json.loads(workplace.call("open", "long-ago", "--json").stdout)
    assert [trace["what"].partition(":")[0].split()[0] for trace in told] == ["run", "turn", "turn"]


def test_what_is_still_open_has_a_page_too(workplace: Workplace, tmp_path: Path) -> None:
    write_session(workplace.trace_dir, "open", turns=1, end=False)
    assert "turn 1" in workplace.call("open", "open").stdout


def test_an_unknown_name_is_told_with_what_to_give(workplace: Workplace) -> None:
    told = workplace.call("open", "nobody")
    assert (told.returncode, told.stdout) == (2, "")
    assert "no session 'nobody'" in told.stderr
    assert "32 hex digits" in told.stderr
