"""Law 2 for LangFuse: what is read back is what was sent, up to the declared losses."""

from __future__ import annotations

import json
import math
import operator
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tracebridge.assembler import Assembler, Place, disassemble
from tracebridge.event import Json, event_from_json
from tracebridge.sink import Outcome, Query
from tracebridge.span import Edge, Prompt, Span
from tracebridge.testing.strategies import json_values, messages, spans, texts, usages
from tracebridge_langfuse.exact import same
from tracebridge_langfuse.losses import LOSSES
from tracebridge_langfuse.mapping import to_wire
from tracebridge_langfuse.reader import LangfuseReader
from tracebridge_langfuse.sink import LangfuseSink

HALF_A_CHARACTER = "\ud800"
TOOLS_NAMED_BY_HALF_A_CHARACTER = (
    '[{"type": "tool_use", "id": "1", "name": "a\\ud800", "input": {}}]',
    ' {"messages": [], "tools": [{"function": {"name": "\\uDC00"}}]}',
    '{"tool_calls": "[{\\"id\\": \\"1\\", \\"name\\": \\"\\\\ud83d\\", \\"arguments\\": \\"{}\\"}]"}',
)
"""Texts that the server reads as JSON, to index the tools in them by their names."""
TAKEN_KEYS = (
    "tracebridge",
    "turn.number",
    "scope",
    "scope.name",
    "attributes.x",
    "langfuse_tags",
    "__proto__",
    "a.b",
)


def cut(span: Span) -> Span:
    """What is left after the one loss that every server causes."""
    return LOSSES[0].apply(span)


def without_losses(span: Span) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(cut(span))
    return fields


def in_one_trace(some: Sequence[Span]) -> list[Span]:
    trace_id = secrets.token_hex(16)
    return [
        msgspec.structs.replace(span, trace_id=trace_id, span_id=f"{number:016x}")
        for number, span in enumerate(some, 1)
    ]


def assert_comes_back(sink: LangfuseSink, reader: LangfuseReader, sent: Sequence[Span]) -> None:
    receipt = sink.deliver(sink.join([sink.encode(span) for span in sent]))
    assert receipt.outcome is Outcome.ACCEPTED, receipt.message
    query = Query(trace_ids=(sent[0].trace_id,))
    back = {span.span_id: without_losses(span) for span in reader.read(query)}
    assert back.keys() == {span.span_id for span in sent}
    for span in sent:
        expected, found = without_losses(span), back[span.span_id]
        different = {name: (value, found[name]) for name, value in expected.items() if not same(value, found[name])}
        assert not different, (span.kind, different)


def hostile_values() -> st.SearchStrategy[Json]:
    """What old writers left in their files, and text that looks like something else."""
    leaves = st.sampled_from(
        (
            HALF_A_CHARACTER,
            f"a{HALF_A_CHARACTER}b",
            math.nan,
            math.inf,
            -math.inf,
            "",
            "NaN",
            "[NaN]",
            "[1",
            "\\ud800",
            *TOOLS_NAMED_BY_HALF_A_CHARACTER,
        )
    )
    inner = st.lists(leaves | json_values(), max_size=2) | st.dictionaries(
        st.sampled_from((HALF_A_CHARACTER, *TAKEN_KEYS)), leaves | json_values(), max_size=2
    )
    return leaves | inner | json_values()


def hostile_spans() -> st.SearchStrategy[Span]:
    """Spans with what no kind of span should have: the mapping must not trust whoever made them."""
    fields = st.dictionaries(st.sampled_from((*TAKEN_KEYS, "stage", "")), hostile_values(), max_size=3)
    text = texts() | st.sampled_from((HALF_A_CHARACTER, "x" * 500, "a,b", "langfuse-x", "Production", "default"))
    times = st.integers(-(2**70), 2**70)
    return st.builds(
        msgspec.structs.replace,
        spans(),
        kind=st.sampled_from(("session", "turn", "llm", "tool", "thinking", "event")),
        start_ns=times,
        end_ns=times,
        metadata=fields,
        session_id=text.filter(bool),
        user_id=text,
        environment=text,
        agent_name=text | st.just("agent"),
        tags=st.lists(text, max_size=3).map(tuple),
        input=hostile_values(),
        output=hostile_values() | messages(),
        tool_calls=st.lists(hostile_values(), max_size=1),
        thinking=st.none() | hostile_values(),
        tool_definitions=st.lists(hostile_values(), max_size=1),
        model_parameters=fields,
        usage=usages() | fields,
        cost=hostile_values(),
        time_to_first_token_ms=st.none() | st.floats() | st.integers(),
        prompt=st.none() | st.builds(Prompt, name=text, version=st.integers()),
        opened=st.none() | st.builds(Edge, ordinal=st.just(1), timestamp=text, fields=fields, extra=fields),
    )


@settings(max_examples=examples(30))
@given(st.lists(spans(), min_size=1, max_size=20).map(in_one_trace))
def test_every_field_of_every_span_comes_back(sink: LangfuseSink, reader: LangfuseReader, sent: list[Span]) -> None:
    assert_comes_back(sink, reader, sent)


@settings(max_examples=examples(20))
@given(st.lists(hostile_spans(), min_size=1, max_size=20).map(in_one_trace))
def test_hostile_values_come_back_too_and_never_lose_a_request(
    sink: LangfuseSink, reader: LangfuseReader, sent: list[Span]
) -> None:
    assert_comes_back(sink, reader, sent)


def assembled(journal: Sequence[dict[str, Json]]) -> Iterator[Span]:
    assembler = Assembler()
    for ordinal, fields in enumerate(journal):
        for span in assembler.feed(event_from_json(fields), Place(0, ordinal)):
            yield msgspec.structs.replace(span, fingerprint="f1")
    assert assembler.is_idle


def test_real_sessions_come_back_and_give_their_events_back(
    sink: LangfuseSink, reader: LangfuseReader, legacy_traces: Path
) -> None:
    for file in sorted(legacy_traces.glob("session-*/events.jsonl"))[::5]:
        journal = [json.loads(line) for line in file.read_text().splitlines()]
        sent = list(assembled(journal))
        receipt = sink.deliver(sink.join([sink.encode(span) for span in sent]))
        assert receipt.outcome is Outcome.ACCEPTED, receipt.message
        back = list(reader.read(Query(session_id=sent[0].session_id)))
        key = operator.attrgetter("trace_id", "span_id")
        assert sorted(map(cut, back), key=key) == sorted(map(cut, sent), key=key)
        assert disassemble(back) == journal


def test_real_spans_leave_no_copies_in_the_remainder(legacy_traces: Path) -> None:
    for file in sorted(legacy_traces.glob("session-*/events.jsonl"))[::5]:
        for span in assembled([json.loads(line) for line in file.read_text().splitlines()]):
            text = to_wire(span).attributes["langfuse.observation.metadata.tracebridge"]
            kept = json.loads(json.loads(text)).get("exact", {})
            assert set(kept) <= {"links", "output"}
            assert kept.get("output", "") == ""  # which the server would take for no output
            assert len(text) < 1_000


@pytest.mark.slow
@pytest.mark.timeout(600)
@settings(max_examples=examples(100))
@given(st.lists(spans() | hostile_spans(), min_size=1, max_size=40).map(in_one_trace))
def test_thousands_of_spans_come_back(sink: LangfuseSink, reader: LangfuseReader, sent: list[Span]) -> None:
    assert_comes_back(sink, reader, sent)
