"""Making smaller batches of one. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from tracebridge.delivery.records import Batch


def halves(batch: Batch) -> tuple[Batch, Batch]:
    """Two batches of about the same number of bytes. `batch` has its parts, and at least two of them."""
    ends = list(accumulate(map(len, batch.parts)))
    half = ends[-1] / 2
    middle = min(range(1, len(ends)), key=lambda place: abs(ends[place - 1] - half))
    return part_of(batch, range(middle)), part_of(batch, range(middle, len(ends)))


def within(batch: Batch, max_bytes: int, max_spans: int) -> list[Batch]:
    """As few batches as halving makes, each within the bounds unless it is a single span."""
    size = sum(map(len, batch.parts))
    if len(batch.parts) <= 1 or (size <= max_bytes and len(batch.parts) <= max_spans):
        return [batch]
    return [smaller for half in halves(batch) for smaller in within(half, max_bytes, max_spans)]


def part_of(batch: Batch, places: Sequence[int]) -> Batch:
    """The spans of a batch at these places, as a batch that is still to be written down."""
    return Batch(
        parts=tuple(batch.parts[place] for place in places),
        refs=tuple(batch.refs[place] for place in places),
        fate="unsent",
        sent_ns=batch.sent_ns,
        suspicion=batch.suspicion,
    )
