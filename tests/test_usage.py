"""What `tracebridge.usage` makes of each provider's token counts."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracebridge.event import Json
from tracebridge.usage import TokenCounts, count_tokens

SHAPES: dict[str, tuple[dict[str, Json], TokenCounts]] = {
    "prompt and completion": (
        {"prompt": 100, "completion": 20},
        TokenCounts(input=100, output=20, total=120),
    ),
    "input and output": (
        {"input": 100, "output": 20, "total": 120},
        TokenCounts(input=100, output=20, total=120),
    ),
    "OpenAI chat: details are parts of the counts beside them": (
        {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 2},
        },
        TokenCounts(input=10, output=5, cache_read=4, reasoning=2, total=15),
    ),
    "OpenAI responses": (
        {
            "input_tokens": 10,
            "output_tokens": 5,
            "total_tokens": 15,
            "input_tokens_details": {"cached_tokens": 4},
            "output_tokens_details": {"reasoning_tokens": 2},
        },
        TokenCounts(input=10, output=5, cache_read=4, reasoning=2, total=15),
    ),
    "Anthropic: cached tokens are not among the input tokens": (
        {
            "input_tokens": 10,
            "output_tokens": 5,
            "cache_read_input_tokens": 100,
            "cache_creation_input_tokens": 7,
        },
        TokenCounts(input=117, output=5, cache_read=100, cache_write=7, total=122),
    ),
    "Anthropic, with how long it is cached": (
        {
            "input_tokens": 10,
            "output_tokens": 5,
            "cache_creation_input_tokens": 7,
            "cache_creation": {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 5},
        },
        TokenCounts(input=17, output=5, cache_write=7, cache_write_1h=5, total=22),
    ),
    "Anthropic without a cache": (
        {
            "input_tokens": 10,
            "output_tokens": 5,
            "cache_read_input_tokens": None,
            "cache_creation_input_tokens": None,
        },
        TokenCounts(input=10, output=5, total=15),
    ),
    "Anthropic's cache beside a gateway's prompt_tokens, which hold it": (
        {"prompt_tokens": 110, "completion_tokens": 5, "cache_read_input_tokens": 100},
        TokenCounts(input=110, output=5, cache_read=100, total=115),
    ),
    "Gemini: thoughts and what its tools read stand beside": (
        {
            "prompt_token_count": 10,
            "tool_use_prompt_token_count": 3,
            "cached_content_token_count": 4,
            "candidates_token_count": 5,
            "thoughts_token_count": 7,
            "total_token_count": 25,
            "prompt_tokens_details": [{"modality": "TEXT", "token_count": 10}],
        },
        TokenCounts(input=13, output=12, cache_read=4, reasoning=7, total=25),
    ),
    "Gemini's JSON": (
        {"promptTokenCount": 10, "candidatesTokenCount": 5, "thoughtsTokenCount": 7, "totalTokenCount": 22},
        TokenCounts(input=10, output=12, reasoning=7, total=22),
    ),
    "Gemini's package gives what there was none of as null": (
        {"prompt_token_count": 10, "candidates_token_count": 5, "thoughts_token_count": None, "total_token_count": 15},
        TokenCounts(input=10, output=5, total=15),
    ),
    "Bedrock Converse: cached tokens are not among the input tokens": (
        {
            "inputTokens": 10,
            "outputTokens": 5,
            "totalTokens": 122,
            "cacheReadInputTokens": 100,
            "cacheWriteInputTokens": 7,
        },
        TokenCounts(input=117, output=5, cache_read=100, cache_write=7, total=122),
    ),
    "LangChain: cached tokens are among the input tokens, also of Claude": (
        {
            "input_tokens": 117,
            "output_tokens": 5,
            "total_tokens": 122,
            "input_token_details": {"cache_read": 100, "cache_creation": 7},
            "output_token_details": {"reasoning": 2},
        },
        TokenCounts(input=117, output=5, cache_read=100, cache_write=7, reasoning=2, total=122),
    ),
    "Pydantic AI": (
        {
            "input_tokens": 117,
            "cache_read_tokens": 100,
            "cache_write_tokens": 7,
            "output_tokens": 5,
            "details": {"reasoning_tokens": 2},
        },
        TokenCounts(input=117, output=5, cache_read=100, cache_write=7, reasoning=2, total=122),
    ),
    "the AI SDK 4": (
        {"promptTokens": 10, "completionTokens": 5, "totalTokens": 15},
        TokenCounts(input=10, output=5, total=15),
    ),
    "the AI SDK 5": (
        {"inputTokens": 10, "outputTokens": 5, "totalTokens": 15, "reasoningTokens": 2, "cachedInputTokens": 4},
        TokenCounts(input=10, output=5, cache_read=4, reasoning=2, total=15),
    ),
    "the AI SDK 6": (
        {
            "inputTokens": 10,
            "inputTokenDetails": {"noCacheTokens": 5, "cacheReadTokens": 4, "cacheWriteTokens": 1},
            "outputTokens": 5,
            "outputTokenDetails": {"textTokens": 3, "reasoningTokens": 2},
        },
        TokenCounts(input=10, output=5, cache_read=4, cache_write=1, reasoning=2, total=15),
    ),
    "DeepSeek": (
        {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 15,
            "prompt_cache_hit_tokens": 4,
            "prompt_cache_miss_tokens": 6,
        },
        TokenCounts(input=10, output=5, cache_read=4, total=15),
    ),
    "LiteLLM's Claude, whose cached tokens are told twice": (
        {
            "prompt_tokens": 117,
            "completion_tokens": 5,
            "total_tokens": 122,
            "prompt_tokens_details": {"cached_tokens": 100, "cache_creation_tokens": 7},
            "cache_read_input_tokens": 100,
            "cache_creation_input_tokens": 7,
        },
        TokenCounts(input=117, output=5, cache_read=100, cache_write=7, total=122),
    ),
    "OpenRouter": (
        {
            "prompt_tokens": 117,
            "completion_tokens": 5,
            "total_tokens": 122,
            "prompt_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 7},
        },
        TokenCounts(input=117, output=5, cache_read=100, cache_write=7, total=122),
    ),
    "xAI: reasoning stands beside the completion, as the total tells": (
        {
            "prompt_tokens": 32,
            "completion_tokens": 9,
            "total_tokens": 135,
            "completion_tokens_details": {"reasoning_tokens": 94},
        },
        TokenCounts(input=32, output=103, reasoning=94, total=135),
    ),
    "Ollama": (
        {"prompt_eval_count": 10, "eval_count": 5, "eval_duration": 7},
        TokenCounts(input=10, output=5, total=15),
    ),
    "Cohere": (
        {
            "billed_units": {"input_tokens": 3, "output_tokens": 5},
            "tokens": {"input_tokens": 10, "output_tokens": 6},
            "cached_tokens": 4,
        },
        TokenCounts(input=10, output=6, cache_read=4, total=16),
    ),
    "no count beside others": ({"tokens": 5, "x": 3}, TokenCounts()),
    "a zero that was said stays": (
        {"prompt": 0, "completion": 0},
        TokenCounts(input=0, output=0, total=0),
    ),
    "only a total": ({"total": 99}, TokenCounts(total=99)),
    "a total that is no sum is kept": (
        {"input": 1, "output": 2, "total": 99},
        TokenCounts(input=1, output=2, total=99),
    ),
    "a whole float is a count": ({"prompt": 3.0}, TokenCounts(input=3)),
    "details that are no object": ({"prompt_tokens": 3, "prompt_tokens_details": 4}, TokenCounts(input=3)),
    "nothing that is known": ({"billed": 3}, TokenCounts()),
    "nothing": ({}, TokenCounts()),
}

INVALID = [-1, True, math.nan, math.inf, 10.7, "10", 2**63, None, [1], {"x": 1}]


@pytest.mark.parametrize(("usage", "counts"), SHAPES.values(), ids=SHAPES.keys())
def test_each_shape_is_counted_once_and_whole(usage: dict[str, Json], counts: TokenCounts) -> None:
    assert count_tokens(usage) == counts


@pytest.mark.parametrize("value", INVALID, ids=repr)
def test_what_is_no_count_is_unknown_and_leaves_the_others_alone(value: Json) -> None:
    assert count_tokens({"prompt": value, "completion": 5}) == TokenCounts(output=5)


@pytest.mark.parametrize("value", [value for value in INVALID if value is not None], ids=repr)
def test_a_sum_that_needs_what_is_no_count_is_unknown(value: Json) -> None:
    usage = {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": value}
    assert count_tokens(usage) == TokenCounts(output=5)


def test_of_two_names_for_one_count_only_one_is_counted() -> None:
    both = {"prompt_tokens": 10, "prompt": 10, "completion_tokens": 5, "completion": 5}
    assert count_tokens(both) == TokenCounts(input=10, output=5, total=15)


@given(
    st.dictionaries(
        st.sampled_from(["prompt", "input_tokens", "cache_read_input_tokens", "output", "total", "x"]),
        st.one_of(st.integers(), st.floats(), st.booleans(), st.none(), st.text()),
    )
)
def test_counts_are_never_negative_and_never_invented(usage: dict[str, Json]) -> None:
    counts = count_tokens(usage)
    for name in ("input", "output", "cache_read", "cache_write", "reasoning", "total"):
        count = getattr(counts, name)
        assert count is None or (type(count) is int and count >= 0)
    if not usage:
        assert counts == TokenCounts()
