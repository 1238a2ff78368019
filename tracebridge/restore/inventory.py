"""`Inventory`: which sessions a backend holds, told from ids alone."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tracebridge.diagnosis import is_probe
from tracebridge.span import Span


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to restore."""

    sessions: tuple[str, ...] = ()
    loose: tuple[str, ...] = ()
    """Traces of which no span names a session, as far as the reader tells it without reading them whole."""
    mixed: frozenset[str] | None = None
    """Traces of which some spans name a session and others do not; None where that is not known, because not all spans
    were read."""
    probes: int = 0
    """Sessions of `tracebridge doctor`."""


def take_stock(spans: Iterable[Span], *, are_all: bool) -> Inventory:
    """Take stock of spans that were read for their ids; in memory are one id a session and one a trace.

    `are_all` says that the backend holds no others, such as later ones of the same traces.
    """
    sessions: set[str] = set()
    probes: set[str] = set()
    named: set[str] = set()
    nameless: set[str] = set()
    for span in spans:
        if is_probe(span.session_id):
            probes.add(span.session_id)
            named.add(span.trace_id)
        elif span.session_id:
            sessions.add(span.session_id)
            named.add(span.trace_id)
        else:
            nameless.add(span.trace_id)
    return Inventory(
        sessions=tuple(sorted(sessions)),
        loose=tuple(sorted(nameless - named)),
        mixed=frozenset(nameless & named) if are_all else None,
        probes=len(probes),
    )
