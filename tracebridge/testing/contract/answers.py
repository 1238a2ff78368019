"""`Sink.deliver`: each answer of the backend, and what the receipt must say of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

import msgspec
import pytest

from tracebridge.sink import Outcome, Receipt, Sink
from tracebridge.span import Span
from tracebridge.testing.contract.backend import BackendUnderTest
from tracebridge.testing.contract.samples import sample
from tracebridge.testing.faults import Fault

_SLACK_S: Final = 1.0
"""How much later than its time-out a request may be given up, in seconds."""
_STORED_S: Final = 5.0
_POLL_S: Final = 0.01


class AnswerCases:
    """One request, one answer, one receipt."""

    def test_what_the_backend_takes_is_accepted(self, backend: BackendUnderTest) -> None:
        """Accepted, with nothing refused, and stored once."""
        spans = [sample(), sample()]
        receipt = _deliver(backend, *spans)
        assert (receipt.outcome, receipt.rejected) == (Outcome.ACCEPTED, 0), receipt
        _assert_stored(backend, spans)

    def test_a_busy_backend_is_told_as_retry(self, backend: BackendUnderTest) -> None:
        """It has certainly not stored the request: the very same may be sent again without asking first."""
        backend.require("busy")
        backend.faults.add(backend.on_export(backend.busy))
        receipt = _deliver(backend, sample())
        assert receipt.outcome is Outcome.RETRY, receipt
        assert receipt.message
        assert list(backend.stored()) == []

    def test_how_long_to_wait_is_passed_on(self, backend: BackendUnderTest) -> None:
        """What the backend asks for is in seconds."""
        backend.require("busy", "retry_after")
        headers = {**backend.busy.headers, "Retry-After": "7"}
        backend.faults.add(backend.on_export(backend.busy, headers=headers))
        receipt = _deliver(backend, sample())
        assert (receipt.outcome, receipt.retry_after_s) == (Outcome.RETRY, 7.0), receipt

    def test_what_the_backend_refuses_is_told_as_rejected_with_its_words(self, backend: BackendUnderTest) -> None:
        """The reason ends up beside a dead letter, where a person reads it."""
        backend.require("refused")
        backend.faults.add(backend.on_export(backend.refused))
        receipt = _deliver(backend, sample())
        assert receipt.outcome is Outcome.REJECTED, receipt
        assert backend.refused.body in receipt.message

    def test_what_is_too_large_is_told_as_too_large(self, backend: BackendUnderTest) -> None:
        """Delivery then sends less at once."""
        backend.require("too_large")
        backend.faults.add(backend.on_export(backend.too_large))
        receipt = _deliver(backend, sample(), sample())
        assert receipt.outcome is Outcome.TOO_LARGE, receipt

    def test_refused_credentials_are_told_as_unauthorized(self, backend: BackendUnderTest) -> None:
        """Delivery then pauses, and throws nothing away."""
        backend.require("unauthorized")
        backend.faults.add(backend.on_export(backend.unauthorized))
        receipt = _deliver(backend, sample())
        assert receipt.outcome is Outcome.UNAUTHORIZED, receipt

    def test_spans_refused_among_others_are_counted(self, backend: BackendUnderTest) -> None:
        """An accepting answer that refuses some is accepted, and tells how many."""
        backend.require("partial")
        backend.faults.add(backend.on_export(Fault(reject=2, body="too old")))
        receipt = _deliver(backend, sample(), sample(), sample())
        assert (receipt.outcome, receipt.rejected) == (Outcome.ACCEPTED, 2), receipt
        assert "too old" in receipt.message

    @pytest.mark.parametrize("moment", ["before", "after"])
    def test_a_connection_that_breaks_is_told_as_unknown(self, backend: BackendUnderTest, moment: str) -> None:
        """The sink cannot tell whether the request was stored first, whichever it was."""
        backend.require("reset")
        backend.faults.add(msgspec.convert({"route": backend.export_route, "reset": moment}, Fault))
        receipt = _deliver(backend, sample())
        assert receipt.outcome is Outcome.UNKNOWN, receipt
        assert len(list(backend.stored())) == (moment == "after")

    def test_a_backend_that_hangs_is_given_up_after_the_time_out(self, backend: BackendUnderTest) -> None:
        """It is given up in time, and told as unknown: it may store the request yet."""
        backend.require("hang")
        backend.faults.add(backend.on_export(Fault(hang=True)))
        began = time.monotonic()
        receipt = _deliver(backend, sample())
        took_s = time.monotonic() - began
        backend.faults.clear()
        assert receipt.outcome is Outcome.UNKNOWN, receipt
        assert took_s < backend.timeout_s + _SLACK_S

    def test_a_refusal_that_quotes_the_credentials_is_told_without_them(self, backend: BackendUnderTest) -> None:
        """The message stands in logs, in `tracebridge status` and in the state."""
        backend.require("unauthorized")
        secrets = backend.secrets()
        quoting = " ".join(["not known:", *secrets])
        backend.faults.add(backend.on_export(backend.unauthorized, body=quoting))
        receipt = _deliver(backend, sample())
        assert [secret for secret in secrets if secret in receipt.message] == []

    def test_several_threads_may_deliver_at_once(self, backend: BackendUnderTest) -> None:
        """One sink, many requests out; each arrives once."""
        spans = [sample() for _ in range(12)]
        with _open(backend) as sink:
            requests = [sink.join([sink.encode(span)]) for span in spans]
            with ThreadPoolExecutor(4) as threads:
                receipts = list(threads.map(sink.deliver, requests))
        assert {receipt.outcome for receipt in receipts} == {Outcome.ACCEPTED}
        _assert_stored(backend, spans)

    def test_after_trouble_the_same_sink_delivers_again(self, backend: BackendUnderTest) -> None:
        """A sink is opened once and used for days."""
        backend.require("reset")
        span = sample()
        backend.faults.add(backend.on_export(Fault(reset="before", times=2)))
        with _open(backend) as sink:
            request = sink.join([sink.encode(span)])
            outcomes = [sink.deliver(request).outcome for _ in range(3)]
        assert outcomes == [Outcome.UNKNOWN, Outcome.UNKNOWN, Outcome.ACCEPTED]
        _assert_stored(backend, [span])


@contextmanager
def _open(backend: BackendUnderTest) -> Iterator[Sink]:
    sink = backend.sink_type.open_sink(backend.settings)
    try:
        yield sink
    finally:
        sink.close()


def _deliver(backend: BackendUnderTest, *spans: Span) -> Receipt:
    with _open(backend) as sink:
        return sink.deliver(sink.join([sink.encode(span) for span in spans]))


def _assert_stored(backend: BackendUnderTest, spans: list[Span]) -> None:
    wanted = Counter((span.trace_id, span.span_id) for span in spans)
    deadline = time.monotonic() + _STORED_S
    while (stored := Counter(backend.stored())) != wanted and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    assert stored == wanted
