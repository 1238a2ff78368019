"""`find_span`: makes a span that was sent once more, from the journal that it was made of."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from tracebridge import policy as policies
from tracebridge.delivery.records import SpanRef
from tracebridge.delivery.watch import INCOMPLETE_GRACE_NS
from tracebridge.journal import layout
from tracebridge.policy import Policy
from tracebridge.session_stream import SessionStream
from tracebridge.span import Span


def find_span(folders: Iterable[Path], ref: SpanRef, policy: Policy) -> Span | None:
    """Return the span under a policy, or None if no journal holds its events any more.

    It reads the session's journal from the start: for the few spans that need it, not for many.
    """
    for folder in folders:
        path = layout.events_file(layout.session_folder(folder, ref.session_id))
        try:
            for span in _spans_of(path, policy):
                if (span.trace_id, span.span_id) == (ref.trace_id, ref.span_id):
                    return span
        except OSError:
            continue  # it is not in this folder, or cannot be read now
    return None


def _spans_of(path: Path, policy: Policy) -> Iterable[Span]:
    stream = SessionStream(path, partial(policies.apply, policy))
    for step in stream.steps():
        yield from step.spans
    yield from stream.expire(time.time_ns() - INCOMPLETE_GRACE_NS)
