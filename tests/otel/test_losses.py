from __future__ import annotations

import msgspec
from hypothesis import given

from tracebridge.span import Span
from tracebridge.testing.strategies import spans
from tracebridge_otel.losses import TIME_IN_MICROSECONDS


@given(spans())
def test_the_loss_of_time_is_idempotent_and_touches_only_times(span: Span) -> None:
    lost = TIME_IN_MICROSECONDS.apply(span)
    assert TIME_IN_MICROSECONDS.apply(lost) == lost
    assert msgspec.structs.replace(lost, start_ns=span.start_ns, end_ns=span.end_ns) == span
    assert (lost.start_ns % 1_000, lost.end_ns % 1_000) == (0, 0)


def test_a_microsecond_more_is_not_lost() -> None:
    span = Span(kind="turn", trace_id="1" * 32, span_id="1" * 16, name="turn", start_ns=0, end_ns=0, session_id="s")
    later = msgspec.structs.replace(span, end_ns=1_000)
    assert TIME_IN_MICROSECONDS.apply(span) != TIME_IN_MICROSECONDS.apply(later)
