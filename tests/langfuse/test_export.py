"""LangFuse's blob-storage export: rows as its database has them come back as the spans that were sent."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from tracebridge.errors import BackendError
from tracebridge.span import Span
from tracebridge.testing.strategies import spans
from tracebridge.validation import compare
from tracebridge_langfuse import names
from tracebridge_langfuse.export import LangfuseExport
from tracebridge_langfuse.mapping import to_wire
from tracebridge_langfuse.served import served

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
GROUPS = {
    "io": ("input", "output"),
    "time": ("completion_start_time", "created_at", "updated_at"),
    "model": ("provided_model_name", "model_parameters", "model_id"),
    "usage": ("usage_details", "cost_details", "total_cost"),
    "prompt": ("prompt_name", "prompt_version", "prompt_id"),
    "trace_context": ("tags", "release", "trace_name"),
}


def moment(ms: int | None) -> str | None:
    return None if ms is None else f"{EPOCH + timedelta(milliseconds=ms):%Y-%m-%d %H:%M:%S.%f}"


def row_of(span: Span) -> dict[str, Any]:
    """The row of a span: what was sent in the columns, as text where the database keeps text."""
    wire = to_wire(span)
    seen = served(wire)
    return {
        "id": seen.id,
        "trace_id": seen.trace_id,
        "project_id": "p",
        "start_time": moment(seen.start_ms),
        "end_time": moment(seen.end_ms),
        "parent_observation_id": seen.parent_id,
        "type": seen.type,
        "name": seen.name,
        "level": seen.level,
        "status_message": seen.status_message,
        "version": "",
        "environment": seen.environment,
        "user_id": seen.user_id,
        "session_id": seen.session_id,
        "is_root_observation": seen.is_root,
        "completion_start_time": moment(seen.completion_start_ms),
        "created_at": moment(seen.start_ms),
        "updated_at": moment(seen.start_ms),
        "input": seen.input,
        "output": seen.output,
        "metadata": {
            name.removeprefix(names.METADATA): value
            for name, value in wire.attributes.items()
            if name.startswith(names.METADATA)
        },
        "provided_model_name": seen.model,
        "model_parameters": json.dumps(seen.model_parameters),
        "model_id": "",
        "usage_details": {key: str(value) for key, value in seen.usage_details.items()},
        "cost_details": seen.cost_details,
        "total_cost": 0,
        "prompt_name": "",
        "prompt_version": None,
        "prompt_id": "",
        "tags": list(seen.tags),
        "release": seen.release,
        "trace_name": seen.trace_name,
    }


def written(folder: Path, name: str, rows: Iterable[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path = folder / name
    path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return path


def span(number: int = 1, **changes: Any) -> Span:
    whole = Span(
        kind="llm",
        trace_id=f"{number:032x}",
        span_id=f"{number:016x}",
        name="llm",
        start_ns=1_770_415_800_123_456_789,
        end_ns=1_770_415_801_123_456_789,
        session_id="s",
        user_id="u",
        agent_name="helper",
        tags=("a", "b"),
        release="1.0",
        metadata={"plan": "pro", "seats": 3, "share": 1.0, "number": "123"},
        input=[{"role": "user", "content": "hello"}],
        output="hi",
        model="gpt-4",
        model_parameters={"temperature": 0.5, "stop": ["x"]},
        time_to_first_token_ms=20,
        usage={"prompt": 10, "completion": 5},
        cost=0.25,
        fingerprint="0123456789ab",
    )
    return msgspec.structs.replace(whole, **changes)


def is_equal(sent: Sequence[Span], export: LangfuseExport) -> bool:
    comparison = compare(sent, export.read(), export.losses)
    return comparison.equal == len(sent) and not comparison.findings


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(one=spans())
def test_law_a_span_comes_back_from_its_row(one: Span, tmp_path: Path) -> None:
    sent = msgspec.structs.replace(one, fingerprint="0123456789ab")
    export = LangfuseExport.open([written(tmp_path, "rows.jsonl", [row_of(sent)])])
    assert compare([sent], export.read(), export.losses).findings == ()


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_all_rows_of_all_files_are_read_and_scores_are_not(tmp_path: Path, name: str) -> None:
    sent = [span(1), span(2, start_ns=1_770_415_900_000_000_000)]
    files = [written(tmp_path, f"{number}{name}", [row_of(one)]) for number, one in enumerate(sent)]
    (tmp_path / "scores").mkdir()
    scores = written(tmp_path / "scores", name, [{"id": "x", "value": 1}])
    assert is_equal(sent, LangfuseExport.open([scores, *files]))


@pytest.mark.parametrize("group", sorted(GROUPS))
def test_what_an_export_leaves_out_is_a_declared_loss(tmp_path: Path, group: str) -> None:
    sent = [span(1), span(2, kind="tool", name="find_order", model="", usage={}, cost=None)]
    rows = [{key: value for key, value in row_of(one).items() if key not in GROUPS[group]} for one in sent]
    export = LangfuseExport.open([written(tmp_path, "rows.jsonl", rows)])
    assert f"export-without-{group}" in {loss.name for loss in export.losses}
    assert is_equal(sent, export)


def test_what_begins_where_two_windows_meet_is_yielded_once(tmp_path: Path) -> None:
    first, last = span(1), span(2, start_ns=1_770_415_900_000_000_000)
    files = [
        written(tmp_path, "1.jsonl", map(row_of, [first, last])),
        written(tmp_path, "2.jsonl", map(row_of, [last])),
    ]
    assert is_equal([first, last], LangfuseExport.open(files))


def test_a_copy_that_is_stored_is_yielded_again(tmp_path: Path) -> None:
    """Of the copies of a span one file shows one; those of different windows show in their files."""
    copies = [span(1), span(1, start_ns=1_770_415_900_000_000_000)]
    files = [written(tmp_path, f"{number}.jsonl", [row_of(one)]) for number, one in enumerate(copies)]
    assert [one.span_id for one in LangfuseExport.open(files).read()] == [span(1).span_id] * 2


def without(*columns: str) -> Callable[[dict[str, Any]], str]:
    return lambda row: json.dumps({key: value for key, value in row.items() if key not in columns})


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (lambda _: "id,trace_id", "cannot be read"),
        (lambda _: "[1]", "no JSON object"),
        (without("metadata"), "lacks the field groups metadata"),
        (without("session_id", "metadata"), "lacks the field groups basic, metadata"),
        (without("start_time"), "no row of LangFuse's export"),
        (lambda row: json.dumps(row | {"start_time": "yesterday"}), "no row of LangFuse's export"),
        (lambda row: json.dumps(row | {"usage_details": {"input": "many"}}), "no row of LangFuse's export"),
    ],
)
def test_what_is_no_export_is_told_by_file_and_line(
    tmp_path: Path, line: Callable[[dict[str, Any]], str], words: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(line(row_of(span())) + "\n")
    with pytest.raises(BackendError, match=rf"rows\.jsonl, line 1: .*{words}"):
        list(LangfuseExport.open([path]).read())


def test_a_compressed_file_that_was_cut_is_an_error_and_no_shorter_export(tmp_path: Path) -> None:
    path = written(tmp_path, "rows.jsonl.gz", [row_of(span(number)) for number in range(1, 200)])
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(BackendError, match="cannot be read"):
        list(LangfuseExport.open([path]).read())
