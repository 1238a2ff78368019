"""What LangFuse is known not to keep."""

from __future__ import annotations

from typing import Final

import msgspec

from tracebridge.sink import Loss
from tracebridge.span import Span
from tracebridge_langfuse.media import by_reference, shows_reference
from tracebridge_langfuse.observation import MS


def _in_milliseconds(span: Span) -> Span:
    return msgspec.structs.replace(
        span, start_ns=span.start_ns - span.start_ns % MS, end_ns=span.end_ns - span.end_ns % MS
    )


LOSSES: Final = (
    Loss(
        name="time-in-milliseconds",
        words="LangFuse cuts start and end times to whole milliseconds.",
        apply=_in_milliseconds,
    ),
    Loss(
        name="media-by-reference",
        words="A LangFuse server that stores media by itself keeps a reference with a hash in the place of each image "
        "or file in base64, and writes the JSON around it anew, in which 1.0 is 1.",
        apply=by_reference,
        shows=shows_reference,
    ),
)
