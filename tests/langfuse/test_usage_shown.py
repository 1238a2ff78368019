"""Tokens and cost as LangFuse shows them: counted once, never invented by us, and the agent's object reads back."""

from __future__ import annotations

import math
from typing import Any

import httpx
import pytest

from tests.langfuse.test_law import cut
from tests.langfuse.test_mapping import LLM
from tests.langfuse.test_reader import deliver
from tests.langfuse.test_reader import spans as in_one_trace
from tests.langfuse.test_usage_details import ANTHROPIC, OPENAI, SENT
from tracebridge.devserver import DevServer
from tracebridge.event import Json
from tracebridge.sink import Query
from tracebridge.span import Span
from tracebridge_langfuse.exact import same
from tracebridge_langfuse.reader import LangfuseReader
from tracebridge_langfuse.sink import LangfuseSink

UNLISTED = "acme-1"

NO_COUNTS: dict[str, Json] = {
    "negative": -1,
    "NaN": math.nan,
    "infinite": math.inf,
    "fractional": 2.5,
    "text": "5",
    "null": None,
    "a boolean": True,
    "2**63": 2**63,
    "over 2**53": 2**53,
    "a list": [1],
    "an object": {"count": 1},
}


def shown(backend: DevServer, sink: LangfuseSink, **fields: Any) -> tuple[Span, dict[str, Any]]:
    """An LLM span that was sent, and the observation that the server shows of it."""
    (sent,) = in_one_trace({**LLM, **fields})
    deliver(sink, sent)
    asked = {"traceId": sent.trace_id, "fields": "core,usage"}
    keys = (backend.public_key, backend.secret_key)
    (row,) = httpx.get(f"{backend.url}/api/public/v2/observations", params=asked, auth=keys).json()["data"]
    return sent, row


def assert_reads_back(reader: LangfuseReader, sent: Span) -> None:
    (found,) = reader.read(Query(trace_ids=(sent.trace_id,)))
    assert same(found.usage, sent.usage)
    assert same(found.cost, sent.cost)
    assert cut(found) == cut(sent) or any(map(is_nan, sent.usage.values()))


def is_nan(value: Json) -> bool:
    return isinstance(value, float) and math.isnan(value)


@pytest.mark.parametrize(("usage", "details"), SENT.values(), ids=SENT.keys())
def test_every_shape_is_counted_once_and_reads_back(
    backend: DevServer, sink: LangfuseSink, reader: LangfuseReader, usage: dict[str, Json], details: dict[str, int]
) -> None:
    sent, row = shown(backend, sink, model=UNLISTED, usage=usage)
    parts = {key: count for key, count in details.items() if key != "total"}
    added = {"total": sum(parts.values())} if details else {}
    assert row["usageDetails"] == added | details
    assert row["inputUsage"] == sum(count for key, count in parts.items() if key.startswith("input"))
    assert row["outputUsage"] == sum(count for key, count in parts.items() if key.startswith("output"))
    assert_reads_back(reader, sent)


@pytest.mark.parametrize("model", [UNLISTED, "gpt-4o"])
@pytest.mark.parametrize("value", NO_COUNTS.values(), ids=NO_COUNTS.keys())
def test_what_is_no_count_is_not_shown_and_never_a_zero(
    backend: DevServer, sink: LangfuseSink, reader: LangfuseReader, value: Json, model: str
) -> None:
    sent, row = shown(backend, sink, model=model, usage={"prompt": value, "completion": 7})
    assert row["usageDetails"] == {"output": 7, "total": 7}
    assert_reads_back(reader, sent)
    sent, row = shown(backend, sink, model=UNLISTED, usage={"prompt": value})
    assert row["usageDetails"] == {}
    assert_reads_back(reader, sent)


@pytest.mark.parametrize(
    ("model", "usage", "total"),
    [
        ("gpt-4o", OPENAI, 6 * 2.5e-6 + 4 * 1.25e-6 + 3 * 1e-5),  # its list has no price for reasoning
        ("claude-3-5-sonnet-20241022", ANTHROPIC, 10 * 3e-6 + 100 * 3e-7 + 7 * 3.75e-6 + 5 * 1.5e-5),
    ],
)
def test_cached_tokens_are_priced_as_such(
    backend: DevServer, sink: LangfuseSink, reader: LangfuseReader, model: str, usage: dict[str, Json], total: float
) -> None:
    sent, row = shown(backend, sink, model=model, usage=usage)
    assert row["totalCost"] == pytest.approx(total)
    assert_reads_back(reader, sent)


@pytest.mark.parametrize(
    ("cost", "total"),
    [(0.25, 0.25), (0, 0), ({"input": 0.1, "output": 0.2}, 0.3), ({"model": 0.5, "tools": 0.25}, 0.75)],
)
def test_a_cost_that_is_given_is_the_cost(
    backend: DevServer, sink: LangfuseSink, reader: LangfuseReader, cost: Json, total: float
) -> None:
    sent, row = shown(backend, sink, model="gpt-4o", usage={"prompt": 1_000, "completion": 1_000}, cost=cost)
    assert row["totalCost"] == pytest.approx(total)
    assert_reads_back(reader, sent)


@pytest.mark.parametrize("whole", ["total_cost", "totalCost", "total_usd", "total_cost_usd"])
def test_a_total_that_has_another_name_is_not_added_to_its_parts(
    backend: DevServer, sink: LangfuseSink, reader: LangfuseReader, whole: str
) -> None:
    cost: Json = {"input_cost": 0.1, "output_cost": 0.2, whole: 0.3}
    sent, row = shown(backend, sink, model="gpt-4o", usage={"prompt": 1_000, "completion": 1_000}, cost=cost)
    assert row["costDetails"] == {"input_cost": 0.1, "output_cost": 0.2, "total": 0.3}
    assert (row["inputCost"], row["outputCost"], row["totalCost"]) == (0.1, 0.2, 0.3)
    assert_reads_back(reader, sent)


def test_a_cost_whose_name_javascript_cannot_hold_reads_back(
    backend: DevServer, sink: LangfuseSink, reader: LangfuseReader
) -> None:
    sent, row = shown(backend, sink, model="gpt-4o", cost={"__proto__": 0.5, "input": 0.25})
    assert row["costDetails"] == {"input": 0.25, "total": 0.75}
    assert_reads_back(reader, sent)


def test_costs_that_the_server_cannot_add_up_lose_no_request(sink: LangfuseSink, reader: LangfuseReader) -> None:
    costs: Json = {f"Input_{number}": 99_999.5 for number in range(100)}
    sent, beside = in_one_trace({**LLM, "cost": costs}, {**LLM, "span_id": "2" * 16})
    deliver(sink, sent, beside)
    found = {span.span_id: span for span in reader.read(Query(trace_ids=(sent.trace_id,)))}
    assert found.keys() == {sent.span_id, beside.span_id}
    assert same(found[sent.span_id].cost, costs)


def test_what_the_server_counts_and_prices_by_itself_is_no_difference(
    backend: DevServer, sink: LangfuseSink, reader: LangfuseReader
) -> None:
    sent, row = shown(backend, sink, model="gpt-4o", input="one two three", output="four")
    assert (row["totalUsage"], row["totalCost"] > 0) == (4, True)
    assert_reads_back(reader, sent)
