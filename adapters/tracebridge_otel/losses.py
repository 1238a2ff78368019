"""What the readable backends are known not to keep."""

from __future__ import annotations

from typing import Final

import msgspec

from tracebridge.sink import Loss
from tracebridge.span import Span

_US: Final = 1_000


def _in_microseconds(span: Span) -> Span:
    # the backend stores a start and a duration, and cuts each of them
    start_ns = span.start_ns // _US * _US
    duration_ns = (span.end_ns - span.start_ns) // _US * _US
    return msgspec.structs.replace(span, start_ns=start_ns, end_ns=start_ns + duration_ns)


TIME_IN_MICROSECONDS: Final = Loss(
    name="time-in-microseconds",
    words="Jaeger keeps the start and the duration of a span in whole microseconds.",
    apply=_in_microseconds,
)
