"""Usage and cost on their way to LangFuse and back."""

from __future__ import annotations

from typing import Any

import pytest

from tracebridge.event import Json
from tracebridge_langfuse.usage_details import (
    cost_details,
    cost_of,
    detailed_usage,
    named_usage,
    usage_details,
    usage_of,
)

OPENAI = {
    "prompt_tokens": 10,
    "completion_tokens": 5,
    "total_tokens": 15,
    "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
ANTHROPIC = {
    "input_tokens": 10,
    "output_tokens": 5,
    "cache_read_input_tokens": 100,
    "cache_creation_input_tokens": 7,
}
SENT: dict[str, tuple[dict[str, Json], dict[str, int]]] = {
    "prompt and completion": ({"prompt": 100, "completion": 20}, {"input": 100, "output": 20, "total": 120}),
    "OpenAI's parts are taken out of the counts beside them": (
        OPENAI,
        {"input": 6, "input_cached_tokens": 4, "output": 3, "output_reasoning_tokens": 2, "total": 15},
    ),
    "Anthropic's parts stand beside the input already": (
        ANTHROPIC,
        {"input": 10, "input_cached_tokens": 100, "input_cache_creation": 7, "output": 5, "total": 122},
    ),
    "Gemini's thoughts stand beside its answer already": (
        {
            "prompt_token_count": 10,
            "tool_use_prompt_token_count": 3,
            "cached_content_token_count": 4,
            "candidates_token_count": 5,
            "thoughts_token_count": 7,
            "total_token_count": 25,
        },
        {"input": 9, "input_cached_tokens": 4, "output": 5, "output_reasoning_tokens": 7, "total": 25},
    ),
    "Anthropic's cache of an hour has a price of its own": (
        {
            "input_tokens": 10,
            "output_tokens": 5,
            "cache_creation_input_tokens": 7,
            "cache_creation": {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 5},
        },
        {"input": 10, "input_cache_creation": 2, "input_cache_creation_1h": 5, "output": 5, "total": 22},
    ),
    "Anthropic's cache of five minutes only": (
        {
            "input_tokens": 10,
            "output_tokens": 5,
            "cache_creation_input_tokens": 7,
            "cache_creation": {"ephemeral_5m_input_tokens": 7, "ephemeral_1h_input_tokens": 0},
        },
        {"input": 10, "input_cache_creation": 7, "output": 5, "total": 22},
    ),
    "more for an hour than was cached": (
        {"input_tokens": 10, "cache_creation_input_tokens": 7, "cache_creation": {"ephemeral_1h_input_tokens": 9}},
        {"input": 10, "input_cache_creation": 0, "input_cache_creation_1h": 7},
    ),
    "Bedrock's cached tokens stand beside the input already": (
        {"inputTokens": 10, "outputTokens": 5, "cacheReadInputTokens": 100, "cacheWriteInputTokens": 7},
        {"input": 10, "input_cached_tokens": 100, "input_cache_creation": 7, "output": 5, "total": 122},
    ),
    "LangChain's parts are taken out, also of Claude's": (
        {
            "input_tokens": 117,
            "output_tokens": 5,
            "total_tokens": 122,
            "input_token_details": {"cache_read": 100, "cache_creation": 7},
        },
        {"input": 10, "input_cached_tokens": 100, "input_cache_creation": 7, "output": 5, "total": 122},
    ),
    "xAI's reasoning stands beside the completion": (
        {
            "prompt_tokens": 32,
            "completion_tokens": 9,
            "total_tokens": 135,
            "completion_tokens_details": {"reasoning_tokens": 94},
        },
        {"input": 32, "output": 9, "output_reasoning_tokens": 94, "total": 135},
    ),
    "Cohere's stand in an object": (
        {"tokens": {"input_tokens": 10, "output_tokens": 6}, "cached_tokens": 4},
        {"input": 6, "input_cached_tokens": 4, "output": 6, "total": 16},
    ),
    "counts of what nobody knows are not sent": ({"tokens": 5, "x": 3}, {}),
    "unknown stays unknown": ({"prompt": 3, "completion": None}, {"input": 3}),
    "a zero that was said is sent": ({"prompt": 0, "completion": 0}, {"input": 0, "output": 0, "total": 0}),
    "no count is not sent": ({"prompt": -1, "completion": "5", "total": 2.5}, {}),
    "more than JavaScript can count is not sent": ({"prompt": 2**53, "completion": 1}, {"output": 1}),
    "more in the cache than in all": (
        {"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": 5}},
        {"input": 0, "input_cached_tokens": 5},
    ),
}


@pytest.mark.parametrize(("usage", "details"), SENT.values(), ids=SENT.keys())
def test_the_counts_that_are_sent_exclude_each_other(usage: dict[str, Json], details: dict[str, int]) -> None:
    assert usage_details(usage) == detailed_usage(usage).details == details


@pytest.mark.parametrize("usage", [usage for usage, _ in SENT.values()], ids=SENT.keys())
@pytest.mark.parametrize("servers_own", [{}, {"total": 999, "input_audio": 1}], ids=["", "and the server adds"])
def test_the_agents_object_comes_back_whatever_the_server_adds(
    usage: dict[str, Json], servers_own: dict[str, int]
) -> None:
    details = usage_details(usage)
    named, rest = named_usage(usage, details)
    assert usage_of(named, rest, servers_own | details) == usage


def test_a_count_that_was_changed_in_langfuse_is_read_as_it_is_there() -> None:
    usage: dict[str, Json] = {"prompt": 100, "completion": 20}
    named, rest = named_usage(usage, usage_details(usage))
    assert usage_of(named, rest, {"input": 1, "output": 20, "total": 120}) == {"prompt": 1, "completion": 20}


def test_what_the_server_counts_by_itself_is_not_the_agents() -> None:
    assert usage_of({}, {}, {"input": 6, "output": 1, "total": 7}) == {}
    assert cost_of(None, {"input": 1.5e-05, "total": 2.5e-05}) is None


@pytest.mark.parametrize(
    ("cost", "details"),
    [
        (0.25, {"total": 0.25}),
        ({"input": 0.1, "output": 0.2}, {"input": 0.1, "output": 0.2}),
        (None, {}),
        ("0.5", {}),
        (-1, {}),
        (float("nan"), {}),
        (True, {}),
        (10**400, {}),
        ({"input": "x", "output": 1}, {"output": 1.0}),
        ({"input": 0.5, "cache": 0.25}, {"input": 0.5, "cache": 0.25, "total": 0.75}),
        ({"cache": 0.25, "total": None}, {"cache": 0.25}),
        ({"total_cost": 0.75}, {"total": 0.75}),
        ({"cache": 0.25, "total_cost": "x"}, {"cache": 0.25, "total": 0.25}),
        ({"cache": 0.25, "total": 1, "total_cost": 2}, {"cache": 0.25, "total": 1.0, "total_cost": 2.0}),
        ({"cache": 60_000, "tools": 60_000}, {"cache": 60_000.0, "tools": 60_000.0}),
    ],
    ids=repr,
)
def test_only_amounts_are_sent_as_costs(cost: Any, details: dict[str, float]) -> None:
    assert cost_details(cost) == details
