"""Reading many small sessions at once: by the time in which they lie, instead of one request for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from tracebridge.sink import Query, Reader
from tracebridge.span import Span
from tracebridge.validation.expected import Expected
from tracebridge.validation.owed import Owed

WINDOW_BYTES: Final = 4 << 20
"""Journals of so many bytes are compared at once: their spans, and what the backend shows, are in memory meanwhile."""
FEWEST: Final = 4
"""Fewer sessions are read one by one, which tells more."""
MARGIN_NS: Final = 60 * 1_000_000_000
"""How far outside of its session's time a span is looked for."""
_TOO_MANY_AT_LEAST: Final = 2_000
_TOO_MANY_TIMES: Final = 3


def windows(sessions: Iterable[Owed]) -> Iterator[list[Owed]]:
    """Put neighbouring sessions together; one that is large stands alone."""
    window: list[Owed] = []
    size = 0
    for owed in sessions:
        own = owed.size
        if window and size + own > WINDOW_BYTES:
            yield window
            window, size = [], 0
        window.append(owed)
        size += own
    if window:
        yield window


def read_window(reader: Reader, expected: list[Expected]) -> list[Span] | None:
    """Everything that the backend shows of the time in which these sessions lie.

    None if that is far more than they are, because others lie there too: then it is cheaper to ask for each.

    Raises:
        BackendError: the backend cannot be read.
    """
    starts_ns = [span.start_ns for session in expected for span in session.spans]
    if not starts_ns:
        return []
    query = Query(start_ns=max(0, min(starts_ns) - MARGIN_NS), end_ns=max(starts_ns) + MARGIN_NS)
    most = max(_TOO_MANY_AT_LEAST, _TOO_MANY_TIMES * len(starts_ns))
    found: list[Span] = []
    for span in reader.read(query):
        found.append(span)
        if len(found) > most:
            return None
    return found
