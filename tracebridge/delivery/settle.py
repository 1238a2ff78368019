"""Settling the fate of a batch by reading back: which of its spans does the backend hold?"""

from __future__ import annotations

from typing import Final

from tracebridge.delivery.state import Batch, SpanRef
from tracebridge.sink import Query, Reader

_MARGIN_NS: Final = 1_000_000_000
"""Backends keep times less precisely than we do, so the window asked for is a little wider."""
_MOST_SESSIONS_ASKED_BY_NAME: Final = 3


def missing(reader: Reader, batch: Batch) -> list[int]:
    """The places in the batch of the spans that the backend does not show.

    Raises:
        BackendError: the backend could not be read.
    """
    found = {(span.trace_id, span.span_id) for query in _queries(batch.refs) for span in reader.read(query)}
    return [place for place, ref in enumerate(batch.refs) if (ref.trace_id, ref.span_id) not in found]


def _queries(refs: tuple[SpanRef, ...]) -> list[Query]:
    start_ns = min(ref.start_ns for ref in refs) - _MARGIN_NS
    end_ns = max(ref.start_ns for ref in refs) + _MARGIN_NS
    sessions = {ref.session_id for ref in refs}
    if len(sessions) > _MOST_SESSIONS_ASKED_BY_NAME:
        return [Query(start_ns=max(0, start_ns), end_ns=end_ns, ids_only=True)]
    return [
        Query(session_id=session, start_ns=max(0, start_ns), end_ns=end_ns, ids_only=True)
        for session in sorted(sessions)
    ]
