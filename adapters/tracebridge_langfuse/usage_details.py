"""Usage and cost between the agent's own objects and LangFuse's `usageDetails` and `costDetails`, both ways.

LangFuse adds to what it is given (a total, or all counts when there are none), so the way back goes by the
names that the remainder holds and never by what happens to be there.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import msgspec

from tracebridge.event import Json
from tracebridge.usage import TOKEN_PATHS, count_tokens, paths_in, value_at
from tracebridge_langfuse import names
from tracebridge_langfuse.remainder import FRESH_INPUT, UsageNames

_PARTS: Final[Mapping[str, tuple[str, ...]]] = {**names.USAGE_PARTS, FRESH_INPUT: (names.USAGE_INPUT,)}
_LARGEST_COUNT: Final = 2**53 - 1
_LARGEST_SUMMAND: Final = _LARGEST_COUNT // 2
_LARGEST_COST: Final = 100_000.0
_LARGEST_SUM: Final = 9_000_000.0
"""The server's table adds up the amounts of a span, and an insert with a sum of more than 9.22 million is lost."""
_SUMMED_COSTS: Final = frozenset({"input", "output"})
"""If there are no others, the server adds their sum as the total."""
_NAMES_OF_TOTAL: Final = ("total_cost", "totalCost", "total_usd", "total_cost_usd")
"""What agents call the whole cost beside `total`, the one name that LangFuse knows it by."""
_WHOLES: Final = frozenset({"input", "output", "total"})


class DetailedUsage(msgspec.Struct, frozen=True, kw_only=True):
    """A usage object in LangFuse's words, and the way back to it."""

    details: dict[str, int] = {}
    named: UsageNames = {}
    """The entries of the agent's object that `details` gives back, by name."""
    rest: dict[str, Json] = {}
    """Its other entries; empty, too, where there are no details."""


def detailed_usage(usage: Mapping[str, Json]) -> DetailedUsage:
    """`usage_details` and `named_usage` in one, and in few steps where no count is a part of another."""
    wholes = _whole_counts(tuple(usage))
    if wholes is None or not all(map(_is_summand, usage.values())):
        details = usage_details(usage)
        named, rest = named_usage(usage, details) if details else ({}, {})
        return DetailedUsage(details=details, named=named, rest=rest)
    details = {_PARTS[meaning][0]: usage[key] for key, meaning in wholes}
    if len(details) == 2 and names.USAGE_TOTAL not in details:
        details[names.USAGE_TOTAL] = sum(details.values())
    return DetailedUsage(details=details, named=dict(wholes))


def usage_details(usage: Mapping[str, Json]) -> dict[str, int]:
    """LangFuse's counts, which exclude each other, so that nothing is counted or priced twice."""
    counts = count_tokens(usage)
    cached = (counts.cache_read or 0) + (counts.cache_write or 0)
    # where there are none, a server that has no price for them has nothing to price
    for_an_hour = min(counts.cache_write_1h or 0, counts.cache_write or 0) or None
    details = {
        names.USAGE_INPUT: _less(counts.input, cached),
        names.USAGE_CACHE_READ: counts.cache_read,
        names.USAGE_CACHE_WRITE: _less(counts.cache_write, for_an_hour or 0),
        names.USAGE_CACHE_WRITE_1H: for_an_hour,
        names.USAGE_OUTPUT: _less(counts.output, counts.reasoning or 0),
        names.USAGE_REASONING: counts.reasoning,
        names.USAGE_TOTAL: counts.total,
    }
    return {key: count for key, count in details.items() if count is not None and count <= _LARGEST_COUNT}


def named_usage(usage: Mapping[str, Json], details: Mapping[str, int]) -> tuple[UsageNames, dict[str, Json]]:
    """Split the agent's object into the entries that `details` gives back, by name, and the rest."""
    named: UsageNames = {}
    for path, meaning in paths_in(usage):
        count = value_at(usage, path)
        if type(count) is int:
            for candidate in (meaning, FRESH_INPUT) if meaning == "input" else (meaning,):
                if count == _count(details, candidate):
                    named[".".join(path)] = candidate
                    break
    return named, _without(usage, named, "")


def usage_of(named: UsageNames, rest: Mapping[str, Json], details: Mapping[str, int]) -> dict[str, Json]:
    """Rebuild the agent's usage object."""
    usage = {key: dict(value) if isinstance(value, dict) else value for key, value in rest.items()}
    for path, meaning in named.items():
        count = _count(details, meaning)
        if count is None:
            continue
        outer, _, inner = path.partition(".")
        if inner:
            usage.setdefault(outer, {})[inner] = count
        else:
            usage[outer] = count
    return usage


def cost_details(cost: Json) -> dict[str, float]:
    """LangFuse's costs in US dollars; what is no amount is left out.

    A total is added where the server would not add it, and would show no cost at all. One that came under another name
    is the total; as one of the parts it would count twice.
    """
    given = cost if isinstance(cost, dict) else {names.USAGE_TOTAL: cost}
    costs = {key: float(amount) for key, amount in given.items() if _is_amount(amount)}
    if sum(costs.values()) > _LARGEST_SUM:
        return {}
    if names.USAGE_TOTAL in given or costs.keys() <= _SUMMED_COSTS:
        return costs
    named = next((key for key in _NAMES_OF_TOTAL if key in costs), None)
    total = sum(costs.values()) if named is None else costs.pop(named)
    if _is_amount(total):
        costs[names.USAGE_TOTAL] = total
    return costs


def cost_of(keys: tuple[str, ...] | None, details: Mapping[str, float]) -> Json:
    """Rebuild the agent's cost: None, a number, or an object of numbers."""
    if keys is None:
        return None
    if not keys:
        return _amount(details.get(names.USAGE_TOTAL))
    return {key: _amount(details[key]) for key in keys if key in details}


@lru_cache(maxsize=256)
def _whole_counts(keys: tuple[str, ...]) -> tuple[tuple[str, str], ...] | None:
    """What each key counts, if each counts another one of input, output and total; None otherwise."""
    wholes = tuple((path[0], meaning) for path, meaning in TOKEN_PATHS.items() if len(path) == 1 and path[0] in keys)
    meanings = [meaning for _, meaning in wholes]
    if len(wholes) == len(keys) == len(_WHOLES.intersection(meanings)):
        return wholes
    return None


def _is_summand(value: Json) -> bool:
    """Whether `value` is a count of which two can be added without leaving LangFuse's range."""
    return type(value) is int and 0 <= value <= _LARGEST_SUMMAND


def _count(details: Mapping[str, int], meaning: str) -> int | None:
    parts = _PARTS.get(meaning)
    if parts is None or parts[0] not in details:
        return None
    if len(parts) == 1:
        return details[parts[0]]
    return sum(details.get(part, 0) for part in parts)


def _less(whole: int | None, part: int) -> int | None:
    return None if whole is None else max(whole - part, 0)


def _without(usage: Mapping[str, Json], named: UsageNames, prefix: str) -> dict[str, Json]:
    rest: dict[str, Json] = {}
    for key, value in usage.items():
        path = prefix + key
        if path in named:
            continue
        if isinstance(value, dict) and not prefix:
            inner = _without(value, named, f"{path}.")
            if inner or not value:
                rest[key] = inner
        else:
            rest[key] = value
    return rest


def _is_amount(value: Json) -> bool:
    return type(value) in (int, float) and 0 <= value < _LARGEST_COST


def _amount(value: float | None) -> float | None:
    return None if value is None else float(value)
