"""`find_spans`: makes spans that were encoded before once more, from the journals that they were made of."""

from __future__ import annotations

import time
from collections import defaultdict
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
    """Return the span under a policy, or None if no journal holds its events any more."""
    return find_spans(folders, [ref], policy).get((ref.trace_id, ref.span_id))


def find_spans(folders: Iterable[Path], refs: Iterable[SpanRef], policy: Policy) -> dict[tuple[str, str], Span]:
    """Return spans under a policy, by trace and span id, but for those whose events no journal holds any more.

    It reads the sessions' journals from the start: for the few spans that need it, not for many.
    """
    sessions: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for ref in refs:
        sessions[ref.session_id].add((ref.trace_id, ref.span_id))
    folders = list(folders)
    found: dict[tuple[str, str], Span] = {}
    for session_id, wanted in sessions.items():
        for folder in folders:
            found |= _found_in(layout.events_file(layout.session_folder(folder, session_id)), wanted, policy)
    return found


def _found_in(path: Path, wanted: set[tuple[str, str]], policy: Policy) -> dict[tuple[str, str], Span]:
    """Those of the wanted spans that a file has, which are wanted no more."""
    found: dict[tuple[str, str], Span] = {}
    try:
        for span in _spans_of(path, policy) if wanted else ():
            name = (span.trace_id, span.span_id)
            if name in wanted:
                wanted.remove(name)
                found[name] = span
                if not wanted:
                    break
    except OSError:
        pass  # it is not in this folder, or cannot be read now
    return found


def _spans_of(path: Path, policy: Policy) -> Iterable[Span]:
    stream = SessionStream(path, partial(policies.apply, policy))
    for step in stream.steps():
        yield from step.spans
    yield from stream.expire(time.time_ns() - INCOMPLETE_GRACE_NS)
