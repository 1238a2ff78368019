"""The strategies give every nasty kind that they name, where it can do harm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.examples import examples
from tracebridge.span import Span
from tracebridge.testing.strategies import (
    DEEPEST,
    NASTY_ENVIRONMENTS,
    NASTY_OBJECTS,
    NASTY_TEXTS,
    spans,
)

IDS = ("session_id", "user_id", "agent_name", "release", "model", "tool_call_id")
VALUES = ("input", "output", "metadata", "tool_calls", "thinking", "opened", "closed", "usage", "model_parameters")


def inside(value: Any, depth: int = 0) -> Iterator[tuple[int, Any]]:
    """Every value in a value, with the number of containers that it stands in."""
    yield depth, value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from inside(item, depth + 1)


def kinds_in(span: Span) -> Iterator[str]:
    """The nasty kinds that a span holds, each with the part of the span that holds it."""
    yield from (f"id: {name}" for name, text in NASTY_TEXTS.items() if text in {getattr(span, field) for field in IDS})
    yield from (f"tag: {name}" for name, text in NASTY_TEXTS.items() if text in span.tags)
    yield f"environment: {span.environment}"
    for field in VALUES:
        for depth, value in inside(msgspec.to_builtins(getattr(span, field))):
            if isinstance(value, str):
                yield from (f"value: {name}" for name, text in NASTY_TEXTS.items() if text == value)
            elif isinstance(value, dict):
                yield from (f"object: {name}" for name, nasty in NASTY_OBJECTS.items() if nasty == value)
            elif isinstance(value, int | float) and not isinstance(value, bool):
                yield "integer over 2**53" if abs(value) > 2**53 else f"number: {value!r}"
            if depth >= DEEPEST:
                yield "deep nesting"


EXPECTED = {
    *(f"{part}: {name}" for part in ("id", "value", "tag") for name in NASTY_TEXTS),
    *(f"environment: {environment}" for environment in ("", *NASTY_ENVIRONMENTS)),
    *(f"object: {name}" for name in NASTY_OBJECTS),
    *("deep nesting", "integer over 2**53", "number: 1", "number: 1.0", "number: -0.0"),
}


@pytest.mark.slow
def test_spans_hold_every_nasty_kind() -> None:
    seen: set[str] = set()

    @settings(
        max_examples=examples(200), database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(spans())
    def look(span: Span) -> None:
        seen.update(kinds_in(span))

    for number in range(20):
        if seen >= EXPECTED:
            break
        seed(number)(look)()
    assert seen >= EXPECTED, sorted(EXPECTED - seen)
