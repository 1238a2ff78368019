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
