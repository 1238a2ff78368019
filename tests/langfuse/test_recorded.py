"""What the mapping relies on, against recordings of a real LangFuse 4.16 server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.langfuse.scripted import scripted
from tracebridge.secret import Secret
from tracebridge.sink import Query
from tracebridge.span import Span
from tracebridge_langfuse import names
from tracebridge_langfuse.configuration import LangfuseSettings
from tracebridge_langfuse.reader import LangfuseReader
from tracebridge_langfuse.served import served_costs, served_json, served_parameters
from tracebridge_langfuse.usage_details import named_usage, usage_details, usage_of

EDGE_USAGE = (
    "usage-no-model-usage",
    "usage-unknown-model",
    "usage-total-only",
    "usage-total-mismatch",
    "usage-big",
)


def recorded(shared: Path, name: str) -> dict[str, Any]:
    (path,) = (shared / "recorded").glob(f"*-events_only-{name}.json")
    value: dict[str, Any] = json.loads(path.read_text())
    return value


def attributes_sent(shared: Path, name: str) -> dict[str, str]:
    (resource,) = recorded(shared, f"edge-{name}-post")["request"]["body"]["resourceSpans"]
    (sent,) = resource["scopeSpans"][0]["spans"]
    return {entry["key"]: entry["value"].get("stringValue") for entry in sent["attributes"]}


def row_read(shared: Path, name: str) -> dict[str, Any]:
    (row,) = recorded(shared, f"edge-{name}-read")["response"]["body"]["data"]
    found: dict[str, Any] = row
    return found


@pytest.mark.parametrize("name", EDGE_USAGE)
def test_counts_that_are_sent_come_back_and_what_is_added_is_not_read(shared: Path, name: str) -> None:
    sent = json.loads(attributes_sent(shared, name)[names.USAGE_DETAILS])
    details = usage_details(sent)
    back = row_read(shared, name)["usageDetails"]
    assert back.items() >= sent.items()
    named, rest = named_usage(sent, details)
    assert usage_of(named, rest, back) == sent


def test_our_conversion_of_openais_usage_has_the_servers_numbers(shared: Path) -> None:
    sent = json.loads(attributes_sent(shared, "usage-openai-prompt_tokens")[names.USAGE_DETAILS])
    theirs, ours = row_read(shared, "usage-openai-prompt_tokens")["usageDetails"], usage_details(sent)
    assert ours["input"] == theirs["input"]
    assert ours["input_cached_tokens"] == theirs["input_cached_tokens"]
    assert ours["output"] == theirs["output"]
    assert ours[names.USAGE_REASONING] == theirs[names.USAGE_REASONING]
    assert ours["total"] == theirs["total"]


def test_our_cache_keys_have_a_price(shared: Path) -> None:
    priced = {
        key
        for path in (shared / "recorded").glob("*models*.json")
        for model in json.loads(path.read_text())["response"]["body"].get("data", [])
        for key in model.get("prices", {})
    }
    assert priced >= {names.USAGE_INPUT, names.USAGE_OUTPUT, names.USAGE_CACHE_READ, names.USAGE_CACHE_WRITE}


def test_costs_keep_twelve_decimals(shared: Path) -> None:
    for name in ("usage-cost-only", "usage-cost-total-only"):
        sent = json.loads(attributes_sent(shared, name)[names.COST_DETAILS])
        assert row_read(shared, name)["costDetails"].items() >= served_costs(sent).items()


def test_metadata_is_parsed_once_and_with_javascripts_numbers(shared: Path) -> None:
    back = row_read(shared, "metadata-types")["metadata"]
    compared = 0
    for name, text in attributes_sent(shared, "metadata-types").items():
        try:
            value = msgspec.json.decode(text)
        except msgspec.DecodeError:
            continue  # never sent: we send JSON only
        found = back[name.removeprefix(names.METADATA)]
        assert (type(found), found) == (type(served_json(value)), served_json(value))
        compared += 1
    assert compared >= 8


def test_parameters_that_are_neither_number_nor_text_become_text(shared: Path) -> None:
    rows = recorded(shared, "v2-observations-allfields-sdk")["response"]["body"]["data"]
    parameters = [row["modelParameters"] for row in rows if row["modelParameters"]]
    assert parameters == [{"temperature": 0.5, "max_tokens": 100}]
    assert served_parameters({**parameters[0], "stop": ["a"]}) == {**parameters[0], "stop": '["a"]'}


def test_a_scope_name_of_the_sdks_keeps_attributes_out_of_the_metadata(shared: Path) -> None:
    rows = recorded(shared, "v2-observations-allfields-sdk")["response"]["body"]["data"]
    assert {row["metadata"]["scope.name"] for row in rows} == {"langfuse-sdk"}
    assert names.SCOPE.startswith("langfuse-sdk")
    assert not [key for row in rows for key in row["metadata"] if key.startswith("attributes.")]


def test_recorded_answers_are_read_as_foreign_spans(shared: Path) -> None:
    body = recorded(shared, "v2-observations-allfields-otlp")["response"]["body"]
    with scripted(lambda path, _: (200, body)) as url:
        reader = LangfuseReader(LangfuseSettings(host=url, public_key="pk", secret_key=Secret("sk")))
        found: dict[str, Span] = {span.name: span for span in reader.read(Query(session_id="otlp-session"))}
        reader.close()
    assert {name: span.kind for name, span in found.items()} == {
        "root-span": "turn",
        "gen-span": "llm",
        "bare-span": "llm",
    }
    root, call = found["root-span"], found["gen-span"]
    assert not [span for span in found.values() if span.fingerprint]
    assert (root.user_id, root.tags, root.release, root.agent_name) == (
        "otlp-user",
        ("a", "b"),
        "r1",
        "otlp-trace",
    )
    assert root.input == {"q": "é 日本 😀", "n": 1.5}
    assert root.end_ns - root.start_ns == 5_864_000_000
    assert (call.model, call.status) == ("gpt-4o-mini", "error")
    assert call.error is not None
    assert call.error.message == "rate limited"
    assert call.time_to_first_token_ms == 500
    assert call.tool_calls[0]["function"]["name"] == "f"
    assert call.output == "ok"
