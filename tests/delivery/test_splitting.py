"""Batches are made smaller without losing, repeating or reordering a span."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tracebridge.delivery.records import Batch, SpanRef
from tracebridge.delivery.splitting import halves, within

sizes = st.lists(st.integers(0, 1000), min_size=2, max_size=40)


def batch(sizes: list[int]) -> Batch:
    refs = tuple(SpanRef("0" * 32, f"{place:016x}", "s", 0, 2) for place in range(len(sizes)))
    return Batch(parts=tuple(b"x" * size for size in sizes), refs=refs)


def joined(batches: list[Batch]) -> tuple[tuple[bytes, ...], tuple[SpanRef, ...]]:
    parts = tuple(part for one in batches for part in one.parts)
    return parts, tuple(ref for one in batches for ref in one.refs)


@given(sizes)
def test_halves_hold_all_spans_in_order_and_neither_is_empty(sizes: list[int]) -> None:
    whole = batch(sizes)
    left, right = halves(whole)
    assert left.refs
    assert right.refs
    assert joined([left, right]) == (whole.parts, whole.refs)


@given(sizes)
def test_halves_are_as_equal_in_bytes_as_the_spans_allow(sizes: list[int]) -> None:
    left, right = (sum(map(len, half.parts)) for half in halves(batch(sizes)))
    assert abs(left - right) <= max(sizes)


@given(sizes, st.integers(1, 1500), st.integers(1, 10))
def test_within_bounds_are_all_but_single_spans_that_are_too_large_alone(
    sizes: list[int], max_bytes: int, max_spans: int
) -> None:
    whole = batch(sizes)
    smaller = within(whole, max_bytes, max_spans)
    assert joined(smaller) == (whole.parts, whole.refs)
    for one in smaller:
        assert len(one.parts) <= max_spans
        assert len(one.parts) == 1 or sum(map(len, one.parts)) <= max_bytes
