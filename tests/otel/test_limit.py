"""What is sent to a backend that takes only so many bytes of an attribute."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.otel.test_jaeger_reader import turn
from tracebridge.event import Json
from tracebridge.span import Span
from tracebridge.testing.strategies import spans
from tracebridge_otel.configuration import OtelSettings
from tracebridge_otel.content import CARRIED
from tracebridge_otel.factory import sink_type
from tracebridge_otel.limit import SMALLEST, as_cut, cut_content, cut_text, is_cut, shows_cut
from tracebridge_otel.mapping import from_wire, to_wire
from tracebridge_otlp.decoding import decode_traces
from tracebridge_otlp.wire import WireSpan

CONTENT = {field for carried in CARRIED.values() for fields in carried.values() for field in fields}
LONG_TEXTS = ("x" * 5_000, "é" * 3_000, "\U0001f600" * 1_500, "\0" * 2_500, '"\\' * 2_000, "a…[cut 7 bytes]" * 400)


def long_values() -> st.SearchStrategy[Json]:
    text = st.sampled_from(LONG_TEXTS)
    message = st.builds(lambda role, content: {"role": role, "content": content}, st.just("user"), text)
    return (
        text
        | st.lists(message, min_size=1, max_size=3)
        | st.just([{"role": "user", "content": "a few words"}] * 200)
        | st.just(list(range(2_000)))
        | st.just({"k" * 3_000: {"deep": ["y" * 3_000]}})
        | st.just(10**3_000)
    )


@st.composite
def long_spans(draw: st.DrawFn) -> Span:
    """Spans of every kind, in which some of what its events give it is too long."""
    span = draw(spans())
    default = Span(kind="event", trace_id="", span_id="", name="", start_ns=0, end_ns=0, session_id="")
    longer: dict[str, Any] = {}
    for field in Span.__struct_fields__:
        value = getattr(span, field)
        if field in ("kind", "trace_id", "span_id", "parent_id", "fingerprint", "extent", "status"):
            continue
        if value == getattr(default, field) or not draw(st.booleans()):
            continue
        if field in CONTENT:
            longer[field] = draw(long_values())
            if isinstance(value, list):
                longer[field] = [*value, longer[field]]
        elif isinstance(value, str):
            longer[field] = draw(st.sampled_from(LONG_TEXTS))
        elif isinstance(value, dict):
            longer[field] = value | {"k" * 3_000: 1, "long": draw(long_values())}
        elif field == "tags":
            longer[field] = tuple(draw(st.lists(st.sampled_from(LONG_TEXTS), min_size=1, max_size=3)))
    return msgspec.structs.replace(span, **longer)


def sent(span: Span, limit: int, **more: Any) -> WireSpan:
    sink = sink_type.open_sink(OtelSettings(max_attribute_bytes=limit, **more))
    try:
        (received,) = decode_traces(sink.join([sink.encode(span)]))
    finally:
        sink.close()
    return received.span


def longest(wire: WireSpan) -> int:
    texts = [text for value in wire.attributes.values() for text in (value if isinstance(value, list) else [value])]
    return max(len(text.encode()) for text in (*texts, *wire.attributes) if isinstance(text, str))


def same(left: Span, right: Span) -> bool:
    """By which 1, 1.0 and True differ."""
    return msgspec.json.encode(left, order="sorted") == msgspec.json.encode(right, order="sorted")


@settings(max_examples=examples(40))
@given(long_spans(), st.sampled_from((SMALLEST, 2_048, 5_000)), st.sampled_from(("genai", "openinference")))
def test_no_attribute_is_longer_than_the_limit_and_what_was_sent_reads_back(
    span: Span, limit: int, semconv: str
) -> None:
    wire = sent(span, limit, semconv=semconv, attributes={"team": "z" * 9_000})
    assert longest(wire) <= limit
    assert same(from_wire(wire), cut_content(span, limit))


@settings(max_examples=examples(40))
@given(long_spans(), st.sampled_from((SMALLEST, 2_048, 5_000)))
def test_the_cut_is_idempotent_shows_and_touches_nothing_but_content(span: Span, limit: int) -> None:
    before = msgspec.json.encode(span)
    once = cut_content(span, limit)
    assert msgspec.json.encode(span) == before
    assert cut_content(once, limit) is once
    changed = {field for field in Span.__struct_fields__ if getattr(span, field) != getattr(once, field)}
    assert changed <= CONTENT
    if changed:
        assert shows_cut(once)
    else:
        assert same(span, once)


@settings(max_examples=examples(40))
@given(long_spans(), st.sampled_from((SMALLEST, 2_048, 5_000)))
def test_what_was_cut_anywhere_is_known_as_the_beginning_of_just_this(span: Span, limit: int) -> None:
    cut = cut_content(span, limit)
    assert same(as_cut(span, cut), cut)
    assert same(as_cut(span, span), span)


@pytest.mark.parametrize(
    "shown",
    ["abd…[cut 3 bytes]", "abc…[cut 2 bytes]", "abc", "…[cut 7 bytes]", ["abc…[cut 3 bytes]"], {"a": 1}, None],
    ids=str,
)
@pytest.mark.parametrize("whole", ["abcdef", [{"role": "user", "content": "abcdef"}]], ids=str)
def test_what_is_no_beginning_of_it_is_not_taken_for_its_cut(whole: Json, shown: Json) -> None:
    span = msgspec.structs.replace(turn(1), input=whole)
    told = [{"role": "user", "content": shown}] if isinstance(whole, list) else shown
    assert as_cut(span, msgspec.structs.replace(span, input=told)) == span


@given(spans())
def test_a_span_that_fits_is_sent_as_if_there_were_no_limit(span: Span) -> None:
    wire = sent(span, 0)
    if longest(wire) <= 4_096:
        assert sent(span, 4_096) == wire
        assert cut_content(span, 4_096) is span


@given(st.text(st.characters(codec="utf-8"), max_size=80), st.integers(0, 100))
def test_a_cut_text_keeps_its_beginning_and_counts_the_bytes_that_went(text: str, limit: int) -> None:
    cut = cut_text(text, limit)
    if len(text.encode()) <= limit:
        assert cut == text
        return
    kept, _, mark = cut.rpartition("…[cut ")
    assert text.startswith(kept)
    assert len(kept.encode()) + int(mark.removesuffix(" bytes]")) == len(text.encode())
    assert len(cut.encode()) <= limit or kept == ""
    assert is_cut(cut)


@pytest.mark.parametrize("text", ["", "x", "…[cut 7]", "…[cut 0 bytes]", "…[cut 7 bytes] ", "[cut 7 bytes]"])
def test_a_text_without_the_mark_is_not_cut(text: str) -> None:
    assert not is_cut(text)


def test_messages_stay_messages_and_keep_as_much_as_has_room() -> None:
    messages = [{"role": "system", "content": "s" * 5_000}, {"role": "user", "content": "short"}]
    cut = cut_content(msgspec.structs.replace(turn(1), kind="llm", input=messages), 2_048)
    assert [message["role"] for message in cut.input] == ["system", "user"]
    assert cut.input[1] == messages[1]
    kept, _, mark = cut.input[0]["content"].partition("…[cut ")
    assert len(kept) + int(mark.removesuffix(" bytes]")) == 5_000
    assert len(kept) > 1_500


def test_of_more_messages_than_have_room_the_first_are_kept_as_text() -> None:
    span = msgspec.structs.replace(turn(1), kind="llm", input=[{"role": "user", "content": "words"}] * 200)
    cut = cut_content(span, 2_048)
    assert isinstance(cut.input, str)
    assert cut.input.startswith('[{"role":"user","content":"words"},{"role":')
    assert is_cut(cut.input)


def test_what_is_cut_at_one_place_leaves_the_rest_of_the_span_whole() -> None:
    span = msgspec.structs.replace(turn(1), kind="tool", input={"q": "x" * 5_000}, output="y" * 2_000)
    cut = cut_content(span, 2_048)
    assert (cut.output, is_cut(cut.input["q"])) == (span.output, True)


def test_what_is_no_content_is_cut_for_the_eye_and_whole_in_the_remainder() -> None:
    span = msgspec.structs.replace(turn(1), user_id="u" * 3_000, tags=("t" * 3_000,), metadata={"k" * 3_000: "v"})
    wire = sent(span, 2_048)
    assert is_cut(wire.attributes["user.id"])
    assert "tracebridge.tags" not in wire.attributes
    assert [name for name in wire.attributes if name.startswith("tracebridge.remainder")] == [
        "tracebridge.remainder",
        *(f"tracebridge.remainder.{number}" for number in range(2, 6)),
    ]
    assert from_wire(wire) == span


def test_the_fingerprint_and_the_ids_survive_every_limit() -> None:
    span = msgspec.structs.replace(turn(1), input="x" * 9_000, fingerprint="0123456789ab")
    wire = sent(span, SMALLEST)
    assert (wire.trace_id, wire.span_id) == (span.trace_id, span.span_id)
    assert wire.attributes["tracebridge.fingerprint"] == "0123456789ab"


def test_a_remainder_of_which_a_part_was_lost_reads_as_one_that_was_changed() -> None:
    span = msgspec.structs.replace(turn(1), user_id="u" * 3_000, run_id="run-1")
    wire = sent(span, 2_048)
    del wire.attributes["tracebridge.remainder.2"]
    assert from_wire(wire).run_id == ""


def test_a_limit_is_a_part_of_the_rules_that_a_span_is_sent_with() -> None:
    versions = {
        sink_type.capabilities(OtelSettings(max_attribute_bytes=limit, semconv=semconv)).mapping_version
        for limit in (0, 2_048, 4_096)
        for semconv in ("genai", "openinference")
    }
    assert len(versions) == 6


def test_a_value_that_was_never_cut_maps_as_before() -> None:
    assert to_wire(turn(1)) == sent(turn(1), 0)
