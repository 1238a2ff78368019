"""What the backends are known not to keep."""

from __future__ import annotations

from functools import partial
from typing import Final

import msgspec

from tracebridge.sink import Loss
from tracebridge.span import Span
from tracebridge_otel.limit import cut_content, shows_cut

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


def content_cut(limit: int) -> Loss:
    """The loss of a sink that sends at most `limit` bytes of an attribute."""
    return Loss(
        name=f"attributes-cut-at-{limit}-bytes",
        words=f"Content that takes more than {limit:,} bytes of an attribute is cut when it is sent, with the mark "
        "`…[cut N bytes]`, because the backend takes no more (`max_attribute_bytes`). To keep more, raise the limit "
        "of the backend, which is `distributor.max_attribute_bytes` of Tempo, and then that of the sink.",
        apply=partial(cut_content, limit=limit),
        cuts_content=True,
        shows=shows_cut,
    )
