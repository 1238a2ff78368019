"""The probe: one span that a sink's own code sends and its own reader reads back.

It is recognisable by its session id, its environment and its tag, has a trace of its own and no mark of tracebridge's:
so no session that is validated holds it, and it is not restored.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Final

from tracebridge.config import SinkSettings
from tracebridge.diagnosis import PROBE_MARK, Check
from tracebridge.errors import BackendError
from tracebridge.sink import Outcome, Query, Reader, Receipt
from tracebridge.span import Edge, Span

_FIRST_WAIT_S: Final = 0.1
_LONGEST_WAIT_S: Final = 2.0
_REMEDIES: Final = {
    Outcome.RETRY: "check the address and that the server takes traces; delivery would try again for ever",
    Outcome.UNKNOWN: "try again; if it lasts, look at the server's log and at what stands in between",
    Outcome.REJECTED: "the server refuses what tracebridge sends: check that it is a version that is supported",
    Outcome.TOO_LARGE: "the server takes nothing as large as one small span: raise its limit",
    Outcome.UNAUTHORIZED: "check the credentials in the sink's settings",
}


def probe(sink: SinkSettings, ends_at: float) -> Iterator[Check]:
    """Send a span, and wait until it can be read back or the time is up, by the monotonic clock."""
    span = probe_span()
    began = time.monotonic()
    with closing(sink.open_sink()) as opened:
        receipt = opened.deliver(opened.join([opened.encode(span)]))
    if receipt.outcome is not Outcome.ACCEPTED or receipt.rejected:
        yield _refused(receipt)
        return
    yield Check(
        name="probe sent",
        status="ok",
        found=f"accepted after {time.monotonic() - began:.2f} s, as session {span.session_id!r}",
    )
    if not sink.capabilities.readable:
        yield Check(name="probe read", status="skip", found="this sink cannot be read back")
        return
    yield _read_back(sink, span, began, ends_at)


def probe_span() -> Span:
    """A span that everybody can tell from those of agents."""
    number = secrets.token_hex(4)
    now_ns = time.time_ns()
    return Span(
        kind="event",
        trace_id=secrets.token_hex(16),
        span_id=secrets.token_hex(8),
        name=PROBE_MARK,
        start_ns=now_ns,
        end_ns=now_ns,
        session_id=f"{PROBE_MARK}-{number}",
        agent_name=PROBE_MARK,
        environment=PROBE_MARK,
        tags=(PROBE_MARK,),
        opened=Edge(
            ordinal=0,
            timestamp=datetime.now(UTC).isoformat(),
            fields={"written_by": "tracebridge doctor", "number": number},
        ),
    )


def _refused(receipt: Receipt) -> Check:
    if receipt.outcome is Outcome.ACCEPTED:
        found, remedy = f"the request was taken and its span refused: {receipt.message}", _REMEDIES[Outcome.REJECTED]
    else:
        found, remedy = f"{receipt.outcome.value}: {receipt.message}", _REMEDIES[receipt.outcome]
    return Check(name="probe sent", status="fail", found=found, remedy=remedy)


def _read_back(sink: SinkSettings, span: Span, sent_at: float, ends_at: float) -> Check:
    wait_s = _FIRST_WAIT_S
    with closing(sink.open_reader()) as reader:
        while True:
            try:
                copies = _copies(reader, Query(trace_ids=(span.trace_id,)), span)
                found = _found(copies, span, time.monotonic() - sent_at) if copies else None
                if found is not None and (found.status != "ok" or _is_listed(sink, reader, span)):
                    return found
            except BackendError as error:
                return Check(
                    name="probe read",
                    status="fail",
                    found=f"accepted, but the backend cannot be read: {error}",
                    remedy="until it can, nothing can be validated, and requests without an answer are not settled",
                )
            took_s = time.monotonic() - sent_at
            if time.monotonic() + wait_s > ends_at:
                if copies:
                    return _unlisted(took_s)
                return Check(
                    name="probe read",
                    status="fail",
                    found=f"accepted, and still not there after {took_s:.1f} s (the sink declares a lag of "
                    f"{sink.capabilities.visibility_lag_s:g} s)",
                    remedy="look whether what the server stores with runs (queue, worker, database); if it is slow, "
                    "give it longer with --timeout and raise `visibility_lag`",
                )
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)


def _copies(reader: Reader, query: Query, span: Span) -> list[Span]:
    return [found for found in reader.read(query) if (found.trace_id, found.span_id) == (span.trace_id, span.span_id)]


def _is_listed(sink: SinkSettings, reader: Reader, span: Span) -> bool:
    """Whether the span is found by its session as well, unless the sink declares that searches do not find all."""
    return bool(sink.capabilities.hidden_from_search or _copies(reader, Query(session_id=span.session_id), span))


def _unlisted(took_s: float) -> Check:
    return Check(
        name="probe read",
        status="fail",
        found=f"there by its trace's id, and not found by its session after {took_s:.1f} s: `validate` finds such "
        "spans, but `restore`, and delivery after its state was lost, do not",
        remedy="look at what stands in between: where a Collector, for one, gives spans another `service.name`, write "
        "that name into the sink's settings",
    )


def _found(copies: list[Span], span: Span, took_s: float) -> Check:
    copy = copies[0]
    if len(copies) > 1:
        words = f"there {len(copies)} times after {took_s:.2f} s, though it was sent once"
        return Check(name="probe read", status="warn", found=words, remedy="look at what stands in between")
    if (copy.session_id, copy.name) != (span.session_id, span.name):
        words = f"there after {took_s:.2f} s, but changed: session {copy.session_id!r}, name {copy.name!r}"
        return Check(name="probe read", status="warn", found=words, remedy="look at what stands in between")
    return Check(name="probe read", status="ok", found=f"there after {took_s:.2f} s")
