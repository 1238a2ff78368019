"""What an agent's token counts mean, whichever provider's names they came under.

Agents write usage down as their provider gave it, so the same number has many names, and the same name has
two meanings: OpenAI's `input_tokens` holds the cached tokens, Anthropic's leaves them out. The journal keeps
the object verbatim; this is the one place that reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final, Literal

import msgspec

from tracebridge.event import Json

TokenMeaning = Literal["input", "output", "cache_read", "cache_write", "cache_write_1h", "reasoning", "total"]
Path = tuple[str, ...]

TOKEN_PATHS: Final[Mapping[Path, TokenMeaning]] = {
    ("prompt_tokens",): "input",
    ("input_tokens",): "input",
    ("prompt",): "input",
    ("input",): "input",
    ("completion_tokens",): "output",
    ("output_tokens",): "output",
    ("completion",): "output",
    ("output",): "output",
    ("prompt_tokens_details", "cached_tokens"): "cache_read",
    ("input_tokens_details", "cached_tokens"): "cache_read",
    ("cache_read_input_tokens",): "cache_read",
    ("cache_creation_input_tokens",): "cache_write",
    ("cache_creation", "ephemeral_1h_input_tokens"): "cache_write_1h",
    ("completion_tokens_details", "reasoning_tokens"): "reasoning",
    ("output_tokens_details", "reasoning_tokens"): "reasoning",
    ("total_tokens",): "total",
    ("total",): "total",
    # Gemini, its Python package and its JSON
    ("prompt_token_count",): "input",
    ("candidates_token_count",): "output",
    ("cached_content_token_count",): "cache_read",
    ("thoughts_token_count",): "reasoning",
    ("total_token_count",): "total",
    ("promptTokenCount",): "input",
    ("candidatesTokenCount",): "output",
    ("cachedContentTokenCount",): "cache_read",
    ("thoughtsTokenCount",): "reasoning",
    ("totalTokenCount",): "total",
    # Bedrock's Converse, and the AI SDK of Vercel
    ("inputTokens",): "input",
    ("promptTokens",): "input",
    ("outputTokens",): "output",
    ("completionTokens",): "output",
    ("cacheReadInputTokens",): "cache_read",
    ("cachedInputTokens",): "cache_read",
    ("inputTokenDetails", "cacheReadTokens"): "cache_read",
    ("cacheWriteInputTokens",): "cache_write",
    ("inputTokenDetails", "cacheWriteTokens"): "cache_write",
    ("reasoningTokens",): "reasoning",
    ("outputTokenDetails", "reasoningTokens"): "reasoning",
    ("totalTokens",): "total",
    # LangChain
    ("input_token_details", "cache_read"): "cache_read",
    ("input_token_details", "cache_creation"): "cache_write",
    ("output_token_details", "reasoning"): "reasoning",
    # Pydantic AI
    ("cache_read_tokens",): "cache_read",
    ("cache_write_tokens",): "cache_write",
    ("details", "reasoning_tokens"): "reasoning",
    # gateways and others that took over OpenAI's names
    ("prompt_cache_hit_tokens",): "cache_read",
    ("prompt_tokens_details", "cache_write_tokens"): "cache_write",
    ("prompt_tokens_details", "cache_creation_tokens"): "cache_write",
    ("input_tokens_details", "cache_write_tokens"): "cache_write",
    # Ollama
    ("prompt_eval_count",): "input",
    ("eval_count",): "output",
    # Cohere, whose billed_units are not all that the model was given
    ("tokens", "input_tokens"): "input",
    ("tokens", "output_tokens"): "output",
    ("cached_tokens",): "cache_read",
}
"""Where each count may stand in a usage object. Of several places for one meaning the first with a count is
taken."""

_ENTRIES: Final = tuple(TOKEN_PATHS.items())

# Anthropic's cached tokens are not among its "input". Where that is called "prompt", the object has been through a
# gateway that has already added them up.
_ANTHROPIC_CACHE: Final = ("cache_read_input_tokens", "cache_creation_input_tokens")
_BESIDE: Final[Mapping[str, tuple[str, ...]]] = {
    "input_tokens": _ANTHROPIC_CACHE,
    "input": _ANTHROPIC_CACHE,
    "inputTokens": ("cacheReadInputTokens", "cacheWriteInputTokens"),
    "prompt_token_count": ("tool_use_prompt_token_count",),
    "promptTokenCount": ("toolUsePromptTokenCount",),
    "candidates_token_count": ("thoughts_token_count",),
    "candidatesTokenCount": ("thoughtsTokenCount",),
}
"""Counts of input or output, each with those that stand beside it and are no part of it."""
_TOO_LARGE: Final = 2**63


class TokenCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one LLM call. None means that the agent did not say; it is never written as 0."""

    input: int | None = None
    """All input tokens, those read from and written to the provider's cache among them."""
    output: int | None = None
    """All output tokens, reasoning among them."""
    cache_read: int | None = None
    cache_write: int | None = None
    cache_write_1h: int | None = None
    """Of those, what is kept for an hour, which costs more."""
    reasoning: int | None = None
    total: int | None = None
    """As the agent gave it, else the sum of input and output where both are known."""


