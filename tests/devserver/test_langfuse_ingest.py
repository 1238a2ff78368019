"""What Langfuse is known to make of spans, case by case."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.devserver.exports import END_NS, START_NS, export, span
from tracebridge.devserver.langfuse_answer import metadata_value
from tracebridge.devserver.langfuse_ingest import (
    cost_details,
    environment,
    observation_type,
    observations,
    usage_details,
    xxh32,
)
from tracebridge.devserver.otlp import (
    UnstorableError,
    has_lone_surrogate,
    parse_json,
    received_from_json,
    received_from_message,
    rejection,
    request_from_json,
)
from tracebridge.devserver.prices import model_named
from tracebridge.devserver.store import Observation

NOW = 1_770_000_000_000


def stored(attributes: dict[str, Any] | None = None, scope: str = "langfuse-sdk", **fields: Any) -> Observation:
    (row,) = observations(received_from_json(export(span(attributes, **fields), scope=scope)), NOW, NOW)
    return row


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, "SPAN"),
        ({"langfuse.observation.type": "retriever"}, "RETRIEVER"),
        ({"langfuse.observation.type": "TOOL"}, "SPAN"),
        ({"langfuse.observation.type": "nonsense"}, "SPAN"),
        ({"langfuse.observation.type": "span", "gen_ai.operation.name": "chat"}, "SPAN"),
        ({"openinference.span.kind": "LLM"}, "GENERATION"),
        ({"openinference.span.kind": "TOOL", "gen_ai.operation.name": "chat"}, "TOOL"),
        ({"gen_ai.operation.name": "invoke_agent"}, "AGENT"),
        ({"gen_ai.operation.name": "execute_tool"}, "TOOL"),
        ({"gen_ai.request.model": "m"}, "GENERATION"),
    ],
)
def test_the_observation_type_follows_the_attributes(attributes: dict[str, Any], expected: str) -> None:
    assert observation_type(attributes) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Prod", "prod"),
        ("x" * 50, "x" * 40),
        ("langfuse-staging", "staging"),
        ("langfuse_x", "x"),
        ("LangfuseLangfuse-" + "x" * 50, "x" * 40),
        ("langfuse", "default"),
        ("two words", "default"),
        ("", "default"),
        ("ok_env-1", "ok_env-1"),
    ],
)
def test_environments_are_rewritten(given: str, expected: str) -> None:
    assert environment(given) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"input": 3, "output": 4}, {"input": 3, "output": 4, "total": 7}),
        ({"input": 3, "cache": 4, "total": 1}, {"input": 3, "cache": 4, "total": 1}),
        ({"input": "3"}, {"input": 3, "total": 3}),
        ({"input": "3.7 tokens", "output": "many"}, {"input": 3, "total": 3}),
        ({"input": -3, "output": 4}, {"output": 4, "total": 4}),
        ({"input": None, "output": 1.5}, {}),
        ({"input": {"nested": 1}}, {}),
        ({"input": 2**64 + 5, "total": 1}, {"input": 5, "total": 1}),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 4,
                "total_tokens": 13,
                "prompt_tokens_details": {"cached_tokens": 2},
            },
            {"input": 7, "output": 4, "total": 13, "input_cached_tokens": 2},
        ),
    ],
)
def test_usage_is_whole_numbers_with_a_total(raw: dict[str, Any], expected: dict[str, int]) -> None:
    assert usage_details(raw) == expected


def test_genai_usage_counts_cached_and_reasoning_tokens_once() -> None:
    row = stored(
        {
            "gen_ai.usage.input_tokens": 100,
            "gen_ai.usage.output_tokens": 50,
            "gen_ai.usage.cache_read.input_tokens": 30,
            "gen_ai.usage.reasoning.output_tokens": 20,
        }
    )
    parts = {"input": 70, "output": 30, "input_cached_tokens": 30, "output_reasoning_tokens": 20}
    assert row.usage == parts | {"total": 150}


def test_given_cost_wins_over_the_price_list_and_text_costs_nothing() -> None:
    known = model_named("gpt-4o")
    assert cost_details({"input": 0.25, "output": "0.5"}, {"input": 10}, known) == {
        "input": 0.25,
        "output": 0.0,
        "total": 0.25,
    }
    assert cost_details({}, {"input": 10, "total": 10}, known) == {"input": 2.5e-05, "total": 2.5e-05}
    assert cost_details({}, {"input": 10}, model_named("unheard-of")) == {}


def test_a_given_cost_of_more_than_input_and_output_gets_no_total() -> None:
    assert cost_details({"input": 0.5, "cache": 0.25}, {"input": 10}, model_named("gpt-4o")) == {
        "input": 0.5,
        "cache": 0.25,
    }


def test_costs_keep_twelve_decimals_and_six_digits_before_them() -> None:
    assert cost_details({"total": 0.1234567890129}, {}, None) == {"total": 0.123456789012}
    assert cost_details({"total": 1e9}, {}, None) == {"total": 999999.999999}


def test_usage_is_invented_for_a_known_model_with_content_only() -> None:
    content = {"langfuse.observation.input": "one two", "langfuse.observation.output": "three"}
    assert stored({"langfuse.observation.model.name": "gpt-4o"} | content).usage == {
        "input": 2,
        "output": 1,
        "total": 3,
    }
    assert stored({"langfuse.observation.model.name": "unheard-of"} | content).usage == {}


def test_usage_is_not_invented_where_the_cost_was_given() -> None:
    given = {
        "langfuse.observation.model.name": "gpt-4o",
        "langfuse.observation.input": "one two",
        "langfuse.observation.cost_details": '{"total": 0.5}',
    }
    assert (stored(given).usage, stored(given).cost) == ({}, {"total": 0.5})


SEARCH = {"type": "function", "function": {"name": "search"}}
BOOK = {"name": "book"}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('[{"role":"user"}]', {"messages": [{"role": "user"}], "tools": [SEARCH, BOOK]}),
        ('{"a":1}', {"a": 1, "tools": [SEARCH, BOOK]}),
        ('{"tools":[{"name":"book","x":1}]}', {"tools": [{"name": "book", "x": 1}, SEARCH]}),
        ("Hello!", {"prompt": "Hello!", "tools": [SEARCH, BOOK]}),
        (None, {"tools": [SEARCH, BOOK]}),
    ],
)
def test_tool_definitions_in_the_metadata_are_moved_into_the_input(source: str | None, expected: Any) -> None:
    given = {"langfuse.observation.metadata.tools": json.dumps([SEARCH, BOOK])}
    row = stored(given if source is None else given | {"langfuse.observation.input": source})
    assert row.input is not None
    assert json.loads(row.input) == expected
    assert "tools" not in row.metadata


@pytest.mark.parametrize(("key", "value"), [("tools", ["search"]), ("tools", [SEARCH, 1]), ("llm.tools", [SEARCH])])
def test_other_metadata_leaves_the_input_alone(key: str, value: Any) -> None:
    name = f"langfuse.observation.metadata.{key}"
    row = stored({name: json.dumps(value), "langfuse.observation.input": "Hello!"})
    assert (row.input, row.metadata[key]) == ("Hello!", json.dumps(value))
    assert stored({name: json.dumps(value), "langfuse.observation.input": "[1]"}).input == "[1]"


def test_tool_definitions_of_the_conventions_are_moved_too() -> None:
    given = {"gen_ai.tool.definitions": json.dumps([BOOK]), "gen_ai.input.messages": "[]"}
    row = stored(given, scope="importer")
    assert row.input == '{"messages":[],"tools":[{"name":"book"}]}'
    assert "attributes.gen_ai.tool.definitions" not in row.metadata


def test_metadata_keys_that_javascript_cannot_hold_are_lost() -> None:
    row = stored({"langfuse.observation.metadata.": "1", "langfuse.observation.metadata.__proto__": "2"})
    assert row.metadata.keys() == {"scope.name", "resourceAttributes.service.name"}


def test_times_are_cut_to_milliseconds_and_filled_from_each_other() -> None:
    row = stored()
    assert (row.start_ms, row.end_ms) == (START_NS // 1_000_000, END_NS // 1_000_000)
    assert stored(startTimeUnixNano=None).start_ms == END_NS // 1_000_000
    assert stored(startTimeUnixNano=None, endTimeUnixNano="").start_ms == NOW
    assert stored(endTimeUnixNano="0").end_ms == 0


def test_content_is_kept_byte_for_byte_and_other_values_become_text() -> None:
    text = '{"b": 1,  "a": "\\u00e9", "a": null}\x00😀'
    assert stored({"langfuse.observation.input": text}).input == text
    assert stored({"langfuse.observation.input": 5, "langfuse.observation.output": True}).input == "5"
    assert stored({"langfuse.observation.input": ""}).input is None


def test_langfuse_content_hides_the_content_of_frameworks() -> None:
    row = stored({"langfuse.observation.output": "ours", "input.value": "theirs"})
    assert (row.input, row.output) == (None, "ours")
    row = stored({"gen_ai.input.messages": "later", "input.value": "first"})
    assert row.input == "first"


def test_trace_attributes_are_read_from_each_span() -> None:
    row = stored(
        {
            "langfuse.trace.name": "booking",
            "user.id": 42,
            "session.id": "s",
            "langfuse.trace.tags": ["a", "b"],
            "langfuse.release": "r1",
            "langfuse.version": "v1",
            "langfuse.trace.public": True,
        }
    )
    found = (row.trace_name, row.user_id, row.session_id, row.tags, row.release, row.version, row.public)
    assert found == ("booking", "42", "s", ["a", "b"], "r1", "v1", True)


def test_a_root_has_no_parent_or_is_marked_and_lends_the_trace_its_name() -> None:
    assert stored().is_root
    assert stored().trace_name == "answer"
    child = stored(parentSpanId="00000000000000aa")
    assert (child.is_root, child.trace_name) == (False, None)
    assert stored({"langfuse.internal.is_app_root": True}, parentSpanId="00000000000000aa").is_root
    assert stored(parentSpanId="0000000000000000").parent_id == "0000000000000000"


def test_a_tool_name_replaces_the_span_name() -> None:
    assert stored({"gen_ai.tool.name": "search"}, name="execute_tool search").name == "search"


def test_level_and_message_come_from_attributes_before_the_status() -> None:
    status = {"code": 2, "message": "from status"}
    assert (stored(status=status).level, stored(status=status).status_message) == ("ERROR", "from status")
    row = stored({"langfuse.observation.level": "warn"}, status=status)
    assert (row.level, row.status_message) == ("WARNING", "from status")


@pytest.mark.parametrize(
    ("given", "level"), [(" notice ", "DEFAULT"), ("VERBOSE", "DEBUG"), ("odd", "ERROR"), (7, "ERROR")]
)
def test_a_level_of_other_vocabularies_is_translated_and_an_unknown_one_is_none(given: Any, level: str) -> None:
    assert stored({"langfuse.observation.level": given}, status={"code": 2}).level == level


def test_an_environment_that_is_no_text_is_the_default_one() -> None:
    assert stored({"langfuse.environment": True}).environment == "default"


def test_of_several_names_for_one_count_the_first_is_taken() -> None:
    counts = {"gen_ai.usage.input_tokens": 9, "llm.token_count.prompt": 3, "gen_ai.usage.prompt_tokens": 8}
    assert stored(counts).usage == {"input": 8, "total": 8}


def test_a_model_or_a_tool_that_is_named_by_no_text_is_one() -> None:
    assert stored({"gen_ai.request.model": False}).type == "GENERATION"
    assert (stored({"gen_ai.tool.name": False}).type, stored({"gen_ai.tool.name": ""}).type) == ("TOOL", "SPAN")


def test_the_old_metadata_attribute_is_shown_twice() -> None:
    metadata = stored({"langfuse.metadata.c": "x"}, scope="importer").metadata
    assert (metadata["c"], metadata["attributes.langfuse.metadata.c"]) == ("x", "x")


def test_model_parameters_keep_numbers_and_text_only() -> None:
    given = {"temperature": 0.5, "stop": ["a"], "stream": True, "mode": "x"}
    row = stored({"langfuse.observation.model.parameters": json.dumps(given)})
    assert row.model_parameters == {"temperature": 0.5, "stop": '["a"]', "stream": "true", "mode": "x"}
    genai = {"gen_ai.request.max_tokens": 9, "gen_ai.request.model": "m"}
    assert stored(genai).model_parameters == {"max_tokens": 9}
    assert stored(genai | {"gen_ai.operation.name": "invoke_agent"}).model_parameters == {}


def test_prompts_belong_to_generations() -> None:
    prompt = {"langfuse.observation.prompt.name": "p", "langfuse.observation.prompt.version": 3}
    row = stored(prompt | {"langfuse.observation.type": "generation"})
    assert (row.prompt_name, row.prompt_version) == ("p", 3)
    assert stored(prompt).prompt_name == ""


@pytest.mark.parametrize(("version", "kept"), [(65_535, 65_535), (65_536, None), (0, None)])
def test_a_version_of_a_prompt_has_sixteen_bits_and_none_is_shown_as_none(version: int, kept: int | None) -> None:
    prompt = {"langfuse.observation.prompt.name": "p", "langfuse.observation.prompt.version": version}
    assert stored(prompt | {"langfuse.observation.type": "generation"}).prompt_version == kept


def test_metadata_is_listed_last_first_with_scope_and_resource() -> None:
    row = stored({"langfuse.observation.metadata.first": "1", "langfuse.observation.metadata.second": "2"})
    assert list(row.metadata) == ["second", "first", "scope.name", "resourceAttributes.service.name"]


def test_one_metadata_object_is_flattened_and_loses_nulls_and_empty_objects() -> None:
    value = {"deep": {"x": 1}, "none": None, "empty": {}, "list": [1]}
    row = stored({"langfuse.observation.metadata": json.dumps(value)})
    kept = {key: text for key, text in row.metadata.items() if "." not in key or key.startswith("deep")}
    assert kept == {"deep.x": "1", "none": "", "list": "[1]"}


def test_attributes_are_shown_again_unless_the_scope_is_the_sdk() -> None:
    attributes = {"user.id": "u", "langfuse.observation.input": "i", "langfuse.observation.metadata.k": "v"}
    assert "attributes.user.id" not in stored(attributes).metadata
    other = stored(attributes, scope="importer").metadata
    assert [key for key in other if key.startswith("attributes.")] == ["attributes.user.id"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("123", 123),
        ("1.0", 1),
        ("007", "007"),
        ("true", True),
        ("null", None),
        ('"quoted"', "quoted"),
        ('"\\"123\\""', '"123"'),
        ('{"a": [1, {"b": "1"}]}', {"a": [1, {"b": "1"}]}),
        ("9007199254740993", "9007199254740993"),
        ('{"n": 12345678901234567890}', {"n": "12345678901234567890"}),
        ("NaN", "NaN"),
        ("  12 ", 12),
        ("  x ", "  x "),
        ("", ""),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_metadata_text_is_parsed_when_read(text: str, value: Any) -> None:
    assert metadata_value(text) == value
    assert type(metadata_value(text)) is type(value)


def test_attribute_values_become_what_javascript_makes_of_them() -> None:
    kinds = {
        "whole": 1.0,
        "big": 9007199254740993,
        "bytes": {"bytesValue": "aGk="},
        "map": {"kvlistValue": {"values": []}},
        "nothing": {},
    }
    metadata = stored(kinds, scope="importer").metadata
    shown = {key.removeprefix("attributes."): text for key, text in metadata.items() if key.startswith("attr")}
    assert shown == {
        "whole": "1",
        "big": "9007199254740992",
        "bytes": '{"bytesValue":"aGk="}',
        "map": '{"kvlistValue":{"values":[]}}',
        "nothing": "{}",
    }


def test_json_and_protobuf_give_the_same_row() -> None:
    attributes = {"user.id": "u", "n": 5, "f": 0.5, "b": True, "list": ["x", 1], "langfuse.trace.tags": ["t"]}
    tree = export(span(attributes, parentSpanId="00000000000000aa", status={"code": 2}), scope="importer")
    (of_json,) = observations(received_from_json(tree), NOW, NOW)
    (of_message,) = observations(received_from_message(request_from_json(tree)), NOW, NOW)
    assert of_json == of_message


def test_two_copies_in_one_export_leave_the_later() -> None:
    later = span({"langfuse.observation.output": "later"})
    shifted = span(startTimeUnixNano=str(START_NS + 1_000_000))
    rows = observations(received_from_json(export(span(), later, shifted)), NOW, NOW)
    assert [row.output for row in rows] == ["later", None]


@pytest.mark.parametrize(
    "attributes",
    [[{"key": "k"}], [{"key": "k", "value": None}]],
    ids=["no value", "null value"],
)
def test_an_attribute_without_value_loses_the_export(attributes: list[Any]) -> None:
    with pytest.raises(UnstorableError):
        observations(received_from_json(export(span(), span() | {"attributes": attributes})), NOW, NOW)


def test_spans_of_more_than_a_hundred_months_lose_the_export() -> None:
    month_ns = 31 * 86_400 * 10**9
    spans = [
        span(spanId=f"{number:016x}", startTimeUnixNano=str(START_NS + number * month_ns), endTimeUnixNano=str(END_NS))
        for number in range(101)
    ]
    assert len(observations(received_from_json(export(*spans[:100])), NOW, NOW)) == 100
    with pytest.raises(UnstorableError, match="100 months"):
        observations(received_from_json(export(*spans)), NOW, NOW)


@pytest.mark.parametrize("key", ["input", "Output"])
def test_costs_that_the_database_cannot_add_up_lose_the_export(key: str) -> None:
    def costs(count: int) -> dict[str, Any]:
        amounts = {f"{key}_{number}": 922_337 for number in range(count)}
        return {"langfuse.observation.cost_details": json.dumps(amounts)}

    assert len(stored(costs(10)).cost) == 10
    with pytest.raises(UnstorableError, match="costs"):
        stored(costs(11))


def test_an_empty_trace_id_loses_the_export() -> None:
    with pytest.raises(UnstorableError):
        observations(received_from_json(export(span(traceId=""))), NOW, NOW)


@pytest.mark.parametrize(
    "text",
    [
        r'[{"type": "tool_use", "name": "\ud83d", "input": {}}]',
        r'{"tools": ["{\"name\": \"\\udc00\"}"]}',
        r'{"content": [{"type": "tool-call", "toolName": "\ud83d"}]}',
    ],
)
@pytest.mark.parametrize("field", ["input", "output"])
def test_a_tool_that_is_named_by_half_a_character_loses_the_export(field: str, text: str) -> None:
    with pytest.raises(UnstorableError, match="name of a tool"):
        stored({f"langfuse.observation.{field}": text})
    whole = text.replace(r"\ud83d", r"\ud83d\ude00").replace(r"\udc00", r"\u00fc")
    assert getattr(stored({f"langfuse.observation.{field}": whole}), field) == whole


@pytest.mark.parametrize(("body", "lone"), [(rb'["\ud83d\ude00"]', False), (rb'["\ud83d"]', True), (rb"[]", False)])
def test_lone_surrogates_are_told_from_pairs(body: bytes, lone: bool) -> None:
    assert has_lone_surrogate(body, parse_json(body)) is lone


def test_spans_without_ids_are_counted_and_refuse_the_export() -> None:
    refusal = rejection(export(span(), span(spanId=None), scope="broken"))
    assert refusal is not None
    assert refusal.startswith("Invalid OTLP trace export: 1 of 2 span(s) cannot be processed (spanId:absent).")
    assert "Instrumentation scopes: broken." in refusal
    assert rejection(export(span())) is None


@pytest.mark.parametrize(("text", "digest"), [("", 0x02CC5D05), ("abc", 0x32D153FF), ("0123456789abcdef" * 2, None)])
def test_traces_of_one_millisecond_are_ordered_by_xxhash(text: str, digest: int | None) -> None:
    assert 0 <= xxh32(text) < 2**32
    assert digest in (None, xxh32(text))
