"""Cutting the data of an event that is too large to be kept whole."""

from __future__ import annotations

from typing import Final

from tracebridge import jsonvalue, policy
from tracebridge.event import Json
from tracebridge.policy import Policy

MARK: Final = "cut_from_bytes"
"""The entry of a cut event's `data` that holds the number of bytes of JSON that it had."""

_SHORTEST: Final = 64


def cut_to(data: dict[str, Json], most_bytes: int) -> dict[str, Json]:
    """Return `data` cut so that it takes at most `most_bytes` bytes of JSON, or a few more for the mark.

    Its longest strings are shortened first, as by `max_content_length`. If it is too large even so, because
    it has too many parts, its entries are left out, the largest first, and stand as `<left out: 123 bytes>`.
    """
    mark = {MARK: len(jsonvalue.encode(data))}
    shorter = data
    limit = most_bytes // 2
    while limit >= _SHORTEST:
        shorter = policy.apply(Policy(max_content_length=limit), "", data)
        if len(jsonvalue.encode(shorter)) <= most_bytes:
            return shorter | mark
        limit //= 4
    shorter = shorter.copy()
    sizes = {key: len(jsonvalue.encode({key: value})) for key, value in shorter.items()}
    total = sum(sizes.values())
    for key in sorted(sizes, key=lambda key: sizes[key], reverse=True):
        if total <= most_bytes:
            return shorter | mark
        total -= sizes[key] - len(key) - 32
        shorter[key] = f"<left out: {sizes[key]} bytes>"
    # so many entries that their names alone are too much
    return mark