def count_tokens(usage: Mapping[str, Json]) -> TokenCounts:
    """Read a usage object of any shape that `TOKEN_PATHS` knows.

    A value that is no count (negative, a bool, fractional, NaN, text, null, 2**63 or more) is unknown, and so
    is a sum that would need it.
    """
    found: dict[TokenMeaning, int] = {}
    keys: dict[TokenMeaning, str] = {}
    for path, meaning in paths_in(usage):
        if meaning not in found and (count := as_count(value_at(usage, path))) is not None:
            found[meaning] = count
            keys[meaning] = path[0]
    whole_input = _whole(usage, found.get("input"), keys.get("input", ""))
    output = _whole(usage, found.get("output"), keys.get("output", ""))
    total = found.get("total")
    if total is None and whole_input is not None and output is not None:
        total = whole_input + output
    reasoning = found.get("reasoning")
    if whole_input is not None and output is not None and reasoning is not None and total is not None:
        beside = total == whole_input + output + reasoning
        # xAI's is no part of the output, nor Gemini's under OpenAI's names; only the total tells
        output += reasoning if beside else 0
    return TokenCounts(
        input=whole_input,
        output=output,
        cache_read=found.get("cache_read"),
        cache_write=found.get("cache_write"),
        cache_write_1h=found.get("cache_write_1h"),
        reasoning=reasoning,
        total=total,
    )


def paths_in(usage: Mapping[str, Json]) -> tuple[tuple[Path, TokenMeaning], ...]:
    """The entries of `TOKEN_PATHS`, in its order, whose first key a usage object has."""
    return _paths_with(tuple(usage))


@lru_cache(maxsize=256)
def _paths_with(keys: tuple[str, ...]) -> tuple[tuple[Path, TokenMeaning], ...]:
    """An agent's usage objects have few sets of keys."""
    return tuple(entry for entry in _ENTRIES if entry[0][0] in keys)


def as_count(value: Json) -> int | None:
    """`value` if it is a count of tokens, else None. A whole float such as `3.0` is one; text never is."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value < _TOO_LARGE else None


def value_at(usage: Mapping[str, Json], path: Path) -> Json:
    """What stands at `path` in a usage object; None when nothing does."""
    value: Json = usage.get(path[0])
    if len(path) == 1:
        return value
    for key in path[1:]:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _whole(usage: Mapping[str, Json], given: int | None, key: str) -> int | None:
    """A count that was given under `key`, with what stands beside it."""
    if given is None:
        return None
    whole = given
    for beside in _BESIDE.get(key, ()):
        if usage.get(beside) is None:
            continue
        count = as_count(usage[beside])
        if count is None:
            return None
        whole += count
    return whole
