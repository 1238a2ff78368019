"""The table of homes, line by line: law 1 stands on each value being rebuilt exactly, or staying in the edge."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tracebridge.assembler.homes import HOMES, Home, event_object, settle
from tracebridge.span import Edge, Span
from tracebridge.testing.strategies import json_objects, json_values, texts

LINES = [
    pytest.param(event_type, home, id=f"{event_type} {home.key}") for event_type in HOMES for home in HOMES[event_type]
]

EDGE_CASES: list[Any] = [None, "", "tool", "ok", "error", True, False, 0, -0.0, 1.0, [], {}, [""], [1]]

likely = st.one_of(
    json_values(),
    json_objects(),
    st.lists(texts()),
    st.fixed_dictionaries({"type": texts() | st.none(), "message": texts()}),
    st.fixed_dictionaries({"name": texts(), "version": st.integers() | st.booleans() | st.floats(allow_nan=False)}),
    st.dictionaries(
        texts(), st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans(), max_size=2
    ),
)


@pytest.mark.parametrize(("event_type", "home"), LINES)
def test_a_value_is_rebuilt_exactly_from_its_home_or_stays_in_the_edge(event_type: str, home: Home) -> None:
    def check(value: Any) -> None:
        fields: dict[str, Any] = {}
        homeless = settle(event_type, {home.key: value}, fields)
        base = {"kind": "tool", "name": "tool", "trace_id": "1" * 32, "span_id": "1" * 16, "session_id": "s"}
        span = Span(**{**base, "start_ns": 0, "end_ns": 0, **fields})
        edge = Edge(ordinal=0, timestamp="t", fields=homeless)
        rebuilt = event_object(span, event_type, edge)["data"]
        # as text, in which 1, 1.0 and true differ
        assert json.dumps(rebuilt, sort_keys=True) == json.dumps({home.key: value}, sort_keys=True)

    for value in EDGE_CASES:
        check(value)
    settings(max_examples=examples(25))(given(likely)(check))()
